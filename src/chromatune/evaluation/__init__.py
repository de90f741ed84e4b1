"""Measuring colorizations: metrics on arrays and tables of them."""

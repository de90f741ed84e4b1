"""Pairs for training: colour photos, the grey photos they could have come from, and instructions."""

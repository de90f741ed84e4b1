"""Tables, figures and HTML pages: one maker for every report.

tables.py       cells ⇒ a Markdown table
pictures.py     arrays and plots ⇒ PNG or JPEG bytes, side by side, and as data URIs
versions.py     versions of libraries
page.py         sections of text, tables and pictures ⇒ one HTML file that needs nothing beside it
page.html.jinja its layout: wide and narrow, light and dark, printable
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

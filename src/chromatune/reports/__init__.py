"""Tables, figures and HTML pages for every report.

page.py          sections of text, tables and pictures ⇒ one HTML file; Markdown tables; versions of libraries
page.html.jinja  its layout: wide and narrow, light and dark, printable
pictures.py      arrays and plots ⇒ PNG or JPEG bytes, side by side, and as data URIs
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

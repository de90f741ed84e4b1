"""Tables, figures and HTML pages: one maker for every report.

tables.py       cells ⇒ a Markdown table
pictures.py     arrays and plots ⇒ PNG or JPEG bytes, side by side, and as data URIs
versions.py     versions of libraries
page.py         sections of text, tables and pictures ⇒ one HTML file that needs nothing beside it
page.html.jinja its layout: wide and narrow, light and dark, printable
"""

from chromatune.pages.page import (
    Block,
    Definitions,
    Folded,
    Page,
    Picture,
    Pictures,
    Section,
    Table,
    Text,
    render_page,
    require_pages,
)
from chromatune.pages.pictures import (
    beside,
    data_uri,
    jpeg_of,
    new_figure,
    plain_label,
    png_of,
    png_of_figure,
)
from chromatune.pages.tables import MISSING, markdown_table
from chromatune.pages.versions import installed_versions

__all__ = [
    "MISSING",
    "Block",
    "Definitions",
    "Folded",
    "Page",
    "Picture",
    "Pictures",
    "Section",
    "Table",
    "Text",
    "beside",
    "data_uri",
    "installed_versions",
    "jpeg_of",
    "markdown_table",
    "new_figure",
    "plain_label",
    "png_of",
    "png_of_figure",
    "render_page",
    "require_pages",
]

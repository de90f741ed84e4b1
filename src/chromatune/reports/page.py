"""One HTML file with all its pictures inside: a lead sentence, then sections, all text escaped; and Markdown tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import ClassVar

from chromatune.errors import MissingExtraError

TEMPLATE = "page.html.jinja"
MISSING = "–"  # stands where a row has no value


@dataclass(frozen=True)
class Text:
    """A paragraph; a strong one is a warning or a verdict."""

    kind: ClassVar[str] = "text"
    text: str
    strong: bool = False


@dataclass(frozen=True)
class Table:
    """Cells as text. The first column stays in view where the table is wider than the page.

    Attributes:
        header: of the columns; empty for none.
        rows: of cells.
        prose: cells are sentences: aligned left, and broken over lines.
        best: (row, column) of cells to be marked.
        title: stands above; empty for none.
    """

    kind: ClassVar[str] = "table"
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    prose: bool = False
    best: frozenset[tuple[int, int]] = frozenset()
    title: str = ""


@dataclass(frozen=True)
class Picture:
    """A data URI (see `data_uri`) with what stands below it."""

    src: str
    caption: str
    alt: str = ""


@dataclass(frozen=True)
class Pictures:
    """Pictures that flow side by side as the width allows; a click enlarges one of a grid.

    Attributes:
        pictures: in order.
        title: stands above; empty for none.
        across: columns of the grid on a wide screen; 0 for each picture at its own size.
    """

    kind: ClassVar[str] = "pictures"
    pictures: Sequence[Picture]
    title: str = ""
    across: int = 0


@dataclass(frozen=True)
class Definitions:
    """Terms and their explanations."""

    kind: ClassVar[str] = "definitions"
    terms: Mapping[str, str]


@dataclass(frozen=True)
class Folded:
    """Blocks that are closed until their title is clicked; a print has them open."""

    kind: ClassVar[str] = "folded"
    title: str
    blocks: Sequence[Block]


Block = Text | Table | Pictures | Definitions | Folded


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it."""

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Page:
    """A page. The lead is the one sentence to take away; sections come in the order of how many people read them."""

    title: str
    lead: str
    sections: Sequence[Section]


def require_pages(extra: str) -> None:
    """Check that what pages and plots need is installed, before work is spent on what they would show.

    Args:
        extra: of this package, that the user is to install.

    Raises:
        MissingExtraError: it is not.
    """
    for library in ("matplotlib", "jinja2"):
        if find_spec(library) is None:
            raise MissingExtraError(f"the report ({library})", extra)


def render_page(page: Page) -> str:
    """Return the page as HTML."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    source = (resources.files("chromatune.reports") / TEMPLATE).read_text(encoding="utf-8")
    return environment.from_string(source).render(page=page)


def markdown_table(lines: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table of cells, the header first; the first column is aligned left, the others right."""
    header, *body = (["\\|".join(" ".join(cell.split()).split("|")) for cell in line] for line in lines)
    written = ["| " + " | ".join(header) + " |", "| --- |" + " ---: |" * (len(header) - 1)]
    written += ["| " + " | ".join(line) + " |" for line in body]
    return "\n".join(written) + "\n"


def installed_versions(libraries: Iterable[str]) -> dict[str, str]:
    """Return the version of each library by its name; "not installed" for one that is not."""
    versions = {}
    for library in libraries:
        try:
            versions[library] = version(library)
        except PackageNotFoundError:
            versions[library] = "not installed"
    return versions

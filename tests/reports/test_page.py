"""The HTML of a page: nothing beside it, nothing unescaped, tables that scroll alone, blocks that fold."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from chromatune.errors import MissingExtraError
from chromatune.reports import (
    Block,
    Definitions,
    Folded,
    Page,
    Picture,
    Pictures,
    Section,
    Table,
    Text,
    data_uri,
    markdown_table,
    png_of,
    render_page,
    require_pages,
)

HOSTILE = '</td></title></style><script>alert("x")</script><img src=x onerror="y" \'>&amp;'
VOID = ("meta", "img", "link", "br")


class Reader(HTMLParser):
    """The page's elements with their attributes, and the texts of each kind of element."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and data.strip():
            self.texts.setdefault(self.open[-1], []).append(data)

    def with_tag(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.elements if name == tag]


def page_of(*blocks, title: str = "A title", lead: str = "A lead.") -> str:
    return render_page(Page(title, lead, [Section("A section", blocks)]))


@pytest.fixture
def picture() -> str:
    import numpy as np

    return data_uri(png_of(np.zeros((2, 2, 3), np.uint8)), "png")


def test_hostile_text_is_text_wherever_it_stands(picture):
    blocks: list[Block] = [
        Text(HOSTILE),
        Text(HOSTILE, strong=True),
        Table([HOSTILE], [[HOSTILE]], title=HOSTILE),
        Pictures([Picture(picture, HOSTILE, HOSTILE)], title=HOSTILE),
        Definitions({HOSTILE: HOSTILE}),
    ]
    html = render_page(Page(HOSTILE, HOSTILE, [Section(HOSTILE, [*blocks, Folded(HOSTILE, blocks)])]))
    read = Reader(html)
    assert not {"script", "link"} & {tag for tag, _ in read.elements}
    assert [attrs["src"] for attrs in read.with_tag("img")] == [picture] * 2
    assert all("onerror" not in attrs for _, attrs in read.elements)
    for tag in ("title", "h1", "h2", "h3", "p", "strong", "th", "td", "figcaption", "dt", "dd", "summary", "a"):
        assert read.texts[tag][0] == HOSTILE, tag
    assert {attrs["alt"] for attrs in read.with_tag("img")} == {HOSTILE}


def test_nothing_is_fetched(picture):
    html = page_of(Pictures([Picture(picture, "x")]))
    assert not re.findall(r"https?:|//[a-z]|@import|url\(", html.replace(picture, ""))


def test_the_lead_comes_first_and_sections_are_linked():
    html = render_page(Page("T", "Who is better.", [Section("One", [Text("x")]), Section("Two", [Text("y")])]))
    body = html[html.index("<body>") :]
    assert body.index("Who is better.") < body.index("One") < body.index("Two")
    read = Reader(html)
    targets = [attrs["href"] for attrs in read.with_tag("a")]
    assert targets == [f"#{attrs['id']}" for attrs in read.with_tag("section")]


def test_the_first_column_stays_and_only_a_tables_own_box_scrolls():
    html = page_of(Table(["", "a"], [["row", "1"]]))
    assert re.search(r"th:first-child, td:first-child \{[^}]*position: sticky; left: 0;[^}]*background", html)
    assert re.search(r"\.wide \{[^}]*overflow-x: auto", html)
    assert re.search(r'<div class="wide"[^>]*><table', html)
    assert "prefers-color-scheme: dark" in html
    assert "@media print" in html
    assert "width=device-width" in html


def test_the_best_cells_are_marked():
    rows = [["a", "1", "2"], ["b", "3", "4"]]
    html = page_of(Table(["", "x", "y"], rows, best=frozenset({(0, 2), (1, 1)})))
    assert re.findall(r'<td class="best">(.*?)</td>', html) == ["2", "3"]


def test_folded_blocks_are_closed_and_a_print_has_them_open():
    html = page_of(Folded("More", [Table(["a"], [["1"]]), Folded("Still more", [Text("deep")])]))
    read = Reader(html)
    assert read.with_tag("details") == [{}, {}]
    assert read.texts["summary"] == ["More", "Still more"]
    assert "deep" in read.texts["p"]
    assert "details::details-content" in html[html.index("@media print") :]


def test_pictures_of_a_grid_can_be_enlarged_by_keyboard_too(picture):
    html = page_of(Pictures([Picture(picture, "x")], across=3), Pictures([Picture(picture, "y")]))
    assert Reader(html).with_tag("figure") == [{"tabindex": "0"}, {}]
    assert "--across: 3" in html
    assert ".grid figure:focus" in html


def test_a_missing_library_is_named_with_its_extra(monkeypatch):
    monkeypatch.setattr("chromatune.reports.page.find_spec", lambda name: None if name == "jinja2" else object())
    with pytest.raises(MissingExtraError, match=r"jinja2.*chromatune\[evaluate\]"):
        require_pages("evaluate")


def test_cells_keep_their_bars_and_their_line():
    lines = markdown_table([["", "x"], ["a|b\nc", "1"]]).splitlines()
    assert lines == ["|  | x |", "| --- | ---: |", "| a\\|b c | 1 |"]

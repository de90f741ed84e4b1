"""The page of an archive: what it says of each photo, its links, and what it does in a browser."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

import numpy as np
import pytest
import skimage.data
from PIL import Image

from chromatune.cli import main
from chromatune.images.photo_files import READABLE_FORMATS
from chromatune.jobs import summary
from chromatune.jobs.archive_worker import THUMBNAIL_PX

pytest.importorskip("jinja2")

Put = Callable[..., Path]
Capture = pytest.CaptureFixture[str]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SCRIPT = "</script><script>alert(1)</script>".replace("/", "_") + "<b>&'\".png"
ODD_NAMES = ["a:b?c#d%20.png", SCRIPT, "line\nbreak.png", "p q/ä + ж.png", "p q/deep/er/é.png", "e\udcff.png"]


def index_of(folder: str = "out") -> dict[str, Any]:
    page = Path(folder, "summary.html").read_text()
    found: dict[str, Any] = json.loads(page.partition('id="index">')[2].partition("</script>")[0])
    return found


def entries_of(folder: str = "out") -> list[dict[str, Any]]:
    """What the page says of all photos, in its order."""
    found: list[dict[str, Any]] = []
    for number in range(-(-len(index_of(folder)["states"]) // summary.PAGE_PHOTOS)):
        text = Path(folder, f"{summary.DATA}{number}.js").read_text(encoding="ascii")
        found += json.loads(text.removeprefix(f"chromatunePhotos({number},").removesuffix(")\n"))
    return found


@pytest.fixture
def archive(engine, put: Put) -> None:
    """Odd names, a photo that fails, one in color, one with a warning, and a picture under another name."""
    for name in ODD_NAMES:
        put(f"photos/{name}")
    Path("photos/bad.jpg").write_bytes(b"none")
    Image.fromarray(skimage.data.coffee()[::4, ::4]).save("photos/p q/color.png")
    pages = [Image.new("L", (8, 6), level) for level in (40, 200)]
    pages[0].save("photos/two.tif", save_all=True, append_images=pages[1:])
    shutil.copy("photos/two.tif", "photos/two.tif_original")


def test_all_photos_are_there_with_links_that_lead_to_their_files(archive) -> None:
    assert main(["batch", "photos", "out", "-q"]) == 1
    index, entries = index_of(), entries_of()
    found = dict(zip((entry["name"] for entry in entries), index["states"], strict=True))
    assert len(entries) == 10
    assert (found["bad.jpg"], found["two.tif"], found["color.png"]) == ("f", "w", "s")
    assert sorted(found.values()) == ["d"] * 6 + ["f", "s", "s", "w"]
    folders = [(each["label"], each["start"], each["below"], each["depth"]) for each in index["folders"]]
    assert folders == [("", 0, 10, 0), ("p q", 7, 3, 1), ("p q/deep", 9, 1, 2), ("p q/deep/er", 9, 1, 3)]
    for entry in entries:
        for link in (entry.get("photo"), entry.get("result")):
            if link:
                assert not set(link) & set("?#<>\"'\n: ") and link.isascii()
                assert os.path.isfile(os.fsencode("out/") + unquote_to_bytes(link))
    assert {entry["name"]: entry["why"] for entry in entries if entry["why"]} == {
        "bad.jpg": [f"not a picture in a known format; accepted: {READABLE_FORMATS}"],
        "color.png": ["skipped: already in color"],
        "two.tif": ["holds 2 pictures, and number 1 is read; name another one with --page (page=)"],
        "two.tif_original": ["skipped: its name does not end in a picture's suffix; rename it to colorize it"],
    }  # fmt: skip
    page = Path("out/summary.html").read_text()
    lead = "7 of 9 photos in color, 1 failed, 1 already in color and skipped, 1 more picture skipped for its name."
    assert lead in page
    assert "http://" not in page and "https://" not in page and "<b>&" not in page


def test_thumbnails_show_before_and_after(archive) -> None:
    Image.new("I;16", (900, 600), 40_000).save("photos/large.png")
    main(["batch", "photos", "out", "-q", "--seed", "9"])
    entries = {entry["name"]: entry for entry in entries_of()}

    def thumbnail(name: str) -> np.ndarray:
        return np.asarray(Image.open(Path("out/.chromatune/thumbnails", entries[name]["thumbnail"]))).astype(int)

    both = thumbnail("large.png")
    width = THUMBNAIL_PX
    assert both.shape == (round(width * 600 / 900), 2 * width, 3)
    blueness = both[..., 2] - both[..., 0]
    assert abs(blueness[:, : width - 8]).max() <= 3 and blueness[:, width + 8 :].min() > 20
    assert thumbnail("color.png").shape == (100, 150, 3)
    assert "thumbnail" not in entries["bad.jpg"]
    before = thumbnail("large.png").sum()
    main(["batch", "photos", "out", "-q", "--seed", "1"])
    assert thumbnail("large.png").sum() != before


def test_what_is_as_before_is_not_written_again_and_what_is_left_is_shown(archive, put: Put, monkeypatch) -> None:
    monkeypatch.setattr(summary, "PAGE_PHOTOS", 4)
    main(["batch", "photos", "out", "-q"])
    files = [Path(f"out/.chromatune/summary/photos-{number}.js") for number in range(3)]
    numbers = [path.stat().st_ino for path in files]
    put("photos/z/last.png")
    main(["batch", "photos", "out", "-q"])
    assert [path.stat().st_ino == number for path, number in zip(files, numbers, strict=True)] == [True, True, False]
    Path("photos/p q/color.png").unlink()
    put("photos/p q/color.png", level=5)
    Path("photos/p q/ä + ж.png").write_bytes(b"broken")
    main(["batch", "photos", "out", "-q"])
    entries = {entry["name"]: entry for entry in entries_of()}
    assert (
        entries["ä + ж.png"]["why"][1:] == ["the result of an earlier run is kept"] and entries["ä + ж.png"]["result"]
    )


def test_records_elsewhere_lead_to_photos_and_results(archive) -> None:
    main(["batch", "photos", "deep/out", "--records-dir", "records/here", "-q"])
    for entry in entries_of("records/here"):
        for link in (entry.get("photo"), entry.get("result")):
            assert not link or os.path.isfile(os.fsencode("records/here/") + unquote_to_bytes(link))
    assert sum("result" in entry for entry in entries_of("records/here")) == 7


@pytest.mark.parametrize("name", ["thumbnails", "summary"])
def test_planted_folders_are_not_followed(archive, capsys: Capture, name: str) -> None:
    Path("outside").mkdir()
    Path("out/.chromatune").mkdir(parents=True)
    Path("out/.chromatune", name).symlink_to(Path("outside").resolve())
    assert main(["batch", "photos", "out", "-q"]) == 1
    assert os.listdir("outside") == []
    last = capsys.readouterr().err.splitlines()[-1]
    assert ("is a link, which is not followed here" in last) is (name == "summary")
    assert Path("out/two.tif").is_file()


@pytest.fixture
def chromium() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("there is no Chromium")
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, chromium_sandbox=False)
        yield browser
        browser.close()


@pytest.mark.slow
@pytest.mark.parametrize("size_px", [(1366, 900), (390, 844)])
def test_in_a_browser_photos_are_chosen_by_folder_and_result_and_compared_by_keys(
    archive, monkeypatch, chromium, size_px: tuple[int, int]
) -> None:
    from playwright.sync_api import expect

    monkeypatch.setattr(summary, "PAGE_PHOTOS", 4)
    main(["batch", "photos", "out", "-q"])
    page = chromium.new_page(viewport={"width": size_px[0], "height": size_px[1]})
    problems, asked = list[str](), list[str]()
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("dialog", lambda dialog: problems.append(dialog.message))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(Path("out/summary.html").resolve().as_uri())
    cards, names, count, said = (page.locator(each) for each in (".card", ".card .name", "#count", "#said"))
    expect(count).to_have_text("1 to 4 of 10 photos")
    expect(names.nth(0)).to_have_text("bad.jpg")  # what needs a look
    expect(names.nth(1)).to_have_text("two.tif")
    page.click("#next")
    expect(count).to_have_text("5 to 8 of 10 photos")
    page.get_by_role("button", name="Failed 1").click()
    expect(cards).to_have_count(1)
    page.get_by_role("button", name="All 10").click()
    page.select_option("#folder", label="\u00a0\u00a0\u00a0p q (3)")
    expect(names).to_have_text(["color.png", "ä + ж.png", "é.png"])
    page.go_back()
    expect(cards).to_have_count(4)
    page.go_forward()
    expect(cards).to_have_count(3)
    page.locator("button.shot").nth(1).focus()
    page.keyboard.press("Enter")
    expect(said).to_have_text("After")
    page.keyboard.press("Space")
    expect(said).to_have_text("Before")
    page.click("#large")
    expect(said).to_have_text("After")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#title")).to_have_text("p q/deep/er/é.png")
    page.keyboard.press("Escape")
    expect(page.locator("button.shot").nth(2)).to_be_focused()
    assert page.evaluate("document.documentElement.scrollWidth") == size_px[0]
    assert page.evaluate(
        "[...document.querySelectorAll('#photos img')].every(image => image.naturalWidth || !image.complete)"
    )
    assert problems == [] and all(url.startswith("file:") for url in asked)

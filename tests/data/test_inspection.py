"""What a source holds: broken photos are told of, gray and small ones too, and the sheet shows the others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from chromatune.data import Source, open_source, split_source
from chromatune.data.inspection import Inspection, inspect_source, write_contact_sheet
from chromatune.errors import DataError, PhotoError


@pytest.fixture
def source(put, draw, tmp_path: Path) -> Source:
    """Four good photos, and one or more of each that is not."""
    for index, size in enumerate(((40, 60), (50, 50), (64, 40), (100, 80))):
        put(f"good/{index}.png", draw(*size, seed=index))
    gray = draw(50, 70)[..., 0]
    put("gray.png", gray)
    put("sepia.png", np.clip(gray[..., None] * np.array([1.0, 0.95, 0.86]), 0, 255).astype(np.uint8))
    put("small.png", draw(39, 200))
    for index in range(5):
        (tmp_path / f"broken{index}.jpg").write_bytes(b"\xff\xd8\xff\xe0 cut short")
    (tmp_path / "notes.txt").write_text("")
    return open_source(tmp_path)


def test_all_is_counted_and_named(source: Source, tmp_path: Path) -> None:
    seen = []
    inspection = inspect_source(source, size_px=40, on_photo=lambda item: seen.append(item.key))
    assert seen == [item.key for item in source.items]
    assert (inspection.name, inspection.kind) == (tmp_path.name, "folder")
    assert (inspection.photos, inspection.opened, inspection.persons) == (12, 12, 0)
    assert [item.key for item in inspection.usable] == [f"good/{index}.png" for index in range(4)]
    counts = {reason: photos.count for reason, photos in inspection.skipped.items()}
    assert counts == {"not a photo's suffix": 1, "broken": 5, "too small": 1, "gray or sepia": 2}
    assert inspection.skipped["broken"].examples == ("broken0.jpg", "broken1.jpg", "broken2.jpg")
    assert inspection.skipped["broken"].messages[0].startswith("broken0.jpg: ")
    assert inspection.skipped["too small"].messages == ("small.png: 200 x 39 px",)
    assert inspection.skipped["gray or sepia"].examples == ("gray.png", "sepia.png")
    assert inspection.short_side_px == (39, 40, 50, 50, 80)
    assert inspection.long_side_px[0] == 50 and inspection.long_side_px[-1] == 200
    assert inspection.split_digest == split_source(source.items, 0.1).digest


def test_a_limit_is_spread_over_the_source(source: Source) -> None:
    inspection = inspect_source(source, limit=4, size_px=40)
    assert (inspection.photos, inspection.opened) == (12, 4)
    assert [item.key for item in inspection.usable] == ["good/1.png"]
    assert inspect_source(source, limit=99).opened == 12
    assert inspection.split_digest == inspect_source(source).split_digest


def test_a_source_of_broken_photos_is_not_fatal(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"junk")
    inspection: Inspection = inspect_source(open_source(tmp_path))
    assert inspection.usable == ()
    assert inspection.short_side_px == inspection.long_side_px == ()
    assert inspection.split_digest is None


def test_people_are_counted(put, tmp_path: Path) -> None:
    for name in ("A/A_0001.jpg", "A/A_0002.jpg", "B/B_0001.jpg"):
        put(name)
    assert inspect_source(open_source(tmp_path)).persons == 2


def test_the_sheet_shows_whole_photos(source: Source, tmp_path: Path) -> None:
    path = tmp_path / "sheet.png"
    items = inspect_source(source, size_px=40).usable
    assert write_contact_sheet(path, items, tile_px=32) == 4
    with Image.open(path) as sheet:
        assert (sheet.format, sheet.mode, sheet.size) == ("PNG", "RGB", (4 + 4 * 36, 4 + 36))
        pixels = np.asarray(sheet)
    assert (pixels[4, 4:36] == 128).all()  # above the first photo, which is wider than tall
    assert np.ptp(pixels[20, 4:36], axis=1).max() > 20
    assert write_contact_sheet(path, items[:1]) == 1  # replaced
    assert sorted(file.suffix for file in tmp_path.iterdir() if file.name.startswith(".")) == []


def test_broken_photos_are_not_on_the_sheet(source: Source, tmp_path: Path) -> None:
    assert write_contact_sheet(tmp_path / "sheet.png", source.items) == 7
    with pytest.raises(DataError, match="no photo to show"):
        write_contact_sheet(tmp_path / "none.png", source.items[:5])
    assert not (tmp_path / "none.png").exists()


def test_a_sheet_that_cannot_be_written(source: Source, tmp_path: Path) -> None:
    with pytest.raises(PhotoError, match="folder does not exist"):
        write_contact_sheet(tmp_path / "gone" / "sheet.png", source.items)

"""The table of what is known of an archive, and the names of results: never two alike, whatever comes later."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest

from chromatune.errors import DataError
from chromatune.jobs.manifest import FORMAT, Manifest, ResultNames, Row

LONG = "ä" * 125  # 250 bytes
DONE = Row("p/ä\n\udcff.jpg", "done", "1:2", "hash", "key", "p/ä\n\udcff.jpg", 3, 4, "", ("odd", "odder"))
FAILED = Row("a.jpg", "failed", "1:2", message="a\udcff.jpg: damaged")


def test_rows_come_back_sorted_whatever_the_names(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path)
    for row in (DONE, FAILED, DONE):
        manifest.put(row)
    manifest.commit()
    manifest.close()
    failed, done = Manifest(tmp_path).rows()
    assert done == DONE
    assert (failed.photo, failed.state, failed.message) == ("a.jpg", "failed", "a\\xff.jpg: damaged")


def test_what_was_not_committed_is_not_there(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path)
    manifest.put(FAILED)
    manifest.commit()
    manifest.put(DONE)
    manifest.close()
    assert [row.photo for row in Manifest(tmp_path).rows()] == ["a.jpg"]


def test_forgotten_rows_are_gone(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path)
    manifest.put(DONE)
    manifest.forget([DONE.photo])
    assert list(manifest.rows()) == []


def test_looking_makes_no_file(tmp_path: Path) -> None:
    assert list(Manifest(tmp_path / "none", read_only=True).rows()) == []
    assert not (tmp_path / "none").exists()


def test_it_leaves_no_second_file_beside_it(tmp_path: Path) -> None:
    """A write-ahead log needs shared memory, which network drives have not."""
    manifest = Manifest(tmp_path)
    manifest.put(DONE)
    manifest.commit()
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.sqlite"]


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    Manifest(tmp_path).close()
    table = sqlite3.connect(tmp_path / "manifest.sqlite")
    table.execute(f"PRAGMA user_version = {FORMAT + 1}")
    table.commit()
    table.close()
    with pytest.raises(DataError, match="a newer version"):
        Manifest(tmp_path)


def test_a_folder_that_is_taken_away_is_called_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "out" / "hidden").mkdir(parents=True)
    manifest = Manifest(tmp_path / "out" / "hidden")
    (tmp_path / "out").rename(tmp_path / "away")
    with pytest.raises(DataError, match="out is gone"):  # noqa: PT012 - SQLite finds out as late as it likes
        manifest.put(DONE)
        manifest.commit()


@pytest.mark.parametrize(
    ("photos", "names"),
    [
        (["a.jpg", "a.png", "p/a.jpg"], [("a.jpg", "a.jpg.png"), ("a.png", "a.png.png"), ("p/a.jpg", "p/a.jpg.png")]),
        (["a.gif"], [("a.gif.png", "a.gif.png")]),
        (["a.gif", "a.gif.png"], [("a.gif~2.png", "a.gif~2.png"), ("a.gif.png", "a.gif.png.png")]),
        (["A.jpg", "a.jpg"], [("A.jpg", "A.jpg.png"), ("a~2.jpg", "a.jpg~2.png")]),
        (["\u00e9.jpg", "e\u0301.jpg"], [("\u00e9.jpg", "\u00e9.jpg.png"), ("e\u0301~2.jpg", "e\u0301.jpg~2.png")]),
    ],
)
def test_names(photos: list[str], names: list[tuple[str, str]]) -> None:
    assert list(ResultNames({}).names_of(photos).values()) == names


def test_a_name_that_is_there_stays_with_its_photo() -> None:
    assert ResultNames({"a.jpg": "a.jpg"}).names_of(["A.jpg", "a.jpg"])["a.jpg"][0] == "a.jpg"
    assert ResultNames({"a.jpg": "a.jpg"}).names_of(["A.jpg", "a.jpg"])["A.jpg"][0] == "A~2.jpg"


@pytest.mark.parametrize("photo", [f"p/{LONG}.jpg", f"{LONG}.gif", f"{'x' * 251}.gif", "\udcff" * 251 + ".bmp"])
def test_no_name_is_too_long_for_a_disk(photo: str) -> None:
    for key in ResultNames({}).names_of([photo])[photo]:
        name = os.path.basename(key)
        assert len(os.fsencode(name)) <= 255
        assert name.endswith((".jpg", ".png", ".bmp"))


def test_long_names_that_differ_at_their_end_stay_apart() -> None:
    photos = [f"{'x' * 250}{end}.gif" for end in "ab"]
    names = ResultNames({}).names_of(photos)
    assert names[photos[0]] != names[photos[1]]

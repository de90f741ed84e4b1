"""The table of what is known of an archive."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from chromatune.errors import DataError
from chromatune.jobs.manifest import FORM, Manifest, Row

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


def test_a_newer_form_is_refused(tmp_path: Path) -> None:
    Manifest(tmp_path).close()
    table = sqlite3.connect(tmp_path / "manifest.sqlite")
    table.execute(f"PRAGMA user_version = {FORM + 1}")
    table.commit()
    table.close()
    with pytest.raises(DataError, match="another version"):
        Manifest(tmp_path)


def test_a_folder_that_is_taken_away_is_called_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "out" / "hidden").mkdir(parents=True)
    manifest = Manifest(tmp_path / "out" / "hidden")
    (tmp_path / "out").rename(tmp_path / "away")
    with pytest.raises(DataError, match="out is gone"):  # noqa: PT012 - SQLite finds out as late as it likes
        manifest.put(DONE)
        manifest.commit()

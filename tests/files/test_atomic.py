"""Files and folders are complete or absent, whatever happens on the way."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from chromatune.files import atomic_folder, atomic_write, write_json


def no_room(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*"))


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_file_that_cannot_be_written_stays_as_it_was(tmp_path, monkeypatch, failing):
    target = tmp_path / "file"
    target.write_bytes(b"old")
    monkeypatch.setattr(os, failing, no_room)
    with pytest.raises(OSError, match="No space left") as error:
        atomic_write(target, b"new")
    assert error.value.filename == str(target)
    assert target.read_bytes() == b"old"
    assert left_in(tmp_path) == ["file"]


def test_an_existing_file_is_replaced_only_where_that_is_wanted(tmp_path):
    target = tmp_path / "file"
    atomic_write(target, b"1", overwrite=False)
    with pytest.raises(FileExistsError):
        atomic_write(target, b"2", overwrite=False)
    assert target.read_bytes() == b"1"
    atomic_write(target, b"3")
    assert target.read_bytes() == b"3"
    assert left_in(tmp_path) == ["file"]


def test_what_a_link_points_at_is_replaced_only_where_that_is_wanted(tmp_path):
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to("real")
    atomic_write(tmp_path / "link", b"new", follow_link=True)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"
    atomic_write(tmp_path / "link", b"newer")
    assert not (tmp_path / "link").is_symlink()
    assert (tmp_path / "link").read_bytes() == b"newer"
    assert (tmp_path / "real").read_bytes() == b"new"


def test_json_is_readable_and_never_holds_what_json_has_not(tmp_path):
    write_json(tmp_path / "a.json", {"ö": [1, 2.5]})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"ö": [1, 2.5]}
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"nan": float("nan")})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"ö": [1, 2.5]}


def test_a_folder_takes_its_name_when_it_is_complete(tmp_path):
    target = tmp_path / "deep" / "model"
    with atomic_folder(target) as new:
        (new / "a").write_text("1")
        assert not target.exists()
    with atomic_folder(target) as new:
        (new / "b").write_text("2")
        assert left_in(target) == ["a"]
    assert left_in(tmp_path / "deep") == ["b", "model"]


@pytest.mark.parametrize("failing", ["inside", "fsync", "rename"])
def test_a_folder_that_cannot_be_completed_leaves_the_old_one(tmp_path, monkeypatch, failing):
    target = tmp_path / "model"
    with atomic_folder(target) as new:
        (new / "a").write_text("1")
    if failing == "fsync":
        monkeypatch.setattr(os, "fsync", no_room)
    elif failing == "rename":
        rename = Path.rename
        monkeypatch.setattr(
            Path, "rename", lambda self, other: no_room() if self.name.endswith(".new") else rename(self, other)
        )

    def replace() -> None:
        with atomic_folder(target) as new:
            (new / "b").write_text("2")
            if failing == "inside":
                raise ZeroDivisionError

    with pytest.raises((OSError, ZeroDivisionError)):
        replace()
    assert left_in(tmp_path) == ["a", "model"]


def test_what_a_killed_process_left_is_cleared(tmp_path):
    for leftover in (".model.new", ".model.old"):
        (tmp_path / leftover).mkdir()
        (tmp_path / leftover / "torn").write_text("x")
    with atomic_folder(tmp_path / "model") as new:
        assert left_in(new) == []
        (new / "a").write_text("1")
    assert left_in(tmp_path) == ["a", "model"]

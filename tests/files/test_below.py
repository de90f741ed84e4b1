"""Keys below a folder: none reads, writes or deletes anything outside, whatever links lie on its way."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from chromatune.files import below, is_key, key_problem, open_below, remove_below, stat_below, write_below

BAD_KEYS = [
    "", "/", "/etc/x.jpg", "..", "../x.jpg", "a/../x.jpg", "a/..", "./x.jpg", "a/./x.jpg", "a//x.jpg", "//x.jpg", "a/",
    "..\\x.jpg", "a\\..\\x.jpg", "\\x.jpg", "\\\\server\\x.jpg", "C:/x.jpg", "c:\\x.jpg", "C:", "a\0.jpg", "\0",
    "\ud800.jpg", "d/" * 256 + "x", ("d" * 99 + "/") * 41,
]  # fmt: skip
GOOD_KEYS = [
    "x.jpg",
    "a/b/x.jpg",
    "..x.jpg",
    "x..",
    "a..b/x",
    "a\\b.jpg",
    " .jpg",
    "c\n.jpg",
    "\udcff.jpg",
    "B: Oma.jpg",
]


@pytest.fixture(params=["descriptors", "paths"])
def root(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with another one beside it; on systems with descriptors of folders and on those without."""
    if request.param == "paths":
        monkeypatch.setattr(below, "HAS_DESCRIPTORS", False)
    elif not below.HAS_DESCRIPTORS:
        pytest.skip("no descriptors of folders here")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "x.jpg").write_bytes(b"years of work")
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


def uses(root: Path, key: str) -> list[Callable[[], object]]:
    return [
        lambda: open_below(root, key),
        lambda: stat_below(root, key),
        lambda: write_below(root, key, b"new"),
        lambda: remove_below(root, key),
    ]


def refused(use: Callable[[], object], number: int) -> None:
    with pytest.raises(OSError, match=".") as error:
        use()
    assert error.value.errno == number, error.value


def is_untouched(outside: Path) -> bool:
    return os.listdir(outside) == ["x.jpg"] and (outside / "x.jpg").read_bytes() == b"years of work"


@pytest.mark.parametrize("key", BAD_KEYS)
def test_no_key_leads_out(root: Path, key: str) -> None:
    assert not is_key(key)
    assert key_problem(key)
    for use in uses(root, key):
        refused(use, errno.EINVAL)


@pytest.mark.parametrize("key", [*GOOD_KEYS, ("d" * 99 + "/") * 40 + "x"])
def test_a_file_below_is_written_read_and_deleted(root: Path, key: str) -> None:
    if len(key) > 3900 and not below.HAS_DESCRIPTORS:
        pytest.skip("with its folder before it, longer than a path may be")
    assert is_key(key)
    for data in (b"one", b"three"):
        write_below(root, key, data)
        with open_below(root, key) as file:
            assert file.read() == data
    assert stat_below(root, key).st_size == 5
    remove_below(root, key)
    remove_below(root, key)
    refused(lambda: stat_below(root, key), errno.ENOENT)
    if len(key) < 3900:
        assert not [path for path in root.rglob("*") if path.is_file()]


def test_the_folder_itself_may_be_a_link(root: Path) -> None:
    (root.parent / "link").symlink_to(root)
    write_below(root.parent / "link", "a/x.jpg", b"new")
    assert (root / "a" / "x.jpg").read_bytes() == b"new"


@pytest.mark.parametrize("target", ["../outside", "inside"])
def test_a_folder_that_is_a_link_is_not_entered(root: Path, target: str) -> None:
    (root / "inside").mkdir()
    (root / "sub").symlink_to(target)
    for key in ("sub/x.jpg", "sub/deeper/x.jpg"):
        for use in uses(root, key):
            refused(use, errno.ELOOP)
    assert is_untouched(root.parent / "outside")
    assert not list((root / "inside").iterdir())


@pytest.mark.parametrize("target", ["../outside/x.jpg", "nowhere", "../outside", "link.jpg"])
def test_a_link_is_replaced_or_deleted_and_what_it_points_at_stays(root: Path, target: str) -> None:
    link = root / "link.jpg"
    link.symlink_to(target)
    refused(lambda: open_below(root, "link.jpg"), errno.ELOOP)
    write_below(root, "link.jpg", b"new")
    assert not link.is_symlink()
    assert link.read_bytes() == b"new"
    link.unlink()
    link.symlink_to(target)
    remove_below(root, "link.jpg")
    assert not link.is_symlink()
    assert is_untouched(root.parent / "outside")


def test_pipes_and_folders_are_not_read(root: Path) -> None:
    os.mkfifo(root / "pipe.jpg")
    (root / "folder.jpg").mkdir()
    refused(lambda: open_below(root, "pipe.jpg"), errno.EINVAL)
    refused(lambda: open_below(root, "folder.jpg"), errno.EISDIR)


def test_a_write_that_fails_leaves_the_older_file_and_no_other(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_below(root, "a/x.jpg", b"old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as error:
        write_below(root, "a/x.jpg", b"new")
    assert error.value.filename == str(root / "a/x.jpg")
    assert (root / "a" / "x.jpg").read_bytes() == b"old"
    assert os.listdir(root / "a") == ["x.jpg"]

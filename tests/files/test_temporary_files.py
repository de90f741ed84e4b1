"""Atomic writes: what a kill leaves, where there are no hard links, and whose temporary files are deleted."""

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from chromatune.files import atomic, atomic_write


def no_links(*_):
    raise OSError(errno.EPERM, "Operation not permitted")


def dead_process():
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def part(folder, process, *, age=7200, machine=None, name="a.png"):
    path = folder / f".{name}.{machine or atomic._machine()}-{process}-0123456789abcdef.part"
    path.write_bytes(b"half")
    os.utime(path, (time.time() - age,) * 2)
    return path


@pytest.fixture(autouse=True)
def _nothing_swept_yet(monkeypatch):
    monkeypatch.setattr(atomic, "_SWEPT", set())


def test_orphans_of_dead_processes_are_swept_when_a_file_is_written(tmp_path):
    orphans = [part(tmp_path, dead_process(), name=name) for name in ("a.png", "two words.tif", ".hidden")]
    atomic_write(tmp_path / "new.png", b"new")
    assert not any(orphan.exists() for orphan in orphans)
    assert os.listdir(tmp_path) == ["new.png"]


def test_what_may_be_in_use_is_never_swept(tmp_path):
    dead = dead_process()
    kept = [
        part(tmp_path, os.getpid()),  # a living process
        part(tmp_path, os.getppid()),
        part(tmp_path, dead, age=60),  # it may have ended a moment ago, on a machine of the same name
        part(tmp_path, dead, machine="00000000"),  # another machine that shares the folder
        tmp_path / "film.mp4.part",  # another program's
        tmp_path / ".a.part",
        tmp_path / f".a.{dead}.part",
    ]
    for path in kept[4:]:
        path.write_bytes(b"")
        os.utime(path, (0, 0))
    atomic_write(tmp_path / "new.png", b"new")
    assert all(path.exists() for path in kept)


def test_the_name_says_which_process_writes_and_fits_every_file_system(tmp_path, monkeypatch):
    names: list[str] = []
    replace = os.replace

    def noted(old: Path, new: Path) -> None:
        names.append(old.name)
        replace(old, new)

    monkeypatch.setattr(os, "replace", noted)
    for name in ("a.png", "写" * 80 + ".png", "x" * 250 + ".png"):
        atomic_write(tmp_path / name, b"data")
        found = atomic.PART_NAME.fullmatch(names[-1])
        assert found is not None
        assert int(found["process"]) == os.getpid()
        assert found["machine"] == atomic._machine()
        assert len(names[-1].encode()) <= 255


@pytest.mark.parametrize("missing", [["link"], ["link", "rename"]])
def test_without_hard_links_no_empty_file_has_the_name_at_any_moment(missing, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "link", no_links)
    target = tmp_path / "a.png"
    states: list[bool] = []

    def watched(rename: Callable[[Path, Path], None]) -> Callable[[Path, Path], None]:
        def run(old: Path, new: Path) -> None:
            states.append(target.exists())
            rename(old, new)

        return run

    if "rename" in missing:
        monkeypatch.setattr(atomic, "_rename_without_replacing", no_links)
        monkeypatch.setattr(os, "replace", watched(os.replace))
    else:
        monkeypatch.setattr(atomic, "_rename_without_replacing", watched(atomic._rename_without_replacing))
    atomic_write(target, b"data", overwrite=False)
    assert states == [False]
    assert target.read_bytes() == b"data"
    with pytest.raises(FileExistsError):
        atomic_write(target, b"other", overwrite=False)
    assert target.read_bytes() == b"data"
    assert os.listdir(tmp_path) == ["a.png"]


KILLED = """
import os, signal, sys
from pathlib import Path
from chromatune.files import atomic

def no_links(*_):
    raise OSError(1, "Operation not permitted")

def kill(*_):
    os.kill(os.getpid(), signal.SIGKILL)

os.link = no_links
if sys.argv[2] == "rename":
    atomic._rename_without_replacing = kill
elif sys.argv[2] == "replace":
    atomic._rename_without_replacing = no_links
    os.replace = kill
else:
    os.fsync = kill
atomic.atomic_write(Path(sys.argv[1]), b"data", overwrite=False)
"""


@pytest.mark.parametrize("step", ["fsync", "rename", "replace"])
@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL")
def test_after_a_kill_the_same_call_succeeds(step, tmp_path):
    target = tmp_path / "a.png"
    done = subprocess.run([sys.executable, "-c", KILLED, str(target), step], check=False)
    assert done.returncode == -signal.SIGKILL
    assert not target.exists()
    (orphan,) = tmp_path.iterdir()
    os.utime(orphan, (0, 0))
    atomic_write(target, b"data", overwrite=False)
    assert os.listdir(tmp_path) == ["a.png"]

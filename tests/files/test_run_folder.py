"""Run folders: the same run resumes; another run, and a second process, are refused in one line each."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
from pathlib import Path

import pytest

from chromatune.errors import DataError, OptionsError
from chromatune.files import claim_run_folder, discard_run_folder, is_run_folder, lock_run_folder

FACTS = {"model": "mini", "steps": (1, 2), "nested": {"a": 1}}


def hold(folder: Path, entered, leave) -> None:
    """In a process of its own: holds the folder until told to leave."""
    with lock_run_folder(folder, "run.json", FACTS, "a run"):
        entered.set()
        leave.wait(60)


def test_the_same_work_goes_on(tmp_path):
    folder = tmp_path / "made" / "here"
    for expected in (True, False, False):
        with lock_run_folder(folder, "run.json", FACTS, "a run") as new:
            assert new is expected
    assert json.loads((folder / "run.json").read_text()) == {"model": "mini", "steps": [1, 2], "nested": {"a": 1}}


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"model": "mini-base"}, "holds a run with model='mini', and now it is 'mini-base'"),
        ({"nested": {"a": 2}}, r"holds a run with nested=\{'a': 1\}, and now it is \{'a': 2\}"),
        ({"added": 1}, "holds a run with added=None, and now it is 1"),
        ({"model": "x" * 100_000}, "and now it is 'x{59}…; give another --out"),
    ],
)
def test_other_work_is_refused_and_changes_nothing(tmp_path, other, said):
    with lock_run_folder(tmp_path, "run.json", FACTS, "a run"):
        pass
    before = (tmp_path / "run.json").read_bytes()
    with pytest.raises(OptionsError, match=said), lock_run_folder(tmp_path, "run.json", FACTS | other, "a run"):
        pytest.fail("entered")
    assert (tmp_path / "run.json").read_bytes() == before


def test_what_may_change_is_written_anew(tmp_path):
    for command in ("first", "second"):
        facts = FACTS | {"command": command}
        with lock_run_folder(tmp_path, "run.json", facts, "a run", ignored=("command",)):
            pass
    assert json.loads((tmp_path / "run.json").read_text())["command"] == "second"


def test_a_second_process_is_one_line_and_a_dead_one_holds_nothing(tmp_path):
    context = multiprocessing.get_context("spawn")
    entered, leave = context.Event(), context.Event()
    holder = context.Process(target=hold, args=(tmp_path, entered, leave))
    holder.start()
    try:
        assert entered.wait(60)
        with (
            pytest.raises(OptionsError, match=r"is in use: another process is working there; .*give another --out$"),
            lock_run_folder(tmp_path, "run.json", FACTS, "a run"),
        ):
            pytest.fail("entered")
    finally:
        holder.kill()
        holder.join()
    with lock_run_folder(tmp_path, "run.json", FACTS, "a run") as new:
        assert not new


def test_an_error_inside_lets_go(tmp_path):
    with pytest.raises(ZeroDivisionError), lock_run_folder(tmp_path, "run.json", FACTS, "a run"):
        raise ZeroDivisionError
    with lock_run_folder(tmp_path, "run.json", FACTS, "a run"):
        pass


@pytest.mark.parametrize("torn", [b"", b"[]", b"{", b'{"model": "mi', b"null", b"\xff\xfe", b"[" * 200_000, b"{}"])
def test_a_torn_note_is_one_line(tmp_path, torn):
    (tmp_path / "run.json").write_bytes(torn)
    with (
        pytest.raises(DataError, match="run.json is damaged, so a run cannot resume there; give another --out"),
        lock_run_folder(tmp_path, "run.json", FACTS, "a run"),
    ):
        pytest.fail("entered")
    assert (tmp_path / "run.json").read_bytes() == torn


def test_a_file_in_the_way_is_one_line(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with (
        pytest.raises(DataError, match="cannot be written"),
        lock_run_folder(tmp_path / "file", "run.json", FACTS, "a run"),
    ):
        pytest.fail("entered")


def test_work_that_never_began_leaves_no_folder_and_deletes_nothing_else(tmp_path):
    for kept in ((), ("photo.jpg",)):
        folder = tmp_path / "run"
        with lock_run_folder(folder, "run.json", FACTS, "a run"):
            (folder / "cache").mkdir()
            for name in kept:
                (folder / name).write_text("mine")
        discard_run_folder(folder, "run.json")
        assert sorted(path.name for path in folder.glob("*")) == list(kept)
        assert folder.exists() is bool(kept)


def test_a_pipe_is_no_file_of_facts(tmp_path):
    os.mkfifo(tmp_path / "run.json")
    with (
        pytest.raises(DataError, match="cannot be read"),
        lock_run_folder(tmp_path, "run.json", FACTS, "a run"),
    ):
        pass


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_one_line(tmp_path, monkeypatch, number):
    pytest.importorskip("fcntl")

    def refuse(*given):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", refuse)
    for advice in ("", "do this"):
        with (
            pytest.raises(DataError, match=f"no file locks .*; {advice or 'give another --out, on a local disk'}$"),
            lock_run_folder(tmp_path, "run.json", FACTS, "a run", without_locks=advice),
        ):
            pytest.fail("entered")


def test_a_folder_can_be_claimed_without_a_lock(tmp_path, monkeypatch):
    pytest.importorskip("fcntl")
    monkeypatch.setattr("fcntl.flock", lambda *given: pytest.fail("locked"))
    for _ in range(2):
        claim_run_folder(tmp_path, "run.json", FACTS, "a run", other="DEST")
    assert is_run_folder(tmp_path)
    with pytest.raises(OptionsError, match="holds a run with"):
        claim_run_folder(tmp_path, "run.json", FACTS | {"seed": 9}, "a run", other="DEST")

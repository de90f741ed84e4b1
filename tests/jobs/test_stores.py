"""A folder behind a URL as a store: in memory, and where files grow while they are written."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from chromatune.cli import main
from chromatune.errors import MissingExtraError, OptionsError, PhotoError
from chromatune.jobs.remote_folder import RemoteFolder
from chromatune.jobs.store_protocol import SourceGoneError
from chromatune.jobs.stores import LocalFolder, check_stores, open_store

fsspec = pytest.importorskip("fsspec")
from fsspec.implementations.local import LocalFileSystem  # noqa: E402 - where fsspec is missing, all are skipped


@pytest.fixture
def memory() -> Iterator:
    """fsspec's store in memory, empty."""
    store = fsspec.filesystem("memory")
    store.store.clear()
    store.pseudo_dirs[:] = [""]
    yield store
    store.store.clear()


@pytest.fixture
def photos(memory, put) -> list[str]:
    """Photos in memory://scans: two good ones, a broken one; and what is none, or hidden, or a result."""
    for number, name in enumerate(("a.png", "deep/b.png")):
        memory.pipe_file(f"/scans/{name}", put(f"{number}.png", level=90 + number).read_bytes())
    memory.pipe_file("/scans/bad.jpg", b"none")
    for name in ("a.color.png", "notes.txt", ".hidden/c.png", "__MACOSX/d.png"):
        memory.pipe_file(f"/scans/{name}", b"x")
    return ["a.png", "bad.jpg", "deep/b.png"]


def test_photos_are_found_as_in_a_folder(photos):
    found = RemoteFolder("memory://scans/").find()
    assert (list(found.stamps), found.own_results) == (photos, 1)
    assert all(RemoteFolder("memory://scans").stamp(key) == stamp for key, stamp in found.stamps.items())


def test_a_changed_file_has_another_stamp(photos, memory):
    store = RemoteFolder("memory://scans")
    before = store.stamp("bad.jpg")
    memory.pipe_file("/scans/bad.jpg", b"some")
    memory.store["/scans/bad.jpg"].created += timedelta(seconds=1)  # a clock may be coarse
    assert store.stamp("bad.jpg") != before
    assert store.stamp("nobody.png") is None is store.stamp("deep")


# A store whose files grow while they are written: fsspec's files of this machine under another name
Renaming: Any = type("Renaming", (LocalFileSystem,), {"protocol": "renaming"})
fsspec.register_implementation("renaming", Renaming, clobber=True)


@pytest.mark.parametrize("url", ["memory://out", "renaming://{folder}/out"])
def test_what_is_written_is_there_and_nothing_else(memory, tmp_path, url):
    store = RemoteFolder(url.format(folder=tmp_path))
    store.write("deep/line\nbreak.png", b"one")
    store.write("deep/line\nbreak.png", b"three")
    assert store.open("deep/line\nbreak.png").read() == b"three"
    assert store.size("deep/line\nbreak.png") == 5 and store.size("other.png") is None
    assert list(store._listing()) == ["deep/line\nbreak.png"]
    store.remove("deep/line\nbreak.png")
    store.remove("deep/line\nbreak.png")
    assert store.size("deep/line\nbreak.png") is None


def test_a_write_that_fails_leaves_the_older_file(memory, tmp_path, monkeypatch):
    store = RemoteFolder(f"renaming://{tmp_path}/out")
    store.write("a.png", b"older")
    monkeypatch.setattr(Renaming, "mv", lambda *given: (_ for _ in ()).throw(RuntimeError("no line")))
    with pytest.raises(OSError, match="no line"):
        store.write("a.png", b"newer")
    assert (tmp_path / "out" / "a.png").read_bytes() == b"older"
    assert RemoteFolder(f"renaming://{tmp_path}/out").find().stamps.keys() == {"a.png"}


def test_what_is_gone(photos, memory):
    store = RemoteFolder("memory://scans")
    with pytest.raises(PhotoError, match="memory://scans/nobody.png: no longer there"):
        store.open("nobody.png")
    with pytest.raises(SourceGoneError):
        RemoteFolder("memory://nowhere").find()


def test_it_travels_without_its_connection(photos):
    store = RemoteFolder("memory://scans")
    store.find()
    assert set(vars(store)) - {"name"}
    there = pickle.loads(pickle.dumps(store))  # noqa: S301 - as Ray does
    assert there.name == store.name and list(there.find().stamps) == photos


def test_urls_and_paths(tmp_path, monkeypatch):
    assert open_store("scans") == LocalFolder("scans") and open_store("file:///scans") == LocalFolder("/scans")
    with pytest.raises(OptionsError, match="nonsense://x: unknown kind of URL"):
        check_stores(open_store("nonsense://x"), open_store("out"))
    with pytest.raises(OptionsError, match="may not be written among the photos"):
        check_stores(open_store("memory://scans"), open_store("memory://scans/out"))
    monkeypatch.setattr("chromatune.jobs.remote_folder.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match="needs the extra 'ray'"):
        check_stores(open_store("memory://scans"), open_store("memory://out"))


def test_an_archive_from_url_to_url(engine, photos, memory, capsys):
    command = ["batch", "memory://scans", "memory://out", "--records-dir", "records", "-q"]
    assert main(command) == 1
    assert "memory://scans/bad.jpg: " in capsys.readouterr().err
    assert sorted(memory.find("/out")) == ["/out/a.png", "/out/deep/b.png"]
    assert json.loads(Path("records/failures.jsonl").read_text())["photo"] == "bad.jpg"
    passes = len(engine.calls)
    memory.rm_file("/scans/bad.jpg")
    assert main(command) == 0 and len(engine.calls) == passes
    memory.rm_file("/out/a.png")
    assert main(command) == 0 and len(engine.calls) == passes + 1
    capsys.readouterr()
    assert main(["batch", "memory://scans", "memory://other", "--records-dir", "records"]) == 2
    assert "holds results with results='memory://out'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["memory://scans", "memory://out"], "memory://out is a URL; give --records-dir DIR"),
        (["memory://nothing", "out"], "memory://nothing is gone"),
        (["s4://scans", "out"], "s4://scans: unknown kind of URL"),
        (["scans", "out", "--engine", "dask"], "--engine 'dask': unknown; accepted: local, ray"),
        (
            ["scans", "out", "--engine", "ray", "--ray-address", "a"],
            "--ray-address 'a': no Ray cluster at this address",
        ),
        (["scans", "out", "--ray-address", "a:1"], "--ray-address goes with --engine ray"),
    ],
)
def test_wrong_usage_is_one_line(memory, folder, capsys, arguments, said):
    Path("scans").mkdir()
    assert main(["batch", *arguments]) != 0
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_a_large_photo_behind_a_url_is_read_by_its_header_first(engine, photos, memory, monkeypatch):
    assert main(["batch", "memory://scans", "whole", "-q"]) == 1
    monkeypatch.setattr("chromatune.jobs.remote_folder.DOWNLOADED_BYTES", 10)
    monkeypatch.setattr(type(memory), "cat_file", lambda *given, **more: pytest.fail("downloaded"))
    memory.rm_file("/scans/bad.jpg")
    assert main(["batch", "memory://scans", "out", "-q"]) == 0
    for name in ("a.png", "deep/b.png"):
        assert Path("out", name).read_bytes() == Path("whole", name).read_bytes()

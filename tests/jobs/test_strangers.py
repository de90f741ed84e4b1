"""A stranger's keys, links and records in an archive: nothing outside of it is read, written or deleted."""

from __future__ import annotations

import json
import os
import sqlite3
import struct
import tarfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from chromatune.cli import main
from chromatune.errors import OptionsError, PhotoError
from chromatune.jobs import remote_folder
from chromatune.jobs.manifest import LINKED_JOURNAL

Put = Callable[..., Path]
Capture = pytest.CaptureFixture[str]
MANIFEST = Path("out/.chromatune/manifest.sqlite")
RECORDS = [".lock", ".chromatune", ".chromatune/archive.json", *(str(MANIFEST)[4:] + end for end in ("", "-journal"))]
WORK = b"years of work"


@pytest.fixture
def outside(folder: Path) -> Path:
    """A file beside the archive."""
    path = folder / "outside" / "notes.png"
    path.parent.mkdir()
    path.write_bytes(WORK)
    return path


@pytest.fixture
def archive(engine, put: Put, outside: Path) -> None:
    """photos/a.png and photos/sub/b.png in out/."""
    put("photos/a.png")
    put("photos/sub/b.png", level=90)
    assert main(["batch", "photos", "out", "-q"]) == 0


def is_untouched(outside: Path) -> bool:
    return os.listdir(outside.parent) == [outside.name] and outside.read_bytes() == WORK


def run(capsys: Capture) -> tuple[int, list[str]]:
    capsys.readouterr()
    code = main(["batch", "photos", "out", "-q"])
    return code, capsys.readouterr().err.splitlines()


def alter(*statements: str) -> None:
    table = sqlite3.connect(MANIFEST)
    for statement in statements:
        table.execute(statement)
    table.commit()
    table.close()


def test_keys_of_a_store_that_lead_out_are_skipped_in_one_line(
    engine, put: Put, folder: Path, outside: Path, capsys: Capture
) -> None:
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    data = put("1.png").read_bytes()
    bad = ["../outside/x.png", "a/../../outside/x.png", "/abs.png", f"{outside.parent}/x.png", "..\\x.png", "C:/x.png"]
    for name in ["good.png", *bad]:
        memory.pipe_file("/scans/good.png", data)
        memory.store[f"/scans/{name}"] = memory.store["/scans/good.png"]
    assert main(["batch", "memory://scans", "out", "-q"]) == 0
    memory.store.clear()
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert said[0].startswith(
        "warning: skipped 6 files in memory://scans with a name that could lead out of the folder, such as "
    )
    assert is_untouched(outside)
    assert [path.name for path in Path("out").rglob("*.png")] == ["good.png"]


def test_watching_says_what_it_skips(engine, folder: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    def listed_once(find: Callable[[], object]) -> Iterator[dict[str, object]]:
        find()
        yield {}
        raise KeyboardInterrupt

    monkeypatch.setattr("chromatune.jobs.archive.arrivals", listed_once)
    Path("photos").mkdir()
    Path("photos/a\\..\\x.png").write_bytes(b"none")
    main(["batch", "photos", "out", "--watch", "-q"])
    said = capsys.readouterr().err
    start = "warning: skipped 1 file in photos with a name that could lead out of the folder, such as "
    assert said == start + "'a\\\\..\\\\x.png'\n"


def test_a_planted_link_is_replaced_by_the_result(archive: None, outside: Path, capsys: Capture) -> None:
    Path("out/a.png").unlink()
    Path("out/a.png").symlink_to(outside)
    assert run(capsys) == (0, [])
    assert is_untouched(outside)
    assert not Path("out/a.png").is_symlink()


def test_a_planted_folder_is_one_line_for_its_photos_and_the_others_go_on(
    archive: None, put: Put, outside: Path, capsys: Capture
) -> None:
    Path("out/sub/b.png").unlink()
    Path("out/sub").rmdir()
    Path("out/sub").symlink_to(outside.parent)
    put("photos/c.png", level=70)
    code, said = run(capsys)
    assert code == 1
    line = "out/sub/b.png: cannot be written (it is a link, which is not followed here); put a folder in its place"
    assert f"error: {line}" in said
    assert json.loads(Path("out/failures.jsonl").read_text())["message"] == line
    assert is_untouched(outside)
    assert Path("out/c.png").is_file()


@pytest.mark.parametrize("name", ["summary.html", "failures.jsonl", ".chromatune/summary/photos-0.js"])
@pytest.mark.parametrize("fails", [False, True])
def test_planted_links_of_what_a_run_writes_are_replaced(
    archive: None, outside: Path, capsys: Capture, name: str, fails: bool
) -> None:
    if fails:
        Path("photos/bad.png").write_bytes(b"none")
    Path("out", name).unlink(missing_ok=True)
    Path("out", name).symlink_to(outside)
    assert run(capsys)[0] == int(fails)
    assert is_untouched(outside)
    assert not Path("out", name).is_symlink()


@pytest.mark.parametrize("name", RECORDS)
def test_planted_links_of_records_are_refused_in_one_line(
    archive: None, outside: Path, capsys: Capture, name: str
) -> None:
    path = Path("out", name)
    if path.is_dir():
        path.rename("elsewhere")
        path.symlink_to(Path("elsewhere").resolve())
    else:
        path.unlink(missing_ok=True)
        path.symlink_to(outside)
    for command in (["batch", "photos", "out"], ["batch", "photos", "out", "--dry-run"]):
        capsys.readouterr()
        if name in (".lock", ".chromatune/archive.json") and "--dry-run" in command:
            continue  # it opens neither
        assert main(command) == 1
        said = capsys.readouterr().err.splitlines()
        assert len(said) == 1
        assert said[0].startswith(f"error: out/{name}")
        assert "is a link, which is not followed here" in said[0]
        assert "; delete it" in said[0]
    assert is_untouched(outside)


def test_a_result_that_was_named_elsewhere_is_neither_deleted_nor_shown(
    archive: None, outside: Path, put: Put, capsys: Capture
) -> None:
    good = put("outside/notes.png").read_bytes()
    for key in ("../outside/notes.png", str(outside), "sub/../../outside/notes.png"):
        alter(f"UPDATE photos SET result = CAST('{key}' AS BLOB) WHERE photo = CAST('a.png' AS BLOB)")
        for command in ([], ["--strength", "0.5"]):
            assert main(["batch", "photos", "out", "-q", *command]) == 1
            said = capsys.readouterr().err
            assert "manifest.sqlite is damaged (the row of 'a.png' points outside the archive); delete it" in said
            assert said.count("\n") == 1
    assert outside.read_bytes() == good


def test_a_link_in_the_place_of_a_result_is_no_result(archive: None, put: Put, capsys: Capture) -> None:
    put("outside/notes.png", level=11)
    size = Path("outside/notes.png").stat().st_size
    Path("out/a.png").unlink()
    Path("out/a.png").symlink_to(Path("outside/notes.png").resolve())
    alter(f"UPDATE photos SET result_bytes = {size}")
    run(capsys)
    assert not Path("out/a.png").is_symlink()


DAMAGES = {
    "photo is text": "UPDATE photos SET photo = CAST(photo AS TEXT)",
    "photo is a number": "UPDATE photos SET photo = 5 WHERE rowid = 1",
    "photo leads out": "UPDATE photos SET photo = CAST('../a.png' AS BLOB) WHERE rowid = 1",
    "result is a number": "UPDATE photos SET result = 5",
    "result has NUL": "UPDATE photos SET result = x'612E00706E67' WHERE rowid = 1",
    "result is a record": "UPDATE photos SET result = CAST('.chromatune/archive.json' AS BLOB) WHERE rowid = 1",
    "result is the page": "UPDATE photos SET result = CAST('summary.html' AS BLOB) WHERE rowid = 1",
    "result of another photo": "UPDATE photos SET result = CAST('SUB/B.png' AS BLOB) WHERE photo = x'612E706E67'",
    "result of none": "UPDATE photos SET result = x'' WHERE rowid = 1",
    "odd state": "UPDATE photos SET state = 'odd'",
    "size is text": "UPDATE photos SET result_bytes = 'many'",
    "negative size": "UPDATE photos SET result_bytes = -5",
    "pixels are text": "UPDATE photos SET pixels = 'x'",
    "pixels are a fraction": "UPDATE photos SET pixels = 0.5",
    "pixels are too many": "UPDATE photos SET pixels = 9223372036854775807",
    "message is a blob": "UPDATE photos SET message = x'ff00'",
    "stamp is a blob": "UPDATE photos SET stamp = x'ff00'",
    "content is a number that stays text": "UPDATE photos SET content = x'00'",
    "warnings are null": "UPDATE photos SET warnings = 'null'",
    "warnings are a number": "UPDATE photos SET warnings = '5'",
    "warnings are objects": "UPDATE photos SET warnings = '[{\"a\": [1]}]'",
    "warnings are deep": f"UPDATE photos SET warnings = '{'[' * 100_000}'",
    "warnings are no JSON": "UPDATE photos SET warnings = 'x'",
    "a huge text": "UPDATE photos SET stamp = CAST(zeroblob(3000000) AS TEXT)",
    "a trigger": "CREATE TRIGGER t AFTER INSERT ON photos BEGIN DELETE FROM photos; END",
    "an index of an expression": "CREATE INDEX i ON photos(abs(random()))",
    "another table": "CREATE TABLE more (a)",
    "another column": "ALTER TABLE photos ADD COLUMN more TEXT DEFAULT 'x'",
    "a view": "CREATE VIEW v AS SELECT * FROM photos",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_table_is_one_line_that_says_what_to_do(archive: None, capsys: Capture, damage: str) -> None:
    try:
        alter(DAMAGES[damage])
    except sqlite3.OperationalError as error:
        pytest.skip(f"this SQLite refuses to make it: {error}")
    code, said = run(capsys)
    assert code == 1
    assert len(said) == 1
    assert "manifest.sqlite is damaged (" in said[0]
    assert said[0].endswith("); delete it, and all photos are colorized again")


def test_a_view_in_place_of_the_table_is_not_evaluated(archive: None, capsys: Capture) -> None:
    endless = "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT x'61' photo, 'done' state FROM r"
    alter("DROP TABLE photos", f"CREATE VIEW photos AS {endless}")
    code, said = run(capsys)
    assert (code, len(said)) == (1, 1)


def test_tables_of_another_program_stay_as_they_are(archive: None, folder: Path, capsys: Capture) -> None:
    """A hard link, unlike a symbolic one, cannot be told from a file."""
    other = folder / "other.sqlite"
    table = sqlite3.connect(other)
    table.execute("CREATE TABLE years_of_work (a)")
    table.commit()
    table.close()
    before = other.read_bytes()
    MANIFEST.unlink()
    os.link(other, MANIFEST)
    code, said = run(capsys)
    assert other.read_bytes() == before
    assert (code, len(said)) == (1, 1)


def test_a_journal_that_names_another_file_does_not_delete_it(archive: None, outside: Path, capsys: Capture) -> None:
    """SQLite rolls back what a journal says, and deletes the file of several databases that it names."""
    table = sqlite3.connect(MANIFEST)
    page_size, pages = (table.execute(f"PRAGMA {what}").fetchone()[0] for what in ("page_size", "page_count"))
    table.close()
    name = os.fsencode(outside)
    header = LINKED_JOURNAL + struct.pack(">IIIII", 0, 0, pages, 512, page_size)
    end = struct.pack(">I", 2**30 // page_size + 1) + name
    end += struct.pack(">II", len(name), sum(struct.unpack(f"{len(name)}b", name)) % 2**32) + LINKED_JOURNAL
    MANIFEST.with_name("manifest.sqlite-journal").write_bytes(header.ljust(512, b"\0") + end)
    code, said = run(capsys)
    assert is_untouched(outside)
    assert code == 1
    assert "manifest.sqlite-journal is damaged" in said[0]


@pytest.mark.parametrize("note", ["", "[]", "[" * 100_000, '{"source": 1e999}', '{"source": {"a": []}}', "null", "\0"])
def test_a_damaged_note_is_one_line(archive: None, capsys: Capture, note: str) -> None:
    Path("out/.chromatune/archive.json").write_text(note)
    code, said = run(capsys)
    assert code in (1, 2)
    assert len(said) == 1


def test_a_large_note_is_not_read(archive: None, capsys: Capture) -> None:
    with Path("out/.chromatune/archive.json").open("r+b") as file:
        file.truncate(10**11)
    code, said = run(capsys)
    assert code == 1
    assert "more than 4000000 bytes" in said[0]


def test_a_long_file_of_a_small_photo_is_refused_before_it_is_read(archive: None, put: Put, capsys: Capture) -> None:
    os.truncate(put("photos/long.png"), 1_134_217_728)
    code, said = run(capsys)
    assert code == 1
    assert said[0].startswith("error: photos/long.png: the file has 1,134 MB, too much for its 0.0 million pixels")


def test_a_long_layer_is_refused_before_it_is_read(archive: None, put: Put, capsys: Capture) -> None:
    os.truncate(put("layers/a.png"), 1_134_217_728)
    assert main(["batch", "photos", "out", "-q", "--hints-dir", "layers"]) == 1
    assert "layers/a.png: the file has 1,134 MB, too much for its 0.0 million pixels" in capsys.readouterr().err


def test_a_long_result_is_not_read_for_the_summary(archive: None, capsys: Capture) -> None:
    os.truncate("out/a.png", 10**12)
    alter(f"UPDATE photos SET result_bytes = {10**12} WHERE photo = CAST('a.png' AS BLOB)")
    assert run(capsys) == (0, [])


def test_a_server_that_sends_without_end_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    fsspec = pytest.importorskip("fsspec")
    monkeypatch.setattr(remote_folder, "DOWNLOADED_BYTES", 1000)
    monkeypatch.setattr(remote_folder, "STREAMED_STORES", {"memory"})
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/endless/a.png", b"x" * 100_000)
    monkeypatch.setattr(type(memory), "info", lambda self, path, **more: {"type": "file", "size": None})
    with pytest.raises(PhotoError, match="and the server does not state its size"):
        remote_folder.RemoteFolder("memory://endless").open("a.png")
    memory.store.clear()


def test_a_server_that_lists_folders_without_end_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    fsspec = pytest.importorskip("fsspec")
    monkeypatch.setattr(remote_folder, "STREAMED_STORES", {"memory"})
    memory = fsspec.filesystem("memory")
    for number in range(9):
        memory.pipe_file(f"/listed/{number}/a.png", b"x")
    assert len(remote_folder.RemoteFolder("memory://listed").find().stamps) == 9
    monkeypatch.setattr(remote_folder, "MOST_FOLDERS", 5)
    with pytest.raises(OptionsError, match="memory://listed: more than 5 folders; give one of its subfolders"):
        remote_folder.RemoteFolder("memory://listed").find()
    memory.store.clear()


def test_a_listing_without_end_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("aiohttp")
    sent = 0

    class Endless(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            nonlocal sent
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.end_headers()
            with suppress(OSError):
                while sent < 10**8:  # of a listing that is read whole
                    sent += self.wfile.write(b'<a href="a.jpg">a</a>\n' * 1000)

        def log_message(self, *_: object) -> None:
            pass

    monkeypatch.setattr(remote_folder, "MOST_LISTING_BYTES", 1_000_000)
    with ThreadingHTTPServer(("127.0.0.1", 0), Endless) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(OptionsError, match="lists more than 1 MB of names; give one of its subfolders"):
            remote_folder.RemoteFolder(f"http://127.0.0.1:{server.server_port}/scans").find()
        server.shutdown()
    assert sent < 10**8


def test_a_store_that_is_none_is_one_line(folder: Path) -> None:
    pytest.importorskip("fsspec")
    Path("a.zip").write_bytes(b"PK")
    with pytest.raises(OptionsError, match="zip://::a.zip: cannot be opened .*; check the URL"):
        remote_folder.RemoteFolder("zip://::a.zip").find()


def test_a_file_that_its_store_cannot_give_does_not_end_the_run(engine, folder: Path, put: Put, capsys) -> None:
    """It says nothing of the others."""
    pytest.importorskip("fsspec")
    put("photos/a.png")
    with tarfile.open("a.tar", "w") as archive:
        archive.add("photos/a.png", "scans/a.png")
        link = tarfile.TarInfo("scans/b.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    assert main(["batch", "tar://scans::a.tar", "out", "-q"]) == 1
    said = capsys.readouterr().err.splitlines()
    assert "scans::a.tar/b.png: cannot be read (" in said[0]
    assert Path("out/a.png").is_file()

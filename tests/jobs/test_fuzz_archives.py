"""Archives as strangers may leave them, at random but seeded, in a process with little memory and few files.

Whatever a table, a note, a link or a key says: one line an error, and nothing outside of the archive is touched.
Slow: `make slow` runs it.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROUNDS = 150
MOST_BYTES = 3 << 30  # of address space; most of it are libraries
MOST_FILES = 64
LONGEST_SECONDS = 1200
TESTS = Path(__file__).parents[1]

STATE = ".chromatune"
COLUMNS = "photo state stamp content settings result result_bytes pixels message warnings finished_at".split()
VALUES = [
    "NULL", "0", "-1", "0.5", "1e999", "9223372036854775807", "''", "x''", "x'00'", "x'ff'", "'[[[[1]]]]'", "'null'",
    "'{\"a\": []}'", "zeroblob(20000000)", "printf('%.*c', 50000, '[')", "'done'", "CAST('a.png' AS BLOB)",
    "CAST('.chromatune/archive.json' AS BLOB)", "CAST('../outside/work.png' AS BLOB)",
    "CAST('b/../../outside/work.png' AS BLOB)",
]  # fmt: skip
SCHEMAS = [
    "CREATE TRIGGER t AFTER INSERT ON photos BEGIN UPDATE photos SET result = CAST('../outside/work.png' AS BLOB); END",
    "CREATE VIEW v AS SELECT * FROM photos", "CREATE INDEX i ON photos (result)", "CREATE TABLE t (a)",
    "DROP TABLE photos", "ALTER TABLE photos RENAME TO p", "ALTER TABLE photos ADD COLUMN x DEFAULT 5",
    "PRAGMA user_version = 7", "PRAGMA journal_mode = WAL", "PRAGMA page_size = 65536", "DELETE FROM photos",
]  # fmt: skip
PLACES = [
    "a.png", "b", "b/c.png", "summary.html", "failures.jsonl", ".lock", STATE, f"{STATE}/manifest.sqlite",
    f"{STATE}/manifest.sqlite-journal", f"{STATE}/manifest.sqlite-wal", f"{STATE}/archive.json",
]  # fmt: skip
OUTSIDE = ["../outside", "../outside/work.png", "../../outside/work.png"]
TARGETS = [*OUTSIDE, "nowhere", "/dev/null", "/dev/zero", ".", "a.png"]
PARTS = [
    "..", ".", "", "a", "b c", "..a", "C:", "\\", "..\\..", "\\\\host", "~", "%2e%2e", "outside", "-o", "\x1b[2J", "\0",
]  # fmt: skip
ENDINGS = ["/x.png", "x.png", ".png", "\\x.png"]
NOTES = [
    "", "[]", "null", "[" * 200_000, '{"source": ' * 20_000, "\0", '{"source": 1e999}', '{"photo": ["x"]}\n', "5\n",
]  # fmt: skip


@pytest.mark.parametrize("door", ["tables", "notes", "links", "keys"])
def test_an_archive_from_a_stranger(tmp_path: Path, door: str) -> None:
    done = subprocess.run(
        [sys.executable, __file__, door], cwd=tmp_path, capture_output=True, timeout=LONGEST_SECONDS, check=False
    )
    assert done.returncode == 0, done.stderr.decode(errors="replace")[-3000:]


def flipped(path: Path, rng: random.Random) -> None:
    data = bytearray(path.read_bytes())
    for _ in range(rng.choice((1, 8, 64))):
        data[rng.randrange(len(data))] = rng.randrange(256)
    path.write_bytes(data[: rng.randrange(len(data))] if rng.random() < 0.2 else data)


def spoil_table(out: Path, rng: random.Random) -> None:
    path = out / STATE / "manifest.sqlite"
    kind = rng.random()
    if kind < 0.3:
        flipped(path, rng)
        return
    table = sqlite3.connect(path)
    for _ in range(rng.choice((1, 2))):
        change = f"UPDATE photos SET {rng.choice(COLUMNS)} = {rng.choice(VALUES)} WHERE rowid % 2 = {rng.randrange(2)}"
        with contextlib.suppress(sqlite3.Error):  # some of it SQLite itself refuses
            table.execute(change if kind < 0.8 else rng.choice(SCHEMAS))
            table.commit()
    table.close()


def spoil_note(out: Path, rng: random.Random) -> None:
    path = out / rng.choice((f"{STATE}/archive.json", "failures.jsonl", f"{STATE}/manifest.sqlite-journal"))
    match rng.randrange(3):
        case 0:
            path.write_text(rng.choice(NOTES))
        case 1:
            path.write_bytes(rng.randbytes(rng.choice((1, 100, 5000))))
        case _:
            with path.open("ab") as file:  # sparse
                file.truncate(rng.choice((10**7, 10**11)))


def plant(out: Path, rng: random.Random) -> None:
    path = out / rng.choice(PLACES)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    match rng.randrange(4):
        case 0:
            os.mkfifo(path)
        case 1:
            path.mkdir()
        case _:
            path.symlink_to(rng.choice(TARGETS))


def list_keys(out: Path, rng: random.Random) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.store.clear()
    memory.pipe_file("/scans/good.png", Path("photos/a.png").read_bytes())
    for _ in range(20):
        key = "/".join(rng.choice(PARTS) for _ in range(rng.randrange(5))) + rng.choice(ENDINGS)
        memory.store[f"/scans/{key}"] = memory.store["/scans/good.png"]


def spared(out: Path) -> dict[str, bytes]:
    """All files but those of the archive."""
    files = (path for top in (Path("outside"), Path("photos")) for path in top.rglob("*"))
    names = sorted(set(os.listdir()) - {str(out)})
    return {str(path): path.read_bytes() for path in files if path.is_file()} | {"": json.dumps(names).encode()}


SPOIL: dict[str, Callable[[Path, random.Random], None]] = {
    "tables": spoil_table, "notes": spoil_note, "links": plant, "keys": list_keys,
}  # fmt: skip


def try_to_harm(door: str) -> None:
    """Run archives of one kind, each spoiled in another way; raise an AssertionError where one does harm."""
    from chromatune import colorizer
    from chromatune.cli import main

    make_engine = importlib.import_module("conftest").make_engine  # of the tests
    setattr(colorizer, "load_backend", make_engine().open)  # noqa: B010 - for as long as the process lives
    rng, out = random.Random(f"archives {door}"), Path("out")
    source = "memory://scans" if door == "keys" else "photos"
    for number in range(ROUNDS):
        shutil.rmtree(out, ignore_errors=True)
        if door != "keys":
            shutil.copytree("whole", out)
            with contextlib.suppress(OSError):
                os.remove(out / rng.choice(("a.png", "b/c.png", "none")))
        SPOIL[door](out, rng)
        before = spared(out)
        printed, errors = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(errors):
            code = main(["batch", source, "out", "-q", *rng.choice(([], ["--dry-run"], ["--seed", "3"]))])
        lines = errors.getvalue().splitlines()
        assert code in (0, 1, 2), (number, code)
        assert all(line.startswith(("error: ", "warning: ", "note: ")) and line.isprintable() for line in lines), lines
        assert spared(out) == before, (number, lines)


def make_archive() -> None:
    from PIL import Image

    from chromatune.cli import main

    for name, level in (("a", 90), ("b/c", 120)):
        path = Path(f"photos/{name}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (24, 16), level).save(path)
    Path("photos/bad.png").write_bytes(b"none")
    assert main(["batch", "photos", "whole", "-q"]) == 1
    Path("outside").mkdir()
    shutil.copy("photos/a.png", "outside/work.png")


if __name__ == "__main__":
    import resource

    sys.path.insert(0, str(TESTS))
    make_archive()
    for limit, most in ((resource.RLIMIT_AS, MOST_BYTES), (resource.RLIMIT_NOFILE, MOST_FILES)):
        resource.setrlimit(limit, (most, most))
    try_to_harm(sys.argv[1])

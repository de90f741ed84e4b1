"""`chromatune batch`: what it prints, and its exit codes."""

from __future__ import annotations

import errno
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import wait
from pathlib import Path
from typing import Any

import pytest
import skimage.data
from PIL import Image

from chromatune.cli import main, terminal
from chromatune.jobs.stores import LocalFolder

Put = Callable[..., Path]
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def archive(put: Put) -> None:
    for name in ("a.png", "p/b.tif", "p/c.png"):
        put(f"photos/{name}")
    Path("photos/bad.jpg").write_bytes(b"none")


def test_results_failures_and_page(engine, archive, capsys: Capture) -> None:
    assert main(["batch", "photos", "out"]) == 1
    output = capsys.readouterr()
    assert output.out == "out/summary.html\n"
    errors = output.err.splitlines()
    assert errors[0].startswith("error: photos/bad.jpg: not a picture")
    assert errors[1].startswith("note: 3 photos in ")
    assert errors[2:] == ["note: 1 photo has no result; see out/failures.jsonl"]
    assert sorted(path.name for path in Path("out").rglob("*.*") if ".chromatune" not in str(path)) == [
        ".lock", "a.png", "b.tif", "c.png", "failures.jsonl", "summary.html",
    ]  # fmt: skip
    page = Path("out/summary.html").read_text()
    assert "3 of 4 photos in color, 1 failed." in page
    assert "not a picture" in page
    assert len(list(Path("out/.chromatune/thumbnails").rglob("*.webp"))) == 3
    Path("photos/bad.jpg").unlink()
    assert main(["batch", "photos", "out"]) == 0
    assert capsys.readouterr().err == "note: 3 photos are already done\n"
    assert not Path("out/failures.jsonl").exists()


def test_photos_in_color_are_counted_and_listed(engine, archive, capsys: Capture) -> None:
    Path("photos/bad.jpg").unlink()
    Image.fromarray(skimage.data.coffee()[::4, ::4]).save("photos/p/coffee.png")
    assert main(["batch", "photos", "out"]) == 0
    told = (
        "note: 1 photo is already in color and was skipped; give --colored copy to copy such photos, or --colored "
        "recolor to colorize them"
    )
    assert capsys.readouterr().err.splitlines()[-1] == told
    assert not Path("out/p/coffee.png").exists()
    page = Path("out/summary.html").read_text()
    assert "3 of 4 photos in color, 1 already in color and skipped." in page
    assert main(["batch", "photos", "out"]) == 0
    assert capsys.readouterr().err.splitlines() == ["note: 4 photos are already done", told]
    assert main(["batch", "photos", "out", "--colored", "copy"]) == 0
    assert capsys.readouterr().err.splitlines()[-1] == "note: 1 photo is already in color and was copied"
    assert Path("out/p/coffee.png").read_bytes() == Path("photos/p/coffee.png").read_bytes()
    assert "4 of 4 photos in color, 1 of them already in color and copied." in Path("out/summary.html").read_text()
    assert main(["batch", "photos", "out", "--colored", "blue"]) == 2
    assert capsys.readouterr().err == "error: --colored 'blue': unknown; accepted: skip, copy, recolor\n"


def test_quiet_is_quiet(engine, archive, capsys: Capture) -> None:
    Path("photos/bad.jpg").unlink()
    assert main(["batch", "photos", "out", "-q"]) == 0
    assert capsys.readouterr().err == ""


def test_a_dry_run_says_what_and_why_and_changes_nothing(engine, archive, capsys: Capture) -> None:
    assert main(["batch", "photos", "out", "--dry-run"]) == 0
    output = capsys.readouterr()
    assert output.out.splitlines() == [f"new\t{name}" for name in ("a.png", "bad.jpg", "p/b.tif", "p/c.png")]
    assert output.err == "note: to be done: 4 new; already done: 0\n"
    assert not Path("out").exists()
    main(["batch", "photos", "out"])
    Path("out/a.png").unlink()
    capsys.readouterr()
    assert main(["batch", "photos", "out", "--dry-run"]) == 0
    assert capsys.readouterr().err == "note: to be done: 1 result missing, 1 failed before; already done: 2\n"
    assert not Path("out/a.png").exists()
    assert engine.loads == [("mini", None)]


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("photos photos", "results may not replace the photos"),
        ("none out", "no such folder"),
        ("photos out --glob *.xyz", "no photos found"),
        ("photos out --hints-dir none", "no such folder; give a folder of painted layers"),
        ("photos out --hints-dir photos/p", "is inside the photo folder"),
        ("photos out --hints-dir photos --no-recompose", "leave out --no-recompose"),
        ("photos out --workers 0", "--workers"),
        ("photos out --steps 0", "--steps 0"),
    ],
)
def test_wrong_usage_is_one_line(engine, archive, capsys: Capture, typed: str, said: str) -> None:
    assert main(["batch", *typed.split()]) == 2
    errors = capsys.readouterr().err
    assert said in errors
    assert errors.count("\n") == 1
    assert engine.loads == []


def test_options_and_patterns_reach_the_model(engine, archive, capsys: Capture) -> None:
    assert main(["batch", "photos", "out", "--glob", "p/*", "--seed", "5", "--device", "cpu", "--model", "mini"]) == 0
    assert [call[0].seed for call in engine.calls] == [5, 5]
    assert engine.loads == [("mini", "cpu")]


def test_an_unknown_model_is_told_before_anything_is_made(engine, archive, capsys: Capture) -> None:
    assert main(["batch", "photos", "out", "--model", "unknown"]) == 1
    assert "unknown model" in capsys.readouterr().err


def test_the_page_is_the_same_whatever_the_order(engine, archive) -> None:
    main(["batch", "photos", "out", "-q", "--workers", "3"])
    main(["batch", "photos", "again", "-q", "--glob", "p/*"])
    main(["batch", "photos", "again", "-q"])
    for name in ("summary.html", ".chromatune/summary/photos-0.js"):
        assert Path("out", name).read_bytes() == Path("again", name).read_bytes()


def test_a_log_gets_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    clock = iter(range(0, 1000, 20))
    monkeypatch.setattr("chromatune.cli.terminal.time.monotonic", lambda: float(next(clock)))
    with terminal.photo_rate("colorizing", 10) as advance:
        for _ in range(4):
            advance()
    assert capsys.readouterr().err.splitlines() == [
        "colorizing 2/10, 0.05 photos/s, 3 min left",
        "colorizing 4/10, 0.05 photos/s, 2 min left",
    ]
    assert [terminal.format_duration(seconds) for seconds in (5, 90, 7300)] == ["5 s", "2 min", "2 h 2 min"]


def test_ctrl_c_is_one_line_that_says_how_to_go_on(engine, archive, capsys: Capture, monkeypatch) -> None:
    """The signal comes with the first result, once the run waits for results; the next one waits for its handler."""
    write, written = LocalFolder.write, list[str]()
    waiting, handled = threading.Event(), threading.Event()

    def wait_for_results(pending: Any, **more: Any) -> Any:
        waiting.set()
        return wait(pending, **more)

    def write_and_interrupt(self: LocalFolder, key: str, data: bytes, modified_ns: int | None) -> None:
        assert (handled if written else waiting).wait(60)
        write(self, key, data, modified_ns)
        written.append(key)
        if len(written) == 1:
            signal.raise_signal(signal.SIGINT)

    def handle(number: int, frame: object) -> None:
        handled.set()
        raise KeyboardInterrupt

    monkeypatch.setattr(LocalFolder, "write", write_and_interrupt)
    monkeypatch.setattr("chromatune.jobs.engine.wait", wait_for_results)
    own = signal.signal(signal.SIGINT, handle)
    try:
        assert main(["batch", "photos", "out", "--workers", "1", "-q"]) == 130
    finally:
        signal.signal(signal.SIGINT, own)
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: interrupted; ")
    assert last.endswith("of 4 photos done; run the same command to resume")
    assert main(["batch", "photos", "out", "-q"]) == 1
    assert sorted(written) == ["a.png", "p/b.tif", "p/c.png"]


def test_results_get_the_times_of_their_photos_where_that_is_wanted(engine, archive) -> None:
    os.utime("photos/a.png", (0, 315532800))
    for number, (words, kept) in enumerate([([], False), (["--keep-times"], True)]):
        main(["batch", "photos", f"out{number}", "-q", *words])
        main(["colorize", "photos/a.png", "-o", f"one{number}.png", "-q", *words])
        for path in (f"out{number}/a.png", f"one{number}.png"):
            assert (Path(path).stat().st_mtime == 315532800) is kept


def test_sidecar_files_are_counted(engine, archive, capsys: Capture) -> None:
    for name in ("a.xmp", "p/b.tif.XMP"):
        Path("photos", name).write_text("<x/>")
    main(["batch", "photos", "out"])
    assert "note: 2 XMP sidecars copied beside the results" in capsys.readouterr().err.splitlines()


def test_folders_of_their_own_settings_and_replaced_results_are_told(engine, archive, capsys: Capture) -> None:
    Path("photos/bad.jpg").unlink()
    Path("photos/p/chromatune.toml").write_text('prompt = "warm"\nsize = 64\n')
    main(["batch", "photos", "out"])
    told = "note: settings in 1 chromatune.toml (prompt, size) take precedence over the command line"
    assert capsys.readouterr().err.splitlines()[0] == told
    main(["batch", "photos", "out", "--seed", "3", "--prompt", "cold"])
    errors = capsys.readouterr().err.splitlines()
    assert errors[1].startswith(
        "note: 3 photos were colorized with other settings and will be colorized again; to keep"
    )
    assert sorted((call[0].prompt, call[0].seed) for call in engine.calls[-3:]) == [("cold", 3)] + 2 * [("warm", 3)]


def test_a_page_is_a_number(engine, archive, capsys: Capture) -> None:
    for page, said in (("all", "--page all is for chromatune colorize"), ("0", "--page '0': accepted is a number")):
        assert main(["batch", "photos", "out", "--page", page]) == 2
        assert said in capsys.readouterr().err
    assert main(["batch", "photos", "out", "--page", "1", "--glob", "*.png", "-q"]) == 0


def test_pictures_under_other_names_are_told(engine, archive, capsys: Capture) -> None:
    Path("photos/a.png").rename("photos/a.png_original")
    main(["batch", "photos", "out", "-q"])
    said = "warning: skipped 1 picture by name, such as 'a.png_original'; give them a name that ends in .jpg, .tif … to"
    assert capsys.readouterr().err.splitlines()[0] == f"{said} colorize them"


def test_a_destination_without_locks_takes_results_where_the_records_are_elsewhere(
    engine, archive, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock = pytest.importorskip("fcntl").flock

    def refuse_in_out(file: int, operation: int) -> None:
        if Path("out/.lock").exists() and os.fstat(file).st_ino == Path("out/.lock").stat().st_ino:
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
        flock(file, operation)

    monkeypatch.setattr("fcntl.flock", refuse_in_out)
    assert main(["batch", "photos", "out", "-q"]) == 1
    said = "error: out: this file system has no file locks (No locks available); give --records-dir DIR, a folder on a"
    assert capsys.readouterr().err == f"{said} local disk\n"
    Path("photos/bad.jpg").unlink()
    command = ["batch", "photos", "out", "--records-dir", "records", "-q"]
    assert main(command) == 0
    assert capsys.readouterr().out == "records/summary.html\n"
    assert {path.name for path in Path("out").iterdir()} == {".chromatune", ".lock", "a.png", "p"}
    passes = len(engine.calls)
    assert main(command) == 0 and len(engine.calls) == passes
    Path("out/a.png").unlink()
    assert main(command) == 0 and len(engine.calls) == passes + 1
    capsys.readouterr()
    Path("other").mkdir()
    Image.new("L", (8, 8)).save("other/a.png")
    assert main(["batch", "other", "out", "--records-dir", "new", "-q"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: out holds results with records_dir='") and said.count("/new'") == 1


def test_a_records_folder_with_other_files_is_refused(engine, archive, capsys: Capture) -> None:
    assert main(["batch", "photos", "out", "--records-dir", "photos"]) == 2
    said = "photos is not empty and was not made by chromatune batch; give a new or empty folder as --records-dir"
    assert capsys.readouterr().err == f"error: {said}\n"

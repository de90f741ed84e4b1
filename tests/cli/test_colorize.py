"""`chromatune colorize` in this process, with a model pass that needs no torch, and once with a real one."""

from __future__ import annotations

import io
import os
import sys
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from chromatune.cli import main
from chromatune.cli.fields import flag_of
from chromatune.images import IMAGE_SUFFIXES, read_photo
from chromatune.options import ColorizeOptions

Put = Callable[..., Path]
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def stdin(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    def give(data: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))

    return give


def lines(text: str) -> list[str]:
    return text.splitlines()


def level(path: str | Path) -> int:
    """The gray of a photo or a result."""
    return int(np.asarray(Image.open(path).convert("L"))[0, 0])


def test_help_describes_every_option_in_its_own_words(capsys: Capture) -> None:
    assert main(["colorize", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for field, info in ColorizeOptions.model_fields.items():
        assert flag_of(ColorizeOptions, field) in text
        assert str(info.description) in text


def test_results_are_beside_their_photos(engine, put: Put, capsys: Capture) -> None:
    photos = [str(put("a.png")), str(put("p/b.png"))]
    assert main(["colorize", *photos]) == 0
    output = capsys.readouterr()
    assert lines(output.out) == ["a.color.png", "p/b.color.png"]
    assert output.err == ""
    assert level("a.color.png") == 100
    assert engine.loads == [("mini", None)]


def test_options_reach_the_engine(engine, put: Put) -> None:
    typed = "--model m --device cpu --prompt warm --negative-prompt dull --steps 3 --seed 5 --strength 0.5 --size 64"
    more = "--guidance-scale 2 --image-guidance-scale 1.5 --no-recompose --quiet"
    assert main(["colorize", str(put("a.png")), *typed.split(), *more.split()]) == 0
    assert engine.loads == [("m", "cpu")]
    options = ColorizeOptions(
        prompt="warm",
        negative_prompt="dull",
        steps=3,
        seed=5,
        strength=0.5,
        size_px=64,
        guidance_scale=2,
        image_guidance_scale=1.5,
        recompose=False,
    )
    assert engine.calls == [(engine.info.resolve(options),)]


def test_defaults_are_the_options_own(engine, put: Put) -> None:
    assert main(["colorize", str(put("a.png"))]) == 0
    assert engine.calls == [(engine.info.resolve(ColorizeOptions()),)]


def test_as_many_photos_as_asked_for_go_through_the_model_at_once(engine, put: Put) -> None:
    photos = [str(put(f"{index}.png")) for index in range(9)]
    assert main(["colorize", *photos]) == 0
    assert main(["colorize", *photos[:4], "--batch-size", "3", "--overwrite"]) == 0
    together = [len(call) for call in engine.calls]
    assert (sorted(together[:2]), sorted(together[2:])) == ([1, 8], [1, 3])  # which worker is first is open


def test_quiet_prints_failures_only(engine, put: Put, capsys: Capture) -> None:
    assert main(["colorize", "-q", str(put("a.png")), "gone.png"]) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert len(lines(output.err)) == 1


def test_folders_are_made_with_their_parents(engine, put: Put) -> None:
    assert main(["colorize", str(put("a.png")), "-o", "new/er/x.png"]) == 0
    assert main(["colorize", str(put("b.png")), str(put("c.png")), "-o", "out/put"]) == 0
    assert Path("new/er/x.png").is_file()
    assert sorted(os.listdir("out/put")) == ["b.png", "c.png"]


def test_a_folder_that_cannot_be_made(engine, put: Put, capsys: Capture) -> None:
    Path("file").touch()
    assert main(["colorize", str(put("a.png")), "-o", "file/x.png"]) == 1
    assert lines(capsys.readouterr().err) == ["error: file: cannot be made (File exists); choose another place with -o"]
    assert engine.loads == []


def test_variants_have_numbers_and_the_first_is_the_models_own(engine, put: Put, capsys: Capture) -> None:
    assert main(["colorize", str(put("a.png")), "--variants", "3", "--seed", "7"]) == 0
    names = ["a.color-1.png", "a.color-2.png", "a.color-3.png"]
    assert lines(capsys.readouterr().out) == names
    assert [level(name) for name in names] == [100] * 3
    assert len(engine.loads) == 1
    pictures = [Path(name).read_bytes() for name in names]
    assert main(["colorize", "a.png", "--seed", "7"]) == 0
    assert main(["colorize", "a.png", "-o", "third.png", "--seed", "7", "--variant", "3"]) == 0
    assert [Path(name).read_bytes() for name in ("a.color.png", "third.png")] == [pictures[0], pictures[2]]
    assert len(set(pictures)) == 3


def test_variants_take_the_steps_that_they_need_to_differ(engine, put: Put) -> None:
    own, more = engine.info.steps, engine.info.variant_steps

    def passes() -> list[tuple[int, int]]:
        found = sorted((each.steps, each.seed) for call in engine.calls for each in call)
        engine.calls.clear()
        return found

    assert main(["colorize", str(put("a.png")), "--variants", "3", "--seed", "5"]) == 0
    assert passes() == [(own, 5), (more, 6), (more, 7)]  # the model's own pass is shared
    assert main(["colorize", str(put("b.png")), "--variants", "2", "--steps", "1"]) == 0
    assert passes() == [(1, 0), (1, 1)]
    assert main(["colorize", str(put("c.png")), "--variants", "2", "--no-recompose"]) == 0
    assert passes() == [(own, 0), (more, 1)]


def test_variants_are_printed_photo_by_photo(engine, put: Put, capsys: Capture) -> None:
    assert main(["colorize", str(put("a.png")), str(put("b.png")), "--variants", "2"]) == 0
    assert lines(capsys.readouterr().out) == ["a.color-1.png", "a.color-2.png", "b.color-1.png", "b.color-2.png"]


def test_a_bad_photo_does_not_stop_the_others(engine, put: Put, capsys: Capture) -> None:
    Path(put("text.jpg")).write_text("no picture")
    Path("empty.png").touch()
    Path("album").mkdir()
    bad = ["text.jpg", "gone.png", "album", "empty.png"]
    good = [str(put(f"{name}.png")) for name in "abc"]
    typed = [bad[0], good[0], *bad[1:3], good[1], bad[3], good[2]]
    assert main(["colorize", *typed, "--batch-size", "2"]) == 1
    output = capsys.readouterr()
    assert lines(output.out) == ["a.color.png", "b.color.png", "c.color.png"]
    assert len(lines(output.err)) == len(bad)
    assert all(any(line.startswith(f"error: {name}") for line in lines(output.err)) for name in bad)
    assert "chromatune batch album " in output.err


def test_a_bad_photo_is_told_once_for_all_variants(engine, put: Put, capsys: Capture) -> None:
    unwritable = str(put("b" * 246 + ".png"))  # with ".color-1" longer than a file name may be
    Path("album").mkdir()
    assert main(["colorize", "gone.png", unwritable, "album", str(put("a.png")), "--variants", "3"]) == 1
    output = capsys.readouterr()
    assert len(lines(output.err)) == 3
    assert len(lines(output.out)) == 3


def test_no_readable_photo_loads_no_model(engine, put: Put, capsys: Capture) -> None:
    assert main(["colorize", "gone.png"]) == 1
    assert lines(capsys.readouterr().err) == ["error: gone.png: no such file; check the path"]
    assert engine.loads == []


def test_existing_results_are_kept(engine, put: Put, capsys: Capture) -> None:
    put("a.color.png", level=33)
    assert main(["colorize", str(put("a.png"))]) == 1
    assert lines(capsys.readouterr().err) == [
        "error: a.color.png exists; replace it with --overwrite, or choose another place with -o"
    ]
    assert level("a.color.png") == 33
    assert engine.loads == []
    assert main(["colorize", str(put("b.png")), "a.png"]) == 1
    assert Path("b.color.png").is_file()


def test_overwrite_replaces_results_but_never_a_photo_given(engine, put: Put, capsys: Capture) -> None:
    put("a.color.png", level=33)
    put("b.png", level=44)
    assert main(["colorize", str(put("a.png")), "--overwrite"]) == 0
    assert level("a.color.png") == 100
    assert main(["colorize", "b.png", "-o", ".", "--overwrite"]) == 1
    assert main(["colorize", "b.png", "-o", "./b.png", "--overwrite"]) == 1
    assert level("b.png") == 44
    assert capsys.readouterr().err.count("never replaced") == 2


def test_png_where_the_format_cannot_hold_the_result(engine, put: Put, capsys: Capture) -> None:
    put("a.gif")
    put("deep.tif", mode="I;16")
    put("alpha.png", mode="LA")
    Path("alpha.png").rename("alpha.bmp")  # a PNG with the wrong suffix: no BMP could hold its transparency
    assert main(["colorize", "a.gif", "deep.tif", "alpha.bmp"]) == 0
    assert lines(capsys.readouterr().out) == ["a.color.png", "deep.color.tif", "alpha.color.png"]
    assert read_photo("deep.color.tif").gray.dtype == np.uint16
    assert read_photo("alpha.color.png").alpha is not None


def test_a_name_learnt_on_reading_is_checked_too(engine, put: Put, capsys: Capture) -> None:
    put("x.png", mode="LA")
    Path("x.png").rename("x.bmp")
    put("x.png")
    assert main(["colorize", "x.png", "x.bmp", "-o", "out", "--overwrite"]) == 1
    output = capsys.readouterr()
    assert lines(output.out) == ["out/x.png"]
    assert "result of another photo of this run" in output.err


def test_a_result_that_cannot_be_written_does_not_stop_the_others(engine, put: Put, capsys: Capture) -> None:
    long_name = "a" * 248 + ".png"  # with ".color" longer than a file name may be
    assert main(["colorize", str(put(long_name)), str(put("b.png"))]) == 1
    output = capsys.readouterr()
    assert lines(output.out) == ["b.color.png"]
    assert len(lines(output.err)) == 1


def test_a_folder_without_permission_is_told_before_the_model_loads(
    engine, put: Put, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo = put("p/a.png")
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root, whom tests may run as, may write anywhere
    assert main(["colorize", str(photo)]) == 1
    assert "no permission" in capsys.readouterr().err
    assert engine.loads == []


def test_standard_streams(engine, put: Put, stdin, capfdbinary) -> None:
    for name, format_name in [("a.png", "PNG"), ("b.jpg", "JPEG"), ("c.gif", "PNG"), ("d.tif", "TIFF")]:
        data = put(name).read_bytes()
        stdin(data)
        assert main(["colorize", "-"]) == 0
        piped = capfdbinary.readouterr()
        assert Image.open(io.BytesIO(piped.out)).format == format_name
        assert piped.err == b""
        assert main(["colorize", name, "-o", "-"]) == 0
        assert capfdbinary.readouterr().out == piped.out


def test_standard_input_to_files(engine, put: Put, stdin, capsys: Capture) -> None:
    data = put("a.jpg").read_bytes()
    stdin(data)
    assert main(["colorize", "-", "-o", "x.png", "--variants", "2"]) == 0
    stdin(data)
    assert main(["colorize", "-", "-o", "out"]) == 0
    assert lines(capsys.readouterr().out) == ["x-1.png", "x-2.png", "out/stdin.jpg"]


def test_bad_standard_input_writes_nothing(engine, stdin, capfdbinary) -> None:
    for data, words in [(b"", b"empty"), (b"no picture", b"not a picture")]:
        stdin(data)
        assert main(["colorize", "-"]) == 1
        output = capfdbinary.readouterr()
        assert output.out == b""
        assert output.err.startswith(b"error: standard input")
        assert words in output.err


def test_terminals_take_and_give_no_pictures(engine, put: Put, capsys: Capture, monkeypatch) -> None:
    monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(isatty=lambda: True))
    assert main(["colorize", "-", "-o", "x.png"]) == 2
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert main(["colorize", str(put("a.png")), "-o", "-"]) == 2
    assert capsys.readouterr().err.count("is a terminal") == 2


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("colorize", "no photo is given"),
        ("colorize a.png --steps 0", "--steps 0: "),
        ("colorize a.png --steps many", "--steps"),
        ("colorize a.png --strength 1.5", "--strength 1.5: "),
        ("colorize a.png --size 8", "--size 8: "),
        ("colorize a.png --seed -1", "--seed -1: "),
        ("colorize a.png --variant 0", "--variant 0: "),
        ("colorize a.png --variant 2 --variants 2", "--variant and --variants contradict"),
        ("colorize a.png --guidance-scale 99", "--guidance-scale 99"),
        ("colorize a.png --variants 0", "--variants"),
        ("colorize a.png --batch-size 0", "--batch-size"),
        ("colorize a.png --nonsense", "--nonsense"),
        ("colorize - a.png", "give it alone"),
        ("colorize a.png b.png -o -", "takes one result"),
        ("colorize p/a.png q/a.png -o out", "would both become"),
        ("colorize a.png -o x.gif", "cannot be written as .gif"),
    ],
)
def test_wrong_usage_is_one_line_and_code_2(engine, capsys: Capture, typed: str, words: str) -> None:
    assert main(typed.split()) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert len(lines(output.err)) == 1
    assert output.err.startswith("error: ")
    assert words in output.err
    assert engine.loads == []


@pytest.mark.parametrize(
    ("failure", "code", "words"),
    [
        (MemoryError(), 1, "smaller --size"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"), 1, "--size"),
        (RuntimeError("CUDA out of memory. Tried to allocate 9 GiB"), 1, "--batch-size 1"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (OSError(28, "No space left on device"), 1, "No space left on device"),
    ],
)
def test_failures_of_the_engine(engine, put: Put, capsys: Capture, failure, code: int, words: str) -> None:
    engine.failure = failure
    assert main(["colorize", str(put("a.png"))]) == code
    output = capsys.readouterr()
    assert len(lines(output.err)) == 1
    assert words in output.err
    assert os.listdir() == ["a.png"]


def test_a_mistake_in_the_program_keeps_its_traceback(engine, put: Put) -> None:
    engine.failure = RuntimeError("shapes do not match")
    with pytest.raises(RuntimeError, match="shapes"):
        main(["colorize", str(put("a.png"))])


def test_an_unknown_model(engine, put: Put, capsys: Capture) -> None:
    assert main(["colorize", str(put("a.png")), "--model", "unknown"]) == 1
    assert lines(capsys.readouterr().err) == ["error: unknown model 'unknown'; accepted: mini"]


def test_a_name_that_is_not_text(engine, put: Put, capfdbinary) -> None:
    name = os.fsdecode(b"caf\xe9.png")
    put("a.png").rename(name)
    assert main(["colorize", name]) == 0
    assert os.path.exists(b"caf\xe9.color.png")


def test_progress_on_a_terminal_leaves_the_paths_on_stdout(engine, put: Put, capsys: Capture, monkeypatch) -> None:
    photos = [str(put(f"{index}.png")) for index in range(3)]
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert main(["colorize", *photos, "gone.png"]) == 1
    output = capsys.readouterr()
    assert lines(output.out) == ["0.color.png", "1.color.png", "2.color.png"]
    assert "4/4" in output.err
    assert "error: gone.png" in output.err


def test_the_real_engine(tiny_pipeline_dir: Path, put: Put, capsys: Capture) -> None:
    photos = [str(put("a.png")), str(put("b.jpg")), str(put("deep.tif", mode="I;16"))]
    assert main(["colorize", *photos, "gone.png", "--model", str(tiny_pipeline_dir), "--device", "cpu"]) == 1
    output = capsys.readouterr()
    results = lines(output.out)
    assert results == ["a.color.png", "b.color.jpg", "deep.color.tif"]
    assert len(lines(output.err)) == 1
    assert {Path(result).suffix for result in results} <= IMAGE_SUFFIXES
    for photo, result in zip(photos, results, strict=True):
        before, after = read_photo(photo), read_photo(result)
        assert after.gray.dtype == before.gray.dtype
        tolerance = 6 if result.endswith(".jpg") else before.max_value // 255
        assert np.abs(after.gray.astype(int) - before.gray.astype(int)).max() <= tolerance


def test_the_real_engine_refuses(tiny_pipeline_dir: Path, put: Put, capsys: Capture) -> None:
    photo = str(put("a.png"))
    assert main(["colorize", photo, "--model", "no-such-model"]) == 1
    assert main(["colorize", photo, "--model", str(tiny_pipeline_dir), "--device", "abacus"]) == 1
    errors = lines(capsys.readouterr().err)
    assert len(errors) == 2
    assert "no-such-model" in errors[0]
    assert "abacus" in errors[1]

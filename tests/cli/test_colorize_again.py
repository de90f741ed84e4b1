"""`chromatune colorize` the second time, on files of several pages, and at its limits of reading."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import skimage.data
from PIL import Image

from chromatune.cli import main
from chromatune.images import read_photo


def test_going_on_after_an_interruption_skips_what_is_there(engine, put, capsys):
    """One line for hundreds of results, and exit code 0; without the option, no line each for hundreds either."""
    photos = [str(put(f"{number}.png")) for number in range(6)]
    assert main(["colorize", *photos[:5]]) == 0
    capsys.readouterr()
    assert main(["colorize", *photos, "--skip-existing"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "5.color.png\n" and captured.err == "note: skipped 5 existing results\n"
    assert main(["colorize", *photos]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4 and lines[-1] == "error: 3 more results exist; colorize the rest with --skip-existing"
    assert main(["colorize", *photos[:4]]) == 1
    said = "error: 1 more result exists; colorize the rest with --skip-existing"
    assert capsys.readouterr().err.splitlines()[-1] == said
    assert main(["colorize", *photos, "--skip-existing", "--overwrite"]) == 2


def test_the_same_pattern_twice_colorizes_no_results(engine, put, capsys):
    for name in ("a.png", "a.color.png", "b.tif", "b.color-2.tif"):
        put(name)
    assert main(["colorize", "a.png", "a.color.png", "b.color-2.tif", "b.tif", "--overwrite"]) == 0
    captured = capsys.readouterr()
    assert captured.out.split() == ["a.color.png", "b.color.tif"]
    assert captured.err == "note: skipped 2 results of earlier runs, such as a.color.png\n"
    put("contact-sheet.png")
    assert main(["colorize", "a.png", "a.color.png", "contact-sheet.png", "-o", "elsewhere"]) == 0
    captured = capsys.readouterr()
    assert [path.name for path in Path("elsewhere").iterdir()] == ["a.png"]
    assert captured.err == "note: skipped 2 results of earlier runs, such as a.color.png\n"


def test_pages_of_a_file(engine, folder, capsys):
    pages = [Image.new("L", (8, 6), level) for level in (50, 100, 150)]
    pages[0].save("scan.tif", save_all=True, append_images=pages[1:])
    assert main(["colorize", "scan.tif"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "scan.color.tif\n" and captured.err.startswith("warning: scan.tif: ")
    assert "--page" in captured.err and captured.err.count("\n") == 1
    assert main(["colorize", "scan.tif", "--page", "2", "-o", "second.png"]) == 0
    assert read_photo("second.png").gray.max() == 100
    assert main(["colorize", "scan.tif", "--page", "all", "-o", "all"]) == 0
    assert sorted(path.name for path in Path("all").iterdir()) == ["scan-p1.tif", "scan-p2.tif", "scan-p3.tif"]
    assert [int(read_photo(f"all/scan-p{n}.tif").gray.max()) for n in (1, 2, 3)] == [50, 100, 150]
    capsys.readouterr()
    for page in ("0", "first", "-1", ""):
        assert main(["colorize", "scan.tif", "--page", page]) == 2
        assert "--page" in capsys.readouterr().err
    assert main(["colorize", "scan.tif", "--page", "4", "-o", "x.png"]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_limits_of_reading_reach_the_reader(engine, put, capsys):
    put("a.png")
    Image.new("L", (400, 400), 90).save("large.png")
    assert main(["colorize", "a.png", "large.png", "--max-megapixels", "0.1"]) == 1
    captured = capsys.readouterr()
    assert captured.out == "a.color.png\n" and "--max-megapixels" in captured.err
    data = io.BytesIO()
    Image.effect_noise((200, 200), 50).save(data, "JPEG")
    Path("cut.jpg").write_bytes(data.getvalue()[:-300])
    assert main(["colorize", "cut.jpg"]) == 0
    assert capsys.readouterr().err.startswith("warning: cut.jpg: ")
    assert main(["colorize", "cut.jpg", "--strict", "--overwrite"]) == 1


def test_warnings_are_told_once_and_not_when_quiet(engine, put, capsys):
    photos = [str(put(name)) for name in ("a.png", "b.png")]
    assert main(["colorize", *photos, "--prompt", "odd", "--variants", "2"]) == 0
    assert capsys.readouterr().err == "warning: the prompt is odd\n"
    assert main(["colorize", *photos, "--prompt", "odd", "--overwrite", "--quiet"]) == 0
    assert capsys.readouterr().err == ""


def test_photos_in_color_are_told_once_a_run(engine, put, capsys, monkeypatch):
    """Their colors are not used; gray ones in RGB files and toned ones are what the work is for."""
    gray = np.repeat(skimage.data.camera()[::4, ::4, None], 3, axis=2)
    for name, rgb in (("gray.png", gray), ("sepia.jpg", gray * [1.0, 0.9, 0.7]), ("a.png", skimage.data.coffee())):
        Image.fromarray(rgb.astype(np.uint8)).save(name)
    assert main(["colorize", "gray.png", "sepia.jpg"]) == 0
    assert capsys.readouterr().err == ""
    assert main(["colorize", "gray.png", "a.png", "sepia.jpg", "--variants", "3"]) == 0
    told = "note: 1 photo is in color already and its own colors are not used: a.png\n"
    assert capsys.readouterr().err == told
    Image.open("a.png").convert("RGBA").save("b\x1b.tif")
    assert main(["colorize", "a.png", "b\x1b.tif", "sepia.jpg", "--overwrite"]) == 0
    told = "note: 2 photos are in color already and their own colors are not used, the first: a.png\n"
    assert capsys.readouterr().err == told
    assert main(["colorize", "a.png", "--overwrite", "--quiet"]) == 0
    assert capsys.readouterr().err == ""
    with monkeypatch.context() as patched:
        patched.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(Path("a.png").read_bytes())))
        assert main(["colorize", "-", "-o", "x.png"]) == 0
    assert capsys.readouterr().err.endswith("not used: standard input\n")

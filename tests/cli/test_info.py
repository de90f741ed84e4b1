"""`chromatune info`, `--sidecar` and `--again`: what made a result is told, and makes it again."""

from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from chromatune.cli import main

Capture = pytest.CaptureFixture[str]


def gray_photo(path: Path, seed: int = 0) -> Path:
    down, across = np.mgrid[0:48, 0:64]
    level = 100 + 40 * np.sin((down + 5 * seed) / 7) + 30 * np.cos(across / (9 + seed))
    Image.fromarray(level.astype(np.uint8)).save(path)
    return path


def test_info_tells_how_a_picture_was_made(tmp_path: Path, capsys: Capture) -> None:
    photo, out = gray_photo(tmp_path / "a.png"), tmp_path / "b.png"
    assert main(["colorize", str(photo), "-o", str(out), "--seed", "5", "--hint", "3,4=#a03020", "-q"]) == 0
    capsys.readouterr()
    assert main(["info", str(out)]) == 0
    facts = dict(line.split("\t") for line in capsys.readouterr().out.splitlines())
    assert facts["model"] == "mini" and facts["seed"] == "5" and facts["colors from"] == "model, hints"
    assert json.loads(facts["options"])["seed"] == 5 and len(facts["hints"]) == len(facts["model hash"]) == 16
    assert main(["colorize", str(photo), "-o", str(tmp_path / "c.png"), "--no-provenance", "-q"]) == 0
    for other in (photo, tmp_path / "c.png", tmp_path / "none.png"):
        assert main(["info", str(other)]) == 1
        assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_info_tells_how_a_video_was_made(suffix: str, tmp_path: Path, capsys: Capture) -> None:
    source, out = tmp_path / "a.mp4", tmp_path / f"b{suffix}"
    with av.open(str(source), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        level = np.asarray(Image.open(gray_photo(tmp_path / "x.png")))
        for _ in range(4):
            frame = av.VideoFrame.from_ndarray(level, format="gray").reformat(format="yuv420p")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert main(["info", str(source)]) == 1
    assert main(["video", str(source), str(out), "-q"]) == 0
    capsys.readouterr()
    assert main(["info", str(out)]) == 0
    facts = dict(line.split("\t") for line in capsys.readouterr().out.splitlines())
    assert facts["model"] == "mini" and facts["colors from"] == "model"
    with av.open(str(out)) as container:  # it still is a whole video
        assert len(list(container.decode(video=0))) == 4


def test_a_sidecar_makes_the_same_file_again(tmp_path: Path, capsys: Capture) -> None:
    like = tmp_path / "like.png"
    Image.fromarray(np.random.default_rng(1).integers(0, 255, (40, 50, 3), np.uint8)).save(like)
    layer = np.zeros((48, 64, 4), np.uint8)
    layer[10:20, 10:20] = 160, 40, 30, 255
    Image.fromarray(layer).save(tmp_path / "layer.png")
    for index, more in enumerate((["--hint", "3,4=#a03020"], ["--hints", str(tmp_path / "layer.png")],
                                  ["--like", str(like), "--variant", "2"], ["--prompt", "warm colors"])):  # fmt: skip
        photo, out = gray_photo(tmp_path / f"{index}.png", index), tmp_path / "out" / f"{index}.jpg"
        assert main(["colorize", str(photo), "-o", str(out), "--sidecar", "-q", *more]) == 0
        sidecar, again = f"{out}.json", tmp_path / "again" / f"{index}.jpg"
        assert main(["colorize", "--again", sidecar, "-o", str(again), "-q"]) == 0
        assert again.read_bytes() == out.read_bytes()
    photo.rename(tmp_path / "moved.png")
    capsys.readouterr()
    assert main(["colorize", "--again", sidecar, "-o", str(tmp_path / "x.jpg"), "-q"]) == 1
    assert main(["colorize", "--again", sidecar, str(tmp_path / "moved.png"), "-o", str(tmp_path / "y.jpg"), "-q"]) == 0
    assert (tmp_path / "y.jpg").read_bytes() == out.read_bytes()
    gray_photo(tmp_path / "moved.png", 9)
    assert main(["colorize", "--again", sidecar, str(tmp_path / "moved.png"), "-o", str(tmp_path / "z.jpg"), "-q"]) == 1
    assert "not the file" in capsys.readouterr().err


@pytest.mark.parametrize(
    "change",
    ["{}", "[]", "no json", '{"format": 2}', "weights", "model", "hints", "extra"],
)
def test_a_wrong_sidecar_is_one_line(change: str, tmp_path: Path, capsys: Capture) -> None:
    photo, out = gray_photo(tmp_path / "a.png"), tmp_path / "b.png"
    assert main(["colorize", str(photo), "-o", str(out), "--sidecar", "-q"]) == 0
    sidecar = tmp_path / "b.png.json"
    known = json.loads(sidecar.read_text())
    others = {"weights": {"weights": "0" * 16}, "model": {"model": "nosuch"}, "hints": {"hints": {"marks": 3}},
              "extra": {"run": "this"}}  # fmt: skip
    sidecar.write_text(json.dumps(known | others[change]) if change in others else change)
    capsys.readouterr()
    assert main(["colorize", "--again", str(sidecar), "-o", str(tmp_path / "c.png")]) in (1, 2)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.isprintable() and len(line) < 400
    assert not (tmp_path / "c.png").exists()


def test_again_takes_nothing_else(tmp_path: Path, capsys: Capture) -> None:
    assert main(["colorize", "--again", "x.json", "--seed", "3"]) == 2
    assert main(["colorize"]) == 2
    assert main(["colorize", "-", "--sidecar", "-o", str(tmp_path / "x.png")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 3

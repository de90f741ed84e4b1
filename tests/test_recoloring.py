"""Colors of a finished picture, in Python and on the command line; what is taken is tested in `test_alignment`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from chromatune import ColorizeOptions, Colorizer, Hints, OptionsError, PhotoError, color, recolor
from chromatune.cli import main
from chromatune.images import provenance_of, read_photo

Capture = pytest.CaptureFixture[str]


def scene(seed: int = 0, size: tuple[int, int] = (180, 240)) -> np.ndarray:
    """A drawn picture in color with much structure: (H, W, 3) uint8."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (12, 16, 3)).astype(np.float32)
    rgb = cv2.resize(small, size[::-1], interpolation=cv2.INTER_CUBIC)
    for _ in range(25):
        center = tuple(int(each) for each in rng.integers(0, (size[1], size[0])))
        cv2.circle(rgb, center, int(rng.integers(4, 18)), rng.integers(0, 256, 3).tolist(), -1)
    return np.clip(rgb, 0, 255).astype(np.uint8)


def error(rgb: np.ndarray, truth: np.ndarray) -> float:
    """Mean distance of chroma, on the scale 0..255."""
    ours, theirs = (color.chroma_of(each.astype(np.float32) / 255) for each in (rgb, truth))
    return float(255 * np.linalg.norm(ours - theirs, axis=-1).mean())


def turned(rgb: np.ndarray) -> np.ndarray:
    """The picture turned by 4°, cut, and smaller."""
    height, width = rgb.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), 4, 1.15)
    moved = cv2.warpAffine(rgb, matrix, (width, height), flags=cv2.INTER_CUBIC)
    return cv2.resize(moved, (width * 3 // 4, height * 3 // 4), interpolation=cv2.INTER_AREA)


def test_colors_come_over_and_luminance_stays() -> None:
    truth = scene()
    gray = color.luma(truth)
    result = recolor(gray, turned(truth))
    assert color.luma_drift(result.rgb, gray)[0] <= 1
    assert error(result.rgb, truth) < 0.5 * error(np.repeat(gray[..., None], 3, axis=2), truth)
    assert result.model == "finished picture" and result.warnings == ()
    assert result.provenance is not None and result.provenance.colors_from == "finished picture"
    assert recolor(gray, truth, ColorizeOptions(provenance=False)).provenance is None
    faint = recolor(gray, turned(truth), ColorizeOptions(strength=0))
    np.testing.assert_array_equal(faint.rgb, np.repeat(gray[..., None], 3, axis=2))


def test_hints_lie_on_top() -> None:
    truth = scene()
    gray = color.luma(truth)
    plain = recolor(gray, truth)
    red, green, _ = plain.rgb[90, 60].astype(int)
    wanted = "#c01010" if green > red else "#10c010"
    result = recolor(gray, truth, hints=Hints().point(60, 90, wanted, radius=12))
    more_red, more_green, _ = result.rgb[90, 60].astype(int)
    assert (more_red > more_green + 10) if green > red else (more_green > more_red + 10)
    assert result.provenance is not None and result.provenance.colors_from == "finished picture, hints"


def test_a_model_colors_what_the_picture_does_not_show() -> None:
    truth = scene()
    gray = color.luma(truth)
    picture = np.ascontiguousarray(truth[:, :120])  # the left half
    alone, both = recolor(gray, picture), recolor(gray, picture, colorizer=Colorizer.load("mini"))
    assert "what lies around" in alone.notes[0] and "the model" in both.notes[0]
    far = np.s_[:, 210:]
    assert np.abs(alone.rgb[far].astype(int) - both.rgb[far]).mean() > 2
    near = np.s_[:, 20:90]
    assert np.abs(alone.rgb[near].astype(int) - both.rgb[near]).mean() < 2


def test_what_is_given_wrong_is_one_line() -> None:
    truth = scene()
    gray = color.luma(truth)
    with pytest.raises(PhotoError, match="does not show this photo"):
        recolor(gray, scene(5))
    with pytest.raises(PhotoError, match="is gray"):
        recolor(gray, gray)
    toned = np.clip(gray[..., None] * np.array([1.0, 0.9, 0.75]), 0, 255).astype(np.uint8)
    with pytest.raises(PhotoError, match="is gray"):
        recolor(gray, toned)
    night = scene()  # nearly all of it is of one hue
    night[..., 2] = color.luma(truth) * 0.8 + 50
    night[..., 0] = night[..., 1] = color.luma(truth) * 0.8
    night[60:80, 100:130, 2] = 60  # but for a lamp
    assert not read_photo(night).in_color
    assert recolor(color.luma(night), night).notes == ()
    with pytest.raises(OptionsError, match="own luminance"):
        recolor(gray, truth, ColorizeOptions(recompose=False))
    (line,) = recolor(gray, truth, ColorizeOptions(prompt="warm colors", seed=3)).warnings
    assert "prompt" in line and "seed" in line


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Folders of scans, and of finished pictures of their names."""
    scans, done = tmp_path / "scans", tmp_path / "done"
    for folder in (scans, done):
        folder.mkdir()
    for index, name in enumerate(("a.jpg", "b.color.png", "c.png")):
        truth = scene(index)
        Image.fromarray(color.luma(truth)).save(scans / f"{name[0]}.png")
        Image.fromarray(turned(truth)).save(done / name)
    return scans, done


def test_the_command_line(folders: tuple[Path, Path], tmp_path: Path, capsys: Capture) -> None:
    scans, done = folders
    photos = [str(path) for path in sorted(scans.iterdir())]
    assert main(["colorize", *photos, "--colors-dir", str(done), "-o", str(tmp_path / "out")]) == 0
    capsys.readouterr()
    for index, name in enumerate("abc"):
        written = read_photo(tmp_path / "out" / f"{name}.png")
        assert written.rgb is not None and error(written.rgb, scene(index)) < 20
        said = provenance_of(written.captions.xmp)
        assert said is not None and said.colors_from == "finished picture"
    assert main(["colorize", photos[0], "--colors", str(done / "a.jpg"), "-o", str(tmp_path / "a.png")]) == 0
    np.testing.assert_array_equal(Image.open(tmp_path / "a.png"), Image.open(tmp_path / "out" / "a.png"))


WRONG: dict[str, tuple[Any, int]] = {
    "another": (lambda scans, done: ["--colors", str(done / "b.color.png")], 1),
    "gray": (lambda scans, done: ["--colors", str(scans / "a.png")], 1),
    "missing": (lambda scans, done: ["--colors", str(done / "none.png")], 1),
    "both": (lambda scans, done: ["--colors", str(done / "a.jpg"), "--colors-dir", str(done)], 2),
    "empty": (lambda scans, done: ["--colors-dir", str(scans.parent / "none")], 2),
    "variants": (lambda scans, done: ["--colors", str(done / "a.jpg"), "--variants", "2"], 2),
    "like": (lambda scans, done: ["--colors", str(done / "a.jpg"), "--like", str(done / "a.jpg")], 2),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_command_is_one_line(kind: str, folders: tuple[Path, Path], tmp_path: Path, capsys: Capture) -> None:
    more, code = WRONG[kind]
    out = tmp_path / "x.png"
    assert main(["colorize", str(folders[0] / "a.png"), "-o", str(out), *more(*folders)]) == code
    assert len(capsys.readouterr().err.splitlines()) == 1 and not out.exists()


def test_two_photos_have_no_one_picture(folders: tuple[Path, Path], tmp_path: Path, capsys: Capture) -> None:
    scans, done = folders
    photos = [str(scans / "a.png"), str(scans / "b.png")]
    assert main(["colorize", *photos, "--colors", str(done / "a.jpg"), "-o", str(tmp_path / "out")]) == 2
    (done / "b.color.png").unlink()
    assert main(["colorize", *photos, "--colors-dir", str(done), "-o", str(tmp_path / "out")]) == 1
    assert (tmp_path / "out" / "a.png").exists() and not (tmp_path / "out" / "b.png").exists()

"""The copy that a model is shown: as the clean photo would be, whatever the years did; and clean photos as they are."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import skimage.data

from chromatune import color
from chromatune.color.restoration import find_damage, remove_screen
from chromatune.colorizer import Colorizer
from chromatune.options import make_options

SIZE = (256, 256)


def gray_of(name: str) -> np.ndarray:
    """A photo's luma, (320, 320) uint8."""
    return cv2.resize(color.luma(getattr(skimage.data, name)()[:, :512]), (320, 320), interpolation=cv2.INTER_AREA)


@pytest.fixture(params=["astronaut", "chelsea", "coffee"])
def gray(request):
    return gray_of(request.param)


def as_u8(gray: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(gray), 0, 255).astype(np.uint8)


def scratched(gray: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """White scratches and dark specks, and where they are."""
    rng, drawn = np.random.default_rng(1), gray.copy()
    for x in (45, 120, 190, 275):
        points = np.stack([x + np.cumsum(rng.normal(0, 1, 12)), np.linspace(20, 300, 12)], 1)
        cv2.polylines(drawn, [np.rint(points).astype(np.int32)], False, 250, 2)
    for x, y in rng.integers(10, 310, (25, 2)):
        cv2.circle(drawn, (int(x), int(y)), 1, 5, -1)
    return drawn, drawn != gray


def distance(view: color.View, gray: np.ndarray) -> float:
    return float(np.abs(view.gray - color.restored_view(gray, SIZE).gray).mean())


def test_clean_photos_are_shown_nearly_as_they_are(gray):
    view = color.restored_view(gray, SIZE)
    assert np.abs(view.gray - color.shrink(gray, SIZE)).mean() < 0.015
    assert view.chroma_gain == pytest.approx(1, abs=0.02)
    assert find_damage(color.shrink(gray, (320, 320))).mean() < 0.005
    small = color.shrink(gray, SIZE)
    assert remove_screen(small) is small


@pytest.mark.parametrize(("black", "contrast"), [(70, 0.55), (120, 0.5), (0, 0.4)])
def test_faded_and_dark_photos_are_shown_as_the_clean_one(gray, black, contrast):
    aged = as_u8(black + contrast * gray.astype(np.float32))
    view = color.restored_view(aged, SIZE)
    assert distance(view, gray) < min(0.08, 0.65 * distance(color.View(color.shrink(aged, SIZE)), gray))
    assert view.notes and "stretched" in view.notes[0]
    if black == 0:  # saturation, not chroma, is that of the photo lit well
        assert view.chroma_gain == pytest.approx(0.4 * np.percentile(gray, 99.9) / 255 / 0.9, rel=0.05)
    else:
        assert view.chroma_gain == pytest.approx(1, abs=0.15)


def test_scratches_and_dust_are_filled_in(gray):
    damaged, where = scratched(gray)
    found = find_damage(color.shrink(damaged, (320, 320)))
    assert (found & where).sum() > 0.4 * where.sum() and (found & ~where).mean() < 0.02
    view = color.restored_view(damaged, SIZE)
    assert distance(view, gray) < 0.7 * distance(color.View(color.shrink(damaged, SIZE)), gray)
    assert any("filled in" in note for note in view.notes)


def test_a_drawing_in_ink_is_no_damage():
    """Guards the bound on how much is filled in: lines all over the picture are the picture."""
    drawing = np.full((320, 320), 255, np.uint8)
    for offset in range(8, 320, 16):
        cv2.line(drawing, (offset, 0), (offset, 320), 0, 2)
    assert not find_damage(color.shrink(drawing, (320, 320))).any()


def test_a_printers_screen_is_taken_out(gray):
    y, x = np.mgrid[:256, :256].astype(np.float32)
    along, across = (x + y) / np.sqrt(2), (x - y) / np.sqrt(2)
    dots = (np.cos(2 * np.pi * along / 4) + np.cos(2 * np.pi * across / 4)) / 4
    clean = color.shrink(gray, SIZE)
    printed = np.clip(0.1 + 0.8 * clean + 0.45 * dots, 0, 1)
    descreened = remove_screen(printed)
    assert np.abs(descreened - (0.1 + 0.8 * clean)).mean() < 0.25 * np.abs(printed - (0.1 + 0.8 * clean)).mean()
    view = color.restored_view(as_u8(printed * 255), SIZE)
    assert "a printer's screen taken out" in view.notes


def test_a_border_decides_no_levels(gray):
    """Guards the faded photo on white or black paper: the paper is not the photo's white or black."""
    faded = as_u8(70 + 0.5 * gray.astype(np.float32))
    own = color.measure_levels([color.shrink(faded, (320, 320))])
    for tone in (252, 3):
        framed = cv2.copyMakeBorder(faded, 25, 25, 25, 25, cv2.BORDER_CONSTANT, value=tone)
        levels = color.measure_levels([color.shrink(framed, framed.shape)])
        assert (levels.black, levels.white) == pytest.approx((own.black, own.white), abs=0.03)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(1, 1), (1, 900), (700, 3), (64, 64), (900, 400)])
@pytest.mark.parametrize("tone", [0.0, 0.5, 1.0])
def test_there_may_be_nothing_to_see(dtype, shape, tone):
    flat = np.full(shape, round(tone * np.iinfo(dtype).max), dtype)
    view = color.restored_view(flat, (32, 64))
    np.testing.assert_allclose(view.gray, tone, atol=3e-3)  # half of an 8-bit step
    assert view.gray.dtype == np.float32 and view.gray.shape == (32, 64)
    assert (view.chroma_gain, view.notes) == (1.0, ())


def test_both_depths_are_shown_alike(gray):
    assert distance(color.restored_view(gray.astype(np.uint16) * 257, SIZE), gray) < 1e-3


class Seen:
    """A backend that keeps what it is shown, and lets another compute."""

    def __init__(self, backend):
        self.backend, self.grays = backend, []

    def __getattr__(self, name):
        return getattr(self.backend, name)

    def __call__(self, grays, options, with_features=False):
        self.grays += list(grays)
        return self.backend(grays, options, with_features)


def test_a_result_says_what_was_repaired_and_keeps_its_luminance():
    seen = Seen(Colorizer.load("mini-base").backend)
    colorizer = Colorizer(seen)
    faded = as_u8(120 + 0.4 * gray_of("astronaut").astype(np.float32))
    restored = colorizer.colorize(faded)
    plain = colorizer.colorize(faded, make_options(view="plain"))
    assert "stretched" in restored.restored[0] and plain.restored == ()
    assert seen.grays[0].min() < 0.1 and np.ptp(seen.grays[1]) < 0.5
    assert color.luma_drift(restored.rgb, faded)[0] <= 1
    assert (restored.rgb != plain.rgb).any()


def test_levels_may_be_those_of_several_photos():
    """As a film's are, for a whole shot: a frame gives what it gives with the shot's."""
    first, second = gray_of("astronaut"), as_u8(60 + 0.3 * gray_of("astronaut").astype(np.float32))
    levels = color.measure_levels([color.shrink(first, SIZE), color.shrink(second, SIZE)])
    of_second = color.restored_view(second, SIZE, levels)
    assert of_second.chroma_gain == levels.chroma_gain
    assert np.abs(of_second.gray - levels.apply(color.shrink(second, SIZE))).mean() < 0.005
    assert distance(of_second, second) > 0.05

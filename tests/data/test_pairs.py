"""Pairs: never squashed, one crop and flip for both halves, drawn per photo, and what counts as gray."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chromatune.data.pairs import (
    GRAY_METHODS,
    GRAY_WEIGHTS,
    Crop,
    apply_crop,
    center_crop,
    draw_crop,
    is_monochrome,
    make_pair,
)
from chromatune.errors import OptionsError


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@given(
    height=st.integers(1, 300),
    width=st.integers(1, 300),
    size_px=st.integers(1, 128),
    zoom=st.floats(0.01, 1),
    seed=st.integers(0, 99),
)
def test_crops_are_squares_inside_the_photo(height, width, size_px, zoom, seed) -> None:
    crop = draw_crop(height, width, size_px, rng(seed), zoom)
    assert 0 <= crop.top <= height - crop.height
    assert 0 <= crop.left <= width - crop.width
    assert (
        min(height, width, max(size_px, round(zoom * min(height, width))))
        <= crop.height
        == crop.width
        <= min(height, width)
    )


def test_the_aspect_ratio_is_kept() -> None:
    """The official script squashes a wide photo: a circle must stay a circle."""
    photo = np.zeros((200, 400, 3), np.uint8)
    cv2.circle(photo, (200, 100), 80, (255, 255, 255), -1)
    for crop in (center_crop(200, 400), Crop(0, 100, 200, 200, flip=True)):
        rows, columns = np.nonzero(apply_crop(photo, crop, 100)[..., 0] > 127)
        assert abs(np.ptp(rows) - np.ptp(columns)) <= 1
        assert np.ptp(rows) == pytest.approx(80, abs=2)


def test_the_center() -> None:
    assert center_crop(100, 160) == Crop(0, 30, 100, 100)
    assert center_crop(161, 100) == Crop(30, 0, 100, 100)


def test_crops_and_flips_are_drawn_for_each_photo() -> None:
    """The official script draws one flip for a whole batch."""
    shared = rng()
    crops = [draw_crop(100, 160, 32, shared, zoom=0.5) for _ in range(200)]
    assert len(set(crops)) > 150
    assert 70 < sum(crop.flip for crop in crops) < 130
    assert draw_crop(100, 160, 32, rng(5)) == draw_crop(100, 160, 32, rng(5))


def test_settings_do_not_shift_what_is_drawn_next() -> None:
    states = set()
    for options in ({}, {"flip": False}):
        generator = rng()
        crop = draw_crop(100, 160, 32, generator, zoom=0.5, **options)
        states.add((generator.random(), crop.top, crop.left, crop.height))
    assert len(states) == 1
    assert not any(draw_crop(9, 9, 9, rng(seed), flip=False).flip for seed in range(20))


@pytest.mark.parametrize(("size", "zoom"), [((0, 5), 1.0), ((5, 5), 0.0), ((5, 5), 1.1), ((5, 5), float("nan"))])
def test_no_crop_is_possible(size: tuple[int, int], zoom: float) -> None:
    with pytest.raises(OptionsError, match="accepted: 0 < zoom <= 1"):
        draw_crop(*size, 4, rng(), zoom)


@pytest.mark.parametrize("crop", [Crop(1, 0, 40, 40), Crop(0, 21, 40, 40), Crop(-1, 0, 10, 10), Crop(0, 0, 0, 0)])
def test_a_crop_for_another_photo_is_refused(draw, crop: Crop) -> None:
    with pytest.raises(OptionsError, match="reaches beyond the photo of 40 x 60"):
        apply_crop(draw(40, 60), crop, 16)


@pytest.mark.parametrize("size_px", [16, 30, 64])
def test_a_flip_mirrors_the_same_square(draw, size_px: int) -> None:
    plain, mirrored = (apply_crop(draw(40, 60), Crop(2, 9, 30, 30, flip), size_px) for flip in (False, True))
    assert plain.shape == (size_px, size_px, 3) and plain.dtype == np.uint8
    assert mirrored.flags.c_contiguous
    np.testing.assert_array_equal(mirrored, plain[:, ::-1])


def test_a_square_of_the_right_size_is_cut_and_nothing_else(draw) -> None:
    np.testing.assert_array_equal(apply_crop(draw(40, 60), Crop(3, 5, 30, 30), 30), draw(40, 60)[3:33, 5:35])


@pytest.mark.parametrize("seed", range(10))
def test_both_halves_have_one_crop_and_one_flip(draw, seed: int) -> None:
    """Gray of the color half is the gray half, to within rounding; any other crop or flip is far from it."""
    photo, generator = draw(80, 120, seed=seed), rng(seed)
    crop = draw_crop(80, 120, 32, generator, zoom=0.5)
    gray, color = make_pair(photo, crop, 32, generator, gray="rec601")
    np.testing.assert_array_equal(color, apply_crop(photo, crop, 32))
    expected = color @ np.array(GRAY_WEIGHTS["rec601"])
    assert np.abs(gray[..., 0] - expected).max() <= 0.51
    assert np.abs(gray[:, ::-1, 0] - expected).max() > 5


@pytest.mark.parametrize("method", ["varied", *GRAY_METHODS])
def test_the_gray_half_is_gray_and_follows_the_generator(draw, method: str) -> None:
    gray, color = make_pair(draw(), center_crop(40, 60), 24, rng(3), gray=method)
    assert gray.shape == color.shape == (24, 24, 3)
    assert gray.dtype == color.dtype == np.uint8
    assert np.ptp(gray, axis=2).max() == 0
    again, _ = make_pair(draw(), center_crop(40, 60), 24, rng(3), gray=method)
    np.testing.assert_array_equal(gray, again)


def test_varied_grays_differ() -> None:
    photo = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    generator = rng()
    grays = {make_pair(photo, center_crop(32, 32), 32, generator)[0].tobytes() for _ in range(20)}
    assert len(grays) > 8


def test_an_unknown_gray_is_refused(draw) -> None:
    with pytest.raises(OptionsError, match="'sepia'; accepted: varied, rec601"):
        make_pair(draw(), center_crop(40, 60), 16, rng(), gray="sepia")


def test_gray_and_sepia_photos_are_monochrome_and_others_are_not(draw) -> None:
    photo = draw(80, 120)
    gray = np.repeat(photo[..., :1], 3, axis=2)
    sepia = np.clip(gray * np.array([1.0, 0.95, 0.86]), 0, 255).astype(np.uint8)
    noisy = np.clip(sepia + rng().normal(0, 2, gray.shape), 0, 255).astype(np.uint8)  # a scan's color noise
    assert is_monochrome(gray)
    assert is_monochrome(sepia)
    assert is_monochrome(noisy)
    assert not is_monochrome(sepia, tint_degree=0)  # its tint fades towards black
    assert not is_monochrome(photo)
    assert is_monochrome(photo, min_chroma=200)

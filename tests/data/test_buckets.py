"""Aspect buckets: no photo is squashed, enlarged needlessly or loses more than a tenth; checked by the pixels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chromatune.data import apply_crop, bucket_of, bucket_shapes, draw_bucket_crop
from chromatune.errors import OptionsError

# Width to height of what people have: panoramas, films, screens, prints, squares, and the same upright
ELEVEN = ((4, 1), (3, 1), (21, 9), (16, 9), (3, 2), (1, 1), (4, 5), (3, 4), (2, 3), (9, 16), (1, 4))


@pytest.mark.parametrize(("size_px", "multiple_px"), [(512, 64), (256, 64), (128, 32), (768, 64), (1024, 64), (64, 8)])
def test_sides_are_multiples_and_areas_are_about_the_models(size_px, multiple_px):
    shapes = bucket_shapes(size_px, multiple_px)
    step = 64 if size_px >= 384 else multiple_px
    assert all(side % step == 0 for shape in shapes for side in shape)
    assert all(0.5 <= height * width / size_px**2 <= 2 for height, width in shapes)
    assert (size_px, size_px) in shapes and {(width, height) for height, width in shapes} == set(shapes)
    ratios = [width / height for height, width in shapes]
    assert ratios == sorted(ratios, reverse=True) and ratios[0] == 4 and ratios[-1] == 1 / 4
    assert len(shapes) < 24, "few enough for batches to be full"


def test_a_model_too_small_for_buckets_says_so():
    with pytest.raises(OptionsError, match="no aspect buckets around 32 x 32 px .* 16: give a larger size_px"):
        bucket_shapes(32, 16)


@given(
    height=st.integers(32, 3000),
    width=st.integers(32, 3000),
    size_px=st.sampled_from([64, 512]),
    seed=st.integers(0, 9),
)
def test_no_photo_loses_more_than_a_tenth(height, width, size_px, seed):
    shapes = bucket_shapes(size_px)
    bucket = bucket_of(height, width, shapes)
    if bucket is None:
        assert not 1 / 4.3 < width / height < 4.3
        return
    crop = draw_bucket_crop(height, width, shapes[bucket], np.random.default_rng(seed), zoom=0.5)
    assert 0 <= crop.top <= height - crop.height and 0 <= crop.left <= width - crop.width
    assert crop.height * crop.width >= 0.9 * height * width
    rows, columns = shapes[bucket]
    # Whole pixels: the scales of both directions agree to a pixel of the crop
    assert abs(crop.width - crop.height * columns / rows) <= 1 + columns / rows


def test_what_is_far_too_long_has_no_bucket():
    assert bucket_of(100, 500, bucket_shapes(512)) is None
    assert bucket_of(500, 100, bucket_shapes(512)) is None


def ramp(height, width):
    """A photo of floats whose first channel is the column and second the row of each pixel."""
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    return np.stack([columns, rows, np.ones_like(rows)], axis=-1)


@pytest.mark.parametrize("ratio", ELEVEN, ids=lambda ratio: f"{ratio[0]}-{ratio[1]}")
def test_nothing_is_squashed(ratio):
    """Where each pixel of a crop comes from, read off the pixels themselves: one scale for both directions."""
    width, height = round(900 * (ratio[0] / ratio[1]) ** 0.5), round(900 * (ratio[1] / ratio[0]) ** 0.5)
    shapes = bucket_shapes(512, 64)
    bucket = bucket_of(height, width, shapes)
    assert bucket is not None
    for seed in range(4):
        crop = draw_bucket_crop(height, width, shapes[bucket], np.random.default_rng(seed), zoom=0.8)
        pixels = apply_crop(ramp(height, width), crop, shapes[bucket])
        assert pixels.shape[:2] == shapes[bucket]
        inner = pixels[4:-4, 4:-4]  # a resized border is blended with itself
        across = np.abs(np.diff(inner[..., 0], axis=1)).mean()  # pixels of the photo for one of the crop
        down = np.diff(inner[..., 1], axis=0).mean()
        assert across / down == pytest.approx(1, abs=0.004)
        assert np.ptp(inner[..., 0], axis=0).max() < 0.5, "nor sheared or rotated, by half a pixel"
        seen = np.ptp(pixels[..., 0]) * np.ptp(pixels[..., 1])
        assert seen >= 0.89 * width * height, "nine tenths of the photo are there (but for its outermost pixels)"


def test_mirrored_half_of_the_time():
    shape = (448, 576)
    crops = [draw_bucket_crop(500, 640, shape, np.random.default_rng(seed), zoom=0.9) for seed in range(100)]
    assert 30 < sum(crop.flip for crop in crops) < 70 and len(set(crops)) > 90
    with pytest.raises(OptionsError, match="0 < zoom <= 1"):
        draw_bucket_crop(500, 640, shape, np.random.default_rng(0), zoom=0)

"""Squares as published protocols make them, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from chromatune.data import content_of
from chromatune.evaluation.protocol import ChosenPhoto
from chromatune.evaluation.squares import center_square, make_square, square_of


def row_of(levels: list[int], height: int) -> np.ndarray:
    """A photo whose columns have these levels."""
    return np.repeat(np.repeat(np.array(levels, np.uint8)[None, :, None], height, axis=0), 3, axis=2)


def test_pillows_bilinear_filter_reaches_over_the_neighbors_when_it_halves():
    """A triangle of 4 samples, cut at the edge: (3, 3, 1) / 7 and (1, 3, 3, 1) / 8; area means would be (1, 1) / 2."""
    photo = row_of([0, 80, 160, 240, 0, 80, 160, 240], 8)
    halved = make_square(photo, 4, "center-bilinear")
    assert halved.shape == (4, 4, 3)
    first, second = (3 * 0 + 3 * 80 + 1 * 160) / 7, (1 * 80 + 3 * 160 + 3 * 240 + 1 * 0) / 8
    assert halved[0, :2, 0].tolist() == [round(first), round(second)]
    assert center_square(photo, 4)[0, :2, 0].tolist() == [40, 200]


@pytest.mark.parametrize(("width", "left"), [(4, 1), (5, 2), (7, 2), (9, 4)])
def test_an_odd_rest_is_halved_to_the_even_number(width, left):
    """As Python rounds (width - 2) / 2, and so does torchvision; ours rounds down."""
    photo = row_of(list(range(0, 10 * width, 10)), 2)
    assert make_square(photo, 2, "center-bilinear")[0, :, 0].tolist() == [10 * left, 10 * left + 10]
    assert make_square(photo, 2)[0, 0, 0] == 10 * ((width - 2) // 2)


def test_a_stretched_photo_is_whole_and_sampled_between_two_pixels():
    photo = row_of([0, 10, 30, 200, 250, 100, 51, 0], 2)
    assert make_square(photo, 2, "stretched")[0, :, 0].tolist() == [20, round((100 + 51) / 2)]
    tall = photo.transpose(1, 0, 2)
    assert make_square(tall, 2, "stretched")[:, 0, 0].tolist() == [20, 76]


def test_a_photo_that_is_decoded_again_gets_the_same_square():
    photo = np.random.default_rng(0).integers(0, 256, (40, 61, 3), np.uint8)
    for how in ("center", "center-bilinear", "stretched"):
        chosen = ChosenPhoto("a", content_of(photo), "held-out", photo.copy)
        again = chosen.open_square(32, how)
        np.testing.assert_array_equal(again.rgb_u8, square_of(photo, 32, how).rgb_u8)
        assert again.full_size == (40, 61)


def test_another_way_is_refused():
    with pytest.raises(ValueError, match="accepted: center, center-bilinear, stretched"):
        make_square(np.zeros((4, 4, 3), np.uint8), 2, "round")

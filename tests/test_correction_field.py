"""The correction field: a mean of what hints say, along equal luma; and what fits the gamut."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chromatune import color
from chromatune.color import fit_gamut, relative_chroma
from chromatune.color.correction_field import CorrectionField, grid_size, upsample_field


def halves(height: int = 32, width: int = 48) -> np.ndarray:
    """Two flat halves of different luma."""
    luma = np.full((height, width), 0.3, np.float32)
    luma[:, width // 2 :] = 0.7
    return luma


def one_hint(luma: np.ndarray, row: int, column: int, value: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    correction, weight = np.zeros((*luma.shape, 2), np.float32), np.zeros(luma.shape, np.float32)
    correction[row - 2 : row + 3, column - 2 : column + 3] = value
    weight[row - 2 : row + 3, column - 2 : column + 3] = 1
    return correction, weight


def test_a_hint_fills_its_own_half_and_stops_at_the_edge():
    luma = halves()
    field = CorrectionField(luma).solve(*one_hint(luma, 16, 10, (0.1, -0.2)))
    np.testing.assert_allclose(field[16, 10], (0.1, -0.2), atol=1e-3)
    assert field[2, 2, 0] > 0.08
    assert abs(field[:, 26:]).max() < 0.05


def test_a_correction_fades_with_the_distance_and_reach_carries_it_further():
    luma = np.full((24, 200), 0.5, np.float32)
    hint = one_hint(luma, 12, 5, (0.2, 0.0))
    near, far = (CorrectionField(luma).solve(*hint, reach=reach)[12, :, 0] for reach in (0.5, 2.0))
    assert near[6] > near[80] > near[160] >= 0
    assert far[160] > 2 * near[160]


@given(st.integers(0, 2**32 - 1), st.floats(0.1, 10), st.integers(1, 12), st.integers(1, 12))
@settings(max_examples=40, deadline=None)
def test_between_contradicting_hints_nothing_overshoots(seed, reach, height, width):
    """The maximum principle: every value lies between the smallest and the largest correction, and 0."""
    rng = np.random.default_rng(seed)
    luma = rng.choice([0.0, 0.5, 1.0], (height, width)) + rng.normal(0, 0.05, (height, width))
    correction = rng.choice([-0.5, 0.5], (height, width, 2))
    weight = rng.choice([0.0, 0.01, 1.0], (height, width), p=[0.6, 0.2, 0.2])
    field = CorrectionField(luma.astype(np.float32)).solve(correction, weight, reach=reach)
    said = np.concatenate([np.zeros((1, 2)), correction[weight > 0]])
    assert (field >= said.min(axis=0) - 1e-5).all() and (field <= said.max(axis=0) + 1e-5).all()
    fine = upsample_field(field, luma.astype(np.float32), rng.uniform(0, 1, (3 * height, 2 * width)).astype(np.float32))
    assert (fine >= field.min(axis=(0, 1)) - 1e-5).all() and (fine <= field.max(axis=(0, 1)) + 1e-5).all()


def test_it_solves_its_equation():
    """Against the dense matrix, written down another way."""
    from chromatune.color.correction_field import HINT_WEIGHT, LEAK, LEAST_AFFINITY, LUMA_SIGMA

    rng = np.random.default_rng(3)
    luma, weight = rng.uniform(0.4, 0.6, (5, 7)), rng.uniform(0, 1, (5, 7))
    wanted = rng.uniform(-0.3, 0.3, (5, 7, 2))
    matrix = np.diag(HINT_WEIGHT * weight.ravel() + LEAK)
    places = [(row, column) for row in range(5) for column in range(7)]
    for i, (row, column) in enumerate(places):
        for j, (other_row, other_column) in enumerate(places):
            if i != j and max(abs(row - other_row), abs(column - other_column)) == 1:
                gap = np.float32(luma[row, column]) - np.float32(luma[other_row, other_column])
                affinity = np.exp(-(float(gap) ** 2) / (2 * LUMA_SIGMA**2)) + LEAST_AFFINITY
                matrix[i, j] -= affinity
                matrix[i, i] += affinity
    expected = np.linalg.solve(matrix, HINT_WEIGHT * weight.ravel()[:, None] * wanted.reshape(-1, 2))
    found = CorrectionField(luma).solve(wanted, weight)
    np.testing.assert_allclose(found.reshape(-1, 2), expected, atol=1e-5)


def test_turning_the_photo_turns_the_field():
    rng = np.random.default_rng(0)
    luma, weight = rng.uniform(0.4, 0.6, (20, 30)).astype(np.float32), rng.uniform(0, 1, (20, 30)) > 0.9
    wanted = rng.uniform(-0.3, 0.3, (20, 30, 2)).astype(np.float32)
    lying = CorrectionField(luma).solve(wanted, weight)
    standing = CorrectionField(luma.T).solve(wanted.transpose(1, 0, 2), weight.T)
    np.testing.assert_allclose(standing, lying.transpose(1, 0, 2), atol=1e-6)


def test_no_hint_is_no_correction():
    luma = halves()
    assert not CorrectionField(luma).solve(np.ones((32, 48, 2)), np.zeros((32, 48))).any()


@pytest.mark.parametrize(
    ("photo", "grid"),
    [
        ((3000, 4000), (128, 171)),
        ((4000, 3000), (171, 128)),
        ((50, 70), (50, 70)),
        ((10, 9000), (10, 40)),
        ((1, 1), (1, 1)),
    ],
)
def test_the_grid_has_the_photos_aspect_and_no_more_pixels(photo, grid):
    assert grid_size(*photo) == grid


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=50, deadline=None)
def test_fitted_chroma_is_in_gamut_of_the_same_hue_and_no_less_than_it_could_be(seed):
    rng = np.random.default_rng(seed)
    chroma, luma = rng.uniform(-1, 1, (50, 2)), rng.uniform(0, 1, 50)
    fitted = fit_gamut(chroma, luma)
    blue, red = luma + 1.772 * fitted[:, 0], luma + 1.402 * fitted[:, 1]
    green = (luma - 0.299 * red - 0.114 * blue) / 0.587
    rgb = np.stack([red, green, blue], axis=1)
    assert rgb.min() > -1e-6 and rgb.max() < 1 + 1e-6
    np.testing.assert_allclose(fitted[:, 0] * chroma[:, 1], fitted[:, 1] * chroma[:, 0], atol=1e-9)
    whole = np.isclose(fitted, chroma).all(axis=1)
    at_the_edge = np.isclose(rgb.min(axis=1), 0, atol=1e-6) | np.isclose(rgb.max(axis=1), 1, atol=1e-6)
    assert (whole | at_the_edge).all()


def test_lightness_of_a_color_does_not_count():
    dark, bright = np.array([64, 16, 8]) / 255, np.array([240, 60, 30]) / 255
    np.testing.assert_allclose(relative_chroma(dark), relative_chroma(bright), rtol=1e-5)
    np.testing.assert_allclose(
        relative_chroma(dark) * color.luma(dark[None, None])[0, 0], color.chroma_of(dark[None, None])[0, 0], rtol=1e-5
    )
    assert not relative_chroma(np.array([[0.0, 0, 0], [0.3, 0.3, 0.3]])).round(6).any()

"""A finished picture laid on the photo that it was made from: drawn scenes, moved and changed in known ways."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from chromatune.color import align, chroma_of, luma, luma_drift, recompose, take_colors
from chromatune.errors import PhotoError

HEIGHT, WIDTH = 210, 280


def draw_scene(seed: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Textured patches of several colors, (H, W, 3) uint8."""
    rng = np.random.default_rng(seed)
    scene = np.empty((height, width, 3), np.float32)
    scene[:] = rng.uniform(90, 160, 3)
    for _ in range(60):
        center = int(rng.uniform(0, width)), int(rng.uniform(0, height))
        axes = int(rng.uniform(8, 40)), int(rng.uniform(8, 40))
        cv2.ellipse(scene, center, axes, float(rng.uniform(0, 180)), 0, 360, rng.uniform(50, 205, 3).tolist(), -1)
    texture = cv2.GaussianBlur(rng.standard_normal((height, width)).astype(np.float32), (0, 0), 1.5)
    return np.rint(np.clip(cv2.GaussianBlur(scene, (0, 0), 1) + 40 * texture[..., None], 0, 255)).astype(np.uint8)


def moved(rgb: np.ndarray, matrix: list[list[float]], size: tuple[int, int]) -> np.ndarray:
    """The picture under an affine transform of its (x, y), at a size of (height, width)."""
    affine = np.array(matrix, np.float64)
    return cv2.warpAffine(rgb, affine, size[::-1], flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)


def turned(rgb: np.ndarray, degrees: float) -> np.ndarray:
    height, width = rgb.shape[:2]
    return moved(rgb, cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1).tolist(), (height, width))


def chroma_error(result: np.ndarray, truth: np.ndarray) -> float:
    """Mean distance of (Cb, Cr)."""
    off = chroma_of(result.astype(np.float32) / 255) - chroma_of(truth.astype(np.float32) / 255)
    return float(np.hypot(off[..., 0], off[..., 1]).mean())


def error_of(truth: np.ndarray, finished: np.ndarray) -> tuple[float, float]:
    """Error of the colors that are taken from `finished`, as shares of that of a gray photo, and their confidence."""
    gray = luma(truth)
    taken = take_colors(gray, finished)
    result = recompose(gray, taken.chroma)
    assert luma_drift(result, gray) == (0, 0)
    as_gray = np.repeat(gray[..., None], 3, axis=2)
    return chroma_error(result, truth) / chroma_error(as_gray, truth), float(taken.confidence.mean())


TRUTH = draw_scene(1)
CHANGES = {
    "identity": (TRUTH, 0.04, 0.95),
    "shifted": (moved(TRUTH, [[1, 0, 9], [0, 1, -6]], (HEIGHT, WIDTH)), 0.1, 0.8),
    "cropped": (TRUTH[15:-15, 20:-20], 0.2, 0.6),
    "turned": (turned(TRUTH, 10), 0.2, 0.6),
    "mirrored": (TRUTH[:, ::-1], 0.05, 0.95),
    "mirrored and cropped": (TRUTH[15:-15, -20:20:-1], 0.2, 0.6),
    "larger": (cv2.resize(TRUTH, (700, 525), interpolation=cv2.INTER_CUBIC), 0.06, 0.9),
    "stretched": (cv2.resize(TRUTH, (260, 260), interpolation=cv2.INTER_CUBIC), 0.08, 0.9),
    "with a border": (cv2.copyMakeBorder(TRUTH, 60, 20, 35, 30, cv2.BORDER_CONSTANT, value=(240, 230, 210)), 0.08, 0.9),
    "16 bits": (TRUTH.astype(np.uint16) * 257, 0.04, 0.95),
}


@pytest.mark.parametrize("change", CHANGES)
def test_colors_are_taken_from_where_the_picture_shows_them(change: str) -> None:
    finished, most_error, least_confidence = CHANGES[change]
    error, confidence = error_of(TRUTH, finished)
    assert error < most_error and confidence > least_confidence
    assert align(luma(TRUTH), finished).mirrored == ("mirrored" in change)


def test_bent_pictures_are_followed() -> None:
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    x, y = x + 5 * np.sin(y / 40), y + 5 * np.cos(x / 50)
    bent = cv2.remap(TRUTH, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
    stretched = recompose(luma(TRUTH), chroma_of(bent.astype(np.float32) / 255))
    error, _ = error_of(TRUTH, bent)
    as_gray = np.repeat(luma(TRUTH)[..., None], 3, axis=2)
    assert error < 0.1 < chroma_error(stretched, TRUTH) / chroma_error(as_gray, TRUTH)


def test_a_picture_with_few_features_is_aligned_by_correlation() -> None:
    soft = cv2.GaussianBlur(draw_scene(3), (0, 0), 16)
    error, _ = error_of(soft, turned(soft, 6)[18:-18, 24:-24])
    assert error < 0.4


@pytest.mark.parametrize("seed", range(4))
def test_another_picture_is_refused_in_one_line(seed: int) -> None:
    with pytest.raises(
        PhotoError, match=r"^b\.png does not show this photo \(they match by \d+%, and 15% is needed\); "
    ):
        take_colors(luma(draw_scene(seed)), draw_scene(seed + 10), "b.png")


def test_pictures_without_any_structure_are_refused() -> None:
    flat = np.full((60, 80, 3), 128, np.uint8)
    for gray, finished in ((luma(TRUTH), flat), (flat[..., 0], TRUTH), (flat[..., 0], flat)):
        with pytest.raises(PhotoError, match="does not show this photo"):
            take_colors(gray, finished)


@pytest.mark.parametrize("shape", [(1, 1), (3, 40), (400, 4), (2000, 30)])
def test_every_size_of_either_has_an_answer(shape: tuple[int, int]) -> None:
    odd = cv2.resize(TRUTH, shape[::-1], interpolation=cv2.INTER_AREA)
    for gray, finished in ((luma(odd), TRUTH), (luma(TRUTH), odd), (luma(odd), odd)):
        aligned = align(gray, finished)
        assert np.isfinite(aligned.chroma).all() and 0 <= aligned.score <= 1
        assert aligned.chroma.shape[:2] == aligned.confidence.shape
        assert aligned.confidence.min() >= 0 and aligned.confidence.max() <= 1


def test_what_was_redrawn_gets_no_color_of_its_own() -> None:
    """A thing that only the picture shows may have any color: the result is the same."""
    truth = draw_scene(5)
    gray = luma(truth)
    inside = np.hypot(*(np.mgrid[:HEIGHT, :WIDTH] - np.array([100, 140])[:, None, None])) < 30
    drawn, results = [], []
    for color in ((200, 60, 60), (60, 80, 250)):  # of about one luma
        finished = truth.copy()
        cv2.circle(finished, (140, 100), 34, color, -1)
        cv2.circle(finished, (150, 110), 12, tuple(channel // 2 for channel in color), -1)
        taken = take_colors(gray, finished)
        confidence = cv2.resize(taken.confidence, (WIDTH, HEIGHT))
        assert confidence[inside].mean() < 0.05 and confidence[~inside].mean() > 0.8
        drawn.append(chroma_of(finished.astype(np.float32) / 255)[inside])
        results.append(chroma_of(recompose(gray, taken.chroma).astype(np.float32) / 255)[inside])
    difference, drawn_difference = (float(np.abs(one - other).mean()) for one, other in (results, drawn))
    assert difference < 0.1 * drawn_difference
    assert float(np.abs(results[0]).mean()) > 0.02  # it has the color of what is around


@pytest.mark.parametrize("over", ["luma", "channels"])
def test_chroma_follows_the_tones_of_the_photo(over: str) -> None:
    """A curve over luma leaves chroma as it was; one over each channel changes it, and is undone."""
    truth = TRUTH.astype(np.float32) / 255
    own = luma(truth)
    finished = truth + (own**0.6 - own)[..., None] if over == "luma" else truth**0.6
    error, _ = error_of(TRUTH, np.rint(np.clip(finished, 0, 1) * 255).astype(np.uint8))
    assert error < 0.12


def test_scratches_keep_their_luminance_and_take_the_color_around() -> None:
    gray = luma(TRUTH)
    scratched = gray.copy()
    cv2.line(scratched, (90, 0), (110, HEIGHT), 250, 2)
    result = recompose(scratched, take_colors(scratched, TRUTH).chroma)
    assert luma_drift(result, scratched) == (0, 0)
    clean = scratched == gray
    as_gray = np.repeat(gray[..., None], 3, axis=2)
    assert chroma_error(result[clean][None], TRUTH[clean][None]) < 0.06 * chroma_error(as_gray, TRUTH)


def test_the_same_pictures_give_the_same_bytes() -> None:
    finished = turned(TRUTH, 3)
    first, second = (take_colors(luma(TRUTH), finished) for _ in range(2))
    assert first.chroma.tobytes() == second.chroma.tobytes() and first.score == second.score


def test_wrong_arrays_are_refused() -> None:
    with pytest.raises(ValueError, match="gray must be"):
        align(TRUTH, TRUTH)
    with pytest.raises(ValueError, match="rgb must be"):
        align(luma(TRUTH), luma(TRUTH))

"""The colors of a finished picture, taken over to the photo that it was made from.

Models that edit, and people, draw a photo again while they color it: things move by some pixels, the tones change, the
picture is cropped, mirrored or gets a border, and objects come and go. So the picture is laid on the photo first:

1. Both lumas are normalized locally, so that neither tones nor light matter.
2. Features (SIFT) and a robust homography (MAGSAC++) find crop, rotation, border and mirroring; where a picture has few
   features, the enhanced correlation coefficient does (ECC, Evangelidis & Psarakis 2008).
3. Dense optical flow follows what has moved.
4. Confidence says where both show the same: where the flow leads back, and both vary alike. Nothing is taken elsewhere.

Chroma belongs to its luma, so where the picture has other tones, its chroma has to follow the photo's (`_at_tones_of`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from chromatune.color.correction_field import CorrectionField, upsample_field
from chromatune.color.flow import flow_between, flow_confidence, warp
from chromatune.color.luminance import LUMA_WEIGHTS, WHITE_LEVEL, check_gray, check_rgb, chroma_of, fit_gamut, luma
from chromatune.color.recomposition import resize
from chromatune.errors import PhotoError

WORK_PX = 440  # side of a square with as many pixels as the pictures have where they are compared
FEATURE_PX = 256  # the same, where features are searched
GRID_PX = 110  # the same, where colors spread
SHORTEST_PX = 32  # of a side there; longer strips are squeezed

NORM_SHARE = 0.07  # radius of the window that luma is normalized in, as a share of the short side
GRAIN_PX = 1.5  # sigma of the blur against grain
NORM_NOISE = 0.03  # standard deviation of luma, 0..1, below which it is flat
NORM_LEVELS = 45  # gray levels, of 255, for one standard deviation

FEATURES = 1000  # at most
FEATURE_CONTRAST = 0.015
MATCH_RATIO = 0.8  # of the distances to the best and the second-best feature (Lowe 2004)
MATCH_PX = 3.0  # by which a match may miss the homography
LEAST_MATCHES = 10  # fewer that agree are chance
SURE_MATCHES = 40  # with as many, the mirrored picture is not tried
LEAST_OVERLAP = 0.1  # of the photo, which the picture must show
ZOOM = 6.0  # at most, either way
BETTER = 0.02  # correlation by which a transform must beat the picture stretched over the photo
ECC_STEPS, ECC_CHANGE, ECC_BLUR_PX = 60, 1e-4, 9

RETURN_PX = 1.0  # error of the flow there and back: chroma is softer than luma
LIKENESS_SHARES = (0.02, 0.06)  # radii of the windows that both are compared in, as shares of the short side
LIKENESS_NOISE = 0.3  # of normalized luma: where both vary less, they are alike
UNLIKE, ALIKE = 0.3, 0.75  # local correlation at which nothing is taken, and all
LEAST_SCORE = 0.15  # of 0..1; on 60 photos, unrelated pictures reach 0.02, and finished ones keep 0.61
LEAST_STRUCTURE = 0.02  # mean deviation of normalized luma: less is a blank picture, which agrees with nothing
TONE_SIGMA = 0.2  # difference of luma, 0..1, beyond the change of tones: it is another thing

STEADY_SHARE = 0.1  # radius of the window whose flow a pixel's is compared with, as a share of the short side
STEADY_PX_SHARE = 0.016  # difference from it, at which confidence is exp(-1/2), as a share of the short side
REGION_SHARE = 0.04  # radius of the window whose mean confidence a pixel needs too, as a share of the short side
LONELY, SUPPORTED = 0.5, 0.8  # that mean: at the edge of what was redrawn, and well inside of what was not
LEAST_WEIGHT = 0.5  # confidence from which colors spread

KNOTS = 13  # of a tone curve
CURVE_SAMPLES = 4000
CURVE_STIFFNESS, CURVE_PULL = 1e-3, 1e-5
CURVE_NOISE = 0.002  # of luma, 0..1, below which a curve's error says nothing
CURVE_CHOICE = 8  # power of the errors by which two explanations of the tones are weighed


@dataclass(frozen=True, eq=False)
class Aligned:
    """A finished picture as the photo sees it.

    Attributes:
        chroma: (h, w, 2) float32, (Cb, Cr), for the photo's luma; h and w are a working size of the photo's aspect.
        confidence: (h, w) float32, 0..1: where the picture shows what the photo shows.
        score: 0..1, mean confidence where the picture covers the photo, by how much structure both have there;
            what has less than `LEAST_SCORE` is another picture.
        mirrored: the picture is the photo's mirror image.
    """

    chroma: np.ndarray
    confidence: np.ndarray
    score: float
    mirrored: bool

    @property
    def is_of_photo(self) -> bool:
        """Whether the picture shows what the photo shows."""
        return self.score >= LEAST_SCORE


def take_colors(
    gray: np.ndarray,
    finished_rgb: np.ndarray,
    name: str = "the finished picture",
    elsewhere: np.ndarray | None = None,
) -> Aligned:
    """Return the colors of a finished picture on a photo, for `recompose`: for all of it.

    Where confidence is low, colors spread from where it is high along the photo's luma.

    Args:
        gray: see `align`.
        finished_rgb: see `align`.
        name: of the picture, for the error.
        elsewhere: (h, w, 2) float32, (Cb, Cr), such as a model's: the colors where the picture gives none. Near what it
            gives, they follow it.

    Raises:
        PhotoError: the picture shows something else.
        ValueError: wrong shape or dtype.
    """
    aligned = align(gray, finished_rgb)
    if not aligned.is_of_photo:
        raise PhotoError(
            f"{name} does not show this photo (they match by {aligned.score:.0%}, "
            f"and {LEAST_SCORE:.0%} is needed); give a picture that was made from it"
        )
    return replace(aligned, chroma=fill_colors(aligned, gray, elsewhere))


def fill_colors(aligned: Aligned, gray: np.ndarray, elsewhere: np.ndarray | None = None) -> np.ndarray:
    """Return a finished picture's chroma where confidence is high, and spread from there: (h, w, 2) float32.

    Args:
        aligned: see `align`.
        gray: the photo that it was laid on.
        elsewhere: see `take_colors`.
    """
    photo = _shrunk(gray, _size_of(gray.shape, WORK_PX))
    return _filled(aligned.chroma, aligned.confidence, photo, elsewhere)


def align(gray: np.ndarray, finished_rgb: np.ndarray) -> Aligned:
    """Lay a finished picture on the photo that it was made from.

    Args:
        gray: (H, W) uint8 or uint16, the photo's luma.
        finished_rgb: (H2, W2, 3) uint8 or uint16 sRGB, of any size: cropped, turned by up to about 10°, mirrored, with
            borders, redrawn.

    Raises:
        ValueError: wrong shape or dtype.
    """
    check_gray(gray)
    check_rgb(finished_rgb)
    photo = _shrunk(gray, _size_of(gray.shape, WORK_PX))
    picture = _shrunk(finished_rgb, _size_of(finished_rgb.shape, WORK_PX))
    normal = _normalized(photo)
    matrix, mirrored = _transform(normal, _normalized(luma(picture)))
    if mirrored:
        picture = np.ascontiguousarray(picture[:, ::-1])
    rgb, seen = _transformed(picture, matrix, photo.shape)
    other = _normalized(luma(rgb))
    flow = flow_between(_as_levels(normal), _as_levels(other), fine=True)
    back = flow_between(_as_levels(other), _as_levels(normal), fine=True)
    rgb, other, seen = (warp(plane, flow) for plane in (rgb, other, seen))
    likeness, structure, shared = _likeness(normal, other)
    alike = np.clip((likeness - UNLIKE) / (ALIKE - UNLIKE), 0, 1)
    sure = flow_confidence(flow, back, RETURN_PX) * alike * (seen > 0.99)
    sure = sure * _steadiness(flow, sure)
    most = max(float((structure * seen).sum()), LEAST_STRUCTURE * photo.size)
    score = float((sure * shared).sum()) / most
    chroma, toned = _at_tones_of(photo, rgb, sure)
    sure = sure * np.exp(-0.5 * ((cv2.GaussianBlur(photo - toned, (0, 0), 1.5)) / TONE_SIGMA) ** 2)
    sure = sure * np.clip((_mean(sure, REGION_SHARE) - LONELY) / (SUPPORTED - LONELY), 0, 1)
    return Aligned(chroma, sure.astype(np.float32), score, mirrored)


def _shrunk(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A picture, (H, W) or (H, W, 3) of integers, at another size: float32, 0..1; halved first, which is fast."""
    white = WHITE_LEVEL[image.dtype]
    while image.shape[0] >= 2 * size[0] and image.shape[1] >= 2 * size[1]:
        image = resize(image, image.shape[0] // 2, image.shape[1] // 2)
    return resize(image, *size).astype(np.float32) / white


def _size_of(shape: tuple[int, ...], side_px: int) -> tuple[int, int]:
    """Height and width with the area of a square and a picture's aspect, up to strips."""
    scale = side_px / (shape[0] * shape[1]) ** 0.5
    height, width = (max(SHORTEST_PX, round(side * scale)) for side in shape[:2])
    longest = side_px * side_px // SHORTEST_PX
    return min(height, longest), min(width, longest)


def _normalized(image: np.ndarray) -> np.ndarray:
    """Luma, (h, w), with local mean 0 and, but for flat surfaces, local standard deviation 1."""
    image = cv2.GaussianBlur(image, (0, 0), GRAIN_PX)
    detail = image - _mean(image, NORM_SHARE)
    return np.asarray(detail / np.sqrt(_mean(detail * detail, NORM_SHARE) + NORM_NOISE**2))


def _mean(plane: np.ndarray, share: float) -> np.ndarray:
    """Means in windows with a radius that is a share of the short side."""
    side = 2 * max(1, round(share * min(plane.shape))) + 1
    return cv2.stackBlur(plane, (side, side))


def _as_levels(normal: np.ndarray) -> np.ndarray:
    return np.clip(128 + NORM_LEVELS * normal, 0, 255).astype(np.uint8)


def _transform(photo: np.ndarray, picture: np.ndarray) -> tuple[np.ndarray, bool]:
    """Find where the photo's pixels lie in the picture, or in its mirror image.

    Args:
        photo: (h, w) float32, normalized luma.
        picture: (h2, w2), the same.

    Returns:
        (3, 3) float64, a homography of (x, y, 1); and whether the picture is mirrored.
    """
    mirror = np.ascontiguousarray(picture[:, ::-1])
    stretch = _scaling(photo.shape, picture.shape)
    candidates = [(stretch, False), (stretch, True)]
    found = list(_homographies(photo, picture, mirror)) or list(_by_correlation(photo, picture, mirror))
    candidates += found
    agreements = [
        _agreement(photo, mirror if mirrored else picture, matrix) + (0 if matrix is stretch else -BETTER)
        for matrix, mirrored in candidates
    ]
    return candidates[int(np.argmax(agreements))]


def _scaling(shape: tuple[int, ...], other: tuple[int, ...]) -> np.ndarray:
    """The homography that stretches a picture of one size over one of the other: pixel areas, not centers, coincide."""
    (height, width), (other_height, other_width) = shape, other
    x, y = other_width / width, other_height / height
    return np.array([[x, 0, x / 2 - 0.5], [0, y, y / 2 - 0.5], [0, 0, 1]])


def _homographies(photo: np.ndarray, picture: np.ndarray, mirror: np.ndarray) -> Iterator[tuple[np.ndarray, bool]]:
    """Homographies that enough features agree on, and whether each is to the mirror image."""
    small = resize(photo, *_size_of(photo.shape, FEATURE_PX))
    size = _size_of(picture.shape, FEATURE_PX)
    search = cv2.SIFT.create(FEATURES, contrastThreshold=FEATURE_CONTRAST)
    features = search.detectAndCompute(_as_levels(small), None)
    for mirrored, view in ((False, picture), (True, mirror)):
        other = search.detectAndCompute(_as_levels(resize(view, *size)), None)
        matrix, count = _homography(features, other)
        if matrix is None or not _is_plausible(matrix, small.shape):
            continue
        yield _scaling(size, picture.shape) @ matrix @ _scaling(photo.shape, small.shape), mirrored
        if count >= SURE_MATCHES:
            return


def _homography(
    features: tuple[Sequence[cv2.KeyPoint], np.ndarray | None], other: tuple[Sequence[cv2.KeyPoint], np.ndarray | None]
) -> tuple[np.ndarray | None, int]:
    """The homography from key points, with their descriptors, to others, and how many agree on it; or None, 0."""
    (points, vectors), (other_points, other_vectors) = features, other
    if vectors is None or other_vectors is None or min(len(points), len(other_points)) < LEAST_MATCHES:
        return None, 0
    pairs = cv2.BFMatcher(cv2.NORM_L2).knnMatch(vectors, other_vectors, 2)
    clear = [best for best, second in pairs if best.distance < MATCH_RATIO * second.distance]
    if len(clear) < LEAST_MATCHES:
        return None, 0
    start = np.array([points[match.queryIdx].pt for match in clear], np.float32)
    end = np.array([other_points[match.trainIdx].pt for match in clear], np.float32)
    matrix, agree = cv2.findHomography(start, end, cv2.USAC_MAGSAC, MATCH_PX, maxIters=2000, confidence=0.999)
    count = 0 if matrix is None else int(agree.sum())  # type: ignore[redundant-expr]  # OpenCV's stubs are wrong
    return (matrix, count) if count >= LEAST_MATCHES else (None, 0)


def _is_plausible(matrix: np.ndarray, shape: tuple[int, ...]) -> bool:
    """Whether a homography keeps a picture a convex quadrilateral that is not turned over, of no absurd size."""
    height, width = shape
    corners = np.array([[0, 0, 1], [width, 0, 1], [width, height, 1], [0, height, 1]]) @ matrix.T
    if not np.isfinite(corners).all() or corners[:, 2].min() * corners[:, 2].max() <= 0:
        return False
    points = corners[:, :2] / corners[:, 2:]
    sides = np.roll(points, -1, axis=0) - points
    following = np.roll(sides, -1, axis=0)
    turns = sides[:, 0] * following[:, 1] - sides[:, 1] * following[:, 0]
    area = cv2.contourArea(points.astype(np.float32)) / (height * width)
    return bool(turns.min() > 0 and ZOOM**-2 < area < ZOOM**2)


def _by_correlation(photo: np.ndarray, picture: np.ndarray, mirror: np.ndarray) -> Iterator[tuple[np.ndarray, bool]]:
    """Affine transforms by ECC, from the picture and its mirror image stretched over the photo."""
    small = resize(photo, *_size_of(photo.shape, FEATURE_PX // 2))
    size = _size_of(picture.shape, FEATURE_PX // 2)
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, ECC_STEPS, ECC_CHANGE)
    for mirrored, view in ((False, picture), (True, mirror)):
        other, whole = resize(view, *size), np.ones(size, np.uint8)
        start = _scaling(small.shape, size)[:2].astype(np.float32)
        try:
            _, found = cv2.findTransformECC(small, other, start, cv2.MOTION_AFFINE, criteria, whole, ECC_BLUR_PX)
        except cv2.error:  # it does not converge
            continue
        matrix = np.concatenate([found.astype(np.float64), [[0, 0, 1]]])
        if _is_plausible(matrix, small.shape):
            yield _scaling(size, picture.shape) @ matrix @ _scaling(photo.shape, small.shape), mirrored


def _agreement(photo: np.ndarray, picture: np.ndarray, matrix: np.ndarray) -> float:
    """Correlation of normalized lumas, -1..1, where the picture shows the photo; -1 where that is too little."""
    moved, seen = _transformed(picture, matrix, photo.shape)
    if seen.mean() < LEAST_OVERLAP:
        return -1.0
    both = np.sqrt((moved * moved * seen).sum() * (photo * photo * seen).sum())
    return float((moved * photo * seen).sum() / max(float(both), 1e-6))


def _transformed(picture: np.ndarray, matrix: np.ndarray, size: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """The picture, (h2, w2) or (h2, w2, C), at the photo's pixels, and how far it covers each, (h, w) float32 0..1."""
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    moved = cv2.warpPerspective(picture, matrix, size[::-1], flags=flags, borderMode=cv2.BORDER_REPLICATE)
    whole = np.ones(picture.shape[:2], np.float32)
    return moved, cv2.warpPerspective(whole, matrix, size[::-1], flags=flags)


def _likeness(photo: np.ndarray, picture: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Local correlation of normalized lumas, the lowest of all windows; deviation of the photo; the lower one of both.

    (h, w) each; the deviations are those of the last window. Where neither varies they are alike; where one does, not.
    """
    likeness = np.ones(photo.shape, np.float32)
    variance = other_variance = np.zeros(photo.shape, np.float32)
    planes = (photo, picture, photo * photo, picture * picture, photo * picture)
    noise = LIKENESS_NOISE**2
    for share in LIKENESS_SHARES:
        mean, other_mean, square, other_square, product = (_mean(plane, share) for plane in planes)
        variance = np.maximum(square - mean**2, 0)
        other_variance = np.maximum(other_square - other_mean**2, 0)
        covariance = product - mean * other_mean
        likeness = np.minimum(likeness, (covariance + noise) / np.sqrt((variance + noise) * (other_variance + noise)))
    return likeness, np.sqrt(variance), np.sqrt(np.minimum(variance, other_variance))


def _steadiness(flow: np.ndarray, confidence: np.ndarray) -> np.ndarray:
    """How far the flow goes with that of what is sure around it, (h, w) 0..1.

    Flow bends what was redrawn until some of it looks like the photo; what is bent by more than its surroundings is
    another thing.
    """
    weight = _mean(confidence, STEADY_SHARE) + 1e-6
    apart = flow - _mean(flow * confidence[..., None], STEADY_SHARE) / weight[..., None]
    distance = np.hypot(apart[..., 0], apart[..., 1]) / (STEADY_PX_SHARE * min(confidence.shape))
    return np.asarray(np.exp(-0.5 * distance**2), np.float32)


def _at_tones_of(photo: np.ndarray, rgb: np.ndarray, confidence: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Chroma of the picture for the photo's luma, and the picture's luma at the photo's tones.

    Tones can have been changed by a curve over luma alone, which leaves chroma as it was, or over each channel, which
    carries chroma along: then the inverse curve over each channel restores it. Either says what luma the photo must
    have at each color; the one that says it better is believed. Where tones change, this has half the error of the
    raw chroma, and a quarter of that of hue and saturation, which is chroma scaled by the ratio of the lumas
    (`studies/finished_pictures.py`).

    Args:
        photo: (h, w) float32, 0..1.
        rgb: (h, w, 3) float32, 0..1, aligned.
        confidence: (h, w) float32, 0..1.

    Returns:
        (h, w, 2) and (h, w) float32.
    """
    rgb = np.clip(rgb, 0, 1)
    own = luma(rgb)
    sample = np.linspace(0, photo.size - 1, min(CURVE_SAMPLES, photo.size)).astype(int)
    colors, wanted, weight = rgb.reshape(-1, 3)[sample], photo.ravel()[sample], confidence.ravel()[sample]
    by_channel = np.tensordot(_hats(colors), np.array(LUMA_WEIGHTS), axes=(1, 0))  # (N, KNOTS)
    curve, error = _fit_curve(by_channel, wanted, weight)
    luma_curve, luma_error = _fit_curve(_hats(own.ravel()[sample]), wanted, weight)
    power = np.array([luma_error + CURVE_NOISE, error + CURVE_NOISE]) ** CURVE_CHOICE
    share = float(power[0] / power.sum())  # of the curve over each channel
    knots = np.linspace(0, 1, KNOTS)
    restored = np.interp(rgb, knots, curve).astype(np.float32)
    chroma = share * chroma_of(restored) + (1 - share) * chroma_of(rgb)
    toned = share * luma(restored) + (1 - share) * np.interp(own, knots, luma_curve)
    return fit_gamut(chroma.astype(np.float32), photo), toned.astype(np.float32)


def _hats(values: np.ndarray) -> np.ndarray:
    """Weights of the knots of a piecewise linear curve: (...) 0..1 -> (..., KNOTS)."""
    distance = np.abs(values[..., None] * (KNOTS - 1) - np.arange(KNOTS))
    return np.clip(1 - distance, 0, None)


def _fit_curve(design: np.ndarray, wanted: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, float]:
    """A rising curve by least absolute errors, smooth where nothing says otherwise, and its mean absolute error.

    Args:
        design: (N, KNOTS), the knots' weights at each sample.
        wanted: (N,), what the curve should give.
        weight: (N,), 0..1.
    """
    count = len(wanted)
    bends = np.diff(np.eye(KNOTS), 2, axis=0)
    identity = np.linspace(0, 1, KNOTS)
    prior = count * (CURVE_STIFFNESS * bends.T @ bends + CURVE_PULL * np.eye(KNOTS))
    share, curve, error = weight, identity, np.zeros(count)
    for _ in range(3):  # iteratively reweighted
        weighted = design * share[:, None]
        curve = np.linalg.solve(design.T @ weighted + prior, weighted.T @ wanted + prior @ identity)
        error = np.abs(design @ curve - wanted)
        share = weight / np.maximum(error, 0.01)
        share *= weight.sum() / max(share.sum(), 1e-9)
    mean_error = float((weight * error).sum() / max(weight.sum(), 1e-9))
    return np.maximum.accumulate(np.clip(curve, 0, 1)), mean_error


def _filled(
    chroma: np.ndarray, confidence: np.ndarray, photo: np.ndarray, elsewhere: np.ndarray | None = None
) -> np.ndarray:
    """Chroma, (h, w, 2), where confidence, (h, w), is high, and elsewhere that of there, spread along equal luma.

    With chroma that is known elsewhere, what spreads is the difference, which fades with the distance.
    """
    size = _size_of(photo.shape, GRID_PX)
    grid, weight = resize(photo, *size), resize(confidence, *size)
    mean = resize(chroma * confidence[..., None], *size) / np.maximum(weight, 1e-6)[..., None]
    weight = np.clip((weight - LEAST_WEIGHT) / (1 - LEAST_WEIGHT), 0, 1)
    if elsewhere is not None:
        known = resize(np.ascontiguousarray(elsewhere, np.float32), *size)
        difference = CorrectionField(grid).solve(mean - known, weight)
        fill = resize(elsewhere, *photo.shape) + upsample_field(difference, grid, photo)
        return np.asarray(fill + confidence[..., None] * (chroma - fill), np.float32)
    # Divided by what ones become: a mean that does not fade with the distance
    values = np.concatenate([mean, np.ones((*size, 1), np.float32)], axis=-1)
    spread = CorrectionField(grid).solve(values, weight)
    spread = spread[..., :2] / np.maximum(spread[..., 2:], 1e-6)
    fill = upsample_field(spread, grid, photo)
    return np.asarray(fill + confidence[..., None] * (chroma - fill), np.float32)

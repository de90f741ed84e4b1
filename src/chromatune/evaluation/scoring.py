"""One photo's scores: metrics against the truth, failure signatures, and what the truth itself measures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from chromatune import color
from chromatune.errors import DataError, PhotoError
from chromatune.evaluation import metrics, signatures
from chromatune.evaluation.protocol import ChosenPhoto, centre_square, content_of

FaceFinder = Callable[[ChosenPhoto, np.ndarray], signatures.Box | None]
Scores = dict[str, float | None]


@dataclass(frozen=True, eq=False)
class Target:
    """What a photo's results are compared with.

    Attributes:
        photo: where it is from.
        reference: the truth, its centre square, and what comparisons need of it.
        grey: (S, S) uint8, Rec.601 luma of the truth: what is colorized.
        near_edges: (S, S) bool, where a chroma edge would follow one of luma.
        full_size: height and width of the whole photo, in pixels.
        face: where a face is in the square, if one was looked for and found.
        own: scores of the truth itself: "truth_cf_field", "truth_cf_signed", "truth_bleeding".
    """

    photo: ChosenPhoto
    reference: metrics.Reference
    grey: np.ndarray
    near_edges: np.ndarray
    full_size: tuple[int, int]
    face: signatures.Box | None
    own: Scores

    @property
    def truth(self) -> np.ndarray:
        """(S, S, 3) uint8 sRGB."""
        return self.reference.rgb_u8


def open_target(photo: ChosenPhoto, size_px: int, find_face: FaceFinder | None) -> Target:
    """The photo read again, as the target of its results.

    Raises:
        DataError: it cannot be read any more, or has other pixels than when it was chosen.
    """
    try:
        rgb_u8 = photo.read()
    except PhotoError as error:
        raise DataError(f"{photo.key}: could be read when it was chosen and cannot any more ({error})") from error
    if content_of(rgb_u8) != photo.content:
        raise DataError(f"{photo.key}: has changed while it was being measured; leave the source alone and start again")
    truth = centre_square(rgb_u8, size_px)
    grey = color.luma(truth)
    near_edges = signatures.near_luma_edges(grey)
    field, signed = metrics.colorfulness_variants(truth)
    own: Scores = {
        "truth_cf_field": field,
        "truth_cf_signed": signed,
        "truth_bleeding": signatures.bleeding_away_from(near_edges, truth),
    }
    face = None if find_face is None else find_face(photo, grey)
    height, width = rgb_u8.shape[:2]
    return Target(photo, metrics.reference_of(truth), grey, near_edges, (height, width), face, own)


def score(result: np.ndarray, target: Target) -> Scores:
    """All scores of a result, (S, S, 3) uint8 sRGB; "skin_ciede2000" is None without a face."""
    found, distances = metrics.scores_against(result, target.reference, target.grey)
    return {
        **found,
        "bleeding": signatures.bleeding_away_from(target.near_edges, result),
        "skin_ciede2000": None if target.face is None else signatures.skin_distance(distances, target.face),
        **target.own,
    }


def as_grey(target: Target) -> np.ndarray:
    """The input as a result: (S, S, 3) uint8 sRGB, three equal channels."""
    return np.repeat(target.grey[..., None], 3, axis=2)


def recomposed(result: np.ndarray, target: Target) -> np.ndarray:
    """Another tool's colours with the photograph's own luminance: (S, S, 3) uint8 sRGB, both."""
    return color.recompose(target.grey, color.chroma_of(result.astype(np.float32) / 255))

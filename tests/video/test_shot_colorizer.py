"""Chroma through a shot: it goes with the motion, holds still through grain and flicker, and fades with the video."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest

from chromatune.color import flow_between, flow_confidence, warp
from chromatune.video.flow import exposure_change, median, neighbor_flows
from chromatune.video.keyframes import find_keyframes, keyframe_offsets
from chromatune.video.shot_colorizer import ShotChroma, make_consistent


def colored(luma: np.ndarray, seed: int = 0) -> np.ndarray:
    """Chroma that is a function of what is seen, such as things have."""
    share = cv2.GaussianBlur(luma.astype(np.float32) / 255, (0, 0), 2) - 0.5
    return np.dstack([0.3 * share, -0.2 * share]) + np.float32(0.02 * np.random.default_rng(seed).standard_normal())


def shot_of(frames: list[np.ndarray], noise: bool = False) -> ShotChroma:
    exposures: list[float] = []
    height, width = frames[0].shape
    with ThreadPoolExecutor(2) as pool:
        keyframes = list(find_keyframes(frames, keyframe_offsets(len(frames)), (height, width), exposures, pool))
    lumas, keyframe_exposures = [each.luma for each in keyframes], [each.exposure for each in keyframes]
    chromas = [colored(luma, index if noise else 0) for index, luma in enumerate(lumas)]
    found = make_consistent(chromas, keyframe_exposures, neighbor_flows(lumas, keyframe_exposures))
    offsets = np.array([each.offset for each in keyframes])
    return ShotChroma(offsets, np.stack(lumas), found, np.array(keyframe_exposures), np.array(exposures))


def test_keyframes_are_few_and_include_hinted_frames() -> None:
    assert keyframe_offsets(1) == [0] and keyframe_offsets(14) == [7]
    offsets = keyframe_offsets(300, (3, 299))
    assert {3, 299} <= set(offsets) and len(offsets) < 30 and offsets == sorted(offsets)


def test_a_keyframe_is_stabilized(studio) -> None:
    clean = studio.pan(studio.texture(1), 9)
    frames = studio.aged(clean, 0, grain=12, flicker=0)
    frames[4] = frames[4].copy()
    frames[4][30:36, 40:46] = 255  # a speck of dust
    with ThreadPoolExecutor(2) as pool:
        (keyframe,) = find_keyframes(frames, [4], frames[0].shape, [], pool)
    inside = np.s_[8:-8, 8:-8]
    own = np.abs(frames[4][inside] - clean[4][inside]).mean()
    stabilized = np.abs(keyframe.stabilized[inside].astype(float) - clean[4][inside]).mean()
    assert stabilized < 0.7 * own
    assert np.abs(keyframe.stabilized[31:35, 41:45].astype(float) - clean[4][31:35, 41:45]).mean() < 25


@pytest.mark.parametrize("count", range(1, 6))
def test_the_median_of_a_few_pictures_is_that_of_numpy(count: int) -> None:
    pictures = [np.random.default_rng(seed).integers(0, 9, (6, 7)).astype(np.float32) for seed in range(count)]
    np.testing.assert_array_equal(median(pictures), np.median(pictures, axis=0))


def test_exposure_is_told_from_motion(studio) -> None:
    first, second = studio.pan(studio.texture(2), 2, step=3)
    darker = np.clip(0.8 * second, 0, 255).astype(np.uint8)
    assert exposure_change(first.astype(np.uint8), darker) == pytest.approx(np.log(0.8), abs=0.02)


def test_flow_leads_back_and_is_not_believed_where_nothing_was(studio) -> None:
    first, second = (frame.astype(np.uint8) for frame in studio.pan(studio.texture(3), 2, step=6))
    flow, backward = flow_between(second, first), flow_between(first, second)
    believed = flow_confidence(flow, backward)
    assert believed[10:-10, 10:-20].mean() > 0.85
    assert believed[:, -3:].mean() < 0.3  # it came into view
    warped = warp(first.astype(np.float32), flow)
    assert np.abs(warped - second)[10:-10, 10:-20].mean() < 3


def test_flow_depends_on_its_two_pictures_alone(studio) -> None:
    first, second = (frame.astype(np.uint8) for frame in studio.pan(studio.texture(3), 2, step=6))
    before = flow_between(first, second)
    flow_between(first[:40].copy(), second[:40].copy())  # OpenCV's search remembers the scale of small pictures
    assert np.array_equal(flow_between(first, second), before)


def test_chroma_goes_with_the_motion_and_does_not_flicker(studio) -> None:
    frames = studio.aged(studio.pan(studio.texture(4), 30, step=1), 1, grain=4, flicker=0.08)
    shot = shot_of(frames, noise=True)
    found = [shot.at(offset, frame) for offset, frame in enumerate(frames)]
    clean = [frame.astype(np.uint8) for frame in studio.pan(studio.texture(4), 30, step=1)]
    for offset in (3, 12, 22):
        flow = flow_between(clean[offset + 1], clean[offset])
        change = np.abs(found[offset + 1] - warp(found[offset], flow))[10:-10, 10:-10].mean()
        assert change < 0.003  # the keyframes differ by 0.02 each
        expected = colored(clean[offset])
        correlation = np.corrcoef(found[offset][..., 0].ravel(), expected[..., 0].ravel())[0, 1]
        assert correlation > 0.95


def test_chroma_fades_with_the_video(studio) -> None:
    clean = studio.pan(studio.texture(5), 40, step=0.3)
    shares = np.linspace(1, 0.25, 40)
    frames = [np.clip(share * frame, 0, 255).astype(np.uint8) for share, frame in zip(shares, clean, strict=True)]
    shot = shot_of(frames)
    bright, dark = (np.abs(shot.at(offset, frames[offset]) - 0).mean() for offset in (1, 38))
    assert dark < 0.75 * bright


def test_consistent_keyframes_stay_as_vivid() -> None:
    rng = np.random.default_rng(0)
    luma = (255 * rng.random((40, 50))).astype(np.uint8)
    chromas = [np.float32(0.1 * rng.standard_normal((1, 1, 2))) * np.ones((40, 50, 2), np.float32) for _ in range(4)]
    exposures = [0.0] * 4
    found = make_consistent(chromas, exposures, neighbor_flows([luma] * 4, exposures))
    before, after = (np.linalg.norm(each, axis=-1).mean() for each in (np.stack(chromas), found))
    assert found.std(axis=0).mean() < 0.5 * np.stack(chromas).std(axis=0).mean()
    assert after <= before * 1.001


def test_where_no_flow_is_believed_color_comes_from_around() -> None:
    luma = np.full((64, 80), 120, np.uint8)
    other = luma.copy()
    other[20:40, 30:50] = 250  # a thing that the keyframe does not have
    chroma = np.full((1, 64, 80, 2), 0.1, np.float32)
    shot = ShotChroma(np.array([0]), luma[None], chroma, np.zeros(1), np.zeros(2))
    assert np.allclose(shot.at(1, other), 0.1, atol=0.01)


def test_flow_is_the_same_however_many_came_before(studio) -> None:
    """Also of small pictures, and in each thread: else a result would depend on which thread worked on what."""
    first, second = (frame[:32, :42].astype(np.uint8) for frame in studio.pan(studio.texture(4), 2))

    def flows() -> list[np.ndarray]:
        return [flow_between(first, second) for _ in range(3)]

    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as other:
        found = [*one.submit(flows).result(), *other.submit(flows).result()]
    assert all(np.array_equal(flow, found[0]) for flow in found)

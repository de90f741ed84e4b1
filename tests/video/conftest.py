"""Videos with known cuts, motion and colors, written by PyAV; and one that is colored without a model."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import av
import cv2
import numpy as np
import pytest

RATE = 25


def write_video(
    path: Path,
    frames: Sequence[np.ndarray],
    *,
    codec: str = "libx264",
    fmt: str = "yuv420p",
    ticks: Sequence[int] | None = None,
    sound: str | None = None,
    rotation: int = 0,
    aspect: Fraction | None = None,
    full_range: bool = False,
    fields: str = "",
) -> Path:
    """Writes (H, W) gray or (H, W, 3) color frames, uint8 or uint16."""
    options = {"crf": "1", "preset": "veryfast"} if codec == "libx264" else {}
    with av.open(str(path), "w") as container:
        stream = cast("av.VideoStream", container.add_stream(codec, rate=RATE, options=options))
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = fmt
        if full_range:
            stream.codec_context.color_range = 2
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        if rotation:
            stream.set_display_rotation(rotation)
        if fields:
            from av.codec.context import Flags

            stream.codec_context.flags |= Flags.interlaced_dct | Flags.interlaced_me
        audio = cast("av.AudioStream", container.add_stream(sound, rate=48_000)) if sound else None
        for index, frame in enumerate(frames):
            made = picture(frame, fmt, index if ticks is None else ticks[index])
            container.mux(stream.encode(with_fields(made, fields) if fields else made))
            if audio is not None:
                container.mux(audio.encode(tone(index)))
        container.mux(stream.encode(None))
        if audio is not None:
            container.mux(audio.encode(None))
    return path


def picture(frame: np.ndarray, fmt: str, ticks: int) -> av.VideoFrame:
    kinds = {(2, "uint8"): "gray", (2, "uint16"): "gray16le", (3, "uint8"): "rgb24", (3, "uint16"): "rgb48le"}
    found = av.VideoFrame.from_ndarray(frame, format=kinds[frame.ndim, str(frame.dtype)]).reformat(format=fmt)
    found.pts, found.time_base = ticks, Fraction(1, RATE)
    return found


def with_fields(frame: av.VideoFrame, order: str) -> av.VideoFrame:
    """The frame, marked as one of two fields, "tff" or "bff"."""
    graph = av.filter.Graph()
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base)
    graph.link_nodes(source, graph.add("setfield", order), graph.add("buffersink")).configure()
    graph.push(frame)
    return graph.vpull()


def tone(index: int) -> av.AudioFrame:
    count = 48_000 // RATE
    wave = 0.3 * np.sin(np.arange(index * count, (index + 1) * count) / 20)
    found = av.AudioFrame.from_ndarray(wave.astype(np.float32)[None], format="fltp", layout="mono")
    found.sample_rate, found.pts, found.time_base = 48_000, index * count, Fraction(1, 48_000)
    return found


def packets_of(path: Path) -> list[bytes]:
    """What the packets of a video's sound hold."""
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(audio=0) if packet.size]


def texture(seed: int, height: int = 160, width: int = 240) -> np.ndarray:
    """A picture with things of all sizes in it, (height, width) float32, 0..255."""
    rng = np.random.default_rng(seed)
    found = np.zeros((height, width), np.float32)
    for cells in (4, 9, 20):
        small = rng.uniform(-1, 1, (cells, cells)).astype(np.float32)
        found += cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(128 + 55 * found, 20, 235)


def pan(picture: np.ndarray, count: int, size: tuple[int, int] = (72, 96), step: float = 1.5) -> list[np.ndarray]:
    """A camera that goes over a picture."""
    height, width = size
    moves = [np.array([[1, 0, 5 + step * index], [0, 1, 8 + step * index / 3]]) for index in range(count)]
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return [cv2.warpAffine(picture, move, (width, height), flags=flags) for move in moves]


def aged(frames: Sequence[np.ndarray], seed: int, *, grain: float = 5, flicker: float = 0.05) -> list[np.ndarray]:
    """The frames with grain and flicker of exposure, uint8."""
    rng = np.random.default_rng(seed)
    found = []
    for frame in frames:
        worn = frame * (1 + flicker * rng.standard_normal()) + grain * rng.standard_normal(frame.shape[:2])
        found.append(np.clip(worn, 0, 255).astype(np.uint8))
    return found


@pytest.fixture(autouse=True)
def unhashed_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """No megabytes of weights are hashed for a model that is not run."""
    monkeypatch.setattr("chromatune.video.run.weights_hash", lambda model: "0")


@pytest.fixture(scope="session")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two shots of 10 frames, 96 × 72, with sound."""
    frames = aged([*pan(texture(1), 10), *pan(texture(2), 10)], 0, grain=2)
    return write_video(tmp_path_factory.mktemp("video") / "film.mp4", frames, sound="aac")


@pytest.fixture
def frame_folder(tmp_path: Path) -> Path:
    """Two shots of 6 frames as numbered PNG files, from 101 on."""
    folder = tmp_path / "scans"
    folder.mkdir()
    for index, frame in enumerate(aged([*pan(texture(1), 6), *pan(texture(2), 6)], 0, grain=2)):
        cv2.imwrite(str(folder / f"scan_{101 + index:05d}.png"), frame)
    return folder


@pytest.fixture(scope="session")
def studio() -> SimpleNamespace:
    """Makes videos: `write`, `packets`, `texture`, `pan`, `aged`."""
    return SimpleNamespace(write=write_video, packets=packets_of, texture=texture, pan=pan, aged=aged)

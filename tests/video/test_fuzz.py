"""Damaged videos, caches and requests, at random but seeded, in a process with little memory and few descriptors.

Slow: `make slow` runs it.
"""

from __future__ import annotations

import io
import json
import resource
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.slow

MOST_BYTES, MOST_DESCRIPTORS = 3 << 30, 64  # of the process: address space, and open files
VIDEOS, CACHES, REQUESTS = 400, 400, 600
KINDS = {  # of files: codec, format of pixels, sound
    "mp4": ("libx264", "yuv420p", "aac"),
    "mkv": ("ffv1", "yuv422p10le", "pcm_s16le"),
    "avi": ("mpeg4", "yuv420p", "mp2"),
    "mov": ("prores_ks", "yuv422p10le", "pcm_mulaw"),
    "ts": ("libx264", "yuv420p", "mp2"),
    "mpg": ("mpeg2video", "yuv420p", "mp2"),
    "flv": ("flv1", "yuv420p", None),
    "nut": ("png", "rgb48be", None),
    "gif": ("gif", "rgb8", None),
    "h264": ("libx264", "yuv420p", None),
    "y4m": ("wrapped_avframe", "gray", None),
}


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """Cut, overwritten anywhere or near the start, or with a piece twice."""
    if not data:
        return b"x"
    spoiled = bytearray(data)
    first, second = sorted(int(place) for place in rng.integers(len(data), size=2))
    match int(rng.integers(5)):
        case 0:
            return data[: 1 + first]
        case 1:
            spoiled[first:first] = data[first:second]
        case 2:
            spoiled[first:second] = bytes(second - first)
        case how:
            top = len(data) if how == 3 else min(len(data), 600)
            for place in rng.integers(top, size=int(rng.choice([1, 3, 10, 40]))):
                spoiled[place] = (0, 127, 128, 255, int(rng.integers(256)))[int(rng.integers(5))]
    return bytes(spoiled)


def run_limited(what: str, folder: Path) -> Counter[str]:
    """What became of each file of a folder; a process that dies, or another error than a line, is a failure."""
    done = subprocess.run([sys.executable, __file__, what, folder], capture_output=True, text=True, cwd=folder)
    lines = [line.partition("\t")[::2] for line in done.stdout.splitlines()]
    assert done.returncode == 0, f"{lines[-1:]} {done.stderr[-2000:]}"
    odd = [line for line in lines if line[0] not in ("taken", "refused")]
    assert not odd, odd[:5]
    return Counter(word for word, _ in lines)


def test_damaged_videos(studio, tmp_path: Path) -> None:
    rng = np.random.default_rng(11)
    frames = studio.aged(studio.pan(studio.texture(1), 6), 0)
    bases = []
    for suffix, (codec, fmt, sound) in KINDS.items():
        path = studio.write(tmp_path / f"base.{suffix}", frames, codec=codec, fmt=fmt, sound=sound)
        bases.append((suffix, path.read_bytes()))
        path.unlink()
    for number in range(VIDEOS):
        suffix, data = bases[number % len(bases)]
        (tmp_path / f"{number}.{suffix}").write_bytes(damaged(data, rng))
    became = run_limited("video", tmp_path)
    assert became["taken"] > VIDEOS / 4 and became["refused"] > VIDEOS / 10


def test_damaged_caches(tmp_path: Path) -> None:
    rng, count = np.random.default_rng(12), 12
    file = io.BytesIO()
    np.savez_compressed(
        file,
        offsets=np.array([3, 9]),
        lumas=rng.integers(0, 256, (2, 24, 32)).astype(np.uint8),
        chromas=rng.normal(size=(2, 24, 32, 2)).astype(np.float16),
        keyframe_exposures=np.zeros(2),
        exposures=np.zeros(count),
    )
    stored = io.BytesIO()
    with np.load(io.BytesIO(file.getvalue())) as arrays:
        np.savez(stored, **arrays)
    for number in range(CACHES):
        whole = (file if number % 2 else stored).getvalue()
        (tmp_path / f"shot-{number}.npz").write_bytes(damaged(whole, rng))
    became = run_limited("cache", tmp_path)
    assert became["refused"] > CACHES / 2


def test_strange_requests(tmp_path: Path) -> None:
    rng = np.random.default_rng(13)
    mark = {"points": [[20, 20], [30, 40]], "color": "#ff0000", "radius_px": 12}
    whole = {"model": "mini", "options": {"seed": 3, "steps": 2}, "hints": {"3": {"marks": [mark]}, "7": {"marks": []}}}
    strange = ["-1", "1e999", "9" * 5000, "null", '"x"', "[]", "{}", "[[[[]]]]", "[" * 9000, '"\\ud800"', "NaN", "true"]
    for number in range(REQUESTS):
        text = json.dumps(whole)
        if number % 2:
            tokens = [token for token in ("3", "20", '"#ff0000"', "12", '"mini"', "[]", '"7"') if token in text]
            text = text.replace(tokens[int(rng.integers(len(tokens)))], strange[int(rng.integers(len(strange)))])
            (tmp_path / f"{number}.json").write_text(text)
        else:
            (tmp_path / f"{number}.json").write_bytes(damaged(text.encode(), rng))
    became = run_limited("request", tmp_path)
    assert became["refused"] > REQUESTS / 4


def read_video(path: Path) -> None:
    """Read a file to its end, and write it again with its sound."""
    from chromatune.video import VideoLimits, open_video
    from chromatune.video.writing import open_writer

    opened, out = open_video(path, limits=VideoLimits(1_000_000, 1000, 3600)), path.with_suffix(".result.mp4")
    chroma = np.full((6, 8, 2), -0.08, np.float32)
    with open_writer(out, opened.info, overwrite=True) as writer:
        for frame in opened.read():
            writer.write(frame, "", writer.make(frame, chroma))
        writer.finish()
    out.unlink()


def read_cache(path: Path) -> None:
    """Read the chroma of a shot of twelve frames, and what it gives to each."""
    from chromatune.video.chroma_cache import ChromaCache

    chroma = ChromaCache(path.parent).read(path.stem.removeprefix("shot-"), 12)
    for offset in range(12):
        assert chroma.at(offset, np.zeros(chroma.lumas.shape[1:], np.uint8)).shape == (*chroma.lumas.shape[1:], 2)


def read_request(path: Path) -> None:
    """Check the JSON of a request as the server does."""
    from fastapi import HTTPException
    from pydantic import ValidationError

    from chromatune.errors import OptionsError
    from chromatune.hints import parse_json
    from chromatune.serving.videos import ColorizeVideoRequest

    try:
        ColorizeVideoRequest.model_validate(parse_json(path.read_bytes())).read_hints()
    except (ValidationError, HTTPException, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise OptionsError("refused") from error


def main(what: str, folder: Path) -> None:
    """Read all files of a folder, and print a line on each."""
    from chromatune.errors import ChromaTuneError

    resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))
    resource.setrlimit(resource.RLIMIT_NOFILE, (MOST_DESCRIPTORS, MOST_DESCRIPTORS))
    doors: dict[str, Callable[[Path], Any]] = {"video": read_video, "cache": read_cache, "request": read_request}
    for path in sorted(folder.iterdir()):
        try:
            doors[what](path)
            word = "taken"
        except ChromaTuneError as error:
            word = "refused" if str(error).isprintable() and len(str(error)) < 1000 else f"no line: {error!r}"
        except Exception as error:  # noqa: BLE001 - the very thing that is looked for
            word = f"{type(error).__name__}: {error}".replace("\n", " ")
        print(word, path.name, sep="\t", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))

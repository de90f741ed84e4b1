"""Videos: quality through time, cuts, hints, and speed beside frames as files, on videos with a known truth.

python benchmarks/video.py videos OUT    10 s at 640 × 480: views that move over photos, with grain, flicker and cuts
python benchmarks/video.py cuts [N]      N videos of eight shots with flashes, jumps of exposure and fades as well
python benchmarks/video.py hints         a hint on the first frame of a pan of 3 s
python benchmarks/video.py finished OUT  what `videos` wrote, colored by a jittered film, and by five stills
python benchmarks/video.py speed OUT     `chromatune video` and `chromatune colorize` in turns, on what `videos` wrote

What `videos` wrote is measured by `chromatune evaluate OUT/truth-1.mkv --model mini`.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import cast

import cv2
import numpy as np
from skimage import data

from chromatune.color import LUMA_WEIGHTS, chroma_of, fit_gamut, luma, recompose, relative_chroma
from chromatune.colorizer import Colorizer
from chromatune.evaluation import delta_e_2000, lab_of
from chromatune.hints import Hints
from chromatune.images import Photo
from chromatune.options import ColorizeOptions
from chromatune.video import ModelColors, ShotColorizer, find_shots, open_video, thumbnail

Frames = list[np.ndarray]

RATE, SECONDS = 25, 10
SIZE = (480, 640)
TOLERANCE_FRAMES = 2  # a cut within a fade has no exact place
HINTS = {  # photo, enlarged, where the view starts, its steps, the point, and a color that is not the photo's
    "cup": ("coffee", 1.6, (150, 60), (2.5, 0.3), (500, 430), "#20509a"),
    "suit": ("astronaut", 1.7, (60, 250), (2.0, 1.0), (330, 650), "#2a7a30"),
    "cat": ("chelsea", 2.2, (250, 60), (2.0, 0.4), (500, 330), "#9a3020"),
}


def photos() -> list[np.ndarray]:
    found = [data.astronaut(), data.coffee(), data.chelsea(), data.rocket(), data.retina()[200:1200, 200:1200]]
    found.append(data.immunohistochemistry())
    scales = [max(700 / each.shape[0], 900 / each.shape[1]) for each in found]
    return [enlarged(each, scale) for each, scale in zip(found, scales, strict=True)]


def enlarged(photo: np.ndarray, scale: float) -> np.ndarray:
    return cv2.resize(photo[..., :3], None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)


def view(photo: np.ndarray, place: Sequence[float] | np.ndarray, size: tuple[int, int], zoom: float = 1) -> np.ndarray:
    x, y = place
    move = np.array([[zoom, 0, x + (1 - zoom) * size[1] / 2], [0, zoom, y + (1 - zoom) * size[0] / 2]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(photo, move, size[::-1], flags=flags, borderMode=cv2.BORDER_REFLECT)


def pan(photo: np.ndarray, count: int, size: tuple[int, int], rng: np.random.Generator, step: float) -> Frames:
    """A view that moves over a photo, turns round at its edges, and comes nearer or goes away."""
    room = np.array([photo.shape[1] - size[1], photo.shape[0] - size[0]], float)
    place, angle = room * rng.uniform(0.2, 0.8, 2), rng.uniform(0, 2 * np.pi)
    speed, nearer = step * np.array([np.cos(angle), 0.5 * np.sin(angle)]), rng.uniform(-0.002, 0.002)
    found = []
    for index in range(count):
        found.append(view(photo, place, size, float(np.clip(0.92 + nearer * index, 0.7, 1))))
        place = place + speed
        speed = np.where((place < 0) | (place > room), -speed, speed)
        place = np.clip(place, 0, room)
    return found


def aged(
    frames: Sequence[np.ndarray], rng: np.random.Generator, grain: float, flicker: float, *, rough: bool = False
) -> Iterator[np.ndarray]:
    """Grain of 1.3 px and flicker of exposure, both the same in all channels; with `rough`, what old film has more."""
    level, fades = 1.0, rough and rng.random() < 0.25
    for index, frame in enumerate(frames):
        gain = 1 + flicker * rng.standard_normal()
        if rough and rng.random() < 0.03:
            level = rng.uniform(0.6, 1.4)
        if fades:
            gain *= min(1, index / 12, (len(frames) - 1 - index) / 12)
        worn = frame.astype(np.float32) * max(0.0, gain * level)
        if rough and rng.random() < 0.03:
            worn = worn * 1.5 + 110
        noise = cv2.GaussianBlur(rng.standard_normal(frame.shape[:2]).astype(np.float32), (0, 0), 0.7)
        yield np.clip(worn + 1.8 * grain * noise[..., None], 0, 255).astype(np.uint8)


def video(seed: int, size: tuple[int, int], shots: int, *, rough: bool = False) -> tuple[list[np.ndarray], list[int]]:
    """Frames in color, and the first frames of shots but the first."""
    rng = np.random.default_rng(seed)
    found, cuts, last = list[np.ndarray](), list[int](), -1
    stock = photos()
    for shot in range(shots):
        last = int(rng.choice([index for index in range(len(stock)) if index != last]))
        count = int(rng.integers(15, 60)) if rough else RATE * SECONDS // shots
        grain, flicker = (rng.uniform(0, 14), rng.uniform(0, 0.12)) if rough else (6.0, 0.05)
        frames = pan(stock[last], count, size, rng, rng.uniform(0, 8 if rough else 4))
        cuts += [len(found)] if shot else []
        found += aged(frames, rng, grain, flicker, rough=rough)
    return found, cuts


def write(path: Path, frames: Sequence[np.ndarray], codec: str, fmt: str, options: dict[str, str]) -> None:
    import av

    with av.open(str(path), "w") as out:
        stream = cast("av.VideoStream", out.add_stream(codec, rate=RATE, options=options))
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = fmt
        for index, frame in enumerate(frames):
            kind = "gray" if frame.ndim == 2 else "rgb24"
            picture = av.VideoFrame.from_ndarray(frame, format=kind).reformat(format=fmt)
            picture.pts, picture.time_base = index, Fraction(1, RATE)
            out.mux(stream.encode(picture))
        out.mux(stream.encode(None))


def make_videos(out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for seed in (1, 2):
        frames, cuts = video(seed, SIZE, 5)
        write(out / f"truth-{seed}.mkv", frames, "ffv1", "bgr0", {})
        grays = [luma(frame) for frame in frames]
        write(out / f"gray-{seed}.mp4", grays, "libx264", "yuv420p", {"crf": "16", "preset": "veryfast"})
        (out / f"frames-{seed}").mkdir(exist_ok=True)
        for index, gray in enumerate(grays):
            cv2.imwrite(str(out / f"frames-{seed}" / f"{index:04d}.png"), gray)
        print(f"video {seed}: {len(frames)} frames, cuts at {cuts}")


def count_cuts(videos: int) -> None:
    found_cuts = missed = false = 0
    for seed in range(1000, 1000 + videos):
        frames, cuts = video(seed, (240, 320), 8, rough=True)
        found = [shot.start for shot in find_shots(thumbnail(luma(frame)) for frame in frames)][1:]
        hit = [cut for cut in cuts if any(abs(cut - each) <= TOLERANCE_FRAMES for each in found)]
        found_cuts, missed = found_cuts + len(hit), missed + len(cuts) - len(hit)
        false += sum(all(abs(cut - each) > TOLERANCE_FRAMES for cut in cuts) for each in found)
    total = found_cuts + missed
    wrong = false / max(1, found_cuts + false)
    print(f"{videos} videos, {total} cuts: {found_cuts / total:.1%} found, {wrong:.1%} false")


def follow_hints() -> None:
    """CIEDE2000 between a hinted thing and the hint at the thing's own luma, where a pan of 3 s ends."""
    colorizer = Colorizer.load("mini")
    photo = Photo(np.zeros(SIZE, np.uint8))
    colors = ModelColors(colorizer, ColorizeOptions(), (), photo, 1)
    shot_colorizer = ShotColorizer(colors, photo)
    for name, (photo_name, scale, start, step, point, color) in HINTS.items():
        picture = enlarged(getattr(data, photo_name)(), scale)
        places = [(start[0] + index * step[0], start[1] + index * step[1]) for index in range(3 * RATE)]
        frames = aged([view(picture, place, SIZE) for place in places], np.random.default_rng(0), 6, 0.05)
        grays = [luma(frame) for frame in frames]
        small = [cv2.resize(gray, colors.size[::-1], interpolation=cv2.INTER_AREA) for gray in grays]
        hint = Hints().point(point[0] - start[0], point[1] - start[1], color)
        shot = shot_colorizer.colorize_shot(small, len(small), {0: hint})
        rgb = np.array([int(color[at : at + 2], 16) for at in (1, 3, 5)]) / 255
        distances = []
        for index in (0, len(grays) - 1):
            grid = cv2.resize(grays[index], shot_colorizer.grid[::-1], interpolation=cv2.INTER_AREA)
            result = recompose(grays[index], shot.at(index, grid))
            x, y = round(point[0] - places[index][0]), round(point[1] - places[index][1])
            distances.append(distance(result[y - 10 : y + 10, x - 10 : x + 10], rgb))
        print(f"{name}: {distances[0]:.1f} on the hinted frame, {distances[1]:.1f} after {len(grays)} frames")


def distance(patch: np.ndarray, rgb: np.ndarray) -> float:
    """CIEDE2000 of a patch's mean color and the color of the hint's hue and saturation at the same luma."""
    mean = patch.reshape(-1, 3).mean(axis=0) / 255
    level = mean @ np.array(LUMA_WEIGHTS)
    cb, cr = fit_gamut(relative_chroma(rgb[None]) * level, np.array([level]))[0]
    wanted = np.clip([level + 1.402 * cr, level - 0.344136 * cb - 0.714136 * cr, level + 1.772 * cb], 0, 1)
    one, other = (lab_of(np.rint(255 * np.asarray(each)).astype(np.uint8)[None, None]) for each in (mean, wanted))
    return float(delta_e_2000(one, other).mean())


def color_from_finished(out: Path) -> None:
    """Colors of a film by `mini` frame by frame with jitter, re-timed; and of one still a shot, retoned and smaller.

    Writes OUT/jittered-N.mp4, which `chromatune evaluate OUT/truth-N.mkv --results jittered=OUT/jittered-N.mp4`
    measures, and prints CIEDE2000 to the truth for `mini` and for the stills.
    """
    colorizer = Colorizer.load("mini")
    for seed in (1, 2):
        truth = [frame.rgb for frame in open_video(out / f"truth-{seed}.mkv").read(colors=True)]
        frames = [frame for frame in truth if frame is not None]
        rng = np.random.default_rng(seed)
        jittered = [jitter(colorizer.colorize(Photo(luma(frame))).rgb, rng) for frame in frames]
        kept = [index for index in range(RATE // 2, len(frames)) if rng.random() > 0.04]
        order = sorted([*kept, *rng.choice(kept, 8)])
        h264 = {"crf": "18", "preset": "veryfast"}
        write(out / f"jittered-{seed}.mp4", [jittered[index] for index in order], "libx264", "yuv420p", h264)
        length = len(frames) // 5
        stills = out / f"stills-{seed}"
        stills.mkdir(exist_ok=True)
        for middle in range(length // 2, len(frames), length):
            retoned = 255 * (0.05 + 0.9 * (frames[middle] / 255) ** 0.85)
            small = cv2.resize(np.rint(retoned).astype(np.uint8), None, fx=0.7, fy=0.7, interpolation=cv2.INTER_AREA)
            cv2.imwrite(str(stills / f"{middle:04d}.jpg"), small[..., ::-1])
        video = str(out / f"gray-{seed}.mp4")
        rows = {"mini": [], "stills": ["--stills", str(stills)]}
        for name, words in rows.items():
            result = out / f"{name}-{seed}.mkv"
            command = ["video", video, str(result), "--codec", "ffv1", "-q", "--overwrite", *words]
            subprocess.run([sys.executable, "-m", "chromatune", *command], check=True)
            found = [frame.rgb for frame in open_video(result).read(colors=True)][::5]
            distances = [
                delta_e_2000(lab_of(np.asarray(one)), lab_of(other)).mean()
                for one, other in zip(found, frames[::5], strict=True)
            ]
            print(f"video {seed}, {name}: CIEDE2000 {np.mean(distances):.2f} to the truth", flush=True)


def jitter(rgb: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Chroma stronger or weaker and off by a little, as if each frame were colored alone."""
    chroma = chroma_of(rgb / np.float32(255)) * (1 + 0.15 * rng.standard_normal()) + rng.normal(0, 0.012, 2)
    return recompose(luma(rgb), chroma.astype(np.float32))


def compare_speed(out: Path) -> None:
    """Frames a second of both, in turns; each process's start is in it."""
    frames = sorted((out / "frames-1").glob("*.png"))
    for turn in range(3):
        rates = {}
        for name, words in {
            "video": ["video", str(out / "gray-1.mp4"), str(out / f"speed-{turn}.mp4")],
            "colorize": ["colorize", *map(str, frames), "-o", str(out / f"speed-{turn}")],
        }.items():
            shutil.rmtree(out / f"speed-{turn}.mp4.chroma", ignore_errors=True)  # of an earlier run
            start = time.perf_counter()
            subprocess.run([sys.executable, "-m", "chromatune", *words, "-q", "--overwrite"], check=True)
            rates[name] = len(frames) / (time.perf_counter() - start)
        ratio = rates["video"] / rates["colorize"]
        print(f"video {rates['video']:.1f} frames/s, colorize {rates['colorize']:.1f}: {ratio:.2f} times", flush=True)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["videos", folder]:
            make_videos(Path(folder))
        case ["cuts", *count]:
            count_cuts(int(count[0]) if count else 30)
        case ["hints"]:
            follow_hints()
        case ["finished", folder]:
            color_from_finished(Path(folder))
        case ["speed", folder]:
            compare_speed(Path(folder))
        case _:
            sys.exit(__doc__)

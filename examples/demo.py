"""The main job in one go: colorizes the photos that scikit-image ships and leaves pictures and a table.

    python examples/demo.py demo

The folder gets each result as PNG, `sheet.png` (input, mini-base, mini, truth; two photos made old at the
end) and `table.md`.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import cv2
import numpy as np
import skimage

from chromatune import Colorizer, make_options
from chromatune.color import luma
from chromatune.evaluation import TITLES, colorfulness, score_result, scores_table

PHOTOS = ("astronaut.png", "coffee.png", "chelsea.png", "rocket.jpg", "motorcycle_left.png")
MADE_OLD = ("astronaut.png", "chelsea.png")
MODELS = ("mini-base", "mini")
TILE_PX = 256
DEMO_COLUMNS = {key: TITLES[key] for key in ("psnr", "ssim", "mae", "delta_cf_field", "luma_drift_max")}


def shipped_photo(name: str) -> np.ndarray:
    """Return a photo from scikit-image's own folder, (H, W, 3) uint8 sRGB; nothing is downloaded."""
    path = Path(skimage.__file__).parent / "data" / name
    bgr = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if bgr is None:
        raise SystemExit(f"{path} is missing: reinstall scikit-image")
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)


def made_old(rgb_u8: np.ndarray, seed: int) -> np.ndarray:
    """Return the photo as a faded sepia print with scratches and dust, (H, W, 3) uint8."""
    rng, height, width = np.random.default_rng(seed), *rgb_u8.shape[:2]
    print_u8 = np.rint(75 + 0.5 * luma(rgb_u8)).astype(np.uint8)
    thickness = max(1, min(height, width) // 250)
    for _ in range(4):
        x = rng.uniform(0, width) + np.cumsum(rng.normal(0, width / 150, 12))
        points = np.stack([x, np.linspace(rng.uniform(0, 0.4) * height, rng.uniform(0.6, 1) * height, 12)], axis=1)
        cv2.polylines(print_u8, [np.rint(points).astype(np.int32)], False, 245, thickness, cv2.LINE_AA)
    for x, y in rng.uniform(0, 1, (40, 2)) * (width, height):
        cv2.circle(print_u8, (int(x), int(y)), thickness, int(rng.choice([20, 245])), -1, cv2.LINE_AA)
    return np.rint(np.clip(print_u8[..., None] * np.array([1.06, 0.98, 0.8]), 0, 255)).astype(np.uint8)


def tile(rgb_u8: np.ndarray) -> np.ndarray:
    """Return the photo fitted into a square tile on white."""
    height, width = rgb_u8.shape[:2]
    scale = TILE_PX / max(height, width)
    small = cv2.resize(rgb_u8, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_AREA)
    canvas = np.full((TILE_PX, TILE_PX, 3), 255, np.uint8)
    top, left = (TILE_PX - small.shape[0]) // 2, (TILE_PX - small.shape[1]) // 2
    canvas[top : top + small.shape[0], left : left + small.shape[1]] = small
    return canvas


def labeled(columns: dict[str, list[np.ndarray]]) -> np.ndarray:
    """Return the sheet: a column for each name, a row for each photo."""
    head = np.full((32, TILE_PX * len(columns), 3), 255, np.uint8)
    for index, name in enumerate(columns):
        baseline = (index * TILE_PX + 8, 22)
        cv2.putText(head, name, baseline, cv2.FONT_HERSHEY_SIMPLEX, 0.6, (30, 30, 30), 1, cv2.LINE_AA)
    rows = [np.concatenate([tile(photo) for photo in row], axis=1) for row in zip(*columns.values(), strict=True)]
    return np.concatenate([head, *rows])


def mean_scores(results: list[np.ndarray], truths: list[np.ndarray], grays: list[np.ndarray]) -> dict[str, float]:
    """Return the means over the photos; the drift is the worst photo's, ΔCF that of the means of CF."""
    rows = list(map(score_result, results, truths, grays))
    means = {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}
    truth_cf = float(np.mean([colorfulness(truth) for truth in truths]))
    worst_drift = max(row["luma_drift_max"] for row in rows)
    return means | {"luma_drift_max": worst_drift, "delta_cf_field": abs(means["cf_field"] - truth_cf)}


def save(path: Path, rgb_u8: np.ndarray) -> None:
    """Write a PNG."""
    if not cv2.imwrite(str(path), cv2.cvtColor(rgb_u8, cv2.COLOR_RGB2BGR)):
        raise SystemExit(f"{path} cannot be written: is the folder there, and the disk not full?")


def main(out: Path) -> None:
    """Colorize, measure, and write everything into `out`."""
    out.mkdir(parents=True, exist_ok=True)
    truths = [shipped_photo(name) for name in PHOTOS]
    grays = [luma(truth) for truth in truths]
    gray_rgb = [np.repeat(gray[..., None], 3, axis=2) for gray in grays]
    old = [made_old(shipped_photo(name), seed) for seed, name in enumerate(MADE_OLD)]
    columns = {"input": gray_rgb + old}
    table = {"gray passthrough": mean_scores(gray_rgb, truths, grays) | {"seconds": 0.0}}
    for model in MODELS:
        print(f"{model} …", flush=True)
        colorizer = Colorizer.load(model, device="cpu")
        colorizer.colorize(grays[0])  # the first photo pays for warming up
        for kind, recompose in (("recomposed", True), ("raw", False)):
            options = make_options(recompose=recompose)
            start = time.perf_counter()
            results = [colorizer.colorize(gray, options).rgb for gray in grays]
            seconds = (time.perf_counter() - start) / len(grays)
            table[f"{model}, {kind}"] = mean_scores(results, truths, grays) | {"seconds": seconds}
            if recompose:
                columns[model] = results + [colorizer.colorize(photo).rgb for photo in old]
                for name, rgb in zip(PHOTOS, results, strict=True):
                    save(out / f"{Path(name).stem}.{model}.png", rgb)
    columns["truth"] = truths + [shipped_photo(name) for name in MADE_OLD]
    save(out / "sheet.png", labeled(columns))
    text = scores_table(table, DEMO_COLUMNS | {"seconds": "seconds a photo"})
    (out / "table.md").write_text(text)
    print(text + f"\npictures: {out / 'sheet.png'}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "demo"))

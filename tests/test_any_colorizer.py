"""Archives, videos, the page's API and evaluation with anyone's colorizer as the model."""

from __future__ import annotations

import io
import json
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from chromatune import color
from chromatune.cli import main
from chromatune.serving.app import create_app
from chromatune.serving.local import LocalPredictor
from chromatune.serving.settings import make_serve_settings


def gray_picture(seed: int = 0) -> np.ndarray:
    down, across = np.mgrid[0:72, 0:96]
    return (90 + 40 * np.sin((down + 7 * seed) / 9) + 30 * np.cos(across / 11)).astype(np.uint8)


def is_violet(rgb: np.ndarray, gray: np.ndarray) -> bool:
    red, green, blue = rgb.reshape(-1, 3).astype(int).mean(axis=0)
    return bool(blue > red > green and color.luma_drift(rgb, gray)[0] <= 1)


def test_an_archive(colorizer: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos, results = tmp_path / "photos", tmp_path / "results"
    photos.mkdir()
    for index in range(3):
        Image.fromarray(gray_picture(index)).save(photos / f"{index}.png")
    command = ["batch", str(photos), str(results), "--model", colorizer, "--own-color", "replace"]
    assert main(command) == 0
    for index in range(3):
        assert is_violet(np.asarray(Image.open(results / f"{index}.png")), gray_picture(index))
    capsys.readouterr()
    assert main(command) == 0
    assert "3" in capsys.readouterr().err  # all up to date, by the file's hash
    written = {path: path.stat().st_mtime_ns for path in results.glob("*.png")}
    Path(colorizer).with_suffix(".colorizer.json").write_text('{"output": {"unit": 0.5}}')
    try:
        assert main(command) == 0
    finally:
        Path(colorizer).with_suffix(".colorizer.json").unlink()
    assert all(path.stat().st_mtime_ns > before for path, before in written.items())  # other colors: made anew


def test_a_video(colorizer: str, tmp_path: Path) -> None:
    source, result = tmp_path / "in.mkv", tmp_path / "out.mkv"
    with av.open(str(source), "w") as container:
        stream = container.add_stream("ffv1", rate=Fraction(10))
        stream.width, stream.height, stream.pix_fmt = 96, 72, "gray"
        for _ in range(8):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(gray_picture(), format="gray")))
        container.mux(stream.encode(None))
    assert main(["video", str(source), str(result), "--model", colorizer, "--quiet"]) == 0
    with av.open(str(result)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == 8
    red, green, blue = frames[4].reshape(-1, 3).mean(axis=0)
    assert blue > red > green


def test_the_page_and_the_api(colorizer: str) -> None:
    settings = {"model": (colorizer,)}
    predictor = LocalPredictor(make_serve_settings(**settings))
    app = create_app(predictor, make_serve_settings(**settings))
    with TestClient(app, base_url="http://127.0.0.1:8321", raise_server_exceptions=False) as client:
        while predictor.state.name == "loading":
            time.sleep(0.02)
        file = io.BytesIO()
        Image.fromarray(gray_picture()).save(file, "PNG")
        photo = {"photo": ("x.png", file.getvalue())}
        answer = client.post("/v1/colorize", files=photo, data={"options": '{"prompt": "warm colors"}'})
        assert answer.status_code == 200, answer.text
        assert is_violet(np.asarray(Image.open(io.BytesIO(answer.content))), gray_picture())
        opened = client.post("/v1/sessions", files=photo)
        assert opened.status_code == 201
        session = f"/v1/sessions/{opened.json()['id']}"
        hints = {"marks": [{"points": [[48, 36]], "radius_px": 6, "color": "#20a020"}]}
        hinted = client.post(f"{session}/result", json={"hints": hints})
        assert hinted.status_code == 200, hinted.text
        rgb = np.asarray(Image.open(io.BytesIO(hinted.content)).convert("RGB")).astype(int)
        assert rgb[36, 48, 1] > rgb[36, 48, 2]
        refused = client.post("/v1/colorize", files=photo, data={"options": '{"variant": 2}'})
        assert refused.status_code == 422 and "no seeds" in refused.text


def test_an_evaluation(colorizer: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    rgb = np.stack([gray_picture(), gray_picture(3), gray_picture(5)], axis=-1)
    Image.fromarray(np.kron(rgb, np.ones((2, 2, 1), np.uint8))).save(photos / "a.png")
    command = ["evaluate", str(photos), "--model", colorizer, "--model", f"{colorizer}+mini:0.5", "--size", "64"]
    assert main([*command, "-o", str(tmp_path / "out")]) == 0
    table = capsys.readouterr().out
    assert "| violet.onnx |" in table and "violet.onnx+mini:0.5" in table
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    (row,) = [row for row in summary["rows"] if row["method"] == "violet.onnx" and not row.get("raw")]
    assert row["parameters"] == 8 and row["gflops"] == pytest.approx(2 * 6 * 512 * 512 / 1e9, rel=0.5)

"""The report of a run: from any subset of its measurements, one page that needs nothing beside it."""

from __future__ import annotations

import base64
import io
import json
import re
import sys

import numpy as np
import pytest
from PIL import Image

from chromatune.errors import DataError, MissingExtraError
from chromatune.training.report import PANELS, Curve, curve_points, draw_curves, read_metrics, write_report

SETTINGS = {"lr": 5e-6, "parts": "unet", "note": "<b>bold</b>"}


def train(step, **values):
    return {"step": step, "kind": "train", "loss": 1 / step, "lr": 1e-4} | values


def validation(step, **values):
    return {"step": step, "kind": "validation", "noise_loss": 0.5, "psnr": 20.0 + step / 100} | values


@pytest.fixture
def run_folder(tmp_path):
    rows = [train(step, noise_loss=0.4, lab_loss=0.1, weight_noise=1.0, weight_lab=0.5) for step in range(10, 310, 10)]
    rows += [
        validation(step, train_noise_loss=0.4, lab_mse=9.0, train_lab_mse=8.0, psnr_grey=19.0, delta_cf=4.0)
        for step in (100, 200, 300)
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "grids").mkdir()
    for step in (100, 200, 300):
        pixels = np.full((4, 4, 3), step // 10, np.uint8)
        Image.fromarray(pixels).save(tmp_path / "grids" / f"step-{step:06}.png")
    return tmp_path


def inline_images(page):
    data = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    return [Image.open(io.BytesIO(base64.b64decode(image))) for image in data]


def test_page_needs_nothing_beside_it(run_folder):
    path = write_report(run_folder, title="Run <1>", settings=SETTINGS, best_step=200)
    assert path == run_folder / "report.html"
    page = path.read_text(encoding="utf-8")
    assert not re.search(r'(src|href)="(?!data:)', page) and "<script" not in page
    assert "Run &lt;1&gt;" in page and "&lt;b&gt;bold&lt;/b&gt;" in page and "<b>bold" not in page
    assert "<td>lr</td><td>5e-06</td>" in page
    assert "best checkpoint at step 200" in page
    assert "<td>psnr</td><td>21</td><td>22</td><td>23</td>" in page
    curves, *grids = inline_images(page)
    with Image.open(run_folder / "curves.png") as stored:
        assert np.array_equal(np.asarray(stored), np.asarray(curves))
    assert [int(np.asarray(grid)[0, 0, 0]) for grid in grids] == [10, 20, 30]
    assert sorted(entry.name for entry in run_folder.iterdir()) == [
        "curves.png",
        "grids",
        "metrics.jsonl",
        "report.html",
    ]


def test_same_run_same_report(run_folder):
    first = write_report(run_folder, title="Run", settings=SETTINGS, best_step=200).read_bytes()
    assert write_report(run_folder, title="Run", settings=SETTINGS, best_step=200).read_bytes() == first


@pytest.mark.parametrize(("best", "labels"), [(100, ["first and best", "last"]), (300, ["first", "best and last"])])
def test_a_grid_with_two_roles_comes_once(run_folder, best, labels):
    page = write_report(run_folder, title="Run", settings={}, best_step=best).read_text(encoding="utf-8")
    assert re.findall(r"<h3>(.*?): step \d+</h3>", page) == labels


def test_gap_is_validation_less_training():
    rows = [validation(100, noise_loss=0.5, train_noise_loss=0.375), validation(200, noise_loss=0.5)]
    gap = next(p for p in PANELS if p.title == "Noise loss: generalisation gap").curves[0]
    assert curve_points(rows, gap) == ([100], [0.125])


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [train(10)],
        [validation(10)],
        [{"step": 10, "kind": "train"}],
        [train(10, loss=float("nan")), train(20, loss="high", lr=None)],
        [{"step": 10, "kind": "validation", "psnr_grey": 19.0}],
        [train(10, loss=-1.0)],
    ],
)
def test_missing_values_are_left_out(tmp_path, rows):
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    page = write_report(tmp_path, title="Run", settings={}, best_step=None).read_text(encoding="utf-8")
    assert "no best checkpoint" in page and "No sample grids." in page
    assert (tmp_path / "curves.png").is_file() == ("No measurements yet." not in page)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_any_number_of_panels_fits(count):
    keys = ("loss", "lr", "weight_noise")[:count]
    assert draw_curves([{"step": 1, "kind": "train"} | dict.fromkeys(keys, 0.5)], 1).startswith(b"\x89PNG")


def test_a_killed_and_resumed_run_is_read(tmp_path):
    """Half a line at its end, steps repeated since the checkpoint, lines of something else."""
    lines = [train(10), train(20, loss=9.0), train(20, loss=2.0), {"no": "step"}, ["a list"], validation(20)]
    text = "".join(json.dumps(line) + "\n" for line in lines) + '{"step": 30, "ki'
    (tmp_path / "metrics.jsonl").write_text(text)
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert [(row["step"], row["kind"]) for row in rows] == [(10, "train"), (20, "train"), (20, "validation")]
    assert curve_points(rows, Curve("loss", "train", "loss")) == ([10, 20], [0.1, 2.0])


def test_a_folder_that_is_no_run_is_one_line(tmp_path):
    with pytest.raises(DataError, match=r"metrics\.jsonl") as error:
        write_report(tmp_path, title="Run", settings={}, best_step=None)
    assert "\n" not in str(error.value)


def test_a_failed_write_keeps_the_former_report(run_folder, monkeypatch):
    path = write_report(run_folder, title="First", settings={}, best_step=None)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(DataError, match="No space left on device"):
        write_report(run_folder, title="Second", settings={}, best_step=None)
    assert "First" in path.read_text(encoding="utf-8")
    assert not list(run_folder.glob(".*"))


def test_without_matplotlib_the_extra_is_named(run_folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"chromatune\[train\]"):
        write_report(run_folder, title="Run", settings={}, best_step=None)

"""What a run reports: measurements on disk and for TensorBoard, curves, and a page that needs nothing beside it."""

from __future__ import annotations

import base64
import errno
import importlib.util
import io
import json
import os
import re
import sys
import threading
from typing import Any, ClassVar

import numpy as np
import pytest
from accelerate import accelerator
from accelerate.tracking import GeneralTracker
from PIL import Image

from chromatune.errors import DataError, MissingExtraError, OptionsError
from chromatune.reports import png_of
from chromatune.training import report, training_loop
from chromatune.training.measurements import MetricsLog, check_trackers, read_metrics
from chromatune.training.report import PANELS, Curve, curve_points, draw_panels, lead_of, write_run_page
from chromatune.training.training_loop import learning_rate


def row(step, kind="train", **values):
    return {"step": step, "kind": kind} | values


def test_a_killed_and_resumed_run_is_read(tmp_path):
    """Half a line at its end, steps repeated since the checkpoint, lines of something else."""
    lines = [row(10), row(20, loss=9.0), row(20, loss=2.0), {"no": "step"}, ["a list"], row(20, "validation")]
    text = "".join(json.dumps(line) + "\n" for line in lines) + '{"step": 30, "ki'
    (tmp_path / "metrics.jsonl").write_text(text)
    assert read_metrics(tmp_path / "metrics.jsonl") == [row(10), row(20, loss=2.0), row(20, "validation")]


def test_measures_of_version_0_1_have_their_present_names(tmp_path):
    (tmp_path / "metrics.jsonl").write_text(json.dumps(row(0, "validation", psnr=9.0, psnr_grey=8.0)) + "\n")
    assert read_metrics(tmp_path / "metrics.jsonl") == [row(0, "validation", psnr=9.0, psnr_gray=8.0)]


def test_rows_beyond_the_step_that_is_resumed_are_dropped(tmp_path):
    reported: list[dict[str, Any]] = []
    log = MetricsLog(tmp_path, -1, reported.append)
    rows = [row(0, "validation"), row(10), row(20)]
    for each in rows:
        log.add(each)
    assert reported == rows
    MetricsLog(tmp_path, 10, reported.append).add(row(15))
    assert read_metrics(tmp_path / "metrics.jsonl") == [*rows[:2], row(15)]
    MetricsLog(tmp_path, -1, reported.append)
    assert (tmp_path / "metrics.jsonl").read_text() == ""


STRANGE = [
    "[" * 200_000, "[1]", "7", '"row"', "null", '{"step": 1}', '{"kind": "train"}',
    '{"step": 1e999, "kind": "train"}', '{"step": NaN, "kind": "train"}', '{"step": "1", "kind": "train"}',
    '{"step": true, "kind": "train"}', '{"step": -1, "kind": "train"}', '{"step": [1], "kind": "train"}',
    '{"step": 1%s, "kind": "train"}' % ("0" * 300), '{"step": 1, "kind": ["train"]}', '{"step": 1, "kind": null}',
    '{"step": 1, "kind": "train", "loss": "high"}', '{"step": 1, "kind": "train", "loss": [1.0]}',
    '{"step": 1, "kind": "train", "loss": {"a": 1}}', '{"step": 1, "kind": "train", "loss": null}',
    '{"step": 1, "kind": "validation", "psnr": 1%s}' % ("0" * 400),
]  # fmt: skip


@pytest.mark.parametrize("line", STRANGE)
def test_rows_that_no_run_writes_are_skipped(tmp_path, line):
    kept = [row(0, "validation", noise_loss=0.5), row(10, loss=1.0)]
    text = "".join(json.dumps(each) + "\n" for each in kept)
    (tmp_path / "metrics.jsonl").write_text(f"{line}\n{text}{line}\n")
    assert read_metrics(tmp_path / "metrics.jsonl") == kept
    MetricsLog(tmp_path, 20, print)
    assert (tmp_path / "metrics.jsonl").read_text() == text


def test_a_folder_that_is_no_run_is_one_line(tmp_path):
    with pytest.raises(DataError, match=r"metrics\.jsonl") as error:
        read_metrics(tmp_path / "metrics.jsonl")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("fails", ["open", "later"])
def test_a_full_disk_is_one_line_that_names_the_folder_of_tensorboard(start, monkeypatch, capfd, fails):
    """The thread keeps its failure for the next call, and threads print theirs."""
    record_writer = pytest.importorskip("tensorboard.summary.writer.record_writer")
    calls, write = [], record_writer.RecordWriter.write

    def full(self, data):
        calls.append(data)
        if fails == "open" or len(calls) > 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(self, data)

    usual = threading.excepthook
    monkeypatch.setattr(record_writer.RecordWriter, "write", full)
    with pytest.raises(
        DataError, match=r"run.tensorboard: cannot be written \(the disk is full\); .*make room"
    ) as error:
        start()
    assert "\n" not in str(error.value) and "Exception in thread" not in capfd.readouterr().err
    assert threading.excepthook is usual


def test_other_threads_report_as_ever(start, monkeypatch):
    pytest.importorskip("tensorboard")
    reported: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", reported.append)

    def fail(row=None):
        raise ValueError("mine")

    def rate(*args):
        thread = threading.Thread(target=fail)
        thread.start()
        thread.join()
        return learning_rate(*args)

    monkeypatch.setattr(training_loop, "learning_rate", rate)
    start(max_steps=1)
    assert reported and all(str(failed.exc_value) == "mine" for failed in reported)


SETTINGS = {"lr": 5e-6, "parts": "unet", "note": "<b>bold</b>"}


def train(step, **values):
    return {"step": step, "kind": "train", "loss": 1 / step, "lr": 1e-4} | values


def validation(step, **values):
    return {"step": step, "kind": "validation", "noise_loss": 0.5, "psnr": 20.0 + step / 100} | values


ROWS = [
    *(train(step, noise_loss=0.4, lab_loss=0.1, weight_noise=1.0, weight_lab=0.5) for step in range(10, 310, 10)),
    *(
        validation(step, train_noise_loss=0.4, lab_mse=9.0, train_lab_mse=8.0, psnr_gray=20.3, delta_cf=step % 200 + 1)
        for step in (0, 100, 200, 300)
    ),
]


def test_every_panel_has_values_of_a_real_run(start):
    """What the page's test rows measure is measured, too: none of it is made up."""
    _, rows = start(max_steps=2, validate_every=1, lab_weight=1.0, lab_weighting="learned")
    assert not [panel.title for panel in PANELS if not curve_points(rows, panel.curves[0])[0]]
    for kind in ("train", "validation"):
        written, drawn = ({name for row in each if row["kind"] == kind for name in row} for each in (rows, ROWS))
        assert drawn <= written


def write_rows(folder, rows):
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture
def few_panels(monkeypatch):
    """Drawing takes long: a test that looks at something else has an empty plot."""
    plot = png_of(np.full((4, 4, 3), 255, np.uint8))
    monkeypatch.setattr(report, "draw_panels", lambda rows, best: [(PANELS[0], plot)] if rows else [])


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    folder = write_rows(tmp_path_factory.mktemp("run"), ROWS)
    (folder / "grids").mkdir()
    for step in (0, 100, 200, 300):  # 2 photos; gray input, raw, recomposed, truth
        rows = [np.full((8, 16, 3), value, np.uint8) for value in (20, 60, 100 + step // 4, 240)]
        Image.fromarray(np.vstack(rows)).save(folder / "grids" / f"step-{step:06}.png")
    write_run_page(folder, title="Run <1>", settings=SETTINGS, best_step=200)
    return folder


def pictures(page, kind):
    data = re.findall(rf'src="data:image/{kind};base64,([^"]+)"', page)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(image))).convert("RGB")) for image in data]


def cells(page):
    return [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in re.findall(r"<tr>(.*?)</tr>", page)]


def test_the_page_needs_nothing_beside_it(run_folder):
    page = (run_folder / "report.html").read_text(encoding="utf-8")
    assert not re.search(r'(src|href)="(?!data:|#)', page) and "<script" not in page
    assert "Run &lt;1&gt;" in page and "&lt;b&gt;bold&lt;/b&gt;" in page and "<b>bold" not in page
    assert sorted(entry.name for entry in run_folder.iterdir()) == [
        "curves.png",
        "grids",
        "metrics.jsonl",
        "report.html",
    ]


def test_the_sentence_comes_first_and_all_else_is_folded(run_folder):
    page = (run_folder / "report.html").read_text(encoding="utf-8")
    lead = "PSNR 22.0 dB at step 200, 1.7 dB above the gray input; before fine-tuning 0.3 dB below it."
    order = [lead, ">Samples</h2>", ">Curves</h2>", "<summary>More curves", ">Figures</h2>", "<td>PSNR, dB</td>"]
    order += ["<summary>Everything measured", "<td>lab_mse</td>", "<summary>All settings", "<td>5e-06</td>"]
    found = [page.index(text) for text in order]
    assert found == sorted(found)


def test_figures_before_at_the_best_step_and_at_the_last(run_folder):
    page = (run_folder / "report.html").read_text(encoding="utf-8")
    assert '<th scope="col">before</th><th scope="col">best (200)</th><th scope="col">last (300)</th>' in page
    rows = cells(page)
    assert ["PSNR, dB", "20", "22", "23"] in rows and ["psnr", "20", "22", "23"] in rows
    marked = re.findall(r'<tr><td>([^<]*)</td>(?:<td>[^<]*</td>)*<td class="best">([^<]*)</td>', page)
    assert ("PSNR, dB", "23") in marked, "the most"
    assert ("colorfulness error, ΔCF", "1") in marked, "the least"


def test_a_line_of_squares_for_each_photo(run_folder):
    page = (run_folder / "report.html").read_text(encoding="utf-8")
    lines = pictures(page, "jpeg")
    assert len(lines) == 2
    for line in lines:  # squares of 8 px, 4 px between them; gray, before, best, truth
        assert np.abs(line[4, 4::12, 0].astype(int) - [20, 100, 150, 240]).max() < 6


def test_the_curves_stand_beside_the_page_too(run_folder):
    page = (run_folder / "report.html").read_text(encoding="utf-8")
    plots = pictures(page, "png")
    with Image.open(run_folder / "curves.png") as stored:
        sheet = np.asarray(stored)
    high, wide = plots[0].shape[:2]
    assert sheet.shape[:2] == (high * ((len(plots) + 1) // 2), wide * 2)
    for number, plot in enumerate(plots):
        top, left = number // 2 * high, number % 2 * wide
        kept = sheet[top : top + high, left : left + wide]
        assert number >= 4 or np.array_equal(kept, plot), "the page opens with the first ones"


def test_same_run_same_page(run_folder, tmp_path):
    write_rows(tmp_path, ROWS)
    (tmp_path / "grids").symlink_to(run_folder / "grids")
    again = write_run_page(tmp_path, title="Run <1>", settings=SETTINGS, best_step=200)
    assert again.read_bytes() == (run_folder / "report.html").read_bytes()


@pytest.mark.parametrize(
    ("rows", "best", "lead"),
    [
        ([], None, "0 updates, and no validation yet."),
        ([train(1)], None, "1 update, and no validation yet."),
        ([train(10)], None, "10 updates, and no validation yet."),
        ([validation(10, psnr_gray=20.1)], 10, "PSNR 20.1 dB at step 10, level with the gray input."),
        (
            [validation(0, psnr_gray=19.0), validation(9, psnr=18.26, psnr_gray=19.0)],
            9,
            "PSNR 18.3 dB at step 9, 0.7 dB below the gray input; before fine-tuning 1.0 dB above it.",
        ),
        (
            [{"step": step, "kind": "validation", "noise_loss": 1 / (1 + step)} for step in (0, 1, 3)],
            1,
            "Noise loss 0.5000 on held-out photos at step 1; before fine-tuning 1.0000.",
        ),
        (
            [{"step": 4, "kind": "validation", "psnr_gray": 19.0}],
            None,
            "4 updates; neither losses nor PSNR were measured.",
        ),
    ],
)
def test_the_lead_says_what_is_known(rows, best, lead):
    assert lead_of(rows, best) == lead


def test_gap_is_validation_less_training():
    rows = [validation(100, noise_loss=0.5, train_noise_loss=0.375), validation(200, noise_loss=0.5)]
    gap = next(p for p in PANELS if p.title == "Noise loss: generalization gap").curves[0]
    assert curve_points(rows, gap) == ([100], [0.125])


def test_a_curve_has_finite_numbers_alone():
    rows = [train(10, loss=float("nan")), train(20, loss="high"), train(30, loss=None), train(40, loss=2.0)]
    assert curve_points([*rows, validation(50, loss=1.0)], Curve("loss", "train", "loss")) == ([40], [2.0])


@pytest.mark.parametrize(
    ("rows", "titles"),
    [
        ([{"step": 10, "kind": "train"}], []),
        ([train(10, loss=float("nan")), train(20, loss="high", lr=None)], ["Learning rate"]),
        ([{"step": 10, "kind": "validation", "psnr_gray": 19.0}], []),  # alone it says nothing
        ([train(10, loss=-1.0)], ["Training loss", "Learning rate"]),
    ],
)
def test_a_panel_without_values_is_left_out(rows, titles):
    drawn = draw_panels(rows, 1)
    assert [panel.title for panel, _ in drawn] == titles
    assert all(png.startswith(b"\x89PNG") for _, png in drawn)


@pytest.mark.parametrize("rows", [[], [train(10)], [validation(10)], [{"step": 10, "kind": "validation"}]])
def test_missing_values_are_left_out(tmp_path, rows, few_panels):
    page = write_run_page(write_rows(tmp_path, rows), title="Run", settings={}, best_step=None).read_text("utf-8")
    assert "No sample grids." in page and ("Not validated." in page) == (not rows or rows[0]["kind"] == "train")
    assert (tmp_path / "curves.png").is_file() == ("No measurements yet." not in page)


def test_a_failed_write_keeps_the_former_page(tmp_path, monkeypatch, few_panels):
    path = write_run_page(write_rows(tmp_path, ROWS), title="First", settings={}, best_step=None)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(DataError, match="No space left on device"):
        write_run_page(tmp_path, title="Second", settings={}, best_step=None)
    assert "First" in path.read_text(encoding="utf-8")
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("library", ["matplotlib", "jinja2"])
def test_without_a_library_the_extra_is_named(run_folder, monkeypatch, library):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingExtraError, match=r"chromatune\[train\]"):
        write_run_page(run_folder, title="Run", settings={}, best_step=None)


def test_a_pipe_is_no_file_of_measurements(tmp_path):
    os.mkfifo(tmp_path / "metrics.jsonl")
    with pytest.raises(DataError, match="cannot be read"):
        read_metrics(tmp_path / "metrics.jsonl")


class Notes(GeneralTracker):  # type: ignore[misc]  # accelerate has no types
    """Stands for a tracker that is on the network."""

    name = "wandb"
    requires_logging_directory = False
    said: ClassVar[list[Any]] = []

    def __init__(self, run_name, **named):
        super().__init__()
        self.said.append((run_name, named["name"]))

    @property
    def tracker(self):
        return None

    def store_init_configuration(self, values):
        self.said.append(values["lr"])

    def log(self, values, step, **named):
        self.said.append((step, sorted(values)[0]))


def test_trackers_get_settings_and_measurements(train_tiny, tmp_path, monkeypatch):
    monkeypatch.setitem(accelerator.LOGGER_TYPE_TO_CLASS, "wandb", Notes)
    Notes.said.clear()
    train_tiny(tmp_path / "mine", max_steps=1, track=["tensorboard", "wandb"])
    assert Notes.said[:2] == [("chromatune", "mine"), 1e-3]
    assert Notes.said[2:] == [(0, "validation/ab_mse"), (1, "train/loss"), (1, "validation/ab_mse")]
    assert list((tmp_path / "mine" / "tensorboard").iterdir())
    train_tiny(tmp_path / "other", max_steps=1, track=[])
    assert not (tmp_path / "other" / "tensorboard").exists() and len(Notes.said) == 5


def test_a_tracker_that_is_missing_is_one_line(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(OptionsError, match="--track wandb: it is not installed; pip install wandb"):
        check_trackers(["wandb"])
    with pytest.raises(OptionsError, match="accepted are tensorboard, wandb, mlflow"):
        check_trackers(["neptune"])

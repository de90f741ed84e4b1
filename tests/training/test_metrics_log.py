"""A run's measurements on disk."""

from __future__ import annotations

import json

import pytest

from chromatune.errors import DataError
from chromatune.training.metrics_log import MetricsLog, read_metrics


def row(step, kind="train", **values):
    return {"step": step, "kind": kind} | values


def test_a_killed_and_resumed_run_is_read(tmp_path):
    """Half a line at its end, steps repeated since the checkpoint, lines of something else."""
    lines = [row(10), row(20, loss=9.0), row(20, loss=2.0), {"no": "step"}, ["a list"], row(20, "validation")]
    text = "".join(json.dumps(line) + "\n" for line in lines) + '{"step": 30, "ki'
    (tmp_path / "metrics.jsonl").write_text(text)
    assert read_metrics(tmp_path / "metrics.jsonl") == [row(10), row(20, loss=2.0), row(20, "validation")]


def test_rows_beyond_the_step_that_is_resumed_are_dropped(tmp_path):
    told = []
    log = MetricsLog(tmp_path, -1, told.append)
    rows = [row(0, "validation"), row(10), row(20)]
    for each in rows:
        log.add(each)
    assert told == rows
    MetricsLog(tmp_path, 10, told.append).add(row(15))
    assert read_metrics(tmp_path / "metrics.jsonl") == [*rows[:2], row(15)]
    MetricsLog(tmp_path, -1, told.append)
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
def test_rows_that_no_run_writes_are_left_out(tmp_path, line):
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

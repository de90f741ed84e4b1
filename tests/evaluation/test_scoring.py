"""Photos through methods: decoded once, with hints of the truth where asked for, and what a method costs."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter

import numpy as np
import pytest
import torch

from chromatune.colorizer import Colorizer
from chromatune.data import Source, open_source
from chromatune.errors import OptionsError, PhotoError
from chromatune.evaluation import protocol
from chromatune.evaluation.evaluation import evaluate
from chromatune.evaluation.scoring import count_work, hint_places, hint_squares, hints_of_truth, peak_memory_mib
from chromatune.evaluation.settings import make_settings
from chromatune.evaluation.summary import notes
from chromatune.hints import Layer
from chromatune.options import make_options
from chromatune.pipeline import Pipeline

CONTENT = "0123456789abcdef" * 4


@pytest.fixture
def decoded(monkeypatch) -> Counter[str]:
    """How often each photo of a source has been decoded."""
    times: Counter[str] = Counter()

    def opened(spec: str) -> Source:
        source = open_source(spec)

        def counted(item):
            def read():
                times[item.key] += 1
                return item.read()

            return dataclasses.replace(item, read=read)

        return dataclasses.replace(source, items=tuple(map(counted, source.items)))

    monkeypatch.setattr(protocol, "open_source", opened)
    return times


def test_a_photo_is_decoded_once_and_again_only_where_memory_is_short(settings, tmp_path, decoded, monkeypatch):
    """By selection, truth and pictures of all methods together; results do not depend on it."""
    evaluate(settings(), tmp_path / "once")
    assert len(decoded) == 8 and set(decoded.values()) == {1}
    decoded.clear()
    monkeypatch.setattr(protocol, "SQUARES_BYTES", 2 * 64 * 64 * 3)
    evaluate(settings(), tmp_path / "again")
    assert sorted(times > 1 for times in decoded.values()) == [False] * 6 + [True] * 2
    for name in ("rows.jsonl", "summary.json"):
        assert (tmp_path / "once" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_places_are_seeded_nested_spread_and_inside():
    many = hint_places(CONTENT, 0, 100)
    np.testing.assert_array_equal(many[:3], hint_places(CONTENT, 0, 3))
    assert not np.array_equal(many[:3], hint_places(CONTENT, 1, 3))
    assert not np.array_equal(many[:3], hint_places(CONTENT[::-1], 0, 3))
    assert many.min() > 0.01 and many.max() < 0.99

    def nearest(points: np.ndarray) -> float:
        gaps = np.linalg.norm(points[:, None] - points, axis=2) + 9 * np.eye(len(points))
        return float(gaps.min(axis=1).mean())

    uniform = np.mean([nearest(np.random.default_rng(seed).uniform(0, 1, (30, 2))) for seed in range(20)])
    assert nearest(many[:30]) > 1.2 * uniform


@pytest.mark.parametrize(("size_px", "side"), [(256, 10), (128, 5), (32, 1)])
def test_squares_have_whole_pixels_of_the_truths_mean(size_px, side):
    truth = np.random.default_rng(0).integers(0, 256, (size_px, size_px, 3), dtype=np.uint8)
    (mark,) = hints_of_truth(truth, CONTENT, 0, 5).marks
    assert isinstance(mark, Layer)
    places = hint_squares(size_px, CONTENT, 0, 5)
    for left, top, width in places:
        assert width == side and min(left, top) >= 0 and max(left, top) + side <= size_px
        square = np.s_[top : top + side, left : left + side]
        expected = truth[square].mean(axis=(0, 1))
        np.testing.assert_allclose(
            mark.rgba[square][..., :3] * 255, np.broadcast_to(expected, (side, side, 3)), atol=0.6
        )
    assert mark.rgba[..., 3].sum() == pytest.approx(5 * side**2, abs=side**2)


def test_more_hints_are_nearer_to_the_truth_and_stand_in_the_tables(settings, tmp_path, tiny_pipeline_dir):
    evaluation = evaluate(settings(hints=(0, 1, 30)), tmp_path / "out")
    rows = {row["name"]: row for row in evaluation.summary["rows"]}
    name = tiny_pipeline_dir.name
    assert list(rows) == [
        *("gray", name, f"{name}, raw", f"{name}, 1 hint", f"{name}, 30 hints"),
        *("no model, 1 hint", "no model, 30 hints"),
    ]
    assert rows[f"{name}, 30 hints"]["psnr"] > rows[f"{name}, 1 hint"]["psnr"] > rows[name]["psnr"]
    assert rows["no model, 30 hints"]["psnr"] > rows["gray"]["psnr"] + 1
    assert all(row["luma_drift_max"] <= 1 for key, row in rows.items() if "hint" in key)
    assert rows[f"{name}, 30 hints"]["minus_first"]["psnr"]["interval"][0] > 0
    assert evaluation.summary["comparison"]["best"] == name
    assert evaluation.summary["prompt_spread"] == []
    written = json.loads((tmp_path / "out" / "hints.json").read_text())
    assert written["size_px"] == 64 and {len(places) for places in written["squares"].values()} == {30}
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "PSNR over hints" in page and "Color difference over hints" in page
    assert evaluation.summary["protocol"]["hints"] in ([0, 1, 30], (0, 1, 30))


def test_another_tools_results_with_hints_are_a_curve_and_no_contender(settings, tmp_path, shared_photos):
    theirs = (("tool", str(shared_photos)), ("tool, 3 hints", str(shared_photos)))
    evaluation = evaluate(settings(models=(), results=theirs), tmp_path / "out")
    rows = {row["name"]: (row["method"], row["hints"], row["raw"]) for row in evaluation.summary["rows"]}
    assert rows["tool, 3 hints"] == ("tool", 3, False) and rows["tool, 3 hints, raw"] == ("tool", 3, True)
    comparison = evaluation.summary["comparison"]
    assert (comparison["best"], comparison["contenders"]) == ("tool", 1)
    assert "PSNR over hints" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_each_number_once():
    with pytest.raises(OptionsError, match="hints"):
        make_settings(source="photos", models=("mini",), hints=(3, 3))
    with pytest.raises(OptionsError, match="hints"):
        make_settings(source="photos", models=("mini",), hints=(-1,))


def test_work_counts_guidance_branches(tiny_pipeline_dir):
    colorizer = Colorizer.load(str(tiny_pipeline_dir), device="cpu")
    plain, guided = (
        count_work(colorizer, make_options(steps=3, guidance_scale=text, image_guidance_scale=image), 32)
        for text, image in ((1.0, 1.0), (7.0, 1.5))
    )
    assert (plain["unet_evaluations"], guided["unet_evaluations"]) == (3, 9)
    assert plain["parameters"] == guided["parameters"]
    assert 1.5 < (guided["gflops"] or 0) / (plain["gflops"] or 1) < 3


def test_memory_is_the_gpus_where_the_model_is_on_one(tiny_pipeline_dir, monkeypatch):
    colorizer = Colorizer.load(str(tiny_pipeline_dir), device="cpu")
    assert (peak_memory_mib(colorizer) or 0) > 10
    monkeypatch.setattr(Pipeline, "device", torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 7 * 2**20)
    assert peak_memory_mib(colorizer) == 7


def test_the_best_of_several_seeds_is_each_photos_nearest_to_the_truth(settings, tmp_path, tiny_pipeline_dir):
    """Against runs of single seeds: each photo has the best; it costs as much as all; the page says what it is."""
    name, seeds = tiny_pipeline_dir.name, (7, 8, 9)
    best = evaluate(settings(steps=(1,), seed=7, best_of=3), tmp_path / "best")
    singles = [evaluate(settings(steps=(1,), seed=seed), tmp_path / str(seed)) for seed in seeds]

    def scores(folder: str, method: str) -> dict[str, float]:
        lines = [json.loads(line) for line in (tmp_path / folder / "rows.jsonl").read_text().splitlines()]
        return {line["key"]: line["psnr"] for line in lines if line["method"] == method and not line["raw"]}

    single = [scores(str(seed), f"{name}, 1 step") for seed in seeds]
    found = scores("best", f"{name}, 1 step, best of 3")
    assert found == {key: max(each[key] for each in single) for key in single[0]}
    assert scores("best", f"{name}, 1 step") == single[0] != found
    rows = {row["name"]: row for row in best.summary["rows"]}
    once, thrice = rows[f"{name}, 1 step"], rows[f"{name}, 1 step, best of 3"]
    assert (thrice["unet_evaluations"], thrice["gflops"]) == (3 * once["unet_evaluations"], 3 * once["gflops"])
    assert thrice["parameters"] == once["parameters"]
    (warning,) = notes(best.summary)
    assert warning.startswith("Warning: in rows “best of 3”") and "upper bound" in warning
    assert "upper bound" in (tmp_path / "best" / "report.html").read_text(encoding="utf-8")
    assert notes(singles[0].summary) == [] and "best_of" not in singles[0].summary["protocol"]


def test_a_failed_photo_is_one_failure_whatever_the_number_of_seeds(settings, tmp_path, monkeypatch, tiny_pipeline_dir):
    outputs = Colorizer.model_outputs

    def failing(colorizer, requests, *given, **named):
        for index, output in enumerate(outputs(colorizer, requests, *given, **named)):
            yield PhotoError("it is odd") if index == 4 else output

    monkeypatch.setattr(Colorizer, "model_outputs", failing)
    evaluation = evaluate(settings(best_of=2), tmp_path / "out")
    best = f"{tiny_pipeline_dir.name}, best of 2"
    assert [(row, reason) for row, _, reason in evaluation.failures] == [
        (best, "it is odd"),
        (f"{best}, raw", "it is odd"),
    ]
    assert {row["name"]: row["photos"] for row in evaluation.summary["rows"]}[best] == 3

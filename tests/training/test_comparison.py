"""Which model is better on the held-out photos, by the interval of paired differences; and the sentence about it."""

from __future__ import annotations

import numpy as np
import pytest

from chromatune.evaluation import score_result
from chromatune.training.comparison import SCORES_FILE, compare, read_scores, write_scores
from chromatune.training.report import write_run_page
from chromatune.training.validation import encode_validation_set, score_untouched

NOISE = np.random.default_rng(1).normal(0, 0.3, 40)
MINI = 24 + np.random.default_rng(2).normal(0, 2, 40)


def compared(out, gain, photos=40):
    write_scores(out, "mini", list(MINI[:photos]))
    write_scores(out, "200", list(MINI[:photos] + NOISE[:photos] + gain))
    return compare(out, 200)


@pytest.mark.parametrize(
    ("gain", "photos", "said"),
    [
        (1.0, 40, ": better by "),
        (-2.0, 40, ": worse by "),
        (0.0, 40, ": no difference that so many photos can show (95 % interval -0."),
        (3.0, 5, ": too few photos to tell which is better."),
    ],
)
def test_the_first_sentence_is_honest(tmp_path, gain, photos, said):
    found = compared(tmp_path, gain, photos)
    sentence = found.sentence("my-model")
    mine, mini = found.psnr, found.untouched_psnr
    start = f"On {photos} photos not trained on, my-model scores {mine:.2f} dB, mini untouched {mini:.2f} dB"
    assert sentence.startswith(start + said)
    (tmp_path / "metrics.jsonl").write_text('{"step": 200, "kind": "validation", "psnr": 20.0, "psnr_gray": 19.0}\n')
    page = write_run_page(tmp_path, title="Run", settings={}, best_step=200, name="my-model").read_text()
    assert f'<p class="lead">{sentence}</p>' in page
    assert ("For photos like these, use mini." in page) == (found.verdict == "worse")
    assert "1.0 dB above the gray input" in page  # what was said before, below it


def test_intervals_are_of_paired_differences(tmp_path):
    """Photos differ by far more than the models do, which must not hide a difference."""
    low, high = compared(tmp_path, 0.3).interval
    assert 0 < low < 0.3 < high + 0.1 and high - low < 0.3 < MINI.std()


def test_what_is_damaged_or_missing_is_not_compared(tmp_path):
    assert compare(tmp_path, 200) is None
    compared(tmp_path, 0.0)
    assert compare(tmp_path, 300) is None
    for text in ("[", "[]", '{"mini": "no", "200": [1.0]}', '{"mini": [], "200": []}', '{"mini": [1e999], "200": [1]}'):
        (tmp_path / SCORES_FILE).write_text(text)
        assert compare(tmp_path, 200) is None


def test_a_run_from_mini_begins_at_what_mini_scores_untouched(start, tmp_path, drawn_photos):
    """Also where the run has squares of another size."""
    _, rows = start(model="mini", size_px=64, max_steps=1, validation=0.3, untouched="mini", cache_variants=1)
    scores = read_scores(tmp_path / "run")
    assert scores.keys() == {"mini", "0", "1"}
    (before,) = (row for row in rows if row["kind"] == "validation" and row["step"] == 0)
    assert np.mean(scores["0"]) == pytest.approx(before["psnr"])
    assert len(scores["mini"]) == 2 and min(scores["mini"]) > 5


def test_mini_untouched_is_what_validation_measures_at_its_own_size():
    from chromatune.training.initial_model import load_initial_model
    from chromatune.training.validation import colorize_photos, measure_baselines, measure_results

    rng = np.random.default_rng(3)
    truth = rng.integers(0, 256, (2, 8, 8, 3), np.uint8).repeat(32, axis=1).repeat(32, axis=2)
    pipeline = load_initial_model("mini").pipeline
    photos = encode_validation_set(truth, pipeline.vae)
    raw = colorize_photos(pipeline, photos, pipeline.info.steps)
    _, _, psnrs = measure_results(raw, photos, score_result, measure_baselines(photos, score_result))
    assert score_untouched("mini", photos, score_result) == psnrs

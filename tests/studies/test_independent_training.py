"""The independent calculation of training: the package agrees with it, and where it would not, that is seen."""

from __future__ import annotations

from pathlib import Path

import pytest

from chromatune.training import learner, training_loop
from studies import independent_training
from studies.independent_training import BARS, PRESETS, differences
from studies.same_bytes import write_drawings

SMALL = {"size_px": 32, "batch": 2, "lab_photos": 1, "cache_variants": 1, "zoom": 1.0}


@pytest.fixture(autouse=True)
def _fresh(fresh_accelerate):
    """Every test here may train."""


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of twelve drawings."""
    folder = tmp_path_factory.mktemp("photos") / "drawn"
    write_drawings(folder, 12)
    return folder


@pytest.mark.parametrize("preset", PRESETS)
def test_losses_weights_and_averages_are_those_of_stock_diffusers(tiny_pipeline, photos, tmp_path, preset):
    found = differences(preset, str(tiny_pipeline()), photos, tmp_path, SMALL)
    assert found.keys() == BARS.keys()
    assert all(found[name] <= bar for name, bar in BARS.items()), found


@pytest.mark.parametrize(
    ("module", "name", "wrong", "seen_in"),
    [
        (learner, "LAB_SCALE", 25.1, "loss"),
        (training_loop, "learning_rate", lambda step, settings: settings.lr / 2, "weights"),
    ],
)
def test_a_wrong_calculation_is_beyond_the_bars(
    tiny_pipeline, photos, tmp_path, monkeypatch, module, name, wrong, seen_in
):
    monkeypatch.setattr(module, name, wrong)
    found = differences("best", str(tiny_pipeline()), photos, tmp_path, SMALL)
    assert found[seen_in] > BARS[seen_in]


@pytest.mark.parametrize(("weights", "status"), [(1e-7, 0), (2e-6, 1), (float("nan"), 1)])
def test_the_exit_status_says_whether_all_is_within(tmp_path, monkeypatch, capsys, weights, status):
    found = {"loss": 1e-6, "weights": weights, "ema": 0.0}
    monkeypatch.setattr(independent_training, "differences", lambda *arguments: found)
    monkeypatch.setattr("sys.argv", ["independent_training", "--work", str(tmp_path)])
    assert independent_training.main() == status
    assert ("BEYOND" in capsys.readouterr().out) == bool(status)

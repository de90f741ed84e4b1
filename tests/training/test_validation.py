"""What a validation measures."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from chromatune.training.validation import ValidationSet, measure_baselines, measure_results, read_grid, write_grid


def squares(seed, count=3, side=8):
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


@pytest.fixture
def photos():
    truth = squares(0)
    nothing = torch.zeros(0)
    return ValidationSet(truth, truth[..., 1], nothing, nothing, nothing)


def spread(result, truth, gray):
    """Scores of one photo; its colorfulness is how far its channels are apart."""
    return {"psnr": 20.0, "ab_mse": 1.0, "cf_field": float(np.ptp(result.astype(int), axis=2).mean())}


@pytest.mark.parametrize("truth_cf_field", [0.0, 255.0])
def test_colorfulness_errors_are_distances(photos, truth_cf_field):
    """Guards the `abs` of ΔCF: too little color is an error, as too much is, and less of it is better."""
    raw = squares(1).astype(np.float32) / 255
    baselines = {"psnr_gray": 19.0, "truth_cf_field": truth_cf_field}
    means, recomposed, psnrs = measure_results(raw, photos, spread, baselines)
    colorfulness = np.mean([spread(result, None, None)["cf_field"] for result in recomposed])
    assert 0 < colorfulness < 255
    assert means["delta_cf"] == pytest.approx(abs(colorfulness - truth_cf_field)) and means["delta_cf"] > 0


def test_raw_results_have_errors_of_their_own(photos):
    """Guards `raw_psnr` and `raw_lab_mse`: of the results with their own luminance."""
    score = lambda result, truth, gray: {"psnr": 1.0, "lab_mse": float(result.mean()), "cf_field": 0.0}  # noqa: E731
    raw = squares(1)
    means, recomposed, psnrs = measure_results(
        raw.astype(np.float32) / 255, photos, score, measure_baselines(photos, score)
    )
    assert means["raw_lab_mse"] == pytest.approx(raw.mean())
    assert means["lab_mse"] == pytest.approx(recomposed.mean())
    assert psnrs == [1.0] * len(raw)
    assert means["raw_psnr"] == 1.0 and means["raw_lab_mse"] != means["lab_mse"]


def test_baselines_are_the_gray_input_and_the_truth(photos):
    score = lambda result, truth, gray: {"psnr": float(result.mean()), "cf_field": float(result.max())}  # noqa: E731
    baselines = measure_baselines(photos, score)
    assert baselines["psnr_gray"] == pytest.approx(np.mean([gray.mean() for gray in photos.gray_u8]))
    assert baselines["truth_cf_field"] == np.mean([truth.max() for truth in photos.truth_u8])


@pytest.mark.parametrize("scored", [False, True])
def test_a_grid_is_read_as_it_was_written(photos, tmp_path, scored):
    path, raw, recomposed = tmp_path / "grids" / "step-000001.png", squares(1), squares(2) if scored else None
    write_grid(path, photos, raw.astype(np.float32) / 255, recomposed)
    grid = read_grid(path, recomposed=scored)
    assert grid is not None
    np.testing.assert_array_equal(grid[0], np.repeat(photos.gray_u8[..., None], 3, axis=3))
    np.testing.assert_array_equal(grid[1], raw)
    np.testing.assert_array_equal(grid[-1], photos.truth_u8)
    np.testing.assert_array_equal(grid[-2], raw if recomposed is None else recomposed)
    assert len(grid) == (3 if recomposed is None else 4)
    assert read_grid(tmp_path / "none.png", recomposed=scored) is None


@pytest.mark.parametrize(("count", "ranks"), [(3, 2), (64, 3), (17, 2), (2, 4), (9, 1)])
def test_shares_of_processes_have_each_photo_once_and_as_many_passes(count, ranks):
    """Where weights are split over processes, they wait for each other in each pass."""
    numbers = torch.arange(count)
    bytes_of = np.arange(count, dtype=np.uint8)
    shares = [ValidationSet(bytes_of, bytes_of, numbers, numbers, numbers).share(rank, ranks) for rank in range(ranks)]
    assert [n for share in shares if share.counts for n in share.latents.tolist()] == list(range(count))
    assert len({len(share.batches()) for share in shares}) == 1
    for share in shares:
        assert share.first == share.latents[0]
        rows = [n for rows in share.batches() for n in share.latents[rows].tolist()]
        assert rows == share.latents.tolist() and all(0 < rows.stop - rows.start <= 8 for rows in share.batches())

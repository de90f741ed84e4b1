"""Fréchet distance against hand-computed values and scipy, and the file of features."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg

from chromatune.errors import DataError
from chromatune.evaluation import perceptual
from chromatune.evaluation.perceptual import FeatureFile, fid_rows, frechet_distance, moments
from chromatune.evaluation.protocol import ChosenPhoto


def photo(key: str, subset: str = "held-out") -> ChosenPhoto:
    return ChosenPhoto(key, key, subset, lambda: np.zeros((1, 1, 3), np.uint8))


def record(row: str, key: str, **fields: object) -> dict:
    return {"row": row, "subset": "held-out", "key": key} | fields


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_moments_of_a_stream_are_those_of_the_whole(batch):
    values = np.random.default_rng(0).normal(1e4, 1, (50, 6))  # far from zero: sums of squares would cancel
    mean, covariance = moments(values[start : start + batch] for start in range(0, 50, batch))
    np.testing.assert_allclose(mean, values.mean(axis=0), rtol=1e-14)
    np.testing.assert_allclose(covariance, np.cov(values, rowvar=False), rtol=1e-9)


def test_one_photo_has_no_covariance():
    with pytest.raises(ValueError, match="at least 2 photos, got 1"):
        moments([np.zeros((1, 3))])


def test_distance_of_gaussians_by_hand():
    """Axis-aligned: the sum over axes of (m1 - m2)^2 + (s1 - s2)^2."""
    first = np.array([1.0, 2.0, 3.0]), np.diag([1.0, 4.0, 9.0])
    second = np.array([1.0, 4.0, 0.0]), np.diag([4.0, 4.0, 1.0])
    assert frechet_distance(first, second) == pytest.approx(4 + 9 + 1 + 0 + 4)
    assert frechet_distance(first, first) == pytest.approx(0, abs=1e-9)


def test_agreement_with_scipy():
    rng = np.random.default_rng(1)
    first, second = (moments([rng.normal(size=(200, 8)) @ rng.normal(size=(8, 8))]) for _ in range(2))
    step, root = first[0] - second[0], scipy.linalg.sqrtm(first[1] @ second[1])
    expected = step @ step + np.trace(first[1] + second[1] - 2 * root.real)
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-9)


def test_fewer_photos_than_features_is_finite_and_symmetric():
    rng = np.random.default_rng(2)
    first, second = (moments([rng.normal(size=(5, 32))]) for _ in range(2))
    assert frechet_distance(first, second) == pytest.approx(frechet_distance(second, first))
    assert frechet_distance(first, first) == pytest.approx(0, abs=1e-5)


def test_features_are_kept_once_in_any_order_and_a_torn_one_is_dropped(tmp_path, monkeypatch):
    monkeypatch.setattr(perceptual, "BATCH", 2)
    path = tmp_path / "features.bin"
    values = {("row", key): np.full(3, index, np.float32) for index, key in enumerate("abc\ud800")}
    with FeatureFile(path, 3) as file:
        file.append(values)
        file.append({("row", "a"): np.full(3, 9, np.float32)})
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:10])
    with FeatureFile(path, 3) as file:
        assert path.read_bytes() == whole
        assert (("row", "b") in file, ("other", "b") in file) == (True, False)
        read = np.concatenate(list(file.batches([("row", key) for key in "\ud800ca"])))
        np.testing.assert_array_equal(read[:, 0], [3, 2, 0])
        with pytest.raises(DataError, match="no features of z"):
            list(file.batches([("row", "z")]))


def test_a_row_is_compared_with_the_truths_of_its_own_photos(tmp_path):
    photos = [photo(key) for key in "abc"] + [photo("d", "seen")]
    records = [record(row, key) for row in ("same", "few") for key in "ab"]
    records += [record("same", "c"), record("few", "c", failed="missing"), record("one", "a")]
    records.append({"row": "same", "subset": "seen", "key": "d"})
    rng = np.random.default_rng(3)
    with FeatureFile(tmp_path / "features.bin", 2) as file:
        for key in "abc":
            found = rng.normal(size=2).astype(np.float32)
            file.append({(perceptual.TRUTH, key): found, ("same", key): found, ("few", key): found + 3})
        distances = fid_rows(records, photos, file)
    assert distances == {"same": pytest.approx(0, abs=1e-6), "few": pytest.approx(18, rel=1e-5)}

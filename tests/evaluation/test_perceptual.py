"""LPIPS and FID with tiny scripted networks, the Fréchet distance against scipy, and the file of features."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch

from chromatune.errors import DataError, OptionsError
from chromatune.evaluation import perceptual
from chromatune.evaluation.evaluation import evaluate
from chromatune.evaluation.perceptual import FeatureFile, fid_rows, frechet_distance, moments
from chromatune.evaluation.protocol import ChosenPhoto, Row
from chromatune.evaluation.settings import make_settings


class Distance(torch.nn.Module):
    """Mean squared difference, shaped as LPIPS answers."""

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        return ((first - second) ** 2).mean(dim=(1, 2, 3), keepdim=True)


class Similarity(torch.nn.Module):
    def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        return 1 - ((first - second) ** 2).mean(dim=(1, 2, 3))


class TfFeatures(torch.nn.Module):
    """Mean color of bytes; without the flag, something else."""

    def forward(self, images: torch.Tensor, return_features: bool = False) -> torch.Tensor:
        means = images.to(torch.float32).mean(dim=(2, 3))
        return means if return_features else means.sum(dim=1)


class TorchvisionFeatures(torch.nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        assert images.shape[2] == 299
        return images.amax(dim=(2, 3))


@pytest.fixture(scope="module")
def scripted(tmp_path_factory: pytest.TempPathFactory):
    """Writes a module as TorchScript, and gives its path."""
    folder = tmp_path_factory.mktemp("networks")

    def write(module: torch.nn.Module) -> Path:
        path = folder / f"{type(module).__name__}.pt"
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"`torch\.jit\.script` is deprecated", DeprecationWarning)
            torch.jit.script(module).save(str(path))
        return path

    return write


@pytest.fixture(scope="module")
def networks(scripted) -> dict[str, str]:
    return {"lpips": f"alex:{scripted(Distance())}", "fid": f"tf-inception:{scripted(TfFeatures())}"}


@pytest.fixture(scope="module")
def measured(settings, networks, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an evaluation with both networks that ended; no test changes it."""
    out = tmp_path_factory.mktemp("measured") / "out"
    evaluate(settings(**networks), out)
    return out


def load(**given: str) -> perceptual.Networks:
    return perceptual.load_networks(make_settings(source="x", models=("m",), device="cpu", **given))


def stop_after(count: int):
    left = [count]

    def start_stage(name: str, length: int):
        def advance() -> None:
            left[0] -= not name.startswith("choosing")
            if left[0] == 0:
                raise KeyboardInterrupt

        return advance

    return start_stage


def test_what_networks_are_given(networks, scripted):
    loaded = load(**networks)
    assert loaded.lpips is not None and loaded.fid is not None
    black, white = np.zeros((40, 40, 3), np.uint8), np.full((40, 40, 3), 255, np.uint8)
    assert perceptual.lpips(loaded.lpips, black, white) == 4  # [-1, 1]
    assert perceptual.lpips(loaded.lpips, white, white) == 0
    colored = np.full((40, 40, 3), (10, 20, 30), np.uint8)
    np.testing.assert_array_equal(perceptual.features(loaded.fid, colored), [10, 20, 30])
    other = load(fid=f"torchvision-inception:{scripted(TorchvisionFeatures())}").fid
    assert other is not None
    expected = (1 - np.array([0.485, 0.456, 0.406])) / [0.229, 0.224, 0.225]
    for side in (40, 400):
        picture = np.full((side, side, 3), 255, np.uint8)
        np.testing.assert_allclose(perceptual.features(other, picture), expected, rtol=1e-6)
    theirs = load(fid=f"ddcolor-inception:{scripted(TorchvisionFeatures())}").fid
    assert theirs is not None
    halved = 0.5 * np.array([10, 20, 30]) / 255 + 0.5  # as DDColor's code has it, step by step
    shifted = halved * (np.array([0.229, 0.224, 0.225]) / 0.5) + (np.array([0.485, 0.456, 0.406]) - 0.5) / 0.5
    np.testing.assert_allclose(perceptual.features(theirs, colored), shifted, rtol=1e-5)


def test_rows_name_the_network_and_few_photos_are_warned_of(networks, measured, whole):
    summary, plain = (json.loads((out / "summary.json").read_text()) for out in (measured, whole))
    digest = hashlib.sha256(Path(networks["fid"].split(":", 1)[1]).read_bytes()).hexdigest()[:16]
    for row, before in zip(summary["rows"], plain["rows"], strict=True):
        assert row["fid_network"] == f"tf-inception, SHA-256 {digest}"
        assert row["fid"] > 0
        assert row["intervals"]["lpips"][0] <= row["lpips"] <= row["intervals"]["lpips"][1]
        assert (row["psnr"], row["ciede2000"]) == (before["psnr"], before["ciede2000"])
    assert "lpips" in summary["rows"][1]["minus_gray"]
    lines = [json.loads(line) for line in (measured / "rows.jsonl").read_text().splitlines()]
    assert all(line["lpips"] > 0 for line in lines)
    for file in ("table.md", "report.html"):
        text = (measured / file).read_text(encoding="utf-8")
        assert "Warning: FID is over as few as 4 photos. Under 5,000" in text
        assert f"FID (tf-inception, SHA-256 {digest})" in text
        assert "FID" not in re.sub('base64,[^"]*', "", (whole / file).read_text(encoding="utf-8"))
    assert not (whole / "features.bin").exists()


@pytest.mark.parametrize("photos", [5, *(pytest.param(photos, marks=pytest.mark.slow) for photos in (2, 9))])
def test_interrupted_and_run_again_is_the_same(settings, networks, measured, tmp_path, photos):
    broken = tmp_path / "broken"
    with pytest.raises(KeyboardInterrupt):
        evaluate(settings(**networks), broken, start_stage=stop_after(photos))
    with (broken / "features.bin").open("ab") as stored:
        stored.write(b"torn")
    evaluate(settings(**networks), broken)
    for file in ("rows.jsonl", "summary.json", "table.md"):
        assert (measured / file).read_bytes() == (broken / file).read_bytes(), file


def test_lost_features_are_made_again(settings, networks, measured, tmp_path):
    out = shutil.copytree(measured, tmp_path / "out")
    (out / "features.bin").unlink()
    evaluate(settings(**networks), out)
    assert (out / "summary.json").read_bytes() == (measured / "summary.json").read_bytes()


def test_networks_are_part_of_the_protocol(settings, networks, measured, tmp_path):
    out = shutil.copytree(measured, tmp_path / "out")
    with pytest.raises(OptionsError, match=r"lpips='alex, SHA-256 .*and now it is None; give another --out"):
        evaluate(settings(fid=networks["fid"]), out)


def test_results_that_are_missing_have_no_features(settings, networks, tmp_path, write_png, colored):
    for name in ("astronaut", "chelsea"):
        write_png(tmp_path / "theirs" / f"{name}.png", colored(name))
    chosen = settings(models=(), results=(("same", str(tmp_path / "theirs")),), **networks)
    rows = {row["name"]: row for row in evaluate(chosen, tmp_path / "out").summary["rows"]}
    assert (rows["same, raw"]["photos"], rows["same, raw"]["lpips"]) == (2, 0)
    assert rows["same, raw"]["fid"] == pytest.approx(0, abs=1e-3)
    assert rows["gray"]["fid"] > 1


@pytest.mark.parametrize(
    ("option", "text", "message"),
    [
        ("lpips", "squeeze:x.pt", "accepted is NAME:PATH, with NAME one of alex, vgg"),
        ("fid", "x.pt", "accepted is NAME:PATH, with NAME one of tf-inception, torchvision-inception"),
        ("fid", "tf-inception:", "accepted is NAME:PATH"),
        ("lpips", "alex:nowhere.pt", "nowhere.pt is no file"),
        ("fid", "tf-inception:{text}", "cannot be loaded as a TorchScript module"),
        ("fid", "tf-inception:{weights}", "cannot be loaded as a TorchScript module"),
        ("lpips", "vgg:{tf}", "does not work on images of (1, 3, 96, 96)"),
        ("lpips", "vgg:{similarity}", "does not find equal images equal"),
        ("fid", "torchvision-inception:{tf}", "answers (1,) for one image"),
    ],
)
def test_one_line_says_what_is_wrong(scripted, tmp_path, option, text, message):
    (tmp_path / "text.pt").write_text("no network")
    torch.save({"weight": torch.zeros(2)}, tmp_path / "weights.pt")
    files = {"text": tmp_path / "text.pt", "weights": tmp_path / "weights.pt"}
    files |= {"tf": scripted(TfFeatures()), "similarity": scripted(Similarity())}
    with pytest.raises(OptionsError) as caught:
        load(**{option: text.format(**files)})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def photo(key: str, subset: str = "held-out") -> ChosenPhoto:
    return ChosenPhoto(key, key, subset, lambda: np.zeros((1, 1, 3), np.uint8))


def record(row: str, key: str, **fields: object) -> dict:
    return {**Row(row).fields, "subset": "held-out", "key": key} | fields


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
    records.append(record("same", "d", subset="seen"))
    rng = np.random.default_rng(3)
    with FeatureFile(tmp_path / "features.bin", 2) as file:
        for key in "abc":
            found = rng.normal(size=2).astype(np.float32)
            file.append({(perceptual.TRUTH, key): found, ("same", key): found, ("few", key): found + 3})
        distances = fid_rows(records, photos, file)
    assert distances == {Row("same"): pytest.approx(0, abs=1e-6), Row("few"): pytest.approx(18, rel=1e-5)}


def test_a_pipe_is_no_file_of_features(tmp_path):
    os.mkfifo(tmp_path / "features.bin")
    with pytest.raises(DataError, match="is no file"):
        FeatureFile(tmp_path / "features.bin", 2)

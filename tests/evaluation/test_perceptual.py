"""LPIPS and FID with tiny scripted networks: what they are given, what rows hold, resuming, and wrong files."""

from __future__ import annotations

import hashlib
import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from chromatune.errors import OptionsError
from chromatune.evaluation import perceptual
from chromatune.evaluation.evaluation import evaluate
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


@pytest.fixture
def scripted(tmp_path: Path):
    """Writes a module as TorchScript, and gives its path."""

    def write(module: torch.nn.Module) -> Path:
        path = tmp_path / f"{type(module).__name__}.pt"
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"`torch\.jit\.script` is deprecated", DeprecationWarning)
            torch.jit.script(module).save(str(path))
        return path

    return write


@pytest.fixture
def networks(scripted) -> dict[str, str]:
    return {"lpips": f"alex:{scripted(Distance())}", "fid": f"tf-inception:{scripted(TfFeatures())}"}


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
    black, white = np.zeros((40, 40, 3), np.uint8), np.full((40, 40, 3), 255, np.uint8)
    assert perceptual.lpips(loaded.lpips, black, white) == 4  # [-1, 1]
    assert perceptual.lpips(loaded.lpips, white, white) == 0
    colored = np.full((40, 40, 3), (10, 20, 30), np.uint8)
    np.testing.assert_array_equal(perceptual.features(loaded.fid, colored), [10, 20, 30])
    other = load(fid=f"torchvision-inception:{scripted(TorchvisionFeatures())}")
    expected = (1 - np.array([0.485, 0.456, 0.406])) / [0.229, 0.224, 0.225]
    for side in (40, 400):
        picture = np.full((side, side, 3), 255, np.uint8)
        np.testing.assert_allclose(perceptual.features(other.fid, picture), expected, rtol=1e-6)


def test_rows_name_the_network_and_few_photos_are_warned_of(settings, networks, tmp_path):
    out = tmp_path / "out"
    plain, measured = evaluate(settings(), tmp_path / "plain"), evaluate(settings(**networks), out)
    digest = hashlib.sha256(Path(networks["fid"].split(":", 1)[1]).read_bytes()).hexdigest()[:16]
    for row, before in zip(measured.summary["rows"], plain.summary["rows"], strict=True):
        assert row["fid_network"] == f"tf-inception, SHA-256 {digest}"
        assert row["fid"] > 0
        assert row["intervals"]["lpips"][0] <= row["lpips"] <= row["intervals"]["lpips"][1]
        assert (row["psnr"], row["ciede2000"]) == (before["psnr"], before["ciede2000"])
    assert "lpips" in measured.summary["rows"][1]["minus_gray"]
    lines = [json.loads(line) for line in (out / "rows.jsonl").read_text().splitlines()]
    assert all(line["lpips"] > 0 for line in lines)
    for file in ("table.md", "report.html"):
        text = (out / file).read_text(encoding="utf-8")
        assert "Warning: FID is over as few as 4 photos. Under 5,000" in text
        assert f"FID (tf-inception, SHA-256 {digest})" in text
        assert "FID" not in (tmp_path / "plain" / file).read_text(encoding="utf-8")
    assert not (tmp_path / "plain" / "features.bin").exists()


def test_interrupted_and_run_again_is_the_same(settings, networks, tmp_path):
    whole = tmp_path / "whole"
    evaluate(settings(**networks), whole)
    for photos in (2, 5, 9):
        broken = tmp_path / f"broken-{photos}"
        with pytest.raises(KeyboardInterrupt):
            evaluate(settings(**networks), broken, start_stage=stop_after(photos))
        with (broken / "features.bin").open("ab") as file:
            file.write(b"torn")
        evaluate(settings(**networks), broken)
        for file in ("rows.jsonl", "summary.json", "table.md"):
            assert (whole / file).read_bytes() == (broken / file).read_bytes(), file


def test_lost_features_are_made_again(settings, networks, tmp_path):
    out = tmp_path / "out"
    evaluate(settings(**networks), out)
    before = (out / "summary.json").read_bytes()
    (out / "features.bin").unlink()
    evaluate(settings(**networks), out)
    assert (out / "summary.json").read_bytes() == before


def test_networks_are_part_of_the_protocol(settings, networks, tmp_path):
    evaluate(settings(**networks), tmp_path / "out")
    with pytest.raises(OptionsError, match=r"lpips='alex, SHA-256 .*and now it is None; give another --out"):
        evaluate(settings(fid=networks["fid"]), tmp_path / "out")


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

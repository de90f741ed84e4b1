"""DDColor's checkpoints: the network's own colors at any size; only weights are ever read."""

from __future__ import annotations

import io
import os
import runpy
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from skimage.color import lab2rgb, rgb2lab

from chromatune import ColorizeOptions, Colorizer, color
from chromatune.errors import MissingExtraError, ModelError, OptionsError
from chromatune.pipeline import ddcolor_checkpoint
from chromatune.pipeline.colorizer_backend import ColorizerBackend

ROOT = Path(__file__).parents[2]
PLAIN = ColorizeOptions(view="plain", smooth=0, own_color="replace", size_px=96)


@pytest.fixture(scope="module")
def ddcolor(colorizers_extra: None) -> Any:
    """DDColor-T with a short decoder and random weights that give colors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # spandrel uses what torch deprecates
        from spandrel_extra_arches.architectures.DDColor import DDColor

    torch.manual_seed(0)
    network = DDColor(
        encoder_name="convnext-t", num_output_channels=2, last_norm="Spectral", num_queries=8, num_scales=3,
        dec_layers=3, input_size=(64, 64),
    )  # fmt: skip
    with torch.no_grad():
        for _ in range(4):  # its norms measure themselves in training
            network(torch.rand(2, 1, 64, 64).expand(2, 3, 64, 64))
        network.decoder.color_decoder.color_embed.layers[-1].weight *= 200
    return network.eval()


@pytest.fixture(scope="module")
def checkpoints(ddcolor: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("checkpoints")
    torch.save({"params": ddcolor.state_dict()}, folder / "wrapped.pth")
    save_file({name: each.contiguous() for name, each in ddcolor.state_dict().items()}, folder / "plain.safetensors")
    return {"pth": folder / "wrapped.pth", "safetensors": folder / "plain.safetensors"}


def photo(height: int = 96, width: int = 128) -> np.ndarray:
    down, across = np.mgrid[0:height, 0:width]
    waves = 30 * np.sin(down / 7) * np.cos(across / 11)
    return np.clip(60 + 80 * across / width + 50 * down / height + waves, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("kind", ["pth", "safetensors"])
def test_a_checkpoint_gives_the_networks_colors(kind: str, checkpoints: dict[str, Path], ddcolor: Any) -> None:
    gray = photo()
    colorizer = Colorizer.load(str(checkpoints[kind]), device="cpu")
    result = colorizer.colorize(gray, PLAIN)
    rgb = np.repeat(gray[..., None], 3, axis=-1) / 255
    with torch.inference_mode():
        ab = ddcolor(torch.from_numpy(rgb.transpose(2, 0, 1)[None].astype(np.float32)))[0].numpy().transpose(1, 2, 0)
    assert 5 < np.abs(ab).max() < 120
    expected = lab2rgb(np.concatenate([rgb2lab(rgb)[..., :1], ab], axis=-1))
    assert (np.abs(expected - rgb).max(axis=-1) > 0.01).mean() > 0.5
    inside = (expected > 0.01).all(axis=-1) & (expected < 0.99).all(axis=-1)
    chroma = expected - (expected @ [0.299, 0.587, 0.114])[..., None]
    apart = np.abs(result.rgb - (gray[..., None] + 255 * chroma))
    assert inside.mean() > 0.5 and apart[inside].max() <= 1.6
    assert color.luma_drift(result.rgb, gray)[0] <= 1
    assert result.runtime == "torch" and colorizer.info.family == "DDColor" and not colorizer.info.follows


def test_hints_compare_photos_by_the_encoder_that_ships(checkpoints: dict[str, Path], mini: Colorizer) -> None:
    colorizer = Colorizer.load(str(checkpoints["pth"]), device="cpu")
    grays = photo()[None].astype(np.float32) / 255
    found, own = colorizer.backend.features(grays), mini.backend.features(grays)
    assert found is not None and own is not None
    assert found.keys() == own.keys() and all(np.array_equal(found[stride], own[stride]) for stride in own)


@pytest.mark.slow
def test_an_exported_graph_gives_the_checkpoints_pixels(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    script = runpy.run_path(str(ROOT / "benchmarks" / "export_ddcolor.py"))
    script["export_ddcolor"](checkpoints["pth"], tmp_path / "ddcolor.onnx")
    both = [Colorizer.load(str(path), device="cpu") for path in (checkpoints["pth"], tmp_path / "ddcolor.onnx")]
    for shape in ((96, 128), (200, 150)):
        first, second = (each.colorize(photo(*shape), PLAIN) for each in both)
        assert np.abs(first.rgb.astype(int) - second.rgb).max() <= 1
        assert np.ptp(first.rgb, axis=-1).max() > 10
    work = [each.backend.work(96, 128) for each in both if isinstance(each.backend, ColorizerBackend)]
    assert work[0][1] == pytest.approx(work[1][1], rel=0.05)


class _Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def write_pickle(path: Path) -> None:
    torch.save({"params": _Evil(path.parent / "run")}, path)


def write_packed(path: Path) -> None:
    stored = io.BytesIO()
    torch.save({"a": torch.zeros(1 << 20)}, stored)
    with zipfile.ZipFile(stored) as given, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for each in given.infolist():
            packed.writestr(each.filename, given.read(each))


def write_announced(path: Path) -> None:
    torch.save({"refine_net.0.0.weight_orig": torch.zeros(1).expand(2, 1 << 20, 1, 1)}, path)


BAD: dict[str, tuple[str, Callable[[Path], Any], str]] = {
    "code": ("a.pth", write_pickle, "pickled code is never run"),
    "packed": ("a.pth", write_packed, "is packed"),
    "announced": ("a.pth", write_announced, "announces more numbers than it holds"),
    "a web page": ("a.pth", lambda path: path.write_text("<html>"), "is no checkpoint of torch 1.6 or later"),
    "another's page": ("a.safetensors", lambda path: path.write_text("<html>"), "is a web page, not weights"),
    "a list": ("a.pth", lambda path: torch.save([torch.zeros(1)], path), "holds no weights by their names"),
    "no tensors": ("a.pth", lambda path: torch.save({"a": 3}, path), "holds no weights by their names"),
    "wide": ("a.pth", lambda path: torch.save({"a": torch.zeros(9000)}, path), "larger than any DDColor"),
    "deep": ("a.pth", lambda path: torch.save({"a.64.b": torch.zeros(1)}, path), "larger than any DDColor"),
    "a pipe": ("a.pth", os.mkfifo, "a pipe, socket or device"),
}


@pytest.mark.parametrize("kind", BAD)
def test_an_odd_checkpoint_is_one_line(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ddcolor_checkpoint, "find_spec", lambda name: True)  # none of these gets as far as the extra
    name, write, reason = BAD[kind]
    write(tmp_path / name)
    with pytest.raises(ModelError, match=reason) as caught:
        Colorizer.load(str(tmp_path / name))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_weights_of_another_network_are_one_line(ddcolor: Any, tmp_path: Path) -> None:
    weights = dict(ddcolor.state_dict())
    del weights["decoder.color_decoder.query_embed.weight"]
    for given, reason in (({"conv.weight": torch.zeros(2)}, "another network"), (weights, "cannot be opened as DDCo")):
        torch.save(given, tmp_path / "a.pth")
        with pytest.raises(ModelError, match=reason) as caught:
            Colorizer.load(str(tmp_path / "a.pth"))
        assert "\n" not in str(caught.value)


def test_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({}, tmp_path / "a.pth")
    with pytest.raises(OptionsError, match="only torch can run"):
        Colorizer.load(str(tmp_path / "a.pth"), runtime="onnx")
    monkeypatch.setattr(ddcolor_checkpoint, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"chromatune\[colorizers\]"):
        Colorizer.load(str(tmp_path / "a.pth"))

"""A model ⇒ a folder that ONNX Runtime runs: near torch, opened by everybody, the same bytes each time, or nothing.

An export traces every part, which takes half a minute whatever the size: most of these tests are slow.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from chromatune import Colorizer
from chromatune.errors import MissingExtraError, ModelError
from chromatune.options import make_options
from chromatune.pipeline import TrainingSet, load_pipeline, onnx_export, read_training_data, write_training_data
from chromatune.pipeline.model_files import find_pipeline
from chromatune.pipeline.onnx_backend import load_onnx_pipeline
from chromatune.pipeline.onnx_export import MOST_APART, export_onnx, largest_difference
from chromatune.pipeline.runtimes import onnx_problem
from chromatune.pipeline.saving import save_lora


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, graph_pipeline: Path) -> None:
    """Graphs of a few operators in place of traced ones: what is tested is around them."""

    def copy_graphs(folder: Path, start_stage: object = None) -> None:
        for path in graph_pipeline.glob("*/model.onnx"):
            (folder / path.parent.name).mkdir(exist_ok=True)
            shutil.copyfile(path, folder / path.parent.name / path.name)

    monkeypatch.setattr(onnx_export, "write_graphs", copy_graphs)
    monkeypatch.setattr(onnx_export, "largest_difference", lambda pipeline, folder: 0.001)


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def photo(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (50, 70), dtype=np.uint8)


def test_an_existing_model_is_replaced(quick, encoder_pipeline, tiny_pipeline, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(tiny_pipeline("kl"), out)
    assert export_onnx(str(encoder_pipeline), out) == 0.001
    assert onnx_problem(find_pipeline(str(out))) == ""
    assert (out / "unet" / "model.onnx").is_file() and (out / "photo_encoder").is_dir()


def test_the_list_of_what_a_model_has_seen_comes_along(quick, encoder_pipeline, tmp_path):
    model, seen = shutil.copytree(encoder_pipeline, tmp_path / "model"), TrainingSet.of("faces", ["a" * 64])
    write_training_data(model, [seen])
    export_onnx(str(model), tmp_path / "out")
    assert read_training_data(str(tmp_path / "out")) == (seen,)


def test_a_folder_with_other_things_is_left_alone(quick, encoder_pipeline, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("years")
    with pytest.raises(ModelError, match=r"holds 'thesis.txt', which is not part of a model and would be deleted"):
        export_onnx(str(encoder_pipeline), tmp_path / "out")
    assert files_of(tmp_path) == {"out/thesis.txt": b"years"}


@pytest.mark.parametrize(
    ("kind", "settings"),
    [("PNDMScheduler", {}), ("EulerDiscreteScheduler", {"use_karras_sigmas": True}), ("LCMScheduler", {})],
)
def test_a_scheduler_that_takes_torch_is_refused_before_anything_is_traced(
    tiny_pipeline, tmp_path, monkeypatch, kind, settings
):
    monkeypatch.setattr(onnx_export, "write_graphs", lambda *_: pytest.fail("traced"))
    with pytest.raises(ModelError, match=f"has a {kind} with settings that take torch; export it with a DDIM or Euler"):
        export_onnx(str(tiny_pipeline("tiny", kind, **settings)), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_comes_out_far_from_torch_is_not_written(quick, encoder_pipeline, tmp_path, monkeypatch):
    for apart in (2 * MOST_APART, float("nan")):
        monkeypatch.setattr(onnx_export, "largest_difference", lambda *_, apart=apart: apart)
        with pytest.raises(ModelError, match="differs from torch by .* of 255 levels; nothing was written"):
            export_onnx(str(encoder_pipeline), tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_the_difference_is_that_of_the_graphs(graph_pipeline, encoder_pipeline):
    """Graphs of another model are far away."""
    assert largest_difference(load_pipeline(str(encoder_pipeline), device="cpu"), graph_pipeline) > MOST_APART


def test_without_the_exporter_nothing_is_written(encoder_pipeline, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(MissingExtraError, match=r"exporting to ONNX needs the extra 'export'"):
        export_onnx(str(encoder_pipeline), tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_where_a_model_lay_is_not_told(quick, encoder_pipeline, tmp_path, capfd):
    """A folder without a description is described by its own name, not by where it is; nothing is printed."""
    shutil.copytree(encoder_pipeline, tmp_path / "portraits")
    (tmp_path / "portraits" / "chromatune.json").unlink()
    export_onnx(str(tmp_path / "portraits"), tmp_path / "out")
    texts = [data.decode() for name, data in files_of(tmp_path / "out").items() if name.endswith((".json", ".md"))]
    assert not [text for text in texts if str(tmp_path) in text]
    assert json.loads((tmp_path / "out" / "chromatune.json").read_text())["description"] == "portraits"
    assert (tmp_path / "out" / "README.md").read_text() == "# portraits\n"
    assert capfd.readouterr() == ("", "")


def test_settings_and_card_go_along(quick, encoder_pipeline, tmp_path):
    shutil.copytree(encoder_pipeline, tmp_path / "model")
    known = {"description": "of faces", "size_px": 32, "steps": 3, "variant_steps": 5, "guidance_scale": 2.0,
             "image_guidance_scale": 1.5, "prompt": "dye it", "vivid": 1.3}  # fmt: skip
    (tmp_path / "model" / "chromatune.json").write_text(json.dumps(known))
    (tmp_path / "model" / "README.md").write_text("# A card\n")
    export_onnx(str(tmp_path / "model"), tmp_path / "out")
    assert json.loads((tmp_path / "out" / "chromatune.json").read_text()) == known
    assert (tmp_path / "out" / "README.md").read_text() == "# A card\n"


def checked(folder: Path, original: str, apart: float) -> None:
    """The folder opens by ONNX Runtime, by torch and in the stock pipeline, and gives the original's picture."""
    assert apart < MOST_APART
    assert onnx_problem(find_pipeline(str(folder))) == ""
    options = make_options(steps=3, size_px=64, seed=5, guidance_scale=2.0, image_guidance_scale=1.5)
    results = [
        Colorizer.load(name, device="cpu", runtime=runtime).colorize(photo(), options).rgb.astype(int)
        for name, runtime in ((original, "torch"), (str(folder), "onnx"), (str(folder), "torch"))
    ]
    assert np.ptp(results[0], axis=2).max() > 3
    assert np.abs(results[0] - results[1]).max() <= 4  # half precision
    assert np.abs(results[1] - results[2]).max() <= 1
    from diffusers import StableDiffusionInstructPix2PixPipeline

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        stock_pipeline = StableDiffusionInstructPix2PixPipeline.from_pretrained(folder)
    assert stock_pipeline.unet.config.in_channels == 8


@pytest.mark.slow
@pytest.mark.parametrize(
    ("vae_kind", "scheduler_kind"),
    [("tiny", "DDIMScheduler"), ("kl", "EulerAncestralDiscreteScheduler")],
)
def test_pipelines_are_exported(tiny_pipeline, tmp_path, vae_kind, scheduler_kind):
    folder = tiny_pipeline(vae_kind, scheduler_kind)
    checked(tmp_path / "out", str(folder), export_onnx(str(folder), tmp_path / "out"))


@pytest.mark.slow
def test_a_photo_encoder_is_exported_with_its_features(encoder_pipeline, tmp_path):
    """Hints and references ask for them; an export of an export is the same again."""
    checked(tmp_path / "out", str(encoder_pipeline), export_onnx(str(encoder_pipeline), tmp_path / "out"))
    pipeline = load_onnx_pipeline(find_pipeline(str(tmp_path / "out")))
    assert pipeline.photo_encoder is not None
    opened = load_pipeline(str(tmp_path / "out"), device="cpu").photo_encoder
    assert opened is not None
    pixels = torch.rand(1, 3, 64, 96)
    with torch.inference_mode():
        for stride, features in opened.features(pixels).items():
            (found,) = pipeline.photo_encoder.run({"sample": pixels.numpy()}, [f"features_{stride}"])
            np.testing.assert_allclose(found, features.numpy(), rtol=1e-3, atol=1e-3)
    before = files_of(tmp_path / "out")
    export_onnx(str(tmp_path / "out"), tmp_path / "again")
    assert files_of(tmp_path / "again") == before
    assert files_of(tmp_path / "out") == before


@pytest.mark.slow
def test_weights_in_half_precision_are_exported(tiny_pipeline, tmp_path):
    from diffusers import StableDiffusionInstructPix2PixPipeline

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        stock_pipeline = StableDiffusionInstructPix2PixPipeline.from_pretrained(tiny_pipeline(), safety_checker=None)
    stock_pipeline.to(dtype=torch.float16).save_pretrained(tmp_path / "half")
    checked(tmp_path / "out", str(tmp_path / "half"), export_onnx(str(tmp_path / "half"), tmp_path / "out"))


@pytest.mark.slow
def test_a_lora_is_merged(tiny_pipeline, tmp_path):
    from peft import LoraConfig

    base = tiny_pipeline("kl")
    unet = load_pipeline(str(base), device="cpu").unet
    unet.add_adapter(LoraConfig(r=2, lora_alpha=8, target_modules=["to_q", "to_v"], init_lora_weights=False))
    save_lora(unet, tmp_path / "lora", base=str(base), card="", defaults={})
    checked(tmp_path / "out", str(tmp_path / "lora"), export_onnx(str(tmp_path / "lora"), tmp_path / "out"))
    assert not find_pipeline(str(tmp_path / "out")).loras


@pytest.mark.slow
def test_two_processes_write_the_same_bytes(tiny_pipeline, tmp_path):
    """Whatever the order in which either goes through a set."""
    for seed in ("1", "2"):
        code = f"from pathlib import Path\nfrom chromatune.pipeline.onnx_export import export_onnx\n" \
               f"export_onnx({str(tiny_pipeline())!r}, Path({str(tmp_path / seed)!r}))"  # fmt: skip
        subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"PYTHONHASHSEED": seed}, timeout=600)
    assert files_of(tmp_path / "1") == files_of(tmp_path / "2")


@pytest.mark.slow
@pytest.mark.parametrize("model", ["mini", "mini-base"])
def test_the_graphs_that_ship_are_those_of_their_weights(model):
    """Against torch in float32: what ships is what an export of it would give."""
    assert largest_difference(load_pipeline(model, device="cpu"), find_pipeline(model).pipeline_folder) < 1e-4

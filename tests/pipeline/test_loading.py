"""Opening models: what is accepted, what is refused, and with which line."""

from __future__ import annotations

import json
import shutil
import warnings

import numpy as np
import pytest
import torch

from chromatune.errors import ModelError
from chromatune.pipeline import available_models, load_pipeline, model_info
from chromatune.pipeline.latents import decode_latents, encode_condition


def one_line(error: pytest.ExceptionInfo[ModelError]) -> str:
    text = str(error.value)
    assert text and "\n" not in text
    return text


@pytest.fixture
def broken(tiny_pipeline, tmp_path):
    """A copy of a good folder, to be damaged."""
    return shutil.copytree(tiny_pipeline(), tmp_path / "model")


def test_unknown_name_lists_what_there_is():
    with pytest.raises(ModelError) as error:
        load_pipeline("maxi")
    line = one_line(error)
    assert "'maxi'" in line and "timbrooks/instruct-pix2pix" in line
    assert all(info.name in line for info in available_models())


def test_folder_without_index(tmp_path):
    with pytest.raises(ModelError) as error:
        load_pipeline(str(tmp_path))
    assert "model_index.json" in one_line(error)


def test_damaged_index(broken):
    (broken / "model_index.json").write_text("{")
    with pytest.raises(ModelError) as error:
        load_pipeline(str(broken))
    assert "download the model again" in one_line(error)


def test_pickled_weights_are_refused(broken):
    from safetensors.torch import load_file

    weights = broken / "unet" / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(weights), broken / "unet" / "diffusion_pytorch_model.bin")
    weights.unlink()
    with pytest.raises(ModelError) as error:
        load_pipeline(str(broken))
    assert "unet" in one_line(error) and "safetensors" in one_line(error)


def test_truncated_weights(broken):
    weights = broken / "vae" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError) as error:
        load_pipeline(str(broken))
    assert "vae" in one_line(error)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "photo_encoder"])
def test_missing_weights_are_named(encoder_pipeline, tmp_path, part):
    """The libraries would leave them empty or random, and the colors with them."""
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(encoder_pipeline, tmp_path / "model")
    (file,) = (folder / part).glob("*.safetensors")
    weights = load_file(file)
    missing = next(name for name in weights if name.endswith("weight"))
    del weights[missing]
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=f"{part} cannot be loaded .* its file has no ") as error:
        load_pipeline(str(folder), device="cpu")
    assert missing.split(".")[-2] in one_line(error)


def test_four_channel_unet_is_not_instruct_pix2pix(broken):
    from diffusers import UNet2DConditionModel

    unet = UNet2DConditionModel.from_pretrained(broken / "unet")
    config = dict(unet.config) | {"in_channels": 4}
    UNet2DConditionModel.from_config(config).save_pretrained(broken / "unet")
    with pytest.raises(ModelError) as error:
        load_pipeline(str(broken))
    assert "takes 4 channels" in one_line(error)


def test_unknown_class(broken):
    index = json.loads((broken / "model_index.json").read_text())
    index["unet"] = ["diffusers", "UNetOfTomorrow"]
    (broken / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError) as error:
        load_pipeline(str(broken))
    assert "UNetOfTomorrow" in one_line(error)


def test_unknown_device(tiny_pipeline):
    with pytest.raises(ModelError) as error:
        load_pipeline(str(tiny_pipeline()), device="abacus")
    assert "abacus" in one_line(error)


def test_hub_without_network(monkeypatch, tmp_path):
    """A hub name that is not cached, with the hub switched off: one line, no traceback."""
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError) as error:
        load_pipeline("nobody/nothing")
    assert "nobody/nothing" in one_line(error)


def test_folder_without_own_defaults_uses_the_unets_size(tiny_pipeline):
    info = load_pipeline(str(tiny_pipeline("kl"))).info
    assert (info.size_px, info.steps, info.guidance_scale) == (64, 20, 7.0)
    assert info.variant_steps == 20


@pytest.mark.parametrize("vae_kind", ["tiny", "kl"])
def test_condition_latents_are_the_unscaled_mode(tiny_pipeline, vae_kind):
    pipeline = load_pipeline(str(tiny_pipeline(vae_kind)), device="cpu")
    rgb = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        encoded = pipeline.vae.encode(rgb * 2 - 1)
        expected = encoded.latents if vae_kind == "tiny" else encoded.latent_dist.mean
        latents = encode_condition(pipeline, rgb)
        pixels = decode_latents(pipeline, latents * pipeline.vae.config.scaling_factor)
        direct = (pipeline.vae.decode(latents).sample / 2 + 0.5).clamp(0, 1)
    torch.testing.assert_close(latents, expected)
    assert latents.shape == (2, 4, 8, 12)
    torch.testing.assert_close(pixels, direct, atol=1e-5, rtol=1e-5)


def test_nothing_in_a_pipeline_is_trainable(encoder_pipeline):
    pipeline = load_pipeline(str(encoder_pipeline), device="cpu")
    for part in (pipeline.vae, pipeline.unet, pipeline.text_encoder, pipeline.photo_encoder):
        assert part is not None and not part.training
        assert not any(parameter.requires_grad for parameter in part.parameters())


@pytest.mark.parametrize("info", available_models(), ids=lambda info: info.name)
def test_embedded_models_open_here_and_in_the_stock_pipeline(info):
    from diffusers import StableDiffusionInstructPix2PixPipeline

    pipeline = load_pipeline(info.name, device="cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        stock = StableDiffusionInstructPix2PixPipeline.from_pretrained(info.path, safety_checker=None)
    for ours, theirs in ((pipeline.unet, stock.unet), (pipeline.vae, stock.vae)):
        for (name, weight), other in zip(ours.state_dict().items(), theirs.state_dict().values(), strict=True):
            assert torch.equal(weight.float(), other.float()), name
    stock.set_progress_bar_config(disable=True)
    gray = np.full((1, 3, 64, 64), 0.5, np.float32)
    assert stock("colorize", image=torch.from_numpy(gray), num_inference_steps=1, output_type="np").images.shape == (
        (1, 64, 64, 3)
    )


def test_embedded_pair_shares_autoencoder_and_text_encoder():
    base, tuned = (next(info.path for info in available_models() if info.name == n) for n in ("mini-base", "mini"))
    for part in ("vae/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"):
        assert (base / part).read_bytes() == (tuned / part).read_bytes(), part
    unet = "unet/diffusion_pytorch_model.safetensors"
    assert (base / unet).read_bytes() != (tuned / unet).read_bytes()


def test_embedded_pair_is_small():
    total = sum(file.stat().st_size for info in available_models() for file in info.path.rglob("*") if file.is_file())
    assert 1e6 < total < 80e6


@pytest.mark.parametrize(
    ("name", "value"),
    [("steps", "two"), ("steps", 0), ("size_px", 1), ("vivid", -1), ("vivid", 2.5), ("vivid", "x")],
)
def test_defaults_that_make_no_sense_are_one_line(tiny_pipeline_dir, tmp_path, name, value):
    folder = tmp_path / "model"
    shutil.copytree(tiny_pipeline_dir, folder)
    (folder / "chromatune.json").write_text(json.dumps({name: value}))
    with pytest.raises(ModelError, match=f"chromatune.json has {name}={value!r}: .*; correct it") as raised:
        model_info(str(folder))
    one_line(raised)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("[1]", "unet/config.json holds a list, not an object"),
        ('{"sample_size": [4, 4]}', r"unet/config.json has size_px=\[4, 4\]"),
    ],
)
def test_unet_settings_that_make_no_sense_are_one_line(tiny_pipeline, tmp_path, config, message):
    folder = tmp_path / "model"
    shutil.copytree(tiny_pipeline(), folder)
    (folder / "chromatune.json").unlink(missing_ok=True)
    (folder / "unet" / "config.json").write_text(config)
    with pytest.raises(ModelError, match=message) as raised:
        model_info(str(folder))
    one_line(raised)


@pytest.mark.parametrize("device", ["meta", "cuda:7", "nonsense", ""])
def test_a_device_that_cannot_compute_is_one_line(tiny_pipeline_dir, device):
    with pytest.raises(ModelError, match=f"device '{device}' is not available here; leave it out, or give 'cpu'"):
        load_pipeline(str(tiny_pipeline_dir), device=device)


def test_the_folder_of_a_run_says_where_its_model_is(tiny_pipeline_dir, tmp_path):
    (tmp_path / "model").symlink_to(tiny_pipeline_dir)
    with pytest.raises(ModelError, match=r"is a training run; give its model, .*model"):
        load_pipeline(str(tmp_path), device="cpu")

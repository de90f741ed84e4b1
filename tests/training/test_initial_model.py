"""Where fine-tuning starts; two known bugs of the official script are tests here."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from diffusers import UNet2DConditionModel

from chromatune.errors import ModelError
from chromatune.pipeline import load_pipeline, model_info
from chromatune.training.initial_model import load_initial_model, select_trainable


def stored_unet(folder):
    return UNet2DConditionModel.from_pretrained(folder / "unet")


def tensors_equal(ours, theirs):
    return all(torch.equal(ours[name], theirs[name]) for name in ours.keys() | theirs.keys())


def test_official_script_bug_an_eight_channel_checkpoint_is_loaded_as_it_is(tiny_stable_diffusion):
    """The script rebuilds conv_in from `[:, :4]`, which throws an InstructPix2Pix model's other half away."""
    folder = tiny_stable_diffusion(8)
    opened = load_initial_model(str(folder)).pipeline
    assert tensors_equal(opened.unet.state_dict(), stored_unet(folder).state_dict())
    assert opened.unet.conv_in.weight[:, 4:].abs().min() > 0
    assert opened.unet.config.in_channels == 8


def test_official_script_bug_the_bias_of_conv_in_is_kept(tiny_stable_diffusion):
    """The script makes a new conv_in and leaves its bias at random (diffusers issues 3455 and 4960)."""
    folder = tiny_stable_diffusion(4)
    plain = stored_unet(folder)
    assert plain.conv_in.bias.abs().min() > 0
    assert torch.equal(load_initial_model(str(folder)).pipeline.unet.conv_in.bias, plain.conv_in.bias)


def test_widened_layer_has_zeros_for_the_photo_and_the_rest_is_untouched(tiny_stable_diffusion):
    folder = tiny_stable_diffusion(4)
    plain, unet = stored_unet(folder), load_initial_model(str(folder)).pipeline.unet
    weights = unet.state_dict()
    conv = weights.pop("conv_in.weight")
    assert conv.shape == (8, 8, 3, 3)
    assert torch.equal(conv[:, :4], plain.conv_in.weight)
    assert not conv[:, 4:].any()
    assert tensors_equal(weights, {k: v for k, v in plain.state_dict().items() if k != "conv_in.weight"})
    assert (unet.config.in_channels, unet.conv_in.in_channels) == (8, 8)
    assert unet.conv_in.weight.requires_grad


def test_widened_model_answers_as_the_plain_one_whatever_the_photo(tiny_stable_diffusion):
    folder = tiny_stable_diffusion(4)
    generator = torch.Generator().manual_seed(1)
    latents, photo = (torch.randn(2, 4, 8, 8, generator=generator) for _ in range(2))
    text = torch.randn(2, 77, 16, generator=generator)
    with torch.inference_mode():
        plain = stored_unet(folder)(latents, 500, text).sample
        widened = load_initial_model(str(folder)).pipeline.unet(torch.cat([latents, photo], dim=1), 500, text).sample
    # Eight channels are summed in another order than four.
    torch.testing.assert_close(widened, plain, atol=1e-5, rtol=1e-5)


def test_widening_draws_no_random_numbers(tiny_stable_diffusion):
    tiny_stable_diffusion(4)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    load_initial_model(str(tiny_stable_diffusion(4)))
    assert torch.equal(torch.get_rng_state(), before)


def test_other_channel_counts_are_refused(tiny_stable_diffusion):
    with pytest.raises(ModelError, match="takes 9 channels") as error:
        load_initial_model(str(tiny_stable_diffusion(9)))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["mini", "mini-base"])
def test_embedded_models_open_in_float32(name):
    """They are stored in float16, of which an optimizer's small steps would be rounded away."""
    opened = load_initial_model(name).pipeline
    assert opened.info == model_info(name)
    assert opened.unet.config.in_channels == 8
    for module in (opened.unet, opened.vae, opened.text_encoder):
        assert {weight.dtype for weight in module.parameters()} == {torch.float32}
        assert {weight.device.type for weight in module.parameters()} == {"cpu"}


def test_a_folder_without_own_defaults_has_none(tiny_stable_diffusion):
    model = load_initial_model(str(tiny_stable_diffusion(8)))
    opened = model.pipeline
    assert model.defaults == {} and opened.info.path == tiny_stable_diffusion(8)
    assert opened.tokenizer.model_max_length == 77 and opened.scheduler.config.beta_schedule == "scaled_linear"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1]", r"chromatune\.json holds a list, not an object"),
        ('{"steps": "two"}', r"chromatune\.json has steps='two'"),
    ],
)
def test_damaged_defaults_are_one_line_before_training(tiny_stable_diffusion, tmp_path, text, message):
    folder = shutil.copytree(tiny_stable_diffusion(8), tmp_path / "model")
    (folder / "chromatune.json").write_text(text)
    with pytest.raises(ModelError, match=message) as error:
        load_initial_model(str(folder))
    assert "\n" not in str(error.value)


def test_sharded_weights_open(tiny_stable_diffusion, tmp_path):
    folder = shutil.copytree(tiny_stable_diffusion(4), tmp_path / "model")
    unet = stored_unet(folder)
    shutil.rmtree(folder / "unet")
    unet.save_pretrained(folder / "unet", max_shard_size="100KB")
    assert len(list((folder / "unet").glob("*.safetensors"))) > 1
    opened = load_initial_model(str(folder)).pipeline.unet
    assert torch.equal(opened.conv_out.weight, unet.conv_out.weight)
    assert torch.equal(opened.conv_in.weight[:, :4], unet.conv_in.weight)


def test_half_precision_files_open_in_float32(tiny_stable_diffusion, tmp_path):
    """Only `*.fp16.safetensors`, as in many folders of the hub."""
    from diffusers import StableDiffusionInstructPix2PixPipeline

    pipeline = StableDiffusionInstructPix2PixPipeline.from_pretrained(tiny_stable_diffusion(8), safety_checker=None)
    pipeline.to(torch.float16).save_pretrained(tmp_path / "half", variant="fp16")
    files = [file.name for file in (tmp_path / "half").rglob("*.safetensors")]
    assert len(files) == 3 and all(".fp16." in name for name in files)
    opened = load_initial_model(str(tmp_path / "half")).pipeline
    for module in (opened.unet, opened.vae, opened.text_encoder):
        assert {weight.dtype for weight in module.parameters()} == {torch.float32}
    assert torch.equal(opened.unet.conv_out.weight, pipeline.unet.conv_out.weight.float())
    assert load_pipeline(str(tmp_path / "half"), device="cpu").dtype == torch.float32


def test_index_without_a_unet_is_one_line(tiny_stable_diffusion, tmp_path):
    folder = shutil.copytree(tiny_stable_diffusion(8), tmp_path / "model")
    index = json.loads((folder / "model_index.json").read_text())
    del index["unet"]
    (folder / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match="names no unet"):
        load_initial_model(str(folder))


@pytest.mark.parametrize("adapter", ["dora", "lokr"])
def test_other_adapters_start_as_their_base_and_have_few_weights(tiny_pipeline, adapter):
    pipeline, plain = (load_initial_model(str(tiny_pipeline())).pipeline for _ in range(2))
    trained = select_trainable(pipeline, "lora", 2, adapter)
    assert 0 < sum(weight.numel() for weight in trained) < 0.2 * sum(w.numel() for w in plain.unet.parameters())
    given = torch.ones(1, 8, 8, 8), 5, torch.ones(1, 77, 16)
    with torch.no_grad():
        torch.testing.assert_close(pipeline.unet(*given).sample, plain.unet(*given).sample, rtol=0, atol=1e-5)

"""The photo encoder: its place in the U-Net, in a pipeline, in sampling, and in the stock pipeline's eyes."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch

from chromatune import Colorizer, ModelError
from chromatune.color import luma
from chromatune.pipeline import load_pipeline
from chromatune.pipeline.latents import encode_condition, encode_photos
from chromatune.pipeline.model_files import PHOTO_ENCODER
from chromatune.pipeline.photo_encoder import PhotoEncoder, places_of, unet_arguments
from chromatune.pipeline.schedules import noise_generator
from chromatune.pipeline.text import TextEmbedder
from chromatune.pipeline.torch_backend import TorchBackend, sample

GRAY = np.tile(np.arange(0, 256, 4, dtype=np.uint8), (64, 1))


@pytest.fixture(scope="module")
def pipeline(encoder_pipeline):
    return load_pipeline(str(encoder_pipeline), device="cpu")


def test_residuals_fit_the_unets_own_skip_connections(pipeline):
    """Shapes against what the down blocks really hand over, in their order."""
    handed: list[tuple[int, ...]] = []
    hooks = [pipeline.unet.conv_in.register_forward_hook(lambda module, inputs, out: handed.append(tuple(out.shape)))]
    for block in pipeline.unet.down_blocks:
        take = lambda module, inputs, out: handed.extend(tuple(part.shape) for part in out[1])  # noqa: E731
        hooks.append(block.register_forward_hook(take))
    hooks.append(pipeline.unet.mid_block.register_forward_hook(lambda module, inputs, out: handed.append(out.shape)))
    residuals = pipeline.photo_encoder(torch.rand(2, 3, 64, 96))
    text = torch.randn(2, 77, pipeline.unet.config.cross_attention_dim)
    pipeline.unet(torch.randn(2, 8, 8, 12), torch.tensor([3, 3]), text, **unet_arguments(residuals))
    for hook in hooks:
        hook.remove()
    assert [tuple(part.shape) for part in residuals] == [tuple(shape) for shape in handed]


def test_a_unet_deeper_than_the_encoder_is_refused(pipeline):
    with pytest.raises(ValueError, match="features at stride 64, and the encoder's end at 32"):
        PhotoEncoder(pipeline.photo_encoder.config["encoder"], [[8, 8], [8, 64]])


def test_projections_start_at_zero_and_then_change_nothing(pipeline):
    fresh = PhotoEncoder(**{key: pipeline.photo_encoder.config[key] for key in ("encoder", "places")})
    noisy, text = torch.randn(1, 8, 8, 8), torch.randn(1, 77, pipeline.unet.config.cross_attention_dim)
    with torch.no_grad():
        seen = unet_arguments(fresh(torch.rand(1, 3, 64, 64)))
        assert torch.equal(pipeline.unet(noisy, 3, text, **seen).sample, pipeline.unet(noisy, 3, text).sample)
    assert unet_arguments(None) == {}


def test_training_mode_keeps_the_pretrained_statistics(pipeline):
    fresh = PhotoEncoder(**{key: pipeline.photo_encoder.config[key] for key in ("encoder", "places")}).train()
    before = {name: value.clone() for name, value in fresh.named_buffers()}
    fresh(torch.rand(2, 3, 64, 64))
    assert fresh.training and all(torch.equal(before[name], value) for name, value in fresh.named_buffers())


def color_latents(pipeline, rgb):
    """(B, 3, h, w) -> (B, 4, h, w), each photo from the same noise, all three branches."""
    embed = TextEmbedder(pipeline.tokenizer, pipeline.text_encoder)
    generators = [noise_generator(1) for _ in rgb]
    with torch.no_grad():
        return sample(
            pipeline, encode_condition(pipeline, rgb), embed("colorize"), embed(""), steps=2, generators=generators,
            guidance_scale=3.0, image_guidance_scale=1.5, residuals=encode_photos(pipeline, rgb),
        )  # fmt: skip


def test_the_photo_is_seen(pipeline, encoder_pipeline, tmp_path):
    """Same weights with and without the folder: other colors, the same luminance."""
    folder = tmp_path / "without"
    shutil.copytree(encoder_pipeline, folder)
    shutil.rmtree(folder / PHOTO_ENCODER)
    without, photo = load_pipeline(str(folder), device="cpu"), torch.rand(1, 3, 64, 64)
    assert without.photo_encoder is None
    ours, theirs = color_latents(pipeline, photo), color_latents(without, photo)
    assert (ours - theirs).abs().max() > 0.01 * theirs.std()
    assert np.array_equal(luma(Colorizer(TorchBackend(pipeline)).colorize(GRAY).rgb), GRAY)


def test_each_photo_of_a_batch_sees_itself(pipeline):
    photos = torch.rand(3, 1, 64, 64).expand(-1, 3, -1, -1)
    together = color_latents(pipeline, photos)
    for index in range(3):
        alone = color_latents(pipeline, photos[index : index + 1])[0]
        torch.testing.assert_close(together[index], alone, atol=1e-4, rtol=1e-4)


def test_the_branch_without_a_photo_sees_none(pipeline):
    """Three branches for one photo: the residuals of the last, whose condition is zeros, are zeros too."""
    calls = []
    keep = lambda module, inputs, named: calls.append((inputs[0], named))  # noqa: E731
    hook = pipeline.unet.register_forward_pre_hook(keep, with_kwargs=True)
    embed, photo = TextEmbedder(pipeline.tokenizer, pipeline.text_encoder), torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        sample(
            pipeline, encode_condition(pipeline, photo), embed("red"), embed(""), steps=1,
            generators=[noise_generator(0)], guidance_scale=3.0, image_guidance_scale=1.5,
            residuals=encode_photos(pipeline, photo),
        )  # fmt: skip
    hook.remove()
    ((noisy, given),) = calls
    middle = given["mid_block_additional_residual"]
    shown = noisy[:, 4:].abs().amax(dim=(1, 2, 3)) > 0
    assert len(noisy) == 3 and shown.tolist() == [True, True, False]
    assert (middle.abs().amax(dim=(1, 2, 3)) > 0).tolist() == shown.tolist()


def test_stock_pipeline_opens_the_folder(encoder_pipeline):
    from diffusers import StableDiffusionInstructPix2PixPipeline

    stock = StableDiffusionInstructPix2PixPipeline.from_pretrained(encoder_pipeline, safety_checker=None)
    stock.set_progress_bar_config(disable=True)
    image = torch.rand(1, 3, 64, 64)
    assert stock("colorize", image=image, num_inference_steps=1, output_type="np").images.shape == (1, 64, 64, 3)


def test_an_encoder_of_another_unet_is_refused(encoder_pipeline, tmp_path, pipeline):
    folder = tmp_path / "other"
    shutil.copytree(encoder_pipeline, folder)
    encoder = dict(pipeline.photo_encoder.config["encoder"])
    PhotoEncoder(encoder, [[channels * 2, stride] for channels, stride in places_of(pipeline.unet)]).save_pretrained(
        folder / PHOTO_ENCODER
    )
    with pytest.raises(ModelError, match="made for another U-Net; delete that folder"):
        load_pipeline(str(folder), device="cpu")


@pytest.mark.parametrize("spoilt", ["config.json", "diffusion_pytorch_model.safetensors"])
def test_a_broken_encoder_is_one_line(encoder_pipeline, tmp_path, spoilt):
    folder = tmp_path / "broken"
    shutil.copytree(encoder_pipeline, folder)
    (folder / PHOTO_ENCODER / spoilt).write_bytes(b"not this")
    with pytest.raises(ModelError, match="photo_encoder/.* download the model again") as caught:
        load_pipeline(str(folder), device="cpu")
    assert "\n" not in str(caught.value)

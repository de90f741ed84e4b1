"""The sampling loop against the stock pipeline, and its promises on noise, branches and batches."""

from __future__ import annotations

import warnings
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from chromatune.pipeline import Pipeline, load_pipeline
from chromatune.pipeline.latents import encode_condition
from chromatune.pipeline.schedules import (
    branch_weights,
    combine_guidance,
    draw_noise,
    noise_generator,
    zero_terminal_snr_config,
)
from chromatune.pipeline.text import TextEmbedder
from chromatune.pipeline.torch_backend import sample

SIDE_PX = 64


def photo_tensor(count: int = 1) -> torch.Tensor:
    gray = np.random.default_rng(3).random((count, 1, SIDE_PX, SIDE_PX), dtype=np.float32)
    return torch.from_numpy(gray).expand(-1, 3, -1, -1).contiguous()


@cache
def opened(folder: Path) -> Pipeline:
    """A pipeline, opened once for all tests that leave it as it is."""
    return load_pipeline(str(folder), device="cpu")


def ours(folder, *, guidance=(1.0, 1.0), steps=3, seeds=(5,), prompt="colorize", photos=None, negative=""):
    pipeline = opened(folder)
    embed = TextEmbedder(pipeline.tokenizer, pipeline.text_encoder)
    photos = photo_tensor(len(seeds)) if photos is None else photos
    with torch.inference_mode():
        return sample(
            pipeline,
            encode_condition(pipeline, photos),
            embed(prompt),
            embed(negative),
            steps=steps,
            generators=[noise_generator(seed) for seed in seeds],
            guidance_scale=guidance[0],
            image_guidance_scale=guidance[1],
        )


def stock(folder, *, guidance, steps, seed, prompt, negative=""):
    from diffusers import StableDiffusionInstructPix2PixPipeline

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        stock_pipeline = StableDiffusionInstructPix2PixPipeline.from_pretrained(folder, safety_checker=None)
    stock_pipeline.set_progress_bar_config(disable=True)
    noise = torch.from_numpy(draw_noise([noise_generator(seed)], (4, SIDE_PX // 8, SIDE_PX // 8)))[0]
    return stock_pipeline(
        prompt=prompt,
        negative_prompt=negative,
        image=photo_tensor(),
        latents=noise[None],
        num_inference_steps=steps,
        guidance_scale=guidance[0],
        image_guidance_scale=guidance[1],
        generator=torch.Generator().manual_seed(seed),
        output_type="latent",
    ).images


ZERO_SNR = {key: value for key, value in zero_terminal_snr_config().items() if key != "beta_schedule"}


@pytest.mark.parametrize(
    ("vae_kind", "scheduler_kind", "options"),
    [
        ("tiny", "DDIMScheduler", ZERO_SNR),
        ("kl", "DDIMScheduler", {"clip_sample": False}),
        ("kl", "EulerDiscreteScheduler", {}),
        ("tiny", "DPMSolverMultistepScheduler", {"prediction_type": "v_prediction"}),
    ],
)
def test_equals_the_stock_pipeline(tiny_pipeline, vae_kind, scheduler_kind, options):
    """Same noise, same guidance: latents within 1e-4 of the stock pipeline's (they are of order 1)."""
    folder = tiny_pipeline(vae_kind, scheduler_kind, **options)
    guidance = (3.0, 1.5)  # the stock pipeline computes all three branches here, and so do we
    expected = stock(folder, guidance=guidance, steps=3, seed=5, prompt="colorize", negative="red")
    actual = ours(folder, guidance=guidance, prompt="colorize", negative="red")
    assert expected.abs().max() > 0.1
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=1e-4)


def test_ancestral_scheduler_equals_the_stock_pipeline(tiny_pipeline, monkeypatch):
    """The stock pipeline's steps are given the noise that ours draw: from the generator of the initial noise, on."""
    import diffusers.schedulers.scheduling_euler_ancestral_discrete as stock_scheduler
    from diffusers import StableDiffusionInstructPix2PixPipeline

    folder = tiny_pipeline("tiny", "EulerAncestralDiscreteScheduler")
    generator = noise_generator(5)

    def draw(shape, **_):
        return torch.from_numpy(draw_noise([generator], shape[1:]))

    noise = draw((1, 4, SIDE_PX // 8, SIDE_PX // 8))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        stock_pipeline = StableDiffusionInstructPix2PixPipeline.from_pretrained(folder, safety_checker=None)
    stock_pipeline.set_progress_bar_config(disable=True)
    monkeypatch.setattr(stock_scheduler, "randn_tensor", draw)
    expected = stock_pipeline(
        prompt="colorize", image=photo_tensor(), latents=noise, num_inference_steps=3, guidance_scale=3.0,
        image_guidance_scale=1.5, output_type="latent",
    ).images  # fmt: skip
    torch.testing.assert_close(ours(folder, guidance=(3.0, 1.5)), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("scheduler_kind", ["DDPMScheduler", "LCMScheduler"])
def test_noise_of_other_schedulers_depends_on_the_seed_alone(tiny_pipeline, scheduler_kind):
    folder = tiny_pipeline("tiny", scheduler_kind)
    assert torch.equal(ours(folder), ours(folder))
    assert not torch.allclose(ours(folder), ours(folder, seeds=(6,)), atol=1e-3)


def test_branches_that_cancel_are_not_computed():
    assert list(branch_weights(1.0, 1.0)) == ["text+image"]
    assert list(branch_weights(3.0, 1.0)) == ["text+image", "image"]
    assert list(branch_weights(2.0, 2.0)) == ["text+image", "none"]
    assert list(branch_weights(7.0, 1.5)) == ["text+image", "image", "none"]


@pytest.mark.parametrize("guidance", [(1.0, 1.0), (3.0, 1.0), (2.0, 2.0), (7.0, 1.5), (0.0, 1.0)])
def test_weights_are_the_papers_three_terms(guidance):
    """The gathered form equals InstructPix2Pix's equation 3 on random predictions."""
    both, image, none = np.random.default_rng(0).normal(size=(3, 10))
    text_scale, image_scale = guidance
    expected = none + text_scale * (both - image) + image_scale * (image - none)
    predictions, weights = {"text+image": both, "image": image, "none": none}, branch_weights(*guidance)
    actual = combine_guidance(weights, [predictions[branch] for branch in weights])
    np.testing.assert_allclose(actual, expected, atol=1e-12)


def test_unet_runs_once_a_step_without_guidance(tiny_pipeline):
    folder = tiny_pipeline()
    pipeline = load_pipeline(str(folder), device="cpu")
    rows: list[int] = []
    pipeline.unet.register_forward_pre_hook(lambda unet, given: rows.append(len(given[0])))
    embed = TextEmbedder(pipeline.tokenizer, pipeline.text_encoder)
    for guidance, expected in (((1.0, 1.0), 1), ((3.0, 1.0), 2), ((3.0, 1.5), 3)):
        rows.clear()
        with torch.inference_mode():
            sample(
                pipeline, encode_condition(pipeline, photo_tensor()), embed("a"), embed(""), steps=2,
                generators=[noise_generator(0)], guidance_scale=guidance[0],
                image_guidance_scale=guidance[1],
            )  # fmt: skip
        assert rows == [expected, expected]


def test_a_photo_does_not_depend_on_its_batch(tiny_pipeline):
    folder = tiny_pipeline()
    photos = photo_tensor(3)
    together = ours(folder, seeds=(1, 2, 3), photos=photos)
    for index, seed in enumerate((1, 2, 3)):
        alone = ours(folder, seeds=(seed,), photos=photos[index : index + 1])
        torch.testing.assert_close(together[index : index + 1], alone, atol=1e-5, rtol=1e-5)


def test_same_seed_same_latents_and_another_seed_others(tiny_pipeline):
    folder = tiny_pipeline()
    assert torch.equal(ours(folder), ours(folder))
    assert not torch.allclose(ours(folder), ours(folder, seeds=(6,)), atol=1e-3)


def test_prompts_are_encoded_once(tiny_pipeline):
    pipeline = load_pipeline(str(tiny_pipeline()), device="cpu")
    calls: list[object] = []
    pipeline.text_encoder.register_forward_pre_hook(lambda encoder, given: calls.append(given))
    embed = TextEmbedder(pipeline.tokenizer, pipeline.text_encoder)
    first, again = embed("colorize"), embed("colorize")
    assert torch.equal(first, again) and len(calls) == 1
    assert not torch.equal(first, embed("red"))


def test_as_many_generators_as_photos(tiny_pipeline):
    pipeline = load_pipeline(str(tiny_pipeline()), device="cpu")
    embed = TextEmbedder(pipeline.tokenizer, pipeline.text_encoder)
    with pytest.raises(ValueError, match="2 photos need 2 generators"):
        sample(
            pipeline, encode_condition(pipeline, photo_tensor(2)), embed("a"), embed(""), steps=1,
            generators=[noise_generator(0)],
        )  # fmt: skip

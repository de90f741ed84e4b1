"""A tiny random InstructPix2Pix pipeline that stands for a model where quality does not matter."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

TinyPipeline = Callable[..., Path]


def make_tokenizer():
    from transformers import CLIPTokenizer

    start, end = "<|startoftext|>", "<|endoftext|>"
    letters = "abcdefghijklmnopqrstuvwxyz,"
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), start, end]
    vocab = {token: index for index, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocab, merges=[], model_max_length=77)


def make_text_encoder(tokenizer):
    from transformers import CLIPTextConfig, CLIPTextModel

    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=77,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def make_kl():
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
        norm_num_groups=4,
    )


def make_pipeline(vae_kind: str = "tiny", scheduler_kind: str = "DDIMScheduler", **scheduler_options):
    import diffusers
    import torch

    torch.manual_seed(7)
    tokenizer = make_tokenizer()
    text_encoder = make_text_encoder(tokenizer)
    unet = diffusers.UNet2DConditionModel(
        sample_size=8,
        in_channels=8,
        out_channels=4,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=16,
        attention_head_dim=2,
        norm_num_groups=8,
    )
    if vae_kind == "tiny":
        vae = diffusers.AutoencoderTiny(
            encoder_block_out_channels=(8, 8, 8, 8),
            decoder_block_out_channels=(8, 8, 8, 8),
            num_encoder_blocks=(1, 1, 1, 1),
            num_decoder_blocks=(1, 1, 1, 1),
        )
    else:
        vae = make_kl()
    scheduler = getattr(diffusers, scheduler_kind)(beta_schedule="scaled_linear", **scheduler_options)
    return diffusers.StableDiffusionInstructPix2PixPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def make_stable_diffusion(in_channels: int):
    """Stable Diffusion 1.5's structure, block for block, with few channels."""
    import diffusers
    import torch

    torch.manual_seed(7)
    tokenizer = make_tokenizer()
    unet = diffusers.UNet2DConditionModel(
        sample_size=8,
        in_channels=in_channels,
        out_channels=4,
        block_out_channels=(8, 16, 16, 16),
        layers_per_block=2,
        down_block_types=(*("CrossAttnDownBlock2D",) * 3, "DownBlock2D"),
        up_block_types=("UpBlock2D", *("CrossAttnUpBlock2D",) * 3),
        cross_attention_dim=16,
        attention_head_dim=4,
        norm_num_groups=4,
    )
    parts = {
        "vae": make_kl(),
        "text_encoder": make_text_encoder(tokenizer),
        "tokenizer": tokenizer,
        "unet": unet,
        "scheduler": diffusers.PNDMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            skip_prk_steps=True,
            set_alpha_to_one=False,
            steps_offset=1,
        ),
    }
    kind = "StableDiffusionPipeline" if in_channels == 4 else "StableDiffusionInstructPix2PixPipeline"
    nothing = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    return getattr(diffusers, kind)(**parts, **nothing)


@pytest.fixture(scope="session")
def tiny_stable_diffusion(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """Makes (once for each number of input channels) and returns the folder of a tiny Stable Diffusion model."""
    known: dict[int, Path] = {}

    def make(in_channels: int = 4) -> Path:
        if in_channels not in known:
            known[in_channels] = tmp_path_factory.mktemp(f"sd-{in_channels}")
            make_stable_diffusion(in_channels).save_pretrained(known[in_channels])
        return known[in_channels]

    return make


@pytest.fixture(scope="session")
def tiny_pipeline(tmp_path_factory: pytest.TempPathFactory) -> TinyPipeline:
    """Makes (once for each set of settings) and returns the folder of a tiny pipeline."""
    known: dict[str, Path] = {}

    def make(vae_kind: str = "tiny", scheduler_kind: str = "DDIMScheduler", **scheduler_options) -> Path:
        key = json.dumps([vae_kind, scheduler_kind, scheduler_options], sort_keys=True)
        if key not in known:
            known[key] = tmp_path_factory.mktemp("tiny")
            make_pipeline(vae_kind, scheduler_kind, **scheduler_options).save_pretrained(known[key])
        return known[key]

    return make


@pytest.fixture(scope="session")
def tiny_bundle_dir(tiny_pipeline: TinyPipeline) -> Path:
    """Folder of the default tiny pipeline, with settings that make it quick."""
    folder = tiny_pipeline()
    defaults = {"description": "tiny", "size_px": 32, "steps": 1, "guidance_scale": 1.0, "image_guidance_scale": 1.0}
    (folder / "chromatune.json").write_text(json.dumps(defaults))
    return folder


@pytest.fixture(scope="session")
def encoder_pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny pipeline with a tiny photo encoder whose projections are not zero."""
    import torch

    from chromatune.photo_encoder import EFFICIENTNET_LITE0, PhotoEncoder, places_of

    pipeline = make_pipeline()
    folder = tmp_path_factory.mktemp("encoder")
    pipeline.save_pretrained(folder)
    thin = {"width_coefficient": 0.25, "num_block_repeats": [1] * 7, "hidden_dim": 320}
    encoder = PhotoEncoder({**EFFICIENTNET_LITE0, **thin}, places_of(pipeline.unet))
    for module in encoder.modules():  # as they come, signals fade to nothing within a few layers
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
        elif isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.ones_(module.weight)
    encoder.save_pretrained(folder / "photo_encoder")
    defaults = {"description": "tiny", "size_px": 32, "steps": 1, "guidance_scale": 1.0, "image_guidance_scale": 1.0}
    (folder / "chromatune.json").write_text(json.dumps(defaults))
    return folder


@pytest.fixture
def fresh_accelerate():
    """Accelerate keeps one state a process: a test that trains starts with none, and leaves none."""
    from accelerate.state import AcceleratorState, GradientState

    def forget() -> None:
        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()

    forget()
    yield
    forget()

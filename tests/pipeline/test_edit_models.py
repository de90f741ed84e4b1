"""Edit models: tiny random ones, each a folder as diffusers writes it, run by its name."""

from __future__ import annotations

import importlib
import json
import shutil
from collections.abc import Callable
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from chromatune import ColorizeOptions, Colorizer, color
from chromatune.errors import MissingExtraError, ModelError, OptionsError
from chromatune.pipeline import edit_backend, find_model, load_pipeline, model_info, weights_hash
from chromatune.pipeline.edit_files import EditFiles

WIDTH = 16  # of all text encoders
FLUX_VAE: dict[str, Any] = {
    "block_out_channels": (4,), "down_block_types": ("DownEncoderBlock2D",), "up_block_types": ("UpDecoderBlock2D",),
    "norm_num_groups": 1, "layers_per_block": 1, "use_quant_conv": False, "use_post_quant_conv": False,
}  # fmt: skip


def clip_tokenizer() -> Any:
    from transformers import CLIPTokenizer

    letters = "abcdefghijklmnopqrstuvwxyz,."
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    vocab = {token: index for index, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocab, merges=[], model_max_length=77)


def clip(tokenizer: Any, projected: bool = False) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=WIDTH, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        projection_dim=WIDTH, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    return (CLIPTextModelWithProjection if projected else CLIPTextModel)(config)


def bytes_tokenizer() -> Any:
    """Qwen's tokenizer with single bytes as its only words."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import Qwen2Tokenizer

    marks = ["endoftext", "im_start", "im_end", "vision_start", "vision_end", "image_pad", "video_pad"]
    words = [*sorted(ByteLevel.alphabet()), *(f"<|{mark}|>" for mark in marks)]
    tokenizer = Qwen2Tokenizer(vocab={word: index for index, word in enumerate(words)}, merges=[])
    tokenizer.add_special_tokens({"additional_special_tokens": [f"<|{mark}|>" for mark in marks]})
    tokenizer.chat_template = "{% for message in messages %}{{ message.content }}{% endfor %}"
    return tokenizer


def make_sdxl() -> Any:
    import diffusers

    tokenizer = clip_tokenizer()
    return diffusers.StableDiffusionXLInstructPix2PixPipeline(
        vae=diffusers.AutoencoderKL(
            block_out_channels=(8, 8, 8, 8), down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4, norm_num_groups=4,
        ),
        text_encoder=clip(tokenizer),
        text_encoder_2=clip(tokenizer, projected=True),
        tokenizer=tokenizer,
        tokenizer_2=clip_tokenizer(),
        unet=diffusers.UNet2DConditionModel(
            sample_size=8, in_channels=8, block_out_channels=(16, 32), layers_per_block=1, norm_num_groups=8,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=2 * WIDTH, attention_head_dim=(2, 4), use_linear_projection=True,
            addition_embed_type="text_time", addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=6 * 8 + WIDTH,
        ),
        scheduler=diffusers.EulerDiscreteScheduler(beta_schedule="scaled_linear"),
    )  # fmt: skip


def make_kontext() -> Any:
    import diffusers
    from transformers import T5Config, T5EncoderModel, T5TokenizerFast

    tokenizer = clip_tokenizer()
    letters = [(letter, -1.0) for letter in "▁abcdefghijklmnopqrstuvwxyz,."]
    t5 = T5TokenizerFast(vocab=[("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *letters], extra_ids=0)
    return diffusers.FluxKontextPipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
        vae=diffusers.AutoencoderKL(latent_channels=1, shift_factor=0.06, scaling_factor=1.5, **FLUX_VAE),
        text_encoder=clip(tokenizer),
        tokenizer=tokenizer,
        text_encoder_2=T5EncoderModel(
            T5Config(vocab_size=len(t5), d_model=WIDTH, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
        ),
        tokenizer_2=t5,
        transformer=diffusers.FluxTransformer2DModel(
            in_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
            joint_attention_dim=WIDTH, pooled_projection_dim=WIDTH, axes_dims_rope=(4, 4, 8), guidance_embeds=True,
        ),
    )  # fmt: skip


def make_qwen(kind: str = "QwenImageEditPipeline") -> Any:
    import diffusers
    from transformers import (
        Qwen2_5_VLConfig,
        Qwen2_5_VLForConditionalGeneration,
        Qwen2VLImageProcessor,
        Qwen2VLProcessor,
        Qwen2VLVideoProcessor,
    )

    tokenizer = bytes_tokenizer()
    ids = {name: tokenizer.convert_tokens_to_ids(f"<|{mark}|>") for name, mark in
           (("image_token_id", "image_pad"), ("video_token_id", "video_pad"),
            ("vision_start_token_id", "vision_start"), ("vision_end_token_id", "vision_end"))}  # fmt: skip
    config = Qwen2_5_VLConfig(
        text_config={
            "hidden_size": WIDTH, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
            "num_key_value_heads": 2, "vocab_size": len(tokenizer),
            "rope_scaling": {"type": "default", "rope_type": "default", "mrope_section": [1, 1, 2]},
        },
        vision_config={"depth": 2, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 16},
        **ids,
    )  # fmt: skip
    return getattr(diffusers, kind)(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
        vae=diffusers.AutoencoderKLQwenImage(
            base_dim=8, z_dim=4, dim_mult=[1, 2, 4], num_res_blocks=1, temperal_downsample=[False, True],
            latents_mean=[0.0] * 4, latents_std=[1.0] * 4,
        ),
        text_encoder=Qwen2_5_VLForConditionalGeneration(config),
        tokenizer=tokenizer,
        processor=Qwen2VLProcessor(Qwen2VLImageProcessor(), tokenizer, Qwen2VLVideoProcessor()),
        transformer=diffusers.QwenImageTransformer2DModel(
            in_channels=16, out_channels=4, num_layers=2, attention_head_dim=16, num_attention_heads=2,
            joint_attention_dim=WIDTH, axes_dims_rope=(4, 4, 8),
        ),
    )  # fmt: skip


def make_klein(kind: str = "Flux2KleinPipeline") -> Any:
    import diffusers
    from transformers import Qwen3Config, Qwen3ForCausalLM

    tokenizer = bytes_tokenizer()
    config = Qwen3Config(
        vocab_size=len(tokenizer), hidden_size=WIDTH, intermediate_size=16, num_hidden_layers=28, head_dim=8,
        num_attention_heads=2, num_key_value_heads=2,
    )  # fmt: skip
    return getattr(diffusers, kind)(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
        vae=diffusers.AutoencoderKLFlux2(latent_channels=4, **{**FLUX_VAE, "block_out_channels": (4, 4),
            "down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}),
        text_encoder=Qwen3ForCausalLM(config),
        tokenizer=tokenizer,
        transformer=diffusers.Flux2Transformer2DModel(
            in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
            joint_attention_dim=3 * WIDTH, axes_dims_rope=(4, 4, 4, 4), guidance_embeds=False,
        ),
        is_distilled=True,
    )  # fmt: skip


MAKERS: dict[str, Callable[[], Any]] = {
    "sdxl": make_sdxl,
    "kontext": make_kontext,
    "klein": make_klein,
    "klein-kv": partial(make_klein, "Flux2KleinKVPipeline"),
    "qwen": make_qwen,
    "qwen-plus": partial(make_qwen, "QwenImageEditPlusPipeline"),
}


@pytest.fixture(scope="module")
def edit_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Makes (once) and returns the folder of a tiny edit model."""
    known: dict[str, Path] = {}

    def make(kind: str) -> Path:
        if kind not in known:
            torch.manual_seed(5)
            pipeline = MAKERS[kind]()
            for name, network in pipeline.components.items():
                if isinstance(network, torch.nn.Module) and name in ("unet", "transformer", "vae"):
                    for parameter in network.parameters():  # some start at zero, and their answers would be gray
                        if parameter.dim() > 1 and not parameter.any():
                            torch.nn.init.normal_(parameter, std=0.02)
            folder = tmp_path_factory.mktemp(kind)
            pipeline.save_pretrained(folder)
            known[kind] = folder
        return known[kind]

    return make


def photo(height: int = 48, width: int = 64) -> np.ndarray:
    down, across = np.mgrid[0:height, 0:width]
    return np.clip(60 + 80 * across / width + 60 * down / height, 0, 255).astype(np.uint8)


def small_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Qwen's pipelines look at some thousand pixels in place of a million."""
    for name in ("pipeline_qwenimage_edit", "pipeline_qwenimage_edit_plus"):
        module = importlib.import_module(f"diffusers.pipelines.qwenimage.{name}")
        whole = module.calculate_dimensions
        monkeypatch.setattr(module, "calculate_dimensions", lambda area, ratio, whole=whole: whole(area / 256, ratio))


@pytest.mark.parametrize("kind", MAKERS)
def test_an_edit_model_colorizes(
    kind: str, edit_model: Callable[[str], Path], request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind.startswith("qwen"):
        request.getfixturevalue("colorizers_extra")
        small_sizes(monkeypatch)
    colorizer, gray = Colorizer.load(str(edit_model(kind)), device="cpu"), photo()
    options = ColorizeOptions(size_px=64, steps=2, seed=3)
    first, again = colorizer.colorize(gray, options), colorizer.colorize(gray, options)
    assert np.array_equal(first.rgb, again.rgb)
    other = colorizer.colorize(gray, ColorizeOptions(size_px=64, steps=2, seed=4))
    assert not np.array_equal(first.rgb, other.rgb)
    assert color.luma_drift(first.rgb, gray)[0] <= 1
    assert np.ptp(first.rgb.astype(int), axis=-1).max() > 3
    assert first.runtime == "torch"


def test_the_instruction_and_its_weights_reach_the_pipeline(edit_model: Callable[[str], Path]) -> None:
    colorizer, gray = Colorizer.load(str(edit_model("sdxl")), device="cpu"), photo()
    few: dict[str, Any] = {"size_px": 64, "steps": 2}
    plain = colorizer.colorize(gray, ColorizeOptions(**few)).rgb
    changes: list[dict[str, Any]] = [
        {"prompt": "blue"}, {"negative_prompt": "red"}, {"guidance_scale": 9.0}, {"image_guidance_scale": 5.0}
    ]  # fmt: skip
    for change in changes:
        result = colorizer.colorize(gray, ColorizeOptions(**few, **change))
        assert not np.array_equal(result.rgb, plain) and result.warnings == ()


def test_what_an_edit_model_does_not_follow_is_one_line(edit_model: Callable[[str], Path]) -> None:
    info = model_info(str(edit_model("klein")))
    assert (info.family, info.steps, info.size_px, info.words) == ("FLUX.2 klein", 4, 832, None)
    assert info.follows == {"prompt", "steps", "seed"} and "black and white photograph" in info.prompt
    options = info.resolve(ColorizeOptions(prompt="blue", guidance_scale=3.0, negative_prompt="red"))
    assert info.unfollowed(options) == (f"{info.name} does not follow negative prompt and guidance",)


def test_a_folder_may_have_defaults_of_its_own(edit_model: Callable[[str], Path], tmp_path: Path) -> None:
    folder = copied(edit_model("klein"), tmp_path)
    before = weights_hash(str(folder))
    (folder / "chromatune.json").write_text(json.dumps({"steps": 7, "license": "Apache-2.0"}))
    info = model_info(str(folder))
    assert (info.steps, info.license) == (7, "Apache-2.0") and weights_hash(str(folder)) != before
    (folder / "chromatune.json").write_text(json.dumps({"steps": "many"}))
    with pytest.raises(ModelError, match="chromatune.json has steps='many'"):
        model_info(str(folder))


def copied(source: Path, target: Path) -> Path:
    return Path(shutil.copytree(source, target / "model", dirs_exist_ok=True))


def changed(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


BAD: dict[str, tuple[Callable[[Path], Any], str]] = {
    "code of its own": (
        lambda folder: changed(folder / "model_index.json", transformer=["my_code", "Flux2Transformer2DModel"]),
        "gives 'transformer' as",
    ),
    "another class": (
        lambda folder: changed(folder / "model_index.json", text_encoder=["transformers", "RagModel"]),
        "gives 'text_encoder' as",
    ),
    "another part": (
        lambda folder: changed(folder / "model_index.json", safety=["transformers", "CLIPTextModel"]),
        "gives 'safety' as",
    ),
    "no part": (lambda folder: changed(folder / "model_index.json", vae=[None, None]), "names no vae"),
    "auto_map": (lambda folder: changed(folder / "text_encoder" / "config.json", auto_map={}), "code of its own"),
    "a kernel": (
        lambda folder: changed(folder / "text_encoder" / "config.json", _attn_implementation="some/body"),
        "code of its own",
    ),
    "deep": (lambda folder: changed(folder / "transformer" / "config.json", num_layers=10**9), "at most 512"),
    "a schedule": (
        lambda folder: changed(folder / "scheduler" / "scheduler_config.json", num_train_timesteps=10**12),
        "num_train_timesteps",
    ),
    "pickles": (
        lambda folder: (folder / "vae" / "diffusion_pytorch_model.safetensors").rename(folder / "vae" / "a.bin"),
        "has no safetensors weights",
    ),
    "cut short": (
        lambda folder: (folder / "vae" / "diffusion_pytorch_model.safetensors").write_bytes(b"\0" * 99),
        "vae/diffusion_pytorch_model.safetensors",
    ),
    "too wide": (
        lambda folder: changed(folder / "transformer" / "config.json", joint_attention_dim=10**9),
        "transformer cannot be loaded",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_edit_model_is_one_line(kind: str, edit_model: Callable[[str], Path], tmp_path: Path) -> None:
    folder = copied(edit_model("klein"), tmp_path)
    change, said = BAD[kind]
    change(folder)
    with pytest.raises(ModelError, match=said) as caught:
        Colorizer.load(str(folder), device="cpu")
    assert "\n" not in str(caught.value)


def test_an_edit_model_runs_by_torch_alone(edit_model: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OptionsError, match="only torch can run"):
        Colorizer.load(str(edit_model("klein")), runtime="onnx")
    monkeypatch.setattr("chromatune.pipeline.edit_backend.has_torch", lambda: False)
    with pytest.raises(MissingExtraError, match=r"chromatune\[torch\]"):
        Colorizer.load(str(edit_model("klein")))


@pytest.mark.parametrize(("free", "expected"), [(0, "offloaded"), (1 << 60, "moved")])
def test_a_gpu_without_room_gets_one_part_after_the_other(
    free: int, expected: str, edit_model: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Placed:
        """A pipeline that notes where it is put."""

        done = ""

        def __getattr__(self, name: str) -> torch.nn.Module:
            return torch.nn.Linear(1, 1)

        def to(self, device: torch.device) -> None:
            self.done = "moved"

        def enable_model_cpu_offload(self, device: torch.device) -> None:
            self.done = "offloaded"

    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 1 << 60))
    files, pipeline = find_model(str(edit_model("klein"))), Placed()
    assert isinstance(files, EditFiles)
    edit_backend._place(pipeline, files, torch.device("cuda"))
    assert pipeline.done == expected


def test_an_edit_model_is_no_pipeline_to_train_or_export(edit_model: Callable[[str], Path]) -> None:
    for kind in ("sdxl", "klein"):
        with pytest.raises(ModelError, match="an edit model, and those cannot be fine-tuned or exported"):
            load_pipeline(str(edit_model(kind)))


def test_all_parts_of_an_edit_model_are_fetched_and_no_more(
    edit_model: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    folder, wanted = copied(edit_model("kontext"), tmp_path), list[str]()
    shutil.copyfile(folder / "vae" / "diffusion_pytorch_model.safetensors", folder / "whole.safetensors")

    def snapshot_download(name: str, *, allow_patterns: list[str], ignore_patterns: Any = None) -> str:
        wanted.extend(allow_patterns)
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    files = find_model("some/body")
    assert isinstance(files, EditFiles) and files.name == "some/body"
    stored = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    fetched = {path for path in stored if any(fnmatch(path, pattern) for pattern in wanted)}
    assert set(stored) - fetched == {"whole.safetensors"}

"""A tiny random InstructPix2Pix pipeline that stands for a model where quality does not matter."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from chromatune.colorizer import Colorizer
from chromatune.errors import ModelError
from chromatune.options import ResolvedOptions
from chromatune.pipeline import BackendOutput, ModelInfo

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


@pytest.fixture(scope="module")
def mini() -> Colorizer:
    """The shipped colorizer by ONNX Runtime, opened once for a file of tests."""
    return Colorizer.load("mini", runtime="onnx")


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
def tiny_pipeline_dir(tiny_pipeline: TinyPipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the default tiny pipeline, with settings that make it quick."""
    folder = tmp_path_factory.mktemp("tiny") / "quick"
    shutil.copytree(tiny_pipeline(), folder)
    defaults = {"description": "tiny", "size_px": 32, "steps": 1, "guidance_scale": 1.0, "image_guidance_scale": 1.0}
    (folder / "chromatune.json").write_text(json.dumps(defaults))
    return folder


@pytest.fixture(scope="session")
def tiny_sdxl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny random InstructPix2Pix pipeline of Stable Diffusion XL."""
    import diffusers
    import torch
    from tests.conftest import make_kl, make_tokenizer
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    torch.manual_seed(7)
    tokenizer, folder = make_tokenizer(), tmp_path_factory.mktemp("sdxl")
    ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = CLIPTextConfig(vocab_size=len(tokenizer), projection_dim=16, **sizes, **ids)
    unet = diffusers.UNet2DConditionModel(
        sample_size=8, in_channels=8, block_out_channels=(16, 32), layers_per_block=1, norm_num_groups=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=32, attention_head_dim=(2, 4), use_linear_projection=True,
        addition_embed_type="text_time", addition_time_embed_dim=8, projection_class_embeddings_input_dim=6 * 8 + 16,
    )  # fmt: skip
    diffusers.StableDiffusionXLInstructPix2PixPipeline(
        vae=make_kl(), text_encoder=CLIPTextModel(config), text_encoder_2=CLIPTextModelWithProjection(config),
        tokenizer=tokenizer, tokenizer_2=make_tokenizer(), unet=unet,
        scheduler=diffusers.EulerDiscreteScheduler(beta_schedule="scaled_linear"),
    ).save_pretrained(folder)  # fmt: skip
    return folder


@pytest.fixture(scope="session")
def encoder_pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny pipeline with a tiny photo encoder whose projections are not zero."""
    import torch

    from chromatune.pipeline.photo_encoder import EFFICIENTNET_LITE0, PhotoEncoder, places_of

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


def graph(inputs: dict[str, list], outputs: dict[str, list], nodes: list, weights: dict[str, Any]) -> bytes:
    """An ONNX file of one graph; a weight may also be a tensor that is stored elsewhere."""
    from onnx import TensorProto, helper, numpy_helper

    kinds = {"input_ids": TensorProto.INT64}
    given = [
        helper.make_tensor_value_info(name, kinds.get(name, TensorProto.FLOAT), dims) for name, dims in inputs.items()
    ]
    answers = [helper.make_tensor_value_info(name, TensorProto.FLOAT, dims) for name, dims in outputs.items()]
    stored = [
        numpy_helper.from_array(weight, name) if isinstance(weight, np.ndarray) else weight
        for name, weight in weights.items()
    ]
    made = helper.make_graph(nodes, "graph", given, answers, stored)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10).SerializeToString()


@pytest.fixture(scope="session")
def colorizer(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The file of anyone's colorizer, violet.onnx: RGB 0..1 of any size ⇒ the same a and b everywhere, violet."""
    from onnx import helper

    path = tmp_path_factory.mktemp("models") / "violet.onnx"
    weights = {"weights": np.zeros((2, 3, 1, 1), np.float32), "bias": np.array([24, -30], np.float32)}
    node = helper.make_node("Conv", ["input", "weights", "bias"], ["output"])
    path.write_bytes(graph({"input": [1, 3, "h", "w"]}, {"output": [1, 2, "h", "w"]}, [node], weights))
    return str(path)


def stored_beside(folder: Path, key: str) -> Any:
    """A float32 tensor that points into the safetensors file of a part's folder."""
    from onnx import TensorProto

    from chromatune.pipeline.checks import read_header

    (path,) = folder.glob("*.safetensors")
    entry, start = read_header(path)[key], 8 + int.from_bytes(path.read_bytes()[:8], "little")
    first, last = entry["data_offsets"]
    tensor = TensorProto(name=key, dims=entry["shape"], data_type=TensorProto.FLOAT)
    tensor.data_location = TensorProto.EXTERNAL
    for name, value in (("location", path.name), ("offset", start + first), ("length", last - first)):
        tensor.external_data.add(key=name, value=str(value))
    return tensor


def write_graphs(folder: Path) -> None:
    """Graphs of a few operators each, with the inputs and outputs of a real model's, beside a tiny model's weights."""
    from onnx import helper

    rng = np.random.default_rng(9)

    def weight(*shape: int, scale: float = 0.2) -> np.ndarray:
        return (scale * rng.standard_normal(shape)).astype(np.float32)

    def node(kind: str, inputs: str, output: str, **attributes: Any) -> Any:
        return helper.make_node(kind, inputs.split(), [output], **attributes)

    encoder = json.loads((folder / "photo_encoder" / "config.json").read_text())
    sides, pixels = ["height", "width"], {"sample": ["batch", 3, "height", "width"]}
    residuals: dict[str, list[Any]] = {
        f"residual_{index}": ["batch", place[0], *sides] for index, place in enumerate(encoder["places"])
    }
    to_latents = node("Conv", "sample w", "latent_parameters", kernel_shape=[8, 8], strides=[8, 8])
    from_latents = node("ConvTranspose", "latent_sample w", "sample", kernel_shape=[8, 8], strides=[8, 8])
    unet = [node("Conv", "sample conv_in.weight", "x", pads=[1] * 4), node("Conv", "x w", "y", pads=[1] * 4)]
    unet += [node("ReduceMean", "encoder_hidden_states axes", "text", keepdims=0), node("Mul", "timestep small", "t")]
    unet += [node("ReduceMean", f"{name} all", f"{name}_mean") for name in residuals]
    parts = ["text_4d", "t", *(f"{name}_mean" for name in residuals)]
    unet += [node("Reshape", "text shape", "text_4d"), node("Sum", " ".join(["y", *parts]), "z")]
    unet += [node("Tanh", "z", "out_sample")]
    unet_inputs: dict[str, list[Any]] = {
        "sample": ["batch", 8, *sides], "timestep": [1], "encoder_hidden_states": ["batch", "tokens", 16]
    }  # fmt: skip
    constants = {"axes": np.array([1, 2]), "all": np.array([1, 2, 3]), "shape": np.array([-1, 1, 1, 1])}
    photo = []
    for index, (_, stride) in enumerate(encoder["places"]):
        pool = {"kernel_shape": [stride, stride], "strides": [stride, stride]}
        photo += [
            node("AveragePool", "sample", f"p{index}", **pool),
            node("Conv", f"p{index} w{index}", f"residual_{index}"),
        ]
    graphs = {
        "text_encoder": graph(
            {"input_ids": ["batch", 77]}, {"last_hidden_state": ["batch", 77, 16]},
            [node("Gather", "words input_ids", "last_hidden_state")], {"words": weight(60, 16, scale=1.0)},
        ),
        "vae_encoder": graph(
            pixels, {"latent_parameters": ["batch", 8, *sides]}, [to_latents], {"w": weight(8, 3, 8, 8)}
        ),
        "vae_decoder": graph(
            {"latent_sample": ["batch", 4, *sides]}, pixels, [from_latents], {"w": weight(4, 3, 8, 8)}
        ),
        "unet": graph(
            unet_inputs | residuals,
            {"out_sample": ["batch", 4, *sides]},
            unet,
            {"conv_in.weight": stored_beside(folder / "unet", "conv_in.weight"), "w": weight(4, 16, 3, 3)}
            | {"small": np.array([1e-3], np.float32)} | constants,
        ),
        "photo_encoder": graph(
            pixels, residuals, photo,
            {f"w{index}": weight(place[0], 3, 1, 1) for index, place in enumerate(encoder["places"])},
        ),
    }  # fmt: skip
    for part, data in graphs.items():
        (folder / part).mkdir(exist_ok=True)
        (folder / part / "model.onnx").write_bytes(data)


@pytest.fixture(scope="session")
def graph_pipeline(encoder_pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a model that ONNX Runtime runs: all parts are there, and its graphs are made by hand within no time.

    Its graphs are not those of its weights: torch gives other pictures. tests/pipeline/test_export.py has real ones.
    """
    folder = tmp_path_factory.mktemp("graphs") / "model"
    shutil.copytree(encoder_pipeline, folder)
    write_graphs(folder)
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


@dataclass
class ArithmeticPass:
    """A model pass without torch: blue exceeds red by 4 levels of 255 for each unit of the seed."""

    info: ModelInfo
    calls: list[tuple[ResolvedOptions, ...]] = field(default_factory=list)  # options of the photos of each call
    loads: list[tuple[str, str | None]] = field(default_factory=list)
    failure: BaseException | None = None
    multiple_px: int = 8
    batches: bool = True
    runtime: str = "arithmetic"
    concurrent: bool = True

    def open(
        self, model: str, *, device: str | None = None, runtime: str | None = None, workers: int = 1
    ) -> ArithmeticPass:
        """Stands for `chromatune.pipeline.load_backend`."""
        if model == "unknown":
            raise ModelError("unknown model 'unknown'; accepted: mini")
        self.loads.append((model, device))
        return self

    def warnings_of(self, options: ResolvedOptions) -> tuple[str, ...]:
        return ("the prompt is odd",) if options.prompt == "odd" else ()

    def features(self, grays: np.ndarray) -> None:
        """It has no photo encoder."""

    def __call__(
        self, grays: np.ndarray, options: Sequence[ResolvedOptions], with_features: bool = False
    ) -> BackendOutput:
        self.calls.append(tuple(options))
        if self.failure is not None:
            raise self.failure
        rgb = np.repeat(grays[..., None], 3, axis=-1)
        rgb[..., 2] += np.array([each.seed * 4 / 255 for each in options], np.float32)[:, None, None]
        return BackendOutput(rgb)


def make_engine() -> ArithmeticPass:
    info = ModelInfo(
        name="arithmetic", path=Path(), description="", size_px=32, steps=4, guidance_scale=1.0,
        image_guidance_scale=1.0, prompt="colorize", vivid=0.0, variant_steps=6,
    )  # fmt: skip
    return ArithmeticPass(info)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> ArithmeticPass:
    """The model pass that every model name but "unknown" opens."""
    fake = make_engine()
    monkeypatch.setattr("chromatune.colorizer.load_backend", fake.open)
    return fake


@pytest.fixture(scope="session")
def own_ray() -> Iterator[None]:
    """Ray on this machine for all tests of a run; its workers have the arithmetic model, on the device "arithmetic"."""
    ray = pytest.importorskip("ray")
    from chromatune.cluster import joined

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    engine = make_engine()

    def prepare() -> None:
        from chromatune import colorizer, pipeline

        own = pipeline.load_backend

        def load_backend(model: str, *, device: str | None = None, **given: Any) -> Any:
            return engine.open(model) if device == "arithmetic" else own(model, device=device, **given)

        setattr(colorizer, "load_backend", load_backend)  # noqa: B010 - for as long as the process lives

    with joined(None, cpus=16, prepare=prepare):
        yield


@pytest.fixture(scope="session")
def pids_of(own_ray) -> Callable[[str], list[int]]:
    """Numbers of the processes that this one has started and whose title has a word in it."""
    import psutil

    def find(word: str) -> list[int]:
        found = []
        for each in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):  # it may be gone by now
                if word in " ".join(each.cmdline()):
                    found.append(each.pid)
        return sorted(found)

    return find


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is also the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def put(folder: Path) -> Callable[..., Path]:
    """Writes a small gray photo under a name, and returns its path relative to the folder."""

    def write(name: str, *, mode: str = "L", level: int = 100) -> Path:
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        if mode == "I;16":
            Image.fromarray(np.full((6, 8), level * 257, np.uint16)).save(path)
        elif mode == "LA":
            Image.fromarray(np.dstack([np.full((6, 8), level, np.uint8), np.full((6, 8), 9, np.uint8)])).save(path)
        else:
            Image.fromarray(np.full((6, 8), level, np.uint8)).save(path)
        return path

    return write

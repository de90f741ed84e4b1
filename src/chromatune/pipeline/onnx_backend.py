"""The backend by ONNX Runtime: a model's graphs, opened, and run without torch; a first color within a second."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from chromatune.errors import ModelError, printable, shown
from chromatune.options import ResolvedOptions
from chromatune.pipeline import checks
from chromatune.pipeline.backend import BackendOutput, Features
from chromatune.pipeline.model_files import PHOTO_ENCODER, ModelFiles, ModelInfo, read_pipeline_info, ships_with_package
from chromatune.pipeline.onnx_checks import GRAPH_FILE, RESIDUAL, Shape, check_whole, residuals_of, signature_problem
from chromatune.pipeline.schedules import (
    branch_weights,
    combine_guidance,
    denoise,
    draw_noise,
    make_schedule,
    noise_generator,
)
from chromatune.pipeline.truncation import PromptTokenizer, prompt_warnings

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

FEATURES = "features_{}"  # output of the photo encoder, one for each stride in pixels
GRAPHS = ("text_encoder", "vae_encoder", "unet", "vae_decoder")  # folders; a photo encoder's where there is one
# Names that `--device` takes beside "cpu", and the execution provider of ONNX Runtime that each stands for.
PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "directml": "DmlExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
}
MOST_PROMPTS_KEPT = 256  # embeddings, the last used; 236 kB each of a full-size model
TELEMETRY_OFF = "ORT_DISABLE_TELEMETRY"  # an environment variable of ONNX Runtime


class Graph:
    """An opened graph: NumPy arrays in, NumPy arrays out."""

    def __init__(self, session: InferenceSession, admit: Callable[..., None] | None = None) -> None:
        """Hold an opened session; `admit` gets the name and shape of each input, and raises if they are too large."""
        self._session, self._admit = session, admit
        self._types = {each.name: _numpy_type(each.type) for each in session.get_inputs()}
        self.inputs = tuple(self._types)
        self.outputs = tuple(each.name for each in session.get_outputs())
        self.signature: tuple[dict[str, Shape], dict[str, Shape]] = (
            {each.name: each.shape for each in session.get_inputs()},
            {each.name: each.shape for each in session.get_outputs()},
        )

    def run(self, feeds: Mapping[str, np.ndarray], outputs: Sequence[str] | None = None) -> list[np.ndarray]:
        """Run the graph, and return the outputs named, or all; inputs are cast to the types that the graph declares.

        Raises:
            ValueError: the graph is a stranger's, and takes more than a part of a model does.
        """
        cast = {name: _cast(array, self._types[name]) for name, array in feeds.items()}
        if self._admit is not None:
            self._admit(*((name, array.shape) for name, array in cast.items()))
        return self._session.run(outputs, cast)


@dataclass(frozen=True)
class OnnxPipeline:
    """An opened model; nothing in it changes after loading."""

    info: ModelInfo
    tokenizer: PromptTokenizer
    text_encoder: Graph
    vae_encoder: Graph
    unet: Graph
    vae_decoder: Graph
    photo_encoder: Graph | None
    scheduler: tuple[str, dict[str, Any]]  # class and settings
    scaling_factor: float  # of latents
    multiple_px: int  # sides of the model's pass are multiples of this
    device: str


def graphs_of(files: ModelFiles) -> list[str]:
    """Return the folders of the graphs that a model takes."""
    return [*GRAPHS, *([PHOTO_ENCODER] if (files.pipeline_folder / PHOTO_ENCODER).is_dir() else [])]


def load_onnx_pipeline(files: ModelFiles, *, device: str = "cpu", workers: int = 1) -> OnnxPipeline:
    """Open the model in `files` by ONNX Runtime.

    Args:
        files: see `find_pipeline`; with all graphs, see `runtimes.onnx_problem`.
        device: a name of `PROVIDERS`.
        workers: calls that will run at the same time; the threads are shared out among them. Numbers are the same
            whatever the number of threads.

    Raises:
        ModelError: a file is damaged, missing, or no part of an InstructPix2Pix model, or ONNX Runtime has no such
            device here.
    """
    provider, folder = provider_of(device), files.pipeline_folder
    classes = _checked_classes(files)
    unet = checks.UNetConfig.model_validate(checks.read_json(folder / "unet" / "config.json"))
    text = checks.TextConfig.model_validate(checks.read_json(folder / "text_encoder" / "config.json"))
    vae_config = checks.read_json(folder / "vae" / "config.json")
    tiny = classes["vae"] == "AutoencoderTiny"
    vae = checks.TinyConfig.model_validate(vae_config) if tiny else checks.KlConfig.model_validate(vae_config)
    try:
        tokenizer = PromptTokenizer.read(folder / "tokenizer")
    except ValueError as error:
        raise ModelError(f"{files.name}: tokenizer/{printable(str(error))}; {checks.AGAIN}") from None
    if problem := checks.fit_problem(text, unet, length=tokenizer.length, words=tokenizer.words):
        raise ModelError(f"{files.name}: {problem}; {checks.AGAIN}, or give another")
    halvings = len(vae.widths) - 1
    admits = _checked_graphs(files, tokenizer.length, 2**halvings)
    share = max(1, threads() // workers)
    opened = {part: _open(files, part, provider, share, admits[part]) for part in graphs_of(files)}
    if misfit := signature_problem({name: part.signature for name, part in opened.items()}):
        raise ModelError(f"{files.name}: {misfit[0]}/{GRAPH_FILE} {misfit[1]}; {checks.AGAIN}, or give another")
    return OnnxPipeline(
        info=read_pipeline_info(files),
        tokenizer=tokenizer,
        photo_encoder=opened.pop(PHOTO_ENCODER, None),
        scheduler=(classes["scheduler"], checks.read_json(folder / "scheduler" / "scheduler_config.json")),
        scaling_factor=vae.scaling_factor,
        multiple_px=2 ** (halvings + len(unet.block_out_channels) - 1),  # a level less one halves
        device=device,
        **opened,
    )


def quiet_onnxruntime() -> ModuleType:
    """Import ONNX Runtime without its telemetry: nothing leaves this machine.

    Since 1.29 its wheels report each session to its maker unless the environment forbids it before it is loaded; they
    also write to the temporary and the cache folder then.
    """
    os.environ[TELEMETRY_OFF] = "1"
    import onnxruntime

    onnxruntime.disable_telemetry_events()  # for programs that had loaded it before
    return onnxruntime


def threads() -> int:
    """Return the number of threads of a pass: OMP_NUM_THREADS, as torch has it, else this process's cores."""
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    if wanted.isdecimal() and int(wanted) > 0:
        return int(wanted)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class OnnxBackend:
    """Opened ONNX parts as a `Backend`."""

    runtime = "onnx"

    def __init__(self, pipeline: OnnxPipeline) -> None:
        self.pipeline, self.info, self.multiple_px = pipeline, pipeline.info, pipeline.multiple_px
        self.concurrent = pipeline.device == "cpu"  # each call with its share of the threads
        self.batches = not self.concurrent
        self._embed = lru_cache(MOST_PROMPTS_KEPT)(partial(_embedding, pipeline.tokenizer, pipeline.text_encoder))
        if problem := _sampling_problem(*pipeline.scheduler):
            raise ModelError(f"{self.info.name}: {problem}; download the model again, or give another")

    def warnings_of(self, options: ResolvedOptions) -> tuple[str, ...]:
        """Return a line on what is left out of the instructions, and one for each that is too long to be read."""
        return prompt_warnings(options, self.info, self.pipeline.tokenizer)

    def features(self, grays: np.ndarray) -> Features | None:
        """Return the photo encoder's features; see `Backend.features`.

        Raises:
            ModelError: a stranger's encoder takes too much for photos of that size.
        """
        try:
            return features_of(self._encode(rgb_pixels(grays), FEATURES))
        except ValueError as error:
            raise ModelError(f"{self.info.name} cannot be used ({error}); give another model") from None

    def __call__(
        self, grays: np.ndarray, options: Sequence[ResolvedOptions], with_features: bool = False
    ) -> BackendOutput:
        """Return the model's own RGB, and the features; see `Backend`.

        Raises:
            ModelError: the model gives values that are not numbers, or a part does not fit the others.
        """
        parts = self.pipeline
        try:
            pixels = rgb_pixels(grays)
            encoded = self._encode(pixels, RESIDUAL, *([FEATURES] if with_features else []))
            moments = parts.vae_encoder.run(dict.fromkeys(parts.vae_encoder.inputs, pixels * 2 - 1))[0]
            condition = moments[:, :4]  # the posterior's mode is its mean, which comes first
            latents = self._sample(condition, residuals_of(encoded), options)
            scaled = {parts.vae_decoder.inputs[0]: latents / np.float32(parts.scaling_factor)}
            decoded = parts.vae_decoder.run(scaled)[0].astype(np.float32)
            rgb = np.clip(decoded / 2 + np.float32(0.5), 0, 1)  # (B, 3, h, w)
        except Exception as error:  # what the library raises on parts that do not fit is of any kind
            if "memory" in str(error).lower() or "alloc" in str(error).lower():  # nothing is wrong with the model
                raise MemoryError("not enough memory for the model's pass") from error
            reason = checks.reason_of(error)
            raise ModelError(f"{self.info.name} cannot be used ({reason}); give another model") from error
        if not np.isfinite(rgb).all():
            raise ModelError(f"{self.info.name} returned NaN or infinite values; try another seed")
        if rgb.shape != (len(grays), 3, *grays.shape[1:]):
            raise ModelError(f"{self.info.name} returned an output of shape {rgb.shape}; choose another model")
        features = features_of(encoded) if with_features else None
        return BackendOutput(np.ascontiguousarray(rgb.transpose(0, 2, 3, 1)), features)

    def _sample(
        self, condition: np.ndarray, residuals: dict[str, np.ndarray], options: Sequence[ResolvedOptions]
    ) -> np.ndarray:
        """Sample color latents (B, 4, h, w), scaled, for condition latents of the same shape, as by torch."""
        first, (class_name, config) = self.info.read(options[0])[0], self.pipeline.scheduler
        schedule = make_schedule(class_name, config, first.steps)
        assert schedule is not None  # it was known when the model was opened
        generators = [noise_generator(each.seed) for each in options]
        weights = branch_weights(first.guidance_scale, first.image_guidance_scale)
        prompt, negative = self._embed(first.prompt), self._embed(first.negative_prompt)
        texts = {"text+image": prompt, "image": negative, "none": negative}
        count, no_photo = len(condition), [branch == "none" for branch in weights]
        stacked_texts = np.concatenate([np.repeat(texts[branch], count, axis=0) for branch in weights])
        stacked_images = _for_branches(condition, no_photo)  # (K B, 4, h, w)
        stacked_residuals = {name: _for_branches(each, no_photo) for name, each in residuals.items()}

        def predict(latents: np.ndarray, timestep: float) -> np.ndarray:
            noisy = np.concatenate([np.tile(latents, (len(weights), 1, 1, 1)), stacked_images], axis=1)
            feeds = {"sample": noisy, "timestep": np.array([timestep]), "encoder_hidden_states": stacked_texts}
            predictions = self.pipeline.unet.run(feeds | stacked_residuals)[0].astype(np.float32, copy=False)
            return np.asarray(combine_guidance(weights, np.split(predictions, len(weights))))

        return np.asarray(denoise(schedule, lambda: draw_noise(generators, condition.shape[1:]), predict))

    def _encode(self, pixels: np.ndarray, *kinds: str) -> dict[str, np.ndarray]:
        """Run the photo encoder: (B, C, h, w) by output, of the kinds named; nothing without a photo encoder."""
        encoder = self.pipeline.photo_encoder
        prefixes = tuple(kind.format("") for kind in kinds)
        names = [name for name in encoder.outputs if name.startswith(prefixes)] if encoder is not None else []
        if encoder is None or not names:  # ONNX Runtime takes no names for all of them
            return {}
        return dict(zip(names, encoder.run({encoder.inputs[0]: pixels}, names), strict=True))


def _embedding(tokenizer: PromptTokenizer, encoder: Graph, prompt: str) -> np.ndarray:
    """Return the (1, 77, C) embedding of a prompt."""
    return encoder.run({encoder.inputs[0]: tokenizer.ids([prompt])}, encoder.outputs[:1])[0]


def provider_of(device: str) -> str:
    """Return ONNX Runtime's name of a device.

    Raises:
        ModelError: it is unknown, or not there.
    """
    onnxruntime = quiet_onnxruntime()
    if device not in PROVIDERS:
        raise ModelError(f"device {shown(device)} is not known to ONNX Runtime; accepted: {', '.join(PROVIDERS)}")
    available = onnxruntime.get_available_providers()
    if PROVIDERS[device] not in available:
        here = ", ".join(name for name, provider in PROVIDERS.items() if provider in available)
        raise ModelError(
            f"this ONNX Runtime does not support {device}, only {here}; install the onnxruntime package for {device}"
        )
    return PROVIDERS[device]


def _checked_graphs(files: ModelFiles, tokens: int, latent_px: int) -> dict[str, Callable[..., None] | None]:
    """Check the graphs of a model; return for each what checks the sizes of its passes, None for a shipped model."""
    folder, parts = files.pipeline_folder, graphs_of(files)
    try:
        if ships_with_package(folder):
            for part in parts:
                check_whole(folder / part / GRAPH_FILE)
            return dict.fromkeys(parts)
        from chromatune.pipeline.onnx_budget import check_parts

        for part in parts:
            checks.check_files(files.name, folder / part)
        size_px = read_pipeline_info(files).size_px
        return {**check_parts(folder, parts, tokens=tokens, side_px=size_px, latent_px=latent_px)}
    except ValueError as error:
        raise ModelError(f"{files.name}: {error}; {checks.AGAIN}, or give another") from None


def _open(files: ModelFiles, part: str, provider: str, intra_threads: int, admit: Callable[..., None] | None) -> Graph:
    try:
        return Graph(open_session(files.pipeline_folder / part / GRAPH_FILE, provider, intra_threads), admit)
    except Exception as error:  # what the library raises on a damaged graph is of any kind
        raise ModelError(f"{files.name}: {part}/{GRAPH_FILE} cannot be opened: {checks.reason_of(error)}") from error


def open_session(path: Path, provider: str, intra_threads: int) -> InferenceSession:
    """Open a graph that was checked; what ONNX Runtime raises on a damaged one is of any kind."""
    onnxruntime = quiet_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what is wrong is raised, too, and shown once
    options.intra_op_num_threads = intra_threads
    options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = False  # it keeps what the largest photo took, and gains no time
    # Threads may wait for the next operator by spinning, but not between passes: OpenCV and Pillow need the cores then
    options.add_session_config_entry("session.force_spinning_stop", "1")
    alone = provider == PROVIDERS["cpu"]
    providers = [provider] if alone else [provider, PROVIDERS["cpu"]]
    # Where there is nothing else to fall back to, it would print what is wrong, and try the same once more
    return onnxruntime.InferenceSession(path, options, providers=providers, enable_fallback=int(not alone))


def _cast(array: np.ndarray, dtype: type) -> np.ndarray:
    return np.ascontiguousarray(np.rint(array) if dtype is np.uint8 else array, dtype)


def _numpy_type(onnx_type: str) -> type:
    """Return the NumPy type of "tensor(float16)" and the like.

    Raises:
        ValueError: a part of a model takes no such thing.
    """
    known = {
        "float": np.float32, "float16": np.float16, "double": np.float64,
        "int64": np.int64, "int32": np.int32, "uint8": np.uint8,
    }  # fmt: skip
    name = onnx_type.removeprefix("tensor(").removesuffix(")")
    if name not in known:
        raise ValueError(f"has an input of the type {onnx_type}")
    return known[name]


def _checked_classes(files: ModelFiles) -> dict[str, str]:
    """Return the class of each part, after its settings and the headers of its weights were checked."""
    classes = {part: checks.part_class(files.name, files.index, part)[1] for part in checks.CLASSES}
    if (files.pipeline_folder / PHOTO_ENCODER).is_dir():
        classes[PHOTO_ENCODER] = "PhotoEncoder"
    for part, class_name in classes.items():
        checks.check_part(files.name, files.pipeline_folder / part, part, class_name)
    return classes


def _sampling_problem(class_name: str, config: Mapping[str, Any]) -> str:
    """Return why no step can be taken over a schedule; empty if one can: senseless settings show only then."""
    try:
        schedule = make_schedule(class_name, config, min(2, config.get("num_train_timesteps", 2)))
        if schedule is None:
            return f"its scheduler {class_name} needs torch"
        latents = denoise(schedule, lambda: np.ones((1, 4, 2, 2), np.float32), lambda noisy, _: noisy)
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        return f"its scheduler cannot be sampled ({checks.reason_of(error)})"
    return "" if np.isfinite(latents).all() else "its scheduler gives values that are not numbers"


def rgb_pixels(grays: np.ndarray) -> np.ndarray:
    """(B, h, w) float32 luma 0..1 -> (B, 3, h, w), the same."""
    return np.repeat(grays[:, None], 3, axis=1)


def features_of(encoded: Mapping[str, np.ndarray]) -> Features | None:
    """Return the features among the photo encoder's outputs, by stride."""
    prefix = FEATURES.format("")
    return {int(key.removeprefix(prefix)): each for key, each in encoded.items() if key.startswith(prefix)} or None


def _for_branches(array: np.ndarray, no_photo: Sequence[bool]) -> np.ndarray:
    """(B, C, h, w) -> (K B, C, h, w): zeros in a branch that has no photo."""
    return np.concatenate([np.zeros_like(array) if zero else array for zero in no_photo])

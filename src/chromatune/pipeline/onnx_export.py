"""A model ⇒ a folder that ONNX Runtime runs without torch and the stock pipeline still opens, checked against torch.

The graphs lie beside the weights in the layout of Optimum: `unet/model.onnx`, `vae_encoder/model.onnx`. A graph stores
no weights that its folder has already: its tensors point into the safetensors file beside it by offset and length, and
are cast to float32 when a session is opened. An autoencoder is two graphs in folders of their own, so its weights are
stored once more, in half precision.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from chromatune.errors import MissingExtraError, ModelError, printable
from chromatune.files import read_regular
from chromatune.options import ColorizeOptions, StartStage, silent
from chromatune.pipeline.checks import read_header
from chromatune.pipeline.loading import Pipeline, load_pipeline, quiet_libraries
from chromatune.pipeline.model_files import ModelInfo, find_pipeline
from chromatune.pipeline.onnx_backend import FEATURES, GRAPHS, OnnxBackend, load_onnx_pipeline
from chromatune.pipeline.onnx_checks import GRAPH_FILE, RESIDUAL
from chromatune.pipeline.photo_encoder import places_of, unet_arguments
from chromatune.pipeline.runtimes import onnx_problem, scheduler_problem
from chromatune.pipeline.saving import CARD_FILE, save_pipeline
from chromatune.pipeline.torch_backend import TorchBackend
from chromatune.pipeline.training_data import read_training_data

if TYPE_CHECKING:
    import onnx_ir

TRIAL_STEPS = 2
LARGEST_CARD_BYTES = 4 << 20
MOST_APART = 4 / 255  # of sRGB 0..1; half precision alone moves it by a tenth of that
DEFAULTS = (
    "description", "size_px", "steps", "variant_steps", "guidance_scale", "image_guidance_scale", "prompt",
    "vivid", "words", "label",
)  # fmt: skip
OPSET = 20  # the first with Gelu as one operator
PREFIX = "part."  # of parameters' names: `_Wrapped` calls what it holds so
EXAMPLE_MULTIPLES = (3, 5)  # height and width of the traced pass, in the smallest sides that the model can halve


def export_onnx(model: str, out: Path, *, start_stage: StartStage = silent) -> float:
    """Write a model in half precision with ONNX graphs beside its weights; LoRAs are merged into it.

    Args:
        model: see `load_pipeline`.
        out: the folder; a model that is there is replaced when the new one is complete and on the disk.
        start_stage: called with the number of graphs, for progress.

    Returns:
        The largest difference between torch with the model as it is and ONNX Runtime with what was written, of sRGB
        0..1 before recomposition, in a short trial.

    Raises:
        ModelError: the model cannot be opened, has a scheduler that takes torch, or came out another one; or the folder
            holds something that is not a model, or cannot be written.
        MissingExtraError: onnx or onnxscript is not installed.
    """
    files = find_pipeline(model)
    title = printable(files.path.name if Path(model).expanduser().is_dir() else model)
    if problem := scheduler_problem(files):  # before minutes are spent on what would not run
        raise ModelError(f"{model} {problem}; export it with a DDIM or Euler scheduler")
    pipeline = load_pipeline(model, device="cpu")
    card = files.path / CARD_FILE
    text = _card_text(card) or f"# {title}\n"
    defaults, seen = defaults_of(pipeline.info), read_training_data(model)
    if pipeline.info.description == str(files.path):  # it has none of its own, and where it lay means nothing elsewhere
        defaults["description"] = title
    apart = 0.0

    def complete(folder: Path) -> None:
        nonlocal apart
        write_graphs(folder, start_stage)
        if problem := onnx_problem(find_pipeline(str(folder))):
            raise ModelError(f"{model} {problem}; nothing was written")
        apart = largest_difference(pipeline, folder)
        if not apart <= MOST_APART:
            raise ModelError(
                f"{model}: the export differs from torch by {255 * apart:.1f} of 255 levels; nothing was written"
            )

    with quiet_libraries():
        save_pipeline(_halved(pipeline), out, card=text, defaults=defaults, seen=seen, complete=complete)
    return apart


def _card_text(card: Path) -> str:
    with contextlib.suppress(OSError):  # it is missing, or nothing that anybody would read
        return read_regular(card, LARGEST_CARD_BYTES).decode(errors="replace")
    return ""


def write_graphs(folder: Path, start_stage: StartStage = silent) -> None:
    """Add ONNX graphs to a pipeline folder that nobody else reads yet, beside the weights that they read.

    Raises:
        MissingExtraError: onnx or onnxscript is not installed.
        OSError: a file cannot be written.
    """
    pipeline = load_pipeline(str(folder), device="cpu")
    advance = start_stage("exporting", len(GRAPHS) + (pipeline.photo_encoder is not None))
    try:
        import onnx_ir  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError:
        raise MissingExtraError("exporting to ONNX", "export") from None
    _fuse_attention(pipeline.unet)
    for graph in _graphs(pipeline):
        (folder / graph.folder).mkdir(exist_ok=True)
        _write(_trace(graph), folder / graph.folder)
        advance()
    for part in ("vae_encoder", "vae_decoder"):  # Optimum reads the settings there
        (folder / part / "config.json").write_bytes((folder / "vae" / "config.json").read_bytes())


def largest_difference(pipeline: Pipeline, folder: Path) -> float:
    """Return how far torch and ONNX Runtime with a folder's graphs are apart, of sRGB 0..1, in a short trial."""
    by_torch = TorchBackend(pipeline)
    by_onnx = OnnxBackend(load_onnx_pipeline(find_pipeline(str(folder))))
    side = by_torch.multiple_px * max(2, 128 // by_torch.multiple_px)
    down, across = np.mgrid[0 : side + by_torch.multiple_px, 0:side].astype(np.float32) / side
    grays = (0.5 + 0.3 * np.sin(20 * down * across) + 0.2 * np.cos(13 * across))[None].astype(np.float32)
    options = [pipeline.info.resolve(ColorizeOptions(steps=TRIAL_STEPS))]
    return float(np.abs(by_torch(grays, options).rgb - by_onnx(grays, options).rgb).max())


def defaults_of(info: ModelInfo) -> dict[str, Any]:
    """Return the contents of a model's `chromatune.json`."""
    values = {name: getattr(info, name) for name in DEFAULTS}
    return {name: value for name, value in values.items() if value is not None}


def _halved(pipeline: Pipeline) -> Pipeline:
    """Return a copy with the weights that are stored in half precision in it: all but the text encoder's."""

    def half(part: Any) -> Any:
        return copy.deepcopy(part).to(torch.float16, memory_format=torch.contiguous_format)

    encoder = pipeline.photo_encoder
    halved = None if encoder is None else half(encoder)
    return replace(pipeline, vae=half(pipeline.vae), unet=half(pipeline.unet), photo_encoder=halved)


@dataclass(frozen=True)
class _Graph:
    """A graph to be exported."""

    folder: str
    module: nn.Module  # its parameters are named as in the safetensors file, after `PREFIX`
    arguments: tuple[Any, ...]
    inputs: dict[str, Any]  # name: dimensions that vary, by their index; in the order of the arguments
    outputs: list[str]


def _graphs(pipeline: Pipeline) -> Iterator[_Graph]:
    multiple, batch = pipeline.multiple_px, 2
    height, width = (multiple * each for each in EXAMPLE_MULTIPLES)
    h, w = height // pipeline.vae_factor, width // pipeline.vae_factor
    picture = torch.rand(batch, 3, height, width)
    varies = {0: "batch", 2: "height", 3: "width"}
    tokens = torch.zeros(batch, pipeline.tokenizer.model_max_length, dtype=torch.int64)
    yield _Graph(
        "text_encoder", _Text(pipeline.text_encoder), (tokens,),
        {"input_ids": {0: "batch"}}, ["last_hidden_state"],
    )  # fmt: skip
    yield _Graph("vae_encoder", _Encoder(pipeline.vae), (picture,), {"sample": varies}, ["latent_parameters"])
    latents = torch.randn(batch, 4, h, w)
    yield _Graph("vae_decoder", _Decoder(pipeline.vae), (latents,), {"latent_sample": varies}, ["sample"])
    text = torch.randn(batch, tokens.shape[1], pipeline.text_encoder.config.hidden_size)
    arguments: tuple[Any, ...] = (torch.randn(batch, 8, h, w), torch.full((1,), 500.0), text)
    inputs: dict[str, Any] = {"sample": varies, "timestep": None, "encoder_hidden_states": {0: "batch", 1: "tokens"}}
    residuals: list[torch.Tensor] = []
    if pipeline.photo_encoder is not None:
        places = [(channels, 8 * stride // pipeline.vae_factor) for channels, stride in places_of(pipeline.unet)]
        residuals = [torch.randn(batch, channels, height // stride, width // stride) for channels, stride in places]
    names = [RESIDUAL.format(index) for index in range(len(residuals))]
    yield _Graph(
        "unet",
        _UNet(pipeline.unet),
        (*arguments, *residuals),
        inputs | dict.fromkeys(names, varies),
        ["out_sample"],
    )
    if pipeline.photo_encoder is not None:
        features = [FEATURES.format(stride) for stride in pipeline.photo_encoder.features(picture)]
        yield _Graph(
            "photo_encoder", _Photo(pipeline.photo_encoder), (picture,), {"sample": varies}, [*names, *features]
        )


class _Wrapped(nn.Module):
    """A part, called as a graph is: tensors in, tensors out."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part: Any = part


class _Text(_Wrapped):
    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        return self.part(input_ids)[0]


class _Encoder(_Wrapped):
    def forward(self, sample: torch.Tensor) -> torch.Tensor:
        encoded = self.part.encode(sample)
        return encoded.latents if hasattr(encoded, "latents") else encoded.latent_dist.parameters


class _Decoder(_Wrapped):
    def forward(self, latent_sample: torch.Tensor) -> torch.Tensor:
        return self.part.decode(latent_sample).sample


class _UNet(_Wrapped):
    def forward(
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        *residuals: torch.Tensor,
    ) -> torch.Tensor:
        extra = unet_arguments(residuals or None)
        return self.part(sample, timestep, encoder_hidden_states, **extra, return_dict=False)[0]


class _FusedAttention:
    """Attention of a diffusers U-Net as one operator of ONNX Runtime's own, in place of the usual processor.

    Written out it is a softmax over (tokens × tokens) in memory; the operator works on blocks that fit a core's cache.
    """

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        temb: torch.Tensor | None = None,
    ) -> torch.Tensor:
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query, key, value = attn.to_q(hidden_states), attn.to_k(context), attn.to_v(context)
        attended = torch.onnx.ops.symbolic(
            "com.microsoft::MultiHeadAttention",
            (query, key, value),
            attrs={"num_heads": attn.heads, "scale": float(attn.scale)},
            dtype=query.dtype,
            shape=query.shape,
            version=1,
        )
        return attn.to_out[1](attn.to_out[0](attended))


def _fuse_attention(unet: Any) -> None:
    """Set `_FusedAttention` where attention is nothing more: projections, heads, and a projection back."""
    processors = dict(unet.attn_processors)
    for name, module in unet.named_modules():
        if f"{name}.processor" not in processors:
            continue
        plain = not any(
            getattr(module, part, None)
            for part in ("group_norm", "spatial_norm", "norm_cross", "norm_q", "norm_k", "residual_connection")
        )
        if plain and module.rescale_output_factor == 1.0:
            processors[f"{name}.processor"] = _FusedAttention()
    unet.set_attn_processor(processors)


class _Photo(_Wrapped):
    def forward(self, sample: torch.Tensor) -> tuple[torch.Tensor, ...]:
        features = self.part.features(sample)
        return (*self.part.residuals(features), *features.values())


def _trace(graph: _Graph) -> onnx_ir.Model:
    import onnx_ir.passes.common as passes
    from onnxscript.optimizer import fold_constants

    dynamic = [
        None if dims is None else dict.fromkeys(dims, torch.export.Dim.DYNAMIC) for dims in graph.inputs.values()
    ]
    shapes: Any = tuple(dynamic[: len(graph.arguments)])
    if dynamic[3:]:  # residuals are one argument of variable length
        shapes = (*dynamic[:3], tuple(dynamic[3:]))
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            graph.module.eval(),
            graph.arguments,
            input_names=list(graph.inputs),
            output_names=graph.outputs,
            dynamic_shapes=shapes,
            opset_version=OPSET,
            dynamo=True,
            optimize=False,
            verbose=False,
        )
        assert program is not None  # only without `dynamo`
        passes.InlinePass()(program.model)
        # Weights stay as they are stored: one that is turned over, or joined with a normalization, would be stored once
        # more, and a session does that when it is opened.
        fold_constants(program.model, should_fold=lambda node: False if node.op_type == "Transpose" else None)
        for tidy in (
            passes.RemoveUnusedNodesPass(), passes.RemoveUnusedFunctionsPass(), passes.RemoveUnusedOpsetsPass(),
            passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
            passes.DeduplicateInitializersPass(), passes.CommonSubexpressionEliminationPass(), passes.NameFixPass(),
        ):  # fmt: skip
            tidy(program.model)
    return program.model


def _write(model: onnx_ir.Model, folder: Path) -> None:
    """Store a graph, its weights pointing into the folder's safetensors file, or inside in half precision."""
    import onnx_ir as ir

    weights = next(iter(sorted(folder.glob("*.safetensors"))), None)
    header = {} if weights is None else read_header(weights)
    # Weights lie at the file's end, and the header says how long they are together
    ends = [entry["data_offsets"][1] for key, entry in header.items() if key != "__metadata__"]
    start = 0 if weights is None else weights.stat().st_size - max(ends)
    for name, value in list(model.graph.initializers.items()):
        key = name.removeprefix(PREFIX)
        entry, tensor = header.get(key), value.const_value
        assert tensor is not None
        shape = list(tensor.numpy().shape)
        if entry is not None and entry["shape"] == shape:
            first, last = entry["data_offsets"]
            kind = {"F32": ir.DataType.FLOAT, "F16": ir.DataType.FLOAT16}[entry["dtype"]]
            assert weights is not None
            stored: Any = ir.ExternalTensor(
                weights.name,
                start + first,
                last - first,
                kind,
                shape=ir.Shape(shape),
                name=name,
                base_dir=folder,
            )
        elif name.startswith(PREFIX) and weights is None:
            stored = ir.tensor(tensor.numpy().astype("float16"), name=name)
        else:
            continue  # a constant of the graph
        _cast(model, value, stored)
    for value in (*model.graph.inputs, *model.graph.outputs):
        value.metadata_props.clear()
    for node in model.graph:  # where in the libraries each operator came from: longer than all the rest
        node.metadata_props.clear()
        node.doc_string = None
    model.metadata_props.clear()
    ir.save(model, folder / GRAPH_FILE)


def _cast(model: onnx_ir.Model, value: onnx_ir.Value, stored: Any) -> None:
    """Replace a weight by one stored elsewhere, cast to float32 where it is not stored so."""
    import onnx_ir as ir

    if stored.dtype == ir.DataType.FLOAT:
        value.const_value = stored
        return
    name = str(value.name)
    del model.graph.initializers[name]
    half = ir.Value(name=f"{name}_fp16", shape=stored.shape, type=ir.TensorType(stored.dtype), const_value=stored)
    stored.name = half.name
    model.graph.register_initializer(half)
    node = ir.node("Cast", [half], attributes={"to": int(ir.DataType.FLOAT)})
    node.outputs[0].name = name
    ir.convenience.replace_all_uses_with(value, node.outputs[0])
    model.graph.insert_before(model.graph[0], node)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter: its progress, operators of libraries that are missing, deprecations."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "torch.export")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)

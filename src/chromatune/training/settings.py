"""Settings of a fine-tuning run: one frozen definition, presets as a table, overrides over them."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from chromatune.errors import OptionsError
from chromatune.files import read_regular
from chromatune.options import options_error

Parts = Literal["unet", "unet-attention", "lora", "unet+vae-decoder", "unet+text-encoder", "all"]
Adapter = Literal["lora", "dora", "lokr"]
PARTS: tuple[str, ...] = get_args(Parts)
LARGEST_CONFIG_BYTES = 1 << 20
FORMER_NAMES = {"grey": "gray"}  # of settings, in version 0.1; accepted for one version more
# Newer than a run that goes on: name, and whether it changes nothing there, so that the default may be filled in.
ADDED_SETTINGS: dict[str, Callable[[Mapping[str, Any]], bool]] = {
    "loss_weights_lr": lambda settings: settings.get("lab_weighting") != "learned",
    **dict.fromkeys(("scheduler", "sampling_steps", "guidance_scale", "image_guidance_scale"), lambda settings: True),
    **dict.fromkeys(("aspect", "cache", "shuffle_buffer"), lambda settings: True),
    **dict.fromkeys(("keep", "background_checkpoints", "optimizer", "ema_on_cpu"), lambda settings: True),
    **dict.fromkeys(("frozen_precision", "tf32", "compile", "sharding", "adapter"), lambda settings: True),
    "checkpoint_minutes": lambda settings: True,
}
LARGE_MODEL = 100_000_000  # parameters of a U-Net; presets have values of their own for those with more
LAYOUT = ("ranks", "batch", "accumulation")  # how many pairs make up an update, and on how many processes
INTERVALS = (
    "log_every", "validate_every", "checkpoint_every", "checkpoint_minutes", "keep", "background_checkpoints",
)  # fmt: skip
COMPUTING = ("gradient_checkpointing", "ema_on_cpu", "tf32", "compile", "sharding")  # how the same numbers are computed
MAY_CHANGE = ("max_steps", *LAYOUT, *INTERVALS, *COMPUTING)  # where a run goes on


class TrainSettings(BaseModel):
    """How to fine-tune; every field can be overridden by `--set NAME=VALUE` or in a TOML file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    description: str = ""
    parts: Parts = Field(default="unet", description="What is trained; the rest stays bit-identical.")
    lora_rank: int = Field(default=8, ge=1, le=1024)
    adapter: Adapter = Field(default="lora", description="Of parts=lora; dora and lokr are merged into the result.")
    # Data
    photos: int | None = Field(
        default=None, ge=2, description="Train on at most this many photos, lowest key hash first."
    )
    size_px: int | None = Field(default=None, ge=32, le=2048, description="Side of the squares; None: the model's own.")
    size_scale: float = Field(
        default=1.0, gt=0, le=1, description="Share of the model's own size, where size_px is None."
    )
    validation: float = Field(default=0.1, gt=0, lt=1, description="Share of photos (persons, where known) held out.")
    prompts: str = Field(
        default="auto",
        description="auto: the photos' own where they have any, else thirty; source: their own; single; held-out; or a "
        "text file, one prompt a line.",
    )
    gray: str = Field(default="varied", description="varied, or a gray method such as rec601.")
    aspect: Literal["square", "buckets"] = Field(
        default="square",
        description="square, or buckets: the nearest of some aspect ratios from 1:4 to 4:1, so that a tenth of a photo "
        "is cut at most; each batch is of one.",
    )
    zoom: float = Field(default=0.8, gt=0, le=1, description="Smallest crop, as a share of the short side.")
    flip: bool = True
    cache_variants: int = Field(
        default=4, ge=1, le=64, description="Crops, flips and grays of each photo kept as latents."
    )
    cache: Literal["on", "off"] = Field(
        default="on", description="off: nothing is kept; another crop and gray each time, encoded during training."
    )
    shuffle_buffer: int = Field(
        default=1000, ge=1, le=1_000_000, description="Photos of a stream that are shuffled together."
    )
    # Optimization
    batch: int = Field(default=8, ge=1, description="Pairs in one process at one pass.")
    accumulation: int = Field(default=1, ge=1, description="Passes that make up one update.")
    max_steps: int = Field(default=1000, ge=1, description="Updates of the weights.")
    lr: float = Field(default=1e-4, gt=0, le=1)
    lr_schedule: Literal["constant", "cosine"] = "cosine"
    warmup: int = Field(default=50, ge=0)
    beta1: float = Field(default=0.9, ge=0, lt=1)
    beta2: float = Field(default=0.999, ge=0, lt=1)
    weight_decay: float = Field(default=1e-2, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    ema: float = Field(default=0.999, ge=0, lt=1, description="Decay of the averaged weights; 0 turns averaging off.")
    # Memory and speed
    optimizer: Literal["adamw", "adamw8bit", "adafactor"] = Field(
        default="adamw",
        description="adamw8bit: AdamW with moments of 8 bits; adafactor: sums of rows and columns for them.",
    )
    precision: Literal["no", "fp16", "bf16"] = "no"
    frozen_precision: Literal["no", "fp16", "bf16"] = Field(
        default="no",
        description="Type of weights that are not trained, but for the encoders of photos; the result has its own.",
    )
    gradient_checkpointing: bool = Field(
        default=False,
        description="Compute activations of the U-Net, and of the VAE's decoder, again for the backward pass.",
    )
    ema_on_cpu: bool = Field(default=False, description="Keep the averaged weights in the host's memory.")
    tf32: bool = Field(
        default=True, description="Products of float32 with 10 bits of mantissa, on GPUs that have them."
    )
    sharding: Literal["no", "fsdp"] = Field(
        default="no", description="fsdp: split the U-Net, its gradients, moments and EMA over the processes (FSDP2)."
    )
    compile: bool = Field(default=False, description="Compile the U-Net by torch.compile.")
    # Diffusion
    prediction_type: Literal["model", "epsilon", "v_prediction"] = "model"
    zero_terminal_snr: bool = Field(default=False, description="Rescaled betas, v-prediction and trailing timesteps.")
    min_snr_gamma: float | None = Field(default=None, gt=0, description="Min-SNR loss weights (arXiv 2303.09556).")
    last_share: float = Field(
        default=0.0, ge=0, le=1, description="Share of pairs at the last timestep, where color is decided."
    )
    dropout: float = Field(
        default=0.05, ge=0, le=1 / 3, description="p: text alone, photo alone, both are dropped, p each."
    )
    # How the result samples, and is validated
    scheduler: Literal["model", "euler-ancestral"] = Field(
        default="model", description="model: the model's own, changed as far as the training asks for."
    )
    sampling_steps: int | None = Field(default=None, ge=1, le=1000, description="None: the model's own.")
    guidance_scale: float | None = Field(default=None, ge=1, description="None: the model's own; 1 where dropout is 0.")
    image_guidance_scale: float | None = Field(
        default=None, ge=1, description="None: the model's own; 1 where dropout is 0."
    )
    # Losses
    lab_weight: float = Field(default=0.0, ge=0, description="Weight of the CIELAB error of the decoded estimate.")
    lab_weighting: Literal["fixed", "learned"] = "fixed"
    loss_weights_lr: float = Field(default=1e-2, gt=0, le=1, description="Constant rate of learned loss weights.")
    lab_photos: int = Field(default=4, ge=1, description="Pairs of a batch that are decoded for it.")
    # Running
    seed: int = Field(default=0, ge=0, lt=2**31)
    log_every: int = Field(default=10, ge=1)
    validate_every: int = Field(default=250, ge=1)
    validation_photos: int = Field(default=64, ge=1)
    validation_steps: int | None = Field(default=None, ge=1, description="Sampling steps; None: the model's own.")
    checkpoint_every: int = Field(default=100, ge=1, description="Updates from one checkpoint to the next, at most.")
    checkpoint_minutes: float = Field(
        default=5.0, gt=0, le=1e6, description="Minutes of training from one checkpoint to the next, at most."
    )
    keep: int = Field(default=1, ge=1, description="Checkpoints that stay, the newest.")
    background_checkpoints: bool = Field(
        default=False,
        description="Write checkpoints while training goes on; the state is copied to the host's memory first.",
    )
    best_by: Literal["psnr", "ab_mse", "noise_loss"] = "ab_mse"

    @model_validator(mode="after")
    def _agree(self) -> TrainSettings:
        if self.parts in ("unet+vae-decoder", "all") and self.lab_weight == 0:
            raise ValueError("the VAE decoder learns from the LAB loss alone: give lab_weight above 0")
        if self.lab_weighting == "learned" and self.lab_weight == 0:
            raise ValueError("learned weights need two losses: give lab_weight above 0")
        if self.frozen_precision != "no" and self.precision == "no":
            raise ValueError("frozen weights of half precision need precision=bf16 or fp16")
        if self.sharding == "fsdp":
            self._check_sharding()
        if self.zero_terminal_snr and self.prediction_type == "epsilon":
            raise ValueError("zero terminal SNR leaves no signal to predict noise from: use v_prediction")
        if self.zero_terminal_snr and self.scheduler != "model":
            raise ValueError("zero terminal SNR brings a scheduler of its own: leave scheduler=model")
        if self.parts == "lora" and self.scheduler != "model":
            raise ValueError("a LoRA is sampled with its base's scheduler: leave scheduler=model")
        if self.parts == "lora" and (self.zero_terminal_snr or self.prediction_type != "model"):
            raise ValueError("a LoRA is sampled with its base's schedule: leave zero_terminal_snr and prediction_type")
        return self

    def _check_sharding(self) -> None:
        """Check that nothing is asked for which needs whole weights.

        Raises:
            ValueError: it is.
        """
        if self.parts not in ("unet", "unet-attention", "lora"):
            raise ValueError("sharding splits the U-Net alone: use parts=unet, unet-attention or lora")
        if self.lab_weighting == "learned":
            raise ValueError("sharding splits the U-Net alone: use lab_weighting=fixed")
        if self.precision == "fp16" or self.frozen_precision != "no":
            raise ValueError("sharding takes weights of one type, and no scaled loss: use precision=bf16 or no alone")
        if self.optimizer != "adamw":
            raise ValueError(f"{self.optimizer} needs whole weights: with sharding, use optimizer=adamw")


def presets(*, large: bool = False, one_step: bool = False) -> dict[str, dict[str, Any]]:
    """Read the presets' own values by name: `paper`, `quick`, `best`, `lora`.

    Args:
        large: whether the model has more than `LARGE_MODEL` parameters; a preset's table `large` holds for those.
        one_step: whether the model samples in one step, as `mini` does; a preset's table `one_step` holds for those
            that are not large.
    """
    text = resources.files("chromatune.training").joinpath("presets.toml").read_text(encoding="utf-8")
    found = {}
    for name, values in tomllib.loads(text).items():
        tables = {kind: values.pop(kind, {}) for kind in ("large", "one_step")}
        found[name] = values | tables.get("large" if large else "one_step" if one_step else "", {})
    return found


DEFAULT_PRESET = "quick"
DEFAULT_PRESET_OF_LARGE = "best"


def preset_of(preset: str | None = None, config: Path | None = None, *, large: bool = False) -> str:
    """Return the name of the preset to start from: the one given, else the one in the file, else the default.

    Args:
        preset: that was given.
        config: TOML file of settings.
        large: see `presets`; the default is another one for large models.

    Raises:
        OptionsError: there is no such preset, or the file cannot be read.
    """
    values = _read_config(config)
    named = preset or str(values.get("preset", DEFAULT_PRESET_OF_LARGE if large else DEFAULT_PRESET))
    if named not in presets():
        raise OptionsError(f"unknown preset {named!r}; accepted: {', '.join(presets())}")
    return named


def resolve_settings(
    preset: str | None = None,
    config: Path | None = None,
    overrides: Sequence[str] | Mapping[str, Any] = (),
    *,
    large: bool = False,
    one_step: bool = False,
) -> TrainSettings:
    """Return the preset's settings, then the file's, then the overrides, each over the one before.

    Args:
        preset: see `preset_of`.
        config: TOML file of settings.
        overrides: `NAME=VALUE` strings (values as in TOML; plain words need no quotes), or a mapping.
        large: see `presets`.
        one_step: see `presets`.

    Names of version 0.1 (`FORMER_NAMES`) are accepted too.

    Raises:
        OptionsError: the preset or a setting is unknown, a value is not accepted, or the file cannot be read.
    """
    base = presets(large=large, one_step=one_step)[preset_of(preset, config, large=large)]
    values = _read_config(config)
    values.pop("preset", None)
    given = dict(overrides) if isinstance(overrides, Mapping) else dict(_parse_override(text) for text in overrides)
    layers = (base, values, given)
    try:
        return TrainSettings(**{FORMER_NAMES.get(name, name): v for layer in layers for name, v in layer.items()})
    except ValidationError as error:
        raise options_error(error, TrainSettings, "setting") from None


def describe_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return a line for each kind of change with which a run goes on: what is exact, and what is not.

    Args:
        before: what the run was: its settings, and `ranks`, the number of processes.
        now: the same of the call that resumes it.
    """
    changed = [name for name in MAY_CHANGE if name in before and before[name] != now[name]]
    lines = []

    def told(names: Sequence[str]) -> str:
        found = [f"{name}={now[name]} (was {before[name]})" for name in names if name in changed]
        return ", ".join(found).replace("ranks=", "processes=")

    if "max_steps" in changed:
        rest = "exact: the learning rate is constant" if now["lr_schedule"] == "constant" else (
            "the learning rate falls to its end there from here on, which a run that had it from the start would not do"
        )  # fmt: skip
        lines.append(f"{told(['max_steps'])}: {rest}")
    if layout := told(LAYOUT):
        pairs = [facts["ranks"] * facts["batch"] * facts["accumulation"] for facts in (before, now)]
        size = f"an update is the mean of {pairs[1]} pairs, as before: the same up to rounding"
        if pairs[0] != pairs[1]:
            size = f"an update is the mean of {pairs[1]} pairs from here on, {pairs[0]} before: not the same run"
        lines.append(f"{layout}: each pair still comes once an epoch; {size}")
    if intervals := told(INTERVALS):
        lines.append(f"{intervals}: exact, no update depends on them")
    if memory := told(COMPUTING):
        lines.append(f"{memory}: the same up to rounding")
    return lines


def _read_config(config: Path | None) -> dict[str, Any]:
    if config is None:
        return {}
    try:
        return tomllib.loads(read_regular(config, LARGEST_CONFIG_BYTES).decode())
    except OSError as error:
        raise OptionsError(f"{config}: cannot be read ({error.strerror})") from None
    except RecursionError:
        raise OptionsError(f"{config}: is nested too deep") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise OptionsError(f"{config}: is not TOML ({error})") from None


def _parse_override(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise OptionsError(f"{text!r}: give NAME=VALUE, such as lr=1e-4")
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError):
        parsed = None if value in ("none", "None") else value
    return name.strip(), parsed

"""What is measured and how: one frozen, validated definition for Python and the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from chromatune.errors import OptionsError
from chromatune.options import options_error

LPIPS_NETS = ("alex", "vgg")
FID_BACKENDS = ("tf-inception", "torchvision-inception")

Steps = Annotated[int, Field(ge=1, le=1000)]
Prompt = Annotated[str, Field(max_length=1000)]


class EvaluationSettings(BaseModel):
    """What decides the numbers of an evaluation, and the batch size, which does not.

    Raises (through `make_settings`):
        OptionsError: a value is out of range or of the wrong type, or there is nothing to measure.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str = Field(description="Colour photos that are the truth.")
    models: tuple[str, ...] = Field((), description="Embedded names, InstructPix2Pix folders, or hub names.")
    results: tuple[tuple[str, str], ...] = Field((), description="(name, folder) of another tool's result files.")
    size_px: int = Field(256, ge=32, le=2048, description="Side of the square, in pixels, that photos are compared at.")
    limit: int | None = Field(None, ge=1, description="At most this many photos, lowest content hash first.")
    steps: tuple[Steps, ...] = Field((), description="Sampling steps, a row each; none means the model's own.")
    prompts: tuple[Prompt, ...] = Field((), description="Instructions, a row each; none means the model's own.")
    one_per_person: bool = Field(False, description="Of each person, only the photo of lowest content hash.")
    split: Literal["all", "train", "validation"] = Field(
        "all", description="Half of the source, by person where it has persons: what fine-tuning calls its split."
    )
    validation: int | float = Field(0.1, gt=0, description="Share, or number, of photos in the validation half.")
    split_seed: int = Field(0, ge=0, lt=2**32, description="Seed of the split.")
    keys: str | None = Field(None, description="Text file of keys, one a line: only these photos.")
    seen: str | None = Field(
        None, description="Photos the models were trained on, to measure how much better they do there."
    )
    lpips: str | None = Field(None, description="NET:PATH of a TorchScript LPIPS v0.1; net alex or vgg.")
    fid: str | None = Field(
        None,
        description="BACKEND:PATH of a TorchScript feature network; backend tf-inception or torchvision-inception.",
    )
    seed: int = Field(0, ge=0, lt=2**32, description="Seed of the sampling and of the bootstrap.")
    device: str | None = Field(None, description="Where to compute, such as cpu or cuda.")
    batch_size: int = Field(8, ge=1, description="Photos that go through the model at once.")


def make_settings(**fields: Any) -> EvaluationSettings:
    """Validated `EvaluationSettings`.

    Raises:
        OptionsError: one line that names the first field that is wrong, what was given and what is accepted.
    """
    try:
        settings = EvaluationSettings(**fields)
    except ValidationError as error:
        raise options_error(error, EvaluationSettings, "setting") from None
    if not settings.models and not settings.results:
        raise OptionsError("nothing to measure: give at least one model, or a folder of results")
    for name in ("models", "results", "steps", "prompts"):
        given = getattr(settings, name)
        if len(set(given)) < len(given):
            raise OptionsError(f"{name}={given!r}: the same one twice; give each once", name)
    for name, accepted in (("lpips", LPIPS_NETS), ("fid", FID_BACKENDS)):
        if (text := getattr(settings, name)) is not None:
            named_path(name, text, accepted)
    return settings


def named_path(option: str, text: str, accepted: tuple[str, ...]) -> tuple[str, Path]:
    """Name and path of NAME:PATH.

    Raises:
        OptionsError: the name is none of the accepted ones, or there is no path.
    """
    name, _, path = text.partition(":")
    if name not in accepted or not path:
        raise OptionsError(f"{option}={text!r}: accepted is NAME:PATH, with NAME one of {', '.join(accepted)}", option)
    return name, Path(path).expanduser()

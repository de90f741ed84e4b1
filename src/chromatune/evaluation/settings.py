"""What is measured and how: one frozen, validated definition for Python and the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from chromatune.errors import OptionsError
from chromatune.options import Flag, options_error

LPIPS_NETS = ("alex", "vgg")
FID_BACKENDS = ("tf-inception", "torchvision-inception", "ddcolor-inception")

VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".avi", ".webm", ".mpg", ".mpeg", ".mxf", ".ts")
VIDEO_PREFIX = "video:"  # before a folder of frames, which could be one of photos
VIDEO_FIELDS = ("source", "models", "results", "seed", "device")  # that the evaluation of a video follows
_OLD_VIDEO_PREFIX = "film:"  # until 0.2

Steps = Annotated[int, Field(ge=1, le=1000)]
HintCount = Annotated[int, Field(ge=0, le=1000)]
Prompt = Annotated[str, Field(max_length=1000)]
BenchmarkName = Literal["val5k", "ctest10k", "coco", "davis", "videvo"]  # described in benchmarks.toml


def _name_and_folder(given: object) -> object:
    """Return NAME=DIR in its two parts; anything but a string as it is."""
    if not isinstance(given, str):
        return given
    name, _, folder = given.partition("=")
    if not (name and folder):
        raise ValueError("accepted is NAME=DIR, such as ddcolor=results/ddcolor, or NAME=FILM")
    return name, folder


def _with_video_prefix(given: object) -> object:
    if isinstance(given, str) and given.startswith(_OLD_VIDEO_PREFIX):
        return VIDEO_PREFIX + given.removeprefix(_OLD_VIDEO_PREFIX)
    return given


def _share_or_number(given: object) -> object:
    if not isinstance(given, str):
        return given
    try:
        return int(given) if given.isdecimal() else float(given)
    except ValueError:
        raise ValueError("accepted is a share such as 0.1, or a number of photos") from None


NamedFolder = Annotated[tuple[str, str], BeforeValidator(_name_and_folder)]

# Fields that an evaluation and a benchmark have alike
Models = Annotated[
    tuple[str, ...],
    Flag("--model", "MODEL", unset="none"),
    Field(description="A model to measure; may be given again."),
]
Results = Annotated[
    tuple[NamedFolder, ...],
    Flag(metavar="NAME=DIR", unset="none"),
    Field(
        description="Another tool's results, named like the photos, at the size of the photos or of the squares; of "
        "a video, its finished film; may be given again."
    ),
]
BestOf = Annotated[
    int,
    Flag(metavar="K"),
    Field(
        ge=1,
        le=100,
        description="Also a row of each photo's best of K seeds, chosen by PSNR to the truth: an upper bound.",
    ),
]
Lpips = Annotated[
    str | None,
    Flag(metavar="NET:PATH", unset="none"),
    Field(
        description="Also LPIPS v0.1: NET is alex or vgg, PATH a TorchScript file of it that takes two images in "
        "[-1, 1]."
    ),
]
Fid = Annotated[
    str | None,
    Flag(metavar="BACKEND:PATH", unset="none"),
    Field(
        description="Also FID: BACKEND is tf-inception, torchvision-inception or ddcolor-inception, PATH a TorchScript "
        "file of it, such as inception-2015-12-05.pt. Features of all results are kept in DIR."
    ),
]
Seed = Annotated[
    int, Flag(always=True), Field(ge=0, lt=2**32, description="Seed of the sampling and of the intervals.")
]
Device = Annotated[
    str | None, Flag(unset="the best there is"), Field(description="Where to compute, such as cpu or cuda.")
]
BatchSize = Annotated[int, Field(ge=1, description="Photos that go through the model at once.")]


class EvaluationSettings(BaseModel):
    """What decides the numbers of an evaluation, and the batch size, which does not.

    Raises (through `make_settings`):
        OptionsError: a value is out of range or of the wrong type, or there is nothing to measure.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)  # help needs the fields alone

    source: Annotated[str, BeforeValidator(_with_video_prefix)] = Field(
        description="Color photos: a folder, or KIND:PATH as `chromatune data inspect` takes it; or a video in color."
    )
    models: Models = ()
    results: Results = ()
    size_px: Annotated[int, Flag("--size", always=True)] = Field(
        default=256, ge=32, le=2048, description="Side, in pixels, of the squares compared."
    )
    square: Literal["center", "center-bilinear", "stretched"] = Field(
        default="center",
        description="How a photo becomes a square: its center by area means, its center by Pillow's bilinear filter, "
        "or all of it, stretched.",
    )
    every_photo: bool = Field(
        default=False,
        description="Also photos that are gray, very small or the same as another, as published protocols have.",
    )
    limit: Annotated[int | None, Flag(metavar="N", unset="all")] = Field(
        default=None, ge=1, description="At most N photos: lowest content hash first."
    )
    steps: Annotated[tuple[Steps, ...], Flag(metavar="N", unset="model's own")] = Field(
        default=(), description="Sampling steps; may be given again: a row each."
    )
    prompts: Annotated[tuple[Prompt, ...], Flag("--prompt", unset="model's own")] = Field(
        default=(), description="Instruction; may be given again: a row each."
    )
    hints: Annotated[tuple[HintCount, ...], Flag(metavar="N", unset="none")] = Field(
        default=(),
        description="Also with N hints of the true colors, at the same positions for all; may be given again: a row "
        "each, and one of hints without a model.",
    )
    best_of: BestOf = 1
    one_per_person: bool = Field(default=False, description="One photo of each person.")
    split: Literal["all", "train", "validation"] = Field(
        default="all",
        description="What is measured: all photos, or one half of the split that fine-tuning makes.",
    )
    validation: Annotated[int | float, BeforeValidator(_share_or_number), Flag(metavar="SHARE|N")] = Field(
        default=0.1, gt=0, description="Size of the validation half: a share under 1, or photos."
    )
    split_seed: int = Field(default=0, ge=0, lt=2**32, description="Seed of the split.")
    keys: Annotated[str | None, Flag(metavar="FILE", unset="all")] = Field(
        default=None, description="Only photos whose keys this file lists, one a line."
    )
    seen: Annotated[str | None, Flag(metavar="SOURCE", unset="none")] = Field(
        default=None,
        description="Photos that were trained on, to tell how much better the models do there; with --split "
        "validation, its other half is taken.",
    )
    lpips: Lpips = None
    fid: Fid = None
    seed: Seed = 0
    device: Device = None
    batch_size: BatchSize = 8


class BenchmarkSettings(BaseModel):
    """A published set of photos or videos, where it lies, and what is measured on it.

    Raises (through `make_benchmark_settings`):
        OptionsError: a value is out of range or of the wrong type, or there is nothing to measure.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    name: Annotated[BenchmarkName, Flag(metavar="SET")] = Field(
        description="val5k, ctest10k (both ImageNet), coco (COCO-Stuff), or a set of videos: davis, videvo."
    )
    folder: Annotated[str, Flag(metavar="DIR")] = Field(
        description="The set's photos, also in folders below; of davis and videvo, a folder of frames or a file each."
    )
    models: Models = ()
    results: Results = ()
    names: Annotated[str | None, Flag("--list", "FILE", unset="none")] = Field(
        default=None,
        description="Only photos or videos that this file lists, one a line, with or without path and suffix.",
    )
    limit: Annotated[int | None, Flag(metavar="N", unset="all")] = Field(
        default=None,
        ge=1,
        description="At most N, for a try: photos of the lowest content hashes, or the first videos.",
    )
    best_of: BestOf = 1
    lpips: Lpips = None
    fid: Fid = None
    seed: Seed = 0
    device: Device = None
    batch_size: BatchSize = 8


Settings = TypeVar("Settings", EvaluationSettings, BenchmarkSettings)


def make_settings(**fields: Any) -> EvaluationSettings:
    """Return validated `EvaluationSettings`.

    Raises:
        OptionsError: one line that names the first field that is wrong, what was given and what is accepted.
    """
    return _checked(EvaluationSettings, fields)


def make_benchmark_settings(**fields: Any) -> BenchmarkSettings:
    """Return validated `BenchmarkSettings`.

    Raises:
        OptionsError: one line that names the first field that is wrong, what was given and what is accepted.
    """
    return _checked(BenchmarkSettings, fields)


def _checked(kind: type[Settings], fields: dict[str, Any]) -> Settings:
    try:
        settings = kind(**fields)
    except ValidationError as error:
        raise options_error(error, kind, "setting") from None
    if not settings.models and not settings.results:
        raise OptionsError("nothing to measure: give at least one model, or a folder of results")
    for name in ("models", "results", "steps", "prompts", "hints"):
        given = getattr(settings, name, ())
        if len(set(given)) < len(given):
            raise OptionsError(f"{name}={given!r}: the same one twice; give each once", name)
    for name, accepted in (("lpips", LPIPS_NETS), ("fid", FID_BACKENDS)):
        if (text := getattr(settings, name)) is not None:
            named_path(name, text, accepted)
    return settings


def is_video_source(source: str) -> bool:
    """Return whether a source that is to be measured is a video: its file, or video:DIR for a folder of frames."""
    return source.startswith((VIDEO_PREFIX, _OLD_VIDEO_PREFIX)) or (
        Path(source).suffix.lower() in VIDEO_SUFFIXES and not Path(source).is_dir()
    )


def check_video_settings(settings: EvaluationSettings) -> None:
    """Check that nothing is set that the evaluation of a video does not follow.

    Raises:
        OptionsError: something is.
    """
    for name, info in EvaluationSettings.model_fields.items():
        value = getattr(settings, name)
        if name not in VIDEO_FIELDS and value != info.default:
            raise OptionsError(f"{name}={value!r}: for photos, and {settings.source} is a video; leave it out", name)


def named_path(option: str, text: str, accepted: tuple[str, ...]) -> tuple[str, Path]:
    """Return name and path of NAME:PATH.

    Raises:
        OptionsError: the name is none of the accepted ones, or there is no path.
    """
    name, _, path = text.partition(":")
    if name not in accepted or not path:
        raise OptionsError(f"{option}={text!r}: accepted is NAME:PATH, with NAME one of {', '.join(accepted)}", option)
    return name, Path(path).expanduser()

"""A photo that is asked for, the model's output for it, and the result with all that is needed to make it again."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, TypeAlias, Union

import cv2
import numpy as np

import chromatune
from chromatune import color
from chromatune.hints import Hints, Reference
from chromatune.images import Photo, Provenance, encode_photo, read_photo, to_pil, write_photo
from chromatune.options import ColorizeOptions, ResolvedOptions
from chromatune.pipeline import ModelInfo, short_name

if TYPE_CHECKING:
    from PIL import Image

PhotoSource: TypeAlias = Union[str, "os.PathLike[str]", bytes, BinaryIO, "Image.Image", np.ndarray, Photo]
HINTS_DIGITS = 16  # of their hash


@dataclass(frozen=True, repr=False)
class ColorizeResult:
    """A colorized photo, and all that is needed to make it again."""

    rgb: np.ndarray  # (H, W, 3) uint8, or uint16 for a 16-bit photo; sRGB
    photo: Photo
    prompt: str
    negative_prompt: str
    seed: int
    steps: int
    seconds: float  # wall time spent on this photo; in a batch, its share
    model: str
    runtime: str = ""  # the library that ran the model: "onnx" or "torch"
    variant: int = 1  # 1 is the model's own, see `ColorizeOptions.variant`
    warnings: tuple[str, ...] = ()  # a line for each option that the model did not follow in full
    notes: tuple[str, ...] = ()  # what was done with this photo beside coloring it, a line each
    restored: tuple[str, ...] = ()  # what was repaired in the copy that the model was shown, a few words each
    provenance: Provenance | None = None  # what its file says of how it was made

    def __repr__(self) -> str:
        height, width, _ = self.rgb.shape
        how = [self.model, *([repr(self.prompt)] if self.prompt else []), f"seed {self.seed}"]
        how += [f"variant {self.variant}"] if self.variant > 1 else []
        return f"<ColorizeResult {self.photo.name}, {width} × {height} px, {', '.join(how)}>"

    @property
    def image(self) -> Image.Image:
        """The result as an 8-bit Pillow image, with the photo's alpha."""
        return to_pil(self.rgb, self.photo)

    def encode(self, format: str) -> bytes:
        """Return the result as a file's bytes; `format` is Pillow's name, such as "PNG".

        Raises:
            PhotoError: the format cannot be written.
        """
        return encode_photo(self.rgb, self.photo, format, self.provenance)

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the result; the suffix decides the format, and nothing half-written is ever left.

        Raises:
            PhotoError: the file exists and `overwrite` is off, or it cannot be written.
        """
        write_photo(path, self.rgb, self.photo, provenance=self.provenance, overwrite=overwrite)


@dataclass(frozen=True)
class ModelOutput:
    """The model's own result for a photo, before it meets the photo's full size and luminance."""

    photo: Photo
    rgb: np.ndarray  # (h, w, 3) float32 sRGB 0..1, at the size of the model's own pass
    options: ResolvedOptions
    seconds: float  # wall time of the pass; in a batch, this photo's share
    view: color.View  # what the model was shown
    hints: Hints = Hints()  # of the request
    references: tuple[Reference, ...] = ()  # of the request
    features: Mapping[int, np.ndarray] | None = None  # of the photo encoder in that pass, where hints need them
    shift: np.ndarray | None = None  # (h, w, 2) float32: what a variant adds to the chroma of `rgb`
    colors_from: str = "model"  # or "finished picture"
    notes: tuple[str, ...] = ()  # on where its colors are from, a line each
    confidence: np.ndarray | None = None  # (h, w) float32 0..1: where a finished picture gives its colors

    @property
    def departure(self) -> float:
        """How far it is from the model's own colors, see `color.departure`: the least first is the likeliest first."""
        return 0.0 if self.shift is None else color.departure(self.shift)


@dataclass(frozen=True, eq=False)
class Request:
    """A photo of a stream, with options of its own.

    Attributes:
        photo: path, file's bytes, open file, Pillow image, array (see `images.read_photo`), or a `Photo`.
        options: prompt, seed, steps …; by default the model's own.
        hints: colors that are known at some of its pixels.
        like: photos in color that show the same things, see `Colorizer.reference`.
        levels: how tones are stretched for the model, such as those of a whole shot; None for the photo's own.
    """

    photo: PhotoSource
    options: ColorizeOptions = ColorizeOptions()
    hints: Hints = Hints()
    like: tuple[Reference, ...] = ()
    levels: color.Levels | None = None


def read_source(source: PhotoSource) -> Photo:
    """Return a photo that may have been read already; raises as `read_photo`."""
    return source if isinstance(source, Photo) else read_photo(source)


def provenance_of_pass(
    info: ModelInfo, options: ResolvedOptions, model_hash: str, sources: Sequence[str] = ("model",), hints: str = ""
) -> Provenance:
    """Return how the results of a pass are made, for their files.

    Args:
        info: of the model.
        options: of the pass.
        model_hash: see `Provenance`.
        sources: where colors are from, "model" and the like.
        hints: all hints as text; their hash is told.
    """
    made = provenance_of(
        sources,
        options=dataclasses.asdict(options),
        model=short_name(info),
        model_hash=model_hash,
        hints=hints,
    )
    return dataclasses.replace(made, prompt=options.prompt, seed=str(options.seed))


def provenance_of(
    sources: Sequence[str], *, options: Mapping[str, object], model: str = "", model_hash: str = "", hints: str = ""
) -> Provenance:
    """Return how a result is made, for its file; see `Provenance` and `provenance_of_pass`."""
    return Provenance(
        software=f"ChromaTune {chromatune.__version__}",
        colors_from=", ".join(sources),
        model=model,
        model_hash=model_hash,
        options=json.dumps(options),
        hints=hashlib.sha256(hints.encode()).hexdigest()[:HINTS_DIGITS] if hints else "",
    )


def notes_of(photo: Photo, options: ResolvedOptions) -> tuple[str, ...]:
    """Return what is done with a photo beside coloring it, a line each."""
    notes: tuple[str, ...] = ()
    if not options.invert and photo.looks_negative:
        notes = ("it looks like a negative; --invert makes a positive of it first",)
    choice = options.own_color
    own = photo.own_color if options.recompose and choice != "replace" else None
    share = 0.0 if own is None else own.share(choice)
    if not share:
        return notes
    done = "mixed in" if choice == "blend" else "kept"
    what = "its colors" if own is not None and own.in_color else "stamps, pencil or tints"
    percent = "less than 1 %" if share < 0.01 else f"{100 * share:.0f} %"
    return (*notes, f"{done} the photo's own color in {percent} of it ({what}); --own-color replace colors all of it")


def enlarge_raw(rgb: np.ndarray, photo: Photo, strength: float) -> np.ndarray:
    """Model size ⇒ full size without recomposition: (h, w, 3) float32 -> (H, W, 3) of the photo's type."""
    gray = color.luma(rgb)[..., None]
    blended = gray + np.float32(strength) * (rgb - gray)
    full = cv2.resize(blended, (photo.width_px, photo.height_px), interpolation=cv2.INTER_CUBIC)
    return np.rint(np.clip(full, 0, 1) * photo.max_value).astype(photo.gray.dtype)

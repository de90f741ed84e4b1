"""Hints: at these pixels, this color. Strokes, points, and layers from a paint program; checked, as JSON, and drawn."""

from __future__ import annotations

import io
import json
import os
from base64 import b64encode
from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import cv2
import numpy as np
from PIL import Image, ImageColor
from pydantic import (
    AliasChoices,
    Base64Bytes,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    FailFast,
    Field,
    ValidationError,
    WithJsonSchema,
    model_validator,
)

from chromatune.errors import OptionsError, PhotoError, first_line, printable, shown
from chromatune.images import MAX_PIXELS, Photo, count_pixels, read_photo
from chromatune.options import options_error

LAYER_LONG_SIDE_PX = 1024  # finer layers are averaged: the grid that hints are drawn on has a tenth of it
BLOCK_PIXELS = 1 << 20  # of a layer that are floats at a time
MOST_MARKS = 10_000
MOST_POINTS = 100_000  # of all strokes together
MOST_LAYERS = 64
MOST_LAYER_PIXELS = 8 * LAYER_LONG_SIDE_PX**2  # of all layers together: 134 MB as floats
LONGEST_SIDE_PX = 2**31 - 1  # that any picture may say it had
MAX_JSON_BYTES = 16 << 20  # with layers in it
MOST_JSON_VALUES = 500_000  # of which each takes up to a hundred bytes
MOST_JSON_LEVELS = 8  # hints have five
MOST_JSON_NAMES = 50  # of fields of one object: each unknown one is an error of its own
MOST_JSON_NUMBERS = 1000  # of entries of one object that are called by numbers, such as frames
ASPECT_TOLERANCE = 0.02  # of a layer's aspect: a scaled copy of a photo is rounded to whole pixels
LAYER_SUFFIXES = (".png", ".tif", ".tiff", ".webp")  # of formats with transparency

Color = tuple[int, int, int]
Source = str | os.PathLike | bytes | Image.Image | np.ndarray | BinaryIO


def _color(given: object) -> object:
    """Return a color as three numbers; text is read as CSS writes it.

    Raises:
        ValueError: it is no color.
    """
    if not isinstance(given, str):
        return given
    try:
        return ImageColor.getrgb(given)[:3]
    except ValueError:
        raise ValueError("accepted is a color such as #a03020 or darkred") from None


COLOR_SCHEMA = {"type": "string", "pattern": "^#[0-9a-fA-F]{6}$", "examples": ["#a03020"]}  # the form in docs
Level = Annotated[int, Field(ge=0, le=255)]
Coordinate = Annotated[float, Field(allow_inf_nan=False)]


class Stroke(BaseModel):
    """One color along a line; a point is a line of one point.

    Attributes:
        points: (x, y) in pixels of the photo as it is shown, x to the right, y down, 0 at the edge.
        radius_px: half of the line's width, in the same pixels; None for a fiftieth of the photo's short side.
        color: sRGB, or text as CSS writes it. Its hue and saturation count, its lightness does not.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    points: Annotated[
        tuple[tuple[Coordinate, Coordinate], ...], FailFast(), Field(min_length=1, max_length=MOST_POINTS)
    ]
    radius_px: float | None = Field(default=None, gt=0, le=100_000, allow_inf_nan=False)
    color: Annotated[tuple[Level, Level, Level], BeforeValidator(_color), WithJsonSchema(COLOR_SCHEMA)] = Field(
        validation_alias=AliasChoices("color", "colour")  # the second until 0.3
    )


class Layer(BaseModel):
    """A picture to be laid over the photo: colors where it is opaque, nothing where it is transparent.

    Attributes:
        png: bytes of an RGBA PNG, at most `LAYER_LONG_SIDE_PX` long.
        width_px: of the picture it was made from.
        height_px: of the same; its aspect must be the photo's.
        name: for messages.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    png: Base64Bytes
    width_px: int = Field(ge=1, le=LONGEST_SIDE_PX)
    height_px: int = Field(ge=1, le=LONGEST_SIDE_PX)
    name: str = Field(default="the layer", max_length=400)

    def __eq__(self, other: object) -> bool:
        """Return whether both are the same picture by the same name."""
        return isinstance(other, Layer) and self._fields == other._fields  # without the array, once it is there

    def __hash__(self) -> int:
        """Return an equal hash for the same picture by the same name."""
        return hash(self._fields)

    @property
    def _fields(self) -> tuple[bytes, int, int, str]:
        return self.png, self.width_px, self.height_px, self.name

    @cached_property
    def pixels(self) -> int:
        """How many it has, by its header.

        Raises:
            PhotoError: the bytes are no picture.
        """
        return count_pixels(self.png, name=self.name)

    @cached_property
    def rgba(self) -> np.ndarray:
        """(h, w, 4) float32, 0..1, not premultiplied.

        Raises:
            PhotoError: the bytes are no picture with transparency.
        """
        return _rgba_of(read_photo(self.png, name=self.name, max_pixels=LAYER_LONG_SIDE_PX**2))

    @classmethod
    def read(cls, source: Source, *, name: str | None = None, max_pixels: int = MAX_PIXELS) -> Layer:
        """Return a layer from a file, its bytes, an open file, a Pillow image, or an (H, W, 4) array.

        Raises:
            PhotoError: it is no picture, has no transparency, or nothing is painted on it.
        """
        photo = read_photo(source, name=name, max_pixels=max_pixels)
        _check_painted(photo)
        height, width = photo.gray.shape
        scale = LAYER_LONG_SIDE_PX / max(height, width)
        size = round(width * scale), round(height * scale)
        if scale >= 1:
            rgba = _rgba_of(photo)
        elif min(size) >= 1:
            rgba = _shrunk_rgba(photo, size)
        else:
            raise PhotoError(
                f"{photo.name} is {width} x {height} px, too narrow for a layer; paint on a copy of the photo"
            )
        file = io.BytesIO()
        Image.fromarray(np.rint(rgba * 255).astype(np.uint8), "RGBA").save(file, "PNG")
        return cls(png=b64encode(file.getvalue()), width_px=width, height_px=height, name=photo.name[:400])

    def check_aspect(self, photo: Photo) -> None:
        """Raise a `PhotoError` where the layer's aspect is not the photo's."""
        across, down = self.width_px * photo.height_px, self.height_px * photo.width_px
        # One pixel of rounding at the layer's own size, or the tolerance, whichever is more
        slack = max(ASPECT_TOLERANCE * down, max(photo.height_px, photo.width_px))
        if abs(across - down) > slack:
            raise PhotoError(
                f"{self.name} is {self.width_px} × {self.height_px} px, of another aspect than {photo.name} "
                f"({photo.width_px} × {photo.height_px} px); paint on a copy of the whole photo"
            )


class Hints(BaseModel):
    """Colors that a person gives for places of a photo; later marks cover earlier ones.

        Hints.from_layer("painted.png").point(420, 310, "#a03020").stroke([(10, 20), (90, 25)], 8, "#203a80")

    Hue and saturation (of HSV) of a color count, its lightness does not: dark red and bright red of equal hue and
    saturation mean the same. At each pixel the color of that hue and saturation is meant that has the photo's luma,
    so its chroma is in proportion to luma: a fold of a red coat is dark red. Where sRGB holds no such color, the most
    chroma of that hue that it holds is taken. A gray makes gray.

    Coordinates are pixels of the photo as it is shown, after the rotation that its EXIF asks for.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    marks: Annotated[tuple[Stroke | Layer, ...], FailFast(), Field(max_length=MOST_MARKS)] = ()

    @model_validator(mode="before")
    @classmethod
    def _has_few(cls, given: Any) -> Any:
        """Count what is given before any of it is built."""
        marks = given.get("marks") if isinstance(given, dict) else None
        if isinstance(marks, list | tuple):
            _check_most(len(marks), MOST_MARKS, "marks")
            _check_most(sum(map(_count_points, marks)), MOST_POINTS, "points")
            _check_most(sum(isinstance(mark, Layer) or _has(mark, "png") for mark in marks), MOST_LAYERS, "layers")
        return given

    @model_validator(mode="after")
    def _has_few_pixels(self) -> Hints:
        layers = [mark.pixels for mark in self.marks if isinstance(mark, Layer)]
        _check_most(sum(layers), MOST_LAYER_PIXELS, "pixels of layers")
        return self

    @classmethod
    def from_layer(cls, source: Source, *, name: str | None = None, max_pixels: int = MAX_PIXELS) -> Hints:
        """Return hints painted on a transparent picture of the photo's aspect, of any size; alpha counts as weight.

        Args:
            source: PNG, TIFF or WebP with transparency: a path, bytes, open file, Pillow image or (H, W, 4) array.
            name: what to call it in messages.
            max_pixels: larger layers are refused.

        Raises:
            PhotoError: it is no picture, has no transparency, or nothing is painted on it.
        """
        return cls(marks=(Layer.read(source, name=name, max_pixels=max_pixels),))

    @classmethod
    def from_json(cls, text: str | bytes | dict[str, Any], *, max_bytes: int = MAX_JSON_BYTES) -> Hints:
        """Return hints from what `to_json` gives, or from the same as a dictionary.

        Sizes, depth and counts are checked before anything is built, so that JSON from anywhere may be given.

        Args:
            text: JSON, or the value of it.
            max_bytes: longer JSON is refused.

        Raises:
            OptionsError: it is no JSON, not that of hints, or of more than there may be.
            PhotoError: a layer in it is no picture with transparency.
        """
        try:
            found = cls.model_validate(text if isinstance(text, dict) else parse_json(text, max_bytes=max_bytes))
        except ValidationError as error:
            raise options_error(error, cls, "field of hints") from None
        for mark in found.marks:
            if isinstance(mark, Layer):
                _ = mark.rgba
        return found

    def to_json(self) -> str:
        """Return the hints as JSON, layers as PNG in Base64."""
        return self.model_dump_json()

    def stroke(self, points: Iterable[Sequence[float]], radius_px: float | None, color: str | Sequence[int]) -> Hints:
        """Return these hints and a line of one color; see `Stroke`.

        Raises:
            OptionsError: no points, no color, or a radius that is not above 0.
        """
        plain = color if isinstance(color, str) else tuple(int(level) for level in color)
        try:
            mark = Stroke(points=tuple(tuple(point) for point in points), radius_px=radius_px, color=plain)
        except ValidationError as error:
            raise options_error(error, Stroke, "field of a stroke") from None
        return self + Hints(marks=(mark,))

    def point(self, x: float, y: float, color: str | Sequence[int], radius: float | None = None) -> Hints:
        """Return these hints and a disc of one color.

        Args:
            x: pixels from the left edge of the photo as it is shown.
            y: pixels from its top.
            color: see `Stroke`.
            radius: of the disc, in pixels; None for a fiftieth of the photo's short side.

        Raises:
            OptionsError: as for `stroke`.
        """
        return self.stroke([(x, y)], radius, color)

    def __add__(self, other: Hints) -> Hints:
        """Return the marks of both; the second's lie on top.

        Raises:
            OptionsError: they are too many.
        """
        try:
            return Hints(marks=(*self.marks, *other.marks))
        except ValidationError as error:
            raise options_error(error, Hints, "field of hints") from None

    def __bool__(self) -> bool:
        """Return whether there is any mark."""
        return bool(self.marks)

    def check(self, photo: Photo) -> None:
        """Check that the hints fit a photo.

        Raises:
            PhotoError: a point lies outside of it, or a layer has another aspect.
        """
        for mark in self.marks:
            if isinstance(mark, Layer):
                mark.check_aspect(photo)
                continue
            for x, y in mark.points:
                if not (0 <= x <= photo.width_px and 0 <= y <= photo.height_px):
                    raise PhotoError(
                        f"{photo.name}: the hint at {x:g},{y:g} lies outside of its {photo.width_px} × "
                        f"{photo.height_px} px; give pixels of the photo as it is shown"
                    )


def parse_json(text: str | bytes, *, max_bytes: int = MAX_JSON_BYTES) -> Any:
    """Return the value of JSON that may come from anywhere, such as hints or an edit with hints in it.

    Args:
        text: JSON.
        max_bytes: longer JSON is refused.

    Raises:
        OptionsError: it is no JSON, too long, of too many values, or nested too deeply.
    """
    try:
        data = text.encode() if isinstance(text, str) else text
        _check_most(len(data), max_bytes, "bytes")
        _check_most(count_values(data), MOST_JSON_VALUES, "values")
        value = json.loads(data)
    except RecursionError:
        raise OptionsError(f"JSON: nested more than {MOST_JSON_LEVELS} levels deep") from None
    except ValueError as error:
        raise OptionsError(f"JSON: {first_line(error)}") from None
    level = [value]
    for _ in range(MOST_JSON_LEVELS):
        if any(map(_has_many_fields, level)):
            raise OptionsError(
                f"JSON: an object of more than {MOST_JSON_NAMES} fields; give only those that are documented"
            )
        inner = (each.values() if isinstance(each, dict) else each for each in level if isinstance(each, dict | list))
        level = list(chain.from_iterable(inner))
        if not level:
            return value
    raise OptionsError(f"JSON: nested more than {MOST_JSON_LEVELS} levels deep")


def count_values(data: bytes) -> int:
    """Return how many values JSON has at most, without parsing it."""
    return sum(map(data.count, (b"[", b"{", b",")))


def _has_many_fields(value: object) -> bool:
    if not isinstance(value, dict) or len(value) <= MOST_JSON_NAMES:
        return False
    return len(value) > MOST_JSON_NUMBERS or sum(not name.isdecimal() for name in value) > MOST_JSON_NAMES


def _check_most(count: int, most: int, things: str) -> None:
    """Raise ValueError for too many."""
    if count > most:
        raise ValueError(f"{count:,} {things}, and the limit is {most:,}; give fewer")


def _has(mark: object, field: str) -> bool:
    return isinstance(mark, dict) and field in mark


def _count_points(mark: object) -> int:
    points = mark.get("points") if isinstance(mark, dict) else getattr(mark, "points", ())
    return len(points) if isinstance(points, list | tuple) else 0


def parse_point(text: str) -> Hints:
    """Return the point that the command line writes as X,Y=COLOR or X,Y,RADIUS=COLOR.

    Raises:
        OptionsError: it is written otherwise, or is no color.
    """
    where, equals, color = text.partition("=")
    try:
        numbers = [float(number) for number in where.split(",")]
    except ValueError:
        numbers = []
    if not equals or len(numbers) not in (2, 3):
        raise OptionsError(f"hint {shown(text)}: accepted is X,Y=COLOR or X,Y,RADIUS=COLOR, such as 420,310=#a03020")
    try:
        return Hints().point(numbers[0], numbers[1], color, numbers[2] if len(numbers) == 3 else None)
    except OptionsError as error:
        raise OptionsError(f"hint {shown(text)}: {str(error).partition(': ')[2]}") from None


def list_layers(folder: Path) -> list[Path]:
    """Return the files in a folder that can be layers, sorted.

    Raises:
        OptionsError: there is no such folder.
    """
    try:
        return sorted(path for path in folder.expanduser().iterdir() if path.suffix.lower() in LAYER_SUFFIXES)
    except OSError as error:
        name = printable(str(folder))
        raise OptionsError(f"{name}: cannot be read ({error.strerror}); give a folder of painted layers") from None


def _check_painted(photo: Photo) -> None:
    """Raise a `PhotoError` for a layer that has no transparency, or on which nothing is painted."""
    if photo.alpha is None:
        raise PhotoError(
            f"{photo.name} has no transparency; paint hints on a transparent layer, and save only that layer"
        )
    if not photo.alpha.any():
        raise PhotoError(f"{photo.name}: nothing is painted on it, every pixel is transparent; paint, or leave it out")


def _rgba_of(photo: Photo, rows: slice = slice(None)) -> np.ndarray:
    """Rows of a layer: (h, W, 4) float32, 0..1.

    Raises:
        PhotoError: it has no transparency, or nothing is painted on it.
    """
    if rows == slice(None):
        _check_painted(photo)
    assert photo.alpha is not None
    rgb = np.repeat(photo.gray[rows, :, None], 3, axis=2) if photo.rgb is None else photo.rgb[rows]
    return np.dstack([rgb, photo.alpha[rows]]).astype(np.float32) / photo.max_value


def _shrunk_rgba(photo: Photo, size: tuple[int, int]) -> np.ndarray:
    """(h, w, 4) float32 of a width and height that are smaller; areas are averaged by their alpha.

    Along rows first, by blocks of them: as floats, a large layer would take sixteen bytes a pixel several times.
    """
    narrow = np.empty((photo.height_px, size[0], 4), np.float32)
    block_rows = max(1, BLOCK_PIXELS // photo.width_px)
    for top in range(0, photo.height_px, block_rows):
        rgba = _rgba_of(photo, slice(top, top + block_rows))
        rgba[..., :3] *= rgba[..., 3:]
        narrow[top : top + block_rows] = cv2.resize(rgba, (size[0], len(rgba)), interpolation=cv2.INTER_AREA)
    small = cv2.resize(narrow, size, interpolation=cv2.INTER_AREA)
    alpha = small[..., 3:]
    return np.dstack([small[..., :3] / np.maximum(alpha, 1e-6), alpha]).clip(0, 1)

"""Hints: at these pixels, this color. Strokes, points, and layers from a paint program; checked, as JSON, and drawn."""

from __future__ import annotations

import io
import math
import os
from base64 import b64encode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import cv2
import numpy as np
from PIL import Image, ImageColor
from pydantic import AliasChoices, Base64Bytes, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from chromatune.color import relative_chroma
from chromatune.errors import OptionsError, PhotoError, printable, shown
from chromatune.images import MAX_PIXELS, Photo, read_photo
from chromatune.options import options_error

LAYER_LONG_SIDE_PX = 1024  # finer layers are averaged: the grid that hints are drawn on has a tenth of it
BLOCK_PIXELS = 1 << 20  # of a layer that are floats at a time
MOST_MARKS = 10_000
MOST_POINTS = 100_000  # of one stroke
ASPECT_TOLERANCE = 0.02  # of a layer's aspect: a scaled copy of a photo is rounded to whole pixels
LAYER_SUFFIXES = (".png", ".tif", ".tiff", ".webp")  # of formats with transparency
FINER = 4  # pixels of the canvas for one of the grid, along a side
DEFAULT_RADIUS = 1 / 50  # of the photo's short side: what evaluation's squares have
SUBPIXEL_BITS = 4  # OpenCV takes coordinates in sixteenths

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

    points: tuple[tuple[Coordinate, Coordinate], ...] = Field(min_length=1, max_length=MOST_POINTS)
    radius_px: float | None = Field(None, gt=0, le=100_000, allow_inf_nan=False)
    color: Annotated[tuple[Level, Level, Level], BeforeValidator(_color)] = Field(
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
    width_px: int = Field(ge=1)
    height_px: int = Field(ge=1)
    name: str = Field("the layer", max_length=400)

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
            raise PhotoError(f"{photo.name} is {width} x {height} px, too narrow for a layer; paint on a copy of the photo")
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

        Hints.from_layer("painted.png").point(420, 310, "#a03020").stroke([(10, 20), (90, 25)], 8, "navy")

    Hue and saturation (of HSV) of a color count, its lightness does not: dark red and bright red of equal hue and
    saturation mean the same. At each pixel the color of that hue and saturation is meant that has the photo's luma,
    so its chroma is in proportion to luma: a fold of a red coat is dark red. Where sRGB holds no such color, the most
    chroma of that hue that it holds is taken. A gray makes gray.

    Coordinates are pixels of the photo as it is shown, after the rotation that its EXIF asks for.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    marks: tuple[Stroke | Layer, ...] = Field((), max_length=MOST_MARKS)

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
    def from_json(cls, text: str | bytes | dict[str, Any]) -> Hints:
        """Return hints from what `to_json` gives, or from the same as a dictionary.

        Raises:
            OptionsError: it is no JSON, or not that of hints.
            PhotoError: a layer in it is no picture with transparency.
        """
        try:
            found = cls.model_validate(text) if isinstance(text, dict) else cls.model_validate_json(text)
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
        return Hints(marks=(*self.marks, mark))

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
        """Return the marks of both; the second's lie on top."""
        return Hints(marks=(*self.marks, *other.marks))

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


@dataclass(frozen=True, eq=False)
class HintMap:
    """Hints drawn on a grid: a color and a weight at each pixel.

    Attributes:
        relative: (h, w, 2) float32, chroma over luma (`color.relative_chroma`); 0 where there is no hint.
        weight: (h, w) float32, 0..1.
    """

    relative: np.ndarray
    weight: np.ndarray


def draw(hints: Hints, photo: Photo, size: tuple[int, int]) -> HintMap:
    """Return the hints on a grid of height and width `size` that is stretched over the photo.

    Raises:
        PhotoError: they do not fit the photo.
    """
    hints.check(photo)
    canvas = np.zeros((size[0] * FINER, size[1] * FINER, 3), np.float32)  # relative chroma times alpha, and alpha
    for mark in hints.marks:
        if isinstance(mark, Layer):
            _lay(canvas, mark)
        else:
            _paint(canvas, mark, photo)
    small = cv2.resize(canvas, size[::-1], interpolation=cv2.INTER_AREA)
    weight = np.clip(small[..., 2], 0, 1)
    return HintMap(small[..., :2] / np.maximum(small[..., 2:], 1e-6), weight)


def _check_painted(photo: Photo) -> None:
    """Raise a `PhotoError` for a layer that has no transparency, or on which nothing is painted."""
    if photo.alpha is None:
        raise PhotoError(f"{photo.name} has no transparency; paint hints on a transparent layer, and save that alone")
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


def _lay(canvas: np.ndarray, layer: Layer) -> None:
    rgba = layer.rgba
    alpha = rgba[..., 3:]
    over = np.dstack([relative_chroma(rgba[..., :3]) * alpha, alpha])
    height, width = canvas.shape[:2]
    shrinks = height <= over.shape[0] and width <= over.shape[1]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    over = cv2.resize(over, (width, height), interpolation=method)
    canvas *= 1 - over[..., 2:]
    canvas += over


def _paint(canvas: np.ndarray, stroke: Stroke, photo: Photo) -> None:
    """Draw a stroke into the part of the canvas that it touches."""
    height, width = canvas.shape[:2]
    scale = np.array([width / photo.width_px, height / photo.height_px])
    radius_px = stroke.radius_px or DEFAULT_RADIUS * min(photo.height_px, photo.width_px)
    # OpenCV draws no lines thicker than 32767; one as wide as the canvas is long covers it
    radius = min(max(0.5, radius_px * math.sqrt(scale.prod())), math.hypot(height, width))
    points = np.array(stroke.points) * scale - 0.5  # from edges of pixels to their centers
    left, top = np.maximum(np.floor(points.min(axis=0) - radius - 2), 0).astype(int)
    right, bottom = np.minimum(np.ceil(points.max(axis=0) + radius + 3), (width, height)).astype(int)
    mask = np.zeros((bottom - top, right - left), np.uint8)
    moved = np.rint((points - (left, top)) * 2**SUBPIXEL_BITS).astype(np.int32)
    ends = moved if len(moved) < 3 else moved[[0, -1]]
    for x, y in ends.tolist():
        cv2.circle(mask, (x, y), round(radius * 2**SUBPIXEL_BITS), 255, cv2.FILLED, cv2.LINE_AA, SUBPIXEL_BITS)
    if len(moved) > 1:
        thickness = max(1, round(2 * radius))
        cv2.polylines(mask, [moved[:, None]], False, 255, thickness, cv2.LINE_AA, SUBPIXEL_BITS)
    alpha = mask.astype(np.float32)[..., None] / 255
    color = relative_chroma(np.array(stroke.color, np.float32) / 255)
    part = canvas[top:bottom, left:right]
    part *= 1 - alpha
    part += alpha * np.append(color, np.float32(1))

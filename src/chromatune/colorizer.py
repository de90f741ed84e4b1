"""One load, one verb: `Colorizer.load("mini").colorize("grandma.jpg")`."""

from __future__ import annotations

import dataclasses
import os
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, BinaryIO, TypeAlias, Union

import cv2
import numpy as np

from chromatune import color
from chromatune.bundle.names import ModelInfo
from chromatune.errors import PhotoError
from chromatune.images import Photo, encode_photo, read_photo, to_pil, write_photo
from chromatune.inference import ModelPass, open_pass
from chromatune.options import ColorizeOptions, ResolvedOptions

if TYPE_CHECKING:
    from PIL import Image

PhotoSource: TypeAlias = Union[str, "os.PathLike[str]", bytes, BinaryIO, "Image.Image", np.ndarray, Photo]
MAX_ASPECT = 4.0  # longer strips are squeezed for the model's pass; their luminance is not touched


@dataclass(frozen=True)
class ColorizeResult:
    """A colorized photo and all that is needed to make it again."""

    rgb: np.ndarray  # (H, W, 3) uint8, or uint16 for a 16-bit photo; sRGB
    photo: Photo
    prompt: str
    negative_prompt: str
    seed: int
    steps: int
    seconds: float  # wall time spent on this photo; in a batch, its share
    model: str
    runtime: str = ""  # the library that ran the model: "onnx" or "torch"
    warnings: tuple[str, ...] = ()  # a line each: what was asked for and not followed

    @property
    def image(self) -> Image.Image:
        """The result as an 8-bit Pillow image, with the photo's alpha."""
        return to_pil(self.rgb, self.photo)

    def encode(self, format: str) -> bytes:
        """The result as a file's bytes; `format` is Pillow's name, such as "PNG".

        Raises:
            PhotoError: the format cannot be written.
        """
        return encode_photo(self.rgb, self.photo, format)

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Writes the result; the suffix decides the format, and nothing half-written is ever left.

        Raises:
            PhotoError: the file exists and `overwrite` is off, or it cannot be written.
        """
        write_photo(path, self.rgb, self.photo, overwrite=overwrite)


@dataclass(frozen=True)
class ModelOutput:
    """What the model itself gives for a photo, before it meets the photo's full size and luminance."""

    photo: Photo
    rgb: np.ndarray  # (h, w, 3) float32 sRGB 0..1, at the size of the model's own pass
    options: ResolvedOptions
    seconds: float  # wall time of the pass; in a batch, this photo's share


@dataclass(frozen=True, eq=False)
class Request:
    """One photo of a stream, with options of its own.

    Attributes:
        photo: path, file's bytes, open file, Pillow image, array (see `images.read_photo`), or a `Photo`.
        options: prompt, seed, steps …; by default the model's own.
    """

    photo: PhotoSource
    options: ColorizeOptions = ColorizeOptions()


class Colorizer:
    """A loaded model, ready to colorize."""

    def __init__(self, model_pass: ModelPass) -> None:
        self.model_pass = model_pass

    @classmethod
    def load(
        cls, model: str = "mini", *, device: str | None = None, runtime: str | None = None, workers: int = 1
    ) -> Colorizer:
        """The colorizer for `mini`, `mini-base`, a pipeline folder, or a hub name.

        Args:
            model: its name.
            device: where to compute, such as "cpu" or "cuda"; None for the best there is.
            runtime: "onnx" or "torch"; None for the one that is faster here.
            workers: threads that will colorize at the same time.

        Raises:
            ModelError: see `chromatune.inference.open_pass`.
            MissingExtraError: it takes torch, which is not installed.
        """
        return cls(open_pass(model, device=device, runtime=runtime, workers=workers))

    @property
    def info(self) -> ModelInfo:
        """The model's name and defaults."""
        return self.model_pass.info

    def colorize(self, photo: PhotoSource, options: ColorizeOptions | None = None) -> ColorizeResult:
        """The photo in colour, at its full size, with its own luminance (unless `options.recompose` is off).

        Args:
            photo: path, file's bytes, open file, Pillow image, array (see `images.read_photo`), or a `Photo`.
            options: prompt, seed, steps …; by default the model's own.

        Raises:
            PhotoError: the photo cannot be read.
        """
        (result,) = self.colorize_many([photo], options, batch_size=1)
        if isinstance(result, PhotoError):
            raise result
        return result

    def colorize_many(
        self,
        photos: Iterable[PhotoSource | Request],
        options: ColorizeOptions | None = None,
        *,
        batch_size: int = 8,
    ) -> Iterator[ColorizeResult | PhotoError]:
        """Results in the photos' order; a photo that cannot be read yields its `PhotoError`, and the others go on.

        At most `batch_size` photos are in memory at a time; on a GPU those of one model size share a U-Net pass.

        Args:
            photos: photos, or requests where a photo has options of its own.
            options: of all photos that come without their own.
            batch_size: photos that go through the model together, where it gains by it: not on a CPU.
        """
        for output in self.model_outputs(photos, options, batch_size=batch_size):
            yield output if isinstance(output, PhotoError) else self.finish(output)

    def model_outputs(
        self,
        photos: Iterable[PhotoSource | Request],
        options: ColorizeOptions | None = None,
        *,
        batch_size: int = 8,
    ) -> Iterator[ModelOutput | PhotoError]:
        """The model's half of `colorize_many`: `finish` makes a result of each output, also with other options."""
        options = options or ColorizeOptions()
        requests = (photo if isinstance(photo, Request) else Request(photo, options) for photo in photos)
        ahead = max(1, batch_size) if self.model_pass.batches else 1  # alone, more would only cost memory
        while window := list(islice(requests, ahead)):
            yield from self._window_outputs([(_read(each.photo), self.info.resolve(each.options)) for each in window])

    def finish(
        self, output: ModelOutput, options: ColorizeOptions | None = None, *, chroma: np.ndarray | None = None
    ) -> ColorizeResult:
        """The result at the photo's full size.

        Args:
            output: what the model gave.
            options: instead of those it was asked with: `recompose` and `strength`, which act here.
            chroma: instead of the output's own, see `chroma`: (h, w, 2) float32 (Cb, Cr), of any size.
        """
        start, photo = time.perf_counter(), output.photo
        asked = output.options if options is None else self.info.resolve(options)
        if asked.recompose:
            small = self.chroma(output) if chroma is None else chroma
            full = color.recompose(photo.grey, small, strength=asked.strength)
        else:
            full = enlarge_raw(output.rgb, photo, asked.strength)
        return ColorizeResult(
            rgb=full,
            photo=photo,
            prompt=asked.prompt,
            negative_prompt=asked.negative_prompt,
            seed=asked.seed,
            steps=asked.steps,
            seconds=output.seconds + time.perf_counter() - start,
            model=self.info.name,
            runtime=self.model_pass.runtime,
            warnings=self.model_pass.warnings_of(asked),
        )

    def chroma(self, output: ModelOutput) -> np.ndarray:
        """The colour that is put onto the photo: (h, w, 2) float32 (Cb, Cr), at the size of the model's pass."""
        chroma = color.chroma_of(output.rgb)
        gain, power = output.options.chroma_gain, output.options.chroma_power
        # What was asked for in a number of steps of the user's own stays as it was sampled, bit for bit
        return chroma if (gain, power) == (1.0, 1.0) else color.vivid(chroma, gain, power)

    def small_size(self, height_px: int, width_px: int, size_px: int | None = None) -> tuple[int, int]:
        """Height and width in pixels of the model's own pass, multiples of what the model can halve.

        The short side is `size_px` (by default the model's own), the other in proportion up to `MAX_ASPECT`.
        """
        multiple = self.model_pass.multiple_px
        short = max(multiple, round((size_px or self.info.size_px) / multiple) * multiple)
        aspect = min(MAX_ASPECT, max(height_px, width_px) / min(height_px, width_px))
        long = max(short, round(short * aspect / multiple) * multiple)
        return (short, long) if height_px <= width_px else (long, short)

    def _window_outputs(
        self, window: list[tuple[Photo | PhotoError, ResolvedOptions]]
    ) -> Iterator[ModelOutput | PhotoError]:
        readable = {i: (photo, asked) for i, (photo, asked) in enumerate(window) if isinstance(photo, Photo)}
        outputs: dict[int, ModelOutput] = {}
        for size, indices in self._groups(readable):
            start = time.perf_counter()
            photos, options = zip(*(readable[index] for index in indices), strict=True)
            greys = np.stack([shrink(photo.grey, size) for photo in photos])  # (B, h, w)
            passes = self.model_pass(greys, options)
            seconds = (time.perf_counter() - start) / len(indices)
            for index, photo, asked, rgb in zip(indices, photos, options, passes, strict=True):
                outputs[index] = ModelOutput(photo, rgb, asked, seconds)
        for index, (photo, _) in enumerate(window):
            yield photo if isinstance(photo, PhotoError) else outputs.pop(index)

    def _groups(
        self, readable: dict[int, tuple[Photo, ResolvedOptions]]
    ) -> Iterator[tuple[tuple[int, int], list[int]]]:
        """Model size and indices of the photos that go through the model together.

        They have one size and the same options but for the seed; each is alone where the model gains nothing by it.
        """
        groups: dict[tuple[tuple[int, int], ResolvedOptions, int | None], list[int]] = defaultdict(list)
        for index, (photo, asked) in readable.items():
            alone = None if self.model_pass.batches else index
            size = self.small_size(photo.height_px, photo.width_px, asked.size_px)
            groups[size, dataclasses.replace(asked, seed=0), alone].append(index)
        for (size, _, _), indices in groups.items():
            yield size, indices


def shrink(grey: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Full size ⇒ model size: (H, W) uint8 or uint16 -> (h, w) float32 0..1, averaged over areas."""
    scale = np.float32(1 / np.iinfo(grey.dtype).max)
    smaller = size[0] <= grey.shape[0] and size[1] <= grey.shape[1]
    resized = cv2.resize(grey, size[::-1], interpolation=cv2.INTER_AREA if smaller else cv2.INTER_CUBIC)
    return resized.astype(np.float32) * scale


def enlarge_raw(rgb: np.ndarray, photo: Photo, strength: float) -> np.ndarray:
    """Model size ⇒ full size without recomposition: (h, w, 3) float32 -> (H, W, 3) of the photo's type."""
    grey = color.luma(rgb)[..., None]
    blended = grey + np.float32(strength) * (rgb - grey)
    full = cv2.resize(blended, (photo.width_px, photo.height_px), interpolation=cv2.INTER_CUBIC)
    return np.rint(np.clip(full, 0, 1) * photo.max_value).astype(photo.grey.dtype)


def _read(source: PhotoSource) -> Photo | PhotoError:
    try:
        return source if isinstance(source, Photo) else read_photo(source)
    except PhotoError as error:
        return error

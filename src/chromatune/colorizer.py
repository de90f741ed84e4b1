"""One load, one verb: `Colorizer.load("mini").colorize("grandma.jpg")`."""

from __future__ import annotations

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
from chromatune.bundle import Bundle, decode_latents, encode_condition, encode_photos, load_bundle
from chromatune.errors import ModelError, PhotoError
from chromatune.images import Photo, encode_photo, read_photo, to_pil, write_photo
from chromatune.options import ColorizeOptions
from chromatune.sampling import PromptEmbeddings, sample

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
    seconds: float  # wall time of the pass; in a batch, this photo's share


class Colorizer:
    """A loaded model, ready to colorize."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self._embed = PromptEmbeddings(bundle)

    @classmethod
    def load(cls, model: str = "mini", *, device: str | None = None) -> Colorizer:
        """The colorizer for `mini`, `mini-base`, a pipeline folder, or a hub name.

        Raises:
            ModelError: see `chromatune.bundle.load_bundle`.
        """
        return cls(load_bundle(model, device=device))

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
        self, photos: Iterable[PhotoSource], options: ColorizeOptions | None = None, *, batch_size: int = 8
    ) -> Iterator[ColorizeResult | PhotoError]:
        """Results in the photos' order; a photo that cannot be read yields its `PhotoError`, and the others go on.

        At most `batch_size` photos are in memory at a time; on a GPU those of one model size share a U-Net pass.
        """
        options = options or ColorizeOptions()
        for output in self.model_outputs(photos, options, batch_size=batch_size):
            yield output if isinstance(output, PhotoError) else self.finish(output, options)

    def model_outputs(
        self, photos: Iterable[PhotoSource], options: ColorizeOptions, *, batch_size: int = 8
    ) -> Iterator[ModelOutput | PhotoError]:
        """The model's half of `colorize_many`: from one output, `finish` makes a recomposed and a raw result."""
        waiting = iter(photos)
        while window := list(islice(waiting, max(1, batch_size))):
            yield from self._window_outputs([_read(source) for source in window], options)

    def finish(self, output: ModelOutput, options: ColorizeOptions) -> ColorizeResult:
        """The result at the photo's full size; of `options`, `recompose` and `strength` act here."""
        start, info, photo = time.perf_counter(), self.bundle.info, output.photo
        steps = info.steps if options.steps is None else options.steps
        if options.recompose:
            chroma = color.chroma_of(output.rgb)
            if options.steps is None:
                chroma = color.vivid(chroma, info.chroma_gain, info.chroma_power)
            full = color.recompose(photo.grey, chroma, strength=options.strength)
        else:
            full = enlarge_raw(output.rgb, photo, options.strength)
        return ColorizeResult(
            rgb=full,
            photo=photo,
            prompt=info.prompt if options.prompt is None else options.prompt,
            negative_prompt=options.negative_prompt,
            seed=options.seed,
            steps=steps,
            seconds=output.seconds + time.perf_counter() - start,
            model=info.name,
        )

    def small_size(self, height_px: int, width_px: int, size_px: int | None = None) -> tuple[int, int]:
        """Height and width in pixels of the model's own pass, multiples of what the model can halve.

        The short side is `size_px` (by default the model's own), the other in proportion up to `MAX_ASPECT`.
        """
        multiple = self.bundle.multiple_px
        short = max(multiple, round((size_px or self.bundle.info.size_px) / multiple) * multiple)
        aspect = min(MAX_ASPECT, max(height_px, width_px) / min(height_px, width_px))
        long = max(short, round(short * aspect / multiple) * multiple)
        return (short, long) if height_px <= width_px else (long, short)

    def _window_outputs(
        self, photos: list[Photo | PhotoError], options: ColorizeOptions
    ) -> Iterator[ModelOutput | PhotoError]:
        groups: dict[tuple[int, int], list[int]] = defaultdict(list)
        for index, photo in enumerate(photos):
            if isinstance(photo, Photo):
                groups[self.small_size(photo.height_px, photo.width_px, options.size_px)].append(index)
        small: dict[int, tuple[np.ndarray, float]] = {}
        for size, indices in self._passes(groups):
            start = time.perf_counter()
            passes = self._model_pass([photos[i].grey for i in indices], size, options)  # type: ignore[union-attr]
            share = (time.perf_counter() - start) / len(indices)
            small |= {index: (rgb, share) for index, rgb in zip(indices, passes, strict=True)}
        for index, photo in enumerate(photos):
            if isinstance(photo, PhotoError):
                yield photo
            else:
                yield ModelOutput(photo, *small.pop(index))

    def _passes(self, groups: dict[tuple[int, int], list[int]]) -> Iterator[tuple[tuple[int, int], list[int]]]:
        """What goes through the model together: photos of one size on a GPU, each photo alone on a CPU.

        A CPU's matrix kernels round differently at another batch size, and one level of 255 is not the same pixels.
        """
        for size, indices in groups.items():
            together = 1 if self.bundle.device.type == "cpu" else len(indices)
            for first in range(0, len(indices), together):
                yield size, indices[first : first + together]

    def _model_pass(self, greys: list[np.ndarray], size: tuple[int, int], options: ColorizeOptions) -> np.ndarray:
        """Full-size greys -> the model's own small RGB, (B, h, w, 3) float32 sRGB 0..1."""
        import torch

        info = self.bundle.info
        pick = lambda own, default: default if own is None else own  # noqa: E731
        stacked = np.stack([shrink(grey, size) for grey in greys])
        pixels = torch.from_numpy(stacked)[:, None].expand(-1, 3, -1, -1)  # (B, 3, h, w)
        with torch.inference_mode():
            latents = sample(
                self.bundle,
                encode_condition(self.bundle, pixels),
                self._embed(pick(options.prompt, info.prompt)),
                self._embed(options.negative_prompt),
                steps=pick(options.steps, info.steps),
                generators=[torch.Generator().manual_seed(options.seed) for _ in greys],
                guidance_scale=pick(options.guidance_scale, info.guidance_scale),
                image_guidance_scale=pick(options.image_guidance_scale, info.image_guidance_scale),
                residuals=encode_photos(self.bundle, pixels),
            )
            rgb = decode_latents(self.bundle, latents)
        if not bool(torch.isfinite(rgb).all()):
            raise ModelError(f"{info.name} gave values that are not numbers; try another seed, or --device cpu")
        return rgb.permute(0, 2, 3, 1).contiguous().numpy()


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

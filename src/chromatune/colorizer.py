"""One load, one verb: `Colorizer.load("mini").colorize("grandma.jpg")`."""

from __future__ import annotations

import dataclasses
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, TypeAlias
from weakref import WeakKeyDictionary

import numpy as np

from chromatune import color
from chromatune.errors import OptionsError, PhotoError
from chromatune.hints import HintedChroma, Hints, Reference, can_compare, check_reference, make_reference
from chromatune.images import Photo, Provenance, inverted
from chromatune.options import ColorizeOptions, ResolvedOptions, check_recompose
from chromatune.pipeline import Backend, Features, ModelInfo, hash_if_quick, load_backend
from chromatune.results import (
    ColorizeResult,
    ModelOutput,
    PhotoSource,
    Request,
    enlarge_raw,
    notes_of,
    provenance_of_pass,
    read_source,
)

if TYPE_CHECKING:
    pass

MAX_ASPECT = 4.0  # longer strips are squeezed for the model's pass; their luminance is not touched


class Colorizer:
    """A loaded model, ready to colorize."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        # The latest own pass of photos that somebody holds, so that all variants of a photo share it
        self._own_passes: WeakKeyDictionary[Photo, tuple[_PassKey, np.ndarray]] = WeakKeyDictionary()

    @classmethod
    def load(
        cls, model: str = "mini", *, device: str | None = None, runtime: str | None = None, workers: int = 1
    ) -> Colorizer:
        """Load the colorizer for `mini`, `mini-base`, a pipeline folder, or a hub name.

        Args:
            model: its name.
            device: where to compute, such as "cpu" or "cuda"; None for the best there is.
            runtime: "onnx" or "torch"; None for the one that is faster here.
            workers: threads that will colorize at the same time.

        Raises:
            ModelError: see `chromatune.pipeline.load_backend`.
            MissingExtraError: it takes torch, which is not installed.
        """
        return cls(load_backend(model, device=device, runtime=runtime, workers=workers))

    @property
    def info(self) -> ModelInfo:
        """The model's name and defaults."""
        return self.backend.info

    def colorize(
        self,
        photo: PhotoSource,
        options: ColorizeOptions | None = None,
        *,
        hints: Hints | None = None,
        like: Sequence[PhotoSource | Reference] = (),
    ) -> ColorizeResult:
        """Return the photo in color, at its full size, with its own luminance (unless `options.recompose` is off).

        With `options.invert` it is that of the positive.

        Args:
            photo: path, file's bytes, open file, Pillow image, array (see `images.read_photo`), or a `Photo`.
            options: prompt, seed, steps …; by default the model's own.
            hints: colors that are known at some of its pixels.
            like: photos in color that show the same things: their colors are taken where they do.

        Raises:
            PhotoError: a photo cannot be read, the hints do not fit it, or a reference is gray.
            OptionsError: hints or references with `recompose` off, or references without a photo encoder.
        """
        references = tuple(each if isinstance(each, Reference) else self.reference(each) for each in like)
        request = Request(photo, options or ColorizeOptions(), hints or Hints(), references)
        (result,) = self.colorize_many([request], batch_size=1)
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
        """Yield results in the photos' order; a photo that cannot be read yields its `PhotoError`, the others go on.

        At most `batch_size` photos are in memory at a time; on a GPU those of one model size share a U-Net pass.

        Args:
            photos: photos, or requests where a photo has options of its own.
            options: of all photos that come without their own.
            batch_size: photos that go through the model together, where that is faster: not on a CPU.
        """
        for output in self.model_outputs(photos, options, batch_size=batch_size):
            if isinstance(output, PhotoError):
                yield output
                continue
            try:
                yield self.finish(output)
            except PhotoError as error:  # the hints do not fit the photo
                yield error

    def model_outputs(
        self,
        photos: Iterable[PhotoSource | Request],
        options: ColorizeOptions | None = None,
        *,
        batch_size: int = 8,
    ) -> Iterator[ModelOutput | PhotoError]:
        """Yield the model's half of `colorize_many`; `finish` makes a result of each, also with other options."""
        options = options or ColorizeOptions()
        requests = (photo if isinstance(photo, Request) else Request(photo, options) for photo in photos)
        together = max(1, batch_size) if self.backend.batches else 1  # one by one, more would only cost memory
        while window := list(islice(requests, together)):
            yield from self._window_outputs([self._open(each) for each in window])

    def model_output(self, photo: PhotoSource | Request, options: ColorizeOptions | None = None) -> ModelOutput:
        """Return the model's half of `colorize`.

        Raises:
            PhotoError: the photo cannot be read, or its hints do not fit it.
            ModelError: the model gives values that are not numbers.
        """
        (output,) = self.model_outputs([photo], options, batch_size=1)
        if isinstance(output, PhotoError):
            raise output
        return output

    def finish(
        self, output: ModelOutput, options: ColorizeOptions | None = None, *, chroma: np.ndarray | None = None
    ) -> ColorizeResult:
        """Return the result at the photo's full size.

        Args:
            output: of `model_outputs`.
            options: instead of the output's own: `recompose`, `strength`, `vivid`, `own_color`, `hint_reach` and
                `hint_strength`, which act here.
            chroma: instead of the output's own, see `chroma`: (h, w, 2) float32 (Cb, Cr), of any size; the output's
                hints are then ignored.

        Raises:
            PhotoError: the output's hints do not fit the photo.
            OptionsError: it has hints, and `recompose` is off.
        """
        start, photo = time.perf_counter(), output.photo
        resolved = output.options if options is None else self.info.resolve(options)
        if (output.hints or output.references) and chroma is None:
            check_recompose(resolved)
            chroma = self.hinted_chroma(output, resolved).with_hints(
                output.hints, reach=resolved.hint_reach, strength=resolved.hint_strength
            )
        if resolved.recompose:
            small = self.chroma(output, resolved) if chroma is None else chroma
            full = color.recompose(photo.gray, small, strength=resolved.strength)
        else:
            full = enlarge_raw(output.rgb, photo, resolved.strength)
        return ColorizeResult(
            rgb=full,
            photo=photo,
            prompt=resolved.prompt,
            negative_prompt=resolved.negative_prompt,
            seed=resolved.seed,
            steps=resolved.steps,
            seconds=output.seconds + time.perf_counter() - start,
            model=self.info.name,
            runtime=self.backend.runtime,
            variant=resolved.variant,
            warnings=self.backend.warnings_of(resolved),
            notes=(*notes_of(photo, resolved), *output.notes),
            restored=output.view.notes,
            provenance=self.provenance(output, resolved) if resolved.provenance else None,
        )

    def provenance(self, output: ModelOutput, options: ResolvedOptions) -> Provenance:
        """Return how a result is made, for its file."""
        sources = [
            output.colors_from,
            *(["reference"] if output.references else []),
            *(["hints"] if output.hints else []),
        ]
        hints = output.hints.to_json() if output.hints else ""
        return provenance_of_pass(self.info, options, self.model_hash, sources, hints)

    @cached_property
    def model_hash(self) -> str:
        """Of the model's weights, see `chromatune.pipeline.weights_hash`; empty where that would take long."""
        return hash_if_quick(self.info)

    def chroma(self, output: ModelOutput, options: ResolvedOptions | None = None) -> np.ndarray:
        """Return the color that is put onto the photo: (h, w, 2) float32 (Cb, Cr), at the size of the model's pass.

        Args:
            output: of `model_outputs`.
            options: instead of the output's own: `vivid` and `own_color`, which act here.
        """
        resolved = options or output.options
        chroma = color.chroma_of(output.rgb)
        if output.view.chroma_gain != 1:
            chroma *= np.float32(output.view.chroma_gain)
        chroma = color.smooth_chroma(chroma, output.view.gray, output.options.smooth)
        if resolved.vivid:  # without, as it was sampled, bit for bit
            chroma = color.vivid(chroma, resolved.vivid)
        if output.shift is not None:
            chroma = np.clip(chroma + output.shift, -0.5, 0.5)
        own = None if resolved.own_color == "replace" else output.photo.own_color
        return chroma if own is None else own.put_into(chroma, resolved.own_color)

    def hinted_chroma(self, output: ModelOutput, options: ResolvedOptions | None = None) -> HintedChroma:
        """Return the output's chroma with its correction field, for hints that change; `options` as in `chroma`.

        Raises:
            OptionsError: `recompose` is off in the output's options.
        """
        check_recompose(output.options)
        chroma = self.chroma(output, options)
        if output.features is not None:
            return HintedChroma(output.photo, chroma, output.features, output.references)
        return self.hinted(output.photo, chroma, output.options, output.references)

    def hinted(
        self,
        photo: Photo,
        chroma: np.ndarray,
        options: ColorizeOptions | ResolvedOptions | None = None,
        references: Sequence[Reference] = (),
    ) -> HintedChroma:
        """Return any chroma of a photo with its correction field.

        Args:
            photo: as it was read.
            chroma: (h, w, 2) float32, (Cb, Cr), of any size.
            options: with the short side, and the view, at which the photo encoder looks at it; by default the model's.
            references: see `Request.like`.
        """
        options = options or ColorizeOptions()
        size = self.small_size(photo.height_px, photo.width_px, options.size_px)
        features = self._features([_view(photo.gray, size, options.view).gray])
        return HintedChroma(photo, chroma, None if features is None else features[0], references)

    def reference(self, photo: PhotoSource) -> Reference:
        """Return a photo in color as a reference, to be given to requests as `like`.

        Raises:
            PhotoError: it cannot be read, or is gray.
            OptionsError: the model has no photo encoder.
        """
        read = read_source(photo)
        check_reference(read)
        view = color.restored_view(read.gray, self.small_size(read.height_px, read.width_px)).gray
        views = self._features([view, np.ascontiguousarray(view[:, ::-1])])
        if views is None or not can_compare(views[0]):
            raise OptionsError(
                f"{self.info.name} has no photo encoder, which references need; choose one that has, such as mini, "
                "or leave out the reference",
                "like",
            )
        return make_reference(read, views)

    def _features(self, views: Sequence[np.ndarray]) -> list[dict[int, np.ndarray]] | None:
        """Return the photo encoder's features of (h, w) float32 views of one size; None without a photo encoder."""
        found = self.backend.features(np.stack(views))
        return None if found is None else [_row(found, index) for index in range(len(views))]

    def _open(self, request: Request) -> _OpenRequest | PhotoError:
        options = self.info.resolve(request.options)
        if request.hints or request.like:
            check_recompose(options)
        try:
            photo = read_source(request.photo)
            request.hints.check(photo)  # before the model works on it
        except PhotoError as error:
            return error
        photo = inverted(photo) if options.invert else photo
        return _OpenRequest(photo, options, request.hints, request.like, request.levels)

    def small_size(self, height_px: int, width_px: int, size_px: int | None = None) -> tuple[int, int]:
        """Return height and width in pixels of the model's own pass, multiples of what the model can halve.

        The short side is `size_px` (by default the model's own), the other in proportion up to `MAX_ASPECT`.
        """
        multiple = self.backend.multiple_px
        short = max(multiple, round((size_px or self.info.size_px) / multiple) * multiple)
        aspect = min(MAX_ASPECT, max(height_px, width_px) / min(height_px, width_px))
        long = max(short, round(short * aspect / multiple) * multiple)
        return (short, long) if height_px <= width_px else (long, short)

    def _window_outputs(self, window: list[_OpenRequest | PhotoError]) -> Iterator[ModelOutput | PhotoError]:
        readable = {i: each for i, each in enumerate(window) if isinstance(each, _OpenRequest)}
        variants = {i: each for i, each in readable.items() if each.options.variant > 1}
        own = {i: each for i, each in readable.items() if i not in variants}
        known = {each.pass_key for each in own.values()}
        passes: dict[_PassKey, np.ndarray] = {}
        for i, each in variants.items():
            key, rgb = self._own_passes.get(each.photo, (None, None))
            if rgb is not None and key == each.pass_key:
                passes[each.pass_key] = rgb
            elif each.pass_key not in known:
                own[i] = each.with_options(dataclasses.replace(each.options, variant=1))
                known.add(each.pass_key)
        outputs = self._outputs(own)
        for i, output in outputs.items():
            passes[own[i].pass_key] = output.rgb
            if self.info.has_versions:
                self._own_passes[output.photo] = own[i].pass_key, output.rgb
        sampled = self._outputs({i: each.with_options(self.info.sampled(each.options)) for i, each in variants.items()})
        for i, each in variants.items():
            outputs[i] = _shifted(sampled[i], passes[each.pass_key], each.options)
        for index, given in enumerate(window):
            yield given if isinstance(given, PhotoError) else outputs.pop(index)

    def _outputs(self, requests: Mapping[int, _OpenRequest]) -> dict[int, ModelOutput]:
        """Take requests through the model, those together that can be; each gives one pass, whatever its variant."""
        outputs: dict[int, ModelOutput] = {}
        for size, indices in self._groups(requests):
            start = time.perf_counter()
            opened = [requests[index] for index in indices]
            views = [_view(each.photo.gray, size, each.options.view, each.levels) for each in opened]
            grays = np.stack([view.gray for view in views])  # (B, h, w)
            found = self.backend(grays, [each.options for each in opened], any(each.hinted for each in opened))
            seconds = (time.perf_counter() - start) / len(indices)
            for row, (index, each) in enumerate(zip(indices, opened, strict=True)):
                features = _row(found.features, row) if found.features and each.hinted else None
                outputs[index] = ModelOutput(
                    each.photo, found.rgb[row], each.options, seconds, views[row], each.hints, each.references, features
                )
        return outputs

    def _groups(self, requests: Mapping[int, _OpenRequest]) -> Iterator[tuple[tuple[int, int], list[int]]]:
        """Yield model size and indices of the photos that go through the model together.

        They have one size and the same options but for the seed; each is alone where the model does not batch.
        """
        groups: dict[tuple[tuple[int, int], ResolvedOptions, int | None], list[int]] = defaultdict(list)
        for index, each in requests.items():
            alone = None if self.backend.batches else index
            size = self.small_size(each.photo.height_px, each.photo.width_px, each.options.size_px)
            groups[size, dataclasses.replace(each.options, seed=0), alone].append(index)
        for (size, _, _), indices in groups.items():
            yield size, indices


@dataclass(frozen=True, eq=False)
class _OpenRequest:
    """A request whose photo has been read."""

    photo: Photo
    options: ResolvedOptions
    hints: Hints
    references: tuple[Reference, ...]
    levels: color.Levels | None

    @property
    def hinted(self) -> bool:
        """Whether the correction field will act."""
        return bool(self.hints or self.references)

    @property
    def pass_key(self) -> _PassKey:
        """What decides the model's own pass: all but what makes a variant of it, or acts after it."""
        of_pass = dataclasses.replace(
            self.options,
            variant=1,
            strength=1.0,
            vivid=0.0,
            smooth=0.0,
            own_color="replace",
            hint_reach=1.0,
            hint_strength=1.0,
            provenance=True,
        )
        return id(self.photo), of_pass, self.levels

    def with_options(self, options: ResolvedOptions) -> _OpenRequest:
        """Return the request with other options."""
        return dataclasses.replace(self, options=options)


_PassKey: TypeAlias = tuple[int, ResolvedOptions, color.Levels | None]  # photo's id, options, `Request.levels`


def _shifted(sampled: ModelOutput, own_rgb: np.ndarray, options: ResolvedOptions) -> ModelOutput:
    """Return the model's own pass as a variant: shifted by what the sampled pass decides, region by region."""
    start, view = time.perf_counter(), sampled.view
    gain = np.float32(view.chroma_gain)
    shift = color.regional_shift(gain * color.chroma_of(own_rgb), gain * color.chroma_of(sampled.rgb), view.gray)
    seconds = sampled.seconds + time.perf_counter() - start
    return dataclasses.replace(sampled, rgb=own_rgb, options=options, seconds=seconds, shift=shift)


def _view(gray: np.ndarray, size: tuple[int, int], view: str, levels: color.Levels | None = None) -> color.View:
    """Full size ⇒ model size: (H, W) uint8 or uint16 -> what the model is shown, (h, w) float32 0..1."""
    if view == "plain":
        return color.View(color.shrink(gray, size))
    return color.restored_view(gray, size, levels)


def _row(features: Features, index: int) -> dict[int, np.ndarray]:
    """Return the features of one photo of several: stride ⇒ (C, h, w)."""
    return {stride: each[index] for stride, each in features.items()}

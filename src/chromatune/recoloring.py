"""Colors of a finished picture on the photo that it was made from: `recolor("scan.tif", "finished.png")`.

No model is needed. One may give colors where the picture has none to give.
"""

from __future__ import annotations

import time

import numpy as np

from chromatune import color
from chromatune.colorizer import Colorizer
from chromatune.errors import PhotoError
from chromatune.hints import HintedChroma, Hints
from chromatune.images import Photo, Provenance, inverted
from chromatune.options import ColorizeOptions, check_recompose
from chromatune.pipeline import INSTRUCTIONS, short_name
from chromatune.results import ColorizeResult, ModelOutput, PhotoSource, Request, provenance_of, read_source

NO_MODEL = "finished picture"  # in place of a model's name
LEFT_OUT = 0.005  # share of the photo below which nothing is said of what gets no color of the picture


def recolor(
    photo: PhotoSource,
    finished: PhotoSource,
    options: ColorizeOptions | None = None,
    *,
    hints: Hints | None = None,
    colorizer: Colorizer | None = None,
) -> ColorizeResult:
    """Return a photo with the colors of a finished picture of it, and its own luminance.

    The picture may be cropped, turned by about 10°, mirrored, framed, of another size, re-toned, and redrawn in places:
    what it redrew gives no color.

    Args:
        photo: the photo, see `images.read_photo`.
        finished: the same in color, as any tool or person made it.
        options: `strength`, `hint_reach`, `hint_strength`, `invert` and `provenance` act; all with a colorizer.
        hints: colors that are known at some of the photo's pixels; they count more than the picture.
        colorizer: gives colors where the picture has none.

    Raises:
        PhotoError: one of them cannot be read, the finished picture is gray or shows something else, or hints do not
            fit the photo.
        OptionsError: `recompose` is off.
    """
    options = options or ColorizeOptions()
    check_recompose(options, "the colors of a finished picture need")
    start = time.perf_counter()
    opened = read_source(photo)
    opened = inverted(opened) if options.invert else opened
    picture = _checked(finished)
    found = aligned_colors(opened, picture, options, colorizer)
    chroma = found.chroma
    if hints:
        hinted = HintedChroma(opened, chroma)
        chroma = hinted.with_hints(hints, reach=options.hint_reach, strength=options.hint_strength)
    return ColorizeResult(
        rgb=color.recompose(opened.gray, chroma, strength=options.strength),
        photo=opened,
        prompt="",
        negative_prompt="",
        seed=options.seed,
        steps=0,
        seconds=time.perf_counter() - start,
        model=NO_MODEL if colorizer is None else colorizer.info.name,
        runtime="" if colorizer is None else colorizer.backend.runtime,
        warnings=() if colorizer is not None else left_out(options),
        notes=_notes(found, colorizer is not None),
        provenance=_provenance(options, hints, colorizer) if options.provenance else None,
    )


def finished_output(colorizer: Colorizer, photo: Photo, finished: PhotoSource, options: ColorizeOptions) -> ModelOutput:
    """Return the colors of a finished picture in place of a model's output, for edits: hints, strength, vividness.

    Args:
        colorizer: whose photo encoder compares places for hints; it gives no colors.
        photo: as it was read.
        finished: see `recolor`.
        options: see `recolor`.

    Raises:
        PhotoError: see `recolor`.
    """
    start = time.perf_counter()
    picture = _checked(finished)
    found = aligned_colors(photo, picture, options)
    view = color.View(color.shrink(photo.gray, (found.chroma.shape[0], found.chroma.shape[1])))
    own = options.model_copy(update={"vivid": 0.0, "smooth": 0.0, "own_color": "replace", "variant": 1})
    return ModelOutput(
        photo,
        color.with_chroma(view.gray, found.chroma),
        colorizer.info.resolve(own),
        time.perf_counter() - start,
        view,
        colors_from=NO_MODEL,
        notes=_notes(found, with_model=False),
        confidence=found.confidence,
    )


def aligned_colors(
    photo: Photo, finished: Photo, options: ColorizeOptions, colorizer: Colorizer | None = None
) -> color.Aligned:
    """Return the colors of a finished picture on a photo, and how far each is to be believed.

    Raises:
        PhotoError: the picture shows something else.
    """
    elsewhere = None
    if colorizer is not None:
        elsewhere = colorizer.chroma(colorizer.model_output(Request(photo, options)))
    assert finished.rgb is not None
    return color.take_colors(photo.gray, finished.rgb, finished.name, elsewhere)


def left_out(options: ColorizeOptions) -> tuple[str, ...]:
    """Return a line on options that only a model follows, where there is none; usually no line."""
    given = [text for name, text in INSTRUCTIONS.items() if name in options.model_fields_set and getattr(options, name)]
    return (f"no model is used, so {', '.join(given)} is left out; --model names one",) if given else ()


def _provenance(options: ColorizeOptions, hints: Hints | None, colorizer: Colorizer | None) -> Provenance:
    sources = ["finished picture", *(["model"] if colorizer is not None else []), *(["hints"] if hints else [])]
    return provenance_of(
        sources,
        options=options.model_dump(exclude_defaults=True),
        model="" if colorizer is None else short_name(colorizer.info),
        model_hash="" if colorizer is None else colorizer.model_hash,
        hints=hints.to_json() if hints else "",
    )


def _notes(found: color.Aligned, with_model: bool) -> tuple[str, ...]:
    """Return a line on what of the photo gets no color of the picture."""
    missing = missing_share(found.confidence)
    if missing < LEFT_OUT:
        return ()
    source = "the model" if with_model else "what lies around"
    return (f"{missing:.0%} of it is not in the finished picture, or was redrawn there, and is colored by {source}",)


def missing_share(confidence: np.ndarray) -> float:
    """Return the share of a photo, 0..1, that gets no color of the finished picture: see `color.Aligned`."""
    return float(np.mean(confidence < color.LEAST_WEIGHT))


def _checked(finished: PhotoSource) -> Photo:
    picture = read_source(finished)
    if picture.rgb is None or color.is_toned(picture.rgb):
        raise PhotoError(f"{picture.name}: is gray; give a picture in color")
    return picture

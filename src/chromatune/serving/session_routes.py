"""Sessions: a photo that is changed again and again; the page uses them."""

from __future__ import annotations

from typing import Annotated

from fastapi import Body, FastAPI, File, Form, Path, Query, Request, Response, UploadFile
from pydantic import BaseModel, ConfigDict, Field

from chromatune.errors import OptionsError
from chromatune.hints import Hints
from chromatune.options import ColorizeOptions
from chromatune.serving.answers import (
    CHANGES,
    PICTURES,
    UPLOADS,
    failures,
    file_name,
    in_time,
    parsed_options,
    picture,
    references_of,
)
from chromatune.serving.metrics import Metrics
from chromatune.serving.predictor import Change, Kept, Predictor, Work
from chromatune.serving.settings import ServeSettings
from chromatune.serving.shelf import Shelf

LONGEST_ID = 64
Key = Annotated[str, Path(max_length=LONGEST_ID, description="Of a session.")]
NOT_KEPT = "this photo is not kept any more; send it again"


class Version(BaseModel):
    """One pass of the model over a photo."""

    version: int
    facts: dict[str, str | int | float | list[str]] = Field(description="Model, prompt, seed, steps, warnings.")


class Session(Version):
    """A photo that is kept, and its first version."""

    id: str


class NewVersion(BaseModel):
    """How to take the photo through the model again."""

    model_config = ConfigDict(extra="forbid")

    model: str | None = Field(None, max_length=1000, description="A model on offer; the first by default.")
    options: ColorizeOptions = ColorizeOptions()


class Wish(BaseModel):
    """How the photo is wanted; nothing of this takes a pass of the model."""

    model_config = ConfigDict(extra="forbid")

    version: int | None = Field(None, description="Which pass; the last one by default.")
    hints: Hints = Field(Hints(), description="Strokes, points and layers; see `Hints.to_json`.")
    strength: float | None = Field(None, ge=0, le=1, description="Amount of color; 0 is the photo as it was.")
    vivid: float | None = Field(None, ge=0, le=2, description="How much is added to colors the model is unsure of.")
    hint_reach: float | None = Field(None, ge=0.1, le=10, description="How far hints act.")
    hint_strength: float | None = Field(None, ge=0, le=1, description="How much of the hints' correction is made.")

    def change(self) -> Change:
        """The same for a predictor."""
        return Change(self.version, self.hints, self.strength, self.vivid, self.hint_reach, self.hint_strength)


class PreviewWish(Wish):
    """How the photo is wanted on a screen."""

    max_pixels: int = Field(1_000_000, ge=1000, description="It is made smaller where it has more.")


class Suggestions(BaseModel):
    """Colors for a point, the most plausible first."""

    colors: list[str]


def add_sessions(app: FastAPI, predictor: Predictor, settings: ServeSettings, metrics: Metrics) -> Shelf[Kept]:
    """The routes, and what they keep."""
    shelf = Shelf[Kept](settings.sessions, settings.session_minutes, NOT_KEPT)
    _add_opening(app, predictor, settings, shelf, metrics)
    _add_changes(app, settings, shelf, metrics)
    return shelf


def _add_opening(
    app: FastAPI, predictor: Predictor, settings: ServeSettings, shelf: Shelf[Kept], metrics: Metrics
) -> None:
    @app.post("/v1/sessions", status_code=201, summary="Open a photo for changes", responses=failures(*UPLOADS))
    async def open_session(
        request: Request,
        photo: Annotated[UploadFile, File(description="A photo, in any format that is read.")],
        options: Annotated[str, Form(description="Options as a JSON object; those of ColorizeOptions.")] = "{}",
        model: Annotated[str | None, Form(description="A model on offer; the first by default.")] = None,
        reference: Annotated[
            list[UploadFile] | None, File(description="Photos in color that show the same things.")
        ] = None,
    ) -> Session:
        """Reads the photo and takes it through the model once; changes come by the id.

        It is kept for some time after its last use, and for as long as there are not too many.
        """
        asked = parsed_options(options)
        if not asked.recompose:
            raise OptionsError("recompose=False: a session has the photo's own luminance; use /v1/colorize")
        work = Work(
            await photo.read(), file_name(photo.filename), model or settings.models[0], asked,
            references=await references_of(reference), max_pixels=settings.max_pixels,
        )  # fmt: skip
        kept = await in_time(request, predictor.keep(work), settings.timeout_s)
        metrics.photos.inc()
        return Session(id=shelf.add(kept), version=kept.version, facts=kept.facts)

    @app.post(
        "/v1/sessions/{key}/versions",
        status_code=201,
        summary="Take the photo through the model again",
        responses=failures(*CHANGES),
    )
    async def add_version(request: Request, key: Key, wanted: Annotated[NewVersion, Body()]) -> Version:
        """Another seed, other words, another model; the oldest of many versions is let go."""
        if not wanted.options.recompose:
            raise OptionsError("recompose=False: a session has the photo's own luminance; use /v1/colorize")
        adding = shelf.get(key).add(wanted.model or settings.models[0], wanted.options)
        number, facts = await in_time(request, adding, settings.timeout_s)
        metrics.photos.inc()
        return Version(version=number, facts=facts)

    @app.delete(
        "/v1/sessions/{key}", status_code=204, summary="Let the photo go", response_class=Response,
        responses=failures(404, 422),
    )  # fmt: skip
    async def close_session(key: Key) -> Response:
        shelf.remove(key)
        return Response(status_code=204)


def _add_changes(app: FastAPI, settings: ServeSettings, shelf: Shelf[Kept], metrics: Metrics) -> None:
    @app.post(
        "/v1/sessions/{key}/preview",
        summary="The photo for a screen",
        response_class=Response,
        responses={200: PICTURES, **failures(*CHANGES)},
    )
    async def preview(request: Request, key: Key, wish: Annotated[PreviewWish, Body()]) -> Response:
        """JPEG, or PNG where the photo has transparency; with a strength of 0, the photo as it was."""
        most = min(wish.max_pixels, settings.max_pixels)
        working = shelf.get(key).preview(wish.change(), most)
        with metrics.previews.time():
            return picture(await in_time(request, working, settings.timeout_s))

    @app.post(
        "/v1/sessions/{key}/result",
        summary="The finished photo",
        response_class=Response,
        responses={200: PICTURES, **failures(*CHANGES)},
    )
    async def result(request: Request, key: Key, wish: Annotated[Wish, Body()]) -> Response:
        """The file at full size, the same as /v1/colorize gives for all options and hints together."""
        working = shelf.get(key).finish(wish.change())
        return picture(await in_time(request, working, settings.timeout_s), "attachment")

    @app.get(
        "/v1/sessions/{key}/suggestions",
        summary="Colors for a point",
        responses=failures(400, 404, 422, 429, 503, 504),
    )
    async def suggestions(
        request: Request,
        key: Key,
        x: Annotated[float, Query(description="Pixels from the photo's left edge.", allow_inf_nan=False)],
        y: Annotated[float, Query(description="Pixels from its top.", allow_inf_nan=False)],
        version: Annotated[int | None, Query(description="Whose own color comes first; the last by default.")] = None,
    ) -> Suggestions:
        """What the model gives there, in its own words and in others; the first one of a photo takes seconds."""
        found = await in_time(request, shelf.get(key).suggestions(x, y, version), settings.timeout_s)
        return Suggestions(colors=found)

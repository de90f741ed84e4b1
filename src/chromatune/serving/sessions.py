"""Sessions over HTTP: a photo that is opened once and edited many times; the page uses them."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Body, FastAPI, File, Path, Query, Request, Response, UploadFile
from pydantic import BaseModel, ConfigDict, Field

from chromatune.options import ColorizeOptions, check_recompose
from chromatune.serving.bodies import MAX_JSON_MB, bounded_route, stored
from chromatune.serving.middleware import Metrics
from chromatune.serving.predictor import ColorizeRequest, EditRequest, Facts, Predictor, Session, bytes_of
from chromatune.serving.responses import (
    EDITS,
    PHOTO_FORM,
    PICTURES,
    STROKES,
    UPLOADS,
    ModelField,
    OptionsField,
    PhotoField,
    ReferenceField,
    example,
    failures,
    file_name,
    image_response,
    in_time,
    named_files,
    parsed_options,
    photo_route,
)
from chromatune.serving.settings import ServeSettings
from chromatune.serving.store import SessionStore

Key = Annotated[str, Path(max_length=64, description="Id of a session.")]
MAX_EDIT_MB = 10.0  # of an edit: its hints may hold painted layers
NOT_OPEN = "this photo is no longer open; send it again"


EXAMPLE_EDIT = {"strength": 0.8, "hints": STROKES}
VERSION = Body(openapi_examples=example({"options": {"prompt": "colorize the photo, warm colors", "seed": 7}}))
EDIT = Body(openapi_examples=example(EXAMPLE_EDIT))
PREVIEW = Body(openapi_examples=example(EXAMPLE_EDIT | {"max_pixels": 250_000}))

ACROSS = Query(description="Pixels from the left edge.", allow_inf_nan=False, openapi_examples=example(40))
DOWN = Query(description="Pixels from the top.", allow_inf_nan=False, openapi_examples=example(30))


class VersionResponse(BaseModel):
    """One run of the model over a photo."""

    version: int
    facts: Facts = Field(
        description="Model, prompt, seed, variant, steps, warnings; how far it departs from variant 1."
    )


class SessionResponse(VersionResponse):
    """An open photo and its first version."""

    id: str


class VersionRequest(BaseModel):
    """Model and options of another run of the model."""

    model_config = ConfigDict(extra="forbid")

    model: str | None = Field(
        default=None, max_length=1000, description="One of the models offered; without it, the first."
    )
    options: ColorizeOptions = ColorizeOptions()


class PreviewRequest(EditRequest):
    """An edit, and the largest size of its preview."""

    max_pixels: int = Field(default=1_000_000, ge=1000, description="Larger previews are scaled down to it.")


class SuggestionsResponse(BaseModel):
    """Colors for a point, the most plausible first."""

    colors: list[str]
    colours: list[str] = Field(deprecated=True, description="The same; until version 0.3.")


def add_session_routes(
    app: FastAPI, predictor: Predictor, settings: ServeSettings, metrics: Metrics
) -> SessionStore[Session]:
    """Add the routes of sessions, and return the store that they use."""
    store = SessionStore[Session](
        settings.sessions, settings.session_minutes, NOT_OPEN, size_of=lambda session: session.nbytes,
        max_bytes=settings.max_sessions_mb * 1e6,
    )  # fmt: skip
    _add_versions(app, predictor, settings, store, metrics)
    _add_edits(app, settings, store, metrics)
    return store


def _add_versions(
    app: FastAPI, predictor: Predictor, settings: ServeSettings, store: SessionStore[Session], metrics: Metrics
) -> None:
    photos = APIRouter(route_class=photo_route(predictor, settings))
    values = APIRouter(route_class=bounded_route(MAX_JSON_MB, settings.timeout_s))

    @photos.post(
        "/v1/sessions",
        status_code=201,
        summary="Open a photo for edits",
        responses=failures(*UPLOADS),
        form_limits=PHOTO_FORM,
    )
    async def open_session(
        request: Request,
        photo: PhotoField,
        reference: ReferenceField,
        options: OptionsField = "{}",
        model: ModelField = "",
    ) -> SessionResponse:
        """Read the photo and run the model once; edits name the session's id.

        A session expires some time after its last use, or when too many later ones are open.
        """
        parsed = parsed_options(options)
        check_recompose(parsed, "a session needs")
        opening = ColorizeRequest(
            stored(photo).content, file_name(photo.filename), model or settings.models[0], parsed,
            references=named_files(reference), max_pixels=settings.max_pixels,
        )  # fmt: skip
        session = await in_time(request, predictor.open_session(opening), settings.timeout_s)
        metrics.photos.inc()
        return SessionResponse(id=store.add(session), version=session.version, facts=session.facts)

    @values.post(
        "/v1/sessions/{key}/versions",
        status_code=201,
        summary="Run the model again",
        responses=failures(*EDITS),
    )
    async def add_version(request: Request, key: Key, wanted: Annotated[VersionRequest, VERSION]) -> VersionResponse:
        """Another variant, seed, prompt or model; of many versions the oldest is dropped."""
        check_recompose(wanted.options, "a session needs")
        adding = store.get(key).add_version(wanted.model or settings.models[0], wanted.options)
        number, facts = await in_time(request, adding, settings.timeout_s)
        metrics.photos.inc()
        return VersionResponse(version=number, facts=facts)

    @photos.post(
        "/v1/sessions/{key}/finished",
        status_code=201,
        summary="Take the colors of a finished picture",
        responses=failures(404, *UPLOADS),
        form_limits=PHOTO_FORM,
    )
    async def add_finished(
        request: Request, key: Key, picture: Annotated[UploadFile, File(description="The same photo in color.")]
    ) -> VersionResponse:
        """Another version, whose colors are those of a picture that was made from the photo by any tool."""
        session, content = store.get(key), await asyncio.to_thread(bytes_of, stored(picture).content)
        adding = session.add_finished(file_name(picture.filename), content)
        number, facts = await in_time(request, adding, settings.timeout_s)
        return VersionResponse(version=number, facts=facts)

    @app.delete(
        "/v1/sessions/{key}", status_code=204, summary="Close a session", response_class=Response,
        responses=failures(404, 422),
    )  # fmt: skip
    async def close_session(key: Key) -> Response:
        store.remove(key)
        return Response(status_code=204)

    app.include_router(photos)
    app.include_router(values)


def _add_edits(app: FastAPI, settings: ServeSettings, store: SessionStore[Session], metrics: Metrics) -> None:
    edits = APIRouter(route_class=bounded_route(MAX_EDIT_MB, settings.timeout_s))

    @edits.post(
        "/v1/sessions/{key}/preview",
        summary="A preview of the edited photo",
        response_class=Response,
        responses={200: PICTURES, **failures(*EDITS)},
    )
    async def preview(request: Request, key: Key, edit: Annotated[PreviewRequest, PREVIEW]) -> Response:
        """JPEG, or PNG where the photo has transparency; with strength 0, it is gray."""
        working = store.get(key).preview(edit, min(edit.max_pixels, settings.max_pixels))
        with metrics.previews.time():
            return await image_response(await in_time(request, working, settings.timeout_s))

    @edits.post(
        "/v1/sessions/{key}/result",
        summary="The finished photo",
        response_class=Response,
        responses={200: PICTURES, **failures(*EDITS)},
    )
    async def result(request: Request, key: Key, edit: Annotated[EditRequest, EDIT]) -> Response:
        """The file at full size, the same as /v1/colorize gives for all options and hints together."""
        working = store.get(key).finish(edit)
        return await image_response(await in_time(request, working, settings.timeout_s), "attachment")

    app.include_router(edits)

    @app.get(
        "/v1/sessions/{key}/original",
        summary="The photo as it was",
        response_class=Response,
        responses={200: PICTURES, **failures(404, 422, 429, 503, 504)},
    )
    async def original(
        request: Request,
        key: Key,
        max_pixels: Annotated[int, Query(ge=1000, description="A larger photo is scaled down to it.")] = 1_000_000,
    ) -> Response:
        """JPEG, or PNG where the photo has transparency, upright and with its own colors, for a screen."""
        working = store.get(key).original(min(max_pixels, settings.max_pixels))
        return await image_response(await in_time(request, working, settings.timeout_s))

    @app.get(
        "/v1/sessions/{key}/confidence",
        summary="Where a finished picture gives its colors",
        response_class=Response,
        responses={200: PICTURES, **failures(400, 404, 422, 429, 503, 504)},
    )
    async def confidence(
        request: Request,
        key: Key,
        version: Annotated[int | None, Query(description="Of a finished picture; by default the last one.")] = None,
    ) -> Response:
        """PNG of the photo's aspect: transparent where the picture's colors are taken, black where it has none."""
        working = store.get(key).confidence(version)
        return await image_response(await in_time(request, working, settings.timeout_s))

    @app.get(
        "/v1/sessions/{key}/suggestions",
        summary="Colors for a point",
        responses=failures(400, 404, 422, 429, 503, 504),
    )
    async def suggestions(
        request: Request,
        key: Key,
        x: Annotated[
            float, Query(description="Pixels from the left edge.", allow_inf_nan=False, openapi_examples=example(40))
        ],
        y: Annotated[
            float, Query(description="Pixels from the top.", allow_inf_nan=False, openapi_examples=example(30))
        ],
        version: Annotated[int | None, Query(description="Version whose color comes first, or the last.")] = None,
    ) -> SuggestionsResponse:
        """The model's colors there, for its own prompt and for others; a photo's first point takes seconds."""
        found = await in_time(request, store.get(key).suggestions(x, y, version), settings.timeout_s)
        return SuggestionsResponse(colors=found, colours=found)

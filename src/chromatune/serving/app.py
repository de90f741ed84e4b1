"""The app: the page, the API with its description, and metrics, over any predictor."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, File, Form, Request, Response, UploadFile
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, Field

import chromatune
from chromatune.errors import ChromaTuneError
from chromatune.serving.batches import add_batch_routes
from chromatune.serving.bodies import stored
from chromatune.serving.local import without_paths
from chromatune.serving.middleware import Guard, Metrics
from chromatune.serving.predictor import ColorizeRequest, Predictor, edit_limits
from chromatune.serving.responses import (
    PHOTO_FORM,
    PICTURES,
    UPLOADS,
    HintsField,
    LayerField,
    ModelField,
    OptionsField,
    PhotoField,
    ReferenceField,
    add_error_handlers,
    failures,
    file_name,
    image_response,
    in_time,
    named_files,
    parsed_options,
    photo_route,
)
from chromatune.serving.sessions import add_session_routes
from chromatune.serving.settings import ServeSettings
from chromatune.serving.store import SessionStore
from chromatune.serving.video_jobs import Videos
from chromatune.serving.videos import add_video_routes

PAGE = Path(__file__).with_name("page")
CLEAN_UP_S = 30  # between two removals of expired entries


class Limits(BaseModel):
    """Smallest and largest value of an option."""

    minimum: float
    maximum: float


class ModelDetails(BaseModel):
    """What a model is, and what it follows."""

    name: str = Field(description="What requests call it.")
    label: str = Field(description="What people call it: the name of the run that trained it, else the same.")
    family: str = Field(description="Such as InstructPix2Pix or DDColor.")
    description: str
    license: str = Field(description="Of its weights, as far as its files say.")
    follows: list[str] = Field(description="Options that instruct it; others, such as `strength`, work with all.")


class Models(BaseModel):
    """Models offered, and limits of options."""

    models: list[str] = Field(description="Names, the default first.")
    details: list[ModelDetails] = Field(description="Of those whose files are on the server's machine.")
    compared: list[str] = Field(description="Models whose results the page shows side by side.")
    limits: dict[str, Limits] = Field(description="Of the numbers among the options that edits of a session change.")


class Status(BaseModel):
    """Whether the server accepts photos."""

    status: str
    detail: str = ""


def create_app(predictor: Predictor, settings: ServeSettings) -> FastAPI:
    """Return the app over a predictor.

    Args:
        predictor: colorizes; it is started with the app and stopped after its last response.
        settings: limits, token and names.
    """
    metrics = Metrics(lambda: predictor.waiting)
    stores: list[SessionStore[Any]] = []

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        predictor.start()
        cleaning = asyncio.create_task(_clean_up(stores, predictor))
        yield
        cleaning.cancel()
        for store in stores:
            store.clear()
        await asyncio.to_thread(videos.stop)
        await asyncio.to_thread(predictor.stop)

    app = FastAPI(
        title="ChromaTune",
        version=chromatune.__version__,
        description="Colorizes black-and-white photographs; every pixel keeps its luminance.",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.predictor = predictor
    add_error_handlers(app)
    _add_operations(app, predictor, metrics)
    _add_colorize(app, predictor, settings, metrics)
    videos = Videos(settings)
    stores.append(add_session_routes(app, predictor, settings, metrics))
    stores.append(add_batch_routes(app, predictor, settings, metrics))
    add_video_routes(app, videos, settings)
    stores.append(videos.store)
    _add_pages(app)
    app.add_middleware(Guard, settings=settings, state=lambda: predictor.state)
    app.add_middleware(metrics.wrap)  # outermost: added last
    return app


async def _clean_up(stores: list[SessionStore[Any]], predictor: Predictor) -> None:
    while True:
        await asyncio.sleep(CLEAN_UP_S)
        for store in stores:
            store.remove_expired()
        await asyncio.to_thread(predictor.free_idle)


def _add_colorize(app: FastAPI, predictor: Predictor, settings: ServeSettings, metrics: Metrics) -> None:
    limits = {name: Limits(**ends) for name, ends in edit_limits().items()}

    @app.get("/v1/models", summary="Models offered, and limits of options", responses=failures())
    async def models() -> Models:
        details = await asyncio.to_thread(_details_of, predictor, settings)
        return Models(models=list(settings.models), details=details, compared=list(settings.compared), limits=limits)

    pictures = {"content": {**PICTURES["content"], "application/json": {}}}

    router = APIRouter(route_class=photo_route(predictor, settings))

    async def answer(request: Request, wanted: ColorizeRequest) -> Response:
        image = await in_time(request, predictor.colorize(wanted), settings.timeout_s)
        metrics.photos.inc()
        if "application/json" in request.headers.get("accept", ""):
            return JSONResponse(image.facts)
        return await image_response(image)

    @router.post(
        "/v1/colorize",
        summary="Colorize a photo",
        response_class=Response,
        form_limits=PHOTO_FORM,
        responses={200: pictures, **failures(*UPLOADS)},
    )
    async def colorize(
        request: Request,
        photo: PhotoField,
        reference: ReferenceField,
        options: OptionsField = "{}",
        model: ModelField = "",
        hints: HintsField = "",
        hints_layer: LayerField = None,
    ) -> Response:
        """The colored photo, in the photo's own format where it holds color, with facts in headers.

        With `Accept: application/json`, the facts alone.
        """
        to_colorize = ColorizeRequest(
            photo=stored(photo).content,
            name=file_name(photo.filename),
            model=model or settings.models[0],
            options=parsed_options(options),
            hints=hints,
            hints_layer=named_files([hints_layer])[0] if hints_layer else None,
            references=named_files(reference),
            max_pixels=settings.max_pixels,
        )
        return await answer(request, to_colorize)

    @router.post(
        "/v1/recolor",
        summary="Give a photo the colors of a finished picture",
        response_class=Response,
        form_limits=PHOTO_FORM,
        responses={200: pictures, **failures(*UPLOADS)},
    )
    async def recolor(
        request: Request,
        photo: PhotoField,
        finished: Annotated[UploadFile, File(description="The same photo in color, as any tool or person made it.")],
        options: OptionsField = "{}",
        model: Annotated[
            str, Form(description="One of the models offered, for what the picture does not show; without it, none.")
        ] = "",
        hints: HintsField = "",
        hints_layer: LayerField = None,
    ) -> Response:
        """The photo with its own luminance and the picture's colors, in the photo's own format where it holds color.

        With `Accept: application/json`, the facts alone.
        """
        to_recolor = ColorizeRequest(
            photo=stored(photo).content,
            name=file_name(photo.filename),
            model=model,
            options=parsed_options(options),
            hints=hints,
            hints_layer=named_files([hints_layer])[0] if hints_layer else None,
            finished=(file_name(finished.filename), stored(finished).content),
            max_pixels=settings.max_pixels,
        )
        return await answer(request, to_recolor)

    app.include_router(router)


def _details_of(predictor: Predictor, settings: ServeSettings) -> list[ModelDetails]:
    """Return what is known of the models offered; one that cannot be used is left out, and using it says why."""
    details = []
    for name in settings.models:
        with contextlib.suppress(ChromaTuneError):
            if info := predictor.describe(name):
                details.append(
                    ModelDetails(
                        name=name, label=info.label or name, family=info.family, license=info.license,
                        follows=sorted(info.follows),
                        description=without_paths(info.description.replace(str(info.path), name)),
                    )
                )  # fmt: skip
    return details


def _add_operations(app: FastAPI, predictor: Predictor, metrics: Metrics) -> None:
    @app.head("/healthz", include_in_schema=False)
    @app.get("/healthz", summary="Whether the server is alive", responses=failures())
    async def healthz() -> Status:
        return Status(status="ok")

    @app.head("/readyz", include_in_schema=False)
    @app.get("/readyz", summary="Whether the model is loaded", responses={503: {"model": Status}, **failures()})
    async def readyz(response: Response) -> Status:
        state = predictor.state
        response.status_code = 200 if state.name == "ready" else 503
        return Status(status=state.name, detail=state.reason)

    text = {"content": {"text/plain": {"schema": {"type": "string"}}}}

    @app.get("/metrics", summary="Metrics for Prometheus", response_class=Response, responses={200: text, **failures()})
    async def prometheus_metrics() -> Response:
        return Response(metrics.text(), media_type=metrics.MEDIA_TYPE)


def _add_pages(app: FastAPI) -> None:
    from fastapi_offline import __file__ as offline  # Swagger UI's own files: nothing is fetched from elsewhere

    app.mount("/docs/assets", StaticFiles(directory=Path(offline).parent / "static"))
    app.mount("/page", StaticFiles(directory=PAGE))

    @app.head("/docs", include_in_schema=False)
    @app.get("/docs", include_in_schema=False)
    async def docs() -> FileResponse:
        return FileResponse(PAGE / "docs.html")

    @app.head("/", include_in_schema=False)
    @app.get("/", include_in_schema=False)
    async def index() -> FileResponse:
        return FileResponse(PAGE / "index.html")

"""The app: routes over a predictor, whoever computes. `create_app` is what a server of any kind runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

from fastapi import FastAPI, File, Form, Request, Response, UploadFile
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel

import chromatune
from chromatune.hints import Hints
from chromatune.serving.answers import (
    PICTURES,
    UPLOADS,
    add_failures,
    failures,
    file_name,
    in_time,
    parsed_options,
    picture,
    references_of,
)
from chromatune.serving.batch_routes import add_batches
from chromatune.serving.guard import Guard
from chromatune.serving.metrics import Metrics
from chromatune.serving.predictor import Predictor, Work
from chromatune.serving.session_routes import add_sessions
from chromatune.serving.settings import ServeSettings
from chromatune.serving.shelf import Shelf
from chromatune.serving.video_routes import add_videos
from chromatune.serving.videos import Videos

PAGE = Path(__file__).with_name("page")
TIDY_S = 30  # how often what is too old is taken away


class Models(BaseModel):
    """Names of models, the default first."""

    models: list[str]


class Status(BaseModel):
    """Whether the server takes work."""

    status: str
    detail: str = ""


def create_app(predictor: Predictor, settings: ServeSettings) -> FastAPI:
    """The app over a predictor: the page, the API, its description and its measures.

    Args:
        predictor: colorizes; it is started with the app and stopped after its last answer.
        settings: limits, token and names.
    """
    metrics = Metrics(lambda: predictor.waiting)
    shelves: list[Shelf] = []

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        predictor.start()
        tidying = asyncio.create_task(_tidy(shelves, predictor))
        yield
        tidying.cancel()
        for shelf in shelves:
            shelf.clear()
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
    add_failures(app)
    _add_operations(app, predictor, metrics)
    _add_colorize(app, predictor, settings, metrics)
    videos = Videos(settings)
    shelves += [add_sessions(app, predictor, settings, metrics), add_batches(app, predictor, settings, metrics)]
    shelves.append(videos.shelf)
    add_videos(app, videos, settings)
    _add_pages(app)
    app.add_middleware(Guard, settings=settings, state=lambda: predictor.state)
    app.add_middleware(metrics.around)  # outermost: added last
    return app


async def _tidy(shelves: list[Shelf], predictor: Predictor) -> None:
    while True:
        await asyncio.sleep(TIDY_S)
        for shelf in shelves:
            shelf.tidy()
        await asyncio.to_thread(predictor.tidy)


def _add_colorize(app: FastAPI, predictor: Predictor, settings: ServeSettings, metrics: Metrics) -> None:
    @app.get("/v1/models", summary="Models on offer, the default first", responses=failures())
    async def models() -> Models:
        return Models(models=list(settings.models))

    pictures = {"content": {**PICTURES["content"], "application/json": {}}}

    @app.post(
        "/v1/colorize",
        summary="Colorize a photo",
        response_class=Response,
        responses={200: pictures, **failures(*UPLOADS)},
    )
    async def colorize(
        request: Request,
        photo: Annotated[UploadFile, File(description="A photo, in any format that is read.")],
        options: Annotated[str, Form(description="Options as a JSON object; those of ColorizeOptions.")] = "{}",
        model: Annotated[str | None, Form(description="A model on offer; the first by default.")] = None,
        hints: Annotated[str, Form(description="Strokes, points and layers as JSON; see `Hints.to_json`.")] = "",
        hints_layer: Annotated[
            UploadFile | None, File(description="Hints painted on a transparent picture of the photo's aspect.")
        ] = None,
        reference: Annotated[
            list[UploadFile] | None, File(description="Photos in color that show the same things.")
        ] = None,
    ) -> Response:
        """The colored photo, in the photo's own format where it holds color, with facts in headers.

        With `Accept: application/json`, the facts alone.
        """
        work = Work(
            photo=await photo.read(),
            name=file_name(photo.filename),
            model=model or settings.models[0],
            options=parsed_options(options),
            hints=await _hints(hints, hints_layer, settings.max_pixels),
            references=await references_of(reference),
            max_pixels=settings.max_pixels,
        )
        answer = await in_time(request, predictor.colorize(work), settings.timeout_s)
        metrics.photos.inc()
        if "application/json" in request.headers.get("accept", ""):
            return JSONResponse(answer.facts)
        return picture(answer)


async def _hints(text: str, layer: UploadFile | None, max_pixels: int) -> Hints:
    """Hints of a request; what is in the JSON lies above the layer.

    Raises:
        OptionsError: the JSON says what is no hint.
        PhotoError: the layer is no picture with transparency, or too large.
    """
    said = await asyncio.to_thread(Hints.from_json, text) if text else Hints()
    if layer is None:
        return said
    data, name = await layer.read(), file_name(layer.filename)
    return await asyncio.to_thread(Hints.from_layer, data, name=name, max_pixels=max_pixels) + said


def _add_operations(app: FastAPI, predictor: Predictor, metrics: Metrics) -> None:
    @app.get("/healthz", summary="Whether the server lives", responses=failures())
    async def healthz() -> Status:
        return Status(status="ok")

    @app.get("/readyz", summary="Whether the model is loaded", responses={503: {"model": Status}, **failures()})
    async def readyz(response: Response) -> Status:
        state = predictor.state
        response.status_code = 200 if state.name == "ready" else 503
        return Status(status=state.name, detail=state.reason)

    text = {"content": {"text/plain": {"schema": {"type": "string"}}}}

    @app.get(
        "/metrics", summary="Measures for Prometheus", response_class=Response, responses={200: text, **failures()}
    )
    async def measures() -> Response:
        return Response(metrics.text(), media_type=metrics.MEDIA_TYPE)


def _add_pages(app: FastAPI) -> None:
    from fastapi_offline import __file__ as offline  # Swagger UI's own files: nothing is fetched from elsewhere

    app.mount("/docs/assets", StaticFiles(directory=Path(offline).parent / "static"))
    app.mount("/page", StaticFiles(directory=PAGE))

    @app.get("/docs", include_in_schema=False)
    async def docs() -> FileResponse:
        return FileResponse(PAGE / "docs.html")

    @app.get("/", include_in_schema=False)
    async def index() -> FileResponse:
        return FileResponse(PAGE / "index.html")

"""The app: routes over a predictor, whoever computes. `create_app` is what a server of any kind runs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, TypeVar
from urllib.parse import quote

from fastapi import FastAPI, File, Form, Request, Response, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles

import chromatune
from chromatune.errors import ChromaTuneError, ModelError, OptionsError, PhotoError
from chromatune.options import ColorizeOptions, make_options
from chromatune.serving.guard import Guard, retry_after
from chromatune.serving.metrics import Metrics
from chromatune.serving.predictor import Answer, Predictor, QueueFull, Work
from chromatune.serving.settings import ServeSettings

PAGE = Path(__file__).with_name("page")
NO_PICTURE = "a photo as a file is needed; the field is called photo"
MEDIA_TYPES = {
    ".jpg": "image/jpeg", ".png": "image/png", ".tif": "image/tiff", ".webp": "image/webp", ".bmp": "image/bmp",
}  # fmt: skip
LONGEST_HEADER = 1000  # characters of a fact in a header
FAILURES: dict[int | str, dict[str, Any]] = {
    400: {"description": "The photo cannot be read; `detail` is the command line's own line."},
    401: {"description": "A token is needed."},
    403: {"description": "The request comes from elsewhere."},
    408: {"description": "The upload took too long."},
    413: {"description": "The request is too large."},
    415: {"description": "The file is no picture."},
    422: {"description": "An option is wrong."},
    429: {"description": "Too many photos wait; `Retry-After` says when to come again."},
    503: {"description": "The model is loading, or could not be loaded."},
    504: {"description": "The answer took too long."},
}

T = TypeVar("T")


def create_app(predictor: Predictor, settings: ServeSettings) -> FastAPI:
    """The app over a predictor: the page, the API, its description and its measures.

    Args:
        predictor: colorizes; it is started with the app and stopped after its last answer.
        settings: limits, token and names.
    """
    metrics = Metrics(lambda: predictor.waiting)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        predictor.start()
        yield
        await asyncio.to_thread(predictor.stop)

    app = FastAPI(
        title="ChromaTune",
        version=chromatune.__version__,
        description="Colorizes black-and-white photographs; every pixel keeps its luminance.",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.predictor, app.state.settings, app.state.metrics = predictor, settings, metrics
    app.middleware("http")(metrics.measure)
    app.add_middleware(Guard, settings=settings)  # outermost: added last
    _add_failures(app)
    _add_operations(app, predictor, metrics)
    _add_colorize(app, predictor, settings, metrics)
    _add_pages(app)
    return app


def _add_colorize(app: FastAPI, predictor: Predictor, settings: ServeSettings, metrics: Metrics) -> None:
    @app.get("/v1/models", summary="Models on offer, the default first", responses={401: FAILURES[401]})
    def models() -> dict[str, list[str]]:
        return {"models": list(settings.models)}

    @app.post(
        "/v1/colorize",
        summary="Colorize a photo",
        response_class=Response,
        responses={200: {"content": {"image/*": {}, "application/json": {}}}, **FAILURES},
    )
    async def colorize(
        request: Request,
        photo: Annotated[UploadFile, File(description="A photo, in any format that is read.")],
        options: Annotated[str, Form(description="Options as a JSON object; those of ColorizeOptions.")] = "{}",
        model: Annotated[str | None, Form(description="A model on offer; the first by default.")] = None,
    ) -> Response:
        """The coloured photo, in the photo's own format where it holds colour, with facts in headers.

        With `Accept: application/json`, the facts alone.
        """
        work = Work(
            photo=await photo.read(),
            name=Path(photo.filename or "photo").name[:200] or "photo",
            model=model or settings.models[0],
            options=parsed_options(options),
            max_pixels=round(settings.max_megapixels * 1e6),
        )
        answer = await in_time(request, predictor.colorize(work), settings.timeout_s)
        metrics.photos.inc()
        if "application/json" in request.headers.get("accept", ""):
            return JSONResponse(answer.facts)
        return picture(answer)


def parsed_options(text: str) -> ColorizeOptions:
    """Options from JSON, held to the limits that the command line's are held to.

    Raises:
        OptionsError: it is no JSON object, or an option is unknown or out of range.
    """
    try:
        given = json.loads(text or "{}")
    except (ValueError, RecursionError):
        raise OptionsError("options: accepted is a JSON object") from None
    if not isinstance(given, dict):
        raise OptionsError("options: accepted is a JSON object")
    return make_options(**{str(key): value for key, value in given.items()})


def picture(answer: Answer) -> Response:
    """The file of an answer, with its facts as headers."""
    headers = {
        f"x-chromatune-{name.replace('_', '-')}": quote(_text_of(value)[:LONGEST_HEADER], safe=" ,.:;()+-/=")
        for name, value in answer.facts.items()
    }
    stem = quote(Path(str(answer.facts["name"])).stem)
    headers["content-disposition"] = f"inline; filename*=UTF-8''{stem}.color{answer.suffix}"
    return Response(answer.data, media_type=MEDIA_TYPES.get(answer.suffix, "application/octet-stream"), headers=headers)


def _text_of(value: object) -> str:
    return "; ".join(map(str, value)) if isinstance(value, list) else str(value)


async def in_time(request: Request, work: Awaitable[T], seconds: float) -> T:
    """What the work gives; it is given up where it takes too long, or nobody waits for it any more.

    Raises:
        HTTPException: 504, or 499 where the client has gone.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({task, gone}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        if gone.done():
            raise _Gone
        raise _TooSlow(f"no answer within {seconds:g} s; send a smaller photo, or come again")
    finally:
        for each in (task, gone):
            each.cancel()


class _Gone(Exception):
    """The client does not wait any more."""


class _TooSlow(Exception):
    """The answer took too long."""


async def _gone(request: Request) -> None:
    while not await request.is_disconnected():
        await asyncio.sleep(0.25)


def _add_failures(app: FastAPI) -> None:
    """One line for each failure, the same that the command line has."""

    def answer(status: int, line: str, headers: dict[str, str] | None = None) -> JSONResponse:
        return JSONResponse({"detail": line}, status, headers)

    @app.exception_handler(RequestValidationError)
    def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = str(first["loc"][-1]) if first["loc"] else "request"
        return answer(422, NO_PICTURE if where == "photo" else f"{where}: {first['msg']}")

    @app.exception_handler(ChromaTuneError)
    def told(_: Request, error: ChromaTuneError) -> JSONResponse:
        if isinstance(error, OptionsError | ModelError):
            return answer(422, str(error))
        no_picture = isinstance(error, PhotoError) and "not a picture" in str(error)
        return answer(415 if no_picture else 400, str(error))

    @app.exception_handler(QueueFull)
    def full(request: Request, _: QueueFull) -> JSONResponse:
        waiting = request.app.state.predictor.waiting
        return answer(429, "too many photos wait; come again", {"retry-after": retry_after(waiting, 1)})

    @app.exception_handler(_TooSlow)
    def slow(_: Request, error: _TooSlow) -> JSONResponse:
        return answer(504, str(error))

    @app.exception_handler(_Gone)
    def gone(_: Request, __: _Gone) -> Response:
        return Response(status_code=499)  # nobody reads it; nginx's number for it in logs

    @app.exception_handler(MemoryError)
    def memory(_: Request, __: MemoryError) -> JSONResponse:
        return answer(503, "not enough memory at the moment; come again", {"retry-after": "5"})

    @app.middleware("http")
    async def ready(request: Request, call: Callable[[Request], Awaitable[Response]]) -> Response:
        state = request.app.state.predictor.state
        if request.method == "POST" and state.name != "ready":
            line = state.reason or "the model is loading; come again in a moment"
            return answer(503, line, {"retry-after": "2"})
        return await call(request)


def _add_operations(app: FastAPI, predictor: Predictor, metrics: Metrics) -> None:
    @app.get("/healthz", summary="Whether the server lives")
    def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/readyz", summary="Whether the model is loaded", responses={503: FAILURES[503]})
    def readyz() -> JSONResponse:
        state = predictor.state
        return JSONResponse({"status": state.name, "detail": state.reason}, 200 if state.name == "ready" else 503)

    @app.get("/metrics", summary="Measures for Prometheus", response_class=Response, responses={401: FAILURES[401]})
    def measures() -> Response:
        return Response(metrics.text(), media_type=metrics.MEDIA_TYPE)


def _add_pages(app: FastAPI) -> None:
    from fastapi_offline import __file__ as offline  # Swagger UI's own files: nothing is fetched from elsewhere

    app.mount("/docs/assets", StaticFiles(directory=Path(offline).parent / "static"))
    app.mount("/page", StaticFiles(directory=PAGE))

    @app.get("/docs", include_in_schema=False)
    def docs() -> FileResponse:
        return FileResponse(PAGE / "docs.html")

    @app.get("/", include_in_schema=False)
    def index() -> FileResponse:
        return FileResponse(PAGE / "index.html")

"""Routes of videos: sent once, hints on a still of each shot, colorized in the background."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import tempfile
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Body, FastAPI, File, HTTPException, Response, UploadFile
from fastapi import Path as InPath
from fastapi.responses import FileResponse
from pydantic import BaseModel, ConfigDict, Field, SkipValidation, ValidationError
from starlette.background import BackgroundTask

from chromatune.errors import OptionsError, shown
from chromatune.hints import Hints
from chromatune.options import ColorizeOptions, options_error
from chromatune.serving.bodies import bounded_route, stored
from chromatune.serving.responses import (
    NOT_DONE,
    PICTURES,
    RETRY_SOON,
    STROKES,
    example,
    failures,
    file_name,
    file_of,
    file_response,
)
from chromatune.serving.settings import ServeSettings
from chromatune.serving.store import new_upload_folder
from chromatune.serving.video_jobs import IN_PROGRESS, RESULT_SUFFIX, ShotStatus, Videos, VideoState

MAX_HINTED_FRAMES = 500  # of a video
MAX_HINTS_MB = 20.0  # of the JSON that colorizes a video: hints of many frames
ONE_FILE: Any = {"max_files": 1, "max_fields": 4, "max_part_size": 1000}
Key = Annotated[str, InPath(max_length=64, description="Id of a video.")]
Number = Annotated[int, InPath(description="Number of a frame.")]
VIDEOS = file_of("video/mp4")
COLORIZE = Body(openapi_examples=example({"options": {"strength": 0.8}, "hints": {"0": STROKES}}))


class VideoStarted(BaseModel):
    """A video in progress."""

    id: str


class VideoStatus(BaseModel):
    """Progress of a video."""

    id: str
    name: str
    state: VideoState
    line: str = Field(description="Why it failed, or warnings about the result.")
    stage: str
    step: int
    steps: int = Field(description="0 where the number is unknown.")
    frames: int
    width_px: int
    height_px: int
    shots: list[ShotStatus]


class ColorizeVideoRequest(BaseModel):
    """Model, options and hints for a video."""

    model_config = ConfigDict(extra="forbid")

    model: str | None = Field(
        default=None, max_length=1000, description="One of the models offered; without it, the first."
    )
    options: ColorizeOptions = ColorizeOptions()
    hints: dict[int, SkipValidation[Hints]] = Field(  # `read_hints` validates them, in a thread: they may be many
        default={}, max_length=MAX_HINTED_FRAMES, description="By the number of their frame."
    )

    def read_hints(self) -> dict[int, Hints]:
        """Return the hints of each frame.

        Raises:
            OptionsError: those of a frame are none, or too many.
            PhotoError: a layer in them is no picture.
        """
        read = {}
        for number, given in self.hints.items():
            try:
                read[number] = Hints.model_validate(given)
            except ValidationError as error:
                line = options_error(error, Hints, "field of hints")
                raise OptionsError(f"hints.{number}: {line}", "hints") from None
        return read


def add_video_routes(app: FastAPI, videos: Videos, settings: ServeSettings) -> None:
    """Add the routes of videos; those under /v1/films are the same by their names of version 0.1, until 0.3."""
    _add_start(app, videos, settings)
    _add_results(app, videos, settings)


def _add_start(app: FastAPI, videos: Videos, settings: ServeSettings) -> None:
    uploads = APIRouter(route_class=bounded_route(settings.max_video_mb, settings.timeout_s, videos.place))

    @uploads.post(
        "/v1/videos",
        status_code=202,
        summary="Upload a video",
        responses=failures(400, 408, 413, 422, 429, 503, 507),
        form_limits=ONE_FILE,
    )
    async def start_video(
        video: Annotated[UploadFile, File(description="A video: MP4, MOV, MKV, AVI, MPEG and the like.")],
    ) -> VideoStarted:
        """Respond at once, and look for the shots; `GET /v1/videos/{id}` has its progress."""
        async with new_upload_folder() as folder:
            source = folder / "video"
            await asyncio.to_thread(stored(video).move_to, source)
            return VideoStarted(id=videos.start(source, folder, file_name(video.filename)))

    @uploads.post("/v1/films", status_code=202, include_in_schema=False, form_limits=ONE_FILE)
    async def start_film(film: Annotated[UploadFile, File()]) -> VideoStarted:
        return await start_video(film)

    app.include_router(uploads)

    @app.get("/v1/videos/{key}", summary="Progress of a video", responses=failures(404, 422))
    async def video_status(key: Key) -> VideoStatus:
        job = videos.store.get(key)
        return VideoStatus(
            id=key, name=job.name, state=job.state, line=job.line, stage=job.stage, step=job.step, steps=job.steps,
            frames=job.frames, width_px=job.size[0], height_px=job.size[1], shots=job.shots,
        )  # fmt: skip

    @app.get("/v1/films/{key}", include_in_schema=False)
    async def film_status(key: Key) -> dict[str, Any]:
        status = (await video_status(key)).model_dump()
        return status | {"state": "colouring" if status["state"] == "colorizing" else status["state"]}

    @app.delete("/v1/films/{key}", status_code=204, response_class=Response, include_in_schema=False)
    @app.delete(
        "/v1/videos/{key}", status_code=204, summary="Delete a video", response_class=Response,
        responses=failures(404, 422),
    )  # fmt: skip
    async def delete_video(key: Key) -> Response:
        """Also stops work on it."""
        videos.store.remove(key)
        return Response(status_code=204)


def _add_results(app: FastAPI, videos: Videos, settings: ServeSettings) -> None:
    @app.get("/v1/films/{key}/stills/{frame}", response_class=Response, include_in_schema=False)
    @app.get(
        "/v1/videos/{key}/stills/{frame}",
        summary="The gray frame that represents a shot",
        response_class=Response,
        responses={200: PICTURES, **failures(404, 422)},
    )
    async def still(key: Key, frame: Number) -> Response:
        """A PNG at the video's full size; `/v1/sessions` accepts it, to try strokes on."""
        job = videos.store.get(key)
        if frame not in {each.frame for each in job.shots}:
            raise HTTPException(404, "there is no still of that frame; the video's status lists the stills")
        return await file_response(job.still_path(frame), "image/png")

    hints = APIRouter(route_class=bounded_route(MAX_HINTS_MB, settings.timeout_s))

    @hints.post("/v1/films/{key}/colours", status_code=202, include_in_schema=False)
    @hints.post(
        "/v1/videos/{key}/colorize",
        status_code=202,
        summary="Colorize a video",
        responses={**NOT_DONE, **failures(400, 404, 408, 413, 422, 503)},
    )
    async def colorize_video(key: Key, wanted: Annotated[ColorizeVideoRequest, COLORIZE]) -> VideoStarted:
        """In the background; if the video was colorized before, only shots whose hints or options have changed."""
        job = videos.store.get(key)
        if job.state in IN_PROGRESS:
            raise HTTPException(409, f"{job.name} is in progress; try again later", RETRY_SOON)
        if not job.frames:
            raise HTTPException(409, job.line)
        if absent := next((number for number in wanted.hints if not 0 <= number < job.frames), None):
            raise OptionsError(f"hints.{shown(absent)}: {job.name} has frames 0 to {job.frames - 1}", "hints")
        hints = await asyncio.to_thread(wanted.read_hints)
        if job.state in IN_PROGRESS:  # another request was faster
            raise HTTPException(409, f"{job.name} is in progress; try again later", RETRY_SOON)
        videos.colorize(job, wanted.model or settings.models[0], wanted.options, hints)
        return VideoStarted(id=key)

    app.include_router(hints)

    @app.delete(
        "/v1/videos/{key}/colorize", status_code=204, summary="Cancel the run of a video", response_class=Response,
        responses=failures(404, 422),
    )  # fmt: skip
    async def cancel_video(key: Key) -> Response:
        """The video stays, and shots that are done are not computed again; its state says when the run has ended."""
        job = videos.store.get(key)
        if job.state == "colorizing":
            job.cancelled.set()
        return Response(status_code=204)

    @app.get("/v1/films/{key}/result", response_class=Response, include_in_schema=False)
    @app.get(
        "/v1/videos/{key}/result",
        summary="The colored video",
        response_class=Response,
        responses={200: VIDEOS, **NOT_DONE, **failures(404, 422)},
    )
    async def video_result(key: Key) -> Response:
        """H.264 in MP4, with the video's own sound."""
        job = videos.store.get(key)
        if job.state != "done":
            raise HTTPException(409, f"{job.name} is not done yet; try again later", RETRY_SOON)
        name = f"{job.name.rpartition('.')[0] or job.name}.color{RESULT_SUFFIX}"
        headers = {"content-disposition": f"attachment; filename*=UTF-8''{quote(name, safe='')}"}
        sent = await asyncio.to_thread(_second_name, job.result)
        return FileResponse(sent, media_type="video/mp4", headers=headers, background=BackgroundTask(sent.unlink))


def _second_name(path: Path) -> Path:
    """Give a file another name: it stays while it is sent, also where the first name is deleted or written anew."""
    second = Path(tempfile.gettempdir()) / f"sent-{secrets.token_hex(8)}{path.suffix}"
    try:
        os.link(path, second)
    except FileNotFoundError:
        raise
    except OSError:  # no hard links here
        shutil.copyfile(path, second)
    return second

"""Routes of films: sent once, hints on a still of each shot, colored in the background."""

from __future__ import annotations

import asyncio
from typing import Annotated
from urllib.parse import quote

from fastapi import Body, FastAPI, File, HTTPException, Response, UploadFile
from fastapi import Path as InPath
from fastapi.responses import FileResponse
from pydantic import BaseModel, ConfigDict, Field

from chromatune.hints import Hints
from chromatune.options import ColorizeOptions
from chromatune.serving.answers import AGAIN_S, IN_WORK, PICTURES, failures, file_name, file_of
from chromatune.serving.settings import ServeSettings
from chromatune.serving.uploads import new_upload_folder, write_uploads
from chromatune.serving.videos import RESULT_SUFFIX, Videos, VideoState

Key = Annotated[str, InPath(max_length=64, description="Of a film.")]
VIDEOS = file_of("video/mp4")


class VideoStarted(BaseModel):
    """A film whose shots are looked for."""

    id: str


class ShotStatus(BaseModel):
    """A shot, from its first frame to the next one's, and the frame that stands for it."""

    start: int
    stop: int
    frame: int


class VideoStatus(BaseModel):
    """How far a film is."""

    id: str
    name: str
    state: VideoState
    line: str = Field(description="Why it failed, or what is to be known of the result.")
    stage: str
    step: int
    steps: int = Field(description="0 where nobody knows.")
    frames: int
    width_px: int
    height_px: int
    shots: list[ShotStatus]


class VideoWish(BaseModel):
    """How a film is wanted."""

    model_config = ConfigDict(extra="forbid")

    model: str | None = Field(None, max_length=1000, description="A model on offer; the first by default.")
    options: ColorizeOptions = ColorizeOptions()
    hints: dict[int, Hints] = Field({}, max_length=10_000, description="By the number of their frame.")


def add_videos(app: FastAPI, videos: Videos, settings: ServeSettings) -> None:
    """The routes."""
    _add_start(app, videos)
    _add_colorizing(app, videos, settings)


def _add_start(app: FastAPI, videos: Videos) -> None:
    @app.post("/v1/films", status_code=202, summary="Send a film", responses=failures(400, 408, 413, 422, 429, 503))
    async def start_video(
        video: Annotated[UploadFile, File(description="A film, in any container that FFmpeg reads.")],
    ) -> VideoStarted:
        """Answers at once, and looks for the shots; `GET /v1/films/{id}` says how far it is."""
        videos.check_room()
        async with new_upload_folder() as folder:
            source = folder / "film"
            await asyncio.to_thread(write_uploads, [video], [source])
            return VideoStarted(id=videos.start(source, folder, file_name(video.filename)))

    @app.get("/v1/films/{key}", summary="How far a film is", responses=failures(404, 422))
    async def video_status(key: Key) -> VideoStatus:
        work = videos.shelf.get(key)
        shots = [ShotStatus(start=each.start, stop=each.stop, frame=each.frame) for each in work.stills]
        return VideoStatus(
            id=key, name=work.name, state=work.state, line=work.line, stage=work.stage, step=work.step,
            steps=work.steps, frames=work.frames, width_px=work.size[0], height_px=work.size[1], shots=shots,
        )  # fmt: skip

    @app.delete(
        "/v1/films/{key}", status_code=204, summary="Let a film go", response_class=Response,
        responses=failures(404, 422),
    )  # fmt: skip
    async def delete_video(key: Key) -> Response:
        """What is in work is ended."""
        videos.shelf.remove(key)
        return Response(status_code=204)


def _add_colorizing(app: FastAPI, videos: Videos, settings: ServeSettings) -> None:
    @app.get(
        "/v1/films/{key}/stills/{frame}",
        summary="The gray frame that stands for a shot",
        response_class=Response,
        responses={200: PICTURES, **failures(404, 422)},
    )
    async def still(key: Key, frame: Annotated[int, InPath(description="Its number.")]) -> Response:
        """A PNG at the film's full size: what `/v1/sessions` takes, to try strokes on."""
        work = videos.shelf.get(key)
        if frame not in {each.frame for each in work.stills}:
            raise HTTPException(404, "no still is of that frame; the film's status lists them")
        return FileResponse(work.still_path(frame), media_type="image/png")

    @app.post(
        "/v1/films/{key}/colors",
        status_code=202,
        summary="Color a film",
        responses={**IN_WORK, **failures(400, 404, 408, 413, 422, 503)},
    )
    async def color_video(key: Key, wish: Annotated[VideoWish, Body()]) -> VideoStarted:
        """In the background; where it was colored before, shots that nothing has changed for are kept."""
        work = videos.shelf.get(key)
        if work.state in ("reading", "colorizing"):
            raise HTTPException(409, f"{work.name} is in work; come again", AGAIN_S)
        if not work.frames:
            raise HTTPException(409, work.line)
        videos.color(work, wish.model or settings.models[0], wish.options, wish.hints)
        return VideoStarted(id=key)

    @app.get(
        "/v1/films/{key}/result",
        summary="The colored film",
        response_class=Response,
        responses={200: VIDEOS, **IN_WORK, **failures(404, 422)},
    )
    async def video_result(key: Key) -> Response:
        """H.264 in MP4, with the film's own sound."""
        work = videos.shelf.get(key)
        if work.state != "done":
            raise HTTPException(409, f"{work.name} is not done yet; come again", AGAIN_S)
        name = f"{work.name.rpartition('.')[0] or work.name}.color{RESULT_SUFFIX}"
        headers = {"content-disposition": f"attachment; filename*=UTF-8''{quote(name, safe='')}"}
        return FileResponse(work.result, media_type="video/mp4", headers=headers)

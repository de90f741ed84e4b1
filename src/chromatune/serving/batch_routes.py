"""Routes of batches: many photos, one set of options."""

from __future__ import annotations

import asyncio
from typing import Annotated, Literal

from fastapi import FastAPI, File, Form, HTTPException, Response, UploadFile
from fastapi import Path as InPath
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel

from chromatune.errors import OptionsError, shown
from chromatune.serving.answers import AGAIN_S, IN_WORK, PICTURES, failures, file_name, file_of, parsed_options, picture
from chromatune.serving.batches import Batch, Batches, PhotoState, zip_of
from chromatune.serving.metrics import Metrics
from chromatune.serving.predictor import Answer, Predictor
from chromatune.serving.settings import ServeSettings
from chromatune.serving.shelf import Shelf
from chromatune.serving.uploads import new_upload_folder, write_uploads

Key = Annotated[str, InPath(max_length=64, description="Of a batch.")]
Number = Annotated[int, InPath(description="From 1, in the order sent.")]
ARCHIVE = file_of("application/zip")


class Started(BaseModel):
    """A batch that is in work."""

    id: str


class PhotoStatus(BaseModel):
    """How far one photo is."""

    number: int
    name: str
    state: PhotoState
    line: str


class BatchStatus(BaseModel):
    """How far a batch is."""

    id: str
    state: Literal["working", "done"]
    photos: list[PhotoStatus]


def add_batches(app: FastAPI, predictor: Predictor, settings: ServeSettings, metrics: Metrics) -> Shelf[Batch]:
    """The routes, and what they keep."""
    batches = Batches(predictor, settings, metrics.photos.inc)
    _add_start(app, batches, settings)
    _add_results(app, batches)
    return batches.shelf


def _add_start(app: FastAPI, batches: Batches, settings: ServeSettings) -> None:
    @app.post(
        "/v1/batches",
        status_code=202,
        summary="Colorize many photos",
        responses=failures(400, 408, 413, 422, 429, 503),
    )
    async def start_batch(
        photos: Annotated[list[UploadFile], File(description="Photos, in any formats that are read.")],
        options: Annotated[str, Form(description="Options of all, as a JSON object.")] = "{}",
        model: Annotated[str | None, Form(description="A model on offer; the first by default.")] = None,
    ) -> Started:
        """Answers at once; `GET /v1/batches/{id}` says how far it is."""
        chosen, asked = model or settings.models[0], parsed_options(options)
        if chosen not in settings.models:
            raise OptionsError(f"model={shown(chosen)}: not on offer; accepted: {', '.join(settings.models)}", "model")
        batches.check_room()
        async with new_upload_folder() as folder:
            files = [(file_name(photo.filename), folder / f"{n}.photo") for n, photo in enumerate(photos, 1)]
            await asyncio.to_thread(write_uploads, photos, [path for _, path in files])
            return Started(id=batches.start(files, folder, chosen, asked))

    @app.get("/v1/batches/{key}", summary="How far a batch is", responses=failures(404, 422))
    async def batch_status(key: Key) -> BatchStatus:
        batch = batches.shelf.get(key)
        photos = [
            PhotoStatus(number=number, name=photo.name, state=photo.state, line=photo.line)
            for number, photo in enumerate(batch.photos, 1)
        ]
        return BatchStatus(id=key, state="done" if batch.is_done else "working", photos=photos)

    @app.delete(
        "/v1/batches/{key}", status_code=204, summary="Let a batch go", response_class=Response,
        responses=failures(404, 422),
    )  # fmt: skip
    async def delete_batch(key: Key) -> Response:
        """What is in work is finished and thrown away; what waits is not begun."""
        batches.shelf.remove(key)
        return Response(status_code=204)


def _add_results(app: FastAPI, batches: Batches) -> None:
    @app.get(
        "/v1/batches/{key}/photos/{number}",
        summary="One result of a batch",
        response_class=Response,
        responses={200: PICTURES, **IN_WORK, **failures(400, 404, 415, 422, 503)},
    )
    async def batch_photo(
        key: Key, number: Annotated[int, InPath(description="From 1, in the order sent.")]
    ) -> Response:
        """The file; of a photo that failed, its line."""
        batch = batches.shelf.get(key)
        if not 1 <= number <= len(batch.photos):
            raise HTTPException(404, f"the batch has photos 1 to {len(batch.photos)}")
        photo = batch.photos[number - 1]
        if photo.state == "failed":
            return JSONResponse({"detail": photo.line}, photo.status)
        if photo.answer is None or photo.result is None:
            raise HTTPException(409, f"{photo.name} is not done yet; come again", AGAIN_S)
        data = await asyncio.to_thread(photo.result.read_bytes)
        return picture(Answer(data, photo.answer.suffix, photo.answer.facts), "attachment")

    @app.get(
        "/v1/batches/{key}/zip",
        summary="All results of a batch",
        response_class=Response,
        responses={200: ARCHIVE, **IN_WORK, **failures(404, 422)},
    )
    async def batch_zip(key: Key) -> Response:
        """A ZIP file; lines of photos that failed are in its failures.txt."""
        batch = batches.shelf.get(key)
        if not batch.is_done:
            raise HTTPException(409, "the batch is not done yet; come again", AGAIN_S)
        headers = {"content-disposition": "attachment; filename=chromatune.zip"}
        return StreamingResponse(zip_of(batch), media_type="application/zip", headers=headers)

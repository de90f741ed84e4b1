"""What clients send and is worked at later: files in a temporary folder of their own."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import UploadFile


@asynccontextmanager
async def new_upload_folder() -> AsyncIterator[Path]:
    """A new folder that stays only where all goes well."""
    folder = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="upload-"))
    try:
        yield folder
    except BaseException:
        await asyncio.to_thread(shutil.rmtree, folder, True)
        raise


def write_uploads(uploads: Sequence[UploadFile], paths: Sequence[Path]) -> None:
    """Copies what was sent to files."""
    for upload, path in zip(uploads, paths, strict=True):
        with path.open("wb") as target:
            shutil.copyfileobj(upload.file, target)

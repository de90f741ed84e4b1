"""Results that another tool wrote: which file belongs to which photo, and its pixels at the size of the comparison."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import numpy as np

from chromatune.data.items import read_rgb
from chromatune.errors import DataError, PhotoError
from chromatune.evaluation.protocol import centre_square
from chromatune.evaluation.scoring import Target
from chromatune.images import IMAGE_SUFFIXES


class ResultFiles:
    """The image files below a folder, found by a photo's key or, where only one file has it, by the key's last stem."""

    def __init__(self, folder: str) -> None:
        root = Path(folder).expanduser()
        if not root.is_dir():
            raise DataError(f"{folder}: no such folder of results; check --results")
        paths = sorted(path for path in root.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
        self._by_key: dict[str, list[Path]] = {}
        self._by_stem: dict[str, list[Path]] = {}
        for path in paths:
            self._by_key.setdefault(path.relative_to(root).with_suffix("").as_posix(), []).append(path)
            self._by_stem.setdefault(path.stem, []).append(path)

    def find(self, key: str) -> Path:
        """The file of the photo `key`.

        Raises:
            PhotoError: there is none, or more than one that it could be.
        """
        name = PurePosixPath(key)
        for found in (self._by_key.get(name.with_suffix("").as_posix()), self._by_stem.get(name.stem)):
            if found is not None and len(found) > 1:
                raise PhotoError(f"ambiguous: {len(found)} files called {found[0].stem}")
            if found is not None:
                return found[0]
        raise PhotoError("missing")

    def read(self, target: Target) -> np.ndarray:
        """The result for a target, (S, S, 3) uint8 sRGB.

        A file of the square's size is taken as it is; one of the whole photo's size gets the same centre square.
        Any other size would have to be stretched, and then its pixels would lie elsewhere than the truth's.

        Raises:
            PhotoError: the file is missing, ambiguous, unreadable, or of another size.
        """
        path = self.find(target.photo.key)
        rgb_u8 = read_rgb(path, path.name)
        height, width = rgb_u8.shape[:2]
        if (height, width) == target.truth.shape[:2]:
            return rgb_u8
        if (height, width) == target.full_size:
            return centre_square(rgb_u8, target.truth.shape[0])
        side, full = target.truth.shape[0], target.full_size
        raise PhotoError(f"is {width} x {height} px; accepted: {side} x {side} or {full[1]} x {full[0]}")

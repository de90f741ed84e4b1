"""Methods and the rows they give: gray, models, and other tools' results with the files they are read from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from chromatune.data import read_rgb
from chromatune.errors import DataError, OptionsError, PhotoError, count_of
from chromatune.evaluation.hint_points import count_in
from chromatune.evaluation.protocol import center_square
from chromatune.evaluation.settings import EvaluationSettings
from chromatune.images import IMAGE_SUFFIXES

GRAY_ROW = "gray"  # the input handed back: what every other row must beat
HINTS_ALONE = "no model"  # begins the name of a row whose only colors are the hints
RAW = ", raw"  # ends the name of a row without the photo's own luminance

Record = dict[str, Any]  # a line of rows.jsonl: "row", "subset", "key", and scores by name or "failed" with the reason


@dataclass(frozen=True)
class Method:
    """One way to colorize, run once over the photos; a model or another tool gives a recomposed and a raw row.

    Attributes:
        name: of the recomposed row.
        model: name to load, or None.
        folder: of result files, or None.
        steps: sampling steps; None means the model's own.
        prompt: instruction; None means the model's own.
        hints: number of hints of the truth; None without.
    """

    name: str
    model: str | None = None
    folder: str | None = None
    steps: int | None = None
    prompt: str | None = None
    hints: int | None = None

    @property
    def rows(self) -> tuple[str, ...]:
        """Names of the rows: recomposed, then raw; gray is both, and with hints there is nothing raw."""
        alone = self.name == GRAY_ROW or (self.hints is not None and self.folder is None)
        return (self.name,) if alone else (self.name, self.name + RAW)


def plan_methods(settings: EvaluationSettings) -> list[Method]:
    """Gray passthrough, then every model at each prompt and number of steps, then other tools' results.

    Raises:
        OptionsError: two rows would have one name.
    """
    methods = [Method(GRAY_ROW)]
    short = {model: Path(model).name or model for model in settings.models}
    for model in settings.models:
        name = short[model] if list(short.values()).count(short[model]) == 1 else model
        for prompt in settings.prompts or (None,):
            for steps in settings.steps or (None,):
                words = [name]
                if prompt is not None and len(settings.prompts) > 1:
                    words.append(f"“{prompt}”")
                if steps is not None:
                    words.append(count_of(steps, "step"))
                plain = Method(", ".join(words), model=model, steps=steps, prompt=prompt)
                methods.append(plain)
                methods += [_with_hints(plain, count) for count in settings.hints if count]
    methods += [_with_hints(Method(HINTS_ALONE), count) for count in settings.hints if count]
    methods += [Method(name, folder=folder, hints=count_in(name)[1]) for name, folder in settings.results]
    rows = [row for method in methods for row in method.rows]
    for row in rows:
        if rows.count(row) > 1:
            raise OptionsError(f"two rows would be called {row!r}; give the results another name")
    return methods


def _with_hints(method: Method, count: int) -> Method:
    return replace(method, name=f"{method.name}, {count_of(count, 'hint')}", hints=count)


class ResultFiles:
    """The image files below a folder, found by a photo's key or, where one photo and one file have it, by its stem."""

    def __init__(self, folder: str, keys: Iterable[str] = ()) -> None:
        """Lists the folder.

        Args:
            folder: of results.
            keys: of all photos that are measured: a stem that several of them have names none.

        Raises:
            DataError: it does not exist.
        """
        root = Path(folder).expanduser()
        if not root.is_dir():
            raise DataError(f"{folder}: no such folder of results; check --results")
        paths = sorted(path for path in root.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
        self._photos_called = Counter(PurePosixPath(key).stem for key in keys)
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
        found = self._by_key.get(name.with_suffix("").as_posix())
        if found is None and (found := self._by_stem.get(name.stem)) and self._photos_called[name.stem] > 1:
            photos = self._photos_called[name.stem]
            raise PhotoError(f"ambiguous: {photos} photos are called {name.stem}; keep their folders in the results")
        if found is None:
            raise PhotoError("missing")
        if len(found) > 1:
            raise PhotoError(f"ambiguous: {len(found)} files called {found[0].stem}")
        return found[0]

    def read(self, key: str, size_px: int, full_size: tuple[int, int]) -> np.ndarray:
        """The result for a photo, (S, S, 3) uint8 sRGB.

        A file of the square's size is taken as it is; one of the whole photo's size gets the same center square.
        Any other size would have to be stretched, and then its pixels would lie elsewhere than the truth's.

        Args:
            key: of the photo.
            size_px: S, the side of the squares that are compared.
            full_size: height and width of the whole photo, in pixels.

        Raises:
            PhotoError: the file is missing, ambiguous, unreadable, or of another size.
        """
        path = self.find(key)
        rgb_u8 = read_rgb(path, path.name)
        height, width = rgb_u8.shape[:2]
        if (height, width) == (size_px, size_px):
            return rgb_u8
        if (height, width) == full_size:
            return center_square(rgb_u8, size_px)
        accepted = f"{size_px} x {size_px} or {full_size[1]} x {full_size[0]}"
        raise PhotoError(f"is {width} x {height} px; accepted: {accepted}")

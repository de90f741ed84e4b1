"""A model for several threads: where it gains by it, photos that arrive together go through it in one pass."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future

from chromatune.colorizer import Colorizer, ModelOutput, Request
from chromatune.errors import PhotoError

GATHER_S = 0.005  # how long a pass waits for more photos; while one runs, the next ones gather anyway


class SharedPass:
    """The model's half of a colorizer, with one call for photos that several threads bring."""

    def __init__(self, colorizer: Colorizer, most: int = 8) -> None:
        self.colorizer = colorizer
        self.most = most
        self._gathering, self._passing = threading.Lock(), threading.Lock()
        self._gathered: list[tuple[Request, Future[ModelOutput]]] = []

    def output(self, request: Request) -> ModelOutput:
        """What the model gives for a photo.

        Raises:
            PhotoError: the photo cannot be read, or its hints do not fit it.
            ModelError: the model gives values that are not numbers.
        """
        if not self.colorizer.backend.batches:
            return _alone(self.colorizer, request)
        mine: Future[ModelOutput] = Future()
        with self._gathering:
            self._gathered.append((request, mine))
        while not mine.done():
            with self._passing:  # whoever comes first takes the others' photos along
                if not mine.done():
                    self._pass()
        return mine.result()

    def _pass(self) -> None:
        with self._gathering:
            alone = len(self._gathered) < self.most
        if alone:
            time.sleep(GATHER_S)
        with self._gathering:
            taken, self._gathered = self._gathered[: self.most], self._gathered[self.most :]
        try:
            requests = [request for request, _ in taken]
            found = list(self.colorizer.model_outputs(requests, batch_size=len(taken)))
        except Exception:  # noqa: BLE001 — of one photo, perhaps: each by itself gets its own
            for request, future in taken:
                _settle(self.colorizer, request, future)
            return
        for (_, future), output in zip(taken, found, strict=True):
            if isinstance(output, PhotoError):
                future.set_exception(output)
            else:
                future.set_result(output)


def _settle(colorizer: Colorizer, request: Request, future: Future[ModelOutput]) -> None:
    try:
        future.set_result(_alone(colorizer, request))
    except Exception as error:  # noqa: BLE001 — it is raised where the photo is waited for
        future.set_exception(error)


def _alone(colorizer: Colorizer, request: Request) -> ModelOutput:
    (output,) = colorizer.model_outputs([request], batch_size=1)
    if isinstance(output, PhotoError):
        raise output
    return output

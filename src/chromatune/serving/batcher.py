"""Dynamic batching: photos that several threads bring at the same time go through the model in one pass."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np

from chromatune.options import ResolvedOptions
from chromatune.pipeline import Backend, ModelInfo

MAX_BATCH = 8  # photos of one pass
MAX_WAIT_S = 0.005  # how long a pass waits for more photos; while one runs, the next ones gather anyway


@dataclass(frozen=True, eq=False)
class _Pending:
    """A photo that waits for its pass: (h, w) float32 luma 0..1, and its options; `rgb` gets (h, w, 3)."""

    gray: np.ndarray
    options: ResolvedOptions
    rgb: Future[np.ndarray] = field(default_factory=Future)


class DynamicBatcher:
    """A `Backend` around another one that gains by batches; threads that call it at once share its passes.

    There is no thread of its own: whoever comes first takes the others' photos along.
    """

    batches = True
    concurrent = True

    def __init__(self, backend: Backend, max_batch: int = MAX_BATCH) -> None:
        """Take over a backend.

        Args:
            backend: computes.
            max_batch: most photos of one pass.
        """
        self._backend, self._max_batch = backend, max_batch
        self._queue: list[_Pending] = []
        self._queue_lock, self._pass_lock = threading.Lock(), threading.Lock()

    @property
    def runtime(self) -> str:
        """The backend's."""
        return self._backend.runtime

    @property
    def info(self) -> ModelInfo:
        """The backend's."""
        return self._backend.info

    @property
    def multiple_px(self) -> int:
        """The backend's."""
        return self._backend.multiple_px

    def warnings_of(self, options: ResolvedOptions) -> tuple[str, ...]:
        """Return the backend's."""
        return self._backend.warnings_of(options)

    def features(self, grays: np.ndarray) -> dict[int, np.ndarray] | None:
        """Return the backend's; these are not batched."""
        return self._backend.features(grays)

    def __call__(self, grays: np.ndarray, options: Sequence[ResolvedOptions]) -> np.ndarray:
        """Return the model's own RGB, (B, h, w, 3) float32 sRGB 0..1; see `Backend.__call__`."""
        own = [_Pending(gray, each) for gray, each in zip(grays, options, strict=True)]
        with self._queue_lock:
            self._queue += own
        while not all(each.rgb.done() for each in own):
            with self._pass_lock:
                if not all(each.rgb.done() for each in own):
                    self._run_pass()
        return np.stack([each.rgb.result() for each in own])

    def _run_pass(self) -> None:
        """Take photos from the queue and settle each of them, with its result or its error."""
        with self._queue_lock:
            is_full = len(self._queue) >= self._max_batch
        if not is_full:
            time.sleep(MAX_WAIT_S)
        with self._queue_lock:
            batch, self._queue = self._queue[: self._max_batch], self._queue[self._max_batch :]
        groups: dict[tuple[tuple[int, ...], ResolvedOptions], list[_Pending]] = defaultdict(list)
        for each in batch:
            groups[each.gray.shape, dataclasses.replace(each.options, seed=0)].append(each)
        for group in groups.values():
            self._compute(group)

    def _compute(self, group: list[_Pending]) -> None:
        """Settle photos of one size and the same options but for the seed."""
        try:
            rgb = self._backend(np.stack([each.gray for each in group]), [each.options for each in group])
        except Exception as error:  # noqa: BLE001 - it is raised where the photo is waited for
            if len(group) == 1:
                group[0].rgb.set_exception(error)
            else:  # of one photo, perhaps: each by itself gets its own
                for each in group:
                    self._compute([each])
            return
        for each, own in zip(group, rgb, strict=True):
            each.rgb.set_result(own)

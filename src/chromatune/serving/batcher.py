"""Dynamic batching: photos that several threads submit at the same time go through the model in one pass."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import Future
from contextvars import Context
from dataclasses import dataclass, field

import numpy as np

from chromatune.options import ResolvedOptions
from chromatune.pipeline import Backend, BackendOutput, Features

MAX_BATCH = 8  # photos of one pass
MAX_WAIT_S = 0.005  # how long a pass waits for more photos; while one runs, the next ones gather anyway


@dataclass(frozen=True, eq=False)
class _Pending:
    """A photo that waits for its pass; its output has no first axis."""

    gray: np.ndarray  # (h, w) float32, luma 0..1
    options: ResolvedOptions
    with_features: bool
    output: Future[BackendOutput] = field(default_factory=Future)


class DynamicBatcher:
    """A `Backend` around another one that gains by batches; threads that call it at once share its passes.

    There is no thread of its own: the first caller runs the pass for the others' photos too.
    """

    batches = True
    concurrent = True

    def __init__(self, backend: Backend, max_batch: int = MAX_BATCH) -> None:
        """Wrap `backend`; a pass takes at most `max_batch` photos."""
        self._backend, self._max_batch = backend, max_batch
        self.runtime, self.info, self.multiple_px = backend.runtime, backend.info, backend.multiple_px
        self._queue: list[_Pending] = []
        self._queue_lock, self._pass_lock = threading.Lock(), threading.Lock()

    def warnings_of(self, options: ResolvedOptions) -> tuple[str, ...]:
        return self._backend.warnings_of(options)

    def features(self, grays: np.ndarray) -> Features | None:
        """Return the backend's, without batching."""
        return self._backend.features(grays)

    def __call__(
        self, grays: np.ndarray, options: Sequence[ResolvedOptions], with_features: bool = False
    ) -> BackendOutput:
        own = [_Pending(gray, each, with_features) for gray, each in zip(grays, options, strict=True)]
        with self._queue_lock:
            self._queue += own
        while not all(each.output.done() for each in own):
            with self._pass_lock:
                if not all(each.output.done() for each in own):
                    Context().run(self._run_pass)  # others' photos too: this thread's own cancellation does not count
        return _stacked([each.output.result() for each in own])

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
        grays, options = np.stack([each.gray for each in group]), [each.options for each in group]
        try:
            output = self._backend(grays, options, any(each.with_features for each in group))
        except Exception as error:  # noqa: BLE001 - it is raised where the photo is waited for
            if len(group) == 1:
                group[0].output.set_exception(error)
                return
            for each in group:  # one photo may be the cause: each alone gets its own result or error
                self._compute([each])
            return
        for row, each in enumerate(group):
            features = output.features if each.with_features else None
            own = features and {stride: value[row] for stride, value in features.items()}
            each.output.set_result(BackendOutput(output.rgb[row], own))


def _stacked(outputs: Sequence[BackendOutput]) -> BackendOutput:
    """Return outputs of one photo each, of one size, as one."""
    features = [each.features for each in outputs if each.features]
    strides = features[0].keys() if features else ()
    return BackendOutput(
        np.stack([each.rgb for each in outputs]),
        {stride: np.stack([each[stride] for each in features]) for stride in strides} or None,
    )

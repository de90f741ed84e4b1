"""A model pass for many callers: what they bring at the same time goes through the model together."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from chromatune.errors import ModelError
from chromatune.options import ResolvedOptions
from chromatune.pipeline import Backend, BackendOutput, ModelInfo


@dataclass(frozen=True, eq=False)
class Asked:
    """One photo for a pass: (h, w) float32 luma 0..1, and its options."""

    backend: Backend
    gray: np.ndarray
    options: ResolvedOptions


class GatheredPass:
    """A `Backend` that hands each photo to whoever gathers them."""

    batches = False  # each caller brings its own photos at once: they wait for others elsewhere
    concurrent = True

    def __init__(self, own: Backend, gather: Callable[[Sequence[Asked]], list[np.ndarray | Exception]]) -> None:
        """Takes over a pass.

        Args:
            own: what computes.
            gather: waits for the photos' results, see `passes_of`; several threads call it.
        """
        self._own, self._gather = own, gather

    @property
    def runtime(self) -> str:
        """See `Backend`."""
        return self._own.runtime

    @property
    def info(self) -> ModelInfo:
        """See `Backend`."""
        return self._own.info

    @property
    def multiple_px(self) -> int:
        """See `Backend`."""
        return self._own.multiple_px

    def warnings_of(self, options: ResolvedOptions) -> tuple[str, ...]:
        """See `Backend`."""
        return self._own.warnings_of(options)

    def features(self, grays: np.ndarray) -> dict[int, np.ndarray] | None:
        """See `Backend`."""
        return self._own.features(grays)

    def __call__(
        self, grays: np.ndarray, options: Sequence[ResolvedOptions], with_features: bool = False
    ) -> BackendOutput:
        """See `Backend`."""
        found = self._gather([Asked(self._own, gray, each) for gray, each in zip(grays, options, strict=True)])
        rgb = []
        for each in found:
            if isinstance(each, Exception):
                raise each
            rgb.append(each)
        return BackendOutput(np.stack(rgb), self._own.features(grays) if with_features else None)


def passes_of(asked: Sequence[Asked]) -> list[np.ndarray | Exception]:
    """(h, w, 3) for each, or why not; those of one model, size and options but for the seed share a pass."""
    groups: dict[tuple[int, tuple[int, ...], ResolvedOptions], list[int]] = defaultdict(list)
    for index, each in enumerate(asked):
        alike = dataclasses.replace(each.options, seed=0)
        groups[id(each.backend), each.gray.shape, alike].append(index)
    found: dict[int, np.ndarray | Exception] = {}
    for indices in groups.values():
        together = _pass_of([asked[index] for index in indices])
        if isinstance(together, Exception) and len(indices) > 1:  # of one photo, perhaps: each by itself gets its own
            found |= {index: _first(_pass_of([asked[index]])) for index in indices}
        elif isinstance(together, Exception):
            found[indices[0]] = together
        else:
            found |= dict(zip(indices, together, strict=True))
    return [found[index] for index in range(len(asked))]


def _pass_of(alike: Sequence[Asked]) -> np.ndarray | Exception:
    try:
        return alike[0].backend(np.stack([each.gray for each in alike]), [each.options for each in alike]).rgb
    except (ModelError, MemoryError, RuntimeError) as error:  # torch's lack of memory is a RuntimeError
        return error


def _first(found: np.ndarray | Exception) -> np.ndarray | Exception:
    return found if isinstance(found, Exception) else found[0]

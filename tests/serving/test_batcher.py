"""Dynamic batching: what shares a pass, what each caller gets, and whom a failure reaches."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from chromatune.colorizer import Colorizer
from chromatune.errors import ModelError, PhotoError
from chromatune.options import ResolvedOptions, make_options
from chromatune.pipeline import BackendOutput
from chromatune.results import Request
from chromatune.serving.batcher import DynamicBatcher


@pytest.fixture
def failing() -> set[int]:
    """Seeds of photos that a pass fails of."""
    return set()


@pytest.fixture
def together(engine, failing, monkeypatch, until) -> Callable[..., list[Any]]:
    """Runs calls in threads of their own; all but one gather while the first pass is held."""
    original, held, go = type(engine).__call__, threading.Event(), threading.Event()

    def call(self, grays: np.ndarray, options: Sequence[ResolvedOptions], with_features: bool = False) -> BackendOutput:
        held.set()
        assert go.wait(20)
        if any(each.seed in failing for each in options):
            raise ModelError("values that are not numbers")
        found = original(self, grays, options)
        return BackendOutput(found.rgb, {8: grays[:, None, ::8, ::8]} if with_features else None)

    monkeypatch.setattr(type(engine), "__call__", call)

    def run(batcher: DynamicBatcher, *calls: Callable[[], Any], photos: int = 0) -> list[Any]:
        with ThreadPoolExecutor(len(calls)) as threads:
            first = threads.submit(calls[0])
            assert held.wait(20)
            others = [threads.submit(each) for each in calls[1:]]
            until(lambda: len(batcher._queue) == (photos or len(calls)) - 1)
            go.set()
            return [each.exception() or each.result() for each in (first, *others)]

    return run


def resolved(engine, seed: int, **options: Any) -> ResolvedOptions:
    return engine.info.resolve(make_options(seed=seed, **options))


def test_photos_of_one_size_and_options_share_a_pass(engine, together):
    batcher = DynamicBatcher(engine, max_batch=4)

    def ask(seed: int, side: int = 32, **options: Any) -> Callable[[], np.ndarray]:
        gray = np.full((1, side, side), 0.4, np.float32)
        return lambda: batcher(gray, [resolved(engine, seed, **options)]).rgb

    asked = [ask(0), ask(1), ask(2, side=64), ask(3), ask(4, steps=9)]
    found = together(batcher, *asked)
    seeds = [sorted(each.seed for each in call) for call in engine.calls]
    assert seeds[0] == [0] and sorted(seeds[1:]) == [[1, 3], [2], [4]]
    for each, rgb in zip(asked, found, strict=True):
        np.testing.assert_array_equal(rgb, each())


def test_of_photos_in_one_pass_the_one_that_fails_fails_alone(engine, failing, together):
    failing.add(2)
    batcher = DynamicBatcher(engine)
    gray = np.zeros((1, 32, 32), np.float32)
    found = together(batcher, *(lambda seed=seed: batcher(gray, [resolved(engine, seed)]).rgb for seed in range(5)))
    assert [type(each) for each in found] == [np.ndarray, np.ndarray, ModelError, np.ndarray, np.ndarray]
    with pytest.raises(ModelError, match="not numbers"):
        batcher(np.zeros((2, 32, 32), np.float32), [resolved(engine, 1), resolved(engine, 2)])


def test_features_go_to_those_who_want_them(engine, together):
    batcher, options = DynamicBatcher(engine), [resolved(engine, 0)]
    grays = [np.full((1, 32, 32), 0.1 * n, np.float32) for n in range(3)]
    calls = [lambda n=n: batcher(grays[n], options, n > 0) for n in range(2)]
    alone, first, two = together(
        batcher, *calls, lambda: batcher(np.concatenate(grays[1:]), 2 * options, True), photos=4
    )
    assert alone.features is None
    np.testing.assert_array_equal(first.features[8], grays[1][:, None, ::8, ::8])
    np.testing.assert_array_equal(two.features[8], np.concatenate(grays[1:])[:, None, ::8, ::8])


def test_more_photos_than_a_pass_takes_go_through_in_several(engine):
    batcher, grays = DynamicBatcher(engine, max_batch=4), np.linspace(0, 1, 6 * 32 * 32, dtype=np.float32)
    grays, options = grays.reshape(6, 32, 32), [resolved(engine, seed) for seed in range(6)]
    rgb = batcher(grays, options).rgb
    assert [len(call) for call in engine.calls] == [4, 2]
    np.testing.assert_array_equal(rgb, engine(grays, options).rgb)


def test_a_colorizer_gives_the_same_pixels(engine, together):
    batched, alone = Colorizer(DynamicBatcher(engine)), Colorizer(engine)
    assert isinstance(batched.backend, DynamicBatcher)
    grays = [np.full((64, 64), 40 + 10 * n, np.uint8) for n in range(3)]
    requests = [Request(gray, make_options(seed=n)) for n, gray in enumerate(grays)]
    outputs = together(batched.backend, *(lambda each=each: batched.model_output(each) for each in requests))
    assert [len(call) for call in engine.calls] == [1, 2]
    for output, request in zip(outputs, requests, strict=True):
        (wanted,) = alone.colorize_many([request])
        assert not isinstance(wanted, PhotoError)
        np.testing.assert_array_equal(batched.finish(output).rgb, wanted.rgb)
    with pytest.raises(PhotoError):
        batched.model_output(Request(b"no picture"))


def test_it_says_of_the_model_what_the_backend_says(engine):
    batcher = DynamicBatcher(engine)
    assert (batcher.info, batcher.runtime, batcher.multiple_px) == (engine.info, engine.runtime, engine.multiple_px)
    assert batcher.warnings_of(resolved(engine, 0, prompt="odd")) == ("the prompt is odd",)
    assert batcher.features(np.zeros((1, 32, 32), np.float32)) is None

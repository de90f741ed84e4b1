"""Photos of many callers in one pass: grouped by what must be alike, each with its own result or failure."""

from __future__ import annotations

import numpy as np
import pytest

from chromatune.errors import ModelError
from chromatune.options import make_options
from chromatune.serving.gathered_pass import Asked, GatheredPass, passes_of


@pytest.fixture
def ask(engine):
    """A photo for the arithmetic model."""

    def make(seed: int, side: int = 32, **options) -> Asked:
        resolved = engine.info.resolve(make_options(seed=seed, **options))
        return Asked(engine, np.full((side, side), 0.4, np.float32), resolved)

    return make


def test_those_of_one_size_and_options_share_a_pass(engine, ask):
    asked = [ask(1), ask(2, side=64), ask(3), ask(4, steps=9), ask(5, side=64)]
    found = passes_of(asked)
    assert sorted([each.seed for each in call] for call in engine.calls) == [[1, 3], [2, 5], [4]]
    for each, rgb in zip(asked, found, strict=True):
        np.testing.assert_array_equal(rgb, engine(each.gray[None], [each.options]).rgb[0])


def test_one_that_fails_fails_alone(engine, ask, monkeypatch):
    original = type(engine).__call__

    def call(self, grays, options):
        if any(each.seed == 2 for each in options):
            raise ModelError("values that are not numbers")
        return original(self, grays, options)

    monkeypatch.setattr(type(engine), "__call__", call)
    found = passes_of([ask(1), ask(2), ask(3)])
    assert [type(each) for each in found] == [np.ndarray, ModelError, np.ndarray]
    passing = GatheredPass(engine, passes_of)
    with pytest.raises(ModelError, match="not numbers"):
        passing(np.zeros((1, 32, 32), np.float32), [ask(2).options])


def test_it_is_the_models_own_pass(engine, ask):
    passing, asked = GatheredPass(engine, passes_of), [ask(1), ask(2)]
    given = np.stack([each.gray for each in asked]), [each.options for each in asked]
    rgb = passing(*given).rgb
    np.testing.assert_array_equal(rgb, engine(*given).rgb)
    assert (passing.info, passing.runtime, passing.multiple_px) == (engine.info, engine.runtime, engine.multiple_px)
    odd = engine.info.resolve(make_options(prompt="odd"))
    assert passing.warnings_of(odd) == ("the prompt is odd",) and passing.features(rgb[..., 0]) is None

"""Variants of a photo: whole regions change, smoothly; skin hardly; the same numbers give the same pixels."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest
import skimage.data

from chromatune import color
from chromatune.color.correction_field import CorrectionField
from chromatune.color.versions import GAIN, PULL
from chromatune.colorizer import Colorizer
from chromatune.editor import Editor
from chromatune.errors import OptionsError
from chromatune.hints import Hints
from chromatune.images import Photo
from chromatune.options import SEEDS, ColorizeOptions, make_options
from chromatune.results import ModelOutput, Request
from studies.versions import outputs_of, patchiness, spread, ways

SKIN = np.array([-0.055, 0.085], np.float32)


def gray_of(name: str) -> np.ndarray:
    photo = getattr(skimage.data, name)()
    side = min(photo.shape[:2])
    return color.luma(cv2.resize(np.ascontiguousarray(photo[:side, :side]), (256, 256), interpolation=cv2.INTER_AREA))


def halves() -> np.ndarray:
    """Two flat halves of different luma."""
    luma = np.full((64, 96), 0.3, np.float32)
    luma[:, 48:] = 0.7
    return luma


def output_of(colorizer: Colorizer, request: Photo | Request, options: ColorizeOptions | None = None) -> ModelOutput:
    (output,) = colorizer.model_outputs([request], options)
    assert isinstance(output, ModelOutput)
    return output


def test_a_constant_stays_and_each_side_of_an_edge_gets_its_own_mean() -> None:
    luma = halves()
    values = np.full((*luma.shape, 2), (0.02, -0.05), np.float32)
    field = CorrectionField(luma)
    np.testing.assert_allclose(field.smooth(values, PULL), values, atol=1e-6)
    values += np.random.default_rng(0).normal(0, 0.1, values.shape)
    values[:, 48:] += 0.2
    smooth = field.smooth(values, PULL)
    for side in (np.s_[:, 1:47], np.s_[:, 49:95]):
        np.testing.assert_allclose(smooth[side].mean(axis=(0, 1)), values[side].mean(axis=(0, 1)), atol=0.03)
        assert smooth[side].std(axis=(0, 1)).max() < 0.1 * values[side].std(axis=(0, 1)).min()


def test_smoothing_reaches_as_far_over_texture_as_over_a_flat_wall() -> None:
    rng = np.random.default_rng(0)
    patches = np.kron(rng.normal(0, 0.1, (8, 8, 2)), np.ones((8, 8, 1))).astype(np.float32)
    left = [CorrectionField(luma.astype(np.float32)).smooth(patches, PULL).std() for luma in
            (np.full((64, 64), 0.5), np.clip(rng.normal(0.5, 0.06, (64, 64)), 0, 1))]  # fmt: skip
    assert left[1] < 1.5 * left[0] < 0.3 * patches.std()


def test_a_constant_difference_is_strengthened_and_at_the_hue_of_skin_less() -> None:
    luma, difference = halves(), np.array([0.02, -0.03], np.float32)
    own = np.zeros((*luma.shape, 2), np.float32)
    own[:] = 0.1, 0.0
    own[:, 48:] = SKIN
    shift = color.regional_shift(own, own + difference, luma)
    np.testing.assert_allclose(shift[:, 4:40], np.broadcast_to(GAIN * difference, shift[:, 4:40].shape), rtol=0.1)
    assert np.abs(shift[:, 56:92]).max() < 0.5 * GAIN * np.abs(difference).max()
    assert color.departure(np.full((4, 4, 2), (0.3, -0.4), np.float32)) == pytest.approx(0.5)


@pytest.mark.parametrize(
    "name", ["coffee", *(pytest.param(each, marks=pytest.mark.slow) for each in ("astronaut", "chelsea", "rocket"))]
)
def test_variants_differ_more_than_samples_and_are_as_smooth_as_the_models_own_pass(mini, name) -> None:
    gray = gray_of(name)
    found = {
        way: [mini.chroma(output) for output in outputs_of(mini, Photo(gray), options)]
        for way, options in ways(mini, 3).items()
    }
    own, sampled, variants = found.values()
    assert spread(variants) > spread(sampled)
    assert np.mean([patchiness(each, gray) for each in variants]) < 1.1 * patchiness(own[0], gray)


def test_skin_keeps_its_color(mini) -> None:
    truth = cv2.resize(skimage.data.astronaut()[:256, 96:352], (256, 256))
    photo = Photo(color.luma(truth))
    own, *variants = (mini.chroma(output_of(mini, photo, make_options(variant=number))) for number in range(1, 5))
    face = np.s_[80:150, 100:150]
    for chroma in variants:
        assert np.linalg.norm(chroma[face].mean(axis=(0, 1)) - own[face].mean(axis=(0, 1))) < 0.03
        assert (chroma[face][..., 1] > 0).mean() > 0.95  # never green


def test_the_same_numbers_give_the_same_pixels_alone_or_beside_others(mini) -> None:
    gray = gray_of("coffee")[:128]
    photo, options = Photo(gray), [make_options(variant=number, seed=3) for number in (1, 3, 2)]
    together = [result.rgb for result in mini.colorize_many([Request(photo, each) for each in options])]
    alone = [Colorizer(mini.backend).colorize(gray, each).rgb for each in options]
    np.testing.assert_array_equal(together, alone)
    np.testing.assert_array_equal(alone[0], mini.colorize(gray, make_options(seed=3)).rgb)
    result = mini.colorize(photo, options[2])
    assert (result.variant, result.seed, result.steps) == (2, 3, 1)
    assert color.luma_drift(result.rgb, gray)[0] <= 1


def test_variants_of_a_photo_share_its_own_pass(engine) -> None:
    colorizer, own, more = Colorizer(engine), engine.info.steps, engine.info.variant_steps
    photo = Photo(np.full((40, 60), 120, np.uint8))

    def passes(*requests: Request) -> list[tuple[int, int]]:
        engine.calls.clear()
        assert all(isinstance(each, ModelOutput) for each in colorizer.model_outputs(requests))
        return sorted((each.steps, each.seed) for call in engine.calls for each in call)

    assert passes(*(Request(photo, make_options(variant=number)) for number in (2, 3))) == [
        (own, 0),
        (more, 1),
        (more, 2),
    ]
    assert passes(Request(photo, make_options(variant=4, vivid=0.5))) == [(more, 3)]  # it acts later
    assert passes(Request(photo, make_options(variant=2, prompt="warm"))) == [(own, 0), (more, 1)]
    assert passes(Request(Photo(photo.gray), make_options(variant=2, prompt="warm"))) == [(own, 0), (more, 1)]
    assert passes(Request(photo, make_options(variant=2, seed=SEEDS - 1))) == [(own, SEEDS - 1), (more, 0)]


def test_variants_of_other_models_and_numbers_of_steps_are_further_seeds(engine) -> None:
    two = make_options(seed=7, variant=2)
    resolved = engine.info.resolve(two)
    assert (resolved.variant, resolved.seed, resolved.steps) == (2, 7, engine.info.steps)
    full_size = dataclasses.replace(engine.info, variant_steps=engine.info.steps)
    for info, options in ((full_size, two), (engine.info, make_options(seed=7, variant=2, steps=engine.info.steps))):
        resolved = info.resolve(options)
        assert (resolved.variant, resolved.seed, resolved.steps) == (1, 8, info.steps)
    resolved = engine.info.resolve(make_options(seed=7, variant=2, recompose=False))
    assert (resolved.variant, resolved.seed, resolved.steps) == (1, 8, engine.info.variant_steps)


def test_a_variant_is_the_ground_for_strokes(mini) -> None:
    gray = gray_of("coffee")
    request = Request(Photo(gray), make_options(variant=3, hint_reach=0.1))
    hints = Hints().stroke([(20, 20), (40, 20)], 5, "#3050a0")
    editor = Editor(mini, output_of(mini, request))
    painted, ground = editor.chroma(hints), editor.chroma(Hints())
    own = mini.chroma(output_of(mini, Photo(gray)))
    far = np.s_[150:, 100:]
    assert np.abs(painted[far] - ground[far]).mean() < 0.2 * np.abs(painted[far] - own[far]).mean()
    expected = mini.colorize(gray, request.options, hints=hints)
    np.testing.assert_array_equal(editor.finish(hints).rgb, expected.rgb)
    assert expected.variant == 3


def test_suggestions_are_of_variants_the_likeliest_first(mini) -> None:
    photo = Photo(gray_of("coffee"))
    editor = Editor(mini, output_of(mini, photo, make_options(variant=3)))
    own, variants, _ = editor._candidates
    np.testing.assert_array_equal(own, mini.chroma(editor.output))
    others = [output_of(mini, photo, make_options(variant=number)) for number in (1, 2, 4)]
    others.sort(key=lambda output: output.departure)
    assert others[0].departure == 0 < others[1].departure < others[2].departure
    for found, expected in zip(variants, others, strict=True):
        np.testing.assert_array_equal(found, mini.chroma(expected))


def test_a_variant_out_of_range_is_one_line() -> None:
    for number in (0, 1001):
        with pytest.raises(OptionsError, match=f"variant={number}"):
            make_options(variant=number)

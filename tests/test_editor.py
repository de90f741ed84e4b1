"""Palette and reference photos: distinct colors in gamut; a view of the same scene is taken, another is left."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest
import skimage.data
from PIL import Image

from chromatune import color
from chromatune.cli import main
from chromatune.colorizer import Colorizer
from chromatune.editor import LEAST_DIFFERENCE, VARIANTS, Editor, chroma_at, distinct_colors
from chromatune.errors import OptionsError, PhotoError
from chromatune.hints import Hints
from chromatune.hints.correction import HintedChroma
from chromatune.options import make_options
from chromatune.prompts import NAMED_HUES
from chromatune.results import Request


def square(name: str) -> np.ndarray:
    photo = getattr(skimage.data, name)()
    side = min(photo.shape[:2])
    return cv2.resize(np.ascontiguousarray(photo[:side, :side]), (256, 256), interpolation=cv2.INTER_AREA)


def view_of(rgb: np.ndarray) -> np.ndarray:
    """Mirrored, and cut to 70 %."""
    cut = round(0.15 * len(rgb))
    return np.ascontiguousarray(rgb[cut:-cut, cut:-cut][:, ::-1])


def error(rgb: np.ndarray, truth: np.ndarray) -> float:
    return float(np.mean((rgb.astype(float) - truth) ** 2))


@pytest.mark.parametrize(
    "name", ["coffee", *(pytest.param(each, marks=pytest.mark.slow) for each in ("astronaut", "chelsea"))]
)
def test_another_view_of_the_scene_gives_its_colors(mini, name):
    truth = square(name)
    gray = color.luma(truth)
    plain = make_options(vivid=0)  # what the default adds where the view says nothing is not the view's
    alone, helped = mini.colorize(gray, plain), mini.colorize(gray, plain, like=[view_of(truth)])
    assert error(helped.rgb, truth) < 0.6 * error(alone.rgb, truth)
    assert color.luma_drift(helped.rgb, gray)[0] <= 1


def test_an_unrelated_reference_changes_next_to_nothing(mini):
    for name, other in (("astronaut", "coffee"), ("chelsea", "rocket")):
        gray = color.luma(square(name))
        (one, two) = (mini.colorize(gray, like=like).rgb.astype(int) for like in ([], [square(other)]))
        assert abs(one - two).mean() < 1


def test_of_several_references_the_one_that_fits_is_taken(mini):
    truth = square("coffee")
    gray = color.luma(truth)
    only, among = (
        mini.colorize(gray, like=like).rgb for like in ([view_of(truth)], [square("rocket"), view_of(truth)])
    )
    assert error(among, truth) < 1.2 * error(only, truth)


def test_hints_correct_what_a_reference_said(mini):
    truth = square("coffee")
    editor = Editor(mini, next(iter(mini.model_outputs([Request(color.luma(truth), like=(mini.reference(truth),))]))))
    rgb = editor.finish(Hints().stroke([(20, 20), (60, 20)], 6, "#406080")).rgb
    assert rgb[20, 40, 2] > rgb[20, 40, 0]
    plain = mini.colorize(color.luma(truth), like=[truth]).rgb
    assert abs(editor.finish(Hints()).rgb.astype(int) - plain).max() <= 1


def test_references_without_use_are_refused(mini, engine, encoder_pipeline):
    with pytest.raises(PhotoError, match="has no color"):
        mini.reference(np.zeros((64, 64), np.uint8))
    with pytest.raises(PhotoError, match="missing"):
        mini.reference("missing.jpg")
    small = Colorizer.load(str(encoder_pipeline), device="cpu")  # its features end at a stride of 16
    for colorizer in (Colorizer(engine), small):
        with pytest.raises(OptionsError, match="no photo encoder"):
            colorizer.reference(square("coffee"))
    with pytest.raises(OptionsError, match="--no-recompose"):
        mini.colorize(np.zeros((64, 64), np.uint8), make_options(recompose=False), like=[square("coffee")])


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (["--like", "gray.png"], "gray.png has no color"),
        (["--like", "missing.png"], "missing.png"),
        (["--like", "color.png"], "no photo encoder"),
        (["--like", "color.png", "--no-recompose"], "leave out --no-recompose"),
    ],
)
def test_references_on_the_command_line_of_no_use_are_one_line(engine, put, capsys, typed, words):
    put("a.png")
    put("gray.png")
    Image.fromarray(square("coffee")).save("color.png")
    assert main(["colorize", "a.png", *typed]) != 0
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line and not engine.calls


def test_a_reference_on_the_command_line(folder, mini):
    truth = square("chelsea")
    Image.fromarray(color.luma(truth)).save("a.png")
    Image.fromarray(view_of(truth)).save("view.png")
    assert main(["colorize", "a.png", "--like", "view.png", "--runtime", "onnx", "-q"]) == 0
    expected = mini.colorize("a.png", like=["view.png"]).rgb
    np.testing.assert_array_equal(np.asarray(Image.open("a.color.png").convert("RGB")), expected)


def test_suggestions_are_distinct_in_gamut_and_begin_with_the_models_own(mini):
    gray = cv2.resize(color.luma(square("coffee")), (128, 128), interpolation=cv2.INTER_AREA)
    output = mini.model_output(gray, make_options(size_px=128))
    editor = Editor(mini, output)
    result = mini.finish(output).rgb
    for x, y in ((10, 10), (64, 70), (128, 128)):
        found = editor.suggest(x, y)
        row, column = min(127, int(y)), min(127, int(x))
        least = 2 if gray[row, column] > 30 else 1  # near black there is little else
        assert least <= len(found) <= 6
        rgb = np.array(found, np.uint8)[None]
        assert abs(color.luma(rgb).astype(int) - gray[row, column]).max() <= 4  # of the pass's pixel there
        labs = cv2.cvtColor(rgb.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[0]
        gaps = np.linalg.norm(labs[:, None] - labs, axis=2) + 99 * np.eye(len(found))
        assert gaps.min() > LEAST_DIFFERENCE - 1.5  # whole levels
        assert abs(rgb[0, 0].astype(int) - result[row, column]).max() < 40
    assert len(editor.suggest(10, 10, count=2)) == 2
    with pytest.raises(PhotoError, match="outside"):
        editor.suggest(150, 10)


def test_a_palette_costs_its_passes_once(engine):
    colorizer = Colorizer(engine)
    editor = Editor(colorizer, colorizer.model_output(np.full((40, 60), 120, np.uint8)))
    found = editor.suggest(10, 10)
    passes = len(engine.calls)
    assert editor.suggest(50, 30) == found and len(engine.calls) == passes
    prompts = [options.prompt for call in engine.calls for options in call]
    assert prompts.count("colorize") == 4 and "colorize, mostly blue" in prompts


@pytest.mark.parametrize(("follows", "passes"), [((), 0), (("prompt",), len(NAMED_HUES)), (("seed",), VARIANTS)])
def test_a_palette_asks_for_what_the_model_follows(engine, follows, passes):
    engine.info = dataclasses.replace(engine.info, follows=frozenset(follows))
    colorizer = Colorizer(engine)
    editor = Editor(colorizer, colorizer.model_output(np.full((40, 60), 120, np.uint8)))
    engine.calls.clear()
    assert editor.suggest(10, 10)[0] == editor.suggest(50, 30)[0]
    assert sum(map(len, engine.calls)) == passes


def test_candidates_that_do_not_fit_are_brought_into_the_gamut_and_alike_ones_told_once():
    candidates = [np.array(each) for each in ((0.0, 0.0), (0.001, 0.0), (0.5, 0.0), (0.9, 0.0), (0.0, 0.5))]
    found = distinct_colors(candidates, 0.5, 9)
    assert found[0] == (128, 128, 128) and len(found) == 3
    assert found[1][2] > 250 and found[2][0] == 255
    assert distinct_colors(candidates, 0.0, 9) == ((0, 0, 0),)
    assert len(distinct_colors(candidates, 0.5, 2)) == 2


def test_a_point_next_to_an_edge_is_of_its_own_side():
    luma = np.full((80, 80), 0.2, np.float32)
    luma[:, 40:] = 0.8
    chroma = np.zeros((80, 80, 2), np.float32)
    chroma[:, 40:] = 0.3
    for x, expected in ((39.5 / 80, 0.0), (40.5 / 80, 0.3)):
        np.testing.assert_allclose(chroma_at(chroma, luma, x, 0.5)[0], expected, atol=1e-4)


def test_words_come_after_seeds_the_nearest_to_the_models_own_first(engine):
    colorizer = Colorizer(engine)
    editor = Editor(colorizer, colorizer.model_output(np.full((40, 60), 120, np.uint8)))
    own, seed, near, far = (np.full((32, 48, 2), (0.0, red), np.float32) for red in (0.0, 0.2, -0.08, 0.3))
    editor.__dict__["_candidates"] = own, [seed], [far, near]
    reds = [red for red, _, _ in editor.suggest(30, 20)]
    expected = [120 + round(255 * 1.402 * red) for red in (0.0, 0.2, -0.08, 0.3)]
    assert reds == pytest.approx(expected, abs=2)


def test_a_result_after_its_preview_takes_no_further_solve(mini, monkeypatch):
    solved: list[float] = []
    solve = HintedChroma.with_hints

    def counted(self: HintedChroma, hints: Hints, *, reach: float = 1.0, strength: float = 1.0) -> np.ndarray:
        solved.append(reach)
        return solve(self, hints, reach=reach, strength=strength)

    monkeypatch.setattr(HintedChroma, "with_hints", counted)
    output = mini.model_output(color.luma(square("coffee")))
    editor, hints = Editor(mini, output), Hints().point(60, 60, "#a03020")
    editor.preview(hints)
    result = editor.finish(Hints.from_json(hints.to_json()))  # the same hints, as a page sends them again
    assert solved == [1.0]
    np.testing.assert_array_equal(result.rgb, Editor(mini, output).finish(hints).rgb)
    other = dataclasses.replace(output.options, hint_reach=0.2)
    assert not np.array_equal(editor.finish(hints, other).rgb, result.rgb)
    editor.finish(hints.point(90, 90, "navy"))
    assert solved == [1.0, 1.0, 0.2, 1.0]


@pytest.mark.parametrize("hints", [pytest.param(Hints(), marks=pytest.mark.slow), Hints().point(60, 60, "#a03020")])
def test_vividness_changes_without_a_pass_and_as_colorize_has_it(mini, hints):
    gray = color.luma(square("coffee"))
    editor = Editor(mini, mini.model_output(gray))
    for amount in (2.0, 0.0):
        asked = dataclasses.replace(editor.output.options, vivid=amount)
        expected = mini.colorize(gray, make_options(vivid=amount), hints=hints).rgb
        np.testing.assert_array_equal(editor.finish(hints, asked).rgb, expected)

"""Hints through `Colorizer`: colors arrive, luminance stays, editing gives the same pixels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chromatune.color import chroma_of, luma, luma_drift, recompose
from chromatune.colorizer import Colorizer
from chromatune.editor import Editor
from chromatune.errors import OptionsError, PhotoError
from chromatune.hints import HintedChroma, Hints
from chromatune.images import Photo
from chromatune.options import make_options
from chromatune.pipeline.onnx_backend import OnnxBackend
from chromatune.pipeline.torch_backend import TorchBackend
from chromatune.results import ModelOutput, Request


@pytest.fixture
def colorizer(engine) -> Colorizer:
    return Colorizer(engine)


def scene(dtype: type = np.uint8, height: int = 120, width: int = 180) -> np.ndarray:
    """A light upper half with a texture, and a dark lower one."""
    gray = np.full((height, width), 0.7) + 0.02 * np.sin(np.arange(width) / 3)
    gray[height // 2 :] = 0.35
    return np.rint(gray * np.iinfo(dtype).max).astype(dtype)


def relative(rgb: np.ndarray) -> np.ndarray:
    """Mean chroma over luma of pixels."""
    flat = rgb.reshape(1, -1, 3).astype(float) / np.iinfo(rgb.dtype).max
    return chroma_of(flat)[0].mean(axis=0) / luma(flat).mean()


@pytest.mark.parametrize(
    ("dtype", "color"), [(np.uint8, "#805040"), (np.uint16, "#406080"), (np.uint8, "#808080"), (np.uint16, "black")]
)
def test_a_hints_own_pixels_get_its_color_and_luminance_stays(colorizer, dtype, color):
    gray = scene(dtype)
    hints = Hints().stroke([(40, 90), (140, 90)], 8, color)
    rgb = colorizer.colorize(gray, make_options(seed=9), hints=hints).rgb
    wanted = np.array({"#805040": (128, 80, 64), "#406080": (64, 96, 128)}.get(color, (128, 128, 128))) / 255
    wanted = chroma_of(wanted[None, None])[0, 0] / luma(wanted[None, None])[0, 0]
    np.testing.assert_allclose(relative(rgb[85:95, 45:135]), wanted, atol=0.01)
    assert rgb.dtype == dtype and luma_drift(rgb, gray)[0] <= 1


def test_dark_and_bright_of_one_hue_and_saturation_do_the_same(colorizer):
    dark, bright = (
        colorizer.colorize(scene(), hints=Hints().point(60, 90, color, 9)).rgb for color in ("#400c08", "#f02d1e")
    )
    np.testing.assert_array_equal(dark, bright)


def test_a_color_that_the_luma_has_no_room_for_keeps_its_hue(colorizer):
    rgb = colorizer.colorize(scene(), hints=Hints().stroke([(40, 30), (140, 30)], 8, "blue")).rgb[25:35, 45:135]
    assert (rgb[..., 2] >= 253).all() and np.ptp(rgb[..., :2].astype(int), axis=2).max() <= 3


@given(st.data())
@settings(max_examples=15, deadline=None)
def test_luminance_drifts_by_one_level_at_most_whatever_the_hints(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    dtype = data.draw(st.sampled_from([np.uint8, np.uint16]))
    height, width = data.draw(st.tuples(st.integers(1, 60), st.integers(1, 60)))
    gray = rng.integers(0, np.iinfo(dtype).max + 1, (height, width), dtype=dtype)
    hints = Hints()
    if data.draw(st.booleans()):
        noise = rng.integers(0, 256, (height, width, 4), dtype=np.uint8)
        noise[0, 0, 3] = 255
        hints = Hints.from_layer(noise)
    for _ in range(data.draw(st.integers(0, 12))):
        points = rng.uniform(0, 1, (data.draw(st.integers(1, 4)), 2)) * (width, height)
        hints = hints.stroke(points.tolist(), float(10 ** rng.uniform(-2, 4)), rng.integers(0, 256, 3).tolist())
    chroma = rng.uniform(-0.5, 0.5, (data.draw(st.integers(1, 40)), 8, 2)).astype(np.float32)
    hinted = HintedChroma(Photo(gray), chroma).with_hints(hints, reach=data.draw(st.floats(0.1, 10)))
    rgb = recompose(gray, hinted)
    assert luma_drift(rgb, gray)[0] <= np.float64(255 / np.iinfo(dtype).max) * 1.001


def test_editing_gives_the_pixels_of_colorize_and_no_further_pass(colorizer, engine):
    gray, hints = scene(), Hints().point(60, 90, "red").stroke([(10, 10), (150, 20)], 5, "#8090a0")
    expected = colorizer.colorize(gray, hints=hints).rgb
    (output,) = colorizer.model_outputs([gray])
    passes = len(engine.calls)
    assert isinstance(output, ModelOutput)
    editor = Editor(colorizer, output)
    editor.preview(Hints().point(100, 20, "green"))
    np.testing.assert_array_equal(editor.finish(hints).rgb, expected)
    np.testing.assert_array_equal(editor.preview(hints), expected)  # no larger than a preview may be
    assert editor.preview(hints, max_pixels=5400).shape == (60, 90, 3)
    assert len(engine.calls) == passes


def test_taking_all_hints_away_gives_the_models_own(colorizer):
    (output,) = colorizer.model_outputs([scene()])
    editor = Editor(colorizer, output)
    editor.preview(Hints().point(60, 90, "red"))
    assert abs(editor.finish(Hints()).rgb.astype(int) - colorizer.colorize(scene()).rgb).max() <= 1


def test_strength_and_reach_are_options(colorizer):
    hints = Hints().point(20, 90, "#805040", 5)

    def redness(**settings) -> np.ndarray:
        rgb = colorizer.colorize(scene(), make_options(**settings), hints=hints).rgb.astype(int)
        return (rgb[90, :, 0] - rgb[90, :, 2]).astype(float)

    assert redness(hint_strength=0)[20] == 0 < redness(hint_strength=0.5)[20] < redness()[20]
    assert redness(hint_reach=0.3)[170] < redness()[170] < redness(hint_reach=5)[170]


def test_requests_have_hints_of_their_own_and_a_bad_one_leaves_the_others(colorizer, engine):
    requests = [
        Request(scene(), hints=Hints().point(60, 90, "red", 9)),
        Request(scene(), hints=Hints().point(600, 90, "red", 9)),
        Request(scene(), make_options(seed=3)),
    ]
    first, second, third = colorizer.colorize_many(requests)
    assert first.rgb[90, 60, 0] > first.rgb[90, 60, 2] + 50
    assert isinstance(second, PhotoError) and "600,90" in str(second)
    assert sum(len(call) for call in engine.calls) == 2  # it was refused before the pass
    np.testing.assert_array_equal(third.rgb, colorizer.colorize(scene(), make_options(seed=3)).rgb)


def test_hints_without_recomposition_are_refused_before_the_pass(colorizer, engine):
    raw = make_options(recompose=False)
    with pytest.raises(OptionsError, match="--no-recompose"):
        colorizer.colorize(scene(), raw, hints=Hints().point(1, 1, "red"))
    assert not engine.calls
    (output,) = colorizer.model_outputs([scene()], raw)
    with pytest.raises(OptionsError, match="--no-recompose"):
        Editor(colorizer, output)


def test_points_are_those_of_the_photo_as_it_is_shown(colorizer, tmp_path):
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees: 120 wide, 180 high
    path = tmp_path / "turned.png"
    Image.fromarray(np.full((120, 180), 90, np.uint8)).save(path, exif=exif)
    rgb = colorizer.colorize(path, hints=Hints().point(20, 170, "#805040", 6)).rgb
    assert rgb.shape == (180, 120, 3)
    assert rgb[170, 20, 0] - int(rgb[170, 20, 2]) > 30 > rgb[10, 110, 0] - int(rgb[10, 110, 2])


def test_the_shipped_models_features_find_what_looks_alike(mini):
    """Two equal discs on a ground of noise: a hint on one of them reaches the other across the ground."""
    rng = np.random.default_rng(0)
    gray = rng.normal(150, 25, (256, 384)).clip(0, 255)
    rows, columns = np.mgrid[:256, :384]
    discs = [(rows - 128) ** 2 + (columns - center) ** 2 < 50**2 for center in (90, 294)]
    for disc in discs:
        gray[disc] = 60
    (output,) = mini.model_outputs([gray.astype(np.uint8)])
    hints = Hints().point(90, 128, "#205080", 12)
    changed = Editor(mini, output).chroma(hints) - mini.chroma(output)
    alone = HintedChroma(output.photo, mini.chroma(output)).with_hints(hints) - mini.chroma(output)
    other = discs[1] & ((rows - 128) ** 2 + (columns - 294) ** 2 < 40**2)
    assert changed[other][:, 0].mean() > 0.02 > abs(alone[other][:, 0].mean())


def test_both_runtimes_see_the_same_features(mini):
    pytest.importorskip("torch")
    grays = np.random.default_rng(0).uniform(0, 1, (1, 64, 96)).astype(np.float32)
    there = Colorizer.load("mini", runtime="torch", device="cpu").backend.features(grays)
    here = mini.backend.features(grays)
    assert here is not None and there is not None and here.keys() == there.keys()
    for stride, features in here.items():
        assert features.shape[2:] == (64 // stride, 96 // stride)
        np.testing.assert_allclose(features, there[stride], atol=1e-3)


def test_a_model_without_a_photo_encoder_has_no_features_and_takes_hints(tiny_pipeline_dir):
    colorizer = Colorizer.load(str(tiny_pipeline_dir), device="cpu")
    assert colorizer.backend.features(np.zeros((1, 32, 32), np.float32)) is None
    rgb = colorizer.colorize(scene(), hints=Hints().stroke([(40, 90), (140, 90)], 8, "#805040")).rgb
    assert rgb[90, 90, 0] > rgb[90, 90, 2] + 20


SLOW_SIZES = [pytest.param(*each, marks=pytest.mark.slow) for each in ((341, 256), (300, 180), (600, 30))]


@pytest.mark.parametrize(("height", "width"), [(40, 60), (30, 600), (1, 1), *SLOW_SIZES])
def test_photos_of_any_size_and_aspect_take_hints_and_references(mini, height, width):
    gray = np.random.default_rng(0).integers(0, 256, (height, width), dtype=np.uint8)
    color = np.repeat(gray[..., None], 3, axis=2)
    color[..., 0] //= 2
    rgb = mini.colorize(gray, hints=Hints().point(width / 2, height / 2, "#a03020"), like=[color]).rgb
    assert rgb.shape == (height, width, 3) and luma_drift(rgb, gray)[0] <= 1


@pytest.mark.parametrize("runtime", ["onnx", "torch"])
def test_the_photo_encoder_runs_once_for_a_hinted_photo(monkeypatch, runtime, mini, encoder_pipeline):
    """The pass hands on what it saw; a photo that is hinted only later, in an editor, is looked at once more."""
    colorizer = mini if runtime == "onnx" else Colorizer.load(str(encoder_pipeline), runtime=runtime, device="cpu")
    assert isinstance(colorizer.backend, OnnxBackend | TorchBackend)
    encoder = colorizer.backend.pipeline.photo_encoder
    name = "run" if runtime == "onnx" else "features"
    own, runs = getattr(encoder, name), []

    def counted(*given):
        runs.append(given)
        return own(*given)

    monkeypatch.setattr(encoder, name, counted)
    hints = Hints().point(60, 90, "red")
    colorizer.colorize(scene(), hints=hints)
    assert len(runs) == 1
    (hinted,) = colorizer.model_outputs([Request(scene(), hints=hints)])
    assert isinstance(hinted, ModelOutput)
    editor = Editor(colorizer, hinted)
    rgb = editor.finish(hints).rgb
    assert len(runs) == 2
    editor.forget()  # the features too, which are larger than the chroma
    np.testing.assert_array_equal(editor.finish(hints).rgb, rgb)
    assert len(runs) == 3
    (output,) = colorizer.model_outputs([scene()])
    assert isinstance(output, ModelOutput)
    editor = Editor(colorizer, output)
    editor.preview(hints)
    editor.finish(Hints().point(10, 90, "red"))
    assert len(runs) == 5


def test_graphs_without_features_take_hints_by_luma_alone(graph_pipeline):
    """As they were exported before features were."""
    colorizer = Colorizer.load(str(graph_pipeline), device="cpu", runtime="onnx")
    assert colorizer.backend.features(np.zeros((1, 32, 32), np.float32)) is None
    rgb = colorizer.colorize(scene(), hints=Hints().stroke([(40, 90), (140, 90)], 8, "#805040")).rgb
    assert rgb[90, 90, 0] > rgb[90, 90, 2] + 20

"""`Colorizer`: every kind of source, exact luminance, batches, seeds, and the size of the model's own pass."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from PIL import Image

from chromatune import color
from chromatune.colorizer import Colorizer
from chromatune.errors import PhotoError
from chromatune.options import ResolvedOptions, make_options
from chromatune.pipeline import BackendOutput, ModelInfo, TorchBackend
from chromatune.results import ColorizeResult, PhotoSource, Request


@pytest.fixture(scope="module", params=["torch", "onnx"])
def colorizer(request):
    """A tiny model of each runtime: their numbers differ, their promises do not."""
    folder = request.getfixturevalue({"torch": "tiny_pipeline_dir", "onnx": "graph_pipeline"}[request.param])
    return Colorizer.load(str(folder), device="cpu", runtime=request.param)


def photo(height_px: int = 50, width_px: int = 70, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height_px, width_px), dtype=np.uint8)


def test_sources_give_the_same_pixels(colorizer, tmp_path):
    gray = photo()
    Image.fromarray(gray).save(tmp_path / "gray.png")
    data = (tmp_path / "gray.png").read_bytes()
    with open(tmp_path / "gray.png", "rb") as file:
        sources = [gray, Image.fromarray(gray), data, tmp_path / "gray.png", str(tmp_path / "gray.png"), file]
        results = [colorizer.colorize(source).rgb for source in sources]
    for other in results[1:]:
        np.testing.assert_array_equal(results[0], other)
    assert results[0].shape == (50, 70, 3)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_luminance_is_the_photos_own(colorizer, dtype):
    gray = np.random.default_rng(1).integers(0, np.iinfo(dtype).max + 1, (60, 90), dtype=dtype)
    result = colorizer.colorize(gray)
    assert result.rgb.dtype == dtype
    assert color.luma_drift(result.rgb, gray)[0] <= 1
    assert np.ptp(result.rgb.astype(int), axis=2).max() > 3 * np.iinfo(dtype).max / 255  # it did add color


def test_strength_scales_the_color(colorizer):
    gray = photo()
    chroma = [
        np.ptp(colorizer.colorize(gray, make_options(strength=strength)).rgb.astype(int), axis=2).mean()
        for strength in (0.0, 0.5, 1.0)
    ]
    assert chroma[0] == 0 < chroma[1] < chroma[2]


def test_vividness_is_for_the_models_own_steps_and_keeps_luminance(colorizer):
    gray = np.full((50, 70), 32768, np.uint16)
    info = dataclasses.replace(colorizer.info, vivid=1.5)
    backend = colorizer.backend
    stronger = Colorizer(type(backend)(dataclasses.replace(backend.pipeline, info=info)))
    half = make_options(strength=0.2)
    chroma = [np.ptp(c.colorize(gray, half).rgb.astype(int), axis=2).mean() for c in (colorizer, stronger)]
    assert chroma[1] > 1.1 * chroma[0]
    assert color.luma_drift(stronger.colorize(gray).rgb, gray)[0] <= 1
    for asked in ({"steps": info.steps}, {"vivid": 0.0}):  # as the model samples it
        other = make_options(strength=0.2, **asked)
        np.testing.assert_array_equal(stronger.colorize(gray, other).rgb, colorizer.colorize(gray, other).rgb)


@pytest.mark.parametrize("recompose", [True, False])
def test_batches_of_mixed_sizes_come_in_order_and_equal_single_photos(colorizer, recompose):
    options = make_options(steps=2, seed=11, recompose=recompose)
    photos = [photo(40 + 7 * i, 90 - 9 * i, seed=i) for i in range(5)]
    together = list(colorizer.colorize_many(photos, options, batch_size=3))
    for single, batched in zip(photos, together, strict=True):
        np.testing.assert_array_equal(colorizer.colorize(single, options).rgb, batched.rgb)


@pytest.mark.parametrize("runtime", ["onnx", pytest.param("torch", marks=pytest.mark.slow)])
def test_the_embedded_model_gives_the_same_pixels_alone_and_in_a_batch(runtime):
    """Its matrices are large enough for kernels to round differently at another batch size."""
    mini = Colorizer.load("mini", device="cpu", runtime=runtime)
    photos = [photo(128, 128, seed=seed) for seed in range(2)]
    for single, batched in zip(photos, mini.colorize_many(photos), strict=True):
        assert isinstance(batched, ColorizeResult)
        np.testing.assert_array_equal(mini.colorize(single).rgb, batched.rgb)


class Arithmetic:
    """A model pass without a model: red is the seed, green the number of photos in the call; batches as a GPU does."""

    multiple_px = 16
    batches = True
    runtime = "arithmetic"
    concurrent = False

    def __init__(self, info: ModelInfo) -> None:
        self.info = info
        self.calls: list[list[int]] = []

    def warnings_of(self, options: ResolvedOptions) -> tuple[str, ...]:
        return ()

    def features(self, grays: np.ndarray) -> None:
        """It has no photo encoder."""

    def __call__(
        self, grays: np.ndarray, options: Sequence[ResolvedOptions], with_features: bool = False
    ) -> BackendOutput:
        self.calls.append([each.seed for each in options])
        assert len({dataclasses.replace(each, seed=0) for each in options}) == 1
        rgb = np.stack([grays] * 3, axis=-1)
        rgb[..., 0] = np.array([each.seed for each in options])[:, None, None] / 255
        rgb[..., 1] = len(grays) / 255
        return BackendOutput(rgb)


def test_each_photo_of_a_stream_may_have_its_own_options(colorizer):
    """Those alike but for the seed share a call; results come in order, with what each was asked."""
    backend = Arithmetic(colorizer.info)
    many = Colorizer(backend)
    raw = {"recompose": False, "size_px": 32}
    photos: list[PhotoSource | Request] = [
        Request(photo(32, 32), make_options(seed=1, **raw)),
        photo(32, 32),  # the stream's own options
        Request(photo(64, 32), make_options(seed=3, **raw)),  # another size
        Request(photo(32, 32), make_options(seed=4, prompt="red", **raw)),  # another prompt
        b"not a photo",
        Request(photo(32, 32), make_options(seed=6, **raw)),
    ]
    found = list(many.colorize_many(photos, make_options(seed=2, **raw)))
    assert isinstance(found[4], PhotoError)
    results = [each for each in found if isinstance(each, ColorizeResult)]
    assert [result.seed for result in results] == [1, 2, 3, 4, 6]
    assert [int(result.rgb[0, 0, 0]) for result in results] == [1, 2, 3, 4, 6]
    assert [int(result.rgb[0, 0, 1]) for result in results] == [3, 3, 1, 1, 3]
    assert [result.prompt for result in results] == ["colorize the photo"] * 3 + ["red", "colorize the photo"]
    assert backend.calls == [[1, 2, 6], [3], [4]]


def test_the_chroma_can_be_changed_between_pass_and_result(colorizer):
    gray = photo()
    (output,) = colorizer.model_outputs([gray])
    np.testing.assert_array_equal(colorizer.finish(output).rgb, colorizer.colorize(gray).rgb)
    changed = colorizer.finish(output, chroma=np.zeros_like(colorizer.chroma(output)))
    np.testing.assert_array_equal(changed.rgb, np.stack([gray] * 3, axis=-1))


def test_options_resolve_to_the_models_own_values(colorizer):
    info = dataclasses.replace(colorizer.info, steps=3, guidance_scale=2.0, vivid=1.5)
    own = info.resolve(make_options(seed=7))
    assert (own.steps, own.guidance_scale, own.size_px, own.prompt, own.seed) == (3, 2.0, 32, info.prompt, 7)
    assert own.vivid == 1.5
    asked = info.resolve(make_options(steps=3, guidance_scale=0.0, prompt="", size_px=64))
    assert (asked.steps, asked.guidance_scale, asked.size_px, asked.prompt) == (3, 0.0, 64, "")
    assert asked.vivid == 0  # it is chosen with the model's own steps
    assert info.resolve(make_options(steps=3, vivid=0.5)).vivid == 0.5


def test_a_bad_photo_does_not_stop_the_others(colorizer):
    results = list(colorizer.colorize_many([photo(), b"not a photo", photo(seed=1)]))
    assert [isinstance(result, PhotoError) for result in results] == [False, True, False]
    with pytest.raises(PhotoError):
        colorizer.colorize(b"not a photo")


@pytest.mark.parametrize("batches", [True, False])
def test_at_most_a_batch_is_read_ahead(colorizer, batches):
    """Where the model gains nothing by a batch, as on a CPU, more photos in memory would cost only memory."""
    read, backend = [], Arithmetic(colorizer.info)
    backend.batches = batches

    def photos():
        for index in range(6):
            read.append(index)
            yield photo(seed=index)

    next(Colorizer(backend).colorize_many(photos(), batch_size=2))
    assert read == ([0, 1] if batches else [0])


def test_seed_decides_and_is_reported(colorizer):
    gray = photo()
    first, again = (colorizer.colorize(gray, make_options(seed=3)) for _ in range(2))
    other = colorizer.colorize(gray, make_options(seed=4))
    np.testing.assert_array_equal(first.rgb, again.rgb)
    assert (first.rgb != other.rgb).any()
    assert (first.seed, first.steps, first.prompt) == (3, 1, "colorize the photo")
    assert first.seconds > 0


def test_a_result_says_in_one_short_line_what_it_is(colorizer):
    result = colorizer.colorize(np.zeros((40, 60), np.uint8), make_options(prompt="warm colors", seed=7))
    assert str(result) == f"<ColorizeResult photo, 60 × 40 px, {colorizer.info.name}, 'warm colors', seed 7>"


def test_result_is_frozen_and_saves(colorizer, tmp_path):
    result = colorizer.colorize(photo())
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.seed = 5
    result.save(tmp_path / "out.png")
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out.png")), result.rgb)
    np.testing.assert_array_equal(np.asarray(result.image), result.rgb)
    with pytest.raises(PhotoError):
        result.save(tmp_path / "out.png")


@pytest.mark.parametrize(
    ("height_px", "width_px", "expected"),
    [(100, 100, (32, 32)), (1, 1, (32, 32)), (200, 100, (64, 32)), (100, 320, (32, 96)), (10, 10_000, (32, 128))],
)
def test_model_size_keeps_the_aspect(colorizer, height_px, width_px, expected):
    """The tiny pipeline halves 16 px at once, and its pass is 32 px on the short side."""
    assert colorizer.small_size(height_px, width_px) == expected


def test_extreme_sizes_run(colorizer):
    for height_px, width_px in ((1, 1), (1, 300), (300, 2)):
        gray = photo(height_px, width_px)
        result = colorizer.colorize(gray)
        assert result.rgb.shape == (height_px, width_px, 3)
        assert color.luma_drift(result.rgb, gray)[0] <= 1


def test_shrink_averages_areas():
    gray = np.array([[0, 255], [255, 255]], np.uint8)
    np.testing.assert_allclose(color.shrink(gray, (1, 1)), 0.75, atol=2 / 255)
    assert color.shrink(np.full((4, 4), 65535, np.uint16), (8, 8)).max() == 1.0


def test_model_that_gives_nan_is_one_clear_error(tiny_pipeline_dir):
    from chromatune.errors import ModelError

    broken = Colorizer.load(str(tiny_pipeline_dir), device="cpu")
    with torch.no_grad():
        assert isinstance(broken.backend, TorchBackend)
        broken.backend.pipeline.unet.conv_out.bias.fill_(float("nan"))
    with pytest.raises(ModelError, match="NaN or infinite"):
        broken.colorize(photo())

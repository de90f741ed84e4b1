"""ONNX Runtime against torch on the shipped models: one picture whichever runs, alone, in threads, at every setting."""

from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage

from chromatune import color
from chromatune.colorizer import Colorizer
from chromatune.options import ColorizeOptions, make_options
from chromatune.pipeline import available_models
from chromatune.pipeline.model_files import find_pipeline
from chromatune.pipeline.onnx_backend import OnnxBackend, load_onnx_pipeline
from chromatune.pipeline.runtimes import onnx_problem
from chromatune.pipeline.truncation import PromptTokenizer
from chromatune.results import ModelOutput, Request

MODELS = ("mini", "mini-base")
PHOTOS = ("astronaut.png", "coffee.png", "chelsea.png", "rocket.jpg", "motorcycle_left.png", "camera.png",
          "hubble_deep_field.jpg", "moon.png", "coins.png", "retina.jpg")  # fmt: skip
MOST_APART = 1e-4  # of sRGB 0..1, before recomposition; 1.1e-5 was seen
LARGE = {"steps": 2, "size_px": 512}
GUIDED = {"guidance_scale": 2.5, "image_guidance_scale": 1.5, "negative_prompt": "gray, dull", "prompt": "a red coat"}


@pytest.fixture(scope="module", params=MODELS)
def both(request) -> tuple[Colorizer, Colorizer]:
    """A shipped model by ONNX Runtime and by torch."""
    onnx, torch = (Colorizer.load(request.param, device="cpu", runtime=runtime) for runtime in ("onnx", "torch"))
    assert (onnx.backend.runtime, torch.backend.runtime) == ("onnx", "torch")
    return onnx, torch


@pytest.fixture(scope="module")
def mini() -> Colorizer:
    return Colorizer.load("mini", device="cpu", runtime="onnx")


def gray_photo(name: str, *, short_px: int | None = None) -> np.ndarray:
    path = Path(skimage.__file__).parent / "data" / name
    gray = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    assert gray is not None
    if short_px is None:
        return gray
    scale = short_px / min(gray.shape)
    return cv2.resize(gray, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


def noise(height_px: int, width_px: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height_px, width_px), dtype=np.uint8)


def agree(colorizers: tuple[Colorizer, ...], photo: np.ndarray, **options: object) -> None:
    """Both give one picture, before recomposition and after it, of the photo's own luminance."""
    outputs, results = [], []
    for colorizer in colorizers:
        (output,) = colorizer.model_outputs([photo], make_options(**options))
        assert isinstance(output, ModelOutput) and output.rgb.dtype == np.float32
        outputs.append(output.rgb)
        results.append(colorizer.finish(output).rgb)
    assert outputs[0].shape == outputs[1].shape
    assert np.abs(outputs[0] - outputs[1]).max() < MOST_APART
    assert np.abs(results[0].astype(int) - results[1].astype(int)).max() <= 1
    assert color.luma_drift(results[0], photo)[0] <= 1


@pytest.mark.parametrize("name", ["astronaut.png", pytest.param("rocket.jpg", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "options",
    [
        {},
        pytest.param({"steps": 4, "seed": 3}, marks=pytest.mark.slow),
        pytest.param({"steps": 2} | GUIDED, marks=pytest.mark.slow),
    ],
)
def test_photos_at_the_models_own_size(both, name, options):
    agree(both, gray_photo(name, short_px=256), **options)


@pytest.mark.slow
@pytest.mark.parametrize("name", PHOTOS)
@pytest.mark.parametrize("options", [{}, {"steps": 2}, {"steps": 4, "seed": 11}, {"steps": 3} | GUIDED, LARGE])
def test_all_photos_at_every_setting(both, name, options):
    agree(both, gray_photo(name), **options)


@pytest.mark.parametrize(("height_px", "width_px"), [(40, 200), pytest.param(333, 77, marks=pytest.mark.slow), (1, 1)])
def test_odd_shapes(both, height_px, width_px):
    agree(both, noise(height_px, width_px), size_px=64)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"guidance_scale": 0.0}, marks=pytest.mark.slow),
        pytest.param({"guidance_scale": 3.0}, marks=pytest.mark.slow),
        {"guidance_scale": 2.0, "image_guidance_scale": 2.0}, {"image_guidance_scale": 0.0}, GUIDED,
        pytest.param({"prompt": "red " * 200}, marks=pytest.mark.slow),
        pytest.param({"prompt": ""}, marks=pytest.mark.slow),
        {"prompt": "Ünïcödé 写真 🙂\n\x00"},
    ],
)  # fmt: skip
def test_guidance_and_instructions(both, options):
    agree(both, noise(64, 96), size_px=64, **options)


def test_seeds_give_the_same_variants(both):
    photo = noise(64, 64, seed=2)
    results = [[each.colorize(photo, make_options(size_px=64, steps=4, seed=seed)).rgb for seed in (0, 1)]
               for each in both]  # fmt: skip
    for onnx, torch in zip(*results, strict=True):
        assert np.abs(onnx.astype(int) - torch.astype(int)).max() <= 1
    assert (results[0][0] != results[0][1]).any()


def test_sixteen_bits_keep_their_luminance(both):
    photo = np.random.default_rng(1).integers(0, 65536, (70, 50), dtype=np.uint16)
    onnx, torch = (each.colorize(photo, make_options(size_px=64)).rgb for each in both)
    assert onnx.dtype == np.uint16 and np.abs(onnx.astype(int) - torch.astype(int)).max() <= 257
    assert color.luma_drift(onnx, photo)[0] <= 1


@pytest.mark.parametrize("model", ["mini-base", pytest.param("mini", marks=pytest.mark.slow)])
def test_the_number_of_threads_changes_no_bit(model, monkeypatch):
    files, grays = find_pipeline(model), noise(96, 160)[None].astype(np.float32) / 255
    results = []
    for threads in ("1", "2", "3"):
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        backend = OnnxBackend(load_onnx_pipeline(files))
        results.append(backend(grays, [backend.info.resolve(ColorizeOptions(steps=2))]).rgb)
    for other in results[1:]:
        np.testing.assert_array_equal(results[0], other)


def test_calls_at_the_same_time_change_no_bit(mini):
    """Each call has its own seed, size and instruction."""
    requests = [
        (noise(64 + 16 * index, 96, seed=index), make_options(size_px=64, steps=1 + index % 3, seed=index, prompt=word))
        for index, word in enumerate(["", "red", "", "blue sky", "red", "a cat"])
    ]
    alone = [mini.colorize(*each).rgb for each in requests]
    fresh = Colorizer.load("mini", device="cpu", runtime="onnx", workers=4)
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda each: fresh.colorize(*each).rgb, requests * 2))
    for expected, result in zip(alone * 2, together, strict=True):
        np.testing.assert_array_equal(expected, result)


def test_a_stream_gives_what_single_photos_give(mini):
    requests = [Request(noise(64, 64 + 8 * seed, seed), make_options(size_px=64, seed=seed)) for seed in range(3)]
    for request, result in zip(requests, mini.colorize_many(requests), strict=True):
        np.testing.assert_array_equal(mini.colorize(request.photo, request.options).rgb, result.rgb)


def test_several_photos_in_one_call_each_with_its_seed(mini):
    """Not what a CPU is asked for, but what a GPU will be: close to each alone, whose matrices are of another size."""
    grays = np.stack([noise(64, 64, seed) for seed in (1, 2)]).astype(np.float32) / 255
    options = [mini.info.resolve(make_options(seed=seed, steps=2, guidance_scale=2.0)) for seed in (5, 6)]
    together = mini.backend(grays, options).rgb
    for index in (0, 1):
        alone = mini.backend(grays[index : index + 1], options[index : index + 1]).rgb
        np.testing.assert_allclose(together[index], alone[0], atol=1e-4)


def test_what_is_cut_of_an_instruction_is_told_alike(both):
    options = make_options(prompt="colorize " * 100, negative_prompt="add color, " * 60)
    told = [each.backend.warnings_of(each.info.resolve(options)) for each in both]
    assert told[0] == told[1] and len(told[0]) == 2


def test_all_models_that_ship_run_without_torch():
    assert [info.name for info in available_models()] == sorted(MODELS)
    assert [onnx_problem(find_pipeline(name)) for name in MODELS] == ["", ""]


@pytest.mark.parametrize("model", MODELS)
def test_the_stock_pipeline_opens_a_folder_with_graphs(model):
    from diffusers import StableDiffusionInstructPix2PixPipeline
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        stock_pipeline = StableDiffusionInstructPix2PixPipeline.from_pretrained(find_pipeline(model).pipeline_folder)
    stock_pipeline.set_progress_bar_config(disable=True)
    photo = Image.fromarray(noise(64, 64)).convert("RGB")
    (image,) = stock_pipeline("colorize", image=photo, num_inference_steps=1, guidance_scale=1.0).images
    assert image.size == (64, 64)


def test_prompts_are_not_kept_for_ever(monkeypatch):
    """A server is asked for new ones all day."""
    monkeypatch.setattr("chromatune.pipeline.onnx_backend.MOST_PROMPTS_KEPT", 2)
    backend = OnnxBackend(load_onnx_pipeline(find_pipeline("mini")))
    read: list[str] = []
    ids = PromptTokenizer.ids

    def counted(tokenizer: PromptTokenizer, prompts: list[str]) -> np.ndarray:
        read.extend(prompts)
        return ids(tokenizer, prompts)

    monkeypatch.setattr(PromptTokenizer, "ids", counted)
    for prompt in ("a", "a", "b", "c", "b", "a"):
        backend._embed(prompt)
    assert read == ["a", "b", "c", "a"]

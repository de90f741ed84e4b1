"""Properties of `chromatune.color`: exact luminance, hue kept, edges followed, no seams, clear errors."""

import tracemalloc

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from PIL import Image
from skimage import data
from skimage.color import rgb2lab

from chromatune import color
from chromatune.color import recomposition
from chromatune.color.luminance import CB_SCALE, CR_SCALE
from chromatune.color.recomposition import SLOPE_LIMIT

WHITE: dict[type, int] = {np.uint8: 255, np.uint16: 65535}
DTYPES = pytest.mark.parametrize("dtype", [np.uint8, np.uint16])


def _random_gray(shape: tuple[int, int], dtype: type, seed: int = 0) -> np.ndarray:
    """Every level, plus blocks of pure black and white, where the gamut is a point."""
    rng = np.random.default_rng(seed)
    gray = rng.integers(0, WHITE[dtype] + 1, shape, dtype=dtype)
    gray[: shape[0] // 4], gray[-(shape[0] // 4) :] = 0, WHITE[dtype]
    return gray


def _smooth_chroma(shape: tuple[int, int], seed: int = 0, amplitude: float = 0.5) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return cv2.resize(rng.uniform(-amplitude, amplitude, (4, 5, 2)).astype(np.float32), shape[::-1])


def _photo(name: str) -> np.ndarray:
    return getattr(data, name)().astype(np.float32) / 255


def _area(chroma: np.ndarray, short_px: int) -> np.ndarray:
    scale = short_px / min(chroma.shape[:2])
    return cv2.resize(chroma, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


def _mse(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.mean((a - b) ** 2))


# luma, chroma


@DTYPES
def test_luma_is_rounded_rec601(dtype):
    rgb = np.random.default_rng(0).integers(0, WHITE[dtype] + 1, (50, 60, 3), dtype=dtype)
    exact = rgb.astype(np.float64) @ np.array(color.LUMA_WEIGHTS)
    gray = color.luma(rgb)
    assert gray.dtype == dtype
    assert np.abs(gray - exact).max() <= 0.5 + 1e-9


def test_luma_rounds_ties_up():
    rgb = np.array([[[0, 0, 250], [0, 500, 0], [0, 1000, 0]]], np.uint16)  # 28.5, 293.5, 587 exactly
    assert color.luma(rgb).tolist() == [[29, 294, 587]]


@DTYPES
def test_gray_pixels_are_their_own_luma(dtype):
    levels = np.arange(0, WHITE[dtype] + 1, dtype=dtype)[None]
    assert np.array_equal(color.luma(np.stack([levels] * 3, axis=-1)), levels)


def test_luma_of_floats_stays_float():
    rgb = np.random.default_rng(0).random((5, 6, 3)).astype(np.float32)
    gray = color.luma(rgb)
    assert gray.dtype == np.float32
    np.testing.assert_allclose(gray, rgb @ np.array(color.LUMA_WEIGHTS, np.float32), rtol=1e-5)


@settings(deadline=None, max_examples=40)
@given(
    rgb=npst.arrays(np.float32, (3, 4, 3), elements=st.floats(0, 1, width=32)),
    other=npst.arrays(np.float32, (3, 4), elements=st.floats(0, 1, width=32)),
)
def test_chroma_added_to_any_luma_leaves_that_luma(rgb, other):
    chroma = color.chroma_of(rgb)
    assert chroma.dtype == np.float32
    assert chroma.shape == (3, 4, 2)
    assert np.abs(chroma).max() <= 0.5 + 1e-6
    blue = other + CB_SCALE * chroma[..., 0]
    red = other + CR_SCALE * chroma[..., 1]
    own = color.luma(rgb)
    green = other + rgb[..., 1] - own
    np.testing.assert_allclose(color.luma(np.stack([red, green, blue], axis=-1)), other, atol=1e-6)


# recompose


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_luminance_is_exact_whatever_the_chroma(data):
    dtype = data.draw(st.sampled_from([np.uint8, np.uint16]))
    shape = data.draw(npst.array_shapes(min_dims=2, max_dims=2, max_side=12))
    small = data.draw(npst.array_shapes(min_dims=2, max_dims=2, max_side=12))
    edge = st.sampled_from([0, 1, WHITE[dtype] // 2, WHITE[dtype] - 1, WHITE[dtype]])
    gray = data.draw(npst.arrays(dtype, shape, elements=st.integers(0, WHITE[dtype]) | edge))
    extreme = st.sampled_from([-0.5, 0.0, 0.5, 2.0]) | st.floats(-0.5, 0.5, width=32)
    chroma = data.draw(npst.arrays(np.float32, (*small, 2), elements=extreme))
    strength = data.draw(st.sampled_from([0.0, 0.5, 1.0, 10.0]))
    rgb = color.recompose(gray, chroma, strength=strength)
    assert rgb.shape == (*shape, 3)
    assert rgb.dtype == dtype
    assert np.array_equal(color.luma(rgb), gray)


@DTYPES
def test_luminance_is_exact_at_every_level_and_many_hues(dtype):
    gray = np.ascontiguousarray(np.broadcast_to(np.arange(0, WHITE[dtype] + 1, dtype=dtype), (24, WHITE[dtype] + 1)))
    angle = np.linspace(0, 2 * np.pi, 24, dtype=np.float32)[:, None]
    for radius in (0.01, 0.1, 0.5):
        rgb = color.recompose(gray, radius * np.stack([np.cos(angle), np.sin(angle)], axis=-1))
        assert color.luma_drift(rgb, gray) == (0, 0)


def test_other_libraries_read_the_same_gray():
    gray = _random_gray((200, 300), np.uint8)
    rgb = color.recompose(gray, _smooth_chroma((16, 24)))
    assert np.array_equal(np.asarray(Image.fromarray(rgb).convert("L")), gray)
    assert np.array_equal(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), gray)


@DTYPES
def test_chroma_in_gamut_arrives_whole(dtype):
    gray = np.full((40, 40), WHITE[dtype] // 2, dtype)
    chroma = np.full((8, 8, 2), (0.1, -0.06), np.float32)
    rgb = color.recompose(gray, chroma) / WHITE[dtype]
    np.testing.assert_allclose(color.chroma_of(rgb), np.broadcast_to((0.1, -0.06), (40, 40, 2)), atol=1.1 / 255)


@pytest.mark.parametrize("angle", np.linspace(0, 2 * np.pi, 17)[:-1])
def test_gamut_keeps_hue_and_takes_the_largest_factor_that_fits(angle):
    wanted = 0.5 * np.array([np.cos(angle), np.sin(angle)], np.float32)
    for level in (3000, 20000, 45000, 63000):
        gray = np.full((2, 2), level, np.uint16)  # 16 bits, so that rounding does not hide a turned hue
        rgb = color.recompose(gray, np.broadcast_to(wanted, (2, 2, 2)))[0, 0]
        reached = color.chroma_of(rgb[None, None] / 65535)[0, 0]
        assert abs(reached[0] * wanted[1] - reached[1] * wanted[0]) < 2e-5  # parallel
        assert reached @ wanted > 0
        factor = np.linalg.norm(reached) / np.linalg.norm(wanted)
        assert factor < 1 + 1e-4
        if factor < 0.999:
            assert rgb.min() <= 1 or rgb.max() >= 65534


@DTYPES
def test_strength_zero_is_gray_and_half_is_half(dtype):
    gray, chroma = _random_gray((30, 40), dtype), _smooth_chroma((8, 8), amplitude=0.05)  # under the slope's limit
    assert np.array_equal(color.recompose(gray, chroma, strength=0), np.stack([gray] * 3, axis=-1))
    half = color.recompose(gray, chroma, strength=0.5)
    # The chroma's own resolution is found from a ratio, so its scale does not matter beyond float rounding.
    assert np.abs(half.astype(int) - color.recompose(gray, chroma / 2)).max() <= 1


@DTYPES
@pytest.mark.parametrize("strip_rows", [1, 7, 64, 1000])
def test_strips_leave_no_seams(dtype, strip_rows):
    gray, chroma = _random_gray((211, 130), dtype), _smooth_chroma((16, 10), amplitude=0.2)
    whole = color.recompose(gray, chroma, strip_rows=211)
    assert np.array_equal(color.recompose(gray, chroma, strip_rows=strip_rows), whole)


def test_recompose_is_gray_plus_upsampled_chroma():
    gray = np.random.default_rng(0).integers(110, 140, (90, 70), dtype=np.uint8)
    chroma = _smooth_chroma((16, 16), amplitude=0.15)
    full = color.upsample_chroma(chroma, gray)
    rgb = color.recompose(gray, chroma).astype(float)
    assert np.abs(rgb[..., 2] - gray - 255 * CB_SCALE * full[..., 0]).max() < 0.51
    assert np.abs(rgb[..., 0] - gray - 255 * CR_SCALE * full[..., 1]).max() < 0.51


def test_a_color_photo_comes_back_from_its_own_gray_and_chroma():
    rgb_u8 = data.astronaut()
    back = color.recompose(color.luma(rgb_u8), color.chroma_of(rgb_u8 / np.float32(255)))
    assert np.abs(back.astype(int) - rgb_u8).mean() < 1.0


def test_inputs_are_not_written_to_and_views_work():
    gray, chroma = _random_gray((60, 50), np.uint8), _smooth_chroma((12, 10))
    before = gray.copy(), chroma.copy()
    flipped = color.recompose(gray[::-1, ::-1], chroma[::-1, ::-1])
    copied = color.recompose(gray[::-1, ::-1].copy(), chroma[::-1, ::-1].copy())
    assert np.array_equal(flipped, copied)
    assert np.array_equal(gray, before[0])
    assert np.array_equal(chroma, before[1])


def test_nothing_is_shifted():
    gray = np.rint(255 * cv2.resize(color.luma(_photo("coffee")), (300, 200))).astype(np.uint8)
    chroma = _smooth_chroma((20, 30))
    full = color.upsample_chroma(chroma, gray)
    flipped = color.upsample_chroma(chroma[::-1, ::-1], gray[::-1, ::-1])[::-1, ::-1]
    assert np.abs(full - flipped).max() < 1e-4
    assert np.abs(_area(full, 20) - chroma).mean() < 0.01


def test_sixteen_bits_take_the_same_chroma():
    gray, chroma = _random_gray((80, 60), np.uint8), _smooth_chroma((8, 6))
    wide = color.upsample_chroma(chroma, gray.astype(np.uint16) * 257)
    assert np.abs(wide - color.upsample_chroma(chroma, gray)).max() < 0.01  # the 8-bit guide is rounded


@DTYPES
def test_a_picture_of_the_filters_own_size_is_not_resampled(dtype, monkeypatch):
    gray, chroma = _random_gray((60, 80), dtype), _smooth_chroma((32, 44), amplitude=0.2)
    straight = color.upsample_chroma(chroma, gray)
    model = recomposition._local_linear_model(chroma, gray)
    model[[0, 2]] /= WHITE[dtype]
    rows = recomposition._model_rows(model, 0, 60, 60, 80)
    resampled = [rows[:, 2 * channel] * gray + rows[:, 2 * channel + 1] for channel in (0, 1)]
    assert np.array_equal(straight, np.stack(resampled, axis=-1))
    monkeypatch.setattr(recomposition, "_model_rows", None)
    assert np.array_equal(color.upsample_chroma(chroma, gray), straight)


def test_no_blur_is_measured_beyond_the_chromas_own():
    guide = color.luma(_photo("coffee"))[:96, :96]
    for sigma in (0.5, 1.0, 2.0, 4.0):
        chroma = cv2.GaussianBlur(np.dstack([guide, 1 - guide]), (0, 0), sigma)
        shares = [recomposition._fine_share(cv2.GaussianBlur(guide, (0, 0), each)) for each in recomposition.BLURS_PX]
        wanted, falling = recomposition._fine_share(chroma), np.minimum.accumulate(shares)
        of_all = np.exp(np.interp(-np.log(wanted), -np.log(falling), np.log(recomposition.BLURS_PX)))
        assert recomposition._blur_of(chroma, guide) == of_all


def test_an_error_in_a_strip_is_raised(monkeypatch):
    def out_of_memory(*_):
        raise MemoryError("no room for a strip")

    monkeypatch.setattr(recomposition, "_fill_rgb", out_of_memory)
    with pytest.raises(MemoryError, match="no room"):
        color.recompose(np.zeros((8, 8), np.uint8), np.zeros((2, 2, 2), np.float32))


@DTYPES
@pytest.mark.parametrize(
    ("gray_shape", "chroma_shape"),
    [
        ((1, 1), (1, 1)),
        ((1, 1), (64, 64)),
        ((1, 37), (16, 16)),
        ((37, 1), (16, 16)),
        ((5, 300), (128, 3)),
        ((200, 300), (1, 1)),
        ((20, 30), (128, 192)),
        ((4, 4), (2, 2)),
        ((2, 70000), (8, 8)),
        ((900, 10), (900, 10)),
    ],
)
def test_odd_sizes(dtype, gray_shape, chroma_shape):
    rng = np.random.default_rng(0)
    gray = rng.integers(0, WHITE[dtype] + 1, gray_shape, dtype=dtype)
    chroma = rng.uniform(-0.5, 0.5, (*chroma_shape, 2)).astype(np.float32)
    assert color.luma_drift(color.recompose(gray, chroma), gray) == (0, 0)
    assert np.isfinite(color.upsample_chroma(chroma, gray)).all()


@DTYPES
def test_flat_gray_gives_plain_enlargement(dtype):
    gray, chroma = np.full((256, 256), WHITE[dtype] // 2, dtype), _smooth_chroma((32, 32))
    full = color.upsample_chroma(chroma, gray)
    plain = cv2.resize(chroma, (256, 256), interpolation=cv2.INTER_CUBIC)
    assert np.abs(full - plain).max() < 0.01


def test_memory_beyond_the_result_is_bounded():
    gray, chroma = _random_gray((1500, 2000), np.uint8), _smooth_chroma((128, 170))
    tracemalloc.start()
    rgb = color.recompose(gray, chroma)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # A single float32 plane of this photo is 12 MB; a pass over whole planes holds at least seven.
    assert peak_bytes - rgb.nbytes < 50e6


# upsampling


@pytest.mark.parametrize("name", ["astronaut", "chelsea", "coffee", "rocket"])
@pytest.mark.parametrize("sharp", [True, False], ids=["sharp", "soft"])
def test_upsampling_beats_bilinear_and_bicubic_on_photos(name, sharp):
    rgb = _photo(name)
    truth, gray = color.chroma_of(rgb), np.rint(255 * color.luma(rgb)).astype(np.uint8)
    chroma = _area(truth, 64)
    if not sharp:  # as a decoder gives: 64 px that hold the detail of 16
        chroma = cv2.resize(_area(truth, 16), chroma.shape[1::-1], interpolation=cv2.INTER_CUBIC)
    guided = _mse(color.upsample_chroma(chroma, gray), truth)
    size = gray.shape[::-1]
    assert guided < (0.85 if sharp else 0.95) * _mse(cv2.resize(chroma, size), truth)
    assert guided < (0.95 if sharp else 0.96) * _mse(cv2.resize(chroma, size, interpolation=cv2.INTER_CUBIC), truth)


def test_color_edges_follow_luma_edges():
    gray = np.full((256, 256), 80, np.uint8)
    gray[:, 120:] = 180  # not on a border of chroma pixels: one of them straddles it
    truth = np.where((gray == 80)[..., None], [0.1, -0.1], [-0.05, 0.08]).astype(np.float32)
    chroma = cv2.resize(truth, (16, 16), interpolation=cv2.INTER_AREA)
    guided = np.abs(color.upsample_chroma(chroma, gray) - truth).mean()
    bilinear = np.abs(cv2.resize(chroma, (256, 256)) - truth).mean()
    assert guided < 0.65 * bilinear


def test_video_grain_does_not_become_color_noise():
    rng = np.random.default_rng(0)
    rgb = cv2.resize(_photo("astronaut"), (1024, 1024), interpolation=cv2.INTER_CUBIC).clip(0, 1)
    clean = 255 * color.luma(rgb)
    grain = rng.normal(0, 8, clean.shape)
    chroma = _area(color.chroma_of(rgb), 128)
    grays = [np.rint(gray).clip(0, 255).astype(np.uint8) for gray in (clean, clean + grain)]
    noise = 255 * (color.upsample_chroma(chroma, grays[1]) - color.upsample_chroma(chroma, grays[0]))
    assert noise.std() < 0.5  # levels, from grain of 8
    assert np.abs(noise).max() <= 255 * SLOPE_LIMIT  # nowhere a blotch


def test_texture_stays_bounded_in_color():
    rng = np.random.default_rng(0)
    gray = rng.choice(np.array([0, 255], np.uint8), (256, 256))  # the harshest texture
    chroma = np.where(_area(gray[..., None].repeat(2, axis=2) / np.float32(255), 32) > 0.5, 0.5, -0.5)
    full = color.upsample_chroma(chroma.astype(np.float32), gray)
    plain = cv2.resize(chroma.astype(np.float32), (256, 256), interpolation=cv2.INTER_CUBIC)
    assert np.abs(full - plain).max() <= SLOPE_LIMIT + 0.05


def test_the_softer_the_chroma_the_more_detail_is_taken_from_luma():
    rgb = _photo("coffee")
    truth, guide = color.chroma_of(rgb), color.luma(rgb)
    small, guide = _area(truth, 96), _area(guide, 96)
    blurs = [
        recomposition._blur_of(cv2.resize(_area(truth, px), small.shape[1::-1], interpolation=cv2.INTER_CUBIC), guide)
        for px in (96, 48, 24, 12)
    ]
    assert blurs == sorted(blurs)
    assert blurs[0] < 0.6
    assert blurs[-1] > 2


# luma_drift


def test_luma_drift_measures():
    gray = np.full((10, 10), 100, np.uint8)
    rgb = np.stack([gray] * 3, axis=-1)
    assert color.luma_drift(rgb, gray) == (0, 0)
    rgb[0, 0] += 7
    rgb[0, 1] -= 3
    assert color.luma_drift(rgb, gray) == pytest.approx((7, 0.1))
    wide = rgb.astype(np.uint16) * 257
    assert color.luma_drift(wide, gray.astype(np.uint16) * 257) == pytest.approx((7, 0.1))


# errors


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda g, c: color.recompose(g.astype(np.float32), c), "gray must be"),
        (lambda g, c: color.recompose(g[..., None], c), "gray must be"),
        (lambda g, c: color.recompose(g[:0], c), "gray must be"),
        (lambda g, c: color.recompose(g, c[..., :1]), "chroma must be"),
        (lambda g, c: color.recompose(g, (c * 100).astype(np.int16)), "chroma must be"),
        (lambda g, c: color.recompose(g, c * np.nan), r"chroma must be -0.5..0.5, got nan"),
        (lambda g, c: color.recompose(g, c * np.inf), "chroma must be -0.5..0.5, got"),
        (lambda g, c: color.recompose(g, c * 128), "chroma must be -0.5..0.5, got"),
        (lambda g, c: color.recompose(g, c, strength=-0.1), "strength must be"),
        (lambda g, c: color.recompose(g, c, strength=float("nan")), "strength must be"),
        (lambda g, c: color.recompose(g, c, strip_rows=0), "strip_rows must be"),
        (lambda g, c: color.upsample_chroma(c, c), "gray must be"),
        (lambda g, c: color.upsample_chroma(g, g), "chroma must be"),
        (lambda g, c: color.luma(g), "rgb must be"),
        (lambda g, c: color.luma(np.zeros((2, 2, 3), np.int32)), "rgb must be"),
        (lambda g, c: color.chroma_of(np.zeros((2, 2, 3), np.uint8)), "needs float"),
        (lambda g, c: color.luma_drift(np.zeros((9, 9, 3), np.uint8), g), "belong together"),
        (lambda g, c: color.luma_drift(np.zeros((8, 8, 3), np.uint16), g), "belong together"),
    ],
)
def test_wrong_calls_say_what_is_wrong(call, message):
    gray, chroma = np.zeros((8, 8), np.uint8), np.full((4, 4, 2), 0.25, np.float32)
    with pytest.raises(ValueError, match=message):
        call(gray, chroma)


def test_vivid_keeps_hues_and_adds_most_to_faint_color():
    rng = np.random.default_rng(4)
    chroma = rng.uniform(-0.1, 0.1, (9, 7, 2)).astype(np.float32)
    np.testing.assert_array_equal(color.vivid(chroma, 0), chroma)
    result = color.vivid(chroma, 1)
    length, before = np.linalg.norm(result, axis=2), np.linalg.norm(chroma, axis=2)
    np.testing.assert_allclose(result / length[..., None], chroma / before[..., None], atol=1e-5)

    def gain(r: float, degrees: float) -> float:
        hue = np.deg2rad(degrees)
        made = color.vivid(np.array([[[r * np.cos(hue), r * np.sin(hue)]]], np.float32), 1)
        return float(np.linalg.norm(made)) / r

    assert gain(0.04, -60) == pytest.approx(1.65) and gain(0.001, -60) < 1.05
    assert gain(0.12, 123) < 1.1 < gain(0.12, 160) < 1.3  # skin, and what is as colorful
    assert gain(0.12, 119) == pytest.approx(gain(0.12, 127)) and gain(0.12, 179) == pytest.approx(gain(0.12, -179))
    twice = np.linalg.norm(color.vivid(chroma, 2), axis=2)
    np.testing.assert_allclose(twice - before, 2 * (length - before), rtol=1e-3, atol=1e-6)
    assert not color.vivid(np.zeros((2, 2, 2), np.float32), 2.0).any()
    assert np.abs(color.vivid(np.full((2, 2, 2), 0.5, np.float32), 2)).max() == 0.5


@pytest.mark.parametrize("amount", [-0.1, 2.1, float("nan")])
def test_vivid_refuses_what_it_is_not_for(amount):
    with pytest.raises(ValueError, match="amount must be 0..2"):
        color.vivid(np.zeros((2, 2, 2), np.float32), amount)


def test_smoothing_evens_out_blotches_within_edges():
    rng = np.random.default_rng(0)
    luma = np.repeat(np.where(np.arange(128) < 64, 0.2, 0.8)[None], 128, axis=0).astype(np.float32)
    true = np.where(luma[..., None] < 0.5, (0.1, -0.05), (-0.1, 0.08)).astype(np.float32)
    blotched = true + cv2.GaussianBlur(rng.normal(0, 0.1, (128, 128, 2)), (0, 0), 0.8).astype(np.float32)
    smooth = color.smooth_chroma(blotched, luma)
    assert smooth.dtype == np.float32
    assert np.abs(smooth - true).mean() < 0.5 * np.abs(blotched - true).mean()
    step = smooth[:, 66:70].mean(axis=(0, 1)) - smooth[:, 58:62].mean(axis=(0, 1))
    np.testing.assert_allclose(step, true[0, -1] - true[0, 0], atol=0.03)  # the edge stays one
    np.testing.assert_array_equal(color.smooth_chroma(blotched, luma, 0.0), blotched)
    np.testing.assert_allclose(color.smooth_chroma(true, luma), true, atol=0.01)


def test_cielab_is_that_of_skimage():
    levels = np.linspace(0, 1, 18, dtype=np.float32)
    rgb = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(-1, 18, 3)
    assert np.abs(color.lab_of(rgb) - rgb2lab(rgb)).max() < 0.05  # OpenCV's own conversion from sRGB: 0.3

"""What a photo has in color already: a tone is replaced, a stamp, pencil and hand-tinted spots stay."""

from __future__ import annotations

import io
from collections.abc import Callable

import cv2
import numpy as np
import pytest
import skimage.data
from PIL import Image

from chromatune.color import chroma_of, find_own_color, luma
from chromatune.colorizer import Colorizer
from chromatune.editor import Editor
from chromatune.hints import Hints
from chromatune.images import Photo, read_photo
from chromatune.options import OwnColorChoice, make_options

Draw = Callable[[np.ndarray], np.ndarray]  # (H, W, 3) float64 0..255 -> the same
SEPIA = np.array([1.07, 0.95, 0.75])
STAMP, PENCIL = (190, 30, 45), (50, 70, 190)


def gray_of(name: str) -> np.ndarray:
    """(H, W, 3) float64 0..255, three equal channels."""
    picture = getattr(skimage.data, name)()
    return np.repeat((luma(picture) if picture.ndim == 3 else picture)[..., None], 3, axis=2).astype(np.float64)


def as_u8(rgb: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(rgb), 0, 255).astype(np.uint8)


def spot(gray: np.ndarray, y: float, x: float, radius: float) -> np.ndarray:
    """(H, W, 1): 1 at a place given in shares of the sides, falling off softly."""
    height, width = gray.shape[:2]
    rows, columns = np.mgrid[:height, :width]
    return np.exp(-((rows - y * height) ** 2 + (columns - x * width) ** 2) / (2 * (radius * height) ** 2))[..., None]


def inked(gray: np.ndarray, mask_u8: np.ndarray, color: tuple[int, int, int], opacity: float) -> np.ndarray:
    amount = mask_u8[..., None] / 255 * opacity
    return gray * (1 - amount) + amount * (0.5 * gray / 255 + 0.5) * np.array(color)


def stamp_mask(gray: np.ndarray) -> np.ndarray:
    height, width = gray.shape[:2]
    mask = np.zeros((height, width), np.uint8)
    cv2.circle(mask, (width // 4, height // 4), height // 9, 255, max(2, height // 100), cv2.LINE_AA)
    place = (width // 4 - height // 12, height // 4 + 5)
    cv2.putText(mask, "ARCHIV", place, 0, height / 900, 255, max(1, height // 250), cv2.LINE_AA)
    return mask


def pencil_mask(gray: np.ndarray) -> np.ndarray:
    height, width = gray.shape[:2]
    mask = np.zeros((height, width), np.uint8)
    ends = (width // 8, height - height // 8), (width - width // 3, height - height // 6)
    cv2.line(mask, *ends, 255, max(2, height // 150), cv2.LINE_AA)
    cv2.putText(mask, "No 12", (width // 8, height - height // 5), 2, height / 600, 255, 2, cv2.LINE_AA)
    return mask


def stamped(rgb: np.ndarray) -> np.ndarray:
    return inked(rgb, stamp_mask(rgb), STAMP, 0.8)


def tinted(rgb: np.ndarray) -> np.ndarray:
    amount = np.clip(spot(rgb, 0.24, 0.40, 0.04) + spot(rgb, 0.24, 0.52, 0.04), 0, 1) * 0.6
    return rgb * (1 - amount * (1 - np.array([1.15, 0.75, 0.75])))


def framed(rgb: np.ndarray, color: tuple[int, int, int]) -> np.ndarray:
    side = rgb.shape[0] // 10
    return cv2.copyMakeBorder(rgb, side, side, side, side, cv2.BORDER_CONSTANT, value=color)


def cyanotype(gray: np.ndarray) -> np.ndarray:
    return 255 * (gray / 255) ** np.array([1.8, 1.15, 0.75])


def yellowed(gray: np.ndarray) -> np.ndarray:
    y, x = np.mgrid[-1 : 1 : gray.shape[0] * 1j, -1 : 1 : gray.shape[1] * 1j]
    edge = np.clip(np.maximum(abs(y), abs(x)) * 2 - 1, 0, 1)[..., None]
    return framed(gray * (1 - edge * np.array([0.05, 0.15, 0.4])), (240, 225, 180))


def scanned(gray: np.ndarray) -> np.ndarray:
    """As a noisy scanner's JPEG of quality 30."""
    data = io.BytesIO()
    noisy = gray + np.random.default_rng(0).normal(0, 10, gray.shape)
    Image.fromarray(as_u8(noisy)).save(data, "JPEG", quality=30)
    return np.asarray(Image.open(data)).astype(np.float64)


TONES: dict[str, Draw] = {  # of these nothing is kept by default
    "gray": lambda gray: gray,
    "sepia": lambda gray: gray * SEPIA,
    "cyanotype": cyanotype,
    "selenium": lambda gray: 255 * (gray / 255) ** np.array([0.95, 1.12, 1.0]),
    "yellowed, with a border": yellowed,
    "brown corner": lambda gray: gray * (1 - spot(gray, 0, 1, 0.3) * np.array([0.25, 0.45, 0.7])),
    "faded to magenta on one side": lambda gray: gray * np.linspace([1, 1, 1], [1.05, 0.85, 1], gray.shape[1]),
    "color noise, JPEG": scanned,
    "color noise, sepia JPEG": lambda gray: scanned(gray * SEPIA),
    "cyanotype in a cream mount": lambda gray: framed(cyanotype(gray), (235, 225, 195)),
    "cyanotype in a dark mount": lambda gray: framed(cyanotype(gray), (60, 60, 60)),
    "sepia in a white mount": lambda gray: framed(gray * SEPIA, (250, 250, 250)),
}
LOCAL: dict[str, tuple[Draw, float, float]] = {  # least and largest share that is kept by default
    "red stamp on gray": (stamped, 0.006, 0.03),
    "red stamp on sepia": (lambda gray: stamped(gray * SEPIA), 0.006, 0.03),
    "red stamp on yellowed paper": (lambda gray: stamped(gray * [1, 0.88, 0.62]), 0.006, 0.03),
    "blue pencil on gray": (lambda gray: inked(gray, pencil_mask(gray), PENCIL, 0.75), 0.006, 0.03),
    "hand-tinted cheeks": (tinted, 0.003, 0.03),
    "hand-tinted cheeks on sepia": (lambda gray: tinted(gray * SEPIA), 0.003, 0.03),
    "red frame": (lambda gray: framed(gray, (130, 30, 30)), 0.15, 0.4),
    "green frame": (lambda gray: framed(gray, (30, 90, 60)), 0.15, 0.4),
}
PHOTOS = ["astronaut", *(pytest.param(name, marks=pytest.mark.slow) for name in ("chelsea", "coffee", "camera"))]


def kept(rgb: np.ndarray, choice: OwnColorChoice = "auto") -> float:
    own = find_own_color(rgb if rgb.dtype == np.uint16 else as_u8(rgb))
    return 0.0 if own is None else own.share(choice)


@pytest.mark.parametrize("photo", PHOTOS)
@pytest.mark.parametrize("kind", TONES)
def test_a_tone_is_no_local_color(photo: str, kind: str) -> None:
    rgb = TONES[kind](gray_of(photo))
    assert kept(rgb) == 0
    assert not Photo(luma(as_u8(rgb)), rgb=as_u8(rgb)).in_color


@pytest.mark.parametrize("photo", ["astronaut", pytest.param("camera", marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", LOCAL)
def test_local_color_is_found(photo: str, kind: str) -> None:
    draw, least, largest = LOCAL[kind]
    rgb = draw(gray_of(photo))
    assert least < kept(rgb) < largest
    assert least < kept(as_u8(rgb).astype(np.uint16) * 257, "keep") < largest
    assert not Photo(luma(as_u8(rgb)), rgb=as_u8(rgb)).in_color
    assert kept(rgb, "replace") == 0


def test_it_is_found_where_it_is() -> None:
    gray = gray_of("astronaut")
    own = find_own_color(as_u8(stamped(gray * SEPIA)))
    assert own is not None
    mask = cv2.resize(stamp_mask(gray), own.sure.shape[::-1], interpolation=cv2.INTER_AREA) > 100
    assert (own.sure[mask] > 0.5).mean() > 0.9
    far = cv2.dilate(mask.astype(np.uint8), np.ones((13, 13))) == 0
    assert (own.sure[far] > 0).mean() < 0.001


@pytest.mark.parametrize("photo", ["astronaut", "chelsea", "coffee", "rocket"])
def test_a_photo_in_color_is_replaced_unless_kept(photo: str) -> None:
    own = find_own_color(getattr(skimage.data, photo)())
    assert own is not None and own.in_color
    assert own.share("auto") == own.share("replace") == 0
    assert own.share("keep") > 0.4


def test_stains_stay_where_all_local_color_is_kept() -> None:
    rgb = TONES["brown corner"](gray_of("astronaut"))
    assert kept(rgb, "keep") > 0.05 and kept(rgb) == 0


def test_own_color_has_at_most_512_pixels_a_side() -> None:
    large = cv2.resize(as_u8(stamped(gray_of("astronaut"))), (1500, 900))
    own = Photo(luma(large), rgb=large).own_color
    assert own is not None
    assert own.chroma.shape == (307, 512, 2) and own.chroma.dtype == own.sure.dtype == np.float32
    assert Photo(luma(large)).own_color is None


@pytest.fixture(scope="module")
def stamp() -> Photo:
    return read_photo(as_u8(stamped(gray_of("astronaut")))[::2, ::2].copy(), name="stamp.png")


def test_a_stamp_keeps_its_color(mini: Colorizer, stamp: Photo) -> None:
    results = {choice: mini.colorize(stamp, make_options(own_color=choice))
               for choice in ("auto", "replace", "keep", "blend")}  # fmt: skip
    assert all(np.array_equal(luma(each.rgb), stamp.gray) for each in results.values())
    inside = stamp_mask(np.zeros((512, 512)))[::2, ::2] > 250
    far = cv2.dilate((stamp_mask(np.zeros((512, 512)))[::2, ::2] > 0).astype(np.uint8), np.ones((41, 41))) == 0
    chroma = {choice: chroma_of(each.rgb.astype(np.float32) / 255) for choice, each in results.items()}
    own = chroma_of(stamp.rgb.astype(np.float32) / 255)  # type: ignore[union-attr]
    error = {choice: float(np.abs(each - own)[inside].mean()) for choice, each in chroma.items()}
    assert error["auto"] < 0.5 * error["replace"]
    assert error["auto"] < error["blend"] < error["replace"]
    assert np.array_equal(results["auto"].rgb, results["keep"].rgb)
    assert np.abs(chroma["auto"] - chroma["replace"])[far].mean() < 0.004  # the stamp changes little elsewhere
    assert results["replace"].notes == ()
    (note,) = results["auto"].notes
    assert note.startswith("kept the photo's own color in 2 % of it") and "--own-color replace" in note
    assert results["blend"].notes[0].startswith("mixed in")


def test_a_faint_tint_is_added_to_the_color_below(mini: Colorizer) -> None:
    """Pink on cheeks makes skin rosier, and does not take its warmth away."""
    gray = gray_of("astronaut")
    photo = as_u8(tinted(gray))
    results = (mini.colorize(photo, make_options(own_color=choice)).rgb for choice in ("auto", "replace"))
    kept, replaced = (chroma_of(each.astype(np.float32) / 255) for each in results)
    cheek = spot(gray, 0.24, 0.40, 0.04)[..., 0] > 0.8
    (cb, cr), (cb_before, cr_before) = kept[cheek].mean(axis=0), replaced[cheek].mean(axis=0)
    assert cr > cr_before + 0.01
    assert cb < cb_before + 0.005  # not bluer


def test_gray_photos_are_as_before(mini: Colorizer, stamp: Photo) -> None:
    results = [mini.colorize(Photo(stamp.gray), make_options(own_color=each)) for each in ("auto", "replace")]
    assert np.array_equal(results[0].rgb, results[1].rgb)
    assert results[0].notes == ()


def test_an_edit_changes_it_without_another_pass(mini: Colorizer, stamp: Photo) -> None:
    (output,) = mini.model_outputs([stamp])
    editor = Editor(mini, output)  # type: ignore[arg-type]
    hints = Hints().point(200, 200, "#2040c0")
    for choice in ("auto", "replace", "blend"):
        options = make_options(own_color=choice)
        for marks in (Hints(), hints):
            edited = editor.finish(marks, mini.info.resolve(options))
            assert np.array_equal(edited.rgb, mini.colorize(stamp, options, hints=marks).rgb)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_negative_is_inverted_first(mini: Colorizer, dtype: type) -> None:
    gray: np.ndarray = as_u8(gray_of("camera"))[::4, ::4, 0].astype(dtype) * (257 if dtype == np.uint16 else 1)
    negative = np.iinfo(dtype).max - gray
    wanted = mini.colorize(gray.astype(dtype)).rgb
    result = mini.colorize(negative.astype(dtype), make_options(invert=True))
    np.testing.assert_array_equal(result.rgb, wanted)
    assert np.array_equal(luma(result.rgb), gray)
    orange: np.ndarray = (negative[..., None] * [0.92, 0.61, 0.37]).astype(dtype)  # the mask of a color film
    of_film = mini.colorize(orange, make_options(invert=True))
    assert of_film.notes == () and np.array_equal(luma(of_film.rgb), np.iinfo(dtype).max - luma(orange))


def test_an_edit_of_an_inverted_negative_is_not_inverted_again(mini: Colorizer) -> None:
    negative = 255 - as_u8(gray_of("camera"))[::4, ::4, 0]
    options = make_options(invert=True)
    (output,) = mini.model_outputs([negative], options)
    editor = Editor(mini, output)  # type: ignore[arg-type]
    np.testing.assert_array_equal(editor.finish(Hints()).rgb, mini.colorize(negative, options).rgb)
    assert editor.preview(Hints()).shape == (128, 128, 3)

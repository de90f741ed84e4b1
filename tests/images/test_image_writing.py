"""A result goes into a file with all that belongs to it, whole or not at all."""

import errno
import io
import os
import stat
import threading

import cv2
import numpy as np
import pytest
import skimage.data
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageCms

from chromatune.errors import PhotoError
from chromatune.files import atomic
from chromatune.images import Photo, encode_photo, format_for, read_photo, suffix_for, to_pil, write_photo, writing

pytestmark = pytest.mark.filterwarnings("error")

LOSSLESS = ["PNG", "TIFF", "WEBP", "BMP"]
MAKE, DATE, ORIENTATION, EXIF_IFD, DATE_TAKEN = 271, 306, 274, 34665, 36867


@pytest.fixture
def described(colors, as_file):
    """An 8-bit photo with profile, EXIF (orientation 6) and resolution."""
    exif = Image.Exif()
    exif[MAKE], exif[DATE], exif[ORIENTATION], exif[33432] = "Leica", "1957:10:04 19:28:34", 6, "© José".encode()
    exif.get_ifd(EXIF_IFD)[DATE_TAKEN] = "1957:10:04 19:28:34"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return read_photo(as_file(Image.fromarray(colors), "JPEG", exif=exif, icc_profile=profile, dpi=(300, 300)))


def opened(data):
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def test_a_real_photo_survives_a_jpeg():
    rgb = skimage.data.astronaut()
    data = encode_photo(rgb, read_photo(rgb), "JPEG")
    assert opened(data).layer[0][1:3] == (1, 1)  # luma is not sampled finer than chroma
    assert opened(data).layer[1][1:3] == (1, 1)
    assert np.abs(np.asarray(read_photo(data).rgb).astype(int) - rgb).mean() < 2


@given(
    hnp.arrays(
        st.sampled_from([np.uint8, np.uint16]),
        st.tuples(st.integers(1, 9), st.integers(1, 9), st.sampled_from([3, 4])),
    ),
    st.sampled_from(LOSSLESS),
)
@settings(max_examples=40, deadline=None, database=None)
def test_lossless_formats_give_back_every_pixel_and_its_alpha(samples, format):
    photo = read_photo(samples)
    rgb = np.ascontiguousarray(samples[..., :3])
    if format == "BMP":
        photo = Photo(photo.gray)
    back = read_photo(encode_photo(rgb, photo, format))
    keeps_depth = format in ("PNG", "TIFF")
    wanted = rgb if keeps_depth or rgb.dtype == np.uint8 else np.rint(rgb / 257).astype(np.uint8)
    assert back.gray.dtype == wanted.dtype
    assert np.array_equal(
        wanted if back.rgb is not None else wanted[..., 0], back.gray if back.rgb is None else back.rgb
    )
    if photo.alpha is not None:
        alpha = photo.alpha if wanted.dtype == photo.alpha.dtype else np.rint(photo.alpha / 257)
        opaque_webp = format == "WEBP" and alpha.min() == 255  # libwebp leaves such an alpha out
        assert back.alpha is None if opaque_webp else np.array_equal(np.asarray(back.alpha), alpha)


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_other_programs_read_our_tiff_and_png(dtype, channels):
    samples = np.random.default_rng(2).integers(0, np.iinfo(dtype).max + 1, (301, 207, channels), dtype=dtype)
    photo = read_photo(samples)
    rgb = samples[..., :3].copy()
    data = encode_photo(rgb, photo, "PNG")
    decoded = np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED))
    assert np.array_equal(decoded[..., [2, 1, 0, 3][:channels]], samples)
    with tifffile.TiffFile(io.BytesIO(encode_photo(rgb, photo, "TIFF"))) as file:
        assert np.array_equal(file.asarray(), samples)
        page = file.pages.first
        assert page.photometric == tifffile.PHOTOMETRIC.RGB
        assert [tifffile.EXTRASAMPLE(extra).name for extra in page.extrasamples] == ["UNASSALPHA"] * (channels - 3)


def test_a_tiff_of_many_strips_is_whole():
    samples = np.random.default_rng(3).integers(0, 65536, (500, 700, 3), dtype=np.uint16)
    data = encode_photo(samples, Photo(samples[..., 0]), "TIFF")
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        assert len(file.pages[0].dataoffsets) == 3
    assert np.array_equal(np.asarray(read_photo(data).rgb), samples)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_date_camera_profile_and_resolution_are_kept(format, dtype, described):
    rgb = np.zeros((*described.gray.shape, 3), dtype)
    back = opened(encode_photo(rgb, described, format))
    tags = back.getexif()
    assert (tags[MAKE], tags[DATE]) == ("Leica", "1957:10:04 19:28:34")
    assert tags.get(ORIENTATION, 1) == 1
    assert tags.get_ifd(EXIF_IFD)[DATE_TAKEN] == "1957:10:04 19:28:34"
    assert tags[33432].encode("latin-1").decode() == "© José"
    assert back.info["icc_profile"] == described.icc_profile
    if format != "WEBP":
        assert [round(float(value)) for value in back.info["dpi"]] == [300, 300]
    again = read_photo(encode_photo(rgb, described, format))
    assert again.gray.shape == described.gray.shape == (53, 37)
    assert (again.icc_profile, again.exif) == (described.icc_profile, described.exif)


@pytest.mark.parametrize("format", ["JPEG", *LOSSLESS])
def test_nothing_is_made_up(format, colors):
    photo = read_photo(colors)
    info = opened(encode_photo(colors, photo, format)).info
    assert "icc_profile" not in info
    assert "exif" not in info
    assert encode_photo(colors, photo, format) == encode_photo(colors, photo, format)


@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP"])
def test_colors_under_full_transparency_are_kept(format, colors):
    photo = Photo(colors[..., 0], alpha=np.zeros(colors.shape[:2], np.uint8))
    assert np.array_equal(np.asarray(read_photo(encode_photo(colors, photo, format)).rgb), colors)


def test_to_pil_is_8_bit_with_alpha_and_profile(colors, described):
    deep = colors.astype(np.uint16) * 257
    assert np.array_equal(np.asarray(to_pil(colors, read_photo(colors))), colors)
    alpha = colors[..., 0]
    for rgb in (colors, deep):
        image = to_pil(rgb, Photo(deep[..., 0], alpha=alpha.astype(np.uint16) * 257))
        assert image.mode == "RGBA"
        assert np.array_equal(np.asarray(image), np.dstack([colors, alpha]))
    image = to_pil(np.zeros((53, 37, 3), np.uint8), described)
    assert image.info["icc_profile"] == described.icc_profile


@given(hnp.arrays(np.uint16, (1, 5, 3)))
@settings(max_examples=50, deadline=None, database=None)
def test_16_bits_are_rounded_to_8(rgb):
    assert np.array_equal(np.asarray(to_pil(rgb, Photo(rgb[..., 0]))), np.rint(rgb / 257))


def test_suffixes_and_what_their_formats_hold():
    gray = np.zeros((4, 4), np.uint8)
    plain, clear, deep = Photo(gray), Photo(gray, alpha=gray), Photo(gray.astype(np.uint16))
    long = Photo(np.zeros((1, 20_000), np.uint8))
    for suffix in (".jpg", ".JPEG", ".png", ".tif", ".webp", ".bmp"):
        assert suffix_for(suffix, plain) == suffix
    assert [suffix_for(s, clear) for s in (".jpg", ".bmp", ".webp", ".tiff")] == [".png", ".png", ".webp", ".tiff"]
    assert [suffix_for(s, deep) for s in (".jpg", ".webp", ".TIF", ".png")] == [".png", ".png", ".TIF", ".png"]
    assert [suffix_for(s, plain) for s in (".gif", ".heic", ".jp2", ".psd", "")] == [".png"] * 5
    assert [suffix_for(s, long) for s in (".webp", ".jpg")] == [".png", ".jpg"]
    assert suffix_for(None, Photo(gray, format="JPEG")) == ".jpg"
    assert suffix_for(None, Photo(gray, format="GIF")) == ".png"
    assert [format_for(s) for s in (".JPG", ".tif", ".webp")] == ["JPEG", "TIFF", "WEBP"]
    with pytest.raises(PhotoError, match=r"'.psd'; accepted: .avif .bmp"):
        format_for(".psd")


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp", ".bmp", ".PNG"])
def test_a_file_is_written_in_the_format_of_its_suffix(suffix, colors, tmp_path):
    path = tmp_path / f"result{suffix}"
    write_photo(path, colors, read_photo(colors))
    assert read_photo(path).format == format_for(suffix)
    assert os.listdir(tmp_path) == [path.name]
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask


def refuse(path, *parts, rgb=None, photo=None, **options):
    rgb = np.zeros((4, 5, 3), np.uint8) if rgb is None else rgb
    before = {p: p.read_bytes() for p in path.parent.glob("*") if p.is_file()} if path.parent.is_dir() else {}
    with pytest.raises(PhotoError) as caught:
        write_photo(path, rgb, photo or Photo(np.zeros((4, 5), np.uint8)), **options)
    message = str(caught.value)
    assert message.isprintable()
    assert message.startswith(str(path)) or "\\" in message
    for part in parts:
        assert part in message
    after = {p: p.read_bytes() for p in path.parent.glob("*") if p.is_file()} if path.parent.is_dir() else {}
    assert after == before


def test_an_existing_file_is_kept_unless_told_otherwise(tmp_path, colors):
    path = tmp_path / "precious.png"
    path.write_bytes(b"precious")
    refuse(path, "already exists")
    assert path.read_bytes() == b"precious"
    write_photo(path, colors, read_photo(colors), overwrite=True)
    assert np.array_equal(np.asarray(read_photo(path).rgb), colors)
    assert os.listdir(tmp_path) == ["precious.png"]


def test_overwriting_a_link_replaces_what_it_points_at(tmp_path, colors):
    target, link = tmp_path / "target.png", tmp_path / "link.png"
    target.write_bytes(b"old")
    link.symlink_to(target)
    refuse(link, "already exists")
    write_photo(link, colors, read_photo(colors), overwrite=True)
    assert link.is_symlink()
    assert np.array_equal(np.asarray(read_photo(target).rgb), colors)


def test_a_file_that_appears_meanwhile_is_kept(tmp_path, monkeypatch):
    path = tmp_path / "race.png"

    def slow_encode(*_):
        path.write_bytes(b"other")
        return b"ours"

    monkeypatch.setattr(writing, "encode_photo", slow_encode)
    with pytest.raises(PhotoError, match="already exists"):
        write_photo(path, np.zeros((4, 5, 3), np.uint8), Photo(np.zeros((4, 5), np.uint8)))
    assert path.read_bytes() == b"other"
    assert os.listdir(tmp_path) == ["race.png"]


@pytest.mark.parametrize("missing", [[], ["links"], ["links", "renames"]])
def test_of_many_writers_one_wins(tmp_path, missing, monkeypatch):
    def refused_by_the_system(*_):
        raise OSError(errno.EPERM, "Operation not permitted")

    if "links" in missing:
        monkeypatch.setattr(os, "link", refused_by_the_system)
    if "renames" in missing:
        monkeypatch.setattr(atomic, "_rename_without_replacing", refused_by_the_system)
    path, outcomes, barrier = tmp_path / "one.png", [], threading.Barrier(6)

    def write(level):
        rgb = np.full((4, 5, 3), level, np.uint8)
        barrier.wait()
        try:
            write_photo(path, rgb, Photo(rgb[..., 0]))
        except PhotoError:
            return
        outcomes.append(level)

    threads = [threading.Thread(target=write, args=(level,)) for level in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 1
    assert (read_photo(path).gray == outcomes[0]).all()
    assert os.listdir(tmp_path) == ["one.png"]


def test_what_cannot_be_written_is_said_in_one_line(tmp_path, colors):
    clear = Photo(np.zeros((4, 5), np.uint8), alpha=np.zeros((4, 5), np.uint8), name="leaf.png")
    refuse(tmp_path / "no folder" / "a.png", "folder does not exist")
    refuse(tmp_path / "a.psd", "unknown image suffix '.psd'")
    refuse(tmp_path / "a.heic", "HEIF", "accepted: JPEG, PNG")
    refuse(tmp_path / "a", "unknown image suffix")
    refuse(tmp_path / "a.gif", "GIF", "accepted: JPEG, PNG")
    refuse(tmp_path / "a.jpg", "transparency", "PNG", photo=clear)
    refuse(tmp_path / "a.bmp", "transparency", photo=clear)
    refuse(tmp_path / "a.png", "(4, 5, 3)", rgb=np.zeros((4, 4, 3), np.uint8))
    refuse(tmp_path / "a.png", "float64", rgb=np.zeros((4, 5, 3)))
    refuse(
        tmp_path / "a.webp",
        "WEBP",
        rgb=np.zeros((1, 20_000, 3), np.uint8),
        photo=Photo(np.zeros((1, 20_000), np.uint8)),
    )
    refuse(tmp_path / f"{'x' * 300}.png", "File name too long")
    refuse(tmp_path / "two\nlines.gif", "two\\nlines")
    (tmp_path / "folder.png").mkdir()
    refuse(tmp_path / "folder.png", "is a folder")
    refuse(tmp_path / "folder.png", "is a folder", overwrite=True)
    (tmp_path / "file").touch()
    refuse(tmp_path / "file" / "a.png", "folder does not exist")


def test_an_opaque_alpha_does_not_stop_a_jpeg(colors):
    photo = Photo(colors[..., 0], alpha=np.full(colors.shape[:2], 255, np.uint8))
    assert read_photo(encode_photo(colors, photo, "jpeg")).alpha is None


# What is written anew is linked to its name, and renamed only where there are no links; what is replaced is renamed
@pytest.mark.parametrize(("step", "overwrite"), [("fsync", False), ("fsync", True), ("link", False), ("replace", True)])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES])
def test_a_failing_disk_leaves_no_half_file(step, number, overwrite, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(number, os.strerror(number))

    if step == "link":
        monkeypatch.setattr(atomic, "_rename_without_replacing", fail)
        monkeypatch.setattr(os, "replace", fail)
    monkeypatch.setattr(os, step, fail)
    path = tmp_path / "a.png"
    if overwrite:
        path.write_bytes(b"old")
    refuse(path, "No space left" if number == errno.ENOSPC else "no permission", overwrite=overwrite)

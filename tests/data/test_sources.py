"""Every layout of photos as it is published, made small: what is recognized, listed, left out, and not opened."""

from __future__ import annotations

import os
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from chromatune.data import OWN_RESULT, Source, open_source
from chromatune.errors import DataError, PhotoError
from chromatune.files import lock_run_folder


def keys(source: Source) -> list[str]:
    return [item.key for item in source.items]


# A folder of photos


def test_a_folder_is_listed_at_any_depth_in_order_and_hidden_files_are_not(tmp_path: Path, put) -> None:
    for name in ("b.png", "a/z.JPG", "a/deep/er/c.webp", ".hidden/d.png", "._b.png", "__MACOSX/b.png"):
        put(name)
    (tmp_path / "notes.txt").write_text("")
    source = open_source(tmp_path)
    assert (source.name, source.kind, source.prompts) == (tmp_path.name, "folder", None)
    assert keys(source) == ["a/deep/er/c.webp", "a/z.JPG", "b.png"]
    assert source.skipped == {"not a photo's suffix": 1}
    assert {item.person for item in source.items} == {None}


def test_no_photo_is_opened_until_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"not a photo")
    (item,) = open_source(str(tmp_path)).items
    with pytest.raises(PhotoError, match=r"^broken\.jpg: "):
        item.read()


def test_photos_are_read_upright_as_eight_bit_rgb(put, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6  # turned by a quarter
    turned = np.zeros((20, 30, 3), np.uint8)
    turned[:, :15] = (255, 0, 0)
    put("color.png", turned, exif=exif)
    Image.fromarray(np.full((20, 30), 65535, np.uint16)).save(tmp_path / "deep.png")
    color, deep = (item.read() for item in open_source(tmp_path).items)
    assert color.shape == (30, 20, 3)
    assert color.dtype == deep.dtype == np.uint8
    assert color[0, 0].tolist() == [255, 0, 0]
    assert color[-1, 0].tolist() == [0, 0, 0]
    assert deep.shape == (20, 30, 3) and deep.min() == 255


def test_items_survive_pickling(put, tmp_path: Path, draw) -> None:
    put("a.png", draw(seed=3))
    (item,) = open_source(tmp_path).items
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(item)).read(), draw(seed=3))  # noqa: S301


def test_the_stamp_changes_with_the_file(put, tmp_path: Path, draw) -> None:
    path = put("a.png")
    (item,) = open_source(tmp_path).items
    before = item.stamp
    assert before == item.stamp
    put("a.png", draw(41, 61))
    after = item.stamp
    path.unlink()
    assert len({before, after, item.stamp}) == 3


def test_a_link_to_a_folder_above_ends(put, tmp_path: Path) -> None:
    put("set/a.png")
    os.symlink(tmp_path, tmp_path / "set" / "loop")
    os.symlink(tmp_path / "set", tmp_path / "again")
    assert keys(open_source(tmp_path)) == ["again/a.png"]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_name_that_is_no_text_gets_a_key_that_is(put, tmp_path: Path) -> None:
    os.rename(put("a.png"), os.fsencode(tmp_path) + b"/caf\xe9.png")
    (item,) = open_source(tmp_path).items
    assert item.key.encode() == b"caf\\xe9.png"
    assert item.read().shape == (40, 60, 3)


# What is refused


@pytest.mark.parametrize("spec", ["", "folder:", "folder:gone", "gone", "hf:gone", "unknown:x", "lfw:gone", "a/b/c"])
def test_what_is_not_there_is_one_line_that_says_what_is_accepted(spec: str, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="accepted: ") as caught:
        open_source(spec)
    assert "\n" not in str(caught.value)


def test_a_mistyped_path_never_reaches_for_the_network(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="on the Hugging Face hub: hf:my/photos"):
        open_source("my/photos")


@pytest.mark.parametrize("kind", ["folder", "lfw", "ffhq"])
def test_an_empty_folder_is_refused(tmp_path: Path, kind: str) -> None:
    with pytest.raises(DataError, match=f"no photos of kind '{kind}'"):
        open_source(f"{kind}:{tmp_path}")


def test_a_photo_alone_is_no_source(put) -> None:
    with pytest.raises(DataError, match="is a file; accepted: a folder"):
        open_source(put("a.png"))


@pytest.mark.skipif(sys.platform == "win32", reason="files have no such names there")
@pytest.mark.parametrize(
    "name", ["a\nb", *(pytest.param(name, marks=pytest.mark.slow) for name in ("a\x1b[2Jb", "a\u202eb"))]
)
@pytest.mark.parametrize("kind", ["folder", "lfw", "ffhq", "hf", "table", "imdb-wiki"])
def test_names_of_files_never_spoil_a_message(tmp_path: Path, kind: str, name: str) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(DataError) as caught:
        open_source(f"{kind}:{tmp_path / name}")
    assert str(caught.value).isprintable()
    (tmp_path / name / f"{name}.jpg").write_bytes(b"junk")
    (item,) = open_source(f"folder:{tmp_path / name}").items
    with pytest.raises(PhotoError) as broken:
        item.read()
    assert str(broken.value).isprintable()


# LFW


@pytest.fixture
def lfw(put, tmp_path: Path) -> Path:
    for name in ("Ann_Lee/Ann_Lee_0001.jpg", "Ann_Lee/Ann_Lee_0002.jpg", "Bo_de_la_Cruz-O/Bo_de_la_Cruz-O_0001.jpg"):
        put(f"lfw/{name}")
    (tmp_path / "lfw" / "pairs.txt").write_text("10 300")
    return tmp_path / "lfw"


def test_lfw_is_recognized_and_the_folder_is_the_person(lfw: Path, put) -> None:
    put("lfw/contact-sheet.png")
    source = open_source(lfw)
    assert source.kind == "lfw"
    assert [item.person for item in source.items] == ["Ann_Lee", "Ann_Lee", "Bo_de_la_Cruz-O"]
    assert source.skipped == {"not a photo's suffix": 1, "made by chromatune": 1}


def test_lfw_is_recognized_from_the_folder_above(lfw: Path) -> None:
    source = open_source(lfw.parent)
    assert source.kind == "lfw"
    assert source.items[0].key == "lfw/Ann_Lee/Ann_Lee_0001.jpg"


def test_a_kind_can_be_forced(lfw: Path) -> None:
    assert open_source(f"folder:{lfw}").items[0].person is None


# FFHQ


@pytest.mark.parametrize("below", ["", "images1024x1024"])
def test_ffhq_is_recognized_and_each_photo_counts_once(put, tmp_path: Path, below: str) -> None:
    for number in ("00000", "00001", "01000"):
        put(f"images1024x1024/{number[:2]}000/{number}.png")
        put(f"thumbnails128x128/{number[:2]}000/{number}.png")
    (tmp_path / "ffhq-dataset-v2.json").write_text("{}")
    source = open_source(tmp_path / below)
    assert source.kind == "ffhq"
    assert [Path(key).name for key in keys(source)] == ["00000.png", "00001.png", "01000.png"]
    assert all("thumbnails" not in key for key in keys(source))
    if not below:
        assert source.skipped["the same photos in another size"] == 3


def test_ffhq_thumbnails_alone_and_without_folders_of_a_thousand(put, tmp_path: Path) -> None:
    put("thumbnails128x128/00000.png")
    assert (open_source(tmp_path).kind, keys(open_source(tmp_path))) == ("ffhq", ["thumbnails128x128/00000.png"])


def test_numbers_alone_are_a_folder_unless_ffhq_is_said(put, tmp_path: Path) -> None:
    put("00000/00000.png")
    put("extra/cat.png")
    assert open_source(tmp_path).kind == "folder"
    assert keys(open_source(f"ffhq:{tmp_path}")) == ["00000/00000.png"]


# Results among the photos


@pytest.mark.parametrize("note", ["run.json", "protocol.json", "experiment.json"])
def test_what_was_made_among_the_photos_is_no_photo_of_the_source(tmp_path, note):
    """`finetune .` and `evaluate .` would else meet their own pictures, and take the source for another one."""
    for name in ("a.png", "b/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (40, 40), (200, 30, 30)).save(tmp_path / name)

    def found() -> tuple[list[str], dict[str, int]]:
        source = open_source(tmp_path)
        return [item.key for item in source.items], dict(source.skipped)

    before = found()
    assert before == (["a.png", "b/c.png"], {})
    with lock_run_folder(tmp_path / "out", note, {"seed": 1}, "work"):
        (tmp_path / "out" / "grids").mkdir()
        Image.new("RGB", (40, 40)).save(tmp_path / "out" / "grids" / "step-000001.png")
        assert found() == before
    assert found() == before


def test_results_beside_their_photos_are_no_photos_of_the_source(put, tmp_path: Path) -> None:
    """`colorize *.jpg` and `data inspect . --out .` leave them there; a name alone is no reason."""
    for name in ("a.png", "b/c.jpg", "d.color.png"):
        put(name)
    before = keys(open_source(tmp_path))
    for name in ("a.color.png", "b/c.color-2.png", "b/c.color-p3.jpg", "contact-sheet.png"):
        put(name)
    for spec in (str(tmp_path), f"folder:{tmp_path}"):
        source = open_source(spec)
        assert keys(source) == before == ["a.png", "b/c.jpg", "d.color.png"]
        assert source.skipped == {OWN_RESULT: 4}

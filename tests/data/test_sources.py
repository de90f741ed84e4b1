"""Every layout of photos as it is published, made small: what is recognised, listed, left out, and not opened."""

from __future__ import annotations

import os
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from chromatune.data import imdb_wiki
from chromatune.data.sources import IMDB_WIKI_DEFAULT_COUNT, ImdbWikiFilter, Source, open_source
from chromatune.errors import DataError, MissingExtraError, PhotoError
from chromatune.files import claim_folder


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
    assert source.left_out == {"not a photo's suffix": 1}
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
    put("colour.png", turned, exif=exif)
    Image.fromarray(np.full((20, 30), 65535, np.uint16)).save(tmp_path / "deep.png")
    colour, deep = (item.read() for item in open_source(tmp_path).items)
    assert colour.shape == (30, 20, 3)
    assert colour.dtype == deep.dtype == np.uint8
    assert colour[0, 0].tolist() == [255, 0, 0]
    assert colour[-1, 0].tolist() == [0, 0, 0]
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


# LFW


@pytest.fixture
def lfw(put, tmp_path: Path) -> Path:
    for name in ("Ann_Lee/Ann_Lee_0001.jpg", "Ann_Lee/Ann_Lee_0002.jpg", "Bo_de_la_Cruz-O/Bo_de_la_Cruz-O_0001.jpg"):
        put(f"lfw/{name}")
    (tmp_path / "lfw" / "pairs.txt").write_text("10 300")
    return tmp_path / "lfw"


def test_lfw_is_recognised_and_the_folder_is_the_person(lfw: Path, put) -> None:
    put("lfw/contact-sheet.png")
    source = open_source(lfw)
    assert source.kind == "lfw"
    assert [item.person for item in source.items] == ["Ann_Lee", "Ann_Lee", "Bo_de_la_Cruz-O"]
    assert source.left_out == {"not a photo's suffix": 1, "not named as in LFW": 1}


def test_lfw_is_recognised_from_the_folder_above(lfw: Path) -> None:
    source = open_source(lfw.parent)
    assert source.kind == "lfw"
    assert source.items[0].key == "lfw/Ann_Lee/Ann_Lee_0001.jpg"


def test_a_kind_can_be_forced(lfw: Path) -> None:
    assert open_source(f"folder:{lfw}").items[0].person is None


# FFHQ


@pytest.mark.parametrize("below", ["", "images1024x1024"])
def test_ffhq_is_recognised_and_each_photo_counts_once(put, tmp_path: Path, below: str) -> None:
    for number in ("00000", "00001", "01000"):
        put(f"images1024x1024/{number[:2]}000/{number}.png")
        put(f"thumbnails128x128/{number[:2]}000/{number}.png")
    (tmp_path / "ffhq-dataset-v2.json").write_text("{}")
    source = open_source(tmp_path / below)
    assert source.kind == "ffhq"
    assert [Path(key).name for key in keys(source)] == ["00000.png", "00001.png", "01000.png"]
    assert all("thumbnails" not in key for key in keys(source))
    if not below:
        assert source.left_out["the same photos in another size"] == 3


def test_ffhq_thumbnails_alone_and_without_folders_of_a_thousand(put, tmp_path: Path) -> None:
    put("thumbnails128x128/00000.png")
    assert (open_source(tmp_path).kind, keys(open_source(tmp_path))) == ("ffhq", ["thumbnails128x128/00000.png"])


def test_numbers_alone_are_a_folder_unless_ffhq_is_said(put, tmp_path: Path) -> None:
    put("00000/00000.png")
    put("extra/cat.png")
    assert open_source(tmp_path).kind == "folder"
    assert keys(open_source(f"ffhq:{tmp_path}")) == ["00000/00000.png"]


# IMDB-WIKI

NONE = np.nan


def write_mat(path: Path, rows: list[tuple], variable: str = "imdb") -> None:
    """A .mat file of the published form: a 1 x 1 struct of 1 x N fields.

    Each row is full_path, name, celeb_id, face_score, second_face_score.
    """
    from scipy.io import savemat

    def cells(values: list[str]) -> np.ndarray:
        result = np.empty((1, len(values)), dtype=object)
        result[0] = [np.array([value]) if value else np.array([], dtype="<U1") for value in values]
        return result

    paths, names, ids, score, second = (list(column) for column in zip(*rows, strict=True))
    fields = {
        "dob": np.full((1, len(rows)), 693726.0),  # 1899-05-10
        "photo_taken": np.full((1, len(rows)), 1968, np.uint16),
        "full_path": cells(paths),
        "gender": np.array([[(1.0, 0.0, NONE)[index % 3] for index in range(len(rows))]]),
        "name": cells(names),
        "face_location": cells(["x"] * len(rows)),
        "face_score": np.array([score]),
        "second_face_score": np.array([second]),
    }
    if variable == "imdb":
        fields |= {"celeb_names": cells(["Fred Astaire", "Ginger  Rogers"]), "celeb_id": np.array([ids], np.float64)}
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {variable: fields})


ROWS = [
    ("01/nm1_rm1_1899-5-10_1968.jpg", "Fred Astaire", 1, 3.5, NONE),
    ("02/nm2_rm1_1911-7-16_1968.jpg", "Ginger Rogers", 2, 1.0, NONE),
    ("02/nm2_rm2_1911-7-16_1968.jpg", "Ginger Rogers", 2, 2.0, 1.5),
    ("02/nm2_rm3_1911-7-16_1968.jpg", "Ginger Rogers", 2, -np.inf, NONE),
    ("02/nm2_rm4_1911-7-16_1968.jpg", "Ginger Rogers", 2, 0.9, NONE),
    ("03/gone.jpg", "Ginger Rogers", 2, 4.0, NONE),
    ("04/nobody.jpg", "", NONE, 4.0, NONE),
]


@pytest.fixture
def imdb(put, tmp_path: Path) -> Path:
    for name, *_ in ROWS:
        if "gone" not in name:
            put(f"imdb_crop/{name}")
    write_mat(tmp_path / "imdb_crop" / "imdb.mat", ROWS)
    return tmp_path / "imdb_crop"


def test_imdb_wiki_keeps_one_clear_face_of_a_known_person(imdb: Path) -> None:
    source = open_source(imdb)
    assert source.kind == "imdb-wiki"
    assert keys(source) == ["01/nm1_rm1_1899-5-10_1968.jpg", "02/nm2_rm1_1911-7-16_1968.jpg"]
    assert [item.person for item in source.items] == ["fred astaire", "ginger rogers"]
    assert [(item.age, item.gender) for item in source.items] == [(69, "male"), (69, "female")]
    assert source.left_out == {
        "more than one face": 1,
        "no face": 1,
        "face score below 1": 1,
        "person unknown": 1,
        "named in the metadata, not on the disk": 1,
    }
    assert source.items[0].read().shape == (40, 60, 3)


def test_both_archives_share_their_people(imdb: Path, put) -> None:
    put("wiki_crop/00/1.jpg")
    write_mat(imdb.parent / "wiki_crop" / "wiki.mat", [("00/1.jpg", "Fred Astaire ", 0, 2.0, NONE)], "wiki")
    source = open_source(imdb.parent)
    assert [key.split("/")[0] for key in keys(source)] == ["imdb_crop", "imdb_crop", "wiki_crop"]
    assert source.items[0].person == source.items[2].person == "fred astaire"
    assert keys(open_source(imdb.parent / "wiki_crop" / "wiki.mat")) == ["00/1.jpg"]


def test_imdb_wiki_takes_a_fixed_count_whatever_lies_before_it(put, tmp_path: Path) -> None:
    rows = [(f"00/{index:02}.jpg", "", 1 + index % 2, 2.0, NONE) for index in range(20)]
    for name, *_ in rows:
        put(name)
    write_mat(tmp_path / "imdb.mat", rows)
    wanted = ImdbWikiFilter(count=5)
    some = open_source(tmp_path, imdb_wiki_filter=wanted)
    assert len(some.items) == 5
    assert some.left_out == {"beyond the first 5": 15}
    write_mat(tmp_path / "imdb.mat", rows[::-1])
    assert keys(open_source(tmp_path, imdb_wiki_filter=wanted)) == keys(some)
    assert keys(some) != [name for name, *_ in rows[:5]]
    assert len(open_source(tmp_path).items) == 20
    assert IMDB_WIKI_DEFAULT_COUNT == ImdbWikiFilter().count == 766


def test_a_celebrity_without_a_name_is_still_one_person() -> None:
    data = {"name": np.array([["", "x"]], dtype=object), "celeb_id": np.array([[7.0, 7.0]])}
    assert imdb_wiki._persons(data) == ["celebrity 7", "celebrity 7"]


def test_impossible_ages_are_unknown() -> None:
    born, taken = np.array([693726.0, 47.0, np.nan]), np.array([1890.0, 2000.0, 1968.0])
    assert imdb_wiki._ages(born, taken) == [None, None, None]


def test_damaged_or_foreign_metadata(tmp_path: Path) -> None:
    from scipy.io import savemat

    empty, mat = tmp_path / "a" / "b", tmp_path / "imdb.mat"
    empty.mkdir(parents=True)
    mat.write_bytes(b"x" * 600)
    with pytest.raises(DataError, match=r"cannot be read as a \.mat file"):
        open_source(tmp_path)
    savemat(mat, {"other": 1})
    with pytest.raises(DataError, match="holds no struct"):
        open_source(mat)
    savemat(mat, {"imdb": {"dob": np.zeros((1, 2))}})
    with pytest.raises(DataError, match="not the metadata of IMDB-WIKI"):
        open_source(mat)
    with pytest.raises(DataError, match=r"no imdb\.mat"):
        open_source(f"imdb-wiki:{empty}")
    write_mat(mat, ROWS)
    with pytest.raises(DataError, match=r"no photo left \(.*unpack the photos"):
        open_source(tmp_path)


def test_without_scipy(imdb: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    with pytest.raises(MissingExtraError, match="train"):
        open_source(imdb)


@pytest.mark.parametrize("note", ["run.json", "protocol.json", "experiment.json"])
def test_what_was_made_among_the_photos_is_no_photo_of_the_source(tmp_path, note):
    """`finetune .` and `evaluate .` would else meet their own pictures, and take the source for another one."""
    for name in ("a.png", "b/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (40, 40), (200, 30, 30)).save(tmp_path / name)

    def found() -> tuple[list[str], dict[str, int]]:
        source = open_source(tmp_path)
        return [item.key for item in source.items], dict(source.left_out)

    before = found()
    assert before == (["a.png", "b/c.png"], {})
    with claim_folder(tmp_path / "out", note, {"seed": 1}, "work"):
        (tmp_path / "out" / "grids").mkdir()
        Image.new("RGB", (40, 40)).save(tmp_path / "out" / "grids" / "step-000001.png")
        assert found() == before
    assert found() == before

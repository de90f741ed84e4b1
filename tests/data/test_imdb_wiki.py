"""IMDB-WIKI's metadata: what is chosen and skipped, and files that are damaged, foreign or hostile."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chromatune.data import ImdbWikiFilter, Source, imdb_wiki, open_source
from chromatune.errors import DataError, MissingExtraError
from chromatune.training import resolve_settings


def keys(source: Source) -> list[str]:
    return [item.key for item in source.items]


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
def read_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read .mat files in this process: a process for each takes most of a test's time."""

    def read_struct(
        path: Path, names: Sequence[str], texts: Sequence[str], numbers: Sequence[str]
    ) -> dict[str, list[Any]]:
        return imdb_wiki.fields_of(str(path), names, texts, numbers)

    monkeypatch.setattr(imdb_wiki, "read_struct", read_struct)


@pytest.fixture
def imdb(put, tmp_path: Path) -> Path:
    for name, *_ in ROWS:
        if "gone" not in name:
            put(f"imdb_crop/{name}")
    write_mat(tmp_path / "imdb_crop" / "imdb.mat", ROWS)
    return tmp_path / "imdb_crop"


@pytest.mark.usefixtures("read_here")
def test_imdb_wiki_keeps_one_clear_face_of_a_known_person(imdb: Path) -> None:
    source = open_source(imdb)
    assert source.kind == "imdb-wiki"
    assert keys(source) == ["01/nm1_rm1_1899-5-10_1968.jpg", "02/nm2_rm1_1911-7-16_1968.jpg"]
    assert [item.person for item in source.items] == ["fred astaire", "ginger rogers"]
    assert [(item.age, item.gender) for item in source.items] == [(69, "male"), (69, "female")]
    assert source.skipped == {
        "more than one face": 1,
        "no face": 1,
        "face score below 1": 1,
        "person unknown": 1,
        "named in the metadata, not on the disk": 1,
    }
    assert source.items[0].read().shape == (40, 60, 3)


@pytest.mark.usefixtures("read_here")
def test_both_archives_share_their_people(imdb: Path, put) -> None:
    put("wiki_crop/00/1.jpg")
    write_mat(imdb.parent / "wiki_crop" / "wiki.mat", [("00/1.jpg", "Fred Astaire ", 0, 2.0, NONE)], "wiki")
    source = open_source(imdb.parent)
    assert [key.split("/")[0] for key in keys(source)] == ["imdb_crop", "imdb_crop", "wiki_crop"]
    assert source.items[0].person == source.items[2].person == "fred astaire"
    assert keys(open_source(imdb.parent / "wiki_crop" / "wiki.mat")) == ["00/1.jpg"]


@pytest.mark.usefixtures("read_here")
def test_imdb_wiki_takes_a_fixed_count_whatever_lies_before_it(put, tmp_path: Path) -> None:
    rows = [(f"00/{index:02}.jpg", "", 1 + index % 2, 2.0, NONE) for index in range(20)]
    for name, *_ in rows:
        put(name)
    write_mat(tmp_path / "imdb.mat", rows)
    wanted = ImdbWikiFilter(count=5)
    some = open_source(tmp_path, imdb_wiki_filter=wanted)
    assert len(some.items) == 5
    assert some.skipped == {"beyond the first 5": 15}
    write_mat(tmp_path / "imdb.mat", rows[::-1])
    assert keys(open_source(tmp_path, imdb_wiki_filter=wanted)) == keys(some)
    assert keys(some) != [name for name, *_ in rows[:5]]


@pytest.mark.usefixtures("read_here")
def test_imdb_wiki_is_taken_whole(put, tmp_path: Path) -> None:
    """More photos than the paper trained with: its preset takes 766, nobody else does."""
    rows = [(f"00/{index:03}.jpg", "", 1 + index % 2, 2.0, NONE) for index in range(770)]
    for name, *_ in rows:
        put(name)
    write_mat(tmp_path / "imdb.mat", rows)
    assert len(open_source(tmp_path).items) == 770
    assert resolve_settings("paper").photos == 766 and resolve_settings("quick").photos is None


def test_a_celebrity_without_a_name_is_still_one_person() -> None:
    data: dict[str, list[Any]] = {"name": ["", "x"], "celeb_id": [7.0, 7.0]}
    assert imdb_wiki._persons(data) == ["celebrity 7", "celebrity 7"]


def test_impossible_ages_are_unknown() -> None:
    born, taken = np.array([693726.0, 47.0, np.nan]), np.array([1890.0, 2000.0, 1968.0])
    assert imdb_wiki._ages(born, taken) == [None, None, None]


@pytest.mark.usefixtures("read_here")
def test_foreign_metadata(tmp_path: Path) -> None:
    from scipy.io import savemat

    empty, mat = tmp_path / "a" / "b", tmp_path / "imdb.mat"
    empty.mkdir(parents=True)
    savemat(mat, {"imdb": {"dob": np.zeros((1, 2))}})
    with pytest.raises(DataError, match="not the metadata of IMDB-WIKI"):
        open_source(mat)
    with pytest.raises(DataError, match=r"no imdb\.mat"):
        open_source(f"imdb-wiki:{empty}")
    write_mat(mat, ROWS)
    with pytest.raises(DataError, match=r"no photo left \(.*unpack the photos"):
        open_source(tmp_path)


@pytest.mark.usefixtures("read_here")
@pytest.mark.parametrize("name", ["../a.jpg", "01/../../a.jpg", "/etc/passwd", "{above}/a.jpg", "..", "x/.."])
def test_metadata_cannot_lead_out_of_its_folder(put, tmp_path: Path, name: str) -> None:
    put("a.jpg")
    put("set/01/b.jpg")
    rows = [(name.format(above=tmp_path), "Fred", 1, 3.0, NONE), ("01/b.jpg", "Fred", 1, 3.0, NONE)]
    write_mat(tmp_path / "set" / "imdb.mat", rows)
    source = open_source(tmp_path / "set")
    assert keys(source) == ["01/b.jpg"]
    assert source.skipped == {"outside the folder of the metadata": 1}


@pytest.mark.usefixtures("read_here")
@pytest.mark.parametrize("name", ["a" * 5000 + ".jpg", "a\0b.jpg", "a\x1b[2J.jpg"])
def test_metadata_with_names_that_are_none(put, tmp_path: Path, name: str) -> None:
    put("01/b.jpg")
    write_mat(tmp_path / "imdb.mat", [(name, "Fred", 1, 3.0, NONE), ("01/b.jpg", "Fred", 1, 3.0, NONE)])
    source = open_source(tmp_path)
    assert keys(source) == ["01/b.jpg"]
    assert source.skipped == {"named in the metadata, not on the disk": 1}


@pytest.mark.parametrize("number", [np.inf, -np.inf, NONE, 1e300])
def test_a_celebrity_with_no_number(number: float) -> None:
    data: dict[str, list[Any]] = {"name": ["Fred"], "celeb_id": [number]}
    assert imdb_wiki._persons(data) == ["fred"] or number == 1e300


def test_without_scipy(imdb: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    with pytest.raises(MissingExtraError, match="train"):
        open_source(imdb)


# A damaged file ends its reader, not the program


def write_damaged(path: Path, at: int, value: int) -> None:
    """A .mat file with one byte changed."""
    write_mat(path, ROWS)
    damaged = bytearray(path.read_bytes())
    damaged[at] = value
    path.write_bytes(damaged)


# scipy 1.17 ends with a segmentation fault
CHANGED_BYTES = [
    (652, 127),
    pytest.param(745, 201, marks=pytest.mark.slow),
    pytest.param(2160, 241, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("at", "value"), CHANGED_BYTES)
def test_a_file_that_ends_the_process_that_reads_it_is_one_line(tmp_path: Path, at: int, value: int) -> None:
    write_damaged(tmp_path / "imdb.mat", at, value)
    with pytest.raises(DataError) as caught:
        open_source(tmp_path)
    assert str(caught.value).isprintable() and len(str(caught.value)) < len(str(tmp_path)) + 200


@pytest.mark.parametrize(("at", "value"), [(976, 61), (1064, 254)])  # scipy 1.17 raises what is not its own
def test_a_file_that_breaks_the_library_is_one_line(tmp_path: Path, at: int, value: int) -> None:
    write_damaged(tmp_path / "imdb.mat", at, value)
    with pytest.raises(DataError, match="^[^\n]*$"):
        imdb_wiki.fields_of(str(tmp_path / "imdb.mat"), ["imdb"], imdb_wiki.TEXT_FIELDS, imdb_wiki.NUMBER_FIELDS)


@pytest.mark.parametrize(
    "content",
    [
        b"x" * 600,
        pytest.param(b"", marks=pytest.mark.slow),
        pytest.param(b"MATLAB 5.0 MAT-file".ljust(124) + b"\0\x01IM", marks=pytest.mark.slow),
        pytest.param(b"\x89HDF\r\n\x1a\n" * 99, marks=pytest.mark.slow),
    ],
)
def test_files_that_are_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "imdb.mat").write_bytes(content)
    with pytest.raises(DataError, match=r"imdb\.mat: (cannot be read as a \.mat file|holds no struct)") as caught:
        open_source(tmp_path)
    assert str(caught.value).isprintable()


def test_another_variable_is_one_line(tmp_path: Path) -> None:
    from scipy.io import savemat

    savemat(tmp_path / "imdb.mat", {"other": 1})
    with pytest.raises(DataError, match=r"imdb\.mat: holds no struct 'imdb' or 'wiki'; download it again"):
        open_source(tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not limit a process's memory")
def test_a_file_that_unpacks_to_more_than_the_memory(tmp_path: Path, monkeypatch) -> None:
    from scipy.io import savemat

    zeros = {"dob": np.zeros(2**24)}  # 128 MiB from 128 kB
    savemat(tmp_path / "imdb.mat", {"imdb": zeros}, do_compression=True)
    start = imdb_wiki.READER.removesuffix("from chromatune.data.imdb_wiki import answer_read; answer_read()")
    assert start != imdb_wiki.READER
    used = "int(open('/proc/self/statm').read().split()[0]) * os.sysconf('SC_PAGE_SIZE')"
    limited = f"imdb_wiki.MAX_MEMORY_BYTES = {used} + 2**26; imdb_wiki.answer_read()"
    load = "import os, scipy.io; from chromatune.data import imdb_wiki; "
    monkeypatch.setattr(imdb_wiki, "READER", start + load + limited)
    with pytest.raises(DataError, match=r"cannot be read as a \.mat file \(it (does not fit into memory|is damaged)"):
        open_source(tmp_path)


def test_the_reader_takes_no_module_from_the_working_directory(imdb: Path, tmp_path: Path, monkeypatch) -> None:
    for name in ("json.py", "numpy.py", "scipy.py", "sitecustomize.py"):
        (tmp_path / name).write_text(f"open({str(tmp_path / 'run')!r}, 'w').close()")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert len(open_source(imdb).items) == 2
    assert not (tmp_path / "run").exists()


def test_a_reader_that_does_not_end(imdb: Path, monkeypatch) -> None:
    monkeypatch.setattr(imdb_wiki, "READER", "while True: pass")
    monkeypatch.setattr(imdb_wiki, "MAX_SECONDS", 0.2)
    with pytest.raises(DataError, match=r"not read after 0\.2 seconds"):
        open_source(imdb)


@pytest.mark.slow
def test_two_hundred_damaged_files_are_one_line_or_read(imdb: Path) -> None:
    mat = imdb / "imdb.mat"
    whole, rng = mat.read_bytes(), np.random.default_rng(0)
    for number in range(200):
        damaged = bytearray(whole)
        for at in rng.integers(128, len(damaged), rng.integers(1, 6)):
            damaged[at] = rng.integers(0, 256)
        mat.write_bytes(damaged if number % 4 else damaged[: rng.integers(0, len(damaged))])
        message = ""
        try:
            open_source(imdb)
        except DataError as error:
            message = str(error)
        assert (message or "-").isprintable(), number


def test_a_pipe_is_no_mat_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "imdb.mat")
    with pytest.raises(DataError, match="is no file"):
        imdb_wiki.open_imdb_wiki(tmp_path)

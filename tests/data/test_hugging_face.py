"""Hugging Face data sets in each form they are kept in: saved, parquet, a folder of images, by name."""

from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from chromatune.data import Source, open_source
from chromatune.data.prompt_sets import drawn_prompt
from chromatune.errors import DataError, MissingExtraError, PhotoError


def keys(source: Source) -> list[str]:
    return [item.key for item in source.items]


@pytest.fixture
def rows(draw):
    photos = [Image.fromarray(draw(seed=seed)) for seed in range(3)]
    return {
        "original_image": [photo.convert("L") for photo in photos],
        "edit_prompt": ["colorize", "add color", "restore"],
        "edited_image": photos,
    }


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("cache")))


def image_dataset(rows: dict, color_column: str = "edited_image"):
    import datasets

    rows = {color_column if name == "edited_image" else name: values for name, values in rows.items()}
    types = {name: datasets.Value("string") if name == "edit_prompt" else datasets.Image() for name in rows}
    return datasets.Dataset.from_dict(rows, features=datasets.Features(types))


@pytest.mark.parametrize("color_column", ["edited_image", "colorized_image"])
def test_a_saved_data_set(rows, tmp_path: Path, draw, color_column: str, capfd) -> None:
    image_dataset(rows, color_column).with_format("numpy").save_to_disk(tmp_path / "set")
    capfd.readouterr()
    source = open_source(tmp_path / "set")
    assert (source.name, source.kind) == ("set", "hf")
    assert source.prompts is not None
    assert [source.prompts[key] for key in keys(source)] == rows["edit_prompt"]
    for seed, item in enumerate(source.items):
        np.testing.assert_array_equal(item.read(), draw(seed=seed))
    assert source.items[0].stamp == open_source(tmp_path / "set").items[0].stamp != ""
    assert capfd.readouterr().err == ""


def test_items_of_a_data_set_survive_pickling(rows, tmp_path: Path, draw) -> None:
    image_dataset(rows).save_to_disk(tmp_path / "set")
    items = pickle.loads(pickle.dumps(open_source(tmp_path / "set").items))  # noqa: S301
    np.testing.assert_array_equal(items[2].read(), draw(seed=2))


def test_of_several_splits_train_is_taken(rows, tmp_path: Path) -> None:
    import datasets

    dataset = image_dataset(rows)
    datasets.DatasetDict(test=dataset, train=dataset.select([0, 1])).save_to_disk(tmp_path / "set")
    source = open_source(tmp_path / "set")
    assert keys(source) == ["train/0000000", "train/0000001"]
    assert source.skipped == {"in split test": 3}
    datasets.DatasetDict(a=dataset, b=dataset).save_to_disk(tmp_path / "other")
    with pytest.raises(DataError, match="splits a, b; accepted"):
        open_source(tmp_path / "other")


@pytest.mark.parametrize("alone", [False, True])
def test_parquet(rows, tmp_path: Path, draw, alone: bool) -> None:
    path = tmp_path / "set" / "data" / "train-00000-of-00001.parquet"
    path.parent.mkdir(parents=True)
    image_dataset(rows).to_parquet(path)
    source = open_source(path if alone else tmp_path / "set")
    assert source.kind == "hf"
    np.testing.assert_array_equal(source.items[1].read(), draw(seed=1))


def test_columns_of_bytes(tmp_path: Path, draw, png_bytes) -> None:
    import datasets

    photo = png_bytes(draw(seed=5))
    columns = {"edited_image": [{"bytes": photo, "path": None}, None, {"bytes": b"junk", "path": "x.png"}]}
    datasets.Dataset.from_dict(columns).save_to_disk(tmp_path / "dicts")
    source = open_source(tmp_path / "dicts")
    assert source.prompts is None
    good, empty, broken = source.items
    np.testing.assert_array_equal(good.read(), draw(seed=5))
    for item in (empty, broken):
        with pytest.raises(PhotoError, match=item.key):
            item.read()
    datasets.Dataset.from_dict({"edited_image": [photo]}).save_to_disk(tmp_path / "bytes")
    np.testing.assert_array_equal(open_source(tmp_path / "bytes").items[0].read(), draw(seed=5))


def test_a_folder_of_images_with_a_table(put, tmp_path: Path, draw) -> None:
    put("set/gray.png", draw(seed=1)[..., 0])
    put("set/color.png", draw(seed=1))
    row = {"original_image_file_name": "gray.png", "edited_image_file_name": "color.png", "edit_prompt": "colorize"}
    (tmp_path / "set" / "metadata.jsonl").write_text(json.dumps(row) + "\n")
    source = open_source(tmp_path / "set")
    assert (source.kind, list((source.prompts or {}).values())) == ("hf", ["colorize"])
    np.testing.assert_array_equal(source.items[0].read(), draw(seed=1))


def test_a_data_set_of_something_else(tmp_path: Path) -> None:
    import datasets

    datasets.Dataset.from_dict({"text": ["x"]}).save_to_disk(tmp_path / "set")
    with pytest.raises(DataError, match="columns text; accepted: edited_image"):
        open_source(tmp_path / "set")
    (tmp_path / "junk.parquet").write_bytes(b"junk")
    with pytest.raises(DataError, match="cannot be read as a Hugging Face data set") as caught:
        open_source(tmp_path / "junk.parquet")
    assert "\n" not in str(caught.value)


def test_a_hub_name_goes_to_the_library(rows, monkeypatch) -> None:
    import datasets

    asked: list[str] = []

    def load(name: str) -> datasets.Dataset:
        asked.append(name)
        return image_dataset(rows)

    monkeypatch.setattr(datasets, "load_dataset", load)
    assert open_source("hf:owner/name").name == "owner/name"
    assert asked == ["owner/name"]
    monkeypatch.setattr(datasets, "load_dataset", lambda name: image_dataset({"edited_image": []}))
    with pytest.raises(DataError, match="no rows"):
        open_source("hf:owner/name")


def test_without_datasets(rows, tmp_path: Path, monkeypatch) -> None:
    image_dataset(rows).save_to_disk(tmp_path / "set")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtraError, match="train"):
        open_source(tmp_path / "set")


@pytest.mark.parametrize("empty", [None, "", " \n "])
def test_a_row_without_an_instruction_gets_a_drawn_one(rows, tmp_path: Path, empty) -> None:
    image_dataset(rows | {"edit_prompt": ["colorize", empty, " add\n color "]}).save_to_disk(tmp_path / "set")
    source = open_source(tmp_path / "set")
    assert list((source.prompts or {}).values()) == ["colorize", drawn_prompt("train/0000001"), "add color"]
    image_dataset(rows | {"edit_prompt": [empty] * 3}).save_to_disk(tmp_path / "none")
    assert open_source(tmp_path / "none").prompts is None
    with pytest.raises(DataError, match="no text in column 'edit_prompt'"):
        open_source(f"hf:{tmp_path / 'none'}#prompt=edit_prompt")


def test_any_column_by_name(rows, tmp_path: Path, draw, png_bytes) -> None:
    import datasets

    photos = [png_bytes(draw(seed=seed)) for seed in range(2)]
    table = {"photo": photos, "texts": [["", "warm"], ["cold"]], "number": [1, 2]}
    datasets.Dataset.from_dict(table).save_to_disk(tmp_path / "set")
    for source in (
        open_source(f"{tmp_path / 'set'}#image=photo&prompt=texts"),
        open_source(f"hf:{tmp_path / 'set'}#prompt=texts", columns={"image": "photo"}),
    ):
        assert list((source.prompts or {}).values()) == ["warm", "cold"]
        np.testing.assert_array_equal(source.items[1].read(), draw(seed=1))
    assert open_source(f"{tmp_path / 'set'}#image=photo").prompts is None
    for columns, message in (
        ("image=gone", "columns photo, texts, number; accepted"),
        ("image=photo&prompt=gone", "columns photo, texts, number; accepted"),
        ("image=photo&prompt=number", "no text in column 'number'"),
        ("image=photo&prompt=photo", "no text in column 'photo'"),
    ):
        with pytest.raises(DataError, match=message):
            open_source(f"{tmp_path / 'set'}#{columns}")


@pytest.mark.parametrize(
    "beside",
    [
        pytest.param("preview.png", marks=pytest.mark.slow),
        pytest.param("README.md", marks=pytest.mark.slow),
        "preview.png README.md",
    ],
)
@pytest.mark.parametrize("folder", [".", "data"])
def test_parquet_files_with_other_files_beside_them(rows, put, tmp_path: Path, draw, beside: str, folder: str) -> None:
    (tmp_path / "set" / folder).mkdir(parents=True)
    image_dataset(rows).to_parquet(tmp_path / "set" / folder / "train-00000-of-00001.parquet")
    image_dataset(rows).to_parquet(tmp_path / "set" / folder / "test-00000-of-00001.parquet")
    for name in beside.split():
        put(f"set/{name}") if name.endswith("png") else (tmp_path / "set" / name).write_text("# Photos")
    source = open_source(tmp_path / "set")
    assert (source.kind, keys(source)) == ("hf", [f"train/{index:07}" for index in range(3)])
    np.testing.assert_array_equal(source.items[2].read(), draw(seed=2))


def test_a_long_first_row_still_names_the_columns(put, tmp_path: Path, draw) -> None:
    put("set/gray.png", draw(seed=1)[..., 0])
    put("set/color.png", draw(seed=1))
    row = {"edit_prompt": "colorize " * 9999, "original_image_file_name": "gray.png"}
    (tmp_path / "set" / "metadata.jsonl").write_text(json.dumps(row | {"edited_image_file_name": "color.png"}) + "\n")
    source = open_source(tmp_path / "set")
    assert (source.kind, len(source.items)) == ("hf", 1)


def test_relative_paths_of_a_table_are_relative_to_it(put, tmp_path: Path, draw, monkeypatch) -> None:
    import datasets

    put("set/photos/a.png", draw(seed=4))
    monkeypatch.chdir(tmp_path)
    columns = {"edited_image": ["photos/a.png", "gone.png", "a\0b"], "edit_prompt": ["x", "y", "z"]}
    datasets.Dataset.from_dict(columns).to_parquet(tmp_path / "set" / "train.parquet")
    good, *others = open_source(tmp_path / "set" / "train.parquet").items
    np.testing.assert_array_equal(good.read(), draw(seed=4))
    for item in others:
        with pytest.raises(PhotoError, match=item.key):
            item.read()


@pytest.mark.parametrize("name", ["state.json", "dataset_info.json"])
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[" * 100_000,
        b'{"_data_files": 7}',
        *(pytest.param(note, marks=pytest.mark.slow) for note in (b"[]", b"7", b"{}", b"\xff", b'{"features": []}')),
    ],
)
def test_damaged_notes_of_a_saved_data_set_are_one_line(rows, tmp_path: Path, name: str, content: bytes) -> None:
    image_dataset(rows).save_to_disk(tmp_path / "set")
    (tmp_path / "set" / name).write_bytes(content)
    message = ""
    try:
        assert len(open_source(tmp_path / "set").items) == 3  # the arrow file holds its schema too
    except DataError as error:
        message = str(error)
    assert (message or "-").isprintable() and len(message) < len(str(tmp_path)) + 400


@pytest.mark.parametrize(
    "content", [b"PAR1" * 9, *(pytest.param(data, marks=pytest.mark.slow) for data in (b"", b"junk" * 99))]
)
@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_damaged_tables_are_one_line(tmp_path: Path, suffix: str, content: bytes) -> None:
    (tmp_path / f"train.{suffix}").write_bytes(content)
    for spec in (tmp_path, tmp_path / f"train.{suffix}", f"hf:{tmp_path}"):
        with pytest.raises(DataError, match="cannot be read as a Hugging Face data set") as caught:
            open_source(spec)
        assert str(caught.value).isprintable()


def test_code_in_a_data_set_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "set.py").write_text("raise SystemExit")
    with pytest.raises(DataError, match="cannot be read as a Hugging Face data set .* no longer supported"):
        open_source(f"hf:{tmp_path / 'set'}")


def test_hostile_column_names_are_cut_and_printable(tmp_path: Path) -> None:
    import datasets

    datasets.Dataset.from_dict({f"\x1b[2J{index}" + "y" * 999: ["x"] for index in range(50)}).save_to_disk(
        tmp_path / "set"
    )
    with pytest.raises(DataError, match="; accepted: edited_image") as caught:
        open_source(tmp_path / "set")
    assert str(caught.value).isprintable() and len(str(caught.value)) < len(str(tmp_path)) + 1200

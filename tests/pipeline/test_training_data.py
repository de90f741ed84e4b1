"""`training_data.json`: written once, read as a stranger's, and what is told of photos that are in it."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from chromatune.errors import ModelError
from chromatune.pipeline import (
    MODELS_DIR,
    PHOTO_DIGITS,
    TrainingSet,
    check_replaceable,
    model_files,
    read_training_data,
    training_overlap,
    weights_hash,
    write_training_data,
)

FACES = TrainingSet.of("faces", [digit * 64 for digit in "210"], count=5)
SCENES = TrainingSet.of("scenes", ["c" * 64, "b" * PHOTO_DIGITS, "b" * 64])
FILE = "training_data.json"


@pytest.fixture
def model(tiny_pipeline_dir: Path, tmp_path: Path) -> Path:
    """A model of the test's own."""
    return shutil.copytree(tiny_pipeline_dir, tmp_path / "model")


def test_what_is_written_is_read_each_set_once(model):
    assert read_training_data(str(model)) == ()
    write_training_data(model, [FACES, SCENES, FACES])
    assert read_training_data(str(model)) == (FACES, SCENES)
    assert (SCENES.count, SCENES.photos) == (3, ("b" * PHOTO_DIGITS, "c" * PHOTO_DIGITS))
    listed = json.loads((model / FILE).read_text())["sets"][1]
    assert (listed["set"], listed["count"], listed["hash"]) == ("scenes", 3, SCENES.digest)


def test_the_list_decides_no_pixel_and_is_a_models_own_file(model):
    before = weights_hash(str(model))
    write_training_data(model, [FACES])
    assert weights_hash(str(model)) == before
    check_replaceable(model)


def hashed(*photos: str) -> dict[str, object]:
    """Fields of a list whose hash is right."""
    return {"photos": photos, "hash": TrainingSet("", len(photos), photos).digest}


ROW = {"set": "faces", "count": 5, "hash": FACES.digest, "photos": list(FACES.photos)}


@pytest.mark.parametrize(
    "stored",
    [
        *(b"[]", b"{", b"{}", b'{"format": 2, "sets": []}', b'{"format": 1, "sets": 3}', b'{"format": 1, "sets": [7]}'),
        *(b'{"format": 1, "base": "\\u001b[31m", "sets": []}', b'{"format": 1, "base": "../mini", "sets": []}'),
        *(
            json.dumps({"format": 1, "sets": [ROW | changed]}).encode()
            for changed in (
                {"set": None}, {"set": ""}, {"set": "a\nb" * 100}, {"set": "\x1b[31m\n", "hash": "0" * 16},
                {"count": 2}, {"count": -1}, {"count": "5"}, {"hash": "0"}, {"photos": "all"},
                {"photos": ["0" * PHOTO_DIGITS]}, {"photos": ["no hash"]}, {"photos": ["\x1b" * PHOTO_DIGITS]},
                hashed(*reversed(FACES.photos)), hashed(*FACES.photos, FACES.photos[-1]),
            )
        ),
    ],
)  # fmt: skip
def test_a_damaged_list_is_one_line(model, stored):
    (model / FILE).write_bytes(stored)
    with pytest.raises(ModelError) as caught:
        read_training_data(str(model))
    message = str(caught.value)
    assert FILE in message and "download the model again" in message
    assert message.isprintable() and len(message) < 500


def test_neither_a_pipe_nor_a_file_without_end_is_read(model):
    os.mkfifo(model / FILE)
    with pytest.raises(ModelError, match=r"training_data\.json cannot be read"):
        read_training_data(str(model))
    (model / FILE).unlink()
    with (model / FILE).open("wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(ModelError, match="larger than 64 MB"):
        read_training_data(str(model))


def test_sets_of_a_base_that_ships_are_not_written_twice(model, tmp_path, monkeypatch):
    """Only where the base has no others, which the model would be said to have seen."""
    monkeypatch.setattr(model_files, "MODELS_DIR", tmp_path)  # where the test's model is now
    write_training_data(model, [FACES])
    other = shutil.copytree(model, tmp_path / "elsewhere" / "other")
    write_training_data(other, [FACES, SCENES], base="model")
    assert read_training_data(str(other)) == (FACES, SCENES)
    stored = json.loads((other / FILE).read_text())
    assert stored["base"] == "model" and [each["set"] for each in stored["sets"]] == ["scenes"]
    write_training_data(other, [SCENES], base="model")
    assert "base" not in json.loads((other / FILE).read_text()) and read_training_data(str(other)) == (SCENES,)
    (model / FILE).write_text('{"format": 1, "base": "model", "sets": []}')
    with pytest.raises(ModelError, match="names 'model' as base"):
        read_training_data("model")


def test_an_overlap_names_the_sets_and_counts_a_photo_once(model):
    again = TrainingSet("again", 9, FACES.photos[:1])
    write_training_data(model, [FACES, again, SCENES])
    found = training_overlap(str(model), [FACES.photos[0] + "0" * 52, FACES.photos[1], "d" * 64])
    assert found is not None and (found.photos, found.of, found.sets) == (2, 3, {"faces": 2, "again": 1})
    assert "was trained on 2 of the 3 photos measured (faces: 2, again: 1)" in found.warning
    assert "\n" not in found.warning
    assert training_overlap(str(model), ["d" * 64]) is None


def test_the_shipped_models_list_what_they_have_seen():
    """The numbers of their cards; `mini` has all of `mini-base`, and its file does not repeat them."""
    base, mini = read_training_data("mini-base"), read_training_data("mini")
    assert mini[: len(base)] == base and sum(each.count for each in base) == 16030
    assert sum(len(each.photos) for each in base) == 14530
    assert {"fairface", "flowers", "caltech101", "clothing"} < {each.name for each in base}
    for name in ("mini-base", "mini"):
        assert (MODELS_DIR / name / FILE).stat().st_size < 250_000

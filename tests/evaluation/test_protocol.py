"""Which photos are measured: by pixels and not by names, each once, all others with a reason; other tools' files."""

from __future__ import annotations

import os
import shutil
from functools import partial

import numpy as np
import pytest
from skimage.data import astronaut

from chromatune.data import MONOCHROME, TOO_SMALL, PhotoItem, Source, content_of, open_source
from chromatune.errors import DataError, PhotoError
from chromatune.evaluation import protocol, squares
from chromatune.evaluation.protocol import Choice, ResultFiles, select
from chromatune.evaluation.squares import square_of

CHOICE = Choice(size_px=64)


def source_of(photos: dict[str, np.ndarray], persons: dict[str, str] | None = None) -> Source:
    persons = persons or {}
    items = tuple(PhotoItem(key, persons.get(key), partial(np.copy, rgb)) for key, rgb in photos.items())
    return Source("made", "folder", items)


def crops(count: int) -> dict[str, np.ndarray]:
    return {f"{index}.png": astronaut()[4 * index : 4 * index + 80, 100:180] for index in range(count)}


def test_every_photo_is_measured_or_skipped_for_a_reason(photos_dir):
    selection = select(open_source(photos_dir), CHOICE)
    assert selection.counts == {
        MONOCHROME: 1,
        protocol.REPEATED: 1,
        TOO_SMALL: 1,
        protocol.UNREADABLE: 1,
    }
    assert len(selection.photos) == 4
    (broken,) = (photo for photo in selection.skipped if photo.reason == protocol.UNREADABLE)
    assert (broken.key, "broken.jpg" in broken.detail) == ("broken.jpg", True)


def test_names_and_order_do_not_matter(photos_dir, tmp_path):
    renamed = tmp_path / "renamed"
    renamed.mkdir()
    for number, path in enumerate(sorted(photos_dir.iterdir(), reverse=True)):
        shutil.copy(path, renamed / f"{number}{path.suffix}")
    ours, theirs = (select(open_source(folder), Choice(64, limit=3)) for folder in (photos_dir, renamed))
    assert [photo.content for photo in ours.photos] == [photo.content for photo in theirs.photos]
    assert ours.digest == theirs.digest
    assert ours.counts[protocol.OVER_LIMIT] == 1


def test_lowest_hash_of_each_person():
    photos = crops(6)
    persons = {key: "ann" if index % 2 else "bob" for index, key in enumerate(photos)}
    selection = select(source_of(photos, persons), Choice(64, one_per_person=True))
    lowest = [min(content_of(photos[key]) for key, name in persons.items() if name == who) for who in ("ann", "bob")]
    assert [photo.content for photo in selection.photos] == sorted(lowest)
    assert selection.counts == {protocol.SAME_PERSON: 4}


def test_halves_share_no_person_and_make_the_whole():
    photos = crops(12)
    persons = {key: f"person {index // 2}" for index, key in enumerate(photos)}
    halves = [
        select(source_of(photos, persons), Choice(64, split=split, validation=4)) for split in ("train", "validation")
    ]
    train, validation = ({persons[photo.key] for photo in half.photos} for half in halves)
    assert not train & validation
    assert len(halves[0].photos) + len(halves[1].photos) == 12
    assert halves[1].counts == {protocol.OTHER_SPLIT: len(halves[0].photos)}


def test_a_list_of_keys():
    selection = select(source_of(crops(4)), Choice(64, keys=frozenset({"1.png", "3.png"})))
    assert {photo.key for photo in selection.photos} == {"1.png", "3.png"}
    assert selection.counts == {protocol.NOT_LISTED: 2}
    with pytest.raises(DataError, match=r"no photo '9\.png'"):
        select(source_of(crops(4)), Choice(64, keys=frozenset({"9.png"})))


def test_a_source_without_photos_is_an_error():
    def unreadable() -> np.ndarray:
        raise PhotoError("x is damaged")

    with pytest.raises(DataError, match="1 unreadable"):
        select(Source("made", "folder", (PhotoItem("x", None, unreadable),)), CHOICE)
    with pytest.raises(DataError, match="it is empty"):
        select(Source("made", "folder", ()), CHOICE)


def test_published_protocols_have_every_photo_that_can_be_read(photos_dir):
    """Gray, small and repeated ones too; only the broken one is left out."""
    selection = select(open_source(photos_dir), Choice(64, square="stretched", every_photo=True), squares=9)
    assert selection.counts == {protocol.UNREADABLE: 1}
    assert {photo.key for photo in selection.photos} >= {"again.png", "coffee.png", "gray.png", "tiny.png"}
    assert {photo.square.rgb_u8.shape for photo in selection.photos if photo.square} == {(64, 64, 3)}


def test_photos_are_resized_whole_and_not_cropped_to_the_output():
    """A crop of the truth's corner would compare other pixels than were colorized."""
    photo = np.zeros((100, 200, 3), np.uint8)
    photo[:, 50:100] = 255  # the left half of the center square
    square = squares.center_square(photo, 20)
    assert square.shape == (20, 20, 3)
    assert (square[:, :10] == 255).all()
    assert (square[:, 10:] == 0).all()
    assert squares.center_square(photo, 150).shape == (150, 150, 3)


def test_squares_of_the_lowest_hashes_stay_decoded():
    """In whatever order they are read; they hold no memory of the whole photo."""
    photos = crops(6)
    selection = select(source_of(photos), CHOICE, squares=2)
    assert [photo.square is not None for photo in selection.photos] == [True, True, False, False, False, False]
    for photo in selection.photos:
        expected, square = square_of(photos[photo.key], 64), photo.open_square(64)
        np.testing.assert_array_equal(square.rgb_u8, expected.rgb_u8)
        assert square.full_size == expected.full_size == (80, 80) and square.rgb_u8.base is None
    assert all(photo.square is None for photo in select(source_of(photos), CHOICE).photos)
    assert square_of(np.zeros((80, 64, 3), np.uint8), 64).rgb_u8.base is None


@pytest.mark.parametrize(
    ("files", "found"),
    [
        (["1931/001.png", "1932/001.png"], ["1931/001.png", "1932/001.png"]),
        (["001.png"], ["ambiguous: 2 photos are called 001"] * 2),
        (["1931/001.png"], ["1931/001.png", "ambiguous: 2 photos are called 001"]),
        (["1931/001.png", "1932/001.png", "1932/001.jpg"], ["1931/001.png", "ambiguous: 2 files called 001"]),
        ([], ["missing", "missing"]),
    ],
)
def test_one_result_is_never_taken_for_several_photos(tmp_path, write_png, colored, files, found):
    """Archives number their scans anew each year."""
    (tmp_path / "results").mkdir()
    for name in files:
        write_png(tmp_path / "results" / name, colored("coffee"))
    results = ResultFiles(str(tmp_path / "results"), ["1931/001.tif", "1932/001.tif", "1932/002.tif"])
    for key, expected in zip(("1931/001.tif", "1932/001.tif"), found, strict=True):
        try:
            came = results.find(key).relative_to(tmp_path / "results").as_posix()
        except PhotoError as error:
            came = str(error)
        assert came.startswith(expected)


def test_a_pipe_is_no_list_of_keys(tmp_path):
    os.mkfifo(tmp_path / "keys.txt")
    with pytest.raises(DataError, match="list of keys cannot be read"):
        protocol._read_keys(tmp_path / "keys.txt")

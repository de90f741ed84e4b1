from pathlib import Path

import numpy as np
import pytest
from chromatune.jobs.destinations import plan

from chromatune.errors import OptionsError
from chromatune.images import Photo

DEEP = Photo(np.zeros((2, 2), np.uint16), format="TIFF")
PLAIN = Photo(np.zeros((2, 2), np.uint8), format="JPEG")


def paths(photos: list[str], out: str | None = None, variants: int = 1) -> list[str]:
    return [str(job.expected_path) for job in plan(photos, out, variants)]


@pytest.mark.parametrize(
    ("photo", "expected"),
    [
        ("a.jpg", "a.color.jpg"),
        ("a.JPG", "a.color.JPG"),
        ("scans/a.b.tif", "scans/a.b.color.tif"),
        ("../a.png", "../a.color.png"),
        ("a.gif", "a.color.png"),
        ("a.xyz", "a.color.png"),
        ("a", "a.color.png"),
        (".hidden.png", ".hidden.color.png"),
        ("-x.png", "-x.color.png"),
    ],
)
def test_default_is_beside_the_photo(photo: str, expected: str) -> None:
    assert paths([photo]) == [expected]


def test_a_file_for_one_photo_and_an_image_suffix() -> None:
    assert paths(["a.jpg"], "new/x.TIFF") == ["new/x.TIFF"]


def test_a_folder_for_several_photos_or_another_suffix(folder: Path) -> None:
    assert paths(["p/a.jpg", "q/b.gif"], "out") == ["out/a.jpg", "out/b.png"]
    assert paths(["p/a.jpg"], "out") == ["out/a.jpg"]
    assert paths(["p/a.jpg"], "out.d") == ["out.d/a.jpg"]
    assert paths(["p/a.jpg", "b.jpg"], "out.png") == ["out.png/a.jpg", "out.png/b.jpg"]
    Path("album.png").mkdir()
    assert paths(["p/a.jpg"], "album.png") == ["album.png/a.jpg"]


def test_variants_are_numbered_from_one() -> None:
    assert paths(["a.jpg"], None, 2) == ["a.color-1.jpg", "a.color-2.jpg"]
    assert paths(["a.jpg"], "x.png", 2) == ["x-1.png", "x-2.png"]
    assert paths(["a.jpg", "b.jpg"], "out", 2) == ["out/a-1.jpg", "out/a-2.jpg", "out/b-1.jpg", "out/b-2.jpg"]
    assert [job.variant for job in plan(["a.jpg", "b.jpg"], "out", 2)] == [0, 1, 0, 1]


def test_what_a_photo_holds_decides_the_suffix_unless_a_file_was_named() -> None:
    (beside,) = plan(["a.jpg"], None, 1)
    (named,) = plan(["a.tif"], "x.jpg", 1)
    assert str(beside.path_for(DEEP)) == "a.color.png"
    assert str(beside.path_for(PLAIN)) == "a.color.jpg"
    assert str(named.path_for(DEEP)) == "x.jpg"


def test_standard_streams() -> None:
    (to_stdout,) = plan(["-"], None, 1)
    (from_file,) = plan(["a.jpg"], "-", 1)
    (to_folder,) = plan(["-"], "out", 1)
    (to_file,) = plan(["-"], "x.png", 1)
    assert to_stdout.path_for(PLAIN) is None
    assert from_file.path_for(PLAIN) is None
    assert str(to_folder.path_for(PLAIN)) == "out/stdin.jpg"
    assert str(to_folder.path_for(DEEP)) == "out/stdin.tif"
    assert to_folder.expected_path is None
    assert str(to_file.path_for(PLAIN)) == "x.png"


@pytest.mark.parametrize(
    ("photos", "out", "variants", "message"),
    [
        (["-", "a.jpg"], None, 1, "give it alone"),
        (["-", "-"], None, 1, "give it alone"),
        (["-"], None, 2, "takes one result"),
        (["a.jpg", "b.jpg"], "-", 1, "takes one result"),
        (["a.jpg"], "-", 2, "takes one result"),
        (["a.jpg"], "x.gif", 1, "cannot be written as .gif"),
        (["p/a.jpg", "q/a.jpg"], "out", 1, "p/a.jpg and q/a.jpg would both become out/a.jpg"),
        (["p/a.gif", "p/a.png"], None, 1, "would both become p/a.color.png"),
        (["a.jpg"], "", 1, "-o is empty"),
        (["a.jpg"], " ", 1, "-o is empty"),
        (["a.jpg"], "x.jp2", 1, "cannot be written as .jp2"),
    ],
)
def test_contradictions(photos: list[str], out: str | None, variants: int, message: str) -> None:
    with pytest.raises(OptionsError, match=message):
        plan(photos, out, variants)


def test_a_file_where_a_folder_is_wanted(folder: Path) -> None:
    Path("out").touch()
    Path("x.png").touch()
    with pytest.raises(OptionsError, match="out is a file"):
        plan(["a.jpg"], "out", 1)
    with pytest.raises(OptionsError, match="is a file"):
        plan(["a.jpg", "b.jpg"], "x.png", 1)


def test_collisions_are_found_through_links(folder: Path) -> None:
    Path("p").mkdir()
    Path("link").symlink_to("p")
    with pytest.raises(OptionsError, match="would both become"):
        plan(["p/a.jpg", "link/a.jpg"], None, 1)


def test_a_photo_given_twice_counts_once() -> None:
    assert paths(["a.jpg", "b.jpg", "a.jpg"]) == ["a.color.jpg", "b.color.jpg"]
    assert paths(["a.jpg", "./a.jpg", "x/../b.jpg", "b.jpg"]) == ["a.color.jpg", "x/../b.color.jpg"]


def test_each_page_has_a_name_of_its_own() -> None:
    jobs = plan(["a.tif", "b.tif"], None, 2, {"a.tif": (1, 2), "b.tif": (1,)})
    assert [(job.page, job.variant, job.stem) for job in jobs] == [
        (1, 0, "a.color-1-p1"), (1, 1, "a.color-2-p1"), (2, 0, "a.color-1-p2"), (2, 1, "a.color-2-p2"),
        (1, 0, "b.color-1"), (1, 1, "b.color-2"),
    ]  # fmt: skip

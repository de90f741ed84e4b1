"""Photos to files of their own: the files' names, events in the photos' order, one decoding each, no failure lost."""

from __future__ import annotations

import io
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from chromatune.colorizer import Colorizer
from chromatune.errors import OptionsError, PhotoError
from chromatune.files import prefetch
from chromatune.images import Photo, read_photo
from chromatune.jobs import photos as single_photos
from chromatune.jobs.engine import run_tasks
from chromatune.jobs.photos import DecodedPhoto, Done, Event, Exists, Failed, Writer, colorize_photos
from chromatune.jobs.planning import plan_jobs
from chromatune.options import ColorizeOptions

Put = Callable[..., Path]
DEEP = Photo(np.zeros((2, 2), np.uint16), format="TIFF")
PLAIN = Photo(np.zeros((2, 2), np.uint8), format="JPEG")


def events_of(photos: list[str], out: str | None = None, seeds: tuple[int, ...] = (0,), **more) -> list[Event]:
    options = [ColorizeOptions(seed=seed) for seed in seeds]
    return list(colorize_photos(plan_jobs(photos, out, len(seeds)), options, "mini", **more))


def in_short(events: list[Event]) -> list[str]:
    """The events in short: a path, or a photo that failed."""
    return [str(event.path) if isinstance(event, Done) else f"no {event.source}" for event in events]


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Photos as they are decoded."""
    names: list[str] = []

    def read(source, **more):
        names.append(str(source))
        return read_photo(source, **more)

    monkeypatch.setattr(single_photos, "read_photo", read)
    return names


def test_each_photo_is_decoded_once_whatever_the_number_of_results(engine, put: Put, decoded: list[str]) -> None:
    photos = [str(put(name)) for name in ("a.png", "b.png")]
    events = events_of(photos, seeds=(7, 8, 9), batch_size=2)
    assert decoded == photos
    assert in_short(events) == [f"{stem}.color-{number}.png" for stem in "ab" for number in (1, 2, 3)]


def test_results_are_those_of_each_photo_alone(engine, put: Put) -> None:
    photo = str(put("a.png"))
    for event, seed in zip(events_of([photo], seeds=(7, 8, 9)), (7, 8, 9), strict=True):
        assert isinstance(event, Done)
        alone = Colorizer(engine).colorize(photo, ColorizeOptions(seed=seed))
        np.testing.assert_array_equal(event.result.rgb, alone.rgb)
        np.testing.assert_array_equal(np.asarray(Image.open(str(event.path))), alone.rgb)
        assert (event.job.source, event.result.seed) == (photo, seed)


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_events_come_in_the_photos_order_after_what_names_alone_rule_out(engine, put: Put, batch_size: int) -> None:
    put("kept.color.png", level=33)
    Path("album").mkdir()
    photos = ["gone.png", str(put("a.png")), "lost.png", "album", str(put("kept.png")), str(put("b.png")), "none.png"]
    events = events_of(photos, batch_size=batch_size)
    by_name, rest = (
        ["no album", "no kept.png"],
        ["no gone.png", "a.color.png", "no lost.png", "b.color.png", "no none.png"],
    )
    assert in_short(events) == by_name + rest
    assert len(engine.loads) == 1


def test_a_failure_says_how_many_results_it_costs(engine, put: Put) -> None:
    put("a.color-2.png")
    events = events_of(["gone.png", str(put("a.png"))], seeds=(0, 1, 2))
    assert [(event.source, event.results) for event in events if isinstance(event, Failed)] == [("gone.png", 3)]
    assert [str(event.path) for event in events if isinstance(event, Exists)] == ["a.color-2.png"]
    assert in_short(events)[2:] == ["a.color-1.png", "a.color-3.png"]


def test_a_photo_whose_results_are_all_ruled_out_is_not_decoded(engine, put: Put, decoded: list[str]) -> None:
    put("a.color.png")
    assert in_short(events_of([str(put("a.png"))])) == ["no a.png"]
    assert decoded == []
    assert engine.loads == []


@pytest.mark.parametrize("workers", [1, 2])
def test_photos_are_read_ahead_but_only_a_few(engine, put: Put, monkeypatch, workers: int) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", str(workers))
    asked: list[Any] = []

    def counted(executor: Executor, function: Callable[..., Any], items: Iterable[Any], depth: int) -> Iterator[Any]:
        def counting() -> Iterator[Any]:
            for item in items:
                asked.append(item)
                yield item

        return prefetch(executor, function, counting(), depth)

    monkeypatch.setattr(single_photos, "prefetch", counted)
    photos = [str(put(f"{index}.png")) for index in range(20)]
    events = colorize_photos(plan_jobs(photos, None, 1), [ColorizeOptions()], "mini", batch_size=2)
    first = next(events)
    assert isinstance(first, Done) and Path("0.color.png").is_file()
    in_work = 2 * (workers + 2)  # batches that are done or on their way, and the one that waits
    assert len(asked) <= in_work + 3  # two are read ahead, one is in the reader's hands
    assert in_short([first, *events]) == [f"{index}.color.png" for index in range(20)]


def test_large_photos_are_not_in_work_together(engine, put: Put, monkeypatch) -> None:
    """The limit is in pixels, whatever the number of workers; a photo above it goes through alone."""
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    monkeypatch.setattr(single_photos, "run_tasks", partial(run_tasks, most_pixels=1))
    engine.batches = False
    turn, write = threading.Lock(), Writer.write

    def alone(self: Writer, photos: Sequence[DecodedPhoto]) -> list[Event]:
        assert turn.acquire(blocking=False), "two large photos at the same time"
        time.sleep(0.01)  # so that another may come, if it can
        turn.release()
        return write(self, photos)

    monkeypatch.setattr(Writer, "write", alone)
    assert in_short(events_of([str(put(f"{index}.png")) for index in range(6)])) == [f"{i}.color.png" for i in range(6)]


def test_workers_take_photos_at_the_same_time(engine, put: Put, monkeypatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    engine.batches = False
    both, write = threading.Barrier(2, timeout=60), Writer.write  # breaks where nobody else comes

    def meet(self: Writer, photos: Sequence[DecodedPhoto]) -> list[Event]:
        both.wait()
        return write(self, photos)

    monkeypatch.setattr(Writer, "write", meet)
    assert in_short(events_of([str(put(f"{index}.png")) for index in range(4)])) == [f"{i}.color.png" for i in range(4)]


def test_a_photo_whose_results_cannot_be_written_is_one_failure(engine, put: Put, monkeypatch) -> None:
    def refuse(path: Path, *samples: object, **more: bool) -> None:
        raise PhotoError(f"{path}: the disk is full")

    monkeypatch.setattr("chromatune.jobs.photos.write_photo", refuse)
    events = events_of([str(put("a.png")), str(put("b.png"))], seeds=(1, 2))
    assert [event.message for event in events if isinstance(event, Failed)] == [
        f"{stem}.color-1.png: the disk is full" for stem in "ab"
    ]


@pytest.mark.parametrize("failure", [RuntimeError("out of memory"), KeyboardInterrupt()])
def test_what_could_not_be_read_is_an_event_even_where_the_model_gives_up(engine, put: Put, failure) -> None:
    engine.failure = failure
    events = colorize_photos(plan_jobs([str(put("a.png")), "gone.png"], None, 1), [ColorizeOptions()], "mini")
    assert in_short([next(events)]) == ["no gone.png"]
    with pytest.raises(type(failure)):
        next(events)


def test_the_first_folder_is_made_before_the_model_is_loaded(engine, put: Put) -> None:
    Path("file").touch()
    with pytest.raises(PhotoError, match="file: cannot be made"):
        events_of([str(put("a.png"))], "file/x.png")
    assert engine.loads == []


def test_standard_input_to_standard_output(engine, put: Put) -> None:
    stream = io.BytesIO()
    data = put("a.png").read_bytes()
    (event,) = events_of(["-"], standard_input=data, standard_output=stream)
    assert isinstance(event, Done) and event.path is None
    np.testing.assert_array_equal(np.asarray(Image.open(stream)), event.result.rgb)


def test_importing_the_package_loads_no_torch() -> None:
    code = "import sys, chromatune.jobs; print({'torch', 'diffusers', 'chromatune.cli'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout == "set()\n"


def paths(photos: list[str], out: str | None = None, variants: int = 1) -> list[str]:
    return [str(job.expected_path) for job in plan_jobs(photos, out, variants)]


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
    assert [job.variant for job in plan_jobs(["a.jpg", "b.jpg"], "out", 2)] == [0, 1, 0, 1]


def test_what_a_photo_holds_decides_the_suffix_unless_a_file_was_named() -> None:
    (beside,) = plan_jobs(["a.jpg"], None, 1)
    (named,) = plan_jobs(["a.tif"], "x.jpg", 1)
    assert str(beside.path_for(DEEP)) == "a.color.png"
    assert str(beside.path_for(PLAIN)) == "a.color.jpg"
    assert str(named.path_for(DEEP)) == "x.jpg"


def test_standard_streams() -> None:
    (to_stdout,) = plan_jobs(["-"], None, 1)
    (from_file,) = plan_jobs(["a.jpg"], "-", 1)
    (to_folder,) = plan_jobs(["-"], "out", 1)
    (to_file,) = plan_jobs(["-"], "x.png", 1)
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
        plan_jobs(photos, out, variants)


def test_a_file_where_a_folder_is_wanted(folder: Path) -> None:
    Path("out").touch()
    Path("x.png").touch()
    with pytest.raises(OptionsError, match="out is a file"):
        plan_jobs(["a.jpg"], "out", 1)
    with pytest.raises(OptionsError, match="is a file"):
        plan_jobs(["a.jpg", "b.jpg"], "x.png", 1)


def test_collisions_are_found_through_links(folder: Path) -> None:
    Path("p").mkdir()
    Path("link").symlink_to("p")
    with pytest.raises(OptionsError, match="would both become"):
        plan_jobs(["p/a.jpg", "link/a.jpg"], None, 1)


def test_a_photo_given_twice_counts_once() -> None:
    assert paths(["a.jpg", "b.jpg", "a.jpg"]) == ["a.color.jpg", "b.color.jpg"]
    assert paths(["a.jpg", "./a.jpg", "x/../b.jpg", "b.jpg"]) == ["a.color.jpg", "x/../b.color.jpg"]


def test_each_page_has_a_name_of_its_own() -> None:
    jobs = plan_jobs(["a.tif", "b.tif"], None, 2, {"a.tif": (1, 2), "b.tif": (1,)})
    assert [(job.page, job.variant, job.stem) for job in jobs] == [
        (1, 0, "a.color-1-p1"), (1, 1, "a.color-2-p1"), (2, 0, "a.color-1-p2"), (2, 1, "a.color-2-p2"),
        (1, 0, "b.color-1"), (1, 1, "b.color-2"),
    ]  # fmt: skip


def test_a_link_in_a_folder_of_results_is_replaced_and_one_that_was_named_is_followed(engine, put: Put) -> None:
    put("a.png")
    outside = put("outside.png", level=9)
    before = outside.read_bytes()
    Path("out").mkdir()
    for out, link in (("out", Path("out/a.png")), (None, Path("a.color.png"))):
        link.symlink_to(outside.resolve())
        jobs = plan_jobs(["a.png"], out, 1)
        events = list(colorize_photos(jobs, [ColorizeOptions()], "mini", overwrite=True))
        assert [type(event) for event in events] == [Done]
        assert not link.is_symlink()
        assert outside.read_bytes() == before
    Path("named.png").symlink_to(outside.resolve())
    list(colorize_photos(plan_jobs(["a.png"], "named.png", 1), [ColorizeOptions()], "mini", overwrite=True))
    assert Path("named.png").is_symlink()
    assert outside.read_bytes() != before

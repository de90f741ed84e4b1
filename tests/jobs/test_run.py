"""The run of a batch: events in the photos' order, each photo decoded once, and no failure lost."""

from __future__ import annotations

import io
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from chromatune.jobs.pipeline import Maker
from PIL import Image

from chromatune.colorizer import Colorizer
from chromatune.errors import PhotoError
from chromatune.images import read_photo
from chromatune.jobs import Done, Event, Exists, Failed, plan, run, run_jobs
from chromatune.options import ColorizeOptions

Put = Callable[..., Path]


def events_of(photos: list[str], out: str | None = None, seeds: tuple[int, ...] = (0,), **more) -> list[Event]:
    options = [ColorizeOptions(seed=seed) for seed in seeds]
    return list(run_jobs(plan(photos, out, len(seeds)), options, "mini", **more))


def told(events: list[Event]) -> list[str]:
    """The events in short: a path, or a photo that failed."""
    return [str(event.path) if isinstance(event, Done) else f"no {event.source}" for event in events]


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Photos as they are decoded."""
    names: list[str] = []

    def read(source, **more):
        names.append(str(source))
        return read_photo(source, **more)

    monkeypatch.setattr(run, "read_photo", read)
    return names


def test_each_photo_is_decoded_once_whatever_the_number_of_results(engine, put: Put, decoded: list[str]) -> None:
    photos = [str(put(name)) for name in ("a.png", "b.png")]
    events = events_of(photos, seeds=(7, 8, 9), batch_size=2)
    assert decoded == photos
    assert told(events) == [f"{stem}.color-{number}.png" for stem in "ab" for number in (1, 2, 3)]


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
    assert told(events) == by_name + rest
    assert len(engine.loads) == 1


def test_a_failure_says_how_many_results_it_costs(engine, put: Put) -> None:
    put("a.color-2.png")
    events = events_of(["gone.png", str(put("a.png"))], seeds=(0, 1, 2))
    assert [(event.source, event.results) for event in events if isinstance(event, Failed)] == [("gone.png", 3)]
    assert [str(event.path) for event in events if isinstance(event, Exists)] == ["a.color-2.png"]
    assert told(events)[2:] == ["a.color-1.png", "a.color-3.png"]


def test_a_photo_whose_results_are_all_ruled_out_is_not_decoded(engine, put: Put, decoded: list[str]) -> None:
    put("a.color.png")
    assert told(events_of([str(put("a.png"))])) == ["no a.png"]
    assert decoded == []
    assert engine.loads == []


@pytest.mark.parametrize("workers", [1, 2])
def test_photos_are_read_ahead_but_only_a_few(engine, put: Put, decoded: list[str], monkeypatch, workers: int) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", str(workers))
    photos = [str(put(f"{index}.png")) for index in range(20)]
    events = run_jobs(plan(photos, None, 1), [ColorizeOptions()], "mini", batch_size=2)
    first = next(events)
    assert isinstance(first, Done) and Path("0.color.png").is_file()
    time.sleep(0.3)  # the reader would have read them all by now
    in_work = 2 * (workers + 2)  # windows that are done or on their way, and the one that is told
    assert len(decoded) <= in_work + 3  # one waits, one is in the reader's hands
    assert told([first, *events]) == [f"{index}.color.png" for index in range(20)]


def test_large_photos_are_not_in_work_together(engine, put: Put, monkeypatch) -> None:
    """The limit is in pixels, whatever the number of workers; a photo above it goes through alone."""
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    monkeypatch.setattr("chromatune.jobs.pipeline.MOST_PIXELS", 1)
    engine.batches = False
    turn, make = threading.Lock(), Maker.make

    def alone(self, window):
        assert turn.acquire(blocking=False), "two large photos at the same time"
        time.sleep(0.05)
        turn.release()
        return make(self, window)

    monkeypatch.setattr(Maker, "make", alone)
    assert told(events_of([str(put(f"{index}.png")) for index in range(6)])) == [f"{i}.color.png" for i in range(6)]


def test_workers_take_photos_at_the_same_time(engine, put: Put, monkeypatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    engine.batches = False
    both, make = threading.Barrier(2, timeout=20), Maker.make  # breaks where one waits for the other

    def meet(self, window):
        both.wait()
        return make(self, window)

    monkeypatch.setattr(Maker, "make", meet)
    assert told(events_of([str(put(f"{index}.png")) for index in range(4)])) == [f"{i}.color.png" for i in range(4)]


@pytest.mark.parametrize("failure", [RuntimeError("out of memory"), KeyboardInterrupt()])
def test_what_could_not_be_read_is_told_even_where_the_model_gives_up(engine, put: Put, failure) -> None:
    engine.failure = failure
    events = run_jobs(plan([str(put("a.png")), "gone.png"], None, 1), [ColorizeOptions()], "mini")
    assert told([next(events)]) == ["no gone.png"]
    with pytest.raises(type(failure)):
        next(events)


def test_the_first_folder_is_made_before_the_model_is_loaded(engine, put: Put) -> None:
    Path("file").touch()
    with pytest.raises(PhotoError, match="file: cannot be made"):
        events_of([str(put("a.png"))], "file/x.png")
    assert engine.loads == []


def test_standard_streams(engine, put: Put) -> None:
    stream = io.BytesIO()
    data = put("a.png").read_bytes()
    (event,) = events_of(["-"], standard_input=data, standard_output=stream)
    assert isinstance(event, Done) and event.path is None
    np.testing.assert_array_equal(np.asarray(Image.open(stream)), event.result.rgb)


def test_importing_the_batch_loads_no_torch() -> None:
    code = "import sys, chromatune.jobs; print({'torch', 'diffusers', 'chromatune.cli'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout == "set()\n"

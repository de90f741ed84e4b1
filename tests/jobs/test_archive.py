"""An archive through the local engine: what is done, done again and left, with a model pass without a model."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from chromatune.jobs.local_engine import LocalEngine, SharedRoom
from chromatune.jobs.watch import arrivals
from PIL import Image

from chromatune.errors import DataError, OptionsError
from chromatune.jobs import archive as archives
from chromatune.jobs.archive import Archive, HaltedError, Reason, hold_destination, settings_key
from chromatune.jobs.archive_worker import ArchiveRecord, ArchiveWorker, WorkSettings
from chromatune.jobs.stores import LocalFolder, check_folders
from chromatune.options import ColorizeOptions

Put = Callable[..., Path]
SOURCE, OUT = LocalFolder("photos"), LocalFolder("out")


def run(settings: WorkSettings | None = None, layers: str | None = None, globs: tuple[str, ...] = (), **more):
    """Records by photo, and reasons by photo, of a run."""
    settings = settings or WorkSettings()
    of_layers = None if layers is None else LocalFolder(layers)
    with hold_destination(OUT, SOURCE, **more) as manifest:
        archive = Archive(settings, SOURCE, OUT, manifest, OUT.path, of_layers, globs)
        planned = archive.plan(archive.find())
        engine = LocalEngine(
            lambda count, room: ArchiveWorker(settings, SOURCE, OUT, of_layers, workers=count, room=room), 2
        )
        records = {record.photo: record for record in archive.run(planned, engine)}
        archive.commit()
        archive.write_failures()
    return records, {each.job.photo: each.reason for each in planned}


def states(records: dict[str, ArchiveRecord]) -> dict[str, str]:
    return {photo: record.state for photo, record in sorted(records.items())}


def blue(path: str) -> int:
    """How much bluer than red a result is: the seed that it was made with, times four."""
    red, _, blueness = np.asarray(Image.open(path).convert("RGB"))[0, 0].astype(int)
    return int(blueness - red)


def test_folders_and_names_are_kept(engine, put: Put, tree) -> None:
    for name in ("a.png", "deep/er/a.tif", "a.jpg", "deep/line\nbreak.png", f"{'ä' * 123}.png"):
        put(f"photos/{name}")
    records, _ = run()
    assert set(states(records).values()) == {"done"}
    assert sorted(tree("out")) == sorted(
        ["a.png", "deep/er/a.tif", "a.jpg", "deep/line\nbreak.png", f"{'ä' * 123}.png"]
    )


def test_equal_stems_stay_apart_where_a_format_cannot_hold_the_result(engine, put: Put, tree) -> None:
    put("photos/a.gif")
    put("photos/a.png")
    put("photos/a.webp", mode="LA")
    put("photos/a.gif.png", level=7)
    run()
    assert sorted(tree("out")) == ["a.gif.png", "a.gif~2.png", "a.png", "a.webp"]
    assert np.asarray(Image.open("out/a.gif.png"))[0, 0, 1] == 7


def test_a_second_run_does_nothing(engine, put: Put, tree) -> None:
    put("photos/a.png")
    put("photos/b.png")
    run()
    before = {path: path.stat().st_mtime_ns for path in Path("out").glob("*.png")}
    assert run() == ({}, {})
    assert {path: path.stat().st_mtime_ns for path in Path("out").glob("*.png")} == before


def test_what_changed_is_done_again_and_nothing_else(engine, put: Put) -> None:
    for name in "abcd":
        put(f"photos/{name}.png")
    run()
    put("photos/a.png", level=50)
    os.utime("photos/b.png", ns=(1, 1))
    Path("out/c.png").unlink()
    records, reasons = run()
    assert states(records) == {"a.png": "done", "b.png": "kept", "c.png": "done"}
    assert reasons == {"a.png": Reason.CHANGED, "b.png": Reason.CHANGED, "c.png": Reason.MISSING}
    assert run() == ({}, {})


def test_a_changed_option_does_all_again_and_back_again(engine, put: Put) -> None:
    put("photos/a.png")
    run()
    for seed in (3, 0):
        _, reasons = run(WorkSettings(options=ColorizeOptions(seed=seed)))
        assert reasons == {"a.png": Reason.SETTINGS}
        assert blue("out/a.png") == 4 * seed


def test_the_models_own_value_of_an_option_is_the_option(engine) -> None:
    steps = archives.model_info("mini").steps
    named = WorkSettings(options=ColorizeOptions(guidance_scale=archives.model_info("mini").guidance_scale))
    assert settings_key(named) == settings_key(WorkSettings())
    assert settings_key(WorkSettings(options=ColorizeOptions(steps=steps + 1))) != settings_key(WorkSettings())
    assert settings_key(WorkSettings("mini-base")) != settings_key(WorkSettings())


def test_another_version_of_the_pixels_does_all_again(engine, put: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    put("photos/a.png")
    run()
    monkeypatch.setattr(archives, "PIXELS", archives.PIXELS + 1)
    assert run()[1] == {"a.png": Reason.SETTINGS}


def test_a_bad_photo_is_a_line_and_is_tried_again(engine, put: Put, tree) -> None:
    put("photos/a.png")
    Path("photos/bad.png").write_bytes(b"none")
    Path("photos/empty.png").touch()
    records, _ = run()
    assert states(records) == {"a.png": "done", "bad.png": "failed", "empty.png": "failed"}
    lines = [json.loads(line) for line in Path("out/failures.jsonl").read_text().splitlines()]
    assert [line["photo"] for line in lines] == ["bad.png", "empty.png"]
    assert all(line["message"].startswith(f"photos/{line['photo']}: ") for line in lines)
    put("photos/bad.png")
    Path("photos/empty.png").unlink()
    assert run()[1] == {"bad.png": Reason.FAILED}
    assert sorted(tree("out")) == ["a.png", "bad.png"]


def test_a_result_stays_while_its_photo_cannot_be_read(engine, put: Put) -> None:
    put("photos/a.png")
    run()
    made = Path("out/a.png").read_bytes()
    Path("photos/a.png").write_bytes(b"broken")
    assert states(run()[0]) == {"a.png": "failed"}
    assert Path("out/a.png").read_bytes() == made


def test_a_photo_that_becomes_of_another_kind_has_one_result(engine, put: Put, tree) -> None:
    put("photos/a.bmp")
    run()
    assert sorted(tree("out")) == ["a.bmp"]
    Path("photos/a.bmp").write_bytes(put("deep.png", mode="I;16").read_bytes())
    run()
    assert sorted(tree("out")) == ["a.bmp.png"]


def test_a_result_without_a_row_is_made_again(engine, put: Put, tree) -> None:
    """As after a kill between the file and its row."""
    put("photos/a.png")
    run()
    before = tree("out")
    Path("out/.chromatune/manifest.sqlite").unlink()
    Path("out/a.png").write_bytes(b"half of another run")
    assert run()[1] == {"a.png": Reason.NEW}
    assert tree("out") == before


def test_layers_are_found_in_the_same_folders_and_count(engine, put: Put) -> None:
    put("photos/p/a.png")
    put("photos/b.png")
    Path("layers/p").mkdir(parents=True)
    Image.new("RGBA", (8, 6), (200, 30, 30, 255)).save("layers/p/a.png")
    run(layers="layers")
    assert blue("out/p/a.png") < -50
    assert blue("out/b.png") == 0
    assert run(layers="layers") == ({}, {})
    Image.new("RGBA", (8, 6), (30, 30, 200, 255)).save("layers/p/a.png")
    assert run(layers="layers")[1] == {"p/a.png": Reason.CHANGED}
    assert blue("out/p/a.png") > 50
    Image.new("RGBA", (8, 6), (30, 30, 200, 255)).save("layers/p/a.tif")
    records, _ = run(layers="layers")
    assert states(records) == {"p/a.png": "failed"}
    assert "keep one" in records["p/a.png"].message


def test_patterns_choose(engine, put: Put) -> None:
    for name in ("a.PNG", "1920/b.png", "1930/c.png", "1930/d.tif"):
        put(f"photos/{name}")
    assert set(run(globs=("*.tif",))[0]) == {"1930/d.tif"}
    assert set(run(globs=("1920/*", "a.*"))[0]) == {"1920/b.png", "a.PNG"}


def test_the_destination_among_the_photos_is_none_of_them(engine, put: Put) -> None:
    put("photos/a.png")
    put("photos/b.color.png")
    put("photos/b.png")
    inside = LocalFolder("photos/out")
    for _ in range(2):
        with hold_destination(inside, SOURCE) as manifest:
            archive = Archive(WorkSettings(), SOURCE, inside, manifest, inside.path)
            planned = archive.plan(archive.find())
            engine_here = LocalEngine(
                lambda count, room: ArchiveWorker(WorkSettings(), SOURCE, inside, workers=count, room=room), 1
            )
            done = sorted(record.photo for record in archive.run(planned, engine_here))
            archive.commit()
        assert done in (["a.png", "b.png"], [])
        assert sorted(archive.listed) == ["a.png", "b.png"]
        assert archive.own_results == 1


@pytest.mark.parametrize(
    ("source", "destination", "said"),
    [
        ("none", "out", "no such folder"),
        ("file", "out", "give the folder"),
        ("photos", "photos/../photos", "may not replace"),
        ("photos/in", "photos", "among the photos"),
    ],
)
def test_folders_that_would_mix_are_refused(folder: Path, source: str, destination: str, said: str) -> None:
    Path("photos/in").mkdir(parents=True)
    Path("file").touch()
    with pytest.raises(OptionsError, match=said):
        check_folders(LocalFolder(source), LocalFolder(destination))


def test_other_work_in_the_destination_is_not_touched(engine, put: Put) -> None:
    put("photos/a.png")
    mine = put("out/a.png", level=3)
    before = mine.read_bytes()
    with pytest.raises(OptionsError, match="holds files of other work"):
        run()
    assert mine.read_bytes() == before


def test_a_destination_is_of_one_source_unless_that_moved(engine, put: Put) -> None:
    put("photos/a.png")
    run()
    Path("photos").rename("elsewhere")
    moved = LocalFolder("elsewhere")
    with pytest.raises(OptionsError, match=r"source=.*give another DEST"), hold_destination(OUT, moved):
        pass
    with hold_destination(OUT, moved, moved=True) as manifest:
        archive = Archive(WorkSettings(), moved, OUT, manifest, OUT.path)
        assert archive.plan(archive.find()) == []


def test_a_second_run_at_the_same_time_is_refused(engine, put: Put) -> None:
    put("photos/a.png")
    with hold_destination(OUT, SOURCE), pytest.raises(OptionsError, match="in use"):
        run()


def test_a_damaged_manifest_is_one_line(engine, put: Put) -> None:
    put("photos/a.png")
    run()
    Path("out/.chromatune/manifest.sqlite").write_bytes(b"nonsense" * 1000)
    with pytest.raises(DataError, match="delete it"):
        run()


def test_a_destination_that_is_taken_away_halts_and_is_not_made_again(engine, put: Put, monkeypatch) -> None:
    for name in "abcdefgh":
        put(f"photos/{name}.png")
    write = LocalFolder.write

    def take_away(self: LocalFolder, key: str, data: bytes) -> None:
        if key == "h.png":
            os.rename("out", "away")
        write(self, key, data)

    monkeypatch.setattr(LocalFolder, "write", take_away)
    with pytest.raises((HaltedError, DataError)):
        run()
    assert not Path("out/h.png").exists()
    monkeypatch.setattr(LocalFolder, "write", write)
    assert Path("away/a.png").exists()
    os.rename("away", "out")
    run()
    assert run() == ({}, {})


def test_a_source_that_is_taken_away_halts(engine, put: Put, monkeypatch) -> None:
    put("photos/a.png")
    opened = LocalFolder.open

    def take_away(self: LocalFolder, key: str):
        if key == "a.png":
            os.rename("photos", "away")
        return opened(self, key)

    monkeypatch.setattr(LocalFolder, "open", take_away)
    with pytest.raises(HaltedError, match="photos is gone"):
        run()


def test_photos_that_vanish_or_change_meanwhile_are_a_line_each(engine, put: Put, monkeypatch) -> None:
    for name in ("gone.png", "growing.png", "still.png"):
        put(f"photos/{name}")
    opened = LocalFolder.open

    def change(self: LocalFolder, key: str):
        if key == "gone.png":
            Path("photos/gone.png").unlink()
        file = opened(self, key)
        if key == "growing.png":
            put("photos/growing.png", level=1).write_bytes(b"more")
        return file

    monkeypatch.setattr(LocalFolder, "open", change)
    records, _ = run()
    assert states(records) == {"gone.png": "failed", "growing.png": "failed", "still.png": "done"}
    assert "moved or deleted" in records["gone.png"].message
    assert "changed while it was read" in records["growing.png"].message


def test_a_large_photo_is_alone_in_memory() -> None:
    room, at_once, largest = SharedRoom(8, most_pixels=10), [0], [0]
    lock = threading.Lock()

    def take(pixels: int) -> None:
        with room.for_photo(pixels):
            with lock:
                at_once[0] += pixels
                largest[0] = max(largest[0], at_once[0])
                assert pixels <= 10 or at_once[0] == pixels
            time.sleep(0.002)
            with lock:
                at_once[0] -= pixels

    threads = [threading.Thread(target=take, args=(pixels,)) for pixels in (4, 4, 50, 3, 6, 50, 1, 9) * 3]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert at_once == [0]
    assert largest == [50]


def test_ctrl_c_tells_what_is_in_work_and_begins_nothing(engine, put: Put) -> None:
    for index in range(20):
        put(f"photos/{index:02}.png")
    engine_here = LocalEngine(
        lambda count, room: ArchiveWorker(WorkSettings(), SOURCE, OUT, workers=count, room=room), 1
    )
    begun: list[str] = []
    with hold_destination(OUT, SOURCE) as manifest:
        archive = Archive(WorkSettings(), SOURCE, OUT, manifest, OUT.path)
        planned = archive.plan(archive.find())

        def jobs() -> Iterator:
            for each in planned:
                if len(begun) == 6:
                    raise KeyboardInterrupt
                begun.append(each.job.photo)
                yield each.job

        told: list[str] = []
        with pytest.raises(KeyboardInterrupt):  # noqa: PT012 - what it tells before is the point
            for record in engine_here.records(jobs()):
                told.append(record.photo)
    results = {path.name for path in Path("out").glob("*.png")}
    assert results == set(told)
    assert 0 < len(told) <= 6


def test_what_arrives_is_taken_once_it_has_settled(engine, put: Put) -> None:
    put("photos/a.png")
    with hold_destination(OUT, SOURCE) as manifest:
        archive = Archive(WorkSettings(), SOURCE, OUT, manifest, OUT.path)
        pauses: list[float] = []
        coming = arrivals(archive.find, pauses.append)
        assert next(coming) == {}
        assert list(next(coming)) == ["a.png"]
        partial = put("photos/b.png")
        whole = partial.read_bytes()
        partial.write_bytes(whole[:20])
        assert next(coming) == {}
        partial.write_bytes(whole)
        assert next(coming) == {}
        assert list(next(coming)) == ["b.png"]
        assert next(coming) == {}
        assert min(pauses) >= 2

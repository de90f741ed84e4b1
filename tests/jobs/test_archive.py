"""An archive through the local engine: what is done, done again and left, by a backend without a model."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
import skimage.data
from PIL import Image

from chromatune.errors import DataError, OptionsError, WorkInterrupted
from chromatune.jobs import catalog as catalogs
from chromatune.jobs.archive import arrivals, colorize_archive, lock_destination, plan_archive
from chromatune.jobs.archive_worker import ArchiveRecord, ArchiveSettings, ArchiveWorker, Colored, LocalEngine
from chromatune.jobs.catalog import Catalog, HaltedError, PlannedPhoto, Reason, settings_key
from chromatune.jobs.stores import LocalFolder, check_stores
from chromatune.options import ColorizeOptions
from chromatune.pipeline import model_info

Put = Callable[..., Path]
SOURCE, OUT = LocalFolder("photos"), LocalFolder("out")
SETTINGS = ArchiveSettings(SOURCE, OUT)
Records = dict[str, ArchiveRecord]


def run(
    settings: ArchiveSettings = SETTINGS, globs: tuple[str, ...] = (), moved: bool = False
) -> tuple[Records, dict[str, Reason]]:
    """Records by photo, and reasons by photo, of a run."""
    records: Records = {}
    assert isinstance(settings.destination, LocalFolder)
    with lock_destination(settings.destination, settings.source, moved=moved) as manifest:
        catalog = Catalog(settings, manifest, settings.destination.path, globs)
        planned = catalog.plan(catalog.find())
        engine = LocalEngine(partial(ArchiveWorker, settings), 2)
        catalog.colorize(planned, engine, lambda record: records.update({record.photo: record}))
        catalog.commit()
        catalog.write_failures()
    return records, {each.job.photo: each.reason for each in planned}


def with_options(**options: int) -> ArchiveSettings:
    return ArchiveSettings(SOURCE, OUT, options=ColorizeOptions(**options))


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


LAST_VERSION = """
CREATE TABLE photos (photo BLOB PRIMARY KEY, state TEXT NOT NULL, stamp TEXT NOT NULL, content TEXT NOT NULL,
    settings TEXT NOT NULL, result BLOB NOT NULL, result_bytes INTEGER NOT NULL, pixels INTEGER NOT NULL,
    message TEXT NOT NULL, warnings TEXT NOT NULL, finished_at TEXT NOT NULL);
PRAGMA user_version = 1;
"""
KEY_OF_MINI = "99901e515e9e83236a5f0b74531c1b01"  # of default options; other weights or settings of `mini` have another


def test_an_archive_of_the_last_version_goes_on_without_coloring_anything_again(engine, put: Put) -> None:
    """Its files are written here as that version wrote them, each value by hand."""
    names = ("a.png", "touched.png")
    for name in names:
        put(f"photos/{name}")
        put(f"out/{name}")
    digest = hashlib.sha256(Path("photos/touched.png").read_bytes()).hexdigest()[:32]
    Path("out/.chromatune").mkdir()
    Path("out/.chromatune/archive.json").write_text(json.dumps({"source": str(Path("photos").resolve())}))
    table = sqlite3.connect("out/.chromatune/manifest.sqlite")
    table.executescript(LAST_VERSION)
    for name in names:
        found, size = Path("photos", name).stat(), Path("out", name).stat().st_size
        stamp = f"{found.st_size}:{found.st_mtime_ns}"
        values = (name.encode(), "done", stamp, digest, KEY_OF_MINI, name.encode(), size, 48, "", "[]", "2026-01-01")
        table.execute("INSERT INTO photos VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", values)
    table.commit()
    table.close()
    os.utime("photos/touched.png", ns=(1, 1))
    records, reasons = run()
    assert states(records) == {"touched.png": "unchanged"}
    assert reasons == {"touched.png": Reason.CHANGED}
    assert engine.calls == []
    assert run() == ({}, {})


def test_what_changed_is_done_again_and_nothing_else(engine, put: Put) -> None:
    for name in "abcd":
        put(f"photos/{name}.png")
    run()
    put("photos/a.png", level=50)
    os.utime("photos/b.png", ns=(1, 1))
    Path("out/c.png").unlink()
    records, reasons = run()
    assert states(records) == {"a.png": "done", "b.png": "unchanged", "c.png": "done"}
    assert reasons == {"a.png": Reason.CHANGED, "b.png": Reason.CHANGED, "c.png": Reason.MISSING}
    assert run() == ({}, {})


def test_a_changed_option_does_all_again_and_back_again(engine, put: Put) -> None:
    put("photos/a.png")
    run()
    for seed in (3, 0):
        _, reasons = run(with_options(seed=seed))
        assert reasons == {"a.png": Reason.SETTINGS}
        assert blue("out/a.png") == 4 * seed


def test_the_models_own_value_of_an_option_is_the_option(engine) -> None:
    info = model_info("mini")
    named = ArchiveSettings(SOURCE, OUT, options=ColorizeOptions(guidance_scale=info.guidance_scale))
    assert settings_key(named) == settings_key(SETTINGS)
    assert settings_key(with_options(steps=info.steps + 1)) != settings_key(SETTINGS)
    assert settings_key(ArchiveSettings(SOURCE, OUT, model="mini-base")) != settings_key(SETTINGS)
    for prompt in ("natural colors", "a red dress"):  # what the model gets counts, not how it was said
        said = ArchiveSettings(SOURCE, OUT, options=ColorizeOptions(prompt=prompt))
        assert settings_key(said) == settings_key(SETTINGS)


def test_another_version_of_the_pixels_does_all_again(engine, put: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    put("photos/a.png")
    run()
    monkeypatch.setattr(catalogs, "PIXELS_VERSION", catalogs.PIXELS_VERSION + 1)
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
    painted = ArchiveSettings(SOURCE, OUT, LocalFolder("layers"))
    Image.new("RGBA", (8, 6), (200, 30, 30, 255)).save("layers/p/a.png")
    run(painted)
    assert blue("out/p/a.png") < -50
    assert blue("out/b.png") == 0
    assert run(painted) == ({}, {})
    Image.new("RGBA", (8, 6), (30, 30, 200, 255)).save("layers/p/a.png")
    assert run(painted)[1] == {"p/a.png": Reason.CHANGED}
    assert blue("out/p/a.png") > 50
    Image.new("RGBA", (8, 6), (30, 30, 200, 255)).save("layers/p/a.tif")
    records, _ = run(painted)
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
    inside = ArchiveSettings(SOURCE, LocalFolder("photos/out"))
    assert sorted(run(inside)[0]) == ["a.png", "b.png"]
    assert run(inside) == ({}, {})


@pytest.mark.parametrize(
    ("source", "destination", "said"),
    [
        ("none", "out", "no such folder"),
        ("file", "out", "give the folder"),
        ("photos", "photos/../photos", "may not replace"),
        ("photos/in", "photos", "mixed with the photos"),
    ],
)
def test_folders_that_would_mix_are_refused(folder: Path, source: str, destination: str, said: str) -> None:
    Path("photos/in").mkdir(parents=True)
    Path("file").touch()
    with pytest.raises(OptionsError, match=said):
        check_stores(LocalFolder(source), LocalFolder(destination))


def test_other_work_in_the_destination_is_not_touched(engine, put: Put) -> None:
    put("photos/a.png")
    mine = put("out/a.png", level=3)
    before = mine.read_bytes()
    with pytest.raises(OptionsError, match="out is not empty and was not made by chromatune batch"):
        run()
    assert mine.read_bytes() == before


def test_a_destination_is_of_one_source_unless_that_moved(engine, put: Put) -> None:
    put("photos/a.png")
    run()
    Path("photos").rename("elsewhere")
    moved = LocalFolder("elsewhere")
    with pytest.raises(OptionsError, match=r"source=.*give another DEST"), lock_destination(OUT, moved):
        pass
    assert run(ArchiveSettings(moved, OUT), moved=True) == ({}, {})


def test_a_second_run_at_the_same_time_is_refused(engine, put: Put) -> None:
    put("photos/a.png")
    with lock_destination(OUT, SOURCE), pytest.raises(OptionsError, match="in use"):
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

    def take_away(self: LocalFolder, key: str, data: bytes, modified_ns: int | None) -> None:
        if key == "h.png":
            os.rename("out", "away")
        write(self, key, data, modified_ns)

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

    def take_away(self: LocalFolder, key: str) -> BinaryIO:
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

    def change(self: LocalFolder, key: str) -> BinaryIO:
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
    assert "changed while it was being read" in records["growing.png"].message


def test_what_arrives_is_taken_once_it_has_settled(engine, put: Put) -> None:
    put("photos/a.png")
    with lock_destination(OUT, SOURCE) as manifest:
        catalog = Catalog(SETTINGS, manifest, OUT.path)
        pauses: list[float] = []
        coming = arrivals(catalog.find, pauses.append)
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


def test_from_python_it_reports_and_plans(engine, put: Put) -> None:
    put("photos/a.png")
    Path("photos/bad.png").write_bytes(b"none")
    planned, done = plan_archive(SETTINGS)
    assert ([(each.job.photo, each.reason) for each in planned], done) == (
        [("a.png", Reason.NEW), ("bad.png", Reason.NEW)],
        0,
    )
    assert not Path("out").exists()
    report = colorize_archive(SETTINGS, globs=["*.png"], workers=1)
    assert (report.photos, report.done, report.failed) == (2, 1, 1)
    assert report.failures_file.is_file() and report.summary == Path("out/summary.html")
    planned, done = plan_archive(SETTINGS)
    assert ([(each.job.photo, each.reason) for each in planned], done) == ([("bad.png", Reason.FAILED)], 1)


class Stopping:
    """An `ArchiveProgress` that ends the run at the first outcome, as Ctrl-C does whatever the process is at."""

    def listed(self, catalog: Catalog) -> None:
        pass

    def planned(self, planned: Sequence[PlannedPhoto]) -> None:
        pass

    def watching(self, catalog: Catalog) -> None:
        pass

    @contextmanager
    def colorizing(self, photos: int, done: int) -> Iterator[Callable[[ArchiveRecord], None]]:
        def show(record: ArchiveRecord) -> None:
            raise KeyboardInterrupt

        yield show


def test_after_ctrl_c_each_result_has_its_row(engine, put: Put, tree) -> None:
    for index in range(20):
        put(f"photos/{index:02}.png")
    with pytest.raises(WorkInterrupted, match="of 20 photos done; run the same command to resume"):
        colorize_archive(SETTINGS, workers=1, progress=Stopping())
    made = set(tree("out"))
    assert 0 < len(made) < 20
    records, reasons = run()
    assert set(reasons.values()) == {Reason.NEW}
    assert made.isdisjoint(records) and made | set(records) == set(tree("out"))


@pytest.fixture
def mixed(put: Put) -> None:
    """A gray photo, a toned one, a gray one with a red field, and two in color."""
    put("photos/gray.png")
    color = skimage.data.coffee()[::4, ::4]
    gray = np.repeat(skimage.data.camera()[::4, ::4, None], 3, axis=2)
    stamped = gray.copy()
    stamped[20:40, 20:50] = 190, 30, 45
    for name, rgb in (
        ("sepia.jpg", gray * [1.0, 0.9, 0.7]), ("stamp.png", stamped), ("p/color.jpg", color), ("color.gif", color),
    ):  # fmt: skip
        Path(f"photos/{name}").parent.mkdir(exist_ok=True)
        Image.fromarray(rgb.astype(np.uint8)).save(f"photos/{name}")


def colored(choice: Colored) -> ArchiveSettings:
    return ArchiveSettings(SOURCE, OUT, colored=choice)


def test_photos_in_color_are_skipped_and_not_read_again(engine, mixed, tree) -> None:
    records, _ = run()
    assert states(records) == {
        "color.gif": "skipped", "gray.png": "done", "p/color.jpg": "skipped", "sepia.jpg": "done", "stamp.png": "done",
    }  # fmt: skip
    assert sorted(tree("out")) == ["gray.png", "sepia.jpg", "stamp.png"]
    assert run() == ({}, {})
    os.utime("photos/color.gif", (1, 1))
    assert states(run()[0]) == {"color.gif": "unchanged"}
    assert run() == ({}, {})
    assert run(with_options(seed=3))[1].keys() == {"gray.png", "sepia.jpg", "stamp.png"}


def test_photos_in_color_are_copied_or_colorized_where_that_is_wanted(engine, mixed, tree) -> None:
    run()
    records, reasons = run(colored("copy"))
    assert states(records) == {"color.gif": "copied", "p/color.jpg": "copied"}
    assert set(reasons.values()) == {Reason.SETTINGS}
    assert Path("out/p/color.jpg").read_bytes() == Path("photos/p/color.jpg").read_bytes()
    with Image.open("out/color.gif.png") as copied, Image.open("photos/color.gif") as own:
        np.testing.assert_array_equal(np.asarray(copied.convert("RGB")), np.asarray(own.convert("RGB")))
    assert run(colored("copy")) == ({}, {})
    Path("out/p/color.jpg").unlink()
    assert run(colored("copy"))[1] == {"p/color.jpg": Reason.MISSING}
    records, _ = run(colored("recolor"))
    assert states(records) == {"color.gif": "done", "p/color.jpg": "done"}
    assert Path("out/p/color.jpg").read_bytes() != Path("photos/p/color.jpg").read_bytes()
    before = tree("out")
    assert run() == ({}, {})  # what was colorized stays
    assert states(run(with_options(seed=3))[0])["p/color.jpg"] == "skipped"
    assert tree("out")["p/color.jpg"] == before["p/color.jpg"]


def test_a_result_goes_where_its_photo_becomes_one_in_color(engine, mixed, tree) -> None:
    run()
    Path("photos/p/color.jpg").replace("photos/sepia.jpg")
    assert states(run()[0]) == {"sepia.jpg": "skipped"}
    assert "sepia.jpg" not in tree("out")


def test_a_photo_with_a_layer_is_colorized_whatever_its_colors(engine, mixed) -> None:
    layer = np.zeros((100, 150, 4), np.uint8)
    layer[40:60, 40:60] = 200, 30, 30, 255
    Path("layers/p").mkdir(parents=True)
    Image.fromarray(layer).save("layers/p/color.png")
    records, _ = run(ArchiveSettings(SOURCE, OUT, layers=LocalFolder("layers")))
    assert states(records)["p/color.jpg"] == "done"


def test_pictures_without_a_suffix_are_colorized_and_those_with_another_kind_are_named(engine, put: Put, tree) -> None:
    photo = put("photos/a.jpg").read_bytes()
    for name in ("x.jpg.", "x.jpg ", "p/scan 1", "p.q/1912", "a.jpg_original", "old.001"):
        Path("photos", name).parent.mkdir(exist_ok=True)
        Path("photos", name).write_bytes(photo)
    put("photos/deep.png", mode="I;16").rename("photos/deep")
    for name, data in (("BM notes", b"BM is no picture, and this no photo"), ("P1", b"P1 of 3\n"), ("t.txt", photo)):
        Path("photos", name).write_bytes(data)
    os.mkfifo("photos/pipe")
    records, _ = run()
    assert set(states(records).values()) == {"done"} and len(records) == 6
    assert sorted(tree("out")) == ["a.jpg", "deep.png", "p.q/1912.jpg", "p/scan 1.jpg", "x.jpg", "x~2.jpg"]
    with Image.open("out/x.jpg") as made, Image.open("out/deep.png") as deep:
        assert (made.format, deep.format) == ("JPEG", "PNG")
    assert run() == ({}, {})
    assert LocalFolder("photos").find().left_out == ("a.jpg_original", "old.001")


def test_sidecar_files_go_beside_the_results(engine, put: Put) -> None:
    for name in ("a.png", "p/b.gif", "p/A.PNG", "lost.txt"):
        put(f"photos/{name}") if name != "lost.txt" else Path("photos/lost.xmp").write_text("<none/>")
    for name in ("a.xmp", "a.png.xmp", "p/b.gif.xmp", "p/b.xmp", "p/A.XMP"):
        Path("photos", name).write_text(f"<{name}/>")
        os.utime(f"photos/{name}", (9, 9))
    report = colorize_archive(SETTINGS)
    assert (report.sidecars, report.problems) == (5, ())
    copies = sorted(path.relative_to("out").as_posix() for path in Path("out").rglob("*.[xX][mM][pP]"))
    assert copies == ["a.png.xmp", "a.xmp", "p/A.XMP", "p/b.gif.png.xmp", "p/b.gif.xmp"]
    assert Path("out/p/b.gif.png.xmp").read_text() == "<p/b.gif.xmp/>"
    assert colorize_archive(SETTINGS).sidecars == 0
    Path("out/a.xmp").write_text("edited here")  # later than the photo's
    Path("photos/a.png.xmp").write_text("edited there")
    os.utime("photos/a.png.xmp", (99, 99))
    assert colorize_archive(SETTINGS).sidecars == 1
    assert (Path("out/a.xmp").read_text(), Path("out/a.png.xmp").read_text()) == ("edited here", "edited there")


def test_a_sidecar_that_is_a_link_out_of_the_folder_or_too_large_is_left(engine, put: Put) -> None:
    put("photos/a.png")
    Path("secret").write_text("secret")
    Path("photos/a.xmp").symlink_to(Path("secret").resolve())
    with Path("photos/a.png.xmp").open("wb") as file:
        file.truncate(10**9)
    report = colorize_archive(SETTINGS)
    assert report.sidecars == 0 and [problem.partition(":")[0] for problem in report.problems] == ["a.png.xmp", "a.xmp"]
    assert not list(Path("out").glob("*.xmp"))


def test_a_page_is_chosen_and_counts_as_a_setting(engine, put: Put) -> None:
    Path("photos").mkdir()
    pages = [Image.new("L", (8, 6), level) for level in (40, 200)]
    pages[0].save("photos/a.tif", save_all=True, append_images=pages[1:])
    first, second = SETTINGS, ArchiveSettings(SOURCE, OUT, page=2)
    for settings, level in ((first, 40), (second, 200), (first, 40)):
        records, _ = run(settings)
        assert states(records) == {"a.tif": "done"}
        assert np.asarray(Image.open("out/a.tif").convert("L"))[0, 0] == level
        assert run(settings) == ({}, {})
    records, _ = run(ArchiveSettings(SOURCE, OUT, page=3))
    assert "has no page 3" in records["a.tif"].message

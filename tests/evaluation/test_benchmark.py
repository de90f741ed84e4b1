"""Published sets: their names and hashes, squares and both ΔCFs against plain formulas, what differs."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from pathlib import Path
from typing import Any, get_args

import cv2
import numpy as np
import pytest
import skimage.data
from PIL import Image

from chromatune.errors import ChromaTuneError, DataError, OptionsError
from chromatune.evaluation import benchmark
from chromatune.evaluation.benchmark import evaluate_set, evaluate_videos, find_listed, load_set, names_hash, read_names
from chromatune.evaluation.settings import BenchmarkName, BenchmarkSettings, make_benchmark_settings
from chromatune.evaluation.summary import PUBLISHED, beside_published, remarks

SETS = get_args(BenchmarkName)
VAL = "ILSVRC2012_val_{:08d}"
HASH = "149b433846abded7"
FILMS = ("AircraftTakingOff1", "Ducks")
FIGURES = (*PUBLISHED, "delta_cf")


def save(path: Path, rgb: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rgb).save(path)


@pytest.fixture(scope="module")
def photos() -> dict[str, np.ndarray]:
    """Three photos of other shapes, one of them gray and one very small."""
    coffee, rocket = skimage.data.coffee()[:301, :402], skimage.data.rocket()[::8, ::8]
    gray = np.repeat(skimage.data.astronaut()[:300, :271, :1], 3, axis=2)
    return {VAL.format(1): coffee, VAL.format(2): gray, VAL.format(5000): rocket[:50, :70]}


@pytest.fixture(scope="module")
def shared_set(photos, tmp_path_factory) -> Path:
    """Part of val5k, in folders of classes as some have it, with a photo of the training set; no test changes it."""
    folder = tmp_path_factory.mktemp("published") / "val"
    for number, (name, rgb) in enumerate(photos.items()):
        save(folder / f"n{number:08d}" / f"{name}.png", rgb)
    save(folder / "n01440764_10026.png", photos[VAL.format(1)])
    return folder


@pytest.fixture(scope="module")
def vivid(photos, tmp_path_factory) -> Path:
    """Results of another tool at full size: of the first photo too vivid, of the last too dull."""
    folder = tmp_path_factory.mktemp("results")
    for (name, rgb), amount in zip(photos.items(), (1.4, 0.5, 0.2), strict=True):
        mean = rgb.mean(axis=2, keepdims=True)
        save(folder / f"{name}.png", np.clip(mean + amount * (rgb - mean), 0, 255).astype(np.uint8))
    return folder


@pytest.fixture(scope="module")
def settings(shared_set, vivid):
    def make(**changes: object) -> BenchmarkSettings:
        fields = {"name": "val5k", "folder": str(shared_set), "results": (("vivid", str(vivid)),), "device": "cpu"}
        return make_benchmark_settings(**(fields | changes))

    return make


@pytest.fixture(scope="module")
def measured(settings, tmp_path_factory):
    """The evaluation of that part of val5k; no test changes it."""
    return evaluate_set(settings(), tmp_path_factory.mktemp("measured") / "out")


@pytest.fixture
def small(monkeypatch, photos):
    """Makes val5k a set of those three photos, with other fields where they are given."""

    def change(**fields: Any) -> None:
        known = dataclasses.replace(load_set("val5k"), rule="", count=3, sha256=names_hash(photos), **fields)
        monkeypatch.setattr(benchmark, "load_set", lambda name: known)

    return change


def test_all_sets_are_described():
    names = re.findall(r"^\[(\w+)\]$", (Path(benchmark.__file__).parent / "benchmarks.toml").read_text(), re.MULTILINE)
    assert tuple(names) == SETS
    for name in SETS:
        known = load_set(name)
        assert re.fullmatch(known.pattern, known.example) and re.fullmatch("[0-9a-f]{64}", known.sha256)
        assert known.videos == (name in ("davis", "videvo")) and known.videos != bool(known.square)
        for row in known.rows:
            assert row.keys() <= {*FIGURES, "method", "source", "second_hand"} and row["source"]
            assert all(float(row[key]) >= 0 for key in FIGURES if key in row)


def test_the_names_of_val5k_are_a_rule_and_its_hash_is_that_of_a_sorted_list():
    text = "\n".join(f"ILSVRC2012_val_{number:08d}" for number in range(1, 5001)) + "\n"
    known = load_set("val5k")
    assert known.ruled_names == frozenset(text.split())
    assert known.sha256 == hashlib.sha256(text.encode()).hexdigest() == names_hash(reversed(text.split()))


def test_published_colorfulness_and_its_gap_are_of_one_truth():
    """A slip of the pen would show: CF and ΔCF of each row give the same mean CF of the truths."""
    known = load_set("val5k")
    rows = [row for row in known.rows if "delta_cf_field" in row]
    assert len(rows) == 12 and known.truth_cf is not None
    for row in rows:
        cf, gap = float(row["cf_field"]), float(row["delta_cf_field"])
        assert min(abs(cf + gap - known.truth_cf), abs(cf - gap - known.truth_cf)) < 0.011, row["method"]


def colorfulness(rgb: np.ndarray) -> float:
    """As the code of DDColor and CT2 computes it."""
    red, green, blue = (rgb[..., channel].astype(float) for channel in range(3))
    rg, yb = np.absolute(red - green), np.absolute(0.5 * (red + green) - blue)
    return float(np.sqrt(rg.std() ** 2 + yb.std() ** 2) + 0.3 * np.sqrt(rg.mean() ** 2 + yb.mean() ** 2))


def centered(rgb: np.ndarray) -> np.ndarray:
    """The largest square in the middle, by Pillow alone."""
    image = Image.fromarray(rgb)
    side = min(image.size)
    left, top = (round((length - side) / 2) for length in image.size)
    return np.asarray(image.crop((left, top, left + side, top + side)).resize((256, 256), Image.Resampling.BILINEAR))


def test_both_conventions_of_the_gap_on_squares_as_published(measured, photos, vivid):
    """Against plain formulas over squares cut by Pillow; gray and small photos are measured as any."""
    truths = [colorfulness(centered(rgb)) for rgb in photos.values()]
    results = [colorfulness(centered(np.asarray(Image.open(vivid / f"{name}.png")))) for name in photos]
    row = next(row for row in measured.summary["rows"] if row["name"] == "vivid, raw")
    assert row["photos"] == 3
    assert row["truth_cf_field"] == pytest.approx(np.mean(truths))
    assert row["delta_cf_field"] == pytest.approx(abs(np.mean(results) - np.mean(truths)))
    assert row["photo_delta_cf_field"] == pytest.approx(np.mean(np.abs(np.subtract(results, truths))))
    assert row["photo_delta_cf_field"] > 1.2 * row["delta_cf_field"]
    assert measured.summary["rows"][0]["name"] == "gray"


def test_a_stretched_set_is_stretched(settings, shared_set, tmp_path, monkeypatch, photos):
    known = dataclasses.replace(load_set("val5k"), square="stretched")
    monkeypatch.setattr(benchmark, "load_set", lambda name: known)
    row = evaluate_set(settings(), tmp_path / "out").summary["rows"][0]
    stretched = [cv2.resize(rgb.astype(np.float32), (256, 256)) for rgb in photos.values()]
    assert row["truth_cf_field"] == pytest.approx(np.mean([colorfulness(np.rint(rgb)) for rgb in stretched]))


def test_published_rows_stand_beside_ours_with_their_source(measured):
    header, *rows = beside_published(measured.summary)
    cells = {row[0]: dict(zip(header, row, strict=True)) for row in rows}
    assert list(cells)[:2] == ["gray", "vivid"] and "vivid, raw" not in cells
    ours, theirs = cells["vivid"], cells["DDColor-L"]
    assert (ours["photos"], ours["source"], ours["FID"]) == ("3", "measured here", "–")
    columns = ("photos", "FID", "PSNR dB", "SSIM", "CF field", "ΔCF field", "ΔCF field, by photo")
    assert [theirs[key] for key in columns] == [
        "5000", "3.92", "23.85", "–", "38.26", "0.05", "–",
    ]  # fmt: skip
    assert theirs["source"] == "DDColor (ICCV 2023), table 1 (second-hand)"
    assert cells["CT2, by L-CAD"]["ΔCF field"] == "2.17 ?"
    assert cells["DDColor-L, run by a user"]["source"] == "github.com/piddnad/DDColor, issue 9: with CT2's scripts"
    table, page = ((measured.out / name).read_text(encoding="utf-8") for name in ("table.md", "report.html"))
    for text in (
        "Published rows beside ours",
        "DDColor (ICCV 2023), table 1 (second-hand)",
        "2.17 ?",
        *remarks(measured.summary),
    ):
        assert text in table and text.replace("'", "&#39;") in page.replace("&#x27;", "&#39;"), text


def test_each_difference_of_the_protocols_is_a_line(measured):
    said = remarks(measured.summary)
    assert all("\n" not in line for line in said)
    assert said[0].startswith(f"List: 5,000 names, SHA-256 {HASH}…, as published: the first 5,000 validation photos")
    assert said[1] == f"Differs: 4,997 photos of the list are not there, the first: {VAL.format(3)}."
    assert said[2] == "Differs: 3 photos are measured, and 5,000 were published."
    assert said[3].startswith("Prepared as published: center square, Pillow's bilinear filter to 256 × 256")
    assert said[4] == "Seeds: one for all photos (0)."
    assert said[5] == "Differs: FID is published and was not measured: no network was given (--fid)."
    assert said[6] == "Differs: LPIPS is published and was not measured: no network was given (--lpips)."
    assert said[7] == "Differs: a ΔCF with “?” is of means or by photo: its source does not say which."
    assert said[8].startswith("Differs: results keep the photo's Rec.601 luma here") and len(said) == 9
    protocol = json.loads((measured.out / "protocol.json").read_text())
    assert protocol["set"] == {
        "name": "val5k", "listed": 5000, "names_sha256": load_set("val5k").sha256, "is_published": True,
    }  # fmt: skip
    assert (protocol["square"], protocol["every_photo"], protocol["square_px"]) == ("center-bilinear", True, 256)


def test_it_goes_on_where_it_was_interrupted(settings, measured):
    before = (measured.out / "rows.jsonl").read_bytes()
    assert evaluate_set(settings(), measured.out).summary == measured.summary
    assert (measured.out / "rows.jsonl").read_bytes() == before


def test_truths_of_another_colorfulness_are_told_where_all_are_there(settings, small, tmp_path, measured):
    found = measured.summary["rows"][0]["truth_cf_field"]
    small(truth_cf=found + 0.001)
    said = remarks(evaluate_set(settings(), tmp_path / "same").summary)
    assert "as published" in said[0]
    assert not any("mean CF" in line or "are measured" in line for line in said)
    small(truth_cf=found + 1)
    (line,) = [line for line in remarks(evaluate_set(settings(), tmp_path / "other").summary) if "mean CF" in line]
    assert line.startswith(f"Differs: the truths' mean CF (field) is {found:.2f}, where published CF and ΔCF imply")
    few = remarks(evaluate_set(settings(limit=2), tmp_path / "few").summary)
    assert "Differs: 2 photos are measured, and 3 were published." in few and not any("mean CF" in line for line in few)


@pytest.mark.parametrize("backend", ["tf-inception", "ddcolor-inception"])
def test_another_inception_is_another_scale(known_fid, backend):
    """Which one ours is by is said in any case."""
    said = known_fid(f"{backend}, SHA-256 0123")
    told = "Differs: FIDs of DDColor and CT2 are by ddcolor-inception, another scale."
    assert (told in said) == (backend == "tf-inception")
    assert not any("--fid" in line for line in said)
    assert f"FID here is by {backend}, SHA-256 0123." in said


@pytest.fixture
def known_fid(measured):
    """What is said where FID was measured by a network."""

    def said(network: str) -> list[str]:
        summary = measured.summary | {"protocol": measured.summary["protocol"] | {"fid": network}}
        known = load_set("val5k")
        listed = benchmark.Listed({}, known.ruled_names or frozenset(), True)
        return benchmark._compare(known, listed, summary)["remarks"]

    return said


def test_a_list_of_ones_own(settings, shared_set, tmp_path, photos):
    """With folders, suffixes and labels, as ctest10k.txt has them; of the published one, its hash tells."""
    path = tmp_path / "list.txt"
    path.write_text(f"/n04286575/{VAL.format(5000)}.JPEG 818\n\n  {VAL.format(7)}\n")
    assert read_names(path) == {VAL.format(5000), VAL.format(7)}
    listed = find_listed(load_set("val5k"), str(shared_set), str(path))
    assert listed.files == {VAL.format(5000): f"n00000002/{VAL.format(5000)}.png"} and not listed.is_published
    said = benchmark._on_the_list(load_set("val5k"), listed, 1)
    own = hashlib.sha256(f"{VAL.format(7)}\n{VAL.format(5000)}\n".encode()).hexdigest()[:16]
    assert said[0] == f"List: 2 names, SHA-256 {own}…."
    assert said[1].startswith(f"Differs: the published list is another: 5,000 names, SHA-256 {HASH}…")
    assert said[2] == f"Differs: 1 photo of the list is not there, the first: {VAL.format(7)}."


def test_a_set_without_a_rule_is_what_lies_there(shared_set, photos):
    known = dataclasses.replace(load_set("ctest10k"), count=3, sha256=names_hash(photos))
    assert find_listed(known, str(shared_set), None).is_published
    few = find_listed(dataclasses.replace(known, count=4), str(shared_set), None)
    assert few.names == photos.keys()
    with pytest.raises(DataError) as caught:
        find_listed(dataclasses.replace(known, count=2), str(shared_set), None)
    said = str(caught.value)
    assert "has 3 photos; expected are the 2 photos of ImageNet ctest10k" in said
    assert "give their names by --list FILE, such as ctest10k.txt" in said


def test_a_folder_that_is_not_the_set_is_one_line_that_says_what_is_expected(settings, shared_set, tmp_path, photos):
    expected = "5,000 photos of ImageNet val5k, called like ILSVRC2012_val_00000001"
    (tmp_path / "empty").mkdir()
    save(tmp_path / "other" / "cat.png", photos[VAL.format(1)])
    save(tmp_path / "beyond" / f"{VAL.format(5001)}.png", photos[VAL.format(1)])
    (tmp_path / "none.txt").write_text("\n")
    for twice in ("a", "b"):
        save(tmp_path / "twice" / twice / f"{VAL.format(1)}.png", photos[VAL.format(1)])
    for folder, changes, message in (
        ("nowhere", {}, f"no such folder; expected are the {expected}"),
        ("empty", {}, expected),
        ("other", {}, expected),
        ("beyond", {}, f"is not that set: none of its files is in the list; expected are the {expected}"),
        ("twice", {}, f"has two photos called {VAL.format(1)}: a/{VAL.format(1)}.png and b/"),
        ("other", {"names": str(tmp_path / "gone.txt")}, "the list of names cannot be read"),
        ("other", {"names": str(tmp_path / "none.txt")}, "the list of names is empty"),
    ):
        with pytest.raises(ChromaTuneError) as caught:
            evaluate_set(settings(folder=str(tmp_path / folder), **changes), tmp_path / "out")
        assert message in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.fixture
def films(tmp_path) -> Path:
    """Two videos as folders of frames, one in bright colors and one nearly gray, beside a folder that is none."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "films"
    for name, tint in zip(FILMS, (100, 5), strict=True):
        levels = rng.integers(40, 150, (8, 12, 1)) + rng.integers(0, tint, (8, 12, 3))
        picture = np.kron(levels.astype(np.uint8), np.ones((8, 8, 1), np.uint8))
        for number in range(6):
            save(folder / name / f"{number:05d}.png", picture[:48, number : number + 64])
    (folder / "notes").mkdir()
    return folder


def test_videos_are_measured_each_and_in_the_mean(engine, films, tmp_path):
    settings = make_benchmark_settings(name="videvo", folder=str(films), models=("mini",), seed=5)
    summary = evaluate_videos(settings, tmp_path / "out")
    single = [json.loads((tmp_path / "out" / "videos" / name / "video.json").read_text()) for name in FILMS]
    assert (summary["videos"], summary["frames"]) == (2, 12)
    assert json.loads((tmp_path / "out" / "video.json").read_text()) == summary
    rows = {row["name"]: row for row in summary["rows"]}
    assert list(rows) == ["truth", "gray", "mini, frame by frame", "mini, through time"]
    both = [{row["name"]: row for row in each["rows"]} for each in single]
    name = "mini, through time"
    assert rows[name]["psnr"] == pytest.approx(np.mean([each[name]["psnr"] for each in both]))
    cf, true_cf = (np.mean([each[row]["cf"] for each in both]) for row in (name, "truth"))
    assert rows[name]["delta_cf"] == pytest.approx(abs(cf - true_cf))
    assert rows[name]["video_delta_cf"] == pytest.approx(np.mean([each[name]["delta_cf"] for each in both]))
    assert rows[name]["video_delta_cf"] > 1.05 * rows[name]["delta_cf"]  # too dull in one, too vivid in the other
    assert rows[name]["warp_ratio"] == pytest.approx(rows[name]["warp"] / rows["truth"]["warp"])
    assert "ΔCF, by video" in (tmp_path / "out" / "video.md").read_text()
    said = remarks(summary)
    assert said[0] == f"List: 2 names, SHA-256 {names_hash(FILMS)[:16]}…."
    assert said[1].startswith(
        "Differs: the published list is another: 20 names, SHA-256 2c685d98f7331a97…: videvo_test.txt"
    )
    assert said[2] == "Differs: 2 videos are measured, and 20 were published."


def test_more_videos_than_the_set_has_need_a_list(films):
    known = dataclasses.replace(load_set("videvo"), count=1)
    with pytest.raises(DataError, match="has 2 videos; expected are the 1 videos of Videvo.*--list FILE"):
        find_listed(known, str(films), None)
    (films.parent / "val.txt").write_text("Ducks\n")
    listed = find_listed(
        dataclasses.replace(known, sha256=names_hash(["Ducks"])), str(films), str(films.parent / "val.txt")
    )
    assert listed.files == {"Ducks": "Ducks"} and listed.is_published


@pytest.mark.parametrize(
    "changes", [{"fid": "tf-inception:x"}, {"lpips": "vgg:x"}, {"best_of": 2}, {"results": (("a", "b"),)}]
)
def test_videos_have_no_rows_of_photos(films, tmp_path, changes):
    settings = make_benchmark_settings(name="davis", folder=str(films), models=("mini",), **changes)
    with pytest.raises(OptionsError, match="is for photos; leave it out for davis"):
        evaluate_videos(settings, tmp_path / "out")
    assert not (tmp_path / "out").exists()

"""Whole evaluations with the tiny pipeline: rows, resuming, other tools' results, prompts, and the page."""

from __future__ import annotations

import json
import os
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest

from chromatune.color import luma
from chromatune.colorizer import Colorizer
from chromatune.data import content_of, read_rgb
from chromatune.errors import DataError, MissingExtraError, ModelError, OptionsError
from chromatune.evaluation import metrics
from chromatune.evaluation.evaluation import PROTOCOL_FILE, evaluate
from chromatune.evaluation.settings import is_video_source, make_settings
from chromatune.evaluation.squares import center_square
from chromatune.evaluation.summary import notes
from chromatune.files import lock_run_folder
from chromatune.options import make_options
from chromatune.pipeline import TorchBackend, TrainingSet, weights_hash, write_training_data

PHOTOS = ("astronaut", "coffee", "chelsea", "rocket")
SIDE_PX = 64
REPEATABLE = ("rows.jsonl", "summary.json", "table.md")


def rows_of(evaluation) -> dict[str, dict]:
    return {row["name"]: row for row in evaluation.summary["rows"]}


def page_without_measurements(out) -> str:
    text = (out / "report.html").read_text(encoding="utf-8")
    assert "seconds a photo, median" in text
    return re.sub("<details><summary>Cost</summary>.*?</details>", "", text, flags=re.DOTALL)


def stop_after(count: int):
    """Progress that interrupts after so many photos were scored."""
    left = [count]

    def start_stage(name: str, length: int):
        def advance() -> None:
            if not name.startswith("choosing"):
                left[0] -= 1
                if left[0] == 0:
                    raise KeyboardInterrupt

        return advance

    return start_stage


def test_rows_that_are_always_there(whole, tiny_pipeline_dir):
    rows = {row["name"]: row for row in json.loads((whole / "summary.json").read_text())["rows"]}
    name = tiny_pipeline_dir.name
    assert list(rows) == ["gray", name, f"{name}, raw"]
    assert [(row["method"], row["hints"], row["raw"]) for row in rows.values()] == [
        ("gray", 0, False), (name, 0, False), (name, 0, True),
    ]  # fmt: skip
    for row in rows.values():
        assert (row["photos"], row["failed"]) == (4, 0)
        assert row["intervals"]["psnr"][0] <= row["psnr"] <= row["intervals"]["psnr"][1]
    gray, ours, raw = rows.values()
    assert gray["cf_field"] == gray["luma_drift_max"] == gray["bleeding"] == 0
    assert ours["luma_drift_max"] <= 1 < raw["luma_drift_max"]
    assert ours["minus_gray"]["psnr"]["mean"] == pytest.approx(ours["psnr"] - gray["psnr"])
    assert raw["minus_first"]["ssim"]["mean"] == pytest.approx(raw["ssim"] - ours["ssim"])
    assert (ours["unet_evaluations"], ours["parameters"] > 1000, ours["gflops"] > 0) == (1, True, True)
    lines = [json.loads(line) for line in (whole / "rows.jsonl").read_text().splitlines()]
    assert len(lines) == 3 * 4
    assert {line["key"] for line in lines} == {f"{photo}.png" for photo in PHOTOS} - {"coffee.png"} | {"again.png"}


def test_rows_are_what_the_colorizer_gives_and_the_model_runs_once(
    settings, tmp_path, tiny_pipeline_dir, monkeypatch, colored
):
    passes = []
    backend = TorchBackend.__call__

    def counted(opened, grays, *given, **flags):
        passes.append(len(grays))
        return backend(opened, grays, *given, **flags)

    monkeypatch.setattr(TorchBackend, "__call__", counted)
    evaluation = evaluate(settings(steps=(2,), seed=5), tmp_path / "out")
    assert sum(passes) == 4 + 1 + 4  # scored, counted for its cost, drawn
    colorizer = Colorizer.load(str(tiny_pipeline_dir), device="cpu")
    truths = [colored(photo) for photo in PHOTOS]
    for row, recompose in zip(list(rows_of(evaluation).values())[1:], (True, False), strict=True):
        options = make_options(steps=2, seed=5, recompose=recompose)
        results = [colorizer.colorize(luma(truth), options).rgb for truth in truths]
        expected = np.mean([metrics.psnr(result, truth) for result, truth in zip(results, truths, strict=True)])
        assert row["psnr"] == pytest.approx(expected, rel=1e-9)


def test_batches_change_nothing(settings, whole, tmp_path):
    evaluate(settings(batch_size=3), tmp_path / "out")
    for file in REPEATABLE:
        assert (whole / file).read_bytes() == (tmp_path / "out" / file).read_bytes()


@pytest.mark.parametrize(
    "photos", [6, *(pytest.param(photos, marks=pytest.mark.slow) for photos in (1, 4, 5, 8, 9, 11))]
)
def test_interrupted_at_any_photo_and_run_again_is_the_same(settings, whole, tmp_path, photos):
    broken = tmp_path / "broken"
    with pytest.raises(KeyboardInterrupt):
        evaluate(settings(), broken, start_stage=stop_after(photos))
    with (broken / "rows.jsonl").open("ab") as file:
        file.write(b'{"method": "torn')
    evaluate(settings(), broken)
    for file in REPEATABLE:
        assert (whole / file).read_bytes() == (broken / file).read_bytes(), file
    assert page_without_measurements(whole) == page_without_measurements(broken)


def test_what_is_scored_is_not_scored_again(settings, evaluated, monkeypatch):
    before = (evaluated / "timings.jsonl").read_bytes()
    monkeypatch.setattr("chromatune.evaluation.scoring.score", lambda *_: pytest.fail("scored twice"))
    evaluate(settings(), evaluated)
    assert (evaluated / "timings.jsonl").read_bytes() == before


def test_other_settings_need_another_folder(settings, evaluated):
    with pytest.raises(OptionsError, match=r"seed=0, and now it is 1; give another --out"):
        evaluate(settings(seed=1), evaluated)


def test_a_folder_of_an_older_format_is_one_line(settings, evaluated):
    """Its rows.jsonl names rows as tables do."""
    path = evaluated / PROTOCOL_FILE
    protocol = json.loads(path.read_text())
    protocol["left_out"] = protocol.pop("skipped")
    del protocol["format"]
    path.write_text(json.dumps(protocol))
    with pytest.raises(OptionsError) as caught:
        evaluate(settings(), evaluated)
    said = "format=None, and now it is '2: rows are named by method, hints and raw'; give another --out"
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_a_folder_is_one_evaluations_from_its_first_score_to_its_last_picture(settings, evaluated, tiny_pipeline_dir):
    refusals = {}

    def start_stage(name: str, length: int):
        if not name.startswith("choosing"):
            with pytest.raises(OptionsError) as caught, lock_run_folder(evaluated, "other.json", {}, "anything"):
                pass
            refusals[name] = str(caught.value)
        return lambda: None

    evaluate(settings(), evaluated, start_stage=start_stage)
    assert list(refusals) == ["gray", tiny_pipeline_dir.name, "drawing pictures"]
    with lock_run_folder(evaluated, "other.json", {"a": 1}, "anything"), pytest.raises(OptionsError) as caught:
        evaluate(settings(), evaluated)
    assert "is in use: another process is working there" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert set(refusals.values()) == {str(caught.value)}
    evaluate(settings(), evaluated)


def test_results_of_another_tool(settings, tmp_path, photos_dir, write_png, colored):
    """One as square, one by its stem in another format, one of a wrong size, one missing; a perfect one scores so."""
    results = tmp_path / "results"
    write_png(results / "astronaut.png", colored("astronaut"))
    write_png(results / "deep" / "chelsea.webp", colored("chelsea"))
    write_png(results / "rocket.png", colored("rocket", SIDE_PX - 3))
    evaluation = evaluate(settings(models=(), results=(("retoucher", str(results)),)), tmp_path / "out")
    rows = rows_of(evaluation)
    assert list(rows) == ["gray", "retoucher", "retoucher, raw"]
    assert (rows["retoucher, raw"]["photos"], rows["retoucher, raw"]["failed"]) == (2, 2)
    assert rows["retoucher, raw"]["minus_gray"]["photos"] == 2
    assert rows["retoucher"]["luma_drift_max"] == 0
    reasons = {key: reason for row, key, reason in evaluation.failures if row == "retoucher"}
    assert reasons == {"again.png": "missing", "rocket.png": "is 61 x 61 px; accepted: 64 x 64 or 64 x 64"}
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "is 61 x 61 px" in page


def test_full_size_results_get_the_truths_square(settings, tmp_path, write_png, colored):
    """Cropping the truth to the result's size instead is a known mistake; both must be the same square."""
    wide = np.concatenate([colored("coffee")] * 2, axis=1)
    write_png(tmp_path / "wide" / "a.png", wide)
    write_png(tmp_path / "results" / "a.png", wide)
    chosen = settings(source=str(tmp_path / "wide"), models=(), results=(("same", str(tmp_path / "results")),))
    rows = rows_of(evaluate(chosen.model_copy(update={"size_px": 32}), tmp_path / "out"))
    assert rows["same, raw"]["mae"] == 0
    assert center_square(wide, 32).shape == (32, 32, 3)


def test_all_results_missing_is_a_row_without_numbers(settings, tmp_path):
    (tmp_path / "empty").mkdir()
    evaluation = evaluate(settings(models=(), results=(("none", str(tmp_path / "empty")),)), tmp_path / "out")
    none = {"name": "none", "method": "none", "hints": 0, "raw": False, "photos": 0, "failed": 4}
    assert rows_of(evaluation)["none"] == none
    for file in ("summary.json", "table.md", "report.html"):
        text = re.sub('base64,[^"]*', "", (tmp_path / "out" / file).read_text(encoding="utf-8").lower())
        assert not re.search(r"\bnan\b", text)
    assert "nothing but the gray input was scored" in text


def test_prompts_have_rows_and_a_spread(settings, tmp_path):
    evaluation = evaluate(settings(prompts=("warm", "cold")), tmp_path / "out")
    assert [name.rsplit(", ", 1)[-1] for name in rows_of(evaluation)][1::2] == ["“warm”", "“cold”"]
    recomposed, raw = evaluation.summary["prompt_spread"]
    assert (recomposed["raw"], raw["raw"], raw["prompts"]) == (False, True, 2)


def test_seen_photos_give_the_gap(settings, tmp_path):
    chosen = settings(split="validation", validation=2, seen=settings().source)
    evaluation = evaluate(chosen, tmp_path / "out")
    ours, raw = evaluation.summary["generalization"]
    assert ours["seen"] >= 1
    assert set(ours) == {"name", "seen", "psnr", "ab_mse", "ciede2000"}
    assert rows_of(evaluation)["gray"]["photos"] <= 2
    with pytest.raises(DataError, match="held out and seen"):
        evaluate(settings(seen=settings().source), tmp_path / "both")


def test_an_empty_set_is_an_error(settings, tmp_path, write_png, colored):
    folder = tmp_path / "grays"
    write_png(folder / "a.png", np.repeat(colored("coffee")[..., :1], 3, axis=2))
    with pytest.raises(DataError, match="1 gray or sepia"):
        evaluate(settings(source=str(folder)), tmp_path / "out")
    with pytest.raises(DataError, match="no such folder of results"):
        evaluate(settings(results=(("x", str(tmp_path / "nowhere")),)), tmp_path / "out")


def test_a_photo_that_changes_before_it_is_decoded_again_is_an_error(
    settings, photos_dir, tmp_path, write_png, colored, monkeypatch
):
    monkeypatch.setattr("chromatune.evaluation.protocol.SQUARES_BYTES", 0)

    def start_stage(name: str, length: int):
        if name == "gray":
            for photo in PHOTOS:
                write_png(photos_dir / f"{photo}.png", colored(photo)[::-1])
        return lambda: None

    with pytest.raises(DataError, match="has changed while"):
        evaluate(settings(source=str(photos_dir)), tmp_path / "out", start_stage=start_stage)


def test_the_report_stands_alone_and_escapes(settings, tmp_path, write_png, colored):
    source = tmp_path / "<b>photos"
    write_png(source / "<i>.png", colored("coffee"))
    write_png(source / "a|b.png", colored("rocket"))
    (source / "<script>.png").write_bytes(b"x")
    write_png(tmp_path / "photo.png", colored("chelsea"))
    (tmp_path / "photo.png").rename(source / os.fsdecode(b"caf\xe9.png"))  # no UTF-8
    evaluate(settings(source=str(source), prompts=("<u>", "$x$ | y")), tmp_path / "out", command="<s>")
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    tags: list[tuple[str, dict]] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag, attrs):
            tags.append((tag, dict(attrs)))

    Reader().feed(page)
    assert not {"b", "i", "u", "s", "script", "link"} & {tag for tag, _ in tags}
    sources = [attrs["src"] for tag, attrs in tags if "src" in attrs]
    assert len(sources) > 4
    assert all(text.startswith("data:image/") for text in sources)
    assert r"caf\xe9.png" in page
    table = (tmp_path / "out" / "table.md").read_text(encoding="utf-8")
    assert "$x$ \\| y" in table


@pytest.mark.parametrize("module", ["chromatune.reports.page", "chromatune.evaluation.artifacts"])
def test_without_the_extras_libraries_nothing_is_begun(settings, tmp_path, monkeypatch, module):
    monkeypatch.setattr(f"{module}.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"chromatune\[evaluate\]"):
        evaluate(settings(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_weights_are_part_of_the_protocol(tiny_pipeline_dir, tiny_pipeline):
    ours, other = weights_hash(str(tiny_pipeline_dir)), weights_hash(str(tiny_pipeline("kl")))
    assert ours == weights_hash(str(tiny_pipeline_dir)) != other


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "nothing to measure"),
        ({"models": ("a", "a")}, "the same one twice"),
        ({"models": ("a",), "size_px": 8}, "size_px=8"),
        ({"models": ("a",), "split": "test"}, "split='test'"),
        ({"models": ("a",), "shuffle": True}, "unknown setting 'shuffle'; accepted: source, models"),
        ({"models": ("a",), "steps": (0,)}, "steps.0=0"),
    ],
)
def test_settings_that_are_wrong(fields, message):
    with pytest.raises(OptionsError, match=re.escape(message)):
        make_settings(source="x", **fields)


def test_the_old_prefix_of_a_video_is_an_alias():
    settings = make_settings(source="film:frames", models=("mini",))
    assert settings.source == "video:frames"
    assert is_video_source(settings.source) and is_video_source("film:frames")


def test_two_rows_of_one_name_are_refused(settings, tmp_path):
    (tmp_path / "r").mkdir()
    with pytest.raises(OptionsError, match="two rows would be called 'gray'"):
        evaluate(settings(results=(("gray", str(tmp_path / "r")),)), tmp_path / "out")


@pytest.mark.parametrize("below", ["", "sub/..", "link"])
def test_results_among_the_photos_themselves_are_refused(settings, photos_dir, below):
    """They would be taken for photos, and the same call would not go on."""
    (photos_dir / "sub").mkdir()
    (photos_dir / "link").symlink_to(photos_dir)
    kept = sorted(photos_dir.iterdir())
    for source in (str(photos_dir), f"folder:{photos_dir}"):
        with pytest.raises(OptionsError, match="holds the photos themselves.*give another --out"):
            evaluate(settings(source=source), photos_dir / below)
    assert sorted(photos_dir.iterdir()) == kept


def test_an_evaluation_below_its_photos_goes_on(settings, photos_dir, shared_photos):
    chosen = settings(source=str(photos_dir), models=(), results=(("same", str(shared_photos)),))
    first = evaluate(chosen, photos_dir / "out")
    assert evaluate(chosen, photos_dir / "out").summary == first.summary


def test_photos_that_a_model_was_trained_on_are_told(settings, shared_photos, write_png, tiny_pipeline_dir, tmp_path):
    """In one line, in the tables and on the page; photos that are given as seen are meant to be."""
    model = shutil.copytree(tiny_pipeline_dir, tmp_path / "model")
    contents = [content_of(read_rgb(shared_photos / f"{name}.png", name)) for name in (*PHOTOS[:2], "gray")]
    write_training_data(model, [TrainingSet.of("others", ["0" * 64]), TrainingSet.of("flowers", contents)])
    result = evaluate(settings(models=(str(model), str(tiny_pipeline_dir))), tmp_path / "one")
    told = {"model": str(model), "photos": 2, "of": 4, "sets": {"flowers": 2}}
    assert json.loads((tmp_path / "one" / "summary.json").read_text())["trained_on"] == [told]
    (line,) = notes(result.summary)
    assert line.startswith("Warning: ") and "2 of the 4 photos measured (flowers: 2)" in line and "\n" not in line
    assert line in (tmp_path / "one" / "table.md").read_text()
    assert "2 of the 4 photos measured" in (tmp_path / "one" / "report.html").read_text()
    for name in PHOTOS[:2]:
        write_png(tmp_path / "seen" / f"{name}.png", read_rgb(shared_photos / f"{name}.png", name))
    (tmp_path / "keys").write_text("chelsea.png\nrocket.png\n")
    changed = {"models": (str(model),), "keys": str(tmp_path / "keys"), "seen": str(tmp_path / "seen")}
    result = evaluate(settings(**changed), tmp_path / "two")
    assert (result.summary["trained_on"], notes(result.summary)) == ([], [])


def test_a_damaged_list_of_what_a_model_has_seen_shows_before_the_work(settings, tiny_pipeline_dir, tmp_path):
    model = shutil.copytree(tiny_pipeline_dir, tmp_path / "model")
    (model / "training_data.json").write_text("[]")
    with pytest.raises(ModelError, match=r"training_data\.json holds a list"):
        evaluate(settings(models=(str(model),)), tmp_path / "out")
    assert not (tmp_path / "out").exists()

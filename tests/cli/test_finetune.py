"""`chromatune finetune` as typed."""

from __future__ import annotations

import json
import shlex
from typing import Any

import cv2
import datasets
import numpy as np
import pytest

from chromatune.cli import finetune, main
from chromatune.errors import ChromaTuneError
from chromatune.training import training_loop

SETTINGS = ("size_px=32", "batch=2", "validation_photos=1", "checkpoint_every=2", "cache_variants=1", "lab_photos=1")
WORDS = [word for setting in SETTINGS for word in ("--set", setting)]


@pytest.fixture
def photos(tmp_path, fresh_accelerate):
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(6):
        image = np.full((40, 44, 3), rng.integers(0, 256, 3), np.uint8)
        for _ in range(5):
            center, color = rng.integers(0, 40, 2), rng.integers(0, 256, 3)
            cv2.circle(image, tuple(map(int, center)), 9, tuple(map(int, color)), -1)
        cv2.imwrite(str(folder / f"{index}.png"), image)
    return folder


def test_dry_run_prints_what_would_be_used(capsys, tmp_path):
    config = tmp_path / "run.toml"
    config.write_text("lr = 0.25\n")
    words = ["--preset", "paper", "--config", str(config), "--set", "batch=9", "--max-steps", "7", "--dry-run"]
    words += ["--prompts", 'a "b".txt']
    assert main(["finetune", str(tmp_path / "nowhere"), *words]) == 0
    lines = capsys.readouterr().out.splitlines()
    printed = (
        "lr = 0.25",
        "batch = 9",
        "max_steps = 7",
        'parts = "unet"',
        "accumulation = 4",
        r'prompts = "a \"b\".txt"',
    )
    for line in printed:
        assert line in lines
    assert {"last_share = 0.0", "dropout = 0.0"} <= set(lines)  # as published, for mini too
    table = dict(line.split("\t") for line in lines[lines.index("") + 1 :])
    assert table["gradients"] == table["weights that are trained"] == table["EMA"] == "43 MB"
    assert table["optimizer, adamw"] == "87 MB" and "memory in all" in table


def test_a_run_bears_the_name_of_the_preset_that_the_file_names(photos, tiny_pipeline_dir, tmp_path, monkeypatch):
    config = tmp_path / "run.toml"
    config.write_text('preset = "paper"\naccumulation = 1\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CHROMATUNE_CACHE", "latents")
    words = ["--model", str(tiny_pipeline_dir), "--config", str(config), "--max-steps", "1", "--quiet", *WORDS]
    assert main(["finetune", str(photos), *words]) == 0
    assert "preset `paper`" in (tmp_path / "finetuned-paper" / "model" / "README.md").read_text()
    assert list((tmp_path / "latents").iterdir())  # what the variable names, and not the run's own folder
    assert not (tmp_path / "finetuned-paper" / "cache").exists()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--preset", "none"], 2, "unknown preset 'none'"),
        (["--set", "lr=abc"], 2, "lr='abc'"),
        (["--prompts", "missing.txt", "--set", "photos=4"], 1, "missing.txt"),
    ],
)
def test_what_is_wrong_is_one_line(photos, tiny_pipeline_dir, tmp_path, capsys, words, code, said):
    start = ["finetune", str(photos), "--model", str(tiny_pipeline_dir), "--out", str(tmp_path / "run"), *WORDS]
    assert main([*start, *words]) == code
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error:") and said in error


def test_a_bad_source_is_one_line(tmp_path, capsys):
    assert main(["finetune", str(tmp_path / "nowhere"), "--out", str(tmp_path / "run")]) == 1
    assert "nowhere" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_trains_prints_the_model_and_is_not_repeated(photos, tiny_pipeline_dir, tmp_path, capsys):
    out = tmp_path / "run"
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("color it\n# a remark\nadd color\n")
    words = ["finetune", str(photos), "--model", str(tiny_pipeline_dir), "--out", str(out), "--max-steps", "3", *WORDS]
    words += ["--prompts", str(prompts)]
    assert main(words) == 0
    captured = capsys.readouterr()
    assert captured.out.strip().splitlines()[-1] == str(out / "model")
    assert captured.err.splitlines()[-1].startswith("On 1 photo not trained on, run scores ")
    assert "validation at 3" in captured.err and "encoding photos" in captured.err
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert main(words) == 0
    assert [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()] == rows
    photo, result = tmp_path / "old.png", tmp_path / "new.png"
    cv2.imwrite(str(photo), np.full((30, 40), 90, np.uint8))
    assert main(["colorize", str(photo), "--model", str(out / "model"), "-o", str(result)]) == 0
    assert result.is_file()
    assert main([*words, "--set", "lr=0.5"]) == 2
    assert "holds a run with lr" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:.*lr_scheduler")
def test_the_command_that_is_printed_trains_longer_and_a_name_is_shown_everywhere(
    photos, tiny_pipeline_dir, tmp_path, capsys
):
    out = tmp_path / "my run"
    words = [
        "finetune", str(photos), "--model", str(tiny_pipeline_dir), "--out", str(out), "--set", "max_steps=2", *WORDS,
        "--name", "Our album",
    ]  # fmt: skip
    assert main(words) == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("On 1 photo not trained on, Our album scores ") and "mini untouched " in lines[-1]
    (longer,) = (line.removeprefix("note: train longer: ") for line in lines if "train longer" in line)
    assert main(shlex.split(longer)[1:]) == 0  # without the program's name
    lines = capsys.readouterr().err.splitlines()
    assert any(line.startswith("warning: max_steps=4 (was 2)") for line in lines)
    assert any(line.startswith("update 4/4") for line in lines)
    assert not any(line.startswith(("update 1/4", "validation at 0")) for line in lines), "it goes on"
    assert (
        "<h1>Our album: " in (out / "report.html").read_text() and "4 updates</h1>" in (out / "report.html").read_text()
    )
    assert "\n# Our album\n" in (out / "model" / "README.md").read_text()
    assert json.loads((out / "model" / "chromatune.json").read_text())["label"] == "Our album"
    assert main([*words[:-1], "two\nlines"]) == 2
    assert "--name" in capsys.readouterr().err


ROWS = [
    {"kind": "train", "step": 1, "of": 2, "loss": 0.5, "pairs": 16},
    {"kind": "validation", "step": 2, "psnr": 21.5, "psnr_gray": 20.25},
]


def show(capsys, quiet=False):
    """What stands on stderr after two photos and two rows."""
    with finetune.progress_of_run(quiet, 50) as (start_stage, on_row):
        advance = start_stage("encoding photos", 2)
        advance()
        advance()
        for row in ROWS:
            on_row(row)
    return capsys.readouterr().err


def test_progress_is_lines_in_a_log_and_a_bar_on_a_terminal(capsys, monkeypatch):
    said = ["encoding photos 2/2", "update 1/2: loss 0.5000", "validation at 2: psnr 21.5, psnr_gray 20.25"]
    assert show(capsys).splitlines() == said
    assert show(capsys, quiet=True) == ""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    drawn = show(capsys)
    assert said[2] in drawn and "loss 0.5000" in drawn and "1/2" in drawn


def test_a_row_says_how_fast_a_run_is_and_how_long_it_will_take(capsys):
    """16 pairs an update; a validation after each 50 updates, of which two are left after the first."""
    seconds = iter([5.0, 10.0, 30.0, 90.0, 110.0])
    pace = finetune.Pace(50, lambda: next(seconds))
    validation: dict[str, Any] = {"kind": "validation", "step": 0}
    rows = [{"kind": "train", "step": step, "of": 130, "loss": 0.5, "pairs": 16 * step} for step in (40, 50, 60)]
    notes = [pace.note(row) for row in (validation, *rows[:2], validation | {"step": 50}, rows[2])]
    assert notes[0] == notes[3] == ""
    assert notes[2] == "loss 0.5000, 8 pairs/s, 3 min left"  # 80 updates of 2 s
    assert notes[4] == "loss 0.5000, 8 pairs/s, 4 min left"  # 70 updates, and two validations of a minute


def test_a_run_says_which_preset_it_has_for_a_model_of_this_size(
    photos, tiny_pipeline_dir, tmp_path, capsys, monkeypatch
):
    words = [
        "finetune",
        str(photos),
        "--model",
        str(tiny_pipeline_dir),
        "--max-steps",
        "1",
        "--out",
        str(tmp_path / "a"),
    ]
    assert main([*words, *WORDS]) == 0
    line, cost = capsys.readouterr().err.splitlines()[:2]
    assert cost.startswith("memory: about ") and "; disk: " in cost
    assert line.startswith("preset quick for a U-Net of 0 M parameters: lr 0.0001, predicts as the model does, float32")
    monkeypatch.setattr("chromatune.training.LARGE_MODEL", 1000)
    assert main([*words, "--dry-run"]) == 0
    assert {"lr = 1e-05", 'precision = "bf16"', "gradient_checkpointing = true"} <= set(
        capsys.readouterr().out.splitlines()
    )


def test_a_run_below_its_photos_goes_on_and_one_among_them_is_refused(photos, tiny_pipeline_dir, capsys, monkeypatch):
    """Its grids and its model's pictures are no photos of the second call."""
    monkeypatch.chdir(photos)
    words = ["finetune", ".", "--model", str(tiny_pipeline_dir), "--max-steps", "1", "--quiet", *WORDS]
    assert [main([*words, "--out", "run"]) for _ in range(2)] == [0, 0]
    capsys.readouterr()
    for name in ("0.color.png", "1.color-2.jpg", "contact-sheet.png"):
        (photos / name).write_bytes((photos / "0.png").read_bytes())
    assert main([*words, "--out", "run"]) == 0  # the same photos as before
    assert capsys.readouterr().err == ""
    assert main([word for word in [*words, "--out", "run"] if word != "--quiet"]) == 0
    said = "note: skipped 3 results of earlier runs among the photos, called NAME.color.EXT or contact-sheet.png"
    assert capsys.readouterr().err.splitlines().count(said) == 1
    kept = sorted(photos.iterdir())
    for out in (".", str(photos), "run/.."):
        assert main([*words, "--out", out]) == 2
        assert "holds the photos themselves" in capsys.readouterr().err
    assert sorted(photos.iterdir()) == kept


@pytest.mark.parametrize("where", ["file", "table", "data set"])
def test_prompts_that_are_cut_are_one_warning_before_photos_are_encoded(
    photos, tiny_pipeline_dir, tmp_path, capsys, monkeypatch, where
):
    """As many of a data set's own as are trained with; built-in ones are short."""
    run_loop = training_loop.training_loop

    def once(*args, **named):
        """One run is made, of those with prompts in a file."""
        monkeypatch.setattr("chromatune.training.run.training_loop", stop)
        return run_loop(*args, **named) if where == "file" else stop()

    def stop(*args, **named):
        raise ChromaTuneError("stopped before training")

    monkeypatch.setattr("chromatune.training.run.training_loop", once)
    texts = ["color it", "add color", *(letter * 90 for letter in "abcd")]
    words = ["finetune", str(photos), "--model", str(tiny_pipeline_dir), "--max-steps", "1", *WORDS]
    if where == "file":
        (tmp_path / "prompts.txt").write_text("\n".join([*texts, *texts]))
        words += ["--prompts", str(tmp_path / "prompts.txt")]
    elif where == "table":
        lines = (json.dumps({"file_name": f"{i}.png", "edit_prompt": text}) for i, text in enumerate(texts))
        (photos / "metadata.jsonl").write_text("\n".join(lines))
    else:
        images = [{"bytes": (photos / f"{i}.png").read_bytes(), "path": None} for i in range(6)]
        rows = [{"image": image, "edit_prompt": text} for image, text in zip(images, texts, strict=True)]
        dataset = datasets.Dataset.from_list(rows)
        dataset.cast_column("image", datasets.Image()).save_to_disk(str(tmp_path / "set"))
        words[1] = str(tmp_path / "set")
    assert main([*words, "--out", str(tmp_path / "run")]) == (0 if where == "file" else 1)
    lines = capsys.readouterr().err.splitlines()
    (line,) = (line for line in lines if line.startswith("warning: "))
    assert "prompts are longer than 77 tokens" in line and "is not read from " in line
    assert lines.index(line) < next(i for i, line in enumerate(lines) if "encoding photos" in line)
    if where == "file":
        assert "4 of 6 prompts" in line
    else:
        assert " of 5 prompts" in line  # one is held out
    assert main([*words, "--out", str(tmp_path / "quiet"), "--quiet"]) == 1
    assert "warning" not in capsys.readouterr().err
    assert main([*words, "--prompts", "thirty", "--out", str(tmp_path / "short")]) == 1
    assert "warning" not in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["paper", "quick"])
def test_a_column_that_is_named_is_used_and_the_card_says_so(photos, tiny_pipeline_dir, tmp_path, capsys, preset):
    (photos / "metadata.csv").write_text("photo,caption\n" + "".join(f"{i}.png,{'w' * 80}{i}\n" for i in range(6)))
    words = ["finetune", str(photos), "--model", str(tiny_pipeline_dir), "--max-steps", "1", "--preset", preset, *WORDS]
    words += ["--column", "prompt=caption", "--set", "photos=6"]
    assert main([*words, "--out", str(tmp_path / "gone"), "--column", "image=file"]) == 1
    assert "no table here has 'caption' and 'file'" in capsys.readouterr().err
    assert main([*words, "--column", "size=photo"]) == 2
    words += ["--column", "image=photo"]
    assert main([*words, "--out", str(tmp_path / "own")]) == 0
    assert "5 of 5 prompts are longer" in capsys.readouterr().err
    assert "the photos' own" in (tmp_path / "own" / "model" / "README.md").read_text()
    assert main([*words, "--out", str(tmp_path / "drawn"), "--prompts", "single"]) == 0
    assert "warning" not in capsys.readouterr().err
    assert "| instructions | single |" in (tmp_path / "drawn" / "model" / "README.md").read_text()
    assert not (tmp_path / "gone").exists()

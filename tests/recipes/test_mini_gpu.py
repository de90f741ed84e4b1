"""The recipe on a machine that is lent for minutes: photos that travel, trainings that end in time, on a CPU."""

from __future__ import annotations

import csv
import io
import itertools
import json
import math
import shutil
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch


def make_shards(root: Path, monkeypatch: pytest.MonkeyPatch, out: Path, *extra: str, model: str = "mini") -> None:
    import make

    words = [str(root / "photos"), "--out", str(out), "--from-model", model, "--settings", str(root / "settings.toml")]
    monkeypatch.setattr(sys, "argv", ["make.py", "pack", *words, "--plan", "wide", *extra])
    make.main()


def train(root: Path, monkeypatch: pytest.MonkeyPatch, photos: Path, work: Path, *extra: str) -> None:
    import make

    words = [str(photos), "--work", str(work), "--settings", str(root / "settings.toml"), "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", ["make.py", *words, "--out", str(work / "models"), *extra])
    make.main()


@pytest.fixture(scope="module")
def tiny_model(recipe):
    """A finished pair of the recipe's tiny settings: `mini`, without a photo encoder."""
    patch = pytest.MonkeyPatch()
    patch.setattr("export.write_graphs", lambda folder: None)
    train(recipe, patch, recipe / "photos", recipe / "pair")
    patch.undo()
    return recipe / "pair" / "models" / "mini"


@pytest.fixture(scope="module")
def shards(recipe, tiny_model):
    """Two shards of the drawn photos, with the tiny model."""
    patch = pytest.MonkeyPatch()
    make_shards(recipe, patch, recipe / "packs", "--shards", "2", "--mib", "1", model=str(tiny_model))
    patch.undo()
    return recipe / "packs"


def one_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that gives a limited training one step, however slow the machine is."""
    import loop

    monkeypatch.setattr(loop, "planned_end", lambda step, *rest: (1 if step == 0 else step, 1))


def test_shards_hold_the_photos_within_their_size_and_without_the_tests(recipe, shards, tmp_path):
    import photos
    import shards as module

    packs = sorted(shards.glob("*.zip"))
    assert [path.name for path in packs] == ["shard-0.zip", "shard-1.zip"]
    assert all(path.stat().st_size <= 2**20 for path in packs)
    summary = module.read_shards(shards, tmp_path / "pack")
    assert summary["train"] > 20 and summary["validation"] > 5 and summary["monochrome"] == 1 and summary["broken"] <= 1
    folder = recipe / "pair" / "pack"  # of the same folder, packed without travel
    for split in ("train", "validation"):
        ours, theirs = photos.load_pack(tmp_path / "pack", split), photos.load_pack(folder, split)
        assert ours.files == theirs.files
        hashed = [json.loads((pack / f"{split}.json").read_text())["contents"] for pack in (tmp_path / "pack", folder)]
        assert all(hashed[0]) and hashed[0] == [content[:12] for content in hashed[1]], "of the original photos"
        for index in range(len(ours.files)):
            difference = ours.photo(index).astype(int) - theirs.photo(index)
            assert (
                np.sqrt((difference**2).mean()) < 25
            )  # edges of drawn color, halved in chroma; another photo is 80 off
    assert photos.load_pack(tmp_path / "pack", "test").files == []
    with zipfile.ZipFile(packs[0]) as archive:
        names = archive.namelist()
        assert "model/unet/diffusion_pytorch_model.safetensors" in names and not any(".onnx" in name for name in names)
    licenses = []
    for path in packs:
        with zipfile.ZipFile(path) as archive:
            licenses += list(csv.DictReader(io.StringIO(archive.read("manifest.csv").decode())))
    assert [(row["file"], row["license"]) for row in licenses] == [("drawn/0.png", "CC0")]


def test_of_a_set_only_so_many_training_photos_travel_and_sets_of_weight_0_stay(recipe, tmp_path):
    from shards import _chosen

    settings = {"test": 0.1, "validation": 0.1, "most": {"a": 3}}
    found = [(share / 100, Path(f"{name}{share}"), f"{name}/{share}") for share in range(100) for name in "ab"]
    chosen = _chosen(found, settings)
    assert [file for _, file, split in chosen if split == "train" and file.startswith("a/")] == ["a/20", "a/21", "a/22"]
    assert sum(split == "validation" for _, _, split in chosen) == 20 and not any(
        split == "test" for *_, split in chosen
    )
    assert sum(file.startswith("b/") for _, file, _ in chosen) == 90


@pytest.mark.parametrize("what", ["missing", "damaged", "format", "mixed"])
def test_shards_that_are_not_whole_are_one_line(recipe, shards, tmp_path, what):
    from shards import read_shards

    folder = tmp_path / "packs"
    shutil.copytree(shards, folder)
    last = folder / "shard-1.zip"
    if what == "missing":
        last.unlink()
    elif what == "damaged":
        last.write_bytes(last.read_bytes()[:-100])
    else:
        with zipfile.ZipFile(last) as archive:
            entries = {name: archive.read(name) for name in archive.namelist()}
        listed = json.loads(entries["list.json"])
        listed |= {"format": 99} if what == "format" else {"train_hash": "other"}
        entries["list.json"] = json.dumps(listed).encode()
        with zipfile.ZipFile(last, "w") as archive:
            for name, data in entries.items():
                archive.writestr(name, data)
    expected = {
        "missing": "shard 1 of 2 is missing; copy it here",
        "damaged": "shard-1.zip: not a whole shard",
        "format": "format 99, not 2; pack the photos again",
        "mixed": "shards of different packs",
    }
    with pytest.raises(SystemExit, match=expected[what]) as caught:
        read_shards(folder, tmp_path / "pack")
    assert "\n" not in str(caught.value)


def test_shards_of_the_format_before_are_read_without_hashes(recipe, shards, tmp_path):
    import photos
    from shards import read_shards

    folder = shutil.copytree(shards, tmp_path / "packs")
    for path in folder.glob("*.zip"):
        with zipfile.ZipFile(path) as archive:
            entries = {name: archive.read(name) for name in archive.namelist()}
        listed = json.loads(entries["list.json"])
        listed |= {"format": 1, "files": [row[:2] for row in listed["files"]]}
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in (entries | {"list.json": json.dumps(listed).encode()}).items():
                archive.writestr(name, data)
    summary = read_shards(folder, tmp_path / "pack")
    assert photos.load_pack(tmp_path / "pack", "train").files
    (seen,) = photos.training_sets(tmp_path / "pack", {}, ())
    assert (seen.name, seen.count, seen.photos) == ("drawn", summary["train"], ())


def test_photos_that_do_not_fit_are_one_line_and_nothing_is_written(recipe, tiny_model, monkeypatch, tmp_path):
    with pytest.raises(SystemExit, match="do not fit into 1 shards of 0.1 MiB"):
        make_shards(recipe, monkeypatch, tmp_path / "packs", "--shards", "1", "--mib", "0.1", model=str(tiny_model))
    assert not (tmp_path / "packs").exists()


def test_a_limited_training_leaves_weights_table_and_sheet(recipe, shards, monkeypatch, tmp_path, capsys):
    """From shards alone; the result is exported elsewhere, and goes on from its weights with another plan."""
    from chromatune import Colorizer

    one_step(monkeypatch)
    train(recipe, monkeypatch, shards, tmp_path / "w", "--minutes", "5", "--batch", "5", "--loaders", "2")
    result = tmp_path / "w" / "result"
    said = capsys.readouterr().out
    assert "pairs/s" in said and "waiting for pairs" in said
    table = (result / "validation.md").read_text()
    assert "drawings" in table and "difference" in table
    assert (result / "sheet.jpg").stat().st_size > 1000
    assert json.loads((result / "settings.json").read_text())["batch"] == 5
    weights = str(result / "colorizer.safetensors")
    train(recipe, monkeypatch, shards, tmp_path / "w", "--stage", "export", "--weights", weights)
    colorizer = Colorizer.load(str(tmp_path / "w" / "models" / "mini"), device="cpu")
    assert colorizer.colorize(np.full((70, 90), 128, np.uint8)).rgb.shape == (70, 90, 3)
    with pytest.raises(SystemExit, match="not this model's weights"):
        train(recipe, monkeypatch, shards, tmp_path / "x", "--weights", weights, "--plan", "wide", "--minutes", "5")


def test_a_finished_limited_training_is_only_loaded(recipe, shards, monkeypatch, tmp_path):
    import loop

    one_step(monkeypatch)
    words = ("--minutes", "5", "--loaders", "0")
    train(recipe, monkeypatch, shards, tmp_path / "w", *words)
    before = (tmp_path / "w" / "result" / "colorizer.safetensors").read_bytes()
    monkeypatch.setattr(loop, "learning_rate", lambda *arguments: pytest.fail("it is trained on"))
    train(recipe, monkeypatch, shards, tmp_path / "w", *words)
    train(recipe, monkeypatch, shards, tmp_path / "w", "--stage", "colorizer")  # without a limit, too
    assert (tmp_path / "w" / "result" / "colorizer.safetensors").read_bytes() == before


def test_a_limited_training_goes_on_after_a_kill(recipe, shards, monkeypatch, tmp_path, killed_once_after):
    """Saved after each step, and killed after the first of three: the same command takes the other two."""
    import loop
    import make

    monkeypatch.setattr(make, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(loop, "planned_end", lambda step, *rest: (3, 1))
    saved = killed_once_after(1)
    words = ("--minutes", "5", "--plan", "critic", "--loaders", "0")
    with pytest.raises(KeyboardInterrupt):
        train(recipe, monkeypatch, shards, tmp_path / "w", *words)
    assert not (tmp_path / "w" / "result").exists()
    train(recipe, monkeypatch, shards, tmp_path / "w", *words)
    assert saved == [1, 2, 3]
    state = torch.load(tmp_path / "w" / "colorizer.pt", weights_only=True)
    assert state["time_was_up"] and state["companion"]["steps"] == 3  # the critic went on, too
    assert (tmp_path / "w" / "result" / "validation.md").exists()


def test_a_plan_may_bring_a_unet_and_a_critic(recipe, shards, monkeypatch, tmp_path):
    import safetensors.torch

    one_step(monkeypatch)
    train(recipe, monkeypatch, shards, tmp_path / "w", "--minutes", "5", "--plan", "critic", "--loaders", "0")
    weights = safetensors.torch.load_file(tmp_path / "w" / "result" / "colorizer.safetensors")
    assert weights["unet.conv_in.weight"].shape[:2] == (32, 8)
    row = json.loads((tmp_path / "w" / "result" / "colorizer.jsonl").read_text().splitlines()[-1])
    assert {"critic", "on_real", "on_made", "pairs_per_s", "loader_wait"} <= row.keys()
    state = torch.load(tmp_path / "w" / "colorizer.pt", weights_only=True)
    assert state["companion"]["steps"] == 1


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--minutes", "0", "--from-model", "mini"], "--minutes 0: give a number above 0"),
        (["--minutes", "1"], "give --from-model, such as mini, or a folder of shards"),
        (["--batch", "0"], "--batch 0: give 1 or more"),
        (["--loaders", "-1"], "--loaders -1: give 0 or more"),
        (["--weights", "nowhere.safetensors"], "there is no file nowhere.safetensors"),
    ],
)
def test_wrong_options_are_one_line(recipe, monkeypatch, capsys, tmp_path, words, line):
    with pytest.raises(SystemExit):
        train(recipe, monkeypatch, recipe / "photos", tmp_path / "w", *words)
    assert line in capsys.readouterr().err
    assert not (tmp_path / "w").exists()


def test_time_that_loading_uses_up_is_one_line(recipe, shards, monkeypatch, tmp_path):
    with pytest.raises(SystemExit, match="the time was up before the first step .*; give more --minutes"):
        train(recipe, monkeypatch, shards, tmp_path / "w", "--minutes", "1e-9", "--loaders", "0")
    assert not (tmp_path / "w" / "result").exists()


def test_a_folder_that_is_not_there_is_one_line(recipe, tmp_path):
    from photos import find_photos

    with pytest.raises(SystemExit, match="nowhere: there is no such folder"):
        find_photos(tmp_path / "nowhere")


def test_an_unknown_plan_is_one_line(recipe, monkeypatch, tmp_path):
    with pytest.raises(SystemExit, match="--plan other: .*settings.toml has wide, critic"):
        train(recipe, monkeypatch, recipe / "photos", tmp_path / "w", "--plan", "other")


def test_the_learning_rate_falls_when_the_time_is_nearly_up(recipe, monkeypatch):
    """A clock of its own: steps of 2 s, at first thought to take 1 s, in 100 s of which 10 are kept for the end."""
    import loop

    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    limit, settings = loop.TimeLimit(100 / 60, 0.0), {"decay_share": 0.2}
    limit.reserve = 10.0
    rates = []
    for step in itertools.count():
        end, decay = loop.planned_end(step, settings, limit, (None if step < 3 else 2.0))
        if step >= end:
            break
        rates.append(loop.learning_rate(step, end, 5, 1.0, decay))
        now += 2.0
    assert len(rates) == 45 and now == 90.0  # the last step ends as the reserve begins
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0]) and rates[5:35] == [1.0] * 30
    assert sorted(rates[35:], reverse=True) == rates[35:] and rates[-1] < 0.05
    assert math.isinf(loop.planned_end(0, settings, loop.TimeLimit(9, now), None)[0])


def test_processes_make_the_same_batches_as_a_thread(recipe):
    import colorize
    import make
    import photos
    from loop import Machine

    settings = make.read_settings(recipe / "settings.toml", None)["colorizer"] | {"seed": 3, "batch": 40}
    pack = photos.load_pack(recipe / "pair" / "pack", "train")
    made = []
    for loaders in (0, 2):
        stream = colorize.training_batches(pack, settings, 32, 5, Machine(torch.device("cpu"), loaders=loaders))
        made.append([next(stream), next(stream)])
        stream.close()
    for (gray, color, texts), (other_gray, other_color, other_texts) in zip(*made, strict=True):
        assert gray.shape == (40, 32, 32) and color.shape == (40, 32, 32, 3) and texts == other_texts
        assert torch.equal(gray, other_gray) and torch.equal(color, other_color)
    assert not torch.equal(made[0][0][1], made[0][1][1])  # another step, another batch


def test_half_precision_differs_from_float32_by_rounding_alone(recipe, tiny_model):
    """The same loss by both, for the same batch: autocast, and frozen modules in float16 as on a GPU."""
    import colorize
    import make
    import photos
    from loop import Machine, step_generator

    from chromatune.pipeline import TextEmbedder

    vae, tokenizer, editor, encoder = make.open_model(str(tiny_model))
    settings = make.read_settings(recipe / "settings.toml", None)["colorizer"] | {"seed": 3, "batch": 8}
    pack = photos.load_pack(recipe / "pair" / "pack", "train")
    losses = []
    for precision, frozen in ((torch.float32, torch.float32), (torch.bfloat16, torch.float16)):
        vae.to(frozen)
        editor.text_encoder.to(frozen)
        machine = Machine(torch.device("cpu"), precision)
        batch = next(colorize.training_batches(pack, settings, 64, 0, machine))
        painter = colorize.Painter(editor.unet, encoder)
        texts = colorize.KnownTexts(TextEmbedder(tokenizer, editor.text_encoder))
        loss, logged = colorize.ColorizerLoss(vae, painter, texts, settings, machine, None)(batch, step_generator(1, 0))
        assert loss.dtype == torch.float32
        losses.append(logged["v"].item())
    assert losses[0] != losses[1] and losses[0] == pytest.approx(losses[1], rel=0.02)


def test_the_critic_learns_to_tell_chroma_and_pulls_by_its_share(recipe):
    """Real chroma is of one sign, made chroma near zero; the pull's gradient is the share of the error's."""
    from autoencoder import chroma_latents
    from critic import Adversary
    from loop import Machine

    torch.manual_seed(0)
    settings = {"adversarial_share": 0.25, "critic_lr": 2e-3, "critic_alone": 40}
    adversary = Adversary(0, settings, Machine(torch.device("cpu")))
    prediction = torch.zeros(10, 4, 8, 8, requires_grad=True)  # two more than the critic sees
    made = chroma_latents(prediction[:8])
    condition = torch.randn(8, 4, 8, 8)
    for number in range(60):
        latents = condition.clone()
        latents[:, 2:] = 2.0
        error = (prediction - 1).square().mean()
        added, logged = adversary.step(made, latents, condition, None, error, prediction)
        if number < 40:
            assert added.item() == 0
    assert logged["on_real"] > logged["on_made"] + 0.5
    slopes = [torch.autograd.grad(each, prediction, retain_graph=True)[0][:8] for each in (error, added)]
    of_error, of_pull = (chroma_latents(slope).norm() for slope in slopes)
    assert (of_pull / of_error).item() == pytest.approx(0.25, rel=1e-3)
    again = Adversary(0, settings, Machine(torch.device("cpu")))
    again.load_state_dict(adversary.state_dict())
    assert again.steps == 60 and all(
        torch.equal(weight, other)
        for weight, other in zip(again.critic.parameters(), adversary.critic.parameters(), strict=True)
    )


def test_validation_takes_every_kind_in_turn(recipe):
    from validation import in_turn

    files = [f"a/{number}" for number in range(5)] + ["b/0", "c/0"]
    order = in_turn(files, {"one": ["a"], "two": ["b"]})
    assert [kind for kind, _ in order] == ["one", "other", "two", "one", "one", "one", "one"]
    assert sorted(index for _, index in order) == list(range(7))

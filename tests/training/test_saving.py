"""The model card: what a reader and the hub find in it."""

from __future__ import annotations

import ast
import shutil

import pytest
from huggingface_hub import ModelCard

from chromatune.data import content_of
from chromatune.errors import ModelError
from chromatune.pipeline import TrainingSet, read_training_data
from chromatune.training.report import flatten, format_value
from chromatune.training.saving import model_card, save_result

SAMPLING = {"num_inference_steps": 20, "guidance_scale": 7.0, "image_guidance_scale": 1.5}
INFO = {
    "name": "family-photos",
    "base_model": "timbrooks/instruct-pix2pix",
    "preset": "best",
    "kind": "pipeline",
    "steps": 4000,
    "seed": 7,
    "prompt": "colorize the photo",
    "sampling": SAMPLING,
    "settings": {"lr": 3e-4, "parts": "unet", "lab_weight": 1.0, "photos": None, "loss": {"min_snr_gamma": 5.0}},
    "data": {
        "source": "lfw",
        "counts": {"train": 690, "validation": 76},
        "split_digest": "0123456789abcdef",
        "left out": {"gray": 3},
    },
    "versions": {"chromatune": "0.1.0", "torch": "2.13.0"},
    "validation": {"before": {"psnr": 21.2345678, "ab_mse": 88.0}, "after": {"psnr": 23.5, "noise_loss": 0.25}},
}


@pytest.mark.parametrize("parts", ["unet", "lora"])
def test_a_models_folder_lists_what_it_and_its_ancestors_were_trained_on(start, drawn_photos, parts):
    """The photos that were held out are not in the list; a run that resumes, from its cache, lists the same."""
    result, _ = start("first", max_steps=1)
    first = save_result(result, str(drawn_photos), "quick")
    (own,) = read_training_data(str(first))
    assert own == TrainingSet.of("drawn0", [content_of(item.read()) for item in result.cache.items])
    assert own.count == len(own.photos) == len(result.cache.items) < 12
    held_out = [
        content_of(item.read()) for item in result.split.validation if item.key not in ("gray.png", "broken.jpg")
    ]
    assert held_out and not set(TrainingSet.of("", held_out).photos) & set(own.photos)
    for _ in range(2):
        child, _ = start("second", model=first, max_steps=1, seed=3, parts=parts)
        folder = save_result(child, "lfw:elsewhere/photos", "quick")
        before, after = read_training_data(str(folder))
        assert before == own and (after.name, after.count) == ("photos", len(child.cache.items))
        assert "| seen before | 1 set |" in rows((folder / "README.md").read_text())


def test_a_damaged_list_of_the_base_shows_before_the_training(start, tiny_pipeline, tmp_path):
    base = shutil.copytree(tiny_pipeline(), tmp_path / "base")
    (base / "training_data.json").write_text("[]")
    with pytest.raises(ModelError, match=r"training_data\.json holds a list"):
        start(model=base)
    assert not (tmp_path / "run").exists()


def front_matter(card):
    return ModelCard(card).data.to_dict()


def rows(card):
    return [line for line in card.splitlines() if line.startswith("|")]


def test_front_matter_is_what_the_hub_reads():
    front = front_matter(model_card(INFO))
    assert front["base_model"] == "timbrooks/instruct-pix2pix"
    assert (front["library_name"], front["pipeline_tag"]) == ("diffusers", "image-to-image")
    assert (front["license"], front["license_name"]) == ("other", "same-as-base-and-data")
    assert "lora" not in front["tags"]


@pytest.mark.parametrize("base", ["mini-base", "/home/someone/models/base", "nothing/like a name"])
def test_a_base_that_is_not_on_the_hub_is_not_in_the_front_matter(base):
    """The hub refuses a card with such a base."""
    assert "base_model" not in front_matter(model_card(INFO | {"base_model": base}))


def test_a_folders_path_stays_at_home():
    card = model_card(INFO | {"base_model": "/home/someone/models/base"})
    assert "someone" not in card and "`base`" in card


def test_everything_known_is_said():
    card = model_card(INFO)
    for text in ("# family-photos", "preset `best`", "4000 steps", "seed 7", "chromatune 0.1.0, torch 2.13.0"):
        assert text in card, text
    for row in (
        "| source | lfw |",
        "| photos: train | 690 |",
        "| split digest | 0123456789abcdef |",
        "| left out.gray | 3 |",
        "| lr | 0.0003 |",
        "| photos | none |",
        "| loss.min_snr_gamma | 5 |",
        "| psnr | 21.235 | 23.5 |",
        "| ab_mse | 88 |  |",
        "| noise_loss |  | 0.25 |",
    ):
        assert row in rows(card), row
    assert "Same as base and data" in card
    for heading in ("## Use", "## Intended use and limits", "## Data", "## Validation", "## Settings", "## License"):
        assert heading in card, heading


@pytest.mark.parametrize("kind", ["pipeline", "lora"])
def test_code_in_the_card_is_python(kind):
    card = model_card(INFO | {"kind": kind, "prompt": 'say "color"'})
    blocks = [block.split("```")[0] for block in card.split("```python\n")[1:]]
    assert len(blocks) == 2
    for block in blocks:
        ast.parse(block)
    assert ("load_lora_weights" in card) == (kind == "lora")
    assert ("lora" in front_matter(card)["tags"]) == (kind == "lora")


@pytest.mark.parametrize("kind", ["pipeline", "lora"])
def test_the_stock_pipeline_samples_as_the_model_is_meant_to(kind):
    block = model_card(INFO | {"kind": kind}).split("```python\n")[2].split("```")[0]
    calls = [node for node in ast.walk(ast.parse(block)) if isinstance(node, ast.Call) and node.keywords]
    named = {word.arg: word.value for call in calls for word in call.keywords}
    values = {name: ast.literal_eval(named[name]) for name in SAMPLING}
    assert values == SAMPLING


def test_a_lora_on_an_embedded_model_says_where_that_is():
    card = model_card(INFO | {"kind": "lora", "base_model": "mini-base"})
    assert 'from_pretrained(MODELS_DIR / "mini-base")' in card and "import MODELS_DIR" in card


def test_a_license_of_ones_own_is_said_as_it_is():
    assert "CC BY 4.0: the terms" in model_card(INFO | {"license": "CC BY 4.0"})


def test_nothing_known_is_still_a_card():
    card = model_card({})
    assert "not recorded" in card and "Not measured." in card and "None" not in card
    assert front_matter(card)["library_name"] == "diffusers"


def test_values_break_no_table():
    card = model_card(INFO | {"settings": {"prompt": "a|b\nc"}})
    assert "| prompt | a\\|b c |" in rows(card)


def test_flat_rows_and_values():
    assert flatten({"a": 1, "b": {"c": {"d": 2}}}) == [("a", 1), ("b.c.d", 2)]
    values = (None, 5e-6, 0.1 + 0.2, (0.9, 0.999), "word", True, 12345678)
    assert [format_value(value) for value in values] == [
        "none", "5e-06", "0.3", "0.9, 0.999", "word", "True", "12345678"
    ]  # fmt: skip

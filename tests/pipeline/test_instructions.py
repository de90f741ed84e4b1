"""Instructions in anybody's words: what reaches the text encoder of a model that was taught few, and what is told."""

from __future__ import annotations

import dataclasses
import json
import shutil
import tomllib

import cv2
import numpy as np
import pytest
import skimage

from chromatune import prompts
from chromatune.colorizer import Colorizer
from chromatune.options import make_options
from chromatune.pipeline import load_pipeline, model_info
from chromatune.pipeline.instructions import LOOKS, WORDS_FILE, Reading, knows, read_instruction
from chromatune.pipeline.model_files import find_pipeline
from chromatune.pipeline.onnx_backend import OnnxBackend, load_onnx_pipeline
from chromatune.pipeline.torch_backend import TorchBackend
from chromatune.prompts import COLORIZE_PROMPTS, DEFAULT_PROMPT, HELD_OUT_PROMPTS, with_attribute

TAUGHT = frozenset(prompts.taught_words())
WARM, COOL, VIVID, MUTED = (f"{DEFAULT_PROMPT}, {word} colors" for word in prompts.ATTRIBUTES)
BLUE, GREEN = (f"{DEFAULT_PROMPT}, mostly {hue}" for hue in ("blue", "green"))
# Instruction, what the encoder gets, what the note names
INSTRUCTIONS = [
    # a color of a thing is no color of the picture
    ("A woman in a red dress, blue floor", DEFAULT_PROMPT, ("A woman in a red dress", "blue floor")),
    ("a woman with red hair", DEFAULT_PROMPT, ("a woman with red hair",)),
    ("make the background blue", DEFAULT_PROMPT, ("make the background blue",)),
    ("red hat and warm colors", WARM, ("red hat",)),
    ("a red and blue dress", DEFAULT_PROMPT, ("a red and blue dress",)),
    ("a dress in blue tones", DEFAULT_PROMPT, ("a dress in blue tones",)),
    ("a red rose", DEFAULT_PROMPT, ("a red rose",)),
    ("das Kleid rot, der Himmel blau", DEFAULT_PROMPT, ("das Kleid rot", "der Himmel blau")),
    ("le ciel bleu et la robe rouge", DEFAULT_PROMPT, ("le ciel bleu", "la robe rouge")),
    ("un vestido rojo y azul, colores cálidos", WARM, ("un vestido rojo y azul",)),
    (f"{DEFAULT_PROMPT} of a lady in a blue uniform, vivid colors", VIVID, ("of a lady in a blue uniform",)),
    # a look of the picture stays
    ("mostly blue", BLUE, ()),
    ("warm colors", WARM, ()),
    ("please paint the photo blue", BLUE, ()),
    ("restore the colors of this photo in a blue tone", "restore the colors of this photo, mostly blue", ()),
    ("teal & scarlet", f"{DEFAULT_PROMPT}, mostly cyan, mostly red", ()),
    ("MORE COLOURFUL!", VIVID, ()),
    ("1950s, faded colours", MUTED, ("1950s",)),
    # as usual
    ("natural colors", DEFAULT_PROMPT, ()),
    ("realistic skin tones, true-to-life", DEFAULT_PROMPT, ("life",)),
    ("natürliche Farben", DEFAULT_PROMPT, ()),
    # other languages
    ("mehr blau, warme Farben", f"{DEFAULT_PROMPT}, mostly blue, warm colors", ()),
    ("Koloriere das Bild in kühlen Farben", COOL, ()),
    ("das Foto soll GRÜN sein", GREEN, ()),
    ("des tons chauds et l’image plus bleue", f"{DEFAULT_PROMPT}, warm colors, mostly blue", ()),
    ("tonos azules", BLUE, ()),
    ("colori tenui", MUTED, ()),
    ("cores frias, mais verde", f"{DEFAULT_PROMPT}, cool colors, mostly green", ()),
    # words that nobody taught it
    ("what was this like in real life? show the colors", DEFAULT_PROMPT, ("was", "life")),
    ("please colorize this beautiful image", DEFAULT_PROMPT, ("beautiful",)),
    ("no blue", DEFAULT_PROMPT, ("no blue",)),
    ("ohne Rot, weniger Blau", DEFAULT_PROMPT, ("ohne Rot", "weniger Blau")),
    ("sépia", DEFAULT_PROMPT, ("sépia",)),
    ("红色的裙子", DEFAULT_PROMPT, ("红色的裙子",)),
    ("🎨 warm colors", DEFAULT_PROMPT, ("🎨 warm colors",)),
    # what is no instruction at all
    ("", "", ()),
    (" \t\n ", " \t\n ", ()),
    ("?!… --", DEFAULT_PROMPT, ()),
    ("warm\x1b[2J colors\x00", DEFAULT_PROMPT, ("'warm\\x1b'", "2J", "'colors\\x00'")),
    ("pho\u200bto, mostly blue", BLUE, ("'pho\\u200bto'",)),
    ("x" * 1000, DEFAULT_PROMPT, ("x" * 30 + "…",)),
    ("a kind word " * 83, DEFAULT_PROMPT, ("kind", "word")),
    ("b1 b2 b3 b4 b5 b6 b7 " * 47, DEFAULT_PROMPT, ("b1", "b2", "b3", "b4", "b5")),
]  # fmt: skip


@pytest.fixture(scope="module")
def mini() -> Colorizer:
    return Colorizer.load("mini", device="cpu", runtime="onnx")


@pytest.fixture
def encoded(mini, monkeypatch) -> list[str]:
    """The texts that reach the text encoder."""
    got: list[str] = []
    embed = mini.backend._embed

    def spy(text: str) -> np.ndarray:
        got.append(text)
        return embed(text)

    monkeypatch.setattr(mini.backend, "_embed", spy)
    return got


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    return cv2.resize(skimage.data.astronaut()[:256, 100:356].mean(axis=2).astype(np.uint8), (64, 64))


@pytest.mark.parametrize(("instruction", "expected", "named"), INSTRUCTIONS)
def test_what_reaches_the_encoder_and_what_is_told(mini, photo, encoded, instruction, expected, named):
    result = mini.colorize(photo, make_options(prompt=instruction, size_px=64))
    assert encoded == [expected, ""] and result.prompt == instruction
    assert len(result.warnings) == bool(named)
    for line in result.warnings:
        assert ", ".join(f"“{each}”" for each in named) in line and "--hints" in line
        assert line.isprintable() and len(line) < 350
        assert ("and 2 more" in line) == instruction.startswith("b1")


def test_a_negative_prompt_is_read_alike_and_one_line_tells_of_both(mini, photo, encoded):
    asked = {"prompt": "a blue hat, warme Farben", "negative_prompt": "blurry, a blue hat, trop de vert, mehr rot"}
    result = mini.colorize(photo, make_options(**asked, size_px=64, guidance_scale=2.0))
    assert encoded == [WARM, f"{DEFAULT_PROMPT}, mostly red"] and result.negative_prompt == asked["negative_prompt"]
    (line,) = result.warnings
    assert "“a blue hat”, “blurry”, “trop de vert”" in line
    assert mini.info.read(mini.info.resolve(make_options(negative_prompt="blurry")))[0].negative_prompt == ""


def test_the_default_is_what_a_photo_gets_where_nothing_is_left(mini, photo):
    default = mini.colorize(photo, make_options(size_px=64)).rgb
    for instruction in ("A woman in a red dress, blue floor", "natural colors", "sépia"):
        np.testing.assert_array_equal(mini.colorize(photo, make_options(prompt=instruction, size_px=64)).rgb, default)


def test_what_was_taught_is_read_to_the_character():
    words = [*prompts.ATTRIBUTES, prompts.NO_ATTRIBUTE]
    forms = [(form, word) for form in prompts.ATTRIBUTE_FORMS for word in words]
    forms += [(form, hue) for form in prompts.HUE_FORMS for hue in prompts.NAMED_HUES]
    taught = [with_attribute(prompt, *each) for prompt in COLORIZE_PROMPTS for each in forms]
    others = ["Colorize the PHOTO, mostly blue.", "make this image colorful", "black and white to color", ""]
    for instruction in (*COLORIZE_PROMPTS, *taught, *others):
        assert read_instruction(instruction, TAUGHT) == Reading(instruction)
    assert [each for each in HELD_OUT_PROMPTS if knows(TAUGHT, each)] == others[1:3]


def test_known_prompts_give_the_pixels_that_they_gave(mini, photo):
    """Against the encoder's own numbers, without any reading of instructions."""
    pipeline = load_onnx_pipeline(find_pipeline("mini"))
    plain = Colorizer(OnnxBackend(dataclasses.replace(pipeline, info=dataclasses.replace(pipeline.info, words=None))))
    for prompt in (*COLORIZE_PROMPTS[::6], WARM, MUTED, f"{COLORIZE_PROMPTS[25]} with a lot of blue", BLUE, ""):
        options = make_options(prompt=prompt, size_px=64)
        np.testing.assert_array_equal(mini.colorize(photo, options).rgb, plain.colorize(photo, options).rgb)


def test_a_model_without_a_list_gets_all_words(tiny_pipeline, tmp_path):
    """And one with a list by torch as by ONNX Runtime."""
    shutil.copytree(tiny_pipeline(), tmp_path / "tiny")
    gray, asked = np.full((1, 32, 32), 0.4, np.float32), make_options(steps=2, prompt="a red dress", guidance_scale=3.0)

    def colorize(options, **listed):
        (tmp_path / "tiny" / "chromatune.json").write_text(json.dumps({"prompt": DEFAULT_PROMPT, **listed}))
        backend = TorchBackend(load_pipeline(str(tmp_path / "tiny"), device="cpu"))
        resolved = backend.info.resolve(options)
        return backend(gray, [resolved]).rgb, backend.warnings_of(resolved)

    free, told = colorize(asked)
    own, _ = colorize(make_options(steps=2, guidance_scale=3.0))
    assert told == () and not np.array_equal(free, own)
    bound, told = colorize(asked, words=sorted(TAUGHT))
    assert "“a red dress”" in told[0]
    np.testing.assert_array_equal(bound, own)


def test_the_shipped_colorizer_lists_what_it_was_taught():
    assert model_info("mini").words == prompts.taught_words()
    assert model_info("mini-base").words is None  # it stands for models that get all words


def test_a_models_own_default_passes_whatever_its_words():
    words = frozenset(["dye", "it", "blue"])
    assert read_instruction("tint it nicely", words, "tint it nicely") == Reading("tint it nicely")
    assert read_instruction("Tint it nicely, mehr blau", words, "tint it nicely").text == "Tint it nicely, mostly blue"
    assert read_instruction("rot", words, "dye it") == Reading("", ("rot",))  # red was not taught


@pytest.mark.parametrize("language", ["german", "french", "spanish", "italian", "portuguese"])
def test_each_language_has_all_looks(language):
    table = tomllib.loads(WORDS_FILE.read_text(encoding="utf-8"))
    for look in sorted(LOOKS):
        word = table[language][look].split()[0]
        text = read_instruction(word, TAUGHT).text
        form = prompts.HUE_FORMS[0] if look in prompts.HUE_DEGREES else prompts.ATTRIBUTE_FORMS[0]
        assert text == with_attribute(DEFAULT_PROMPT, form, look)


def test_any_text_becomes_taught_words_that_stay_as_they_are():
    table = tomllib.loads(WORDS_FILE.read_text(encoding="utf-8"))
    others = [word for language in table.values() for words in language.values() for word in words.split()]
    strange = "dress 1950 ΰ İ 🙂 ﬁ , . ; - ' \x00 \u200b \ud800".split(" ")
    pieces = [*sorted(TAUGHT), *others, *COLORIZE_PROMPTS, *strange, "\n"]
    rng = np.random.default_rng(3)
    for count in rng.integers(1, 12, 3000):
        instruction = " ".join(pieces[index] for index in rng.integers(len(pieces), size=count))
        reading = read_instruction(instruction, TAUGHT)
        assert knows(TAUGHT, reading.text), instruction
        assert read_instruction(reading.text, TAUGHT) == Reading(reading.text), instruction
        assert not (reading.left_out and reading.text == instruction), instruction

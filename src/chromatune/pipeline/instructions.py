"""Instructions in anybody's words ⇒ what a model that was taught few words gets of them, and what is left out."""

from __future__ import annotations

import re
import sys
import tomllib
import unicodedata
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from chromatune.prompts import (
    ATTRIBUTE_FORMS,
    ATTRIBUTES,
    COLORIZE_PROMPTS,
    DEFAULT_PROMPT,
    HUE_DEGREES,
    HUE_FORMS,
    with_attribute,
)

WORDS_FILE = Path(__file__).with_name("words.toml")
BREAK = re.compile(r"[,;:!?…\n\r()\[\]{}\"“”„«»|/+&]|\.+(?=\s|$)|\s[-–—]+\s")  # between clauses
WORD = re.compile(r"[^\s'’`´_-]+")
LOOKS = frozenset((*ATTRIBUTES, *HUE_DEGREES))
IGNORED = "ignored"


@dataclass(frozen=True)
class Reading:
    """An instruction as a model gets it.

    Attributes:
        text: in taught words; "" where nothing is left.
        left_out: as it was written: words that were not taught, and colors of single things.
    """

    text: str
    left_out: tuple[str, ...] = ()


def read_instruction(instruction: str, words: Collection[str], default: str = DEFAULT_PROMPT) -> Reading:
    """Return what a model that was taught `words` gets of an instruction.

    What was taught stays as it is, to the character. Other instructions are read clause by clause. A clause with an
    unknown word is left out, and so is one that gives a color to a thing ("blue floor"): the model would give it to the
    whole picture. Looks, in any of six languages, are said after the instruction in a form that was taught.

    Args:
        instruction: in any words.
        words: that the model was taught, in lower case.
        default: instruction to put looks after, where they have none of their own.
    """
    head = _taught_head(instruction, words, default)
    clauses = list(_clauses(instruction[len(head) :], words))
    begins_as_taught = head or (clauses[0].is_base if clauses else not instruction.strip())
    if begins_as_taught and all(each.is_as_taught for each in clauses):
        return Reading(instruction)
    looks = dict.fromkeys(look for each in clauses for look in each.looks)
    left_out = tuple(dict.fromkeys(part for each in clauses for part in each.left_out))
    if not head and not looks:
        return Reading("", left_out)
    text = head or default
    for look in looks:
        text = with_attribute(text, (HUE_FORMS if look in HUE_DEGREES else ATTRIBUTE_FORMS)[0], look)
    return Reading(text, left_out)


def knows(words: Collection[str], instruction: str) -> bool:
    """Return whether all words of an instruction are among `words`."""
    return all(_all_taught(_words(part, words)) for part in BREAK.split(instruction))


def instruction_tables() -> dict[str, Any]:
    """Return what another implementation of `read_instruction` needs, ready for JSON: words, forms and foldings.

    `folds` has the letters whose `str.casefold` is not their lower case; `prompts` come with the longest first.
    """
    table = _table()
    letters = (chr(code) for code in range(sys.maxunicode + 1))
    return {
        "default": DEFAULT_PROMPT,
        "prompts": sorted(COLORIZE_PROMPTS, key=len, reverse=True),
        "attribute_forms": list(ATTRIBUTE_FORMS),
        "hue_forms": list(HUE_FORMS),
        "hues": list(HUE_DEGREES),
        "looks": sorted(LOOKS),
        "roles": {role: sorted(words) for role, words in table.roles.items()},
        "beside_looks": sorted(table.beside_looks),
        "meanings": table.meanings,
        "folds": {letter: letter.casefold() for letter in letters if letter.casefold() != letter.lower()},
    }


@dataclass(frozen=True)
class _Word:
    text: str
    end: int  # in the clause's text
    is_taught: bool  # as it is written
    meaning: str  # a taught word; `IGNORED` where it says nothing; "" where it is unknown


@dataclass(frozen=True)
class _Clause:
    """A part of an instruction that is kept or left out as a whole."""

    source: str
    words: tuple[_Word, ...]

    def part(self, start: int, stop: int | None = None) -> _Clause:
        """Return some of its words."""
        return _Clause(self.source, self.words[start:stop])

    @property
    def text(self) -> str:
        """Its part of the instruction, without "and" before it."""
        first = next((word for word in self.words if word.meaning != "and"), self.words[-1])
        return self.source[first.end - len(first.text) : self.words[-1].end]

    @property
    def meanings(self) -> list[str]:
        """What its words mean."""
        return [word.meaning for word in self.words]

    @property
    def names_looks(self) -> bool:
        """Whether a look is named, whatever has it."""
        return not LOOKS.isdisjoint(self.meanings)

    @property
    def instructs(self) -> bool:
        """Whether it says anything beside looks and the words that go with them."""
        return any(meaning not in _table().beside_looks for meaning in self.meanings)

    @property
    def left_out(self) -> tuple[str, ...]:
        """What is named as left out; empty where the clause is kept."""
        if self._colors_a_thing():
            return (self.text,)
        return tuple(word.text for word in self.words if not word.meaning)

    @property
    def looks(self) -> list[str]:
        """The looks that it gives the whole picture."""
        return [] if self.left_out else [meaning for meaning in self.meanings if meaning in LOOKS]

    @property
    def is_as_taught(self) -> bool:
        """Whether it can stay as it is written."""
        mixed = self.instructs and any(word.text.casefold() in LOOKS for word in self.words)
        return _all_taught(self.words) and not self.left_out and not mixed

    @property
    def is_base(self) -> bool:
        """Whether it is an instruction that can stay as it is written, and has no look."""
        return self.instructs and self.is_as_taught

    @property
    def is_bare(self) -> bool:
        """Whether it has looks, and says nothing of what has them."""
        says_more = "" in self.meanings or self.instructs or self.has("scope") or self.has("things")
        return self.names_looks and not says_more

    def has(self, role: str) -> bool:
        """Return whether a word has a role, see words.toml."""
        return not _table().roles[role].isdisjoint(self.meanings)

    def _colors_a_thing(self) -> bool:
        if self.has("things") and (self.names_looks or self.has("contrast")):
            return True
        after_article = any(first == "a" and second in LOOKS for first, second in pairwise(self.meanings))
        return self.names_looks and ("" in self.meanings or after_article and not self.has("scope"))


def _taught_head(instruction: str, words: Collection[str], default: str) -> str:
    """Return the whole instruction that another begins with: the default one, or one of the thirty; "" if none."""
    for known in (default, *sorted(COLORIZE_PROMPTS, key=len, reverse=True)):
        head, after = instruction[: len(known)], instruction[len(known) : len(known) + 1]
        if head and head.casefold() == known.casefold() and not after.isalnum():
            return head if known == default or knows(words, head) else ""
    return ""


def _clauses(text: str, words: Collection[str]) -> Iterator[_Clause]:
    """Yield what is kept or left out as a whole."""
    for part in BREAK.split(text):
        if found := _words(part, words):
            for each in _at_conjunctions(_Clause(part, tuple(found))):
                yield from _with_tail_apart(each)


def _at_conjunctions(clause: _Clause) -> list[_Clause]:
    """Return the parts around "and"; one whole where a part is a mere look, as in "red and blue dress"."""
    starts = [0, *(i for i, meaning in enumerate(clause.meanings) if meaning == "and" and i)]
    parts: list[_Clause] = []
    for start, stop in pairwise([*starts, len(clause.words)]):
        part = clause.part(start, stop)
        if parts and (part.is_bare or parts[-1].is_bare):
            part = _Clause(clause.source, parts.pop().words + part.words)
        parts.append(part)
    return parts


def _with_tail_apart(clause: _Clause) -> list[_Clause]:
    """Return a clause without "in warm colors", "with a lot of blue" at its end, and that; a thing keeps its hue."""
    for i, meaning in enumerate(clause.meanings):
        head, tail = clause.part(0, i), clause.part(i)
        if i and meaning in ("in", "with") and tail.names_looks and tail.has("scope"):
            if tail.instructs or tail.has("things"):
                continue
            of_a_thing = "" in head.meanings or head.has("things") and not head.instructs
            return [clause] if of_a_thing and not HUE_DEGREES.keys().isdisjoint(tail.meanings) else [head, tail]
    return [clause]


def _words(text: str, words: Collection[str]) -> list[_Word]:
    found = []
    for match in WORD.finditer(text):
        written = match[0].casefold()
        meaning = _table().meanings.get(_folded(written), "")
        if meaning not in LOOKS and written in words:
            meaning = written
        elif meaning != IGNORED and meaning not in words:
            meaning = ""
        found.append(_Word(match[0], match.end(), written in words, meaning))
    return found


def _all_taught(words: Sequence[_Word]) -> bool:
    return all(word.is_taught for word in words)


@dataclass(frozen=True)
class _Table:
    roles: dict[str, frozenset[str]]
    meanings: dict[str, str]  # of other words, without case and accents
    beside_looks: frozenset[str]


@lru_cache(1)
def _table() -> _Table:
    """Return what words.toml says."""
    languages = tomllib.loads(WORDS_FILE.read_text(encoding="utf-8"))
    roles = {role: frozenset(words.split()) for role, words in languages.pop("roles").items()}
    meanings = {look: look for look in LOOKS}
    for language in languages.values():
        for meaning, words in language.items():
            for word in words.split():
                meanings.setdefault(_folded(word), meaning)
    beside = roles["frame"] | roles["usual"] | roles["things"] | LOOKS | {IGNORED, "and", ""}
    return _Table(roles, meanings, beside)


def _folded(word: str) -> str:
    """Return a word without case and accents."""
    parts = unicodedata.normalize("NFKD", word.casefold())
    return "".join(each for each in parts if not unicodedata.combining(each))

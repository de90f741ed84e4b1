"""Sets of instructions to train with: by name, from a text file, or the photos' own."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from chromatune.data.items import Source
from chromatune.errors import DataError, OptionsError, printable
from chromatune.files import open_regular
from chromatune.prompts import COLORIZE_PROMPTS, HELD_OUT_PROMPTS, SINGLE_PROMPT

PROMPT_SETS: dict[str, tuple[str, ...]] = {
    "thirty": COLORIZE_PROMPTS,
    "single": SINGLE_PROMPT,
    "held-out": HELD_OUT_PROMPTS,
}
OWN, AUTO = "source", "auto"  # each photo's own instruction; the same where the source has them, else `DEFAULT_SET`
DEFAULT_SET = "thirty"

MAX_FILE_BYTES = 16 * 2**20  # of a prompts file: some hundred thousand instructions
NOT_TEXT = ("Cc", "Cs")  # Unicode categories: control characters, halves of a pair


def instructions_of(source: Source, name: str) -> Sequence[str] | Mapping[str, str]:
    """Return the instructions to draw from, or the one of each photo, by its key.

    Args:
        source: photos, with or without instructions of their own.
        name: a name of `PROMPT_SETS`; "source" for the photos' own; "auto" for those where there are any, else
            "thirty"; or a text file, as for `prompt_set`.

    Raises:
        OptionsError: the photos have no instructions of their own.
        DataError: there is no such set or file, or the file has no instruction or is no text.
    """
    if name not in (OWN, AUTO):
        return prompt_set(name)
    if source.prompts:
        return {item.key: source.prompts.get(item.key) or drawn_prompt(item.key) for item in source.items}
    if name == AUTO:
        return PROMPT_SETS[DEFAULT_SET]
    raise OptionsError(f"{printable(source.name)} has no prompts of its own; give prompts=thirty, or a text file")


def drawn_prompt(key: str) -> str:
    """Return one of the thirty instructions, always the same one for a key: for a row that has none of its own."""
    return COLORIZE_PROMPTS[hashlib.sha256(key.encode()).digest()[0] % len(COLORIZE_PROMPTS)]


def prompt_text(value: Any) -> str:
    """Return a table's cell as an instruction on one line; "" where it holds none.

    Args:
        value: a text, or several of which the first counts that is not empty; all else is none.
    """
    if isinstance(value, list | tuple):
        return next(filter(None, map(prompt_text, value)), "")
    if not isinstance(value, str):
        return ""
    return " ".join("".join(" " if unicodedata.category(c) in NOT_TEXT else c for c in value).split())


def prompt_set(name_or_path: str) -> tuple[str, ...]:
    """Return the instructions of a set, in its order.

    Args:
        name_or_path: a name of `PROMPT_SETS`, or a UTF-8 text file with one instruction a line; blank lines and lines
            that begin with # are skipped.

    Raises:
        DataError: there is no such set or file, or the file has no instruction, is no text or far too long.
    """
    if name_or_path in PROMPT_SETS:
        return PROMPT_SETS[name_or_path]
    label = printable(name_or_path) or "''"
    lines = [prompt_text(line) for line in _text_of(name_or_path, label).splitlines()]
    prompts = tuple(line for line in lines if line and not line.startswith("#"))
    if not prompts:
        raise DataError(f"{label}: no prompts in this file; write one per line")
    return prompts


def _text_of(name: str, label: str) -> str:
    path = Path(name).expanduser()
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for, a device never ends
            raise DataError(f"{label}: is a folder or a device; give a text file with one prompt per line")
        with open_regular(path) as file:
            content = file.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            limit = MAX_FILE_BYTES // 2**20
            raise DataError(f"{label}: more than {limit} MiB; give a text file with one prompt per line")
        return content.decode("utf-8-sig")  # Windows editors write a mark in front
    except FileNotFoundError:
        accepted = ", ".join(PROMPT_SETS)
        raise DataError(f"{label}: no such prompt set or file; accepted: {accepted}, or a text file") from None
    except UnicodeDecodeError:
        raise DataError(f"{label}: not a text file in UTF-8; save it as one, with one prompt per line") from None
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{label}: cannot be read ({reason}); give a text file with one prompt per line") from error

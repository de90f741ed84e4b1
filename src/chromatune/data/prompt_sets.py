"""Sets of instructions to train with: by name, or from a text file."""

from __future__ import annotations

from pathlib import Path

from chromatune.errors import DataError, printable
from chromatune.prompts import COLORIZE_PROMPTS, HELD_OUT_PROMPTS, SINGLE_PROMPT

PROMPT_SETS: dict[str, tuple[str, ...]] = {
    "thirty": COLORIZE_PROMPTS,
    "single": SINGLE_PROMPT,
    "held-out": HELD_OUT_PROMPTS,
}


def prompt_set(name_or_path: str) -> tuple[str, ...]:
    """The instructions of a set, in its order.

    Args:
        name_or_path: a name of `PROMPT_SETS`, or a UTF-8 text file with one instruction a line; blank lines and lines
            that begin with # are skipped.

    Raises:
        DataError: there is no such set or file, or the file has no instruction or is no text.
    """
    if name_or_path in PROMPT_SETS:
        return PROMPT_SETS[name_or_path]
    label = printable(name_or_path) or "''"
    try:
        text = Path(name_or_path).expanduser().read_text(encoding="utf-8-sig")  # Windows editors write a mark in front
    except FileNotFoundError:
        accepted = ", ".join(PROMPT_SETS)
        raise DataError(f"{label}: no such prompt set or file; accepted: {accepted}, or a text file") from None
    except UnicodeDecodeError:
        raise DataError(f"{label}: not a text file in UTF-8; save it as one, with one prompt a line") from None
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{label}: cannot be read ({reason}); give a text file with one prompt a line") from error
    lines = [line.strip() for line in text.splitlines()]
    prompts = tuple(line for line in lines if line and not line.startswith("#"))
    if not prompts:
        raise DataError(f"{label}: no prompts in this file; write one a line")
    return prompts

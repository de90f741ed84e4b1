"""Lines of rows.jsonl and timings.jsonl: what each must hold to be counted."""

from __future__ import annotations

import math

from chromatune.evaluation.methods import Record
from chromatune.evaluation.summary import DRIFT_MAX, LPIPS, MEANS, SKIN

NAMES = ("row", "subset", "key")


def is_score(record: Record, *, with_lpips: bool = False) -> bool:
    """Whether a line of rows.jsonl holds all scores, or why there are none.

    Args:
        record: the line.
        with_lpips: whether LPIPS was measured.
    """
    if not all(isinstance(record.get(name), str) for name in NAMES):
        return False
    if "failed" in record:
        return isinstance(record["failed"], str)
    needed = (*MEANS, DRIFT_MAX, *([LPIPS] if with_lpips else []))
    if SKIN not in record or not all(is_number(record.get(name)) for name in needed):
        return False
    return record[SKIN] is None or is_number(record[SKIN])


def is_timing(record: Record) -> bool:
    """Whether a line of timings.jsonl holds a number of seconds."""
    return is_number(record.get("seconds"))


def is_number(value: object) -> bool:
    """Whether a value of a line is a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number that no float holds
        return False

"""Names that results get, by which they are known again among photos."""

from __future__ import annotations

import os
import re
from collections.abc import Collection

RESULT_MARK = ".color"  # what a result beside its photo is called more
CONTACT_SHEET = "contact-sheet.png"  # of a look at a source of photos

_RESULT = re.compile(rf"(?P<photo>.+){re.escape(RESULT_MARK)}(?:-\d+)?(?:-p\d+)?", re.DOTALL)  # of a variant, of a page


def find_own_results(paths: Collection[str]) -> list[str]:
    """Those of the paths that are called as results of others of them are: what a pattern finds the next time.

    `x.color.jpg`, `x.color-2.jpg` and `x.color-p3.png` are beside an `x` of any suffix, and are photos like any other
    without; a contact sheet is one beside anything.

    Args:
        paths: of photos, all with one kind of separator.
    """
    stems: set[str] = set()
    found = []
    for path in paths:
        stem = _stem(path)
        match = _RESULT.fullmatch(stem)
        if match and not stems:
            stems = {_stem(each) for each in paths}
        if (match and match["photo"] in stems) or (os.path.basename(path) == CONTACT_SHEET and len(paths) > 1):
            found.append(path)
    return found


def _stem(path: str) -> str:
    return os.path.normpath(os.path.splitext(path)[0])

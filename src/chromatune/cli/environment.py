"""Environment of commands: libraries that may be missing, and a folder for shared files."""

from __future__ import annotations

import os
from pathlib import Path

from chromatune.errors import MissingExtraError


def require_torch(what: str, extra: str = "torch") -> None:
    """Check that torch and its libraries are installed, before anything of them is loaded.

    Raises:
        MissingExtraError: they are not.
    """
    from chromatune.pipeline import has_torch

    if not has_torch():
        raise MissingExtraError(what, extra)


def shared_cache() -> Path | None:
    """Return the folder that CHROMATUNE_CACHE names for the latents of all runs; None where it is not set."""
    named = os.environ.get("CHROMATUNE_CACHE")
    return Path(named) if named else None

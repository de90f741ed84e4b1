"""What the command line takes from the environment; nothing else in the package reads it."""

from __future__ import annotations

import os
from pathlib import Path


def shared_cache() -> Path | None:
    """The folder that CHROMATUNE_CACHE names for the latents of all runs; None where it is not set."""
    named = os.environ.get("CHROMATUNE_CACHE")
    return Path(named) if named else None

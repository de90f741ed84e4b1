"""What a command needs beyond the core, told before anything of it is loaded."""

from __future__ import annotations

from chromatune.errors import MissingExtraError


def require_torch(what: str, extra: str = "torch") -> None:
    """Passes where torch and its libraries are installed.

    Raises:
        MissingExtraError: they are not.
    """
    from chromatune.pipeline import has_torch

    if not has_torch():
        raise MissingExtraError(what, extra)

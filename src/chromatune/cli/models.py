"""`chromatune models`: what ships with the package."""

from __future__ import annotations

from chromatune.cli.terminal import print_table


def models_command() -> int:
    """List the models that ship with the package: name, short side in pixels, steps, description, folder.

    In a pipe: one model a line, its fields separated by tabs.
    """
    from chromatune.pipeline import available_models

    rows = [
        (info.name, str(info.size_px), str(info.steps), info.description, str(info.path)) for info in available_models()
    ]
    print_table(rows, ("model", "size (px)", "steps", "description", "folder"))
    return 0

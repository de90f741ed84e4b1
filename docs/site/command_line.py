"""All commands, arguments, options and defaults as Markdown: `python docs/site/command_line.py > docs/cli.md`."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from typing import Any

import typer

from chromatune.cli.app import app

TITLE = """# Command line

Made from the commands themselves by `python docs/site/command_line.py > docs/cli.md`: change them, not this page.

Exit codes: 0 all went well, 1 something failed (one line on standard error says what), 2
wrong usage, 130 interrupted."""


def document() -> str:
    """Return the page `docs/cli.md`."""
    sections = [_section(command, path) for path, command in _commands(typer.main.get_command(app), "chromatune")]
    return "\n\n".join([TITLE, *sections]) + "\n"


def _commands(command: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield what is typed and the command; a group before its commands, in the order of its help; none is hidden."""
    yield path, command
    for name, each in getattr(command, "commands", {}).items():
        if not each.hidden:
            yield from _commands(each, f"{path} {name}")


def _section(command: Any, path: str) -> str:
    context = typer.Context(command, info_name=path)
    usage = " ".join([path, *command.collect_usage_pieces(context)])
    blocks = [f"## {path}", f"```\n{usage}\n```", inspect.cleandoc(command.help or ""), _table(command, context)]
    return "\n\n".join(filter(None, blocks))


def _table(command: Any, context: typer.Context) -> str:
    rows: list[str] = []
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is None or "--help" in parameter.opts:
            continue
        spelled, described = (text.replace("|", "\\|") for text in record)
        meaning, default = _parted(described)
        rows.append(f"| `{spelled}` | {meaning} | {default} |")
    return "\n".join(["| argument or option | meaning | default |", "| --- | --- | --- |", *rows]) if rows else ""


def _parted(described: str) -> tuple[str, str]:
    """Return an option's meaning, and its default and limits: help has them in brackets after two spaces."""
    if not described.endswith("]") or "  [" not in described:
        return described, ""
    meaning, _, facts = described.removesuffix("]").rpartition("  [")
    default, *limits = facts.removeprefix("default: ").split("; ")
    return meaning, "; ".join([default.removeprefix("(").removesuffix(")"), *limits])


if __name__ == "__main__":
    sys.stdout.write(document())

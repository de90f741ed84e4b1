"""All commands, and their exit codes.

Exit codes: 0 all went well, 1 something failed, 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

import chromatune
from chromatune.cli.batch import batch_command
from chromatune.cli.benchmark import benchmark_command
from chromatune.cli.colorize import colorize_command
from chromatune.cli.data import data_app
from chromatune.cli.evaluate import evaluate_command
from chromatune.cli.export import export_command
from chromatune.cli.finetune import finetune_command
from chromatune.cli.info import info_command
from chromatune.cli.models import models_app
from chromatune.cli.serve import serve_command
from chromatune.cli.site import site_command
from chromatune.cli.terminal import complain, open_closed_streams
from chromatune.cli.video import video_command
from chromatune.errors import ChromaTuneError, OptionsError, WorkInterrupted

FAILED, WRONG_USAGE, INTERRUPTED = 1, 2, 130
OUT_OF_MEMORY_PHRASES = ("out of memory", "not enough memory", "allocate memory", "insufficient memory")

app = typer.Typer(
    help="Colorizes black-and-white photographs by instruction; every pixel keeps its luminance.",
    add_completion=False,
    rich_markup_mode=None,  # rich's help costs a tenth of a second at each start
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"chromatune {chromatune.__version__}")
        raise typer.Exit


def _help_alone(context: typer.Context) -> int:
    """Print the help on stderr where there is no command: that is wrong usage."""
    if context.invoked_subcommand is None:
        print(context.get_help(), file=sys.stderr)
        raise typer.Exit(WRONG_USAGE)
    return 0


@app.callback(invoke_without_command=True)
def _start(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> int:
    return _help_alone(context)


data_app.callback(invoke_without_command=True)(_help_alone)
app.add_typer(data_app, name="data")
app.command("colorize")(colorize_command)
app.command("batch")(batch_command)
app.command("video")(video_command)
app.command("info")(info_command)
app.add_typer(models_app, name="models")
app.command("finetune")(finetune_command)
app.command("evaluate")(evaluate_command)
app.command("benchmark")(benchmark_command)
app.command("export")(export_command)
app.command("serve")(serve_command)
app.command("site")(site_command)


@app.command("experiment", hidden=True, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def _moved_command() -> int:
    """Say where the experiments of version 0.2 are now."""
    raise OptionsError("the experiments are in the repository now: in a clone of it, python -m studies.paper list")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; a failure is one line on stderr.

    Args:
        arguments: the words after `chromatune`; None means this process's own arguments.
    """
    return run_app(app, arguments, "chromatune")


def run_app(app: typer.Typer, arguments: Sequence[str] | None, name: str) -> int:
    """Run one command of an app and return its exit code; a failure is one line on stderr.

    Args:
        app: the commands; each returns its exit code.
        arguments: the words after the name; None means this process's own arguments.
        name: how the app is called.
    """
    open_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a name need not be valid text, nor a terminal know all characters
            stream.reconfigure(errors="backslashreplace")
    try:
        # not standalone: typer would frame its messages over several lines, and end the process
        code: int | None = app(arguments, prog_name=name, standalone_mode=False)
    except OptionsError as error:
        return _failed(str(error), WRONG_USAGE)
    except WorkInterrupted as error:
        return _failed(str(error), INTERRUPTED)
    except ChromaTuneError as error:
        return _failed(str(error), FAILED)
    except typer.TyperException as error:
        context = getattr(error, "ctx", None)
        command = context.command_path if context is not None else name
        return _failed(f"{error.format_message().rstrip('.')}; see {command} --help", error.exit_code)
    except OSError as error:
        return _failed(f"{error.filename or 'input or output'}: {error.strerror or error}", FAILED)
    except Exception as error:
        if not _is_out_of_memory(error):
            raise
        return _failed("not enough memory; give a smaller --size, or --batch-size 1", FAILED)
    if code == INTERRUPTED:
        return _failed("interrupted; finished results are kept", INTERRUPTED)
    return code or 0


def _failed(message: str, code: int) -> int:
    complain(message)
    return code


def _is_out_of_memory(error: Exception) -> bool:
    """Return whether memory ran out; errors of torch and OpenCV are known by their words, so that neither is loaded."""
    words = str(error).lower()
    return isinstance(error, MemoryError) or any(phrase in words for phrase in OUT_OF_MEMORY_PHRASES)

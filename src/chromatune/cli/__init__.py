"""The command line: parse, call, print, and nothing else.

commands.py       what can be typed
data_commands.py  the same for `chromatune data`
evaluate_command.py  and for `chromatune evaluate`
finetune_command.py   the same for `chromatune finetune`
experiment_command.py for `chromatune experiment`
progress.py       bars on stderr
destinations.py   which file each result goes to, decided before any work is done
running.py        photos through the model to those files, with a line for each result and each failure

Exit codes: 0 all went well, 1 something failed, 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer

from chromatune.cli.commands import app
from chromatune.errors import ChromaTuneError, OptionsError

__all__ = ["main"]

FAILED, WRONG_USAGE, INTERRUPTED = 1, 2, 130
OUT_OF_MEMORY_PHRASES = ("out of memory", "not enough memory", "allocate memory", "insufficient memory")


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code, after one command was run; a failure is one line on stderr.

    Args:
        arguments: what was typed after `chromatune`; None means this process's own arguments.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # file names need not be valid text
            stream.reconfigure(errors="surrogateescape")
    try:
        # not standalone: typer would frame its messages over several lines, and end the process
        code: int | None = app(arguments, prog_name="chromatune", standalone_mode=False)
    except OptionsError as error:
        return _complain(str(error), WRONG_USAGE)
    except ChromaTuneError as error:
        return _complain(str(error), FAILED)
    except typer.TyperException as error:
        return _complain(f"{error.format_message().rstrip('.')}; see {_command_of(error)} --help", error.exit_code)
    except OSError as error:
        return _complain(f"{error.filename or 'input or output'}: {error.strerror or error}", FAILED)
    except Exception as error:
        if not _is_out_of_memory(error):
            raise
        return _complain("not enough memory; give a smaller --size, or --batch-size 1", FAILED)
    if code == INTERRUPTED:
        return _complain("interrupted; finished results are kept", INTERRUPTED)
    return code or 0


def _complain(message: str, code: int) -> int:
    print("error:", " ".join(message.split("\n")), file=sys.stderr)
    return code


def _command_of(error: typer.TyperException) -> str:
    context = getattr(error, "ctx", None)
    return context.command_path if context is not None else "chromatune"


def _is_out_of_memory(error: Exception) -> bool:
    """Torch and OpenCV have errors of their own for this, known here by their words: neither need be loaded."""
    words = str(error).lower()
    return isinstance(error, MemoryError) or any(phrase in words for phrase in OUT_OF_MEMORY_PHRASES)

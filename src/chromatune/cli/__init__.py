"""The command line: parse, call, print, and nothing else.

app.py         the commands together, and the exit codes
colorize.py    `chromatune colorize`, and so on: a file for each command, which loads libraries only when it runs
fields.py      settings ⇒ options: each is declared once, in the pydantic model that Python uses too
progress.py    bars on stderr
printing.py    failures and tables
document.py    all commands ⇒ docs/cli.md
"""

from chromatune.cli.app import main

__all__ = ["main"]

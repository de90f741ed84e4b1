"""The command line: parse, call, print, and nothing else.

app.py         all commands, and their exit codes
colorize.py    `chromatune colorize`, and so on: a file for each command, which loads libraries only when it runs
fields.py      settings ⇒ options: each is declared once, in the pydantic model that Python uses too
terminal.py    failures, progress and tables
environment.py libraries that may be missing, and a folder for shared files
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

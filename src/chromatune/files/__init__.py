"""Files and folders that are whole or absent, grow line by line, and belong to one piece of work at a time.

whole.py    a file, or a folder, under a temporary name until it is complete and on the disk
lines.py    JSON lines: appended, a torn last one dropped
claims.py   whose folder it is, and that no second process works in it
own_results.py what results are called, and which files are some
progress.py how long work tells how far it is
"""

from chromatune.files.claims import claim_folder, is_claimed, release_folder
from chromatune.files.lines import LineFile, read_json_lines
from chromatune.files.own_results import CONTACT_SHEET, RESULT_MARK, own_results
from chromatune.files.whole import sync_folder, whole_file, whole_folder, write_json, write_whole

__all__ = [
    "CONTACT_SHEET",
    "LineFile",
    "RESULT_MARK",
    "claim_folder",
    "is_claimed",
    "own_results",
    "read_json_lines",
    "release_folder",
    "sync_folder",
    "whole_file",
    "whole_folder",
    "write_json",
    "write_whole",
]

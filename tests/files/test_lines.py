"""Files of JSON lines: kept once, torn at the end, damaged elsewhere."""

from __future__ import annotations

import os

import numpy as np
import pytest

from chromatune.errors import DataError
from chromatune.files import LineFile, read_json_lines


def test_lines_are_kept_once_and_a_torn_one_is_dropped(tmp_path):
    path = tmp_path / "lines.jsonl"
    with LineFile(path, ("key",)) as file:
        file.append([{"key": "a", "value": 0.1}, {"key": "b\ud800"}])
        file.append([{"key": "a", "value": 0.2}])
    with path.open("ab") as torn:
        torn.write(b'{"key": "c", "val')
    with LineFile(path, ("key",)) as file:
        assert [("a",) in file, ("b\ud800",) in file, ("c",) in file] == [True, True, False]
        assert file.read() == [{"key": "a", "value": 0.1}, {"key": "b\ud800"}]
        with pytest.raises(ValueError, match="not JSON compliant"):
            file.append([{"key": "d", "value": np.nan}])


@pytest.mark.parametrize("line", [b"{", b"[1]", b"3", b'{"value": 1}', b"\xff"])
def test_a_damaged_line_is_named_by_its_number(tmp_path, line):
    path = tmp_path / "lines.jsonl"
    path.write_bytes(b'{"key": "a"}\n' + line + b'\n{"key": "b"}\n')
    with pytest.raises(DataError, match=r"lines\.jsonl: line 2 is damaged"):
        read_json_lines(path, ("key",))


def test_a_pipe_is_no_file_of_lines(tmp_path):
    os.mkfifo(tmp_path / "lines.jsonl")
    with pytest.raises(DataError, match="cannot be read"):
        read_json_lines(tmp_path / "lines.jsonl")
    with pytest.raises(OSError, match=r"lines.jsonl"):
        LineFile(tmp_path / "lines.jsonl", ("key",))

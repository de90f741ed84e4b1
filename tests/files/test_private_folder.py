"""Temporary folders: nobody else's, gone at the end, and after a kill with the next process."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from chromatune.files import private_folder

KILLED = """
import os, signal
from pathlib import Path
from chromatune.files import private_folder
with private_folder("test-", Path(os.environ["PARENT"])) as folder:
    (folder / "upload").write_bytes(b"somebody's photo")
    print(folder, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_only_its_user_can_open_it_and_it_goes_at_the_end(tmp_path):
    with private_folder("test-", tmp_path) as folder:
        (folder / "file").write_bytes(b"x")
        assert os.name == "nt" or folder.stat().st_mode & 0o777 == 0o700
    assert list(tmp_path.iterdir()) == []


def test_one_in_use_is_not_removed_by_another(tmp_path):
    with private_folder("test-", tmp_path) as one:
        with private_folder("test-", tmp_path) as other:
            assert one.is_dir() and one != other
        assert one.is_dir()


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no such signal on this system")
def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path):
    environment = os.environ | {"PARENT": str(tmp_path)}
    ended = subprocess.run([sys.executable, "-c", KILLED], stdout=subprocess.PIPE, text=True, env=environment)
    left = Path(ended.stdout.strip())
    assert (left / "upload").exists()
    (tmp_path / "other-folder").mkdir()
    with private_folder("test-", tmp_path):
        assert not left.exists()
    assert [each.name for each in tmp_path.iterdir()] == ["other-folder"]


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_links_of_that_name_are_not_followed(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "photo").write_bytes(b"")
    (tmp_path / "test-link").symlink_to(tmp_path / "mine")
    with private_folder("test-", tmp_path):
        pass
    assert (tmp_path / "mine" / "photo").exists()

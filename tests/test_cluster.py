"""Joining Ray: what is not there is one line, and a Ray of one's own asks for its token and leaves nothing."""

from __future__ import annotations

import copy
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from chromatune import cluster
from chromatune.cluster import require_ray
from chromatune.errors import MissingExtraError


def test_without_ray_it_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr("chromatune.cluster.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"--engine ray needs the extra 'ray': pip install 'chromatune\[ray\]'"):
        require_ray("--engine ray")


def test_the_error_travels_between_processes():
    error = copy.copy(MissingExtraError("it", "ray"))  # as pickle does
    assert (str(error), error.extra) == (str(MissingExtraError("it", "ray")), "ray")


@pytest.mark.slow
@pytest.mark.parametrize("address", ["nonsense", "ray://here:1", "127.0.0.1:1", "here:99999"])
def test_where_nobody_answers(address):
    # In a process of its own: importing Ray sets what others in this one would keep
    code = f"""
from chromatune.cluster import joined
from chromatune.errors import OptionsError
try:
    with joined({address!r}, cpus=1):
        pass
except OptionsError as error:
    print(error.field, error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.startswith(f"ray_address {address!r}: no Ray answers there")
    assert done.stdout.count("\n") == 1


OWN = """
import json, os, stat, subprocess, sys
from chromatune.cluster import joined
with joined(None, cpus=1):
    import ray
    import psutil
    address = ray.get_runtime_context().gcs_address
    folder = ray._private.worker._global_node.get_temp_dir_path()
    worker = ray.remote(num_cpus=0)(lambda: 1).remote()
    ray.get(worker)
    family = [psutil.Process(), *psutil.Process().children(recursive=True)]
    inside = [each.pid for each in family[1:]]
    listening = [each.laddr.ip for one in family for each in one.net_connections("tcp") if each.status == "LISTEN"]
    outside = [each for each in listening if "127.0.0.1" not in each]
    parents = [os.path.dirname(folder), *(parent for parent, _, _ in os.walk(folder))]
    shared = [parent for parent in parents if stat.S_IMODE(os.stat(parent).st_mode) & 0o077]
    code = f"import ray; ray.init(address={address!r})"
    bare = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    bare["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # else it looks for it at this machine's other address
    stranger = subprocess.run([sys.executable, "-c", code], env=bare, capture_output=True, timeout=200).returncode
alive = [each for each in inside if psutil.pid_exists(each) and psutil.Process(each).status() != "zombie"]
left = os.path.exists(os.path.dirname(folder))
print(json.dumps([len(inside), stranger, left, alive, os.environ["RAY_USAGE_STATS_ENABLED"], outside, shared]))
"""


@pytest.mark.slow
def test_a_ray_of_ones_own_takes_no_strangers_and_leaves_nothing():
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-c", OWN], capture_output=True, text=True, timeout=300, check=True, env=environment
    )
    inside, stranger, left, alive, usage, outside, shared = json.loads(done.stdout)
    assert inside > 2 and stranger != 0
    assert (left, alive, usage) == (False, [], "0")
    assert (outside, shared) == ([], [])


KILLED = """
import os, signal
from chromatune.cluster import _private_folder
with _private_folder() as folder:
    (folder / "session").mkdir()
    print(folder.parent, flush=True)
    if KILL:
        os.kill(os.getpid(), signal.SIGKILL)
    input()
"""


def test_folders_of_killed_processes_go_with_the_next_start(tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "SOCKET_FOLDER", str(tmp_path))
    set_up = f"from chromatune import cluster; cluster.SOCKET_FOLDER = {str(tmp_path)!r}; KILL = "
    dead = subprocess.run([sys.executable, "-c", f"{set_up}True{KILLED}"], capture_output=True, text=True, timeout=60)
    living = subprocess.Popen(
        [sys.executable, "-c", f"{set_up}False{KILLED}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert living.stdout is not None
    folders = [Path(dead.stdout.strip()), Path(living.stdout.readline().strip())]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "chromatune-ray-link").symlink_to(elsewhere)
    with cluster._private_folder() as young:
        assert stat.S_IMODE(young.parent.stat().st_mode) == 0o700
        assert all(folder.is_dir() for folder in folders)
    for folder in folders:
        os.utime(folder, (1, 1))
    with cluster._private_folder():
        assert [folder.exists() for folder in folders] == [False, True]
    living.communicate("")
    assert elsewhere.is_dir() and sorted(path.name for path in tmp_path.iterdir()) == [
        "chromatune-ray-link",
        "elsewhere",
    ]

"""Joining Ray: what is not there is one line, and a Ray of one's own asks for its token and leaves nothing."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys

import pytest

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
    assert done.stdout.startswith(f"ray_address {address!r}: no Ray cluster at this address")
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

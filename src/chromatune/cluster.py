"""Ray, for work on more than one process: joined or started, quiet and bounded, and gone afterwards.

A Ray that is started here belongs to this process: it listens on the loopback address alone, takes calls only with its
token, exports no metrics, sends no usage reports, and writes into one private folder, which is removed at the end, or,
where the process was killed, at the start of the next one.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from chromatune.errors import MissingExtraError, OptionsError, first_line, shown
from chromatune.files import private_folder

STORE_MB = 200  # Ray's shared memory, where it is started here: records, grays and uploads pass through it
KNOCK_S = 10
FOLDER_PREFIX = "chromatune-ray-"
RAY_FOLDER = "ray"  # inside: Ray lets every user write into the folders that it makes
NO_PORT = "-1"
CLUSTER_VARIABLE = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"  # of Ray; who sets it to 1 has other machines reach this one's
SOCKET_FOLDER = "/tmp"  # a socket's path takes 107 bytes at most, and TMPDIR may be long


def require_ray(what: str) -> None:
    """Check that Ray is installed.

    Raises:
        MissingExtraError: it is not.
    """
    if find_spec("ray") is None:
        raise MissingExtraError(what, "ray")


@contextlib.contextmanager
def joined(
    address: str | None, *, cpus: int, gpus: int = 0, prepare: Callable[[], None] | None = None
) -> Iterator[None]:
    """Start or join Ray while the block runs; one that this process has joined already is used and left as it is.

    Args:
        address: of a cluster, such as "10.0.0.5:6379" or "auto"; None starts Ray on this machine alone.
        cpus: number of CPUs that a Ray started on this machine gives to actors.
        gpus: the same of GPUs.
        prepare: is called in each worker process before anything else.

    Raises:
        MissingExtraError: Ray is not installed.
        OptionsError: no Ray answers at the address.
    """
    require_ray("--engine ray")
    _set_environment(own=address is None)
    import ray

    if ray.is_initialized():
        yield
        return
    environment = {"worker_process_setup_hook": prepare} if prepare else {}
    if address is None:

        def prepare_own() -> None:  # Ray wants a function with a name
            _prepare_own_worker(prepare)

        environment = {"worker_process_setup_hook": prepare_own}
    with contextlib.ExitStack() as stack:
        if address is None:
            _start(stack, cpus, gpus, environment)
        else:
            check_address(address)
            try:
                ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, runtime_env=environment)
            except (OSError, ValueError, RuntimeError) as error:
                raise _unreachable(address, error) from None
            stack.callback(ray.shutdown)
        yield


def _set_environment(own: bool) -> None:
    """Set what Ray reads when it is imported: no reports, no logs on a terminal; who reaches one started here."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else a warning about the next version
    os.environ.setdefault("RAY_SERVE_LOG_TO_STDERR", "0")
    os.environ.setdefault("RAY_DISABLE_FAILURE_SIGNAL_HANDLER", "1")  # SIGTERM belongs to the owner of the process
    if not own:
        return
    os.environ.setdefault("RAY_enable_metrics_collection", "0")  # these ports ask for no token
    os.environ.setdefault("AUTOSCALER_METRIC_PORT", NO_PORT)
    os.environ.setdefault("DASHBOARD_METRIC_PORT", NO_PORT)
    if "ray" not in sys.modules and "RAY_AUTH_MODE" not in os.environ:  # who may call it may run anything
        os.environ["RAY_AUTH_MODE"], os.environ["RAY_AUTH_TOKEN"] = "token", secrets.token_hex(32)


def _start(stack: contextlib.ExitStack, cpus: int, gpus: int, environment: dict[str, Any]) -> None:
    import ray

    parent = Path(SOCKET_FOLDER if os.access(SOCKET_FOLDER, os.W_OK) else tempfile.gettempdir())
    folder = stack.enter_context(private_folder(FOLDER_PREFIX, parent)) / RAY_FOLDER
    folder.mkdir(mode=0o700)
    stack.enter_context(_on_loopback())
    # On Linux its processes end with the thread that started them: this one ends with the context
    thread = stack.enter_context(ThreadPoolExecutor(1, "ray"))
    stack.callback(ray.shutdown)  # also of what a failed start has left
    starting = thread.submit(
        ray.init, address="local", num_cpus=cpus, num_gpus=gpus, include_dashboard=False, log_to_driver=False,
        logging_level=logging.ERROR, object_store_memory=STORE_MB * 2**20, _temp_dir=str(folder),
        runtime_env=environment,
    )  # fmt: skip
    starting.result()
    _close_folders(folder)


@contextlib.contextmanager
def _on_loopback() -> Iterator[None]:
    """Let a Ray that is started in the block listen on the loopback address, as it always does on macOS and Windows."""
    from ray._private import ray_constants

    before = getattr(ray_constants, "ENABLE_RAY_CLUSTER", None)
    if before is None or CLUSTER_VARIABLE in os.environ:
        yield
        return
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


def _prepare_own_worker(prepare: Callable[[], None] | None) -> None:
    """Run in each worker of a Ray started here."""
    from ray._private import worker

    with contextlib.suppress(AttributeError):
        _close_folders(Path(worker._global_node.get_temp_dir_path()))
    if prepare is not None:
        prepare()


def _close_folders(folder: Path) -> None:
    """Take back the rights to Ray's folders that it gives to every user, again with each process that it starts."""
    for parent, _, _ in os.walk(folder):
        with contextlib.suppress(OSError):
            os.chmod(parent, 0o700)


def check_address(address: str) -> None:
    """Check that a cluster listens at the address; Ray itself would try for minutes.

    Raises:
        OptionsError: none does.
    """
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    try:
        if not host or "/" in host or not port.isdecimal() or int(port) > 65535:
            raise ValueError("accepted: HOST:PORT, or auto")
        socket.create_connection((host.strip("[]"), int(port)), timeout=KNOCK_S).close()
    except (OSError, ValueError) as error:
        raise _unreachable(address, error) from None


def _unreachable(address: str, error: Exception) -> OptionsError:
    return OptionsError(
        f"{shown(address)}: no Ray cluster at this address ({first_line(error)}); start one with "
        "`ray start --head`, or leave the address out to use this machine",
        "ray_address",
    )

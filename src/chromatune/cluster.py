"""Ray, for work on more than one process: joined or started, quiet and bounded, and gone afterwards.

A Ray that is started here belongs to this process: it writes into one temporary folder, which is removed at the end,
takes calls only with its token, and sends no usage reports.
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
from typing import Any

from chromatune.errors import MissingExtraError, OptionsError, first_line, shown

STORE_MB = 200  # Ray's shared memory, where it is started here: records, grays and uploads pass through it
KNOCK_S = 10
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
    """Set what Ray reads when it is imported: no reports, no logs on a terminal, a token for one started here."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else a warning about the next version
    os.environ.setdefault("RAY_SERVE_LOG_TO_STDERR", "0")
    os.environ.setdefault("RAY_DISABLE_FAILURE_SIGNAL_HANDLER", "1")  # SIGTERM belongs to the owner of the process
    if own and "ray" not in sys.modules and "RAY_AUTH_MODE" not in os.environ:
        # It listens on every address of the machine, and who may call it may run anything
        os.environ["RAY_AUTH_MODE"], os.environ["RAY_AUTH_TOKEN"] = "token", secrets.token_hex(32)


def _start(stack: contextlib.ExitStack, cpus: int, gpus: int, environment: dict[str, Any]) -> None:
    import ray

    parent = SOCKET_FOLDER if os.access(SOCKET_FOLDER, os.W_OK) else None
    folder = stack.enter_context(
        tempfile.TemporaryDirectory(prefix="chromatune-ray-", dir=parent, ignore_cleanup_errors=True)
    )
    # On Linux its processes end with the thread that started them: this one ends with the context
    thread = stack.enter_context(ThreadPoolExecutor(1, "ray"))
    starting = thread.submit(
        ray.init, address="local", num_cpus=cpus, num_gpus=gpus, include_dashboard=False, log_to_driver=False,
        logging_level=logging.ERROR, object_store_memory=STORE_MB * 2**20, _temp_dir=folder,
        runtime_env=environment,
    )  # fmt: skip
    starting.result()


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
        f"{shown(address)}: no Ray answers there ({first_line(error)}); start one with "
        "`ray start --head`, or leave it out for one on this machine",
        "ray_address",
    )

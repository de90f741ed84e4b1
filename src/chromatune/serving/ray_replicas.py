"""The replicas of one app: deployed, asked, and asked once more where one was lost."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from chromatune.errors import ModelError, first_line
from chromatune.serving.local import MOST_TOGETHER
from chromatune.serving.predictor import QueueFull, Unavailable
from chromatune.serving.settings import ServeSettings

if TYPE_CHECKING:
    from ray.serve.handle import DeploymentHandle, DeploymentResponse

GRACE_S = 20.0  # for what is in work when a replica is taken down
CHECK_S = 2.0  # how often it is looked whether a replica lives


class Replicas:
    """A handle of Ray Serve whose failures are the app's own."""

    def __init__(self, handle: DeploymentHandle) -> None:
        self._handle = handle

    async def ask(self, method: str, *given: Any) -> Any:
        """The answer of a replica; being cancelled withdraws the request.

        Raises:
            QueueFull: too many requests wait.
            Unavailable: the replica was lost, and the next one too.
            Exception: what the replica answered with, where that is an error.
        """
        for again in (True, False):
            with _translated(again):
                response = self._send(method, given)
                try:
                    return _value_of(await response)
                except asyncio.CancelledError:
                    response.cancel()
                    raise
        raise AssertionError("the second loss is told")

    def ask_from_thread(self, method: str, *given: Any) -> Any:
        """The same for a thread that waits; see `ask`."""
        for again in (True, False):
            with _translated(again):
                return _value_of(self._send(method, given).result())
        raise AssertionError("the second loss is told")

    def _send(self, method: str, given: tuple[Any, ...]) -> DeploymentResponse:
        caller: Callable[..., DeploymentResponse] = getattr(self._handle, method).remote
        return caller(*given)


@contextlib.contextmanager
def _translated(again: bool) -> Iterator[None]:
    """Ray's failures as the app's; the loss of a replica passes where it is asked again: colorizing changes nothing."""
    from ray import exceptions
    from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, ReplicaUnavailableError

    try:
        yield
    except BackPressureError:
        raise QueueFull from None
    except (exceptions.RayActorError, exceptions.WorkerCrashedError, exceptions.ObjectLostError) as error:
        if not again:
            raise _lost(error) from None
    except (DeploymentUnavailableError, ReplicaUnavailableError) as error:
        raise _lost(error) from None


def _lost(error: Exception) -> Unavailable:
    logging.getLogger(__name__).warning("a replica was lost: %s", first_line(error))
    return Unavailable("what computes was lost on the way; come again in a moment")


def _value_of(answer: Any) -> Any:
    if isinstance(answer, Exception):
        raise answer
    return answer


def bind_replicas(settings: ServeSettings) -> Any:
    """The deployment of the replicas, for `serve.run` or another deployment; it holds no token."""
    from ray import serve

    from chromatune.serving.ray_replica import Replica

    own = settings.model_copy(update={"token": None, "workers": workers_of(settings)})
    deployment = serve.deployment(
        Replica,
        name="Replica",
        num_replicas=settings.replicas,
        max_ongoing_requests=workers_of(settings),
        max_queued_requests=settings.queue,
        ray_actor_options={"num_cpus": 1 if gpus_of(settings) else workers_of(settings), "num_gpus": gpus_of(settings)},
        graceful_shutdown_timeout_s=GRACE_S,
        health_check_period_s=CHECK_S,
    )
    return deployment.bind(own)


def workers_of(settings: ServeSettings) -> int:
    """Photos in work at the same time in each replica: one a CPU; on a GPU so many that they share a pass."""
    return settings.workers or (MOST_TOGETHER if gpus_of(settings) else 1)


def gpus_of(settings: ServeSettings) -> int:
    """GPUs of each replica."""
    return int((settings.device or "").startswith("cuda"))


@contextlib.contextmanager
def deployed(settings: ServeSettings) -> Iterator[Replicas]:
    """Replicas on the Ray of the settings, or on one that is started here; they are gone afterwards.

    Raises:
        MissingExtraError, OptionsError: see `chromatune.cluster.joined`.
        ModelError: Ray Serve cannot deploy them.
    """
    from chromatune.cluster import joined

    cpus = settings.replicas * (1 if gpus_of(settings) else workers_of(settings))
    with joined(settings.ray_address, cpus=cpus, gpus=settings.replicas * gpus_of(settings)):
        from ray import serve

        logging.getLogger("ray.serve").setLevel(logging.ERROR)
        name = f"chromatune-{secrets.token_hex(4)}"  # a cluster may have several
        serve.start(proxy_location="Disabled")  # the app listens, and Ray does not
        try:
            handle = serve.run(bind_replicas(settings), name=name, route_prefix=None)
        except RuntimeError as error:
            raise ModelError(f"Ray Serve deploys no replicas: {first_line(error)}") from None
        try:
            yield Replicas(handle)
        finally:
            serve.delete(name)

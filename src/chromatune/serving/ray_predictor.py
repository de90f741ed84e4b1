"""The predictor of a cluster: replicas of Ray Serve colorize, and sessions stay in the app's process.

A photo to colorize goes to a replica as a file, and comes back as a file. An open photo has state, so it stays in the
app's process: in the local predictor's sessions, over a `RemoteBackend` that the replicas compute. No request has to
find the replica that it began with, and a lost replica loses no session.

From the app to the replica: `RayPredictor` and `RemoteBackend` call `Replicas`, a handle, which reaches a `Replica`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from chromatune.colorizer import Colorizer
from chromatune.errors import ChromaTuneError, ModelError, first_line
from chromatune.options import ResolvedOptions
from chromatune.pipeline import Backend, BackendOutput, Features, ModelInfo
from chromatune.serving.batcher import MAX_BATCH
from chromatune.serving.local import LocalPredictor
from chromatune.serving.predictor import ColorizeRequest, EncodedImage, QueueFull, Unavailable
from chromatune.serving.settings import ServeSettings

if TYPE_CHECKING:
    from ray.serve.handle import DeploymentHandle, DeploymentResponse

RETRY_S = 0.1  # between two tries of a photo that waits for a slot
GRACE_S = 20.0  # for photos in progress when a replica is taken down
CHECK_S = 2.0  # between two health checks of a replica


class RayPredictor(LocalPredictor):
    """Replicas as a `Predictor`; sessions are the local predictor's, over models of the replicas."""

    def __init__(
        self,
        settings: ServeSettings,
        warn: Callable[[str], None] = lambda line: None,
        replicas: Replicas | None = None,
    ) -> None:
        """Start nothing yet.

        Args:
            settings: models, device, replicas and their workers, queue.
            warn: see `LocalPredictor`.
            replicas: they compute; None to deploy some, as the settings say.
        """
        super().__init__(settings, warn)
        self._replicas = replicas
        self._deployment = contextlib.ExitStack()
        self._at_replicas = 0

    @property
    def waiting(self) -> int:
        return super().waiting + self._at_replicas

    @property
    def slots(self) -> int:
        return self.settings.replicas * _workers_of(self.settings) + self.settings.queue

    def stop(self) -> None:
        """Finish photos in progress and take the replicas down."""
        super().stop()
        self._deployment.close()

    async def colorize(self, request: ColorizeRequest, *, wait_for_slot: bool = False) -> EncodedImage:
        assert self._replicas is not None, "used before it is ready"
        self._at_replicas += 1
        try:
            request = await asyncio.to_thread(request.in_memory)
            while True:
                try:
                    return await self._replicas.call("colorize", request)
                except QueueFull:
                    if not wait_for_slot:
                        raise
                await asyncio.sleep(RETRY_S)
        finally:
            self._at_replicas -= 1

    def _load_colorizer(self, name: str) -> Colorizer:
        if self._replicas is None:
            self._replicas = self._deployment.enter_context(deployed(self.settings))
        return Colorizer(RemoteBackend(self._replicas, name))


class RemoteBackend:
    """A model of the replicas as a `Backend` of this process, called in threads: small grays travel, photos do not."""

    batches = False  # the replicas batch calls that arrive together
    concurrent = True
    info: ModelInfo
    runtime: str
    multiple_px: int

    def __init__(self, replicas: Replicas, model: str) -> None:
        """Wait until a replica has loaded the model.

        Raises:
            ModelError: it cannot be loaded.
            Unavailable: no replica answers.
        """
        self._call = partial(replicas.call_from_thread, "call_backend", model)
        self.info, self.runtime, self.multiple_px = replicas.call_from_thread("describe_backend", model)

    def warnings_of(self, options: ResolvedOptions) -> tuple[str, ...]:
        return self._call("warnings_of", options)

    def features(self, grays: np.ndarray) -> Features | None:
        return self._call("features", grays)

    def __call__(
        self, grays: np.ndarray, options: Sequence[ResolvedOptions], with_features: bool = False
    ) -> BackendOutput:
        return self._call("__call__", grays, list(options), with_features)


class Replicas:
    """A handle of Ray Serve whose failures are the app's own."""

    def __init__(self, handle: DeploymentHandle) -> None:
        self._handle = handle

    async def call(self, method: str, *arguments: Any) -> Any:
        """Return a replica's answer; being cancelled withdraws the request.

        Raises:
            QueueFull: too many requests wait.
            Unavailable: the replica was lost, and the next one too.
            Exception: the replica's answer, where it is an error.
        """
        for may_retry in (True, False):
            with _translated(may_retry):
                response = self._send(method, arguments)
                try:
                    return _value_of(await response)
                except asyncio.CancelledError:
                    response.cancel()
                    raise
        raise AssertionError("a second loss raises")

    def call_from_thread(self, method: str, *arguments: Any) -> Any:
        """Do the same as `call`, for a thread."""
        for may_retry in (True, False):
            with _translated(may_retry):
                return _value_of(self._send(method, arguments).result())
        raise AssertionError("a second loss raises")

    def _send(self, method: str, arguments: tuple[Any, ...]) -> DeploymentResponse:
        caller: Callable[..., DeploymentResponse] = getattr(self._handle, method).remote
        return caller(*arguments)


@contextlib.contextmanager
def _translated(may_retry: bool) -> Iterator[None]:
    """Raise Ray's failures as the app's; the loss of a replica passes where a retry may follow."""
    from ray import exceptions
    from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, ReplicaUnavailableError

    try:
        yield
    except BackPressureError:
        raise QueueFull from None
    except (exceptions.RayActorError, exceptions.WorkerCrashedError, exceptions.ObjectLostError) as error:
        if not may_retry:
            raise _lost(error) from None
    except (DeploymentUnavailableError, ReplicaUnavailableError) as error:
        raise _lost(error) from None


def _lost(error: Exception) -> Unavailable:
    logging.getLogger(__name__).warning("a replica was lost: %s", first_line(error))
    return Unavailable("the photo's replica was lost; try again in a moment")


def _value_of(answer: Any) -> Any:
    if isinstance(answer, Exception):
        raise answer
    return answer


class Replica:
    """A replica: models loaded once, which colorize photos and compute passes for sessions of the app.

    It has no state of requests: each replica answers any of them, and a lost one costs only its requests in progress.
    Its methods return errors: if they were raised, Ray would put a traceback into the text.
    """

    def __init__(self, settings: ServeSettings) -> None:
        """Load the default model; where it cannot be loaded, `describe_backend` says why."""
        close_own_port()
        self._predictor = LocalPredictor(settings)
        self._predictor.load()

    async def describe_backend(self, model: str) -> tuple[ModelInfo, str, int] | Exception:
        """Return `info`, `runtime` and `multiple_px` of a model's `Backend`, once it is loaded."""
        try:
            backend = await self._backend(model)
        except ChromaTuneError as error:
            return error
        return backend.info, backend.runtime, backend.multiple_px

    async def colorize(self, request: ColorizeRequest) -> EncodedImage | Exception:
        """Return the colored photo, as `Predictor.colorize`."""
        try:
            return await self._predictor.colorize(request, wait_for_slot=True)
        except (ChromaTuneError, MemoryError) as error:
            return error

    async def call_backend(self, model: str, method: str, *arguments: Any) -> Any:
        """Return the result of a method of a model's `Backend`, in a thread."""
        try:
            call = partial(getattr(await self._backend(model), method), *arguments)
            return await self._predictor.photo_threads.run(call, wait_for_slot=True)
        except (ChromaTuneError, MemoryError) as error:
            return error

    async def _backend(self, model: str) -> Backend:
        colorizer = await asyncio.to_thread(self._predictor.model, model)
        return colorizer.backend


def close_own_port() -> None:
    """Keep the port closed that Ray Serve opens in this replica, after the replica is made.

    It listens on every address, takes pickles from everybody, and nothing here uses it: calls go from actor to actor.
    """
    from ray.serve._private import replica

    if os.environ.get("RAY_SERVE_USE_GRPC_BY_DEFAULT", "0") != "1" and hasattr(replica, "add_port_to_grpc_server"):
        replica.add_port_to_grpc_server = lambda server, address: 0


def bind_replicas(settings: ServeSettings) -> Any:
    """Return the deployment of the replicas, for `serve.run` or another deployment; it holds no token."""
    from ray import serve

    own = settings.model_copy(update={"token": None, "workers": _workers_of(settings)})
    deployment = serve.deployment(
        Replica,
        name="Replica",
        num_replicas=settings.replicas,
        max_ongoing_requests=_workers_of(settings),
        max_queued_requests=settings.queue,
        ray_actor_options={
            "num_cpus": 1 if _gpus_of(settings) else _workers_of(settings), "num_gpus": _gpus_of(settings),
        },
        graceful_shutdown_timeout_s=GRACE_S,
        health_check_period_s=CHECK_S,
    )  # fmt: skip
    return deployment.bind(own)


def _workers_of(settings: ServeSettings) -> int:
    """Photos processed at the same time in each replica: one a CPU; on a GPU enough to share a pass."""
    return settings.workers or (MAX_BATCH if _gpus_of(settings) else 1)


def _gpus_of(settings: ServeSettings) -> int:
    """GPUs of each replica."""
    return int((settings.device or "").startswith("cuda"))


@contextlib.contextmanager
def deployed(settings: ServeSettings) -> Iterator[Replicas]:
    """Deploy replicas on the Ray of the settings, or on one that is started for them; delete them afterwards.

    Raises:
        MissingExtraError, OptionsError: see `chromatune.cluster.joined`.
        ModelError: Ray Serve cannot deploy them.
    """
    from chromatune.cluster import joined

    cpus = settings.replicas * (1 if _gpus_of(settings) else _workers_of(settings))
    with joined(settings.ray_address, cpus=cpus, gpus=settings.replicas * _gpus_of(settings)):
        from ray import serve

        logging.getLogger("ray.serve").setLevel(logging.ERROR)
        name = f"chromatune-{secrets.token_hex(4)}"  # a cluster may have several
        serve.start(proxy_location="Disabled")  # the app listens, and Ray does not
        try:
            handle = serve.run(bind_replicas(settings), name=name, route_prefix=None)
        except RuntimeError as error:
            raise ModelError(f"Ray Serve cannot deploy replicas: {first_line(error)}") from None
        try:
            yield Replicas(handle)
        finally:
            serve.delete(name)

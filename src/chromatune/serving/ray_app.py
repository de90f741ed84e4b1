"""The app for `serve deploy`: import path `chromatune.serving.ray_app:build`, see deploy/ray-serve.yaml."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from ray import serve

from chromatune.serving.app import create_app
from chromatune.serving.ray_predictor import RayPredictor, Replicas, bind_replicas, close_own_port
from chromatune.serving.settings import TOKEN_VARIABLE, ServeSettings, make_serve_settings

if TYPE_CHECKING:
    from fastapi import FastAPI
    from ray.serve.handle import DeploymentHandle


class App:
    """The page and the API over the replicas of the same deployment."""

    def __init__(self, settings: ServeSettings, handle: DeploymentHandle) -> None:
        close_own_port()
        self._settings, self._handle = settings, handle

    def __serve_build_asgi_app__(self) -> FastAPI:  # Ray Serve's own name
        return create_app(RayPredictor(self._settings, replicas=Replicas(self._handle)), self._settings)


def build(args: dict[str, Any]) -> Any:
    """Return the deployments of the page, the API and the replicas; Ray Serve calls it.

    Args:
        args: settings by name, see `ServeSettings`; Ray Serve listens, so `host` serves only the check of requests.

    Raises:
        OptionsError: one of them is wrong.
    """
    token = args.get("token") or os.environ.get(TOKEN_VARIABLE) or None
    settings = make_serve_settings(**{**args, "engine": "ray", "token": token})
    # One, because it holds sessions and batches; without a CPU of its own, which are for replicas
    app = serve.deployment(
        serve.ingress()(App), name="App", num_replicas=1, ray_actor_options={"num_cpus": 0}, max_ongoing_requests=1000
    )
    return app.bind(settings, bind_replicas(settings))

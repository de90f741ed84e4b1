"""`chromatune serve`: the page and the API."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, Any

import typer

from chromatune.cli.fields import flags_in_errors, takes_fields
from chromatune.cli.terminal import complain
from chromatune.errors import MissingExtraError
from chromatune.serving import TOKEN_VARIABLE, ServeSettings, make_serve_settings

if TYPE_CHECKING:
    from chromatune.serving import Predictor

WEB = ("fastapi", "uvicorn", "multipart", "prometheus_client", "fastapi_offline")


def _settings(**given: Any) -> ServeSettings:
    token = given.pop("token", None) or os.environ.get(TOKEN_VARIABLE) or None
    return make_serve_settings(token=token, **given)


Old = Annotated[float | None, typer.Option(hidden=True)]  # a flag under its name of version 0.1, until 0.3


@takes_fields(_settings)
def serve_command(
    *,
    settings: ServeSettings,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    films: Old = None,
    film_minutes: Old = None,
    max_film_mb: Old = None,
) -> int:
    """Serve a page for colorizing in the browser, and an API for programs; prints the address.

    Nothing leaves this machine. Ctrl-C or SIGTERM stops it, after the requests in progress.
    """
    if not all(find_spec(name) for name in WEB):
        raise MissingExtraError("the server", "web")
    old = {"films": films, "film_minutes": film_minutes, "max_film_mb": max_film_mb}
    settings = _settings(**settings.model_dump(), **{name: value for name, value in old.items() if value is not None})
    predictor = _predictor(settings)
    predictor.start()  # while the web's libraries are loaded
    try:
        from chromatune.serving import create_app, run_app

        run_app(create_app(predictor, settings), settings, lambda address: _announce(address, open_page))
    finally:
        predictor.stop()  # not while a model is being loaded: its library would end the process its own way
    return 0


def _predictor(settings: ServeSettings) -> Predictor:
    if settings.engine == "local":
        from chromatune.serving import LocalPredictor

        return LocalPredictor(settings, complain)
    from chromatune.cluster import check_address, require_ray
    from chromatune.serving import RayPredictor

    require_ray("--engine ray")
    if settings.ray_address is not None:
        with flags_in_errors(ServeSettings):
            check_address(settings.ray_address)
    return RayPredictor(settings, complain)


def _announce(address: str, open_page: bool) -> None:
    print(address, flush=True)
    complain("Ctrl-C stops it", "note")
    if open_page:
        import webbrowser

        webbrowser.open(address)

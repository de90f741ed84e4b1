"""Middleware: a guard that checks requests before their bodies are read, and metrics for Prometheus."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import json
import time
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import Any
from urllib.parse import quote, urlsplit

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.exceptions import HTTPException

from chromatune.serving.predictor import State
from chromatune.serving.settings import LOOPBACK, ServeSettings

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

OPEN_PATHS = ("/", "/healthz", "/readyz", "/docs", "/openapi.json")  # without a token
OPEN_FOLDERS = ("/page/", "/docs/")
HEADERS = {
    "content-security-policy": "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; "
    "object-src 'none'; base-uri 'none'; "
    "frame-ancestors 'none'; form-action 'self'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}
LINGER_S = 10.0  # how long the rest of a refused request's body is read and discarded
DEFAULT_PORTS = {"http": 80, "https": 443}
UNKNOWN = "other"  # a metric's label for paths that are no routes and for unknown methods: clients invent them
METHODS = ("GET", "HEAD", "POST", "DELETE", "PUT", "PATCH", "OPTIONS")


class Guard:
    """ASGI middleware: checks host, origin and token of a request, and adds headers to each answer.

    The host is checked because another site may give this machine a name of its own (DNS rebinding), the origin
    because another site's page may send forms to this server.
    """

    def __init__(self, app: App, settings: ServeSettings, state: Callable[[], State]) -> None:
        self.app, self.settings, self.state = app, settings, state
        self._hosts = {*LOOPBACK, "[::1]", settings.host.lower()} | {_name_of(name) for name in settings.allow_host}

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":  # there are no routes for them
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        started, complete = False, False

        async def receive_noted() -> Message:
            nonlocal complete
            message = await receive()
            complete = not message.get("more_body", False)
            return message

        async def send_guarded(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                if message["status"] >= 400 and headers.get("connection", "").lower() == "close":
                    await _discard_body(receive_noted, lambda: complete)
                known = {key.lower() for key, _ in message["headers"]}
                more = ((key.encode(), value.encode()) for key, value in HEADERS.items() if key.encode() not in known)
                message["headers"] = [*message["headers"], *more]
            await send(message)

        headers = {key.decode("latin-1").lower(): value.decode("latin-1") for key, value in scope["headers"]}
        try:
            if "://" in scope["path"]:
                scope = _with_path(scope, headers.get("host", ""))
            self._check(scope["method"], scope["path"], headers)
        except HTTPException as refusal:
            await _refuse(send_guarded, refusal)
            return
        try:
            await self.app(scope, receive_noted, send_guarded)
        except asyncio.CancelledError:  # the server is told to stop, and has waited for long
            if not started:
                await _refuse(send_guarded, HTTPException(503, "the server is stopping"))

    def _check(self, method: str, path: str, headers: dict[str, str]) -> None:
        """Raise an HTTPException where a request's head is refused."""
        host = headers.get("host", "")
        if not self._accepts_host(_name_of(host)):
            raise HTTPException(403, "unknown host name; start the server with --allow-host NAME to allow it")
        origin = headers.get("origin")
        if origin is not None and not _is_same_site(origin, host.lower()):
            raise HTTPException(403, "requests from pages of other sites are refused")
        if self.settings.token is not None and path not in OPEN_PATHS and not path.startswith(OPEN_FOLDERS):
            scheme, _, given = headers.get("authorization", "").partition(" ")
            # In constant time: how long it takes says nothing about where the tokens differ
            same = hmac.compare_digest(given.encode("latin-1"), self.settings.token.encode())
            if scheme.lower() != "bearer" or not same:
                raise HTTPException(
                    401, "a token is needed: Authorization: Bearer TOKEN", {"www-authenticate": "Bearer"}
                )
        state = self.state()
        if method == "POST" and state.name != "ready":
            line = state.reason or "the model is loading; try again in a moment"
            raise HTTPException(503, line, {"retry-after": "2"})

    def _accepts_host(self, name: str) -> bool:
        if name in self._hosts:
            return True
        if self.settings.host in LOOPBACK:
            return False
        try:  # an address is no name that somebody could point elsewhere
            ipaddress.ip_address(name.strip("[]"))
        except ValueError:
            return False
        return True


def _with_path(scope: MutableMapping[str, Any], host: str) -> MutableMapping[str, Any]:
    """Return a request whose target is a whole URL, as a proxy's may be, with the path alone.

    Raises:
        HTTPException: it is not one of the request's own host.
    """
    scheme, _, rest = scope["path"].partition("://")
    authority, slash, path = rest.partition("/")
    if scheme.lower() not in ("http", "https") or authority.lower() != host.lower():
        raise HTTPException(400, "the request's URL and its Host header differ")
    return (
        {**scope, "path": slash + path, "raw_path": quote(slash + path).encode()} if slash else {**scope, "path": "/"}
    )


def _is_same_site(origin: str, host: str) -> bool:
    """Return whether an Origin header is the server's own, by the Host header.

    A default port may be left out. A proxy may leave out the port in Host (nginx's `$host`): then the name counts, but
    not where it is this machine, as other programs' pages may come from other ports of it.
    """
    try:
        parts = urlsplit(origin)
        port, name = parts.port or DEFAULT_PORTS.get(parts.scheme), parts.hostname or ""
    except ValueError:
        return False
    if parts.netloc.lower() == host:
        return True
    if ":" in name:
        name = f"[{name}]"
    if name != _name_of(host):
        return False
    given = host[len(name) :].removeprefix(":")
    return given == str(port) if given else name not in (*LOOPBACK, "[::1]")


async def _discard_body(receive: Receive, is_complete: Callable[[], bool]) -> None:
    """Read on for a while: where a connection closes on a client that still sends, it never sees the response."""
    with suppress(TimeoutError):
        async with asyncio.timeout(LINGER_S):
            while not is_complete():
                await receive()


async def _refuse(send: Send, refusal: HTTPException) -> None:
    body = json.dumps({"detail": refusal.detail}).encode()
    headers = {"content-type": "application/json", "content-length": str(len(body)), **(refusal.headers or {})}
    encoded = [(key.encode(), value.encode()) for key, value in headers.items()]
    await send({"type": "http.response.start", "status": refusal.status_code, "headers": encoded})
    await send({"type": "http.response.body", "body": body})


def _name_of(host: str) -> str:
    """Return a Host header without its port."""
    if host.startswith("["):
        return host.partition("]")[0].lower() + "]"
    return host.rpartition(":")[0].lower() if host.count(":") == 1 else host.lower()


class Metrics:
    """Metrics of one app: requests by route and status, their seconds, photos, and the queue."""

    MEDIA_TYPE = CONTENT_TYPE_LATEST

    def __init__(self, waiting: Callable[[], int]) -> None:
        self.registry = CollectorRegistry()
        labels = ("route", "method", "status")
        self.requests = Counter("chromatune_requests", "Requests answered.", labels, registry=self.registry)
        self.seconds = Histogram(
            "chromatune_request_seconds", "Seconds from a request's head to its response.", ("route",),
            registry=self.registry,
        )  # fmt: skip
        self.photos = Counter("chromatune_photos", "Photos colorized.", registry=self.registry)
        self.previews = Histogram(
            "chromatune_preview_seconds", "Seconds of a preview of an open photo.", registry=self.registry
        )
        queue = Gauge("chromatune_photos_waiting", "Photos in progress or waiting.", registry=self.registry)
        queue.set_function(waiting)

    def wrap(self, app: App) -> App:
        """Return an app with its requests counted."""

        async def counted(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
            if scope["type"] != "http":
                await app(scope, receive, send)
                return
            start, status = time.perf_counter(), 500

            async def send_noted(message: Message) -> None:
                nonlocal status
                if message["type"] == "http.response.start":
                    status = message["status"]
                await send(message)

            try:
                await app(scope, receive, send_noted)
            finally:
                route = getattr(scope.get("route"), "path", UNKNOWN)
                method = scope["method"] if scope["method"] in METHODS else UNKNOWN
                self.requests.labels(route, method, str(status)).inc()
                self.seconds.labels(route).observe(time.perf_counter() - start)

        return counted

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self.registry)

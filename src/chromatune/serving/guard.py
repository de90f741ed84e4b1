"""Who may come in, and with how much: checked before a request's body is read."""

from __future__ import annotations

import asyncio
import hmac
import json
import math
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from chromatune.serving.settings import LOOPBACK, ServeSettings

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

OPEN_PATHS = ("/", "/healthz", "/readyz", "/docs", "/openapi.json")  # to everybody who may connect
OPEN_FOLDERS = ("/page/", "/docs/")
HEADERS = {
    "content-security-policy": "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; "
    "frame-ancestors 'none'; form-action 'self'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}


class _TooLarge(Exception):
    pass


class Guard:
    """An ASGI app around another: host, origin, token, size and time of a request, and headers of each answer.

    The host is checked because a page elsewhere may give this machine a name of its own (DNS rebinding), the origin
    because a page elsewhere may send forms here.
    """

    def __init__(self, app: App, settings: ServeSettings) -> None:
        self.app, self.settings = app, settings
        self._hosts = {*LOOPBACK, "[::1]", settings.host.lower(), *(name.lower() for name in settings.allow_host)}
        self._most = int(settings.max_upload_mb * 1e6)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """The answer, or a refusal."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {key.decode("latin-1").lower(): value.decode("latin-1") for key, value in scope["headers"]}
        started = False

        async def send_guarded(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                known = {key.lower() for key, _ in message["headers"]}
                message["headers"] = [
                    *message["headers"],
                    *((key.encode(), value.encode()) for key, value in HEADERS.items() if key.encode() not in known),
                ]
            await send(message)

        if refusal := self._refusal(scope["path"], headers):
            await _refuse(send_guarded, *refusal)
            return
        try:
            await self.app(scope, self._limited(receive), send_guarded)
        except _TooLarge:
            if not started:
                await _refuse(send_guarded, 413, self._size_line())
        except TimeoutError:
            if not started:
                await _refuse(send_guarded, 408, f"the upload took longer than {self.settings.timeout_s:g} s")

    def _refusal(self, path: str, headers: dict[str, str]) -> tuple[int, str] | None:
        """Status and line, where a request's head alone says that it is not to be answered."""
        host = headers.get("host", "")
        if _name_of(host) not in self._hosts:
            return 403, "this server is not called that; start it with --allow-host NAME to allow it"
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            return 403, "requests from pages of other sites are refused"
        if self.settings.token is not None and not self._is_open(path):
            given = headers.get("authorization", "").removeprefix("Bearer ")
            if not hmac.compare_digest(given.encode(), self.settings.token.encode()):
                return 401, "a token is needed: Authorization: Bearer TOKEN"
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > self._most:
            return 413, self._size_line()
        return None

    def _is_open(self, path: str) -> bool:
        return path in OPEN_PATHS or path.startswith(OPEN_FOLDERS)

    def _size_line(self) -> str:
        return f"the request is larger than {self.settings.max_upload_mb:g} MB; send a smaller photo, or fewer"

    def _limited(self, receive: Receive) -> Receive:
        """The same messages; an error once they are too large together, or the upload takes too long."""
        seen, complete = 0, False
        deadline = asyncio.get_running_loop().time() + self.settings.timeout_s

        async def limited() -> Message:
            nonlocal seen, complete
            if complete:  # what comes now is that the client has gone
                return await receive()
            async with asyncio.timeout_at(deadline):
                message = await receive()
            seen += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            if seen > self._most:
                raise _TooLarge
            return message

        return limited


async def _refuse(send: Send, status: int, line: str) -> None:
    body = json.dumps({"detail": line}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if status in (408, 413):
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _name_of(host: str) -> str:
    """A Host header without its port."""
    if host.startswith("["):
        return host.partition("]")[0].lower() + "]"
    return host.rpartition(":")[0].lower() if host.count(":") == 1 else host.lower()


def retry_after(waiting: int, workers: int) -> str:
    """Seconds after which a place is likely: a guess from the queue's length."""
    return str(max(1, math.ceil(waiting / max(1, workers) / 4)))

"""Measures for Prometheus: requests by route and status, their seconds, photos, and the queue."""

from __future__ import annotations

import time
from collections.abc import Callable, MutableMapping
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from chromatune.serving.guard import App, Message, Receive, Send

UNKNOWN = "other"  # what clients name is without bound: paths that are no routes, methods
METHODS = ("GET", "HEAD", "POST", "DELETE", "PUT", "PATCH", "OPTIONS")


class Metrics:
    """The measures of one app."""

    MEDIA_TYPE = CONTENT_TYPE_LATEST

    def __init__(self, waiting: Callable[[], int]) -> None:
        self.registry = CollectorRegistry()
        labels = ("route", "method", "status")
        self.requests = Counter("chromatune_requests", "Requests answered.", labels, registry=self.registry)
        self.seconds = Histogram(
            "chromatune_request_seconds", "Seconds from a request's head to its answer.", ("route",),
            registry=self.registry,
        )  # fmt: skip
        self.photos = Counter("chromatune_photos", "Photos colorized.", registry=self.registry)
        self.previews = Histogram(
            "chromatune_preview_seconds", "Seconds of a change of a photo that is kept.", registry=self.registry
        )
        queue = Gauge("chromatune_photos_waiting", "Photos in work or waiting for it.", registry=self.registry)
        queue.set_function(waiting)

    def around(self, app: App) -> App:
        """The app, with its answers counted."""

        async def counted(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
            if scope["type"] != "http":
                await app(scope, receive, send)
                return
            start, status = time.perf_counter(), 500

            async def noted(message: Message) -> None:
                nonlocal status
                if message["type"] == "http.response.start":
                    status = message["status"]
                await send(message)

            try:
                await app(scope, receive, noted)
            finally:
                route = getattr(scope.get("route"), "path", UNKNOWN)
                method = scope["method"] if scope["method"] in METHODS else UNKNOWN
                self.requests.labels(route, method, str(status)).inc()
                self.seconds.labels(route).observe(time.perf_counter() - start)

        return counted

    def text(self) -> bytes:
        """All measures in Prometheus' own form."""
        return generate_latest(self.registry)

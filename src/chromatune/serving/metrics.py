"""Measures for Prometheus: requests by route and status, their seconds, photos, and the queue."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from fastapi import Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

UNKNOWN = "other"  # a path that is no route: named by clients, so without bound


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
        queue = Gauge("chromatune_photos_waiting", "Photos in work or waiting for it.", registry=self.registry)
        queue.set_function(waiting)

    async def measure(self, request: Request, call: Callable[[Request], Awaitable[Response]]) -> Response:
        """The answer, counted."""
        start = time.perf_counter()
        status = 500
        try:
            response = await call(request)
            status = response.status_code
            return response
        finally:
            route = getattr(request.scope.get("route"), "path", UNKNOWN)
            self.requests.labels(route, request.method, str(status)).inc()
            self.seconds.labels(route).observe(time.perf_counter() - start)

    def text(self) -> bytes:
        """All measures in Prometheus' own form."""
        return generate_latest(self.registry)

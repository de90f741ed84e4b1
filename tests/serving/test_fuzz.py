"""A server under limits of its process, sent damaged heads, forms and JSON at random but seeded: it refuses them all.

Slow: `make slow` runs it.
"""

from __future__ import annotations

import http.client
import io
import json
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="limits of Linux' kind")]

REQUESTS = 500
MAX_ADDRESS_SPACE, MAX_DESCRIPTORS = 3 << 30, 128
LIMITED = (
    "import resource, sys\n"
    f"resource.setrlimit(resource.RLIMIT_AS, ({MAX_ADDRESS_SPACE},) * 2)\n"
    f"resource.setrlimit(resource.RLIMIT_NOFILE, ({MAX_DESCRIPTORS},) * 2)\n"
    "from chromatune.cli import main\n"
    "sys.exit(main(sys.argv[1:]))\n"
)
ALLOWED = {200, 201, 202, 204, 400, 401, 403, 404, 405, 408, 409, 413, 415, 422, 429, 503, 504, 507}
STRANGE: list[Any] = [
    None,
    True,
    -1,
    2**63,
    10**400,
    1e308,
    "",
    "\0",
    "\ud800",
    "é" * 9000,
    [],
    {},
    [[[[]]]],
    [1] * 999,
    "NaN",
]
EDIT = {
    "version": 1,
    "strength": 0.5,
    "hints": {"marks": [{"points": [[3, 4], [9, 9]], "radius_px": 3, "color": "#a03020"}]},
}


@pytest.fixture
def server(tmp_path: Path, until) -> Iterator[tuple[subprocess.Popen, int, Path]]:
    """A server within limits, its port, and its log."""
    log, folder = tmp_path / "log", tmp_path / "uploads"
    folder.mkdir()
    command = [sys.executable, "-c", LIMITED, "serve", "--port", "0", "--timeout-s", "20", "--model", "mini"]
    with log.open("wb") as errors:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, env=os.environ | {"TMPDIR": str(folder)}
        )
    assert process.stdout is not None
    try:
        port = int(process.stdout.readline().strip().rstrip("/").rpartition(":")[2])
        until(lambda: ask(port, "GET", "/readyz")[0] == 200)
        yield process, port, log
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def ask(port: int, method: str, path: str, body: bytes | None = None, kind: str = "") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    try:
        connection.request(method, path, body, {"Content-Type": kind} if kind else {})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def picture(rng: random.Random) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(rng.randrange(99)).integers(0, 256, (40, 60), np.uint8)
    Image.fromarray(pixels).save(file, rng.choice(["PNG", "JPEG", "TIFF", "GIF", "WEBP", "BMP"]))
    return file.getvalue()


def damaged(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    start, stop = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    match rng.randrange(6):
        case 0:
            return data[:start]
        case 1:
            return data[:start] + data[stop:]
        case 2:
            return data[:stop] + data[start:stop] * rng.choice([1, 3, 200]) + data[stop:]
        case 3:
            return data
        case _:
            for _ in range(rng.choice([1, 5, 30])):
                changed[rng.randrange(len(changed))] = rng.choice([0, 10, 13, 34, 45, 127, 255, rng.randrange(256)])
            return bytes(changed)


def strangely_set(value: Any, rng: random.Random) -> Any:
    if not value or not isinstance(value, dict | list) or rng.random() < 0.1:
        return rng.choice(STRANGE)
    copy = value.copy()
    key = rng.choice(list(value) if isinstance(value, dict) else range(len(value)))
    copy[key] = strangely_set(value[key], rng)
    if isinstance(copy, dict) and rng.random() < 0.1:
        copy[str(rng.choice(STRANGE))] = 1
    return copy


def form(rng: random.Random) -> bytes:
    fields: list[tuple[str, str, bytes]] = [("photo", "a.png", picture(rng)), ("options", "", b'{"seed": 3}')]
    fields += [("hints", "", json.dumps(strangely_set(EDIT["hints"], rng)).encode())] if rng.random() < 0.3 else []
    fields += [("reference", "r.png", picture(rng))] * rng.choice([0, 0, 1, 20])
    fields += [("hints_layer", "l.png", damaged(picture(rng), rng))] if rng.random() < 0.2 else []
    parts = [
        b'--x\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n%s\r\n'
        % (name.encode(), b'; filename="%s"' % called.encode() if called else b"", data)
        for name, called, data in fields
    ]
    return b"".join(parts) + b"--x--\r\n"


def head(rng: random.Random, port: int) -> bytes:
    lines = [
        b"GET /v1/models HTTP/1.1",
        b"Host: 127.0.0.1:%d" % port,
        b"Content-Length: 3",
        b"Transfer-Encoding: chunked",
    ]
    kept = [line for line in lines if rng.random() < 0.8] + [b"X: " + b"y" * rng.choice([0, 9, 90_000])]
    return damaged(b"\r\n".join(kept) + b"\r\n\r\n", rng)


def send_raw(port: int, data: bytes) -> None:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65536):
            pass


@pytest.mark.parametrize("seed", range(2))
def test_damaged_requests_are_refused_and_the_server_goes_on(server, seed):
    process, port, log = server
    rng, key = random.Random(seed), "none"
    kind = "multipart/form-data; boundary=x"
    for _ in range(REQUESTS):
        match rng.randrange(5):
            case 0:
                send_raw(port, head(rng, port))
                continue
            case 1:
                path = rng.choice(["/v1/colorize", "/v1/sessions", "/v1/batches", "/v1/videos"])
                status, answer = ask(port, "POST", path, damaged(form(rng), rng), kind)
            case 2:
                status, answer = ask(port, "POST", "/v1/sessions", form(rng), kind)
                key = json.loads(answer)["id"] if status == 201 else key
            case _:
                what = rng.choice(["preview", "result", "versions"])
                value = json.dumps(strangely_set(EDIT, rng)).encode()
                body = damaged(value, rng) if rng.random() < 0.3 else value
                status, answer = ask(port, "POST", f"/v1/sessions/{key}/{what}", body, "application/json")
        assert status in ALLOWED, answer[:500]
    file = io.BytesIO()
    Image.fromarray(np.full((40, 60), 90, np.uint8)).save(file, "PNG")
    good = (
        b'--x\r\nContent-Disposition: form-data; name="photo"; filename="a.png"\r\n\r\n%s\r\n--x--\r\n'
        % file.getvalue()
    )
    assert ask(port, "POST", "/v1/colorize", good, kind)[0] == 200
    process.send_signal(signal.SIGTERM)
    assert process.wait(120) == 0
    assert "Traceback" not in log.read_text(errors="replace")
    assert list((log.parent / "uploads").iterdir()) == []

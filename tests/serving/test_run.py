"""Connections: bounded in number, and heads in bytes and time."""

from __future__ import annotations

import logging
import socket
import subprocess
import sys
import threading
from contextlib import suppress

import h11
import pytest

from chromatune.serving import run
from chromatune.serving.run import (
    CHUNKS_A_TURN,
    MAX_HEAD_BYTES,
    MAX_HEADERS,
    MOST_LINES,
    OnceAMinute,
    most_connections,
)
from chromatune.serving.settings import make_serve_settings


def connect(port: int, sent: bytes = b"") -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=60)
    connection.sendall(sent)
    return connection


def get(port: int) -> bytes:
    with connect(port, f"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n".encode()) as one:
        return one.recv(65536).split(b" ")[1]


def is_closed(connection: socket.socket) -> bool:
    """Waits until the server closes it."""
    with connection:
        try:
            while connection.recv(65536):
                pass
        except ConnectionError:
            pass
    return True


@pytest.mark.parametrize("header", [b"X-Long: " + b"x" * 300_000, b"".join(b"X-%d: y\r\n" % n for n in range(30_000))])
def test_a_head_without_end_is_refused(port_of, scripted, header):
    port = port_of(scripted)
    with connect(port) as connection:
        try:
            connection.sendall(b"GET / HTTP/1.1\r\n" + header)
            assert connection.recv(65536).startswith(b"HTTP/1.1 400")
        except ConnectionError:  # it does not read to the end
            pass
    assert len(header) > MAX_HEAD_BYTES
    assert get(port) == b"200"


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: "])
def test_a_head_has_a_deadline(port_of, scripted, monkeypatch, sent):
    monkeypatch.setattr(run, "HEAD_S", 0.1)
    assert is_closed(connect(port_of(scripted), sent))


def test_the_idlest_connection_makes_room(port_of, scripted):
    port = port_of(scripted, connections=8)
    idle = [connect(port) for _ in range(20)]
    assert get(port) == b"200"
    assert all(is_closed(each) for each in idle[:12])
    for each in idle:
        each.close()


def test_where_all_connections_are_busy_the_next_one_is_refused(port_of, scripted, photo, picture, until):
    port = port_of(scripted, connections=8)
    scripted.seconds = 600
    body = b'--x\r\nContent-Disposition: form-data; name="photo"; filename="a"\r\n\r\n' + picture() + b"\r\n--x--\r\n"
    form = "POST /v1/colorize HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/form-data; boundary=x\r\n"
    request = f"{form}Content-Length: {len(body)}\r\n\r\n".encode() + body
    busy = [connect(port, request) for _ in range(8)]
    until(lambda: scripted.waiting == 8)
    assert get(port) == b"503"
    for each in busy:
        each.close()
    until(lambda: get(port) == b"200")


def test_two_hosts_are_a_bad_request(port_of, scripted):
    port = port_of(scripted)
    own = f"Host: 127.0.0.1:{port}\r\n"
    for hosts in (f"{own}Host: evil.example\r\n", f"Host: evil.example\r\n{own}"):
        with connect(port, f"GET /healthz HTTP/1.1\r\n{hosts}\r\n".encode()) as connection:
            assert connection.recv(65536).startswith(b"HTTP/1.1 400")


@pytest.mark.skipif(sys.platform == "win32", reason="no such limits there")
def test_connections_leave_descriptors_for_files():
    import resource

    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))\n"
        "from chromatune.serving.run import most_connections\n"
        "from chromatune.serving.settings import make_serve_settings\n"
        "print(most_connections(make_serve_settings(connections=5000)))"
    )
    assert int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout) == 96
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] < 600 or most_connections(make_serve_settings()) == 256


def test_the_log_says_the_same_once_a_minute():
    now = [0.0]
    log_filter = OnceAMinute(lambda: now[0])

    def said(line: str) -> bool:
        return log_filter.filter(logging.LogRecord("uvicorn", logging.WARNING, "a.py", 1, line, None, None))

    assert [said("bad request"), said("bad request"), said("other")] == [True, False, True]
    assert sum(said(f"bad request {number}") for number in range(100)) == MOST_LINES - 2
    now[0] = 61
    assert said("bad request")


def test_the_log_says_what_libraries_say_once_a_minute():
    code = (
        "import logging; from chromatune.serving.run import _log_to_stderr; _log_to_stderr()\n"
        "for _ in range(99): logging.getLogger('python_multipart.multipart').warning('damaged')"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).stderr.count(b"damaged") == 1


def test_many_headers_are_a_bad_request(port_of, scripted):
    port = port_of(scripted)
    for number, status in ((MAX_HEADERS + 1, b"400"), (MAX_HEADERS - 10, b"200")):
        headers = f"Host: 127.0.0.1:{port}\r\n".encode() + b"a:\r\n" * number
        with connect(port, b"GET /healthz HTTP/1.1\r\n" + headers + b"\r\n") as connection:
            assert connection.recv(65536).split(b" ")[1] == status


def test_requests_sent_ahead_wait_outside(port_of, scripted, monkeypatch):
    most, received = [0], run.BoundedConnection.data_received

    def noting(self: run.BoundedConnection, data: bytes) -> None:
        received(self, data)
        most[0] = max(most[0], len(self.conn.trailing_data[0]))

    monkeypatch.setattr(run.BoundedConnection, "data_received", noting)
    port = port_of(scripted)
    request = f"GET /page/app.js HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()
    with connect(port) as connection:

        def send() -> None:
            with suppress(OSError):
                connection.sendall(request * 200_000)

        threading.Thread(target=send, daemon=True).start()
        answers = b""
        while answers.count(b"HTTP/1.1 200") < 100:
            answers += connection.recv(65536)
        connection.shutdown(socket.SHUT_RDWR)
    assert most[0] < 600_000


def test_small_chunks_leave_turns_to_others(port_of, scripted, photo, picture):
    parser = run._Parser(h11.SERVER)
    parser.receive_data(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\na\r\n" * 1000)
    events = list(iter(parser.next_event, h11.NEED_DATA))
    assert sum(isinstance(event, h11.Data) for event in events) == CHUNKS_A_TURN

    body = b'--x\r\nContent-Disposition: form-data; name="photo"; filename="a"\r\n\r\n' + picture() + b"\r\n--x--\r\n"
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body + bytes(20 * CHUNKS_A_TURN)) + b"0\r\n\r\n"
    kind = "Content-Type: multipart/form-data; boundary=x\r\nTransfer-Encoding: chunked\r\n"
    with connect(port := port_of(scripted)) as connection:
        for _ in range(2):
            connection.sendall(f"POST /v1/colorize HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{kind}\r\n".encode() + chunks)
            assert connection.recv(65536).split(b" ")[1] == b"200"


def test_a_client_that_does_not_read_its_response_is_closed(port_of, scripted, photo, picture, monkeypatch):
    monkeypatch.setattr(run, "STALLED_S", 0.1)
    port = port_of(scripted)
    content = picture() + bytes(30_000_000)
    body = b'--x\r\nContent-Disposition: form-data; name="photo"; filename="a"\r\n\r\n' + content + b"\r\n--x--\r\n"
    form = "POST /v1/colorize HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/form-data; boundary=x\r\n"
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(60)
        connection.connect(("127.0.0.1", port))
        connection.sendall(f"{form}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        aborted = threading.Event()
        lost = run.BoundedConnection.connection_lost

        def noting(self: run.BoundedConnection, error: Exception | None) -> None:
            lost(self, error)
            aborted.set()

        monkeypatch.setattr(run.BoundedConnection, "connection_lost", noting)
        assert aborted.wait(60)

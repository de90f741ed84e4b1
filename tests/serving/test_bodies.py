"""Bodies of requests: a place in the queue comes first, files lie closed on the disk, and values are counted."""

from __future__ import annotations

import errno
import json
import os
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from chromatune.serving import bodies
from chromatune.serving.bodies import MEMORY_BYTES, StoredFile
from chromatune.serving.responses import MAX_FORM_FIELD_BYTES

FORM = "Content-Type: multipart/form-data; boundary=x"


def head(port: int, path: str, *lines: str) -> socket.socket:
    """A connection on which the head of a form has been sent."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=60)
    lines = (f"POST {path} HTTP/1.1", f"Host: 127.0.0.1:{port}", FORM, *lines, "", "")
    connection.sendall("\r\n".join(lines).encode())
    return connection


def part(field: str, content: bytes) -> bytes:
    return (
        f'--x\r\nContent-Disposition: form-data; name="{field}"; filename="a.png"\r\n\r\n'.encode() + content + b"\r\n"
    )


def status_of(connection: socket.socket) -> bytes:
    with connection:
        return connection.recv(65536).split(b" ")[1]


def test_a_small_file_stays_in_memory_and_a_large_one_is_closed_once_it_is_complete(temporary_folder):
    small, large = StoredFile(), StoredFile()
    small.write(b"abc")
    for _ in range(3):
        large.write(bytes(MEMORY_BYTES))
    small.seek(0)
    large.seek(0)
    assert (small.content, small.read()) == (b"abc", b"abc")
    assert large.content == large.path and large.path.parent == temporary_folder
    assert large._file.closed
    assert len(large.read()) == 3 * MEMORY_BYTES
    large.close()
    small.close()
    assert list(temporary_folder.iterdir()) == []


def test_a_moved_file_outlives_its_request(temporary_folder, tmp_path):
    small, large = StoredFile(), StoredFile()
    small.write(b"abc")
    large.write(bytes(MEMORY_BYTES + 1))
    for number, file in enumerate((small, large)):
        file.move_to(tmp_path / str(number))
        file.close()
    assert [(tmp_path / name).stat().st_size for name in "01"] == [3, MEMORY_BYTES + 1]
    assert list(temporary_folder.iterdir()) == []


def test_fields_are_bounded_together(client, photo):
    half = "x" * (MAX_FORM_FIELD_BYTES // 2)
    response = client.post("/v1/colorize", files=photo, data={"hints": half, "other": half, "another": "x"})
    assert response.status_code == 400
    assert response.json()["detail"] == "the form cannot be read: fields without a file take more than 8 MB"


def test_all_bodies_of_json_are_bounded_together(client, monkeypatch):
    def edit(value: object) -> Any:
        return client.post("/v1/sessions/none/preview", json=value)

    monkeypatch.setattr(bodies, "MAX_JSON_HELD_BYTES", 100_000)
    for _ in range(2):  # the first one is no longer counted
        assert edit({"x": "x" * 99_000}).status_code == 422
    refused = edit([0] * 2000)  # of which each takes more than its two bytes
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
    assert edit({"strength": 1}).status_code == 404
    assert bodies._Held.total == 0


def test_options_with_many_fields_are_refused_at_once(client, photo):
    options = json.dumps({f"field{number}": 1 for number in range(100)})
    answer = client.post("/v1/colorize", files=photo, data={"options": options})
    assert (answer.status_code, answer.json()["detail"]) == (422, "options: accepted is a JSON object")


@pytest.mark.parametrize("charset", ["punycode", "utf-7", "raw_unicode_escape", "undefined", "zlib"])
def test_a_form_is_utf_8_whatever_its_charset(client, scripted, picture, charset):
    head = 'Content-Disposition: form-data; name="photo"; filename="\\ud800+2AA-é-.png"'
    form = f"--x\r\n{head}\r\n\r\n".encode() + picture() + b"\r\n--x--\r\n"
    kind = f"multipart/form-data; boundary=x; charset={charset}"
    assert client.post("/v1/colorize", content=form, headers={"content-type": kind}).status_code == 200
    assert scripted.requests[0].name == "ud800+2AA-é-.png"


@pytest.mark.skipif(sys.platform != "linux", reason="lists its descriptors as Linux does")
def test_a_batch_of_large_photos_takes_no_descriptors(client, scripted, temporary_folder, monkeypatch):
    most, move = list[int](), StoredFile.move_to

    def noting(self: StoredFile, target: Path) -> None:
        most.append(len(os.listdir("/proc/self/fd")))
        move(self, target)

    monkeypatch.setattr(StoredFile, "move_to", noting)
    before = len(os.listdir("/proc/self/fd"))
    files = [("photos", (f"{number}.png", bytes(MEMORY_BYTES + 1))) for number in range(100)]
    assert client.post("/v1/batches", files=files).status_code == 202
    assert max(most) < before + 50


def test_beyond_the_queue_a_body_is_not_read(port_of, scripted, temporary_folder, until):
    scripted.slots = 1
    port = port_of(scripted)
    first = head(port, "/v1/colorize", "Content-Length: 1000000")
    first.sendall(part("photo", bytes(MEMORY_BYTES * 2)))
    until(lambda: list(temporary_folder.iterdir()))  # its body is being read
    second = head(port, "/v1/colorize", "Content-Length: 1000000")  # and sends no byte of it
    assert status_of(second) == b"429"
    first.close()


@pytest.mark.parametrize("path", ["/v1/batches", "/v1/videos"])
def test_who_uploads_has_a_place_that_nobody_else_gets(port_of, scripted, temporary_folder, until, path):
    pytest.importorskip("av")
    port = port_of(scripted, batches=1, videos=1)
    first = head(port, path, "Content-Length: 1000000")
    first.sendall(part("photos" if "batch" in path else "video", bytes(MEMORY_BYTES * 2)))
    until(lambda: list(temporary_folder.iterdir()))
    assert status_of(head(port, path, "Content-Length: 1000000")) == b"429"
    first.close()


def test_a_refusal_waits_for_what_a_client_that_closes_still_sends(port_of, scripted):
    scripted.slots = 0
    connection = head(port_of(scripted), "/v1/colorize", "Content-Length: 3000000", "Connection: close")
    for _ in range(30):
        connection.settimeout(0.05)
        with pytest.raises(TimeoutError):  # with the response, the connection would close on it
            connection.recv(1)
        connection.settimeout(60)
        connection.sendall(bytes(100_000))
    assert status_of(connection) == b"429"


@pytest.mark.parametrize(
    ("number", "status", "said"), [(errno.ENOSPC, 507, "disk is full"), (errno.EMFILE, 503, "files open")]
)
def test_a_full_machine_has_a_line(client, photo, monkeypatch, temporary_folder, number, status, said):
    def fail(self: StoredFile, data: bytes) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(StoredFile, "write", fail)
    for path, field in (("/v1/colorize", "photo"), ("/v1/sessions", "photo"), ("/v1/batches", "photos")):
        answer = client.post(path, files={field: photo["photo"]})
        assert (answer.status_code, said in answer.json()["detail"]) == (status, True)
    assert list(temporary_folder.iterdir()) == []


def test_values_of_json_are_counted_before_it_is_parsed(client):
    marks = b'{"hints": {"marks": [' + b"[]," * 300_000 + b"[]]}}"
    answer = client.post("/v1/sessions/nobody/preview", content=marks, headers={"content-type": "application/json"})
    assert (answer.status_code, "values" in answer.json()["detail"]) == (422, True)


@pytest.mark.parametrize("text", [b"[" * 90_000, b"9" * 5000, b"\xff", b"{", b'{"a":1}x'])
def test_json_that_is_none_has_a_line(client, text):
    answer = client.post("/v1/sessions/nobody/preview", content=text, headers={"content-type": "application/json"})
    assert answer.status_code == 422 and answer.json()["detail"]


def test_bodies_of_json_are_small(client):
    answer = client.post("/v1/sessions/nobody/versions", content=b" " * 1_100_000)
    assert (answer.status_code, "1 MB" in answer.json()["detail"]) == (413, True)


def test_a_form_has_only_so_many_parts(client, photo):
    files = [("photo", photo["photo"]), *(("reference", photo["photo"]) for _ in range(40))]
    answer = client.post("/v1/colorize", files=files)
    assert (answer.status_code, "Too many files" in answer.json()["detail"]) == (400, True)
    answer = client.post("/v1/colorize", files=photo, data={f"x{number}": "1" for number in range(40)})
    assert (answer.status_code, "Too many fields" in answer.json()["detail"]) == (400, True)


def test_other_kinds_of_forms_are_not_read(client):
    body = b"photo=" + b"x" * 1_000_000
    answer = client.post("/v1/colorize", content=body, headers={"content-type": "application/x-www-form-urlencoded"})
    assert (answer.status_code, answer.json()["detail"]) == (422, "the form field photo must be a file")


def test_an_upload_that_trickles_is_given_up(port_of, scripted, monkeypatch):
    monkeypatch.setattr(bodies, "PATIENCE_S", 0.0)
    monkeypatch.setattr(bodies, "LEAST_BYTES_PER_S", 10**12)  # nobody is that fast
    connection = head(port_of(scripted), "/v1/colorize", "Content-Length: 1000000")
    connection.settimeout(0.1)
    received = b""
    while not received:
        connection.sendall(b"-")
        with suppress(TimeoutError):
            received = connection.recv(65536)
    connection.close()
    assert received.startswith(b"HTTP/1.1 408")

"""Who may come in, and with how much."""

from __future__ import annotations

import socket

import pytest

from chromatune.errors import OptionsError
from chromatune.serving.predictor import State
from chromatune.serving.settings import make_serve_settings

TOKEN = "a-token-of-some-length"


def test_every_answer_says_that_nothing_comes_from_elsewhere(client):
    refused = client.get("/", headers={"host": "evil.example"})
    answers = [client.get("/"), client.get("/nowhere"), client.post("/v1/colorize"), client.get("/metrics"), refused]
    for answer in answers:
        assert answer.headers["content-security-policy"].startswith("default-src 'self';")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    assert [answer.status_code for answer in answers] == [200, 404, 422, 200, 403]


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8321", "127.0.0.1.evil.example", "192.168.0.9", ""])
def test_a_foreign_host_is_refused(client, scripted, host, photo):
    answer = client.post("/v1/colorize", files=photo, headers={"host": host})
    assert (answer.status_code, scripted.requests) == (403, [])
    assert "--allow-host" in answer.json()["detail"]


def test_own_hosts_and_those_that_are_allowed_come_in(client_of, scripted):
    client = client_of(scripted, allow_host=("photos.example",))
    for host in ("127.0.0.1", "localhost:9", "LOCALHOST", "[::1]:8321", "photos.example:443"):
        assert client.get("/v1/models", headers={"host": host}).status_code == 200, host


def test_a_server_for_others_is_called_by_any_address_and_by_no_other_name(client_of, scripted):
    client = client_of(scripted, host="0.0.0.0", token=TOKEN)
    for host, status in (("192.168.0.9:8321", 200), ("[fe80::1]:8321", 200), ("evil.example", 403)):
        assert client.get("/healthz", headers={"host": host}).status_code == status


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:1", "file://"])
def test_a_foreign_origin_is_refused(client, scripted, origin, photo):
    answer = client.post("/v1/colorize", files=photo, headers={"origin": origin})
    assert (answer.status_code, scripted.requests) == (403, [])


@pytest.mark.parametrize("origin", ["http://[", "http://[::1", "http://]", "null", "http://a b", "file://", ""])
def test_an_origin_that_is_no_url_is_refused(client, origin):
    assert client.get("/healthz", headers={"origin": origin}).status_code == 403


def test_a_target_that_is_a_whole_url_is_one_of_this_host(port_of, scripted):
    port = port_of(scripted)
    for target, status in ((f"http://127.0.0.1:{port}/nowhere", b" 404 "), ("http://evil.example/nowhere", b" 400 ")):
        assert status in answer_of(request(port, f"GET {target} HTTP/1.1"))


@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        ("photos.example.org", "https://photos.example.org", 200),  # nginx's $host
        ("photos.example.org", "https://photos.example.org:8443", 200),
        ("photos.example.org:8443", "https://photos.example.org:8443", 200),  # nginx's $http_host
        ("photos.example.org:443", "https://photos.example.org", 200),
        ("photos.example.org:80", "http://photos.example.org", 200),
        ("photos.example.org:8443", "https://photos.example.org", 403),
        ("photos.example.org", "https://other.example.org", 403),
        ("127.0.0.1", "http://127.0.0.1:3000", 403),  # another program of this machine
    ],
)
def test_a_proxy_gives_the_host_with_its_port_or_without(client_of, scripted, photo, host, origin, status):
    client = client_of(scripted, allow_host=("photos.example.org:8443",))
    answer = client.post("/v1/colorize", files=photo, headers={"host": host, "origin": origin})
    assert answer.status_code == status


@pytest.mark.parametrize("path", ["/", "/docs", "/healthz", "/readyz", "/page/app.js"])
def test_the_head_of_pages_and_health(client, path):
    answer = client.head(path)
    assert (answer.status_code, answer.content) == (200, b"")


def test_the_own_origin_comes_in(client, photo):
    assert client.post("/v1/colorize", files=photo, headers={"origin": "http://127.0.0.1:8321"}).status_code == 200


def test_without_the_token_nothing_is_done(client_of, scripted, photo):
    client = client_of(scripted, token=TOKEN)
    wrong = ["", "Bearer", "Bearer ", "Bearer x", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}"]
    for headers in ({}, *({"authorization": each} for each in wrong)):
        for answer in (
            client.post("/v1/colorize", files=photo, headers=headers),
            client.get("/v1/models", headers=headers),
            client.get("/metrics", headers=headers),
            client.get("/v1/batches/x/zip", headers=headers),
            client.post(f"/v1/colorize?token={TOKEN}&authorization=Bearer {TOKEN}", files=photo, headers=headers),
        ):
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer"), headers
    assert scripted.requests == []


def test_with_the_token_all_is_open_and_without_it_the_page_alone(client_of, scripted, photo):
    client = client_of(scripted, token=TOKEN)
    for path in (
        "/",
        "/page/index.html",
        "/healthz",
        "/readyz",
        "/docs",
        "/openapi.json",
        "/docs/assets/swagger-ui.css",
    ):
        assert client.get(path).status_code == 200, path
    headers = {"authorization": f"bearer {TOKEN}"}
    assert client.post("/v1/colorize", files=photo, headers=headers).status_code == 200


def test_the_token_is_compared_in_constant_time(client_of, scripted, monkeypatch):
    compared: list[tuple[bytes, bytes]] = []

    def compare(given: bytes, token: bytes) -> bool:
        compared.append((given, token))
        return given == token

    monkeypatch.setattr("chromatune.serving.middleware.hmac.compare_digest", compare)
    client = client_of(scripted, token=TOKEN)
    client.get("/v1/models", headers={"authorization": "Bearer wrong"})
    assert compared == [(b"wrong", TOKEN.encode())]


@pytest.mark.parametrize(("settings", "said"), [({"host": "0.0.0.0"}, "--without-token"), ({"token": "short"}, "16")])
def test_others_come_in_by_a_token_that_is_not_guessed(settings, said):
    with pytest.raises(OptionsError, match=said):
        make_serve_settings(**settings)


def test_who_means_it_lets_others_in():
    assert make_serve_settings(host="0.0.0.0", without_token=True).token is None


def test_while_a_model_loads_and_where_it_cannot_photos_are_sent_away(client, scripted, photo):
    for state in (State("loading"), State("failed", "mini is broken; install it again")):
        scripted.state = state
        answer = client.post("/v1/colorize", files=photo)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
        ready = client.get("/readyz")
        assert (ready.status_code, ready.json()["status"]) == (503, state.name)
    assert answer.json()["detail"] == "mini is broken; install it again"
    assert client.get("/healthz").status_code == 200
    scripted.state = State("ready")
    assert client.get("/readyz").status_code == 200


def request(port: int, *lines: str) -> socket.socket:
    """A connection on which a request's head has been sent."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=20)
    connection.sendall("\r\n".join([*lines, f"Host: 127.0.0.1:{port}", "", ""]).encode())
    return connection


def answer_of(connection: socket.socket) -> bytes:
    received = b""
    with connection:
        while piece := connection.recv(65536):
            received += piece
            if b'"detail"' in received:
                break
    return received


FORM = "Content-Type: multipart/form-data; boundary=x"


def test_a_body_that_says_it_is_too_large_is_not_read(port_of, scripted):
    port = port_of(scripted, max_upload_mb=2)
    for length in ("2000001", "9" * 400):
        answer = answer_of(request(port, "POST /v1/colorize HTTP/1.1", FORM, f"Content-Length: {length}"))
        assert b" 413 " in answer or b" 400 " in answer.splitlines()[0]
    assert scripted.requests == []


def test_a_body_of_unknown_length_is_read_no_further_than_allowed(port_of, scripted):
    connection = request(
        port_of(scripted, max_upload_mb=1), "POST /v1/colorize HTTP/1.1", FORM, "Transfer-Encoding: chunked"
    )
    head = b'--x\r\nContent-Disposition: form-data; name="photo"; filename="a.jpg"\r\n\r\n'
    connection.sendall(b"%x\r\n%s\r\n" % (len(head), head))
    piece = b"0" * 100_000
    sent = 0
    try:
        for _ in range(1000):
            connection.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
            sent += len(piece)
    except OSError:  # it is closed
        pass
    assert sent < 50e6  # what buffers hold
    try:
        answer = answer_of(connection)
    except OSError:
        answer = b" 413 "  # the reset has overtaken it
    assert b" 413 " in answer
    assert scripted.requests == []


def test_an_upload_that_takes_too_long_is_given_up(port_of, scripted):
    connection = request(port_of(scripted, timeout_s=0.3), "POST /v1/colorize HTTP/1.1", FORM, "Content-Length: 1000")
    assert b" 408 " in answer_of(connection).splitlines()[0]


def test_a_client_that_goes_away_frees_its_slot(port_of, scripted, picture, until):
    scripted.seconds = 60
    body = (
        b'--x\r\nContent-Disposition: form-data; name="photo"; filename="a.png"\r\n\r\n' + picture() + b"\r\n--x--\r\n"
    )
    connection = request(port_of(scripted), "POST /v1/colorize HTTP/1.1", FORM, f"Content-Length: {len(body)}")
    connection.sendall(body)
    until(lambda: scripted.waiting == 1)
    connection.close()
    until(lambda: scripted.waiting == 0)
    until(lambda: scripted.cancelled == 1)


def test_batches_may_be_larger_than_single_photos(client_of, scripted, picture):
    client = client_of(scripted, max_upload_mb=0.001, max_batch_mb=1)
    large = picture() + b"0" * 5000
    assert client.post("/v1/colorize", files={"photo": ("a.png", large)}).status_code == 413
    assert client.post("/v1/batches", files=[("photos", ("a.png", large))]).status_code == 202


def test_a_web_socket_is_refused(client):
    from starlette.websockets import WebSocketDisconnect

    with pytest.raises(WebSocketDisconnect), client.websocket_connect("/v1/colorize"):
        pass

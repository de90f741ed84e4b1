"""Replicas of Ray Serve behind the app: a lost one, a full queue, a model that is not there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from urllib.request import urlopen

import psutil
import pytest

from chromatune.serving.predictor import Unavailable
from chromatune.serving.settings import make_serve_settings

pytestmark = pytest.mark.slow
SETTINGS = {"engine": "ray", "replicas": 2, "model": ("mini",), "device": "arithmetic"}


@pytest.fixture
def replica_pids(pids_of) -> Callable[[], list[int]]:
    return lambda: pids_of("ray::ServeReplica")


@pytest.fixture
def client(client_of, replicas_of, until):
    """A client of an app over two replicas with the arithmetic model."""
    from chromatune.serving.ray_predictor import RayPredictor

    predictor = RayPredictor(make_serve_settings(**SETTINGS), replicas=replicas_of(**SETTINGS))
    client = client_of(predictor, **SETTINGS)
    until(lambda: predictor.state.name == "ready")
    return client


def test_a_replica_that_is_killed_under_load_loses_no_request(client, picture, until, replica_pids):
    photo = picture(size=(1500, 1500))
    wanted = client.post("/v1/colorize", files={"photo": ("x.png", photo)}).content
    until(lambda: len(replica_pids()) == 2)
    stop, answers = threading.Event(), list[tuple[int, bool]]()

    def load() -> None:
        while not stop.is_set():
            answer = client.post("/v1/colorize", files={"photo": ("x.png", photo)})
            right = answer.content == wanted if answer.status_code == 200 else "retry-after" in answer.headers
            answers.append((answer.status_code, right))

    with ThreadPoolExecutor(4) as clients:
        loads = [clients.submit(load) for _ in range(4)]
        until(lambda: len(answers) > 10)
        os.kill(replica_pids()[0], signal.SIGKILL)
        before = len(answers)
        until(lambda: len(answers) > before + 60)
        stop.set()
        for each in loads:
            each.result()
    assert {status for status, _ in answers} <= {200, 503} and all(right for _, right in answers)
    assert sum(status == 200 for status, _ in answers) > 0.9 * len(answers)
    until(lambda: len(replica_pids()) == 2)


def test_a_replica_listens_on_the_loopback_address_alone(client, replica_pids, until):
    """Ray Serve's own port unpickles what anybody sends."""
    until(lambda: len(replica_pids()) == 2)
    found = [each for pid in replica_pids() for each in psutil.Process(pid).net_connections("tcp")]
    listening = [each.laddr.ip for each in found if each.status == "LISTEN"]
    assert listening and all("127.0.0.1" in each for each in listening)


def test_a_session_outlives_the_replicas(client, picture, until, replica_pids):
    opened = client.post("/v1/sessions", files={"photo": ("x.png", picture(size=(80, 60)))}).json()
    path = f"/v1/sessions/{opened['id']}"
    before = client.post(f"{path}/result", json={}).content
    until(lambda: len(replica_pids()) == 2)
    gone = replica_pids()
    for each in gone:
        os.kill(each, signal.SIGKILL)
    assert client.post(f"{path}/result", json={}).content == before
    until(lambda: len(set(replica_pids()) - set(gone)) == 2)
    answer = client.post(f"{path}/versions", json={"options": {"seed": 3}})
    assert (answer.status_code, answer.json()["version"]) == (201, 2)


def test_a_queue_that_is_full_refuses_and_batches_wait_for_their_turn(client_of, replicas_of, picture, until):
    from chromatune.serving.ray_predictor import RayPredictor

    settings = SETTINGS | {"replicas": 1, "queue": 1}
    predictor = RayPredictor(make_serve_settings(**settings), replicas=replicas_of(**settings))
    client = client_of(predictor, **settings)
    until(lambda: predictor.state.name == "ready")
    large = {"photo": ("x.png", picture(size=(4000, 3000)))}
    with ThreadPoolExecutor(8) as clients:
        waiting = [clients.submit(client.post, "/v1/colorize", files=large) for _ in range(8)]
        until(lambda: predictor.waiting > 1)
        batch = client.post("/v1/batches", files=[("photos", (f"{n}.png", picture())) for n in range(3)]).json()["id"]
        answers = [each.result() for each in waiting]
    statuses = {answer.status_code for answer in answers}
    assert statuses == {200, 429}
    full = next(answer for answer in answers if answer.status_code == 429)
    assert (
        full.json()["detail"] == "too many photos are queued; try again later" and int(full.headers["retry-after"]) >= 1
    )
    until(lambda: client.get(f"/v1/batches/{batch}").json()["state"] == "done")
    states = {each["state"] for each in client.get(f"/v1/batches/{batch}").json()["photos"]}
    assert states == {"done"} and predictor.waiting == 0


def test_a_model_that_cannot_be_loaded_fails_as_with_the_local_engine(client_of, replicas_of, photo, until, tmp_path):
    from chromatune.serving.ray_predictor import RayPredictor

    (tmp_path / "empty").mkdir()
    settings = {"engine": "ray", "model": (str(tmp_path / "empty"), "mini")}
    predictor = RayPredictor(make_serve_settings(**settings), replicas=replicas_of(**settings))
    client = client_of(predictor, **settings)
    until(lambda: predictor.state.name == "failed")
    for answer in (client.get("/readyz"), client.post("/v1/colorize", files=photo)):
        assert answer.status_code == 503
        assert answer.json()["detail"] == "empty is not a model's folder: it has no model_index.json"


def test_what_is_lost_twice_is_a_503_that_says_when_to_come_again(client_of, picture, photo):
    from chromatune.serving.responses import status_of

    class Lost:
        state, waiting, slots = type("Ready", (), {"name": "ready", "reason": ""})(), 0, 1

        def start(self) -> None: ...

        def stop(self) -> None: ...

        def free_idle(self) -> None: ...

        async def colorize(self, request, *, wait_for_slot: bool = False):
            raise Unavailable("the photo's replica was lost; try again in a moment")

    answer = client_of(Lost()).post("/v1/colorize", files=photo)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    assert answer.json()["detail"] == "the photo's replica was lost; try again in a moment"
    assert status_of(Unavailable("x")) == 503


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_the_command_ends_with_all_it_has_started(temporary_folder, until, end):
    psutil = pytest.importorskip("psutil")

    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    command = [sys.executable, "-m", "chromatune", "serve", "--port", "0", "--engine", "ray", "--replicas", "2"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=environment | {"TMPDIR": str(temporary_folder)},
    )  # fmt: skip
    try:
        assert process.stdout is not None and process.stderr is not None
        address = process.stdout.readline().strip()
        until(lambda: answers(f"{address}readyz"))
        started = psutil.Process(process.pid).children(recursive=True)
        assert sum("ray::ServeReplica" in " ".join(each.cmdline()) for each in started) == 2
        process.send_signal(end)
        assert process.wait(60) == (0 if end == signal.SIGTERM else -signal.SIGKILL)
        until(lambda: not any(each.is_running() and each.status() != "zombie" for each in started))
        if end == signal.SIGTERM:
            assert process.stderr.read() == "note: Ctrl-C stops it\n"
            assert list(temporary_folder.iterdir()) == []
    finally:
        process.kill()
        process.communicate()


def answers(url: str) -> bool:
    try:
        with urlopen(url) as answer:
            return answer.status == 200
    except OSError:
        return False


DEPLOYED = """
import sys, time
from chromatune.cluster import joined
with joined(None, cpus=2):
    from ray import serve
    from chromatune.serving.ray_app import build
    serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
    serve.run(build({"model": ["mini"], "replicas": 2}), name="chromatune", route_prefix="/")
    print("up", flush=True)
    sys.stdin.read()
"""


def test_the_app_as_a_deployment(picture, until):
    import socket

    import httpx

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    process = subprocess.Popen(
        [sys.executable, "-c", DEPLOYED, str(port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=environment,
    )  # fmt: skip
    try:
        assert process.stdout is not None and process.stdout.readline() == "up\n"
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            until(lambda: client.get("/readyz").status_code == 200)
            photo = {"photo": ("x.png", picture(size=(80, 60)))}
            colored = client.post("/v1/colorize", files=photo, data={"options": '{"seed": 3}'})
            assert colored.content.startswith(b"\x89PNG") and colored.headers["x-chromatune-seed"] == "3"
            opened = client.post("/v1/sessions", files=photo, data={"options": '{"seed": 3}'}).json()
            assert client.post(f"/v1/sessions/{opened['id']}/result", json={}).content == colored.content
            assert client.post("/v1/colorize", files={"photo": ("x.png", b"none")}).status_code == 415
            assert client.get("/v1/models", headers={"host": "evil.example"}).status_code == 403
            assert "ChromaTune" in client.get("/").text
        process.communicate(timeout=60)
        assert process.returncode == 0
    finally:
        process.kill()
        process.communicate()

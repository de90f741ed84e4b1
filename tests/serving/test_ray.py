"""Replicas of Ray Serve behind the app: a lost one, a full queue, a model that is not there."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

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
    killed, stop = threading.Event(), time.monotonic() + 8

    def load(_: int) -> list[tuple[int, bool]]:
        found = []
        while time.monotonic() < stop:
            answer = client.post("/v1/colorize", files={"photo": ("x.png", photo)})
            right = answer.content == wanted if answer.status_code == 200 else "retry-after" in answer.headers
            found.append((answer.status_code, right))
        return found

    with ThreadPoolExecutor(4) as clients:
        loads = [clients.submit(load, number) for number in range(4)]
        time.sleep(1.5)
        os.kill(replica_pids()[0], signal.SIGKILL)
        killed.set()
        answers = [answer for each in loads for answer in each.result()]
    assert len(answers) > 20
    assert {status for status, _ in answers} <= {200, 503} and all(right for _, right in answers)
    assert sum(status == 200 for status, _ in answers) > 0.9 * len(answers)
    until(lambda: len(replica_pids()) == 2, 40)


def test_a_session_outlives_the_replicas(client, picture, until, replica_pids):
    opened = client.post("/v1/sessions", files={"photo": ("x.png", picture(size=(80, 60)))}).json()
    path = f"/v1/sessions/{opened['id']}"
    before = client.post(f"{path}/result", json={}).content
    until(lambda: len(replica_pids()) == 2, 40)
    gone = replica_pids()
    for each in gone:
        os.kill(each, signal.SIGKILL)
    assert client.post(f"{path}/result", json={}).content == before
    until(lambda: len(set(replica_pids()) - set(gone)) == 2, 60)
    answer = client.post(f"{path}/versions", json={"options": {"seed": 3}})
    assert (answer.status_code, answer.json()["version"]) == (201, 2)

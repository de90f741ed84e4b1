"""`chromatune serve` as a process of its own: what it prints, and how it ends."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import pytest

from chromatune.serving.settings import ServeSettings


@contextmanager
def serving(
    *arguments: str, temporary: Path, until: Callable[..., None]
) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """The process, once its model is loaded, and its port; its imports are listed on standard error."""
    environment = os.environ | {"TMPDIR": str(temporary), "PYTHONPROFILEIMPORTTIME": "1"}
    command = [sys.executable, "-m", "chromatune", "serve", "--port", "0", *arguments]
    errors = temporary.with_suffix(".errors")
    with errors.open("w") as file:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=file, text=True, env=environment)
    try:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert address.startswith("http://127.0.0.1:") and address.endswith("/")
        until(lambda: get(f"{address}readyz") is not None)
        yield process, int(address.rstrip("/").rpartition(":")[2])
    finally:
        process.kill()
        process.communicate()


def get(url: str) -> bytes | None:
    try:
        with urlopen(url) as answer:
            return answer.read()
    except OSError:
        return None


def post(port: int, data: bytes, options: str = "{}") -> tuple[int, bytes]:
    head = '--x\r\nContent-Disposition: form-data; name="options"\r\n\r\n' + options + "\r\n"
    head += '--x\r\nContent-Disposition: form-data; name="photo"; filename="a.png"\r\n\r\n'
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    body = head.encode() + data + b"\r\n--x--\r\n"
    connection.request("POST", "/v1/colorize", body, {"Content-Type": "multipart/form-data; boundary=x"})
    answer = connection.getresponse()
    found = answer.status, answer.read()
    connection.close()
    return found


@pytest.mark.parametrize("end", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_stopped_it_answers_what_is_in_work_and_exits_0_without_torch(temporary_folder, picture, end, until):
    with serving("--model", "mini", temporary=temporary_folder, until=until) as (process, port):
        found: list[tuple[int, bytes]] = []
        long = json.dumps({"steps": 12, "size_px": 128})
        client = threading.Thread(target=lambda: found.append(post(port, picture(size=(64, 64)), long)))
        client.start()
        metrics = f"http://127.0.0.1:{port}/metrics"
        until(lambda: b"chromatune_photos_waiting 1.0" in (get(metrics) or b"") or bool(found))
        assert len(list(temporary_folder.iterdir())) == 1
        process.send_signal(end)
        client.join(60)
        assert found[0][0] == 200 and found[0][1].startswith(b"\x89PNG")
        assert process.wait(30) == 0
    lines = temporary_folder.with_suffix(".errors").read_text().splitlines()
    imported = {line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:")}
    assert [line for line in lines if not line.startswith("import time:")] == ["note: Ctrl-C stops it"]
    assert "fastapi" in imported and not imported & {"torch", "diffusers", "transformers"}
    assert list(temporary_folder.iterdir()) == []


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()[1]


def test_a_port_that_is_taken_is_one_line(taken_port, engine, capsys):
    from chromatune.cli import main

    assert main(["serve", "--port", str(taken_port)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: cannot listen on 127.0.0.1:{taken_port} ") and error.count("\n") == 1


@pytest.mark.slow
def test_a_process_that_ends_while_it_loads_a_model_ends_well(taken_port):
    command = [sys.executable, "-m", "chromatune", "serve", "--port", str(taken_port)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--host", "0.0.0.0"], "--host 0.0.0.0 lets other machines connect"),
        (["--port", "70000"], "--port"),
        (["--token", "short"], "--token"),
        (["--replicas", "2"], "--replicas and --ray-address go with --engine ray"),
        (["--engine", "dask"], "--engine 'dask': "),
        (["--engine", "ray", "--ray-address", "nonsense"], "--ray-address 'nonsense': no Ray cluster at this address"),
    ],
)
def test_wrong_usage_is_one_line(capsys, arguments, said):
    from chromatune.cli import main

    assert main(["serve", *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_flags_of_version_0_1(monkeypatch):
    from chromatune.cli import main

    served: list[ServeSettings] = []
    monkeypatch.setattr("chromatune.serving.run_app", lambda app, settings, announce: served.append(settings))
    monkeypatch.setattr("chromatune.serving.local.LocalPredictor.start", lambda self: None)
    assert main(["serve", "--films", "7", "--film-minutes", "0.5", "--max-film-mb", "3"]) == 0
    assert (served[0].videos, served[0].video_minutes, served[0].max_video_mb) == (7, 0.5, 3)


def test_without_its_extra_it_says_how_to_install_it(capsys, monkeypatch):
    from chromatune.cli import main

    monkeypatch.setattr("chromatune.cli.serve.find_spec", lambda name: None if name == "fastapi" else object())
    assert main(["serve"]) == 1
    assert capsys.readouterr().err == "error: the server needs the extra 'web': pip install 'chromatune[web]'\n"


def test_the_token_may_come_from_the_environment(monkeypatch, capsys):
    from chromatune.cli import main

    monkeypatch.setenv("CHROMATUNE_TOKEN", "short")
    assert main(["serve", "--host", "0.0.0.0"]) == 2
    assert "16" in capsys.readouterr().err
    monkeypatch.setenv("CHROMATUNE_TOKEN", "a-token-of-some-length")
    served: list[ServeSettings] = []
    monkeypatch.setattr("chromatune.serving.run_app", lambda app, settings, announce: served.append(settings))
    monkeypatch.setattr("chromatune.serving.local.LocalPredictor.start", lambda self: None)
    assert main(["serve", "--host", "0.0.0.0"]) == 0
    assert served[0].token == "a-token-of-some-length"

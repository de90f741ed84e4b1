"""`chromatune serve` as a process of its own: what it prints, and how it ends."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import pytest


@contextmanager
def serving(*arguments: str, temporary: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """The process, once its model is loaded, and its port."""
    process = subprocess.Popen(
        [sys.executable, "-m", "chromatune", "serve", "--port", "0", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"TMPDIR": str(temporary)},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert address.startswith("http://127.0.0.1:") and address.endswith("/")
        port = int(address.rstrip("/").rpartition(":")[2])
        for _ in range(600):
            try:
                with urlopen(f"{address}readyz"):
                    break
            except OSError:
                time.sleep(0.05)
        yield process, port
    finally:
        process.kill()
        process.communicate()


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


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop_it_answers_what_is_in_work_and_exits_0(temporary_folder, picture, end):
    with serving("--model", "mini", temporary=temporary_folder) as (process, port):
        found: list[tuple[int, bytes]] = []
        slow = json.dumps({"steps": 40, "size_px": 128})
        client = threading.Thread(target=lambda: found.append(post(port, picture(size=(64, 64)), slow)))
        client.start()
        for _ in range(200):
            with urlopen(f"http://127.0.0.1:{port}/metrics") as measures:
                if b"chromatune_photos_waiting 1.0" in measures.read():
                    break
            time.sleep(0.01)
        else:
            pytest.fail("it is not in work")
        assert len(list(temporary_folder.iterdir())) == 1
        process.send_signal(end)
        client.join(60)
        assert found[0][0] == 200 and found[0][1].startswith(b"\x89PNG")
        assert process.wait(30) == 0
        assert process.stderr is not None
        assert process.stderr.read() == "note: Ctrl-C ends it\n"
        assert list(temporary_folder.iterdir()) == []


def test_a_port_that_is_taken_is_one_line(tmp_path):
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-m", "chromatune", "serve", "--port", port]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: 127.0.0.1:{port} cannot be listened on") and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--host", "0.0.0.0"], "--host 0.0.0.0 lets other machines in"),
        (["--port", "70000"], "--port"),
        (["--token", "short"], "--token"),
        (["--replicas", "2"], "--replicas and --ray-address go with --engine ray"),
        (["--engine", "dask"], "--engine 'dask': "),
        (["--engine", "ray", "--ray-address", "nonsense"], "--ray-address 'nonsense': no Ray answers there"),
    ],
)
def test_wrong_usage_is_one_line(capsys, arguments, said):
    from chromatune.cli import main

    assert main(["serve", *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_flags_of_version_0_1(monkeypatch):
    from chromatune.cli import main

    served = []
    monkeypatch.setattr("chromatune.serving.run.run_app", lambda app, settings, announce: served.append(settings))
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
    served = []
    monkeypatch.setattr("chromatune.serving.run.run_app", lambda app, settings, announce: served.append(settings))
    monkeypatch.setattr("chromatune.serving.local.LocalPredictor.start", lambda self: None)
    assert main(["serve", "--host", "0.0.0.0"]) == 0
    assert served[0].token == "a-token-of-some-length"


def test_no_torch_is_loaded(tmp_path):
    code = """
import sys
from fastapi.testclient import TestClient
from chromatune.serving.app import create_app
from chromatune.serving.local import LocalPredictor
from chromatune.serving.settings import ServeSettings
settings = ServeSettings()
predictor = LocalPredictor(settings)
with TestClient(create_app(predictor, settings), base_url="http://localhost") as client:
    predictor._loader.join()
    from PIL import Image
    import io
    file = io.BytesIO()
    Image.new("L", (40, 30)).save(file, "PNG")
    answer = client.post("/v1/colorize", files={"photo": ("x.png", file.getvalue())})
    assert answer.status_code == 200, answer.text
print([name for name in ("torch", "diffusers", "transformers") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "[]", done.stderr

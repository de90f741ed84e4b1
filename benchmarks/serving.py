"""The server under load: many clients, long runs, strokes on a large photo in a browser, and its start.

    python benchmarks/serving.py crowd    # 64 clients, 500 requests, a tenth of them malformed
    python benchmarks/serving.py long     # 10,000 small requests, 300 sessions opened and abandoned
    python benchmarks/serving.py strokes  # from a stroke's end to the new picture on the page; takes Chromium
    python benchmarks/serving.py start    # from the command to the first photo taken, beside a bare FastAPI app

Each part starts servers of its own, as processes, and prints lines of a table.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
from PIL import Image

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
REST_S = 100  # sessions, and what hints took, end after a minute; the server looks twice a minute
BARE = """
import sys, socket, uvicorn
from fastapi import FastAPI
app = FastAPI()
@app.get("/readyz")
def readyz(): return {"status": "ok"}
with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    free.listen()
    print(f"http://127.0.0.1:{free.getsockname()[1]}/", flush=True)
    uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[free])
"""


@contextmanager
def server(*arguments: str, code: str | None = None) -> Iterator[tuple[str, int, float]]:
    """Address, process and seconds until it was ready, of `chromatune serve` or of other code."""
    command = ["-c", code] if code else ["-m", "chromatune", "serve", "--port", "0", *arguments]
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        while True:
            try:
                if httpx.get(f"{address}readyz").status_code == 200:
                    break
            except httpx.TransportError:
                pass
            time.sleep(0.005)
        yield address, process.pid, time.perf_counter() - start
    finally:
        process.terminate()
        process.wait(60)


def memory_mb(process: int, kind: str = "VmRSS") -> float:
    """Resident memory of a process, now ("VmRSS") or at its peak ("VmHWM")."""
    status = Path(f"/proc/{process}/status").read_text()
    match = re.search(rf"{kind}:\s+(\d+)", status)
    assert match is not None
    return int(match[1]) / 1024


def photo(width: int, height: int, seed: int = 0) -> bytes:
    """A JPEG of clouds: smooth shapes of every size, with a little grain."""
    generator = np.random.default_rng(seed)
    gray = np.zeros((height, width), np.float32)
    for cells in (4, 16, 64):
        coarse = Image.fromarray(generator.random((cells, cells), np.float32))
        gray += np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)) / cells**0.5
    gray += generator.normal(0, 0.01, gray.shape)
    gray = (gray - gray.min()) / np.ptp(gray) * 255
    file = io.BytesIO()
    Image.fromarray(gray.astype(np.uint8)).save(file, "JPEG", quality=90)
    return file.getvalue()


def crowd(clients: int, requests: int) -> None:
    """Every status that came, whether good answers are the command line's files, and peak memory beside one client."""
    photos = [photo(1200, 900, seed) for seed in range(8)]
    with tempfile.TemporaryDirectory() as folder, server() as (address, process, _):
        wanted = [_by_command_line(Path(folder), number, data) for number, data in enumerate(photos)]
        for number in range(24):
            _colorize(address, photos[number % 8], number % 8)
        alone = memory_mb(process, "VmHWM")
    draw = random.Random(0)
    kinds = [
        draw.choice(("text", "half", "options", "none")) if draw.random() < 0.1 else "good" for _ in range(requests)
    ]
    with server() as (address, process, _):
        start = time.perf_counter()

        def ask(job: tuple[int, str]) -> tuple[str, int, bool, int]:
            number, kind = job
            tries = 0
            while True:
                status, data = _ask(address, photos[number % 8], number % 8, kind)
                if status not in (429, 503):
                    return kind, status, data == wanted[number % 8], tries
                tries += 1
                time.sleep(1)

        with ThreadPoolExecutor(clients) as threads:
            found = list(threads.map(ask, enumerate(kinds)))
        seconds, peak = time.perf_counter() - start, memory_mb(process, "VmHWM")
    print(f"crowd\t{clients} clients\t{requests} requests\t{seconds:.1f} s")
    for (kind, status), count in sorted(Counter((kind, status) for kind, status, _, _ in found).items()):
        print(f"crowd\t{kind}\t{status}\t{count}")
    good = [same for kind, _, same, _ in found if kind == "good"]
    print(f"crowd\tequal to the command line's file\t{sum(good)} of {len(good)}")
    print(f"crowd\trefused and sent again (429, 503)\t{sum(tries for *_, tries in found)}")
    print(f"crowd\tpeak memory\t{peak:.0f} MB\tone client's\t{alone:.0f} MB")


def _by_command_line(folder: Path, number: int, data: bytes) -> bytes:
    source, target = folder / f"{number}.jpg", folder / f"{number}.color.jpg"
    source.write_bytes(data)
    command = [sys.executable, "-m", "chromatune", "colorize", str(source), "-o", str(target), "--seed", str(number)]
    subprocess.run(command, check=True, capture_output=True)
    return target.read_bytes()


def _colorize(address: str, data: bytes, seed: int) -> bytes:
    status, content = _ask(address, data, seed, "good")
    assert status == 200, content
    return content


def _ask(address: str, data: bytes, seed: int, kind: str) -> tuple[int, bytes]:
    sent = {"text": b"no picture at all", "half": data[: len(data) // 3]}.get(kind, data)
    options = '{"steps": "many"}' if kind == "options" else json.dumps({"seed": seed})
    files = {} if kind == "none" else {"photo": ("a.jpg", sent)}
    answer = httpx.post(f"{address}v1/colorize", files=files, data={"options": options}, timeout=300)
    return answer.status_code, answer.content


def long(requests: int, sessions: int) -> None:
    """Resident memory after the first 500 requests, after all, and after sessions nobody closes; each after a rest."""
    data = photo(96, 64)
    with server("--session-minutes", "1") as (address, process, _), httpx.Client(timeout=60) as client:
        start = time.perf_counter()
        for number in range(requests):
            asked = json.dumps({"seed": number})
            answer = client.post(f"{address}v1/colorize", files={"photo": ("a.jpg", data)}, data={"options": asked})
            assert answer.status_code == 200, answer.text
            if number + 1 in (500, requests):
                seconds = time.perf_counter() - start
                print(f"long\tafter {number + 1} requests\t{rested_mb(process)}\t{seconds:.0f} s", flush=True)
        hints = {"marks": [{"points": [[20, 20], [40, 30]], "color": "#a03020"}]}
        for number in range(sessions):
            answer = client.post(f"{address}v1/sessions", files={"photo": ("a.jpg", data)})
            path = f"{address}v1/sessions/{answer.json()['id']}"
            answer = client.post(f"{path}/preview", json={"hints": hints})
            assert answer.status_code == 200, answer.text
            if number + 1 in (20, sessions):  # as many as may be open, and all
                print(f"long\tand {number + 1} sessions\t{rested_mb(process)}", flush=True)


def rested_mb(process: int) -> str:
    """Resident memory at once, and after the server had time to free memory."""
    at_once = memory_mb(process)
    time.sleep(REST_S)
    return f"{at_once:.1f} MB, after {REST_S} s {memory_mb(process):.1f} MB"


def strokes(count: int) -> None:
    """Milliseconds by the browser's own clock from a stroke's end to the new picture, on a 12-megapixel photo."""
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as folder, server() as (address, _, _), sync_playwright() as playwright:
        path = Path(folder) / "large.jpg"
        path.write_bytes(photo(4000, 3000))
        passes = []
        for _ in range(5):
            start = time.perf_counter()
            _colorize(address, path.read_bytes(), 0)
            passes.append(1000 * (time.perf_counter() - start))
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--disable-gpu"], chromium_sandbox=False)
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto(address)
        page.wait_for_selector("body[data-ready]")
        page.set_input_files("#files", path)
        page.wait_for_selector("#stage[data-changes]", timeout=60_000)
        page.wait_for_timeout(2000)
        page.click("[data-tool=brush]")
        box = page.locator("#picture").bounding_box()
        assert box is not None
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        page.wait_for_timeout(8000)  # it suggests colors for the point
        draw, found = random.Random(0), []
        for _ in range(count):
            x, y = (box["x"] + draw.uniform(0.1, 0.8) * box["width"], box["y"] + draw.uniform(0.1, 0.8) * box["height"])
            before = page.evaluate("document.getElementById('stage').dataset.changes")
            page.mouse.move(x, y)
            page.mouse.down()
            page.mouse.move(x + 40, y + 15, steps=6)
            page.mouse.up()
            page.wait_for_selector(f"#stage:not([data-changes='{before}'])")
            found.append(float(page.evaluate("document.getElementById('stage').dataset.changeMs")))
            page.wait_for_timeout(700)
        browser.close()
    median, colorize = statistics.median(found), statistics.median(passes)
    print(f"strokes\t{count} strokes\tmedian {median:.0f} ms\tslowest {max(found):.0f} ms\tfirst {found[0]:.0f} ms")
    print(f"strokes\ta colorize request of the same photo\tmedian {colorize:.0f} ms\tratio {median / colorize:.2f}")


def start(rounds: int) -> None:
    """Seconds from the command to readiness, beside a bare FastAPI app, in turn."""
    ours, bare = [], []
    for _ in range(rounds):
        with server(code=BARE) as (_, _, seconds):
            bare.append(seconds)
        with server() as (_, _, seconds):
            ours.append(seconds)
    here, there = statistics.median(ours), statistics.median(bare)
    print(f"start\tready\tmedian {here:.2f} s\tbare app {there:.2f} s\tratio {here / there:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=["crowd", "strokes", "start", "long"])
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--requests", type=int, help="500 of a crowd, 10,000 of the long run")
    parser.add_argument("--sessions", type=int, default=300)
    parser.add_argument("--strokes", type=int, default=25)
    given = parser.parse_args()
    print(f"# {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    if "crowd" in given.parts:
        crowd(given.clients, given.requests or 500)
    if "strokes" in given.parts:
        strokes(given.strokes)
    if "start" in given.parts:
        start(5)
    if "long" in given.parts:
        long(given.requests or 10_000, given.sessions)


if __name__ == "__main__":
    main()

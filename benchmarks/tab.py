"""The site of `chromatune site` in Chromium against Python: time to a first color, seconds a photo, memory.

    chromatune site OUT && python benchmarks/tab.py OUT

Both sides run in turn on the same photo of 1 megapixel, a gray PNG and a JPEG in color. Memory is the largest that the
tab's process took, after photos of 1, 24 and 48 megapixels. It needs Chromium, and playwright.
"""

from __future__ import annotations

import argparse
import base64
import functools
import io
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image
from skimage import data

from chromatune import Colorizer

ROUNDS = 5
COLORIZE = """async ([photo, name]) => {
    const { send } = await import("./page/api.js"), file = await (await fetch(photo)).blob();
    const { openSession, closeSession } = await import("./page/session.js"), start = performance.now();
    const { id, version } = await openSession(file, name, null, {});
    const size = (await (await send(`v1/sessions/${id}/result`, { version })).blob()).size;
    const seconds = (performance.now() - start) / 1000;
    await closeSession(id);
    return [seconds, size];
}"""


class Handler(SimpleHTTPRequestHandler):
    """Files of a folder, without a word."""

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def photos() -> dict[str, bytes]:
    """Return photos by name: one of 1 MP as gray PNG and as JPEG in color, JPEGs of 24 and 48 MP with grain."""
    rgb = cv2.resize(data.astronaut(), (1155, 866), interpolation=cv2.INTER_CUBIC)
    gray = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    found = {"1 MP, gray PNG": _file(gray, "PNG"), "1 MP, color JPEG": _file(rgb, "JPEG")}
    grain = np.random.default_rng(0)
    for name, size in (("24 MP", (6000, 4000)), ("48 MP", (8000, 6000))):
        large = cv2.resize(gray, size, interpolation=cv2.INTER_CUBIC) + grain.normal(0, 3, size[::-1])
        found[name] = _file(np.clip(large, 0, 255).astype(np.uint8), "JPEG")
    return found


def _file(samples: np.ndarray, kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(samples).save(file, kind, quality=92)
    return file.getvalue()


def renderer_mb() -> float:
    """Return the largest memory that a tab's process of Chromium has taken, in megabytes."""
    processes = subprocess.run(["pgrep", "-f", "type=renderer"], capture_output=True, text=True).stdout.split()
    found = [0.0]
    for process in processes:
        try:
            status = Path(f"/proc/{process}/status").read_text()
        except OSError:
            continue
        found += [int(line.split()[1]) / 1000 for line in status.splitlines() if line.startswith("VmHWM")]
    return max(found)


def timed(work: Callable[[], object]) -> float:
    """Return the seconds that a call takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _by_python(colorizer: Colorizer, content: bytes, kind: str) -> None:
    colorizer.colorize(content).encode(kind)


def first_color(page: Any, url: str, photo: Path) -> float:
    """Return the seconds from an empty cache until a photo is in color on the page."""
    start = time.perf_counter()
    page.goto(url)
    done = "Number(document.getElementById('stage').dataset.changes ?? 0) > 0"
    _wait(page, "crossOriginIsolated && document.body.dataset.ready === 'yes'")
    page.set_input_files("#files", photo)
    _wait(page, done)
    return time.perf_counter() - start


def _wait(page: Any, expression: str) -> None:
    while True:
        try:
            if page.evaluate(expression):
                return
        except Exception as error:  # the page is just being read anew
            if "destroyed" not in str(error):
                raise
        page.wait_for_timeout(20)


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("site", type=Path, metavar="OUT", help="Folder that chromatune site wrote.")
    site = parser.parse_args().site
    from playwright.sync_api import sync_playwright

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    colorizer, files = Colorizer.load("mini"), photos()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        chromium = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=chromium, chromium_sandbox=False)
        page, photo = browser.new_page(), Path(folder) / "photo.png"
        photo.write_bytes(files["1 MP, gray PNG"])
        print(f"first color, empty cache\t{first_color(page, f'http://127.0.0.1:{server.server_port}/', photo):.2f} s")
        command = [sys.executable, "-m", "chromatune", "colorize", str(photo), "-o", str(Path(folder) / "c.png")]
        for name, content in files.items():
            kind = "JPEG" if "JPEG" in name or name[-2:] == "MP" else "PNG"
            given = f"data:application/octet-stream;base64,{base64.b64encode(content).decode()}"
            rows = []
            for _ in range(ROUNDS if name.startswith("1 MP") else 1):
                python = timed(functools.partial(_by_python, colorizer, content, kind))
                run = timed(functools.partial(subprocess.run, [*command, "--overwrite", "--quiet"], check=True))
                tab, _ = page.evaluate(COLORIZE, [given, f"photo.{kind.lower()}"])
                rows.append((tab, tab / python, tab / run))
            tab, ratio, of_command = (statistics.median(each) for each in zip(*rows, strict=True))
            beside = f"\t{of_command:.2f} times the command" if name == "1 MP, gray PNG" else ""
            print(f"{name}\t{tab:.2f} s\t{ratio:.2f} times Python{beside}\tat most {renderer_mb():.0f} MB so far")
        browser.close()
    server.shutdown()


if __name__ == "__main__":
    main()

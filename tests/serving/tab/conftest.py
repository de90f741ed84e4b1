"""The site, made once, and a browser's tab with it."""

from __future__ import annotations

import base64
import functools
import io
import json
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from skimage import data
from tests.serving.tab.firefox import FIREFOX, Firefox

from chromatune.serving import write_site
from chromatune.serving.site import TAB, install_libraries

NAMES = (
    "astronaut", "camera", "chelsea", "clock_motion", "coffee", "coins", "hubble_deep_field", "ihc", "moon",
    "motorcycle_left", "retina", "rocket",
)  # fmt: skip
COLORIZE = """async ([photo, name, options, edit, references]) => {
    const { send } = await import("./page/api.js"), { nameOf } = await import("./page/photo.js");
    const { openSession, closeSession } = await import("./page/session.js");
    const bytes = async (text) => (await fetch(text)).blob();
    const others = [];
    for (const [index, each] of references.entries()) others.push(new File([await bytes(each)], `like${index}.png`));
    const { id, version, facts } = await openSession(await bytes(photo), name, null, options, others);
    const answer = await send(`v1/sessions/${id}/result`, { ...edit, version }), blob = await answer.blob();
    const reader = new FileReader();
    await new Promise((done) => { reader.onload = done; reader.readAsDataURL(blob); });
    await closeSession(id);
    return { url: reader.result, name: nameOf(answer), facts };
}"""


def picture(name: str) -> np.ndarray:
    """Return a photo of scikit-image, uint8, no longer than 512 px."""
    folder = Path(data.__file__).parent
    image = Image.open(next(folder.glob(f"{name}.*")))
    image.thumbnail((512, 512))
    return np.asarray(image.convert("L" if image.mode == "L" else "RGB"))


def png(samples: np.ndarray) -> bytes:
    """Return 8-bit samples as a PNG."""
    file = io.BytesIO()
    Image.fromarray(samples).save(file, "PNG")
    return file.getvalue()


def data_url(content: bytes) -> str:
    """Return content as an address that a page can read."""
    return f"data:application/octet-stream;base64,{base64.b64encode(content).decode()}"


@dataclass
class Result:
    """What the tab made of a photo."""

    content: bytes
    name: str
    facts: dict[str, Any]


class Handler(SimpleHTTPRequestHandler):
    """Files of a folder, as any static host sends them."""

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


class Visit:
    """A page with the site, in any browser."""

    def __init__(self, folder: Path) -> None:
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
        self.url = f"http://127.0.0.1:{self.server.server_port}/"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def evaluate(self, expression: str) -> Any:
        """Return the value of an expression in the page; None where the page is just being read anew."""
        raise NotImplementedError

    def wait_for(self, expression: str, most_s: float = 120) -> None:
        """Wait until an expression is true in the page, whose policy allows no evaluation of its own."""
        end = time.monotonic() + most_s
        while not self.evaluate(expression):
            assert time.monotonic() < end, expression
            time.sleep(0.05)

    def colorize(
        self, photo: bytes, name: str = "photo.png", options: dict | None = None, edit: dict | None = None,
        references: tuple[bytes, ...] = (),
    ) -> Result:  # fmt: skip
        """Colorize a photo through the page's engine."""
        given = [data_url(photo), name, options or {}, edit or {}, [data_url(each) for each in references]]
        found = self.evaluate(f"({COLORIZE})({json.dumps(given)})")
        return Result(base64.b64decode(found["url"].partition(",")[2]), found["name"], found["facts"])

    def close(self) -> None:
        """End the page and its server."""
        self.server.shutdown()
        self.server.server_close()


class FirefoxTab(Visit):
    """A page in Firefox."""

    def __init__(self, browser: Firefox, folder: Path) -> None:
        super().__init__(folder)
        self.browser = browser
        browser.goto(self.url)
        self.wait_for("crossOriginIsolated && document.body.dataset.ready === 'yes'")

    def evaluate(self, expression: str) -> Any:
        try:
            return self.browser.evaluate(expression)
        except AssertionError as error:
            if "no such frame" in str(error) or "discarded" in str(error) or "AbortError" in str(error):
                return None
            raise


class Tab(Visit):
    """A page in Chromium, which playwright drives."""

    def __init__(self, browser: Any, folder: Path, path: str = "", **options: Any) -> None:
        super().__init__(folder)
        self.url += path
        self.context = browser.new_context(**options)
        self.page = self.context.new_page()
        self.requests: list[str] = []
        self.context.on("request", lambda request: self.requests.append(request.url))
        self.errors: list[str] = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.open()

    def open(self) -> None:
        """Open the site, and wait for the page."""
        self.page.goto(self.url)
        self.page.wait_for_selector("body[data-ready]", timeout=120_000)  # once more than on the first visit
        self.wait_for("crossOriginIsolated && document.body.dataset.ready === 'yes'")

    def evaluate(self, expression: str) -> Any:
        try:
            return self.page.evaluate(expression)
        except Exception as error:
            if "context was destroyed" in str(error):
                return None
            raise

    def close(self) -> None:
        self.context.close()
        super().close()


@pytest.fixture(scope="session")
def libraries(tmp_path_factory) -> Path:
    """A folder with the engine's modules and libraries, for entries of tests; see `site.bundle`."""
    folder = tmp_path_factory.mktemp("libraries")
    install_libraries(folder)
    for path in TAB.glob("*.js"):
        shutil.copyfile(path, folder / path.name)
    return folder


@pytest.fixture(scope="session")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tab") / "site"
    write_site(folder)
    return folder


@pytest.fixture(scope="module")
def tab(chromium, site) -> Iterator[Tab]:
    opened = Tab(chromium, site)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def firefox_tab(site, tmp_path_factory) -> Iterator[Visit]:
    if FIREFOX is None:
        pytest.skip("there is no Firefox")
    window = Firefox(tmp_path_factory.mktemp("firefox"))
    opened = FirefoxTab(window, site)
    yield opened
    opened.close()
    window.close()

"""An app with a predictor that only counts, one over the arithmetic model, a server on a port, and its page."""

from __future__ import annotations

import asyncio
import base64
import io
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image

from chromatune.options import ColorizeOptions
from chromatune.serving.app import create_app
from chromatune.serving.local import LocalPredictor
from chromatune.serving.predictor import ColorizeRequest, EditRequest, EncodedImage, Facts, Predictor, Session, State
from chromatune.serving.settings import ServeSettings, make_serve_settings

BASE = "http://127.0.0.1:8321"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
CHROMIUM_ARGUMENTS = [
    "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--hide-scrollbars",
]  # fmt: skip
PIXELS_OF_PICTURE = """(which) => {
    const image = document.getElementById(which), canvas = document.createElement("canvas");
    canvas.width = image.naturalWidth;
    canvas.height = image.naturalHeight;
    canvas.getContext("2d").drawImage(image, 0, 0);
    return canvas.toDataURL("image/png");
}"""


def make_picture(level: int = 100, size: tuple[int, int] = (8, 6), format: str = "PNG") -> bytes:
    """A gray photo as a file."""
    file = io.BytesIO()
    Image.fromarray(np.full(size[::-1], level, np.uint8)).save(file, format)
    return file.getvalue()


@pytest.fixture(scope="session")
def picture() -> Callable[..., bytes]:
    """Makes a gray photo as a file."""
    return make_picture


@pytest.fixture(scope="session")
def photo() -> dict[str, tuple[str, bytes]]:
    """A form's field with a photo."""
    return {"photo": ("x.png", make_picture())}


def make_video(frames: int = 16, size: tuple[int, int] = (96, 64)) -> bytes:
    """A video of two shots, a view that moves over one picture and then over another, as an MP4 file."""
    import av

    file, (width, height) = io.BytesIO(), size
    pictures = [np.random.default_rng(seed).integers(40, 215, (height // 8, width // 4), np.uint8) for seed in (1, 2)]
    pictures = [np.kron(picture, np.ones((8, 8), np.uint8)) for picture in pictures]
    with av.open(file, "w", format="mp4") as out:
        stream = out.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(frames):
            view = pictures[2 * number // frames][:, number : number + width]
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(view), format="gray").reformat(format="yuv420p")
            frame.pts = number
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return file.getvalue()


@pytest.fixture(scope="session")
def video_bytes() -> Callable[..., bytes]:
    """Makes a video of two shots as an MP4 file."""
    return make_video


def content(request: ColorizeRequest) -> bytes:
    """The bytes of a request's photo."""
    return request.photo if isinstance(request.photo, bytes) else request.photo.read_bytes()


class Scripted:
    """A predictor that does what a test says."""

    def __init__(self) -> None:
        self.state = State("ready")
        self.waiting = 0
        self.slots = 34
        self.requests: list[ColorizeRequest] = []
        self.error: BaseException | None = None
        self.seconds = 0.0
        self.cancelled = 0
        self.stopped = False

    def describe(self, model: str) -> None:
        """Nothing is known of any."""

    def start(self) -> None:
        """Nothing to load."""

    def free_idle(self) -> None:
        """Nothing to free."""

    def stop(self) -> None:
        self.stopped = True

    async def colorize(self, request: ColorizeRequest, *, wait_for_slot: bool = False) -> EncodedImage:
        self.requests.append(request)
        self.waiting += 1
        try:
            await asyncio.sleep(self.seconds)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.waiting -= 1
        if self.error is not None:
            raise self.error
        facts: Facts = {"name": request.name, "seed": request.options.seed, "warnings": []}
        return EncodedImage(b"colored " + content(request), ".png", facts)

    async def open_session(self, request: ColorizeRequest) -> Session:
        await self.colorize(request)
        return ScriptedSession()


class ScriptedSession:
    """A session that gives always the same."""

    version = 1
    facts: Facts = {"name": "x.png"}
    nbytes = 0

    async def add_version(self, model: str, options: ColorizeOptions) -> tuple[int, Facts]:
        return 2, {"seed": options.seed}

    async def add_finished(self, name: str, picture: bytes) -> tuple[int, Facts]:
        return 3, {"name": name}

    async def confidence(self, version: int | None) -> EncodedImage:
        return EncodedImage(b"veil", ".png")

    async def original(self, max_pixels: int) -> EncodedImage:
        return EncodedImage(b"as it was", ".jpg")

    async def preview(self, edit: EditRequest, max_pixels: int) -> EncodedImage:
        return EncodedImage(b"small", ".jpg")

    async def finish(self, edit: EditRequest) -> EncodedImage:
        return EncodedImage(b"large", ".png", {"name": "x.png"})

    async def suggestions(self, x: float, y: float, version: int | None) -> list[str]:
        return ["#102030"]


@pytest.fixture(scope="session")
def shared() -> Iterator[tuple[TestClient, Scripted]]:
    """An app for all tests that leave nothing in it, and its predictor."""
    predictor = Scripted()
    with TestClient(
        create_app(predictor, make_serve_settings()), base_url=BASE, raise_server_exceptions=False
    ) as client:
        yield client, predictor


@pytest.fixture
def scripted(shared) -> Scripted:
    """The shared app's predictor, as new."""
    shared[1].__init__()
    return shared[1]


@pytest.fixture
def client_of() -> Iterator[Callable[..., TestClient]]:
    """Makes clients of apps over a predictor with settings; each app runs until the test ends."""
    running: list[TestClient] = []

    def make(predictor: Predictor, **settings: Any) -> TestClient:
        client = TestClient(
            create_app(predictor, make_serve_settings(**settings)), base_url=BASE, raise_server_exceptions=False
        )
        client.__enter__()
        running.append(client)
        return client

    yield make
    for client in running:
        client.__exit__(None, None, None)


@pytest.fixture
def client(shared, scripted) -> TestClient:
    """A client of the shared app."""
    return shared[0]


def wait_until(true: Callable[[], bool], seconds: float = 300) -> None:
    """Waits until something is so."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it does not come"
        time.sleep(0.02)


@pytest.fixture(scope="session")
def until() -> Callable[..., None]:
    """Waits until something is so."""
    return wait_until


@pytest.fixture
def local_of(client_of) -> Callable[..., tuple[TestClient, LocalPredictor]]:
    """A client of an app over models of this process, once they are loaded, and its predictor."""

    def make(**settings) -> tuple[TestClient, LocalPredictor]:
        predictor = LocalPredictor(make_serve_settings(**settings))
        client = client_of(predictor, **settings)
        wait_until(lambda: predictor.state.name != "loading")
        return client, predictor

    return make


@pytest.fixture(scope="session")
def replicas_of(own_ray) -> Iterator[Callable[..., Any]]:
    """Two replicas for settings, deployed once a run: they keep nothing."""
    from contextlib import ExitStack

    from chromatune.serving.ray_predictor import deployed

    known: dict[str, Any] = {}
    with ExitStack() as stack:

        def make(**settings) -> Any:
            key = repr(sorted(settings.items()))
            if key not in known:
                known[key] = stack.enter_context(deployed(make_serve_settings(**settings)))
            return known[key]

        yield make


@pytest.fixture(params=["local", pytest.param("ray", marks=pytest.mark.slow)])
def served_of(request, client_of, local_of) -> Callable[..., TestClient]:
    """A client of an app over models of this process, and again over those of two replicas."""
    if request.param == "local":
        return lambda **settings: local_of(**settings)[0]
    from chromatune.serving.ray_predictor import RayPredictor

    replicas_of = request.getfixturevalue("replicas_of")

    def make(**settings) -> TestClient:
        device = {"device": "arithmetic"} if "engine" in request.fixturenames else {}
        settings = {"engine": "ray", "replicas": 2, **device, **settings}
        predictor = RayPredictor(make_serve_settings(**settings), replicas=replicas_of(**settings))
        client = client_of(predictor, **settings)
        wait_until(lambda: predictor.state.name != "loading")
        return client

    return make


@contextmanager
def listening(app: FastAPI, settings: ServeSettings, port: int = 0) -> Iterator[int]:
    """The app on a port, by default a free one, in a thread, within the server's own bounds."""
    import uvicorn

    from chromatune.serving.run import server_config

    with socket.socket() as free:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        free.bind(("127.0.0.1", port))
        free.listen()
        server = uvicorn.Server(server_config(app, settings))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [free]})
        thread.start()
        try:
            wait_until(lambda: server.started)
            yield free.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture
def port_of() -> Iterator[Callable[..., int]]:
    """Puts an app over a predictor on a port."""
    from contextlib import ExitStack

    with ExitStack() as stack:

        def listen(predictor: Predictor, **given: Any) -> int:
            settings = make_serve_settings(**given)
            return stack.enter_context(listening(create_app(predictor, settings), settings))

        yield listen


@pytest.fixture(autouse=True)
def temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where everything that is written for a while goes."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


@pytest.fixture(scope="module")  # while it runs, no other test can run an event loop
def playwright() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    if CHROMIUM is None:
        pytest.skip("there is no Chromium")
    with sync_playwright() as started:
        yield started


@pytest.fixture(scope="module")
def chromium(playwright) -> Iterator[Any]:
    browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_ARGUMENTS, chromium_sandbox=False)
    yield browser
    browser.close()


class Served:
    """A server of photos on a port, which may be started anew there."""

    def __init__(self, **settings: Any) -> None:
        self.settings, self.port = make_serve_settings(**settings), 0
        self._start()

    def _start(self) -> None:
        app = create_app(LocalPredictor(self.settings), self.settings)
        self._running = listening(app, self.settings, self.port)
        self.port = self._running.__enter__()

    def stop(self) -> None:
        self._running.__exit__(None, None, None)

    def restart(self) -> None:
        """End the server with all that it holds, and start another one on the same port."""
        self.stop()
        self._start()


class Visit:
    """A page, its requests, and what was wrong with it."""

    def __init__(self, browser, server: Served, **options) -> None:
        self.server = server
        self.address = f"http://127.0.0.1:{server.port}/"
        self.context = browser.new_context(accept_downloads=True, **options)
        self.page = self.context.new_page()
        self.requests: list[str] = []
        self.errors: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", self._note)
        self.page.goto(self.address)

    def _note(self, message) -> None:
        if "Content Security" in message.text:
            self.errors.append(message.text)

    def until(self, script: str, seconds: float = 120) -> None:
        end = time.monotonic() + seconds
        while not self.page.evaluate(script):
            assert time.monotonic() < end, script
            self.page.wait_for_timeout(30)

    @property
    def changes(self) -> int:
        return int(self.page.evaluate("document.getElementById('stage').dataset.changes ?? 0"))

    def after_change(self, before: int) -> None:
        self.until(f"Number(document.getElementById('stage').dataset.changes ?? 0) > {before}")

    def add(self, *paths: Path) -> None:
        self.page.wait_for_selector("body[data-ready]")
        before = self.changes
        self.page.set_input_files("#files", list(paths))
        self.after_change(before)

    def reload(self) -> None:
        """Load the page anew, once all is stored."""
        self.until("document.body.dataset.stored === 'yes'")
        self.page.reload()
        self.page.wait_for_selector("body[data-ready]")

    def version_labels(self) -> list[str]:
        return self.page.eval_on_selector_all("#versions span", "spans => spans.map((span) => span.textContent)")

    def open_details(self, name: str) -> None:
        self.page.click(f"summary:text-is('{name}')")

    def choose_photo(self, number: int) -> None:
        """Show a photo of the strip, from 0."""
        before = self.changes
        self.page.click(f"#strip .photo >> nth={number}")
        self.after_change(before)

    def shown(self, which: str = "after") -> np.ndarray:
        """The picture in color, or the one before, as it is on the page, (h, w, 3)."""
        data = self.page.evaluate(PIXELS_OF_PICTURE, which).partition(",")[2]
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")).astype(int)

    def download(self, button: str) -> tuple[str, bytes]:
        with self.page.expect_download() as started:
            self.page.click(button)
        return started.value.suggested_filename, Path(started.value.path()).read_bytes()

    def paint(self, points: list[tuple[float, float]]) -> None:
        """A stroke through points, in shares of the picture."""
        box = self.page.locator("#picture").bounding_box()
        before = self.changes
        at = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
        self.page.mouse.move(*at[0])
        self.page.mouse.down()
        for point in at[1:]:
            self.page.mouse.move(*point, steps=4)
        self.page.mouse.up()
        self.after_change(before)

    def choose_color(self, color: str) -> None:
        self.set_field("color", color)

    def set_field(self, name: str, value: str) -> None:
        """Give a color or a slider a value, as if by hand."""
        self.page.evaluate(
            "([name, value]) => { const field = document.getElementById(name); field.value = value;"
            " field.dispatchEvent(new Event('input')); }",
            [name, value],
        )

    def close(self) -> None:
        """Nothing was asked of elsewhere, and nothing went wrong."""
        elsewhere = [url for url in self.requests if not url.startswith((self.address, "blob:", "data:"))]
        self.context.close()
        assert (elsewhere, self.errors) == ([], [])


@pytest.fixture
def visit(chromium):
    opened: list[Visit] = []

    def make(settings: dict | None = None, **options) -> Visit:
        opened.append(Visit(chromium, Served(**(settings or {})), **options))
        return opened[-1]

    yield make
    for each in opened:
        each.server.stop()
    for each in opened:
        each.close()


@pytest.fixture(scope="session")
def gray() -> np.ndarray:
    """A portrait, (512, 512) uint8."""
    from skimage import data

    return np.asarray(Image.fromarray(data.astronaut()).convert("L"))


@pytest.fixture(scope="session")
def files(gray, tmp_path_factory) -> list[Path]:
    """A photo, a second one in another format, and what is no picture."""
    folder = tmp_path_factory.mktemp("photos")
    Image.fromarray(gray).save(folder / "one.png")
    Image.fromarray(gray[:300]).save(folder / "two.tif")
    (folder / "three.jpg").write_bytes(b"no picture")
    return [folder / "one.png", folder / "two.tif", folder / "three.jpg"]

"""What a day with the page asks of it: order, colors, failures, films, a phone, a proxy. In a real browser."""

from __future__ import annotations

import http.client
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.slow
DESKTOP = {"viewport": {"width": 1280, "height": 800}}
PHONE = {"viewport": {"width": 390, "height": 780}, "has_touch": True, "is_mobile": True}
TOP = "(id) => document.getElementById(id).getBoundingClientRect().top"


def test_versions_come_first_and_what_few_need_comes_last(visit, files):
    page = visit(viewport={"width": 1366, "height": 768})
    assert page.page.text_content("#privacy") == "Your photos stay on this computer."
    page.add(files[0])
    tops = [page.page.evaluate(TOP, name) for name in ("versions", "tools", "strength", "choices", "advanced")]
    assert tops == sorted(tops)
    assert page.page.locator("#more").bounding_box()["y"] < 400
    few = ["seed", "steps", "size-px", "reach"]
    assert not any(page.page.is_visible(f"#{name}") for name in few)
    page.open_details("Advanced")
    assert all(page.page.is_visible(f"#{name}") for name in few)
    assert not page.page.is_visible("#model")  # one alone
    page.open_details("Reference photo and layers")
    page.page.locator("#choices").evaluate("(each) => each.scrollIntoView()")
    assert page.page.locator("header").bounding_box()["y"] == 0  # the tools scroll, the page does not
    assert "mini-base" not in page.page.inner_html("body")
    assert page.page.inner_text("label[for=reach]") == "Spread"
    assert page.page.inner_text("#vivid-shown") == "default"
    for field, value, label in (("size-px", "128", "size 128"), ("seed", "4", "seed 4, size 128")):
        count = page.changes
        page.page.fill(f"#{field}", value)
        page.page.keyboard.press("Enter")
        page.after_change(count)
        assert page.version_labels()[-1] == label
    assert page.version_labels() == ["default", "size 128", "seed 4, size 128"]


def test_strokes_on_clothes_leave_the_skin(visit, files):
    page = visit(**DESKTOP)
    page.add(files[0])
    before = page.shown()
    page.page.click("[data-tool=brush]")
    page.choose_color("#1a2a5a")
    page.paint([(0.29, 0.64), (0.31, 0.78), (0.35, 0.86)])
    page.paint([(0.64, 0.64), (0.62, 0.78)])
    changed = np.abs(page.shown() - before).mean(axis=2)
    assert changed[80:200, 190:290].mean() < 4  # the face
    assert changed[400:410, 150:165].mean() > 25  # the suit


def test_suggestions_are_made_ready_when_the_brush_is_chosen(visit, files):
    page = visit(**DESKTOP)
    page.add(files[0])
    with page.page.expect_response("**/suggestions?*") as found:
        page.page.click("[data-tool=brush]")
    assert found.value.ok
    assert "Point at the photo" in page.page.inner_text("#suggestions")  # for no spot yet, so none are shown
    page.page.click("[data-tool=move]")
    page.page.click("[data-tool=brush]")
    page.page.wait_for_timeout(100)
    assert sum("suggestions" in url for url in page.requests) == 1  # of a version once


def test_suggestions_are_for_the_point_under_the_pointer(visit, files):
    page = visit(**DESKTOP)
    page.add(files[0])
    held: list = []
    asked: list[float] = []

    def answer(route) -> None:
        asked.append(float(route.request.url.partition("x=")[2].partition("&")[0]))
        if len(asked) == 1:
            held.append(route)  # it takes long
        else:
            route.fulfill(json={"colors": [f"#0000{round(asked[-1]) % 256:02x}"]})

    page.page.route("**/suggestions?*", answer)
    page.page.click("[data-tool=brush]")
    box = page.page.locator("#picture").bounding_box()
    for share in (0.2, 0.4, 0.6):
        page.page.mouse.move(box["x"] + share * box["width"], box["y"] + 0.5 * box["height"])
        page.page.wait_for_timeout(600)  # longer than a pointer rests
    held[0].fulfill(json={"colors": ["#ff0000"]})
    page.until("document.querySelectorAll('#suggestions button').length === 1")
    page.page.wait_for_timeout(300)
    assert abs(asked[-1] - 0.6 * 512) < 5
    last = page.page.get_attribute("#suggestions button", "data-color")
    assert last == f"#0000{round(asked[-1]) % 256:02x}"


def test_pick_goes_back_to_the_brush(visit, files):
    page = visit(**DESKTOP)
    page.add(files[0])
    page.page.click("[data-tool=pick]")
    page.page.mouse.click(*center_of(page))
    assert page.page.get_attribute("#tools [data-tool=brush]", "aria-checked") == "true"
    page.until("document.querySelectorAll('#suggestions button').length > 1")


def center_of(page) -> tuple[float, float]:
    box = page.page.locator("#picture").bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def test_a_reference_that_shows_other_things_says_so(visit, files, tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (8, 8, 3), np.uint8)
    Image.fromarray(noise).resize((256, 256), Image.Resampling.BICUBIC).save(tmp_path / "other.png")
    page = visit(**DESKTOP)
    page.add(files[0])
    page.until("document.querySelectorAll('#versions img').length === 1")
    page.open_details("Reference photo and layers")
    page.page.set_input_files("#reference-file", tmp_path / "other.png")
    page.page.check("#reference-use")
    page.until("document.getElementById('status').textContent.includes('other.png: nothing in it matches')")


def test_a_photo_that_failed_has_its_own_panel(visit, files):
    page = visit(**DESKTOP)
    page.add(files[0])
    page.page.set_input_files("#files", [files[2]])
    page.page.click("#strip .failed .photo")
    assert "three.jpg: not a picture" in page.page.inner_text("#failed-line")
    assert "JPEG, PNG or TIFF" in page.page.inner_text("#failed-help")
    assert not page.page.is_visible("#tools") and not page.page.is_visible("#failed-again")
    page.page.click("#failed-remove")
    page.until("document.querySelectorAll('#strip .photo').length === 1")
    assert page.page.is_visible("#tools")


def test_a_folder_that_is_dropped_is_walked(visit, files, tmp_path):
    for name in ("scans/a", "scans/inner/b"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / f"{name}.png").write_bytes(files[0].read_bytes())
    page = visit(**DESKTOP)
    page.page.wait_for_selector("body[data-ready]")
    devtools = page.context.new_cdp_session(page.page)
    data = {"items": [], "files": [str(tmp_path / "scans")], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        devtools.send("Input.dispatchDragEvent", {"type": kind, "x": 300, "y": 300, "data": data})
    page.until("document.querySelectorAll('#strip .done').length === 2")
    assert "folder scans" in page.page.inner_text("#status")
    assert page.page.inner_text("#strip").split()[0] == "a.png"


def test_a_wrong_token_says_so(visit):
    page = visit({"token": "a-token-of-some-length"}, **DESKTOP)
    page.page.wait_for_selector("#token-dialog[open]")
    assert not page.page.is_visible("#token-wrong")
    page.page.fill("#token", "wrong")
    page.page.keyboard.press("Enter")
    page.page.wait_for_selector("#token-wrong:visible")
    page.page.fill("#token", "a-token-of-some-length")
    page.page.keyboard.press("Enter")
    page.page.wait_for_selector("body[data-ready]")


def test_a_video_has_progress_and_can_be_cancelled(visit, files, video_bytes, tmp_path):
    pytest.importorskip("av")
    (tmp_path / "garden.mp4").write_bytes(video_bytes(8, (192, 128)))
    page = visit(**DESKTOP)
    page.page.wait_for_selector("body[data-ready]")
    statuses: list = []

    def reading(route) -> None:
        if route.request.method != "GET":
            return route.continue_()
        statuses.append(route.request.url)
        status = {"state": "reading", "stage": "finding shots", "step": 30, "steps": 120, "line": "", "shots": []}
        return route.fulfill(json=status)

    page.page.route("**/v1/videos/*", reading)
    page.page.set_input_files("#files", tmp_path / "garden.mp4")
    page.until("document.getElementById('video-stage').textContent === 'finding shots: 30 of 120'")
    assert page.page.evaluate("document.getElementById('video-progress').value") == 0.25
    page.page.click("#video-cancel")
    page.page.wait_for_selector("#welcome:visible")
    page.page.unroute("**/v1/videos/*")
    page.add(tmp_path / "garden.mp4")
    page.until("document.querySelectorAll('#strip .done').length === 2")
    assert page.page.inner_text("#download") == "Download video" and page.page.is_disabled("#download")
    page.page.set_input_files("#files", files[0])
    page.until("document.querySelectorAll('#strip .done').length === 3")
    page.choose_photo(2)
    assert not page.page.is_visible("#video") and page.page.inner_text("#download") == "Download"


def test_on_a_phone_a_tap_paints_once_a_color_is_chosen(visit, files):
    page = visit(**PHONE)
    page.add(files[0])
    page.page.tap("[data-tool=brush]")
    before, shown = page.changes, page.shown()
    page.page.locator("#stage").tap(position={"x": 130, "y": 300})
    page.until("document.querySelectorAll('#suggestions button').length > 1")
    np.testing.assert_array_equal(page.shown(), shown)
    assert page.changes == before
    page.page.evaluate("document.querySelector('#suggestions').scrollIntoView({ block: 'end' })")
    said, colors = (page.page.locator(each).bounding_box() for each in ("#toast", "#suggestions"))
    assert "Choose a color" in page.page.inner_text("#toast")
    assert said["y"] + said["height"] <= colors["y"] or colors["y"] + colors["height"] <= said["y"]  # it hides none
    page.page.tap("#suggestions button >> nth=2")
    page.page.locator("#stage").tap(position={"x": 130, "y": 300})
    page.after_change(before)
    assert np.abs(page.shown() - shown).max() > 10


def test_on_a_phone_the_header_is_one_row_and_photos_are_compared(visit, files):
    page = visit(**PHONE)
    page.add(files[0])
    page.page.set_input_files("#files", [files[1]])
    page.until("document.querySelectorAll('#strip .done').length === 2")
    assert page.page.locator("header").bounding_box()["height"] < 64
    assert page.page.evaluate("document.documentElement.scrollWidth") <= 390
    for split in ("100", "0"):
        page.page.tap("#compare")
        assert page.page.get_attribute("#divider", "aria-valuenow") == split
        handle, stage = page.page.locator("#divider span").bounding_box(), page.page.locator("#stage").bounding_box()
        assert stage["x"] <= handle["x"] and handle["x"] + handle["width"] <= stage["x"] + stage["width"]


IN_SIGHT = """(id) => {
    const box = document.getElementById(id).getBoundingClientRect();
    return box.top >= 0 && box.bottom <= innerHeight;
}"""
UNCOVERED = """() => {
    const box = document.activeElement.getBoundingClientRect(), { activeElement: active } = document;
    const found = document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2);
    const labels = [...active.labels ?? []];
    return active === document.body || [active, ...labels].some((each) => each.contains(found));
}"""


@pytest.mark.parametrize("height", [780, 600])
def test_on_a_phone_the_picture_stays_in_sight_above_the_tools(visit, files, height):
    page = visit(**{**PHONE, "viewport": {"width": 390, "height": height}})
    page.add(files[0])
    page.page.set_input_files("#files", [files[1]])
    page.until("document.querySelectorAll('#strip .done').length === 2")
    page.open_details("Advanced")
    for name in ("more", "size", "vivid", "words", "finished-open"):
        page.page.locator(f"#{name}").scroll_into_view_if_needed()
        assert page.page.evaluate(IN_SIGHT, "stage") and page.page.evaluate(IN_SIGHT, name), name
    page.page.evaluate("scrollTo(0, 0)")
    page.page.locator("#add").focus()
    for _ in range(70):
        page.page.keyboard.press("Tab")
        assert page.page.evaluate(UNCOVERED), page.page.evaluate("document.activeElement.outerHTML")
    page.page.locator("#finished-open").focus()
    for _ in range(70):
        page.page.keyboard.press("Shift+Tab")
        assert page.page.evaluate(UNCOVERED), page.page.evaluate("document.activeElement.outerHTML")


def test_on_a_phone_held_sideways_the_picture_is_beside_the_tools(visit, files):
    page = visit(**{**PHONE, "viewport": {"width": 667, "height": 375}})
    page.add(files[0])
    page.open_details("Advanced")
    page.page.locator("#finished-open").scroll_into_view_if_needed()
    assert page.page.evaluate(IN_SIGHT, "stage") and page.page.evaluate(IN_SIGHT, "finished-open")


@pytest.fixture
def proxied():
    """Puts a proxy in front of a port, under the path /colorize/, as nginx's `proxy_pass` does."""
    running: list[ThreadingHTTPServer] = []

    def make(port: int) -> str:
        class Proxy(BaseHTTPRequestHandler):
            def forward(self) -> None:
                if not self.path.startswith("/colorize/"):
                    self.send_error(404)
                    return
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                names = ("content-type", "accept", "origin")
                headers = {name: self.headers[name] for name in names if name in self.headers}
                upstream = http.client.HTTPConnection("127.0.0.1", port)
                host = self.headers["host"]
                upstream.request(self.command, self.path[len("/colorize") :], body, {**headers, "host": host})
                answer = upstream.getresponse()
                content = answer.read()
                upstream.close()
                self.send_response(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in ("connection", "content-length", "transfer-encoding", "date", "server"):
                        self.send_header(name, value)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_DELETE = forward

            def log_message(self, *_) -> None:
                """Say nothing."""

        running.append(ThreadingHTTPServer(("127.0.0.1", 0), Proxy))
        threading.Thread(target=running[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{running[-1].server_port}/colorize/"

    yield make
    for server in running:
        server.shutdown()
        server.server_close()


def test_behind_a_proxy_under_a_path(visit, files, proxied):
    page = visit(**DESKTOP)
    page.page.wait_for_selector("body[data-ready]")
    page.requests.clear()
    page.address = proxied(page.server.port)
    page.page.goto(page.address)
    page.add(files[0])
    assert page.shown().shape == (512, 512, 3)
    name, data = page.download("#download")
    assert (name, data[:4]) == ("one.color.png", b"\x89PNG")
    page.page.goto(f"{page.address}docs")
    page.page.wait_for_selector(".swagger-ui .opblock")
    spec = json.loads(page.page.evaluate("fetch('openapi.json').then((answer) => answer.text())"))
    assert "/v1/sessions" in spec["paths"]

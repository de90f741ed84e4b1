"""The page in a real browser: Debian's Chromium, headless, driven over CDP. Slow: a browser and the shipped model."""

from __future__ import annotations

import base64
import io
import zipfile

import numpy as np
import pytest
from PIL import Image

from chromatune.color import luma_drift

TOO_SMALL = """[...document.querySelectorAll("button")].filter((each) => each.offsetWidth
    && (each.offsetHeight < 32 || each.offsetWidth < 30)).map((each) => each.id)"""
UNLABELED = """[...document.querySelectorAll("button, input, select, [role], img, canvas")].filter((each) =>
    each.offsetWidth && !each.hasAttribute("aria-hidden") && !(each.getAttribute("aria-label")
    || each.getAttribute("aria-labelledby") || each.textContent.trim() || each.alt !== undefined || each.labels?.length
    || each.role === "status")).map((each) => each.outerHTML.slice(0, 80))"""
TOKEN = "a-token-of-some-length"

pytestmark = pytest.mark.slow


def test_from_a_photo_to_the_finished_file(visit, files, gray):
    page = visit(viewport={"width": 1280, "height": 800})
    page.add(files[0])
    before = page.shown()
    page.page.click("[data-tool=brush]")
    page.choose_color("#2060c0")
    page.paint([(0.45, 0.75), (0.5, 0.78), (0.55, 0.8)])
    after = page.shown()
    changed = np.abs(after - before).sum(axis=2)
    side = before.shape[0]
    there = changed[int(0.77 * side) : int(0.79 * side), int(0.49 * side) : int(0.52 * side)].mean()
    away = changed[: side // 8, -side // 8 :].mean()
    assert there > 60 and away < 9

    count = page.changes
    page.page.click("#undo")
    page.after_change(count)
    np.testing.assert_array_equal(page.shown(), before)
    page.page.keyboard.press("Control+Shift+Z")
    page.after_change(count + 1)
    np.testing.assert_array_equal(page.shown(), after)

    divider = page.page.locator("#divider")
    box, picture = divider.bounding_box(), page.page.locator("#picture").bounding_box()
    page.page.mouse.move(box["x"] + 14, box["y"] + 40)
    page.page.mouse.down()
    page.page.mouse.move(picture["x"] + picture["width"] / 2, box["y"] + 50, steps=4)
    page.page.mouse.up()
    assert abs(int(divider.get_attribute("aria-valuenow")) - 50) <= 1
    assert "50" in page.page.evaluate("document.getElementById('before').style.clipPath")

    name, data = page.download("#download")
    assert name == "one.color.png"
    result = np.asarray(Image.open(io.BytesIO(data)))
    assert result.shape == (*gray.shape, 3)
    assert luma_drift(result, gray)[0] <= 1
    assert np.abs(result.astype(int) - gray[..., None]).max() > 60  # with the stroke


def test_before_shows_the_photo_as_it_was(visit, gray, tmp_path):
    """Also in a format that the browser cannot show; a stamp keeps its color until that is replaced."""
    rgb = np.repeat(gray[..., None], 3, axis=2)
    rgb[40:90, 40:140] = 190, 30, 45
    Image.fromarray(rgb).save(tmp_path / "stamp.tif")
    page = visit(viewport={"width": 1280, "height": 800})
    page.add(tmp_path / "stamp.tif")
    page.until("document.getElementById('before').naturalWidth > 0")
    before = page.shown("before")
    assert np.abs(before[50:80, 60:120].mean(axis=(0, 1)) - [190, 30, 45]).max() < 6
    assert np.ptp(before[300, 200]) < 8
    notes = page.page.locator("#notes")
    assert page.shown()[65, 90, 0] - page.shown()[65, 90, 1] > 100 and "own color" in notes.inner_text()
    count = page.changes
    page.page.select_option("#own-color", "replace")
    page.after_change(count)
    assert page.shown()[65, 90, 0] - page.shown()[65, 90, 1] < 80 and "own color" not in notes.inner_text()


def test_a_negative_is_inverted(visit, gray, tmp_path):
    negative = 255 - gray[:300, 60:400]
    Image.fromarray(negative).save(tmp_path / "strip.png")
    page = visit(viewport={"width": 1280, "height": 800})
    page.add(tmp_path / "strip.png")
    count = page.changes
    page.open_details("Advanced")
    page.page.check("#invert")
    page.after_change(count)
    page.until("document.querySelectorAll('#versions button').length === 2")
    assert np.abs(page.shown().mean(axis=2) - (255 - negative.astype(int))).mean() < 12
    assert np.abs(page.shown("before").mean(axis=2) - negative).mean() < 4


def test_words_versions_and_strength(visit, files):
    page = visit(viewport={"width": 1280, "height": 800})
    page.add(files[0])
    before, count = page.shown(), page.changes
    page.page.click("text=Blue")
    page.after_change(count)
    blue = page.shown()
    assert (blue[..., 2] - blue[..., 0]).mean() > (before[..., 2] - before[..., 0]).mean() + 5
    assert page.page.input_value("#words").endswith(", mostly blue")
    answers: list = []
    page.page.on("response", lambda answer: answers.extend([answer] * answer.url.endswith("/versions")))
    page.page.click("#more")
    page.until("document.querySelectorAll('#versions img').length >= 6")
    page.until("!document.getElementById('more').disabled")
    facts = sorted((answer.json()["facts"] for answer in answers), key=lambda each: each["departure"])
    labels = page.page.eval_on_selector_all("#versions span", "spans => spans.map((span) => span.textContent)")
    assert labels == ["default", "blue", *(f"variant {each['variant']}" for each in facts)]
    assert sorted(each["variant"] for each in facts) == [2, 3, 4, 5] and facts[0]["departure"] > 0
    count = page.changes
    page.page.click("#versions button >> nth=0")
    page.after_change(count)
    np.testing.assert_array_equal(page.shown(), before)
    assert page.page.input_value("#words") == "colorize the photo"
    count, passes = page.changes, sum(url.endswith("/versions") for url in page.requests)
    page.page.locator("#strength").focus()
    page.page.keyboard.press("Home")
    page.after_change(count)
    page.until("document.getElementById('busy').hidden")
    assert np.ptp(page.shown(), axis=2).mean() < 2  # gray
    assert sum(url.endswith("/versions") for url in page.requests) == passes


def test_a_brush_takes_the_colors_of_another_version(visit, files):
    page = visit(viewport={"width": 1280, "height": 800})
    page.add(files[0])
    before, count = page.shown(), page.changes
    keys = page.page.keyboard
    keys.press("v")
    assert "one version so far" in page.page.inner_text("#sources")
    page.page.click("text=Blue")
    page.after_change(count)
    blue, count = page.shown(), page.changes
    page.page.click("#versions button >> nth=0")
    page.after_change(count)
    page.page.wait_for_selector("#sources img")
    assert page.page.get_attribute("#sources button", "aria-label") == (
        "colorize the photo, mostly blue, seed 0, 1 step, mini"
    )
    page.set_field("size", "6")
    page.paint([(0.3, 0.8), (0.4, 0.82)])
    painted, there = page.shown(), np.s_[410:425, 165:195]  # in the middle of the stroke
    assert np.abs(blue - before)[there].mean() > 8
    assert np.abs(painted - blue)[there].mean() < 0.25 * np.abs(blue - before)[there].mean()
    np.testing.assert_allclose(painted.mean(axis=2)[:60, :60], before.mean(axis=2)[:60, :60], atol=3)

    name, data = page.download("#download")
    result = np.asarray(Image.open(io.BytesIO(data))).astype(int)
    assert np.abs(result - painted)[there].mean() < 3
    count = page.changes
    keys.press("Control+z")
    page.after_change(count)
    np.testing.assert_array_equal(page.shown(), before)
    page.page.locator("#stage").focus()
    keys.press("ArrowDown")
    keys.press("Enter")
    page.after_change(count + 1)
    assert np.abs(page.shown() - before).max() > 10
    count = page.changes
    page.page.click("[data-tool=erase]")
    page.paint([(0.5, 0.52), (0.5, 0.53)])
    np.testing.assert_array_equal(page.shown(), before)
    assert not any("suggestions" in url for url in page.requests)  # pointing costs no pass


def test_strokes_from_versions_keep_their_order_among_others(visit, gray, tmp_path):
    """They are one layer, as layers are limited, and opaque also where the photo is not."""
    Image.fromarray(np.dstack([gray, np.full_like(gray, 90)]), "LA").save(tmp_path / "faint.png")
    page = visit(viewport={"width": 1280, "height": 800})
    page.add(tmp_path / "faint.png")
    count = page.changes
    page.page.click("text=Blue")
    page.after_change(count)
    page.set_field("size", "6")
    sent: list = []
    page.page.on("request", lambda request: sent.extend([request.post_data_json] * request.url.endswith("/preview")))
    for _ in range(3):
        page.page.click("[data-tool=version]")
        page.paint([(0.3, 0.8), (0.4, 0.82)])
        page.page.click("[data-tool=brush]")
        page.choose_color("#20a040")
        page.paint([(0.3, 0.8), (0.4, 0.82)])
    last = sent[-1]["hints"]["marks"]
    assert [sorted(mark) for mark in last] == [
        ["height_px", "name", "png", "width_px"],
        ["color", "points", "radius_px"],
    ]
    alone = next(marks for each in sent if len(marks := each["hints"]["marks"]) == 1)  # before there was another one
    layer = np.asarray(Image.open(io.BytesIO(base64.b64decode(alone[0]["png"]))))
    assert layer.shape == (512, 512, 4) and layer[415, 180, 3] == 255 and layer[:200, :, 3].max() == 0
    shown = page.shown()[415, 180]
    assert shown[1] > shown[0] + 10  # the last one was green
    assert page.page.inner_text("#status") == ""


def test_results_of_several_models_stand_side_by_side(visit, files):
    page = visit({"model": ("mini", "mini-base")}, viewport={"width": 1280, "height": 800})
    page.add(files[0])
    page.until("document.querySelectorAll('#versions img').length === 2")
    assert page.version_labels() == ["mini", "mini-base"]
    before, count = page.shown(), page.changes
    page.page.click("#versions button >> nth=1")
    page.after_change(count)
    assert np.abs(page.shown() - before).mean() > 1 and page.page.input_value("#model") == "mini-base"
    passes = sum(url.endswith("/versions") for url in page.requests)
    count = page.changes
    page.open_details("Advanced")
    page.page.select_option("#model", "mini")  # it is there already
    page.after_change(count)
    np.testing.assert_array_equal(page.shown(), before)
    assert sum(url.endswith("/versions") for url in page.requests) == passes == 1
    assert page.page.evaluate(UNLABELED) == []


def test_one_model_has_nothing_to_compare(visit, files):
    page = visit(viewport={"width": 1280, "height": 800})  # mini-base is offered, and was not asked for
    page.add(files[0])
    page.until("document.querySelectorAll('#versions img').length === 1 && document.getElementById('busy').hidden")
    page.page.wait_for_timeout(300)
    assert page.version_labels() == ["default"] and not page.page.is_visible("#follows")


def test_a_model_that_follows_no_instructions(visit, files, colorizer):
    page = visit({"model": ("mini", colorizer)}, viewport={"width": 1280, "height": 800})
    page.set_field("seed", "7")
    asked: list = []
    page.page.on("request", lambda request: asked.extend([request.post_data_json] * request.url.endswith("/versions")))
    page.add(files[0])
    page.until("document.querySelectorAll('#versions img').length === 2")
    assert asked == [{"model": "violet.onnx", "options": {}}]
    assert page.version_labels() == ["mini, seed 7", "violet.onnx"]
    count = page.changes
    page.page.click("#versions button >> nth=1")
    page.after_change(count)
    red, green, blue = page.shown().mean(axis=(0, 1))
    assert blue > red > green
    assert page.page.inner_text("#follows") == "violet.onnx ignores instructions, and gives one result."
    page.open_details("Advanced")
    hidden = ["words", "choices", "seed", "steps", "more"]
    assert [each for each in hidden if page.page.is_visible(f"#{each}")] == []
    page.page.select_option("#model", "mini")
    page.after_change(count + 1)
    assert [each for each in hidden if not page.page.is_visible(f"#{each}")] == []
    assert page.page.evaluate(UNLABELED) == []


def test_what_is_left_out_of_an_instruction_is_named_below_it(visit, files):
    page = visit(viewport={"width": 1280, "height": 800})
    page.add(files[0])
    before, count = page.shown(), page.changes
    assert "“" not in page.page.inner_text("#notes")
    page.page.fill("#words", "A woman in a red dress, blue floor")
    page.page.keyboard.press("Enter")
    page.after_change(count)
    page.until("document.getElementById('notes').textContent.includes('left out')")
    assert "“A woman in a red dress”, “blue floor”" in page.page.inner_text("#notes")
    np.testing.assert_array_equal(page.shown(), before)


def test_several_photos_a_failure_and_an_archive(visit, files):
    page = visit(viewport={"width": 1280, "height": 800})
    page.add(*files)
    page.until("document.querySelectorAll('#strip .done').length === 2 && document.querySelector('#strip .failed')")
    assert "three.jpg: not a picture" in page.page.inner_text("#strip .failed")
    name, data = page.download("#download-all")
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["one.color.png", "two.color.tif"]
        assert Image.open(io.BytesIO(archive.read("two.color.tif"))).size == (512, 300)
    assert name == "chromatune.zip"


def test_a_video_is_colorized_with_strokes_on_its_stills(visit, video_bytes, tmp_path):
    av = pytest.importorskip("av")
    (tmp_path / "garden.mp4").write_bytes(video_bytes(8, (192, 128)))
    page = visit(viewport={"width": 1280, "height": 800})
    page.add(tmp_path / "garden.mp4")
    page.until("document.querySelectorAll('#strip .done').length === 2")
    assert page.page.inner_text("#video-title") == "Video: garden.mp4"
    page.page.click("[data-tool=brush]")
    page.choose_color("#20a040")
    page.paint([(0.4, 0.5), (0.6, 0.5)])
    page.page.click("#video-colorize")
    page.until("!document.getElementById('download').disabled")
    name, data = page.download("#download")
    assert name == "garden.color.mp4"
    with av.open(io.BytesIO(data)) as video:
        frames = [frame.to_ndarray(format="rgb24").astype(int) for frame in video.decode(video=0)]
    assert len(frames) == 8
    greenness = [frame[60:68, 90:102, 1].mean() - frame[60:68, 90:102, 0].mean() for frame in frames]
    assert min(greenness[:4]) > 20 > max(greenness[4:])  # through the shot, and not across the cut


def test_strokes_go_to_a_file_and_come_back(visit, files, tmp_path):
    page = visit(viewport={"width": 1280, "height": 800})
    page.add(files[0])
    page.page.click("[data-tool=brush]")
    page.choose_color("#20a040")
    page.paint([(0.2, 0.8), (0.25, 0.85)])
    painted = page.shown()
    page.open_details("Reference photo and layers")
    name, data = page.download("#layer-save")
    assert name == "one.hints.png"
    layer = np.asarray(Image.open(io.BytesIO(data)))
    assert layer.shape == (512, 512, 4) and 0 < (layer[..., 3] > 0).mean() < 0.1
    count = page.changes
    page.page.click("#undo")
    page.after_change(count)
    (tmp_path / name).write_bytes(data)
    page.page.set_input_files("#layer-file", tmp_path / name)
    page.after_change(count + 1)
    assert np.abs(page.shown() - painted).mean() < 3
    page.page.click("[data-tool=gray]")
    page.paint([(0.8, 0.8), (0.85, 0.85)])
    gray = page.shown()
    side = gray.shape[0]
    assert np.ptp(gray[int(0.81 * side) : int(0.83 * side), int(0.81 * side) : int(0.83 * side)], axis=2).mean() < 8


def test_a_reference_photo_gives_its_colors_where_it_shows_the_same(visit, files, tmp_path):
    from skimage import data

    Image.fromarray(data.astronaut()[:, ::-1]).save(tmp_path / "another.png")
    Image.fromarray(np.full((9, 9), 90, np.uint8)).save(tmp_path / "gray.png")
    one = visit()
    one.add(files[0])
    alone = one.shown()
    one.open_details("Reference photo and layers")
    assert not one.page.is_visible("#reference-use")
    one.page.set_input_files("#reference-file", tmp_path / "another.png")
    before = one.changes
    one.page.check("#reference-use")
    one.after_change(before)
    truth = data.astronaut().astype(int)
    suit = np.s_[330:480, 120:230]
    errors = [np.abs(shown - truth)[suit].mean() for shown in (alone, one.shown())]
    assert errors[1] < 0.7 * errors[0], errors
    before = one.changes
    one.page.uncheck("#reference-use")
    one.after_change(before)
    np.testing.assert_array_equal(one.shown(), alone)
    one.page.set_input_files("#reference-file", tmp_path / "gray.png")  # it is refused, and all is as before
    one.until("document.getElementById('reference').width === 9")
    one.page.click("#reference-use")  # `check` would look whether it stays checked
    one.until("document.getElementById('status').textContent.includes('gray.png')")
    one.until("!document.getElementById('reference-use').checked")
    np.testing.assert_array_equal(one.shown(), alone)
    assert not one.errors


def test_by_keyboard_alone(visit, files, chromium):
    page = visit(viewport={"width": 1280, "height": 800})
    page.add(files[0])
    keys = page.page.keyboard
    before = page.shown()

    def tab_to(script: str) -> None:
        for _ in range(60):
            keys.press("Tab")
            if page.page.evaluate(script):
                return
        pytest.fail(f"no way to {script}")

    tab_to("document.activeElement.id === 'stage'")
    keys.press("b")
    keys.press("ArrowDown")
    page.until("document.querySelectorAll('#suggestions button').length > 0")
    keys.press("2")
    count = page.changes
    keys.press("Enter")
    page.after_change(count)
    assert np.abs(page.shown() - before).max() > 10
    keys.press("Control+z")
    page.after_change(count + 1)
    np.testing.assert_array_equal(page.shown(), before)
    keys.press("c")
    assert page.page.get_attribute("#divider", "aria-valuenow") == "100"
    tab_to("document.activeElement.id === 'divider'")
    keys.press("ArrowLeft")
    assert page.page.get_attribute("#divider", "aria-valuenow") == "98"
    tab_to("document.activeElement.id === 'words'")
    keys.press("End")
    keys.type(", warm colors")
    count = page.changes
    keys.press("Enter")
    page.after_change(count)
    tab_to("document.activeElement.id === 'download'")
    with page.page.expect_download() as started:
        keys.press("Enter")
    assert started.value.suggested_filename == "one.color.png"


def test_on_a_phone_nothing_is_wider_than_the_screen(visit, files):
    page = visit(viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True, color_scheme="dark")
    assert page.page.evaluate("document.documentElement.scrollWidth") <= 360
    page.add(*files)
    assert page.page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.page.evaluate(TOO_SMALL) == []


def test_what_a_screen_reader_says(visit, files):
    page = visit(viewport={"width": 1280, "height": 800})
    page.add(files[0])
    assert page.page.evaluate(UNLABELED) == []
    assert page.page.get_attribute("#stage", "aria-label") == "Photo one.png"


def test_a_token_is_asked_for_and_never_in_a_url(visit, files):
    page = visit({"token": TOKEN}, viewport={"width": 1280, "height": 800})
    page.page.fill("#token", "wrong")
    page.page.keyboard.press("Enter")
    page.until("document.getElementById('token-dialog').open && document.getElementById('token').value === ''")
    page.page.fill("#token", TOKEN)
    page.page.keyboard.press("Enter")
    page.add(files[0])
    assert not any(TOKEN in url for url in page.requests)


def test_the_colors_of_a_finished_picture_are_a_version(visit, files, gray, tmp_path):
    from skimage import data

    Image.fromarray(data.astronaut()[20:490, 10:500]).resize((400, 384)).save(tmp_path / "finished.jpg")
    page = visit(viewport={"width": 1280, "height": 800})
    page.add(files[0])
    count = page.changes
    assert page.page.is_hidden("#veil-show-box")
    page.page.set_input_files("#finished-file", tmp_path / "finished.jpg")
    page.after_change(count)
    page.until("document.querySelectorAll('#versions img').length === 2")
    assert page.version_labels()[1] == "finished picture"
    assert page.page.input_value("#model") == "mini"  # what is asked for next
    truth, shown = data.astronaut(), page.shown()
    suit = np.s_[400:440, 150:200]  # orange
    side = shown.shape[0] / 512
    red, green, blue = shown[round(400 * side) : round(440 * side), round(150 * side) : round(200 * side)].mean((0, 1))
    assert red > green + 20 > blue and truth[suit][..., 0].mean() > truth[suit][..., 2].mean() + 20
    _, result = page.download("#download")
    written = np.asarray(Image.open(io.BytesIO(result)).convert("RGB"))
    assert luma_drift(written, gray)[0] <= 1
    redrawn = data.astronaut()[20:490, 10:500].copy()
    redrawn[:, :240] = data.coffee()[:400, :240].repeat(2, axis=0)[:470]
    Image.fromarray(redrawn).save(tmp_path / "redrawn.png")
    page.page.set_input_files("#finished-file", tmp_path / "redrawn.png")
    page.until("document.querySelectorAll('#versions img').length === 3")
    page.open_details("Advanced")
    page.page.check("#veil-show")
    page.until("document.getElementById('veil').style.maskImage.includes('blob:')")
    page.page.uncheck("#veil-show")
    page.until("document.getElementById('veil').hidden")
    page.page.set_input_files("#finished-file", files[1])  # gray
    page.until("document.getElementById('status').textContent.includes('gives no colors')")
    assert page.page.evaluate(UNLABELED) == []

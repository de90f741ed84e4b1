"""The page loses nothing: ended sessions, a server started anew, reloads, removed photos, undo. In a real browser."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.slow
ASKS = "!window.dispatchEvent(new Event('beforeunload', { cancelable: true }))"
NAMES = "[...document.querySelectorAll('#strip .name')].map((each) => each.textContent)"


def edited(page, path) -> np.ndarray:
    """A photo with another version, a stroke with that version's colors, one of the brush, and less color: as shown."""
    page.add(path)
    count = page.changes
    page.page.click("text=Blue")
    page.after_change(count)
    page.page.click("[data-tool=version]")
    page.set_field("size", "6")
    page.paint([(0.3, 0.8), (0.4, 0.82)])
    page.page.click("[data-tool=brush]")
    page.choose_color("#20a040")
    page.paint([(0.7, 0.8), (0.8, 0.82)])
    count = page.changes
    page.set_field("strength", "80")
    page.after_change(count)
    page.until("document.querySelectorAll('#versions img').length === 2 && document.getElementById('busy').hidden")
    return page.shown()


def is_as_it_was(page, shown: np.ndarray) -> None:
    """The photo is shown with its versions, strokes and amount, and undo goes back through them."""
    np.testing.assert_array_equal(page.shown(), shown)
    assert page.version_labels() == ["default", "blue"]
    assert page.page.input_value("#strength") == "80"
    page.until("document.getElementById('before').naturalWidth > 0")
    count = page.changes
    page.page.keyboard.press("Control+z")
    page.after_change(count)
    page.page.keyboard.press("Control+z")
    page.after_change(count + 1)
    assert np.abs(page.shown() - shown).max() > 10  # without the stroke
    page.page.keyboard.press("Control+Shift+z")
    page.after_change(count + 2)
    page.page.keyboard.press("Control+Shift+z")
    page.after_change(count + 3)
    np.testing.assert_array_equal(page.shown(), shown)
    count = page.changes
    page.page.click("#versions button >> nth=0")  # made again, where the server does not have it
    page.after_change(count)
    assert np.abs(page.shown() - shown).max() > 5
    page.page.keyboard.press("Control+z")
    page.after_change(count + 1)
    np.testing.assert_array_equal(page.shown(), shown)


def test_a_photo_whose_session_has_ended_opens_where_it_was(visit, files):
    page = visit({"sessions": 1}, viewport={"width": 1280, "height": 800})
    shown = edited(page, files[0])
    page.page.set_input_files("#files", [files[1]])
    page.until("document.querySelectorAll('#strip .done').length === 2")
    page.choose_photo(1)
    page.choose_photo(0)
    is_as_it_was(page, shown)
    name, data = page.download("#download")
    assert (name, data[:4]) == ("one.color.png", b"\x89PNG")


def test_forty_more_photos_lose_nothing_of_the_first(visit, files, tmp_path):
    page = visit(viewport={"width": 1280, "height": 800})
    shown = edited(page, files[0])
    small = [tmp_path / f"{number}.png" for number in range(40)]
    for number, path in enumerate(small):
        Image.fromarray(np.full((48, 64), 4 * number + 40, np.uint8)).save(path)
    page.page.set_input_files("#files", small)
    page.until("document.querySelectorAll('#strip .done').length === 41", seconds=600)
    page.choose_photo(40)
    page.choose_photo(0)
    is_as_it_was(page, shown)
    page.server.restart()
    page.reload()
    page.after_change(0)
    assert len(page.page.evaluate(NAMES)) == 41
    is_as_it_was(page, shown)


COPIES = """(count) => new Promise((done) => {
    const opening = indexedDB.open(`chromatune ${location.pathname}`);
    opening.onsuccess = () => {
        const writing = opening.result.transaction(["photos", "files"], "readwrite");
        const [photos, files] = ["photos", "files"].map((name) => writing.objectStore(name));
        photos.getAll().onsuccess = ({ target: { result: [photo] } }) => {
            files.getAll().onsuccess = ({ target: { result: [file] } }) => {
                for (let number = 1; number <= count; number++) {
                    const key = `copy ${number}`;
                    photos.put({ ...photo, key, name: `${key}.png`, order: photo.order + number, changed: number });
                    files.put({ ...file, photo: key });
                }
            };
        };
        writing.oncomplete = () => { opening.result.close(); done(); };
    };
})"""
IS_TOLD = "document.getElementById('status').textContent.endsWith('before you close the page, download copy 1.png')"


def test_a_hundred_photos_are_stored_and_the_one_that_goes_is_named(visit, files):
    page = visit(viewport={"width": 1280, "height": 800})
    page.add(files[0])
    page.until("document.body.dataset.stored === 'yes'")
    page.page.evaluate(COPIES, 99)
    page.reload()
    page.after_change(0)
    assert len(page.page.evaluate(NAMES)) == 100
    page.page.set_input_files("#files", [files[1]])
    page.until(IS_TOLD)
    assert page.page.evaluate(NAMES) == ["one.png", *(f"copy {number}.png" for number in range(1, 100)), "two.tif"]
    page.until("document.querySelector('#strip .tile:last-child').classList.contains('done')")
    page.until("document.body.dataset.stored === 'yes'")
    assert page.page.evaluate(ASKS)  # it is on this page alone
    page.reload()
    assert page.page.evaluate(NAMES) == ["one.png", *(f"copy {number}.png" for number in range(2, 100)), "two.tif"]


def with_copies(visit, files, count: int):
    """A page with a photo and older copies of it, all stored."""
    page = visit(viewport={"width": 1280, "height": 800})
    page.add(files[0])
    page.until("document.body.dataset.stored === 'yes'")
    page.page.evaluate(COPIES, count)
    page.reload()
    page.after_change(0)
    return page


def test_where_most_of_the_quota_is_used_the_oldest_photo_goes_and_is_named(visit, files):
    page = with_copies(visit, files, 3)
    page.page.evaluate("() => { navigator.storage.estimate = async () => ({ quota: 100000, usage: 79000 }); }")
    page.page.set_input_files("#files", [files[1]])
    page.until(IS_TOLD)
    page.until("document.querySelectorAll('#strip .done').length === 5")
    assert page.page.evaluate(ASKS)
    page.reload()
    assert page.page.evaluate(NAMES) == ["one.png", "copy 2.png", "copy 3.png", "two.tif"]


REFUSES = """(count) => {
    const { put } = IDBObjectStore.prototype;
    let left = count;
    IDBObjectStore.prototype.put = function (...given) {
        if (this.name === "files" && left-- > 0) throw new DOMException("full", "QuotaExceededError");
        return put.apply(this, given);
    };
}"""


def test_where_a_write_is_refused_the_oldest_photo_goes_and_after_another_refusal_the_new_one(visit, files, tmp_path):
    page = with_copies(visit, files, 3)
    page.page.evaluate(REFUSES, 1)
    page.page.set_input_files("#files", [files[1]])
    page.until(IS_TOLD)
    page.until("document.querySelectorAll('#strip .done').length === 5")
    page.reload()
    page.after_change(0)
    assert page.page.evaluate(NAMES) == ["one.png", "copy 2.png", "copy 3.png", "two.tif"]
    page.page.evaluate(REFUSES, 1000)
    shutil.copy(files[0], tmp_path / "new.png")
    page.page.set_input_files("#files", tmp_path / "new.png")
    page.until("document.getElementById('status').textContent.endsWith('download copy 2.png, new.png')")
    assert page.page.evaluate(ASKS)


def test_a_server_that_was_restarted_loses_nothing(visit, files):
    page = visit(viewport={"width": 1280, "height": 800})
    shown = edited(page, files[0])
    page.server.restart()
    is_as_it_was(page, shown)


def test_a_reload_loses_nothing(visit, files):
    page = visit(viewport={"width": 1280, "height": 800})
    shown = edited(page, files[0])
    page.page.set_input_files("#files", [files[1]])
    page.until("document.querySelectorAll('#strip .done').length === 2")
    page.server.restart()
    opened: list = []

    def note(answer) -> None:
        opened.extend([answer.url] * (answer.status == 201 and answer.url.endswith("/sessions")))

    page.page.on("response", note)
    page.reload()
    page.after_change(0)
    assert page.page.evaluate(NAMES) == ["one.png", "two.tif"]
    page.until("[...document.querySelectorAll('#strip img')].every((each) => each.naturalWidth)")
    is_as_it_was(page, shown)
    assert len(opened) == 1  # of the one that is shown
    page.page.click("#strip .remove >> nth=1")
    page.until("document.querySelectorAll('#strip .photo').length === 1")
    page.reload()
    assert page.page.evaluate(NAMES) == ["one.png"]


def test_leaving_asks_where_work_would_be_lost(visit, files):
    page = visit(viewport={"width": 1280, "height": 800})
    page.add(files[0])
    page.until("document.body.dataset.stored === 'yes'")
    assert not page.page.evaluate(ASKS)
    page.page.click("[data-tool=brush]")
    page.choose_color("#20a040")
    page.paint([(0.7, 0.8), (0.8, 0.82)])
    page.until("document.body.dataset.stored === 'yes'")
    assert page.page.evaluate(ASKS)  # this browser has not promised to keep what it stores
    asked: list[str] = []

    def stay(dialog) -> None:
        asked.append(dialog.type)
        dialog.dismiss()

    page.page.on("dialog", stay)
    with pytest.raises(Exception, match="ERR_ABORTED"):
        page.page.goto("about:blank")
    assert asked == ["beforeunload"]
    page.download("#download")
    assert not page.page.evaluate(ASKS)


def test_without_a_store_the_page_works_and_says_so(visit, files):
    page = visit(viewport={"width": 1280, "height": 800})
    page.page.add_init_script("Object.defineProperty(window, 'indexedDB', { value: null })")
    page.page.reload()
    page.until("document.getElementById('status').textContent.includes('cannot store photos')")
    page.add(files[0])
    assert page.page.evaluate(ASKS)


def test_strokes_are_stored_while_the_browser_asks_whether_it_may(visit, files):
    page = visit(viewport={"width": 1280, "height": 800})
    page.add(files[0])
    page.page.evaluate("() => { navigator.storage.persist = () => new Promise(() => {}); }")
    page.page.click("[data-tool=brush]")
    page.choose_color("#20a040")
    page.paint([(0.7, 0.8), (0.8, 0.82)])
    shown = page.shown()
    page.reload()
    page.after_change(0)
    np.testing.assert_array_equal(page.shown(), shown)


def test_a_record_that_is_damaged_is_left_out(visit, files):
    page = visit(viewport={"width": 1280, "height": 800})
    page.add(files[0])
    page.until("document.body.dataset.stored === 'yes'")
    page.page.evaluate("""() => new Promise((done) => {
        const opening = indexedDB.open(`chromatune ${location.pathname}`);
        opening.onsuccess = () => {
            const writing = opening.result.transaction("photos", "readwrite");
            writing.objectStore("photos").put({ key: "damaged", order: 0 });
            writing.oncomplete = () => { opening.result.close(); done(); };
        };
    })""")
    page.reload()
    assert page.page.evaluate(NAMES) == ["one.png"]


def test_a_removed_photo_can_be_brought_back(visit, files):
    page = visit(viewport={"width": 1280, "height": 800})
    page.add(files[0])
    page.page.set_input_files("#files", [files[1]])
    page.until("document.querySelectorAll('#strip .done').length === 2")
    page.page.click("[aria-label='Remove one.png']")
    assert page.page.evaluate(NAMES) == ["two.tif"]
    page.page.click("#status-action")
    assert page.page.evaluate(NAMES) == ["one.png", "two.tif"]
    page.reload()
    assert page.page.evaluate(NAMES) == ["one.png", "two.tif"]
    page.page.focus("#strip .photo >> nth=1")
    page.page.keyboard.press("Delete")
    page.page.click("[aria-label='Remove one.png']")
    assert page.page.is_visible("#welcome")
    page.reload()
    assert page.page.is_visible("#welcome")


def test_undo_covers_words_sliders_and_versions_and_all_starts_over(visit, files):
    page = visit(viewport={"width": 1280, "height": 800})
    page.add(files[0])
    first = page.shown()
    assert page.page.is_disabled("#start-over") and page.page.is_disabled("#undo")
    thumb = page.page.get_attribute("#strip img", "src")
    count = page.changes
    page.page.click("text=Blue")
    page.after_change(count)
    for value in ("80", "60", "40"):  # one movement
        count = page.changes
        page.set_field("strength", value)
        page.after_change(count)
    shown = page.shown()
    page.until(f"document.querySelector('#strip img').getAttribute('src') !== '{thumb}'")
    count = page.changes
    page.page.click("#undo")
    page.after_change(count)
    assert page.page.input_value("#strength") == "100"
    assert page.page.input_value("#words").endswith("mostly blue")
    page.page.click("#undo")
    page.after_change(count + 1)
    np.testing.assert_array_equal(page.shown(), first)
    assert page.page.input_value("#words") == "colorize the photo"
    for _ in range(2):
        count = page.changes
        page.page.click("#redo")
        page.after_change(count)
    np.testing.assert_array_equal(page.shown(), shown)
    count = page.changes
    page.page.click("#start-over")
    page.after_change(count)
    np.testing.assert_array_equal(page.shown(), first)
    page.page.click("#undo")
    page.after_change(count + 1)
    np.testing.assert_array_equal(page.shown(), shown)

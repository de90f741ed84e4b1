"""Batches: many photos while nobody waits."""

from __future__ import annotations

import asyncio
import io
import zipfile
from pathlib import Path

import pytest

from chromatune.errors import ModelError, NotAPictureError, PhotoError
from chromatune.options import ColorizeOptions
from chromatune.serving.batches import Batch, BatchPhoto, remove_batch, zip_response
from chromatune.serving.predictor import EncodedImage
from chromatune.serving.store import SessionStore


@pytest.fixture
def client(client_of, scripted):
    """A client of an app of its own, which has no batch."""
    return client_of(scripted)


def send(client, *names: str, **data: str):
    return client.post("/v1/batches", files=[("photos", (name, name.encode())) for name in names], data=data)


def finished(client, until, key: str) -> dict:
    until(lambda: client.get(f"/v1/batches/{key}").json()["state"] == "done")
    return client.get(f"/v1/batches/{key}").json()


def test_states_results_and_an_archive(client, until, scripted):
    started = send(client, "a.png", "b.png", "a.png", options='{"seed": 3}')
    assert started.status_code == 202
    key = started.json()["id"]
    status = finished(client, until, key)
    assert [(each["number"], each["name"], each["state"], each["line"]) for each in status["photos"]] == [
        (1, "a.png", "done", ""), (2, "b.png", "done", ""), (3, "a.png", "done", ""),
    ]  # fmt: skip
    assert {request.options.seed for request in scripted.requests} == {3}
    one = client.get(f"/v1/batches/{key}/photos/2")
    assert (one.content, one.headers["content-type"]) == (b"colored b.png", "image/png")
    answer = client.get(f"/v1/batches/{key}/zip")
    assert answer.headers["content-type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["a.color.png", "b.color.png", "3-a.color.png"]
        assert archive.read("3-a.color.png") == b"colored a.png"


def test_a_result_is_not_held_in_memory_by_those_who_read_it(client, until, monkeypatch):
    key = send(client, "a.png").json()["id"]
    finished(client, until, key)
    monkeypatch.setattr(Path, "read_bytes", lambda path: pytest.fail(f"{path} was read at once"))
    answer = client.get(f"/v1/batches/{key}/photos/1")
    assert (answer.content, answer.headers["content-length"]) == (b"colored a.png", "13")


def test_a_photo_that_fails_has_its_line(client, until, scripted):
    for error, status in (
        (PhotoError("a: damaged"), 400),
        (NotAPictureError("a: no"), 415),
        (ModelError("broken"), 503),
        (MemoryError(), 503),
    ):
        scripted.error = error
        key = send(client, "a.png").json()["id"]
        (photo,) = finished(client, until, key)["photos"]
        assert photo["state"] == "failed"
        assert photo["line"] == (str(error) or "a.png: not enough memory or disk space at the moment; send it again")
        one = client.get(f"/v1/batches/{key}/photos/1")
        assert (one.status_code, one.json()) == (status, {"detail": photo["line"]})
        with zipfile.ZipFile(io.BytesIO(client.get(f"/v1/batches/{key}/zip").content)) as archive:
            assert archive.read("failures.txt").decode() == photo["line"] + "\n"


def test_what_is_not_done_yet_and_what_is_not_there(client, scripted):
    scripted.seconds = 60
    key = send(client, "a.png").json()["id"]
    for path in ("photos/1", "zip"):
        answer = client.get(f"/v1/batches/{key}/{path}")
        assert (answer.status_code, answer.headers["retry-after"]) == (409, "2")
    for path in (f"{key}/photos/0", f"{key}/photos/2", "nothing", "nothing/zip", "nothing/photos/1", "..%2f..%2fetc"):
        assert client.get(f"/v1/batches/{path}").status_code == 404


def test_a_batch_that_is_deleted_stops_and_leaves_nothing(client, until, scripted, temporary_folder):
    scripted.seconds = 60
    key = send(client, *(f"{n}.png" for n in range(9))).json()["id"]
    until(lambda: scripted.waiting == 4)
    assert len(list(temporary_folder.iterdir())) == 1
    assert client.delete(f"/v1/batches/{key}").status_code == 204
    until(lambda: scripted.waiting == 0)
    assert list(temporary_folder.iterdir()) == []
    assert client.delete(f"/v1/batches/{key}").status_code == 404
    assert len(scripted.requests) == 4


def test_finished_ones_give_way_and_those_in_work_do_not(client_of, until, scripted):
    client = client_of(scripted, batches=2)
    first, second = (send(client, "a.png").json()["id"] for _ in range(2))
    for key in (first, second):
        finished(client, until, key)
    scripted.seconds = 60
    assert send(client, "b.png").status_code == 202
    assert client.get(f"/v1/batches/{first}").status_code == 404
    assert send(client, "c.png").status_code == 202
    full = send(client, "d.png")
    assert (full.status_code, "too many batches" in full.json()["detail"]) == (429, True)
    assert "retry-after" in full.headers


def test_batches_that_take_too_much_of_the_disk_give_way(client_of, until, scripted):
    client = client_of(scripted, max_batch_mb=0.002)
    keys = []
    for _ in range(8):
        answer = client.post("/v1/batches", files=[("photos", ("a.png", b"0" * 1500))])
        keys.append(answer.json()["id"])
        finished(client, until, keys[-1])
    found = [client.get(f"/v1/batches/{key}").status_code for key in keys]
    assert found[-4:] == [200] * 4 and found[0] == 404


def test_bad_options_fail_before_anything_is_written(client, temporary_folder):
    for data in ({"options": "["}, {"options": '{"steps": 0}'}, {"model": "nobody"}):
        assert send(client, "a.png", **data).status_code == 422
        assert list(temporary_folder.iterdir()) == []


def test_without_photos(client):
    answer = client.post("/v1/batches", data={"options": "{}"})
    assert (answer.status_code, answer.json()["detail"]) == (
        422,
        "the form field photos must be a file",
    )


def test_the_apps_end_leaves_nothing(client_of, scripted, temporary_folder):
    scripted.seconds = 60
    client = client_of(scripted)
    send(client, "a.png")
    client.__exit__(None, None, None)
    assert list(temporary_folder.iterdir()) == []
    client.__enter__()


def test_names_in_the_archive_come_out_everywhere(client, until):
    names = ["3-a.png", "a.png", "a.png", "A.png", "con.png", ".htaccess", "failures.txt", "g\u202egpj.png", "h" * 300]
    answer = client.post("/v1/batches", files=[("photos", (name, name.encode())) for name in names])
    key = answer.json()["id"]
    finished(client, until, key)
    with zipfile.ZipFile(io.BytesIO(client.get(f"/v1/batches/{key}/zip").content)) as archive:
        found = archive.namelist()
    assert len({name.casefold() for name in found}) == len(names)
    assert "_con.color.png" in found and "htaccess.color.png" in found
    assert all(name.isprintable() and len(name.encode()) <= 210 and name[0] != "." for name in found)


def test_a_batch_that_is_deleted_while_its_archive_is_read_gives_all_of_it(tmp_path):
    folder = tmp_path / "batch"
    folder.mkdir()
    photos = [
        BatchPhoto(name, folder / name, "done", image=EncodedImage(b"", ".png", {"name": name}), result=folder / name)
        for name in ("a.png", "b.png")
    ]
    for photo in photos:
        photo.source.write_bytes(b"colored")
    batch = Batch(folder, "mini", ColorizeOptions(), photos)
    store = SessionStore[Batch](1, 1, "gone", remove_batch)
    key, chunks = store.add(batch), zip_response(batch)

    async def read() -> bytes:
        data = await anext(chunks)
        store.remove(key)
        return data + b"".join([chunk async for chunk in chunks])

    with zipfile.ZipFile(io.BytesIO(asyncio.run(read()))) as archive:
        assert archive.testzip() is None and len(archive.namelist()) == 2
    assert not folder.exists()


def test_any_error_ends_a_photo_as_failed(client, until, scripted, caplog):
    scripted.error = ZeroDivisionError("unforeseen")
    key = send(client, "a.png").json()["id"]
    (photo,) = finished(client, until, key)["photos"]
    assert (photo["state"], "an error of the server" in photo["line"]) == ("failed", True)
    assert "unforeseen" in caplog.text

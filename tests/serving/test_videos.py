"""Videos: shots and stills, colors in the background, and what is no video; over the arithmetic model."""

from __future__ import annotations

import io
import threading

import pytest
from PIL import Image

av = pytest.importorskip("av")
IN_WORK = ("reading", "colorizing", "colouring")


def sent(client, data: bytes, name: str = "garden.mp4") -> str:
    answer = client.post("/v1/videos", files={"video": (name, data)})
    assert answer.status_code == 202, answer.text
    return f"/v1/videos/{answer.json()['id']}"


@pytest.fixture
def settled(until):
    """Waits until a video is not in work, and gives its status."""

    def wait(client, path: str) -> dict:
        until(lambda: client.get(path).json()["state"] not in IN_WORK)
        return client.get(path).json()

    return wait


@pytest.fixture
def client(engine, local_of):
    return local_of(model=("mini",), videos=2)[0]


@pytest.fixture(scope="module")
def short(video_bytes) -> bytes:
    """A video of four frames."""
    return video_bytes(4)


def test_a_video_gets_stills_and_comes_back_in_color(client, settled, video_bytes):
    path = sent(client, video_bytes())
    assert client.get(f"{path}/result").status_code == 409
    status = settled(client, path)
    assert (status["state"], status["frames"], status["width_px"], status["height_px"]) == ("ready", 16, 96, 64)
    for shot in status["shots"]:
        still = client.get(f"{path}/stills/{shot['frame']}")
        assert Image.open(io.BytesIO(still.content)).size == (96, 64)
    first = status["shots"][0]["frame"]
    hints = {str(first): {"marks": [{"points": [[20, 20]], "color": "#ff0000", "radius_px": 12}]}}
    answer = client.post(f"{path}/colorize", json={"options": {"seed": 9}, "hints": hints})
    assert answer.status_code == 202, answer.text
    assert settled(client, path)["state"] == "done"
    result = client.get(f"{path}/result")
    assert (result.headers["content-type"], "garden.color.mp4" in result.headers["content-disposition"]) == (
        "video/mp4",
        True,
    )
    with av.open(io.BytesIO(result.content)) as video:
        frames = [frame.to_ndarray(format="rgb24").astype(int) for frame in video.decode(video=0)]
    assert len(frames) == 16
    warmth = frames[first][..., 0] - frames[first][..., 2]
    assert len(status["shots"]) == 2
    assert warmth[20, 20] > 30 > 0 > (frames[-1][..., 0] - frames[-1][..., 2]).mean()  # not across the cut
    assert client.delete(path).status_code == 204
    assert client.get(path).json()["detail"] == "this video does not exist or has expired; send it again"


def test_what_is_no_video_has_a_line(client, settled):
    path = sent(client, b"no video at all", "x.mp4")
    status = settled(client, path)
    assert status["state"] == "failed"
    assert status["line"].startswith("x.mp4") and "/" not in status["line"]
    assert client.post(f"{path}/colorize", json={}).status_code == 409


def test_requests_that_do_not_fit_have_a_line(client, settled, short):
    path = sent(client, short)
    settled(client, path)
    for wanted, said in [
        ({"model": "nobody"}, "not offered"),
        ({"options": {"recompose": False}}, "own luminance"),
        ({"options": {"steps": "many"}}, "steps"),
        ({"hints": {"a": {}}}, "hints"),
    ]:
        answer = client.post(f"{path}/colorize", json=wanted)
        assert (answer.status_code, said in answer.json()["detail"]) == (422, True), answer.text


def test_a_hint_outside_of_the_frame_fails_the_video_and_does_not_lose_it(client, settled, short):
    path = sent(client, short)
    settled(client, path)
    hints = {"0": {"marks": [{"points": [[500, 1]], "color": "red"}]}}
    assert client.post(f"{path}/colorize", json={"hints": hints}).status_code == 202
    status = settled(client, path)
    assert status["state"] == "failed" and "outside" in status["line"]
    assert client.post(f"{path}/colorize", json={}).status_code == 202
    assert settled(client, path)["state"] == "done"


def test_videos_are_bounded(client, settled, short):
    paths = [sent(client, short) for _ in range(2)]
    for path in paths:
        settled(client, path)
    sent(client, short)
    assert [client.get(path).status_code for path in paths] == [404, 200]


def test_routes_and_words_of_version_0_1(client, engine, monkeypatch, settled, short):
    """They stay until 0.3: clients ask /v1/films/{id} while the state is "reading" or "colouring"."""
    go, original = threading.Event(), type(engine).__call__
    monkeypatch.setattr(type(engine), "__call__", lambda self, *given: go.wait(20) and original(self, *given))
    answer = client.post("/v1/films", files={"film": ("garden.mp4", short)})
    assert answer.status_code == 202, answer.text
    key = answer.json()["id"]
    path = f"/v1/films/{key}"
    status = settled(client, path)
    assert (status["state"], status["frames"]) == ("ready", 4)
    still = f"{path}/stills/{status['shots'][0]['frame']}"
    assert client.get(still).content == client.get(still.replace("films", "videos")).content
    hints = {"0": {"marks": [{"points": [[5, 5]], "colour": "red"}]}}
    assert client.post(f"{path}/colours", json={"hints": hints}).json() == {"id": key}
    assert client.get(path).json()["state"] == "colouring"
    assert client.get(f"/v1/videos/{key}").json()["state"] == "colorizing"
    go.set()
    assert settled(client, path)["state"] == "done"
    assert client.get(f"{path}/result").headers["content-type"] == "video/mp4"
    assert client.delete(path).status_code == 204
    for each in (path, f"/v1/videos/{key}"):
        assert client.get(each).json()["detail"] == "this video does not exist or has expired; send it again"
    described = client.get("/openapi.json").text
    assert "/v1/videos/{key}/colorize" in described and "film" not in described


def test_without_a_file(client):
    for path, name in (("videos", "video"), ("films", "film")):
        answer = client.post(f"/v1/{path}", data={"x": "y"})
        line = f"the form field {name} must be a file"
        assert (answer.status_code, answer.json()["detail"]) == (422, line)


@pytest.mark.parametrize("path", ["videos", "films"])
def test_videos_may_be_larger_than_photos(client_of, scripted, path):
    client = client_of(scripted, max_upload_mb=0.001, max_video_mb=1)
    files = {path.removesuffix("s"): ("x.mp4", b"0" * 5000)}
    assert client.post(f"/v1/{path}", files=files).status_code == 202

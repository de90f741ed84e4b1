"""Films: shots and stills, colors in the background, and what is no film; over the arithmetic model."""

from __future__ import annotations

import io
import time

import numpy as np
import pytest
from PIL import Image

av = pytest.importorskip("av")
STATES_AT_WORK = ("reading", "colorizing")


def video_bytes(frames: int = 16, size: tuple[int, int] = (96, 64)) -> bytes:
    """A film of two shots, a view that moves over one picture and then over another, as an MP4 file."""
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


def sent(client, data: bytes, name: str = "garden.mp4") -> str:
    answer = client.post("/v1/films", files={"film": (name, data)})
    assert answer.status_code == 202, answer.text
    return f"/v1/films/{answer.json()['id']}"


def settled(client, path: str) -> dict:
    for _ in range(600):
        status = client.get(path).json()
        if status["state"] not in STATES_AT_WORK:
            return status
        time.sleep(0.05)
    raise AssertionError(status)


@pytest.fixture
def client(engine, local_of):
    return local_of(model=("mini",), videos=2)[0]


def test_a_video_gets_stills_and_comes_back_in_color(client):
    path = sent(client, video_bytes())
    assert client.get(f"{path}/result").status_code == 409
    status = settled(client, path)
    assert (status["state"], status["frames"], status["width_px"], status["height_px"]) == ("ready", 16, 96, 64)
    for shot in status["shots"]:
        still = client.get(f"{path}/stills/{shot['frame']}")
        assert Image.open(io.BytesIO(still.content)).size == (96, 64)
    first = status["shots"][0]["frame"]
    hints = {str(first): {"marks": [{"points": [[20, 20]], "color": "#ff0000", "radius_px": 12}]}}
    answer = client.post(f"{path}/colors", json={"options": {"seed": 9}, "hints": hints})
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
    assert client.get(path).json()["detail"] == "this film is not kept any more; send it again"


def test_what_is_no_video_has_a_line(client):
    path = sent(client, b"no film at all", "x.mp4")
    status = settled(client, path)
    assert status["state"] == "failed"
    assert status["line"].startswith("x.mp4") and "/" not in status["line"]
    assert client.post(f"{path}/colors", json={}).status_code == 409


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        ({"model": "nobody"}, "not on offer"),
        ({"options": {"recompose": False}}, "own luma"),
        ({"options": {"steps": "many"}}, "steps"),
        ({"hints": {"a": {}}}, "hints"),
    ],
)
def test_bad_wishes_have_a_line(client, wish, said):
    path = sent(client, video_bytes(4))
    settled(client, path)
    answer = client.post(f"{path}/colors", json=wish)
    assert (answer.status_code, said in answer.json()["detail"]) == (422, True), answer.text


def test_a_hint_outside_of_the_frame_is_told_when_it_is_worked_at(client):
    path = sent(client, video_bytes(4))
    settled(client, path)
    hints = {"0": {"marks": [{"points": [[500, 1]], "color": "red"}]}}
    assert client.post(f"{path}/colors", json={"hints": hints}).status_code == 202
    status = settled(client, path)
    assert status["state"] == "failed" and "outside" in status["line"]
    assert client.post(f"{path}/colors", json={}).status_code == 202  # it is not lost
    assert settled(client, path)["state"] == "done"


def test_videos_are_bounded(client):
    paths = [sent(client, video_bytes(4)) for _ in range(2)]
    for path in paths:
        settled(client, path)
    sent(client, video_bytes(4))
    assert [client.get(path).status_code for path in paths] == [404, 200]

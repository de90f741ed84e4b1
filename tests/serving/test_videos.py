"""Videos: shots and stills, colors in the background, and what is no video; over the arithmetic model."""

from __future__ import annotations

import io
import threading

import numpy as np
import pytest
from PIL import Image

from chromatune.hints import Hints

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


def of_one_shot(container: str, codec: str) -> bytes:
    """A video of 16 frames alike."""
    file = io.BytesIO()
    with av.open(file, "w", format=container) as out:
        stream = out.add_stream(codec, rate=25, width=96, height=64)
        noise = np.random.default_rng(0).integers(60, 190, (96, 96), np.uint8)
        for _ in range(16):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(noise, format="yuv420p")))
        out.mux(stream.encode())
    return file.getvalue()


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


def test_a_run_is_cancelled_and_the_video_stays(client, engine, settled, video_bytes, until, monkeypatch):
    path = sent(client, video_bytes())
    settled(client, path)
    entered, go, call = threading.Event(), threading.Event(), type(engine).__call__

    def waits(self, *given):
        entered.set()
        go.wait(20)
        return call(self, *given)

    monkeypatch.setattr(type(engine), "__call__", waits)
    assert client.post(f"{path}/colorize", json={}).status_code == 202
    until(entered.is_set)
    assert client.delete(f"{path}/colorize").status_code == 204
    go.set()
    assert settled(client, path)["state"] == "ready"
    assert client.get(f"{path}/result").status_code == 409
    assert client.delete(f"{path}/colorize").status_code == 204  # nothing is in progress
    assert client.post(f"{path}/colorize", json={}).status_code == 202
    assert settled(client, path)["state"] == "done"


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
        ({"hints": {"1": {"marks": [{}]}}}, "hints.1: marks.0"),
        ({"hints": {"1": 5}}, "hints.1: "),
    ]:
        answer = client.post(f"{path}/colorize", json=wanted)
        assert (answer.status_code, said in answer.json()["detail"]) == (422, True), answer.text


def test_hints_are_validated_in_a_thread(client, settled, short, monkeypatch):
    path, threads = sent(client, short), []
    settled(client, path)
    validate = Hints.model_validate

    def noting(given: object) -> Hints:
        threads.append(threading.current_thread().name)
        return validate(given)

    monkeypatch.setattr(Hints, "model_validate", noting)
    hints = {"0": {"marks": [{"points": [[5, 5]], "color": "red"}]}}
    assert client.post(f"{path}/colorize", json={"hints": hints}).status_code == 202
    assert settled(client, path)["state"] == "done"
    assert len(threads) == 1 and threads[0].startswith("asyncio_")


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


def test_any_error_in_the_background_is_a_line_and_an_entry_of_the_log(
    client, settled, short, monkeypatch, caplog, until, temporary_folder
):
    def fail(*_, **__):
        raise LookupError("strange")

    ready = sent(client, short)
    settled(client, ready)
    monkeypatch.setattr("chromatune.video.colorize_video", fail)
    monkeypatch.setattr("chromatune.video.shots_of", fail)
    reading = sent(client, short)
    client.post(f"{ready}/colorize", json={})
    for path in (reading, ready):
        status = settled(client, path)
        assert (status["state"], status["line"]) == ("failed", "garden.mp4: an error of the server; its log has more")
        assert client.delete(path).status_code == 204
    assert caplog.text.count("LookupError: strange") == 2
    until(lambda: not list(temporary_folder.iterdir()))


def test_hints_on_frames_that_are_not_there_have_a_line(client, settled, short):
    path = sent(client, short)
    settled(client, path)
    mark = {"marks": [{"points": [[5, 5]], "color": "red"}]}
    for number in ("-1", "4", "9" * 40, f"-{'9' * 40}"):
        answer = client.post(f"{path}/colorize", json={"hints": {number: mark}})
        assert (answer.status_code, "garden.mp4 has frames 0 to 3" in answer.json()["detail"]) == (422, True)
        assert client.get(f"{path}/stills/{number}").status_code == 404
    assert client.get(path).json()["state"] == "ready"


def test_warnings_are_about_the_client_s_name_of_the_video(client, engine, settled):
    video = of_one_shot("matroska", "ffv1")
    path = sent(client, video[: len(video) * 2 // 3], "garden.mkv")
    for state in ("ready", "done"):
        status = settled(client, path)
        assert (status["state"], status["line"].startswith("garden.mkv")) == (state, True), status
        client.post(f"{path}/colorize", json={})


@pytest.mark.parametrize(
    ("limits", "line"),
    [
        ({"max_video_frames": 3}, "garden.mp4: more than 3 frames"),
        ({"max_video_minutes": 0.001}, "garden.mp4: longer than 0.001 minutes"),
        ({"max_video_megapixels": 0.006}, "garden.mp4: its frames have more than 0.006 megapixels"),
        ({"max_megapixels": 0.006}, "garden.mp4: its frames have more than 0.006 megapixels"),
        ({"max_video_mb": 0.002}, "the request is larger than 0.002 MB"),
    ],
)
def test_limits_have_a_line_and_leave_nothing(
    client_of, scripted, settled, video_bytes, limits, line, temporary_folder, until
):
    client = client_of(scripted, **limits)
    answer = client.post("/v1/videos", files={"video": ("garden.mp4", video_bytes(4))})
    if answer.status_code == 413:
        assert line in answer.json()["detail"]
    else:
        assert line in settled(client, f"/v1/videos/{answer.json()['id']}")["line"]
    until(lambda: not list(temporary_folder.iterdir()))


def test_stills_count_against_the_disk_of_a_video(client_of, scripted, settled, video_bytes):
    data = video_bytes(16)
    still_bytes = 4000  # a little less than one of them has
    client = client_of(scripted, max_video_mb=(len(data) + 1.9 * still_bytes) / 1e6)
    status = settled(client, sent(client, data))
    assert (status["state"], status["frames"], len(status["shots"])) == ("ready", 16, 1)


def test_files_of_a_video_are_bounded(client, settled, short, monkeypatch):
    monkeypatch.setattr("chromatune.serving.video_jobs.STEPS_A_LOOK", 1)
    monkeypatch.setattr("chromatune.serving.video_jobs.FILES_FACTOR", 1e-6)
    assert "its files take more than" in settled(client, sent(client, short))["line"]


def test_a_long_video_does_not_keep_short_ones_waiting(client, engine, settled, video_bytes, short, monkeypatch, until):
    monkeypatch.setattr("chromatune.serving.video_jobs.SHORT_VIDEO_PIXELS", 8 * 96 * 64)
    go, entered, call = threading.Event(), threading.Event(), type(engine).__call__

    def waits(self, *given):
        if threading.current_thread().name.startswith("keyframes") and not entered.is_set():
            entered.set()
            go.wait(20)
        return call(self, *given)

    monkeypatch.setattr(type(engine), "__call__", waits)
    long = sent(client, video_bytes(16))
    assert settled(client, long)["frames"] == 16
    client.post(f"{long}/colorize", json={})
    until(entered.is_set)
    path = sent(client, short)
    assert settled(client, path)["state"] == "ready"
    client.post(f"{path}/colorize", json={})
    assert settled(client, path)["state"] == "done"
    assert client.get(long).json()["state"] == "colorizing"
    go.set()
    assert settled(client, long)["state"] == "done"


def test_a_video_whose_header_hides_its_length_moves_to_the_long_ones(client_of, scripted, settled, monkeypatch):
    monkeypatch.setattr("chromatune.serving.video_jobs.SHORT_VIDEO_PIXELS", 8 * 96 * 64)
    threads: list[str] = []
    from chromatune.serving.video_jobs import VideoJob

    start_stage = VideoJob.start_stage

    def noted(self, name, length):
        threads.append(threading.current_thread().name.rpartition("_")[0])
        return start_stage(self, name, length)

    monkeypatch.setattr(VideoJob, "start_stage", noted)
    client = client_of(scripted)
    assert settled(client, sent(client, of_one_shot("h264", "libx264")))["frames"] == 16
    assert threads == ["short-video", "long-video", "long-video"]


def test_removed_videos_leave_nothing_whether_they_wait_or_are_worked_on(
    client_of, scripted, monkeypatch, short, until, temporary_folder
):
    entered, go = threading.Event(), threading.Event()

    def waits(path, **limits):
        entered.set()
        go.wait(20)
        raise LookupError("not read")

    monkeypatch.setattr("chromatune.video.open_video", waits)
    client = client_of(scripted)
    working, waiting = sent(client, short), sent(client, short)
    until(entered.is_set)
    assert client.delete(waiting).status_code == client.delete(working).status_code == 204
    assert len(list(temporary_folder.iterdir())) == 1  # a thread reads it
    go.set()
    until(lambda: not list(temporary_folder.iterdir()))


def test_sound_that_mp4_does_not_hold_is_converted(client, settled, engine):
    file = io.BytesIO()
    with av.open(file, "w", format="mov") as out:
        stream, sound = out.add_stream("libx264", rate=25, width=96, height=64), out.add_stream("pcm_mulaw", rate=8000)
        sound.codec_context.layout = "mono"
        for number in range(4):
            out.mux(stream.encode(av.VideoFrame(96, 64, "yuv420p")))
            heard = av.AudioFrame(format="s16", layout="mono", samples=320)
            heard.sample_rate, heard.pts = 8000, 320 * number
            out.mux(sound.encode(heard))
        out.mux(stream.encode())
        out.mux(sound.encode())
    path = sent(client, file.getvalue(), "old.mov")
    settled(client, path)
    client.post(f"{path}/colorize", json={})
    assert settled(client, path)["state"] == "done"
    with av.open(io.BytesIO(client.get(f"{path}/result").content)) as result:
        assert result.streams.audio[0].codec_context.name == "aac"


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

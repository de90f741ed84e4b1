"""Models of this process: the command line's own files, models offered, a full queue, passes that are shared."""

from __future__ import annotations

import io
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from chromatune import color
from chromatune.errors import ModelError
from chromatune.images import provenance_of, read_photo
from chromatune.serving.batcher import DynamicBatcher
from chromatune.serving.local import LocalPredictor, without_paths
from chromatune.serving.predictor import ColorizeRequest
from chromatune.serving.settings import make_serve_settings


@pytest.mark.parametrize("kind", ["shipped", pytest.param("folder", marks=pytest.mark.slow)])
def test_an_answer_is_the_command_lines_file(served_of, kind, request, tmp_path, picture):
    from chromatune.cli import main

    model = "mini" if kind == "shipped" else str(request.getfixturevalue("tiny_pipeline_dir"))

    source, target = tmp_path / "x.jpg", tmp_path / "out.jpg"
    source.write_bytes(picture(size=(64, 48), format="JPEG"))
    assert main(["colorize", str(source), "-o", str(target), "--model", model, "--seed", "3"]) == 0
    client = served_of(model=(model,), device="cpu")
    files = {"photo": ("x.jpg", source.read_bytes())}
    answer = client.post("/v1/colorize", files=files, data={"options": '{"seed": 3}'})
    assert answer.content == target.read_bytes()
    assert answer.headers["content-type"] == "image/jpeg"
    assert answer.headers["x-chromatune-model"] == Path(model).name


@pytest.mark.parametrize(
    ("data", "status", "said"),
    [(b"", 400, "empty"), (b"no picture", 415, "not a picture"), (b"\xff\xd8\xff broken", 400, "x.jpg")],
)
def test_bad_photos(engine, served_of, data, status, said):
    client = served_of(model=("mini",))
    answer = client.post("/v1/colorize", files={"photo": ("x.jpg", data)})
    assert (answer.status_code, said in answer.json()["detail"]) == (status, True)


def test_a_photo_of_too_many_pixels(engine, served_of, picture):
    client = served_of(model=("mini",), max_megapixels=0.001)
    answer = client.post("/v1/colorize", files={"photo": ("x.png", picture(size=(100, 100)))})
    assert (answer.status_code, "x.png" in answer.json()["detail"]) == (400, True)


def test_a_model_that_is_not_on_offer_is_not_opened(engine, local_of, photo):
    client, _ = local_of(model=("mini",))
    for name in ("mini-base", "/etc", "../../etc", "someone/model"):
        answer = client.post("/v1/colorize", files=photo, data={"model": name})
        assert (answer.status_code, "accepted: mini" in answer.json()["detail"]) == (422, True)
    assert [name for name, _ in engine.loads] == ["mini"]


def test_each_route_takes_any_model_offered_and_loads_it_once(engine, local_of, photo, until):
    client, predictor = local_of(model=("mini", "mini-base"))
    with ThreadPoolExecutor(4) as clients:
        form = {"data": {"model": "mini-base"}, "files": photo}
        answers = list(clients.map(lambda path: client.post(path, **form), ["/v1/colorize", "/v1/sessions"] * 2))
    assert [answer.status_code for answer in answers] == [200, 201] * 2
    session = f"/v1/sessions/{answers[1].json()['id']}"
    given = [{}, {"model": "mini-base"}]
    versions = [client.post(f"{session}/versions", json=each).json() for each in given]
    assert [each["facts"]["model"] for each in versions] == ["mini", "mini-base"]
    batch = client.post("/v1/batches", files=[("photos", photo["photo"])], data={"model": "mini-base"}).json()["id"]
    until(lambda: client.get(f"/v1/batches/{batch}").json()["state"] == "done")
    assert client.get(f"/v1/batches/{batch}/photos/1").headers["x-chromatune-model"] == "mini-base"
    assert [name for name, _ in engine.loads] == ["mini", "mini-base"]
    line = "model='other': not offered; accepted: mini, mini-base"
    unknown = [
        client.post("/v1/sessions", files=photo, data={"model": "other"}),
        client.post(f"{session}/versions", json={"model": "other"}),
        client.post("/v1/batches", files=[("photos", photo["photo"])], data={"model": "other"}),
    ]
    assert [(each.status_code, each.json()["detail"]) for each in unknown] == [(422, line)] * 3


def test_a_model_that_cannot_be_loaded_says_why_and_shows_no_paths(
    client_of, engine, monkeypatch, photo, tmp_path, until
):
    folder = tmp_path / "secret" / "portraits"
    folder.mkdir(parents=True)
    warnings: list[str] = []

    def fail(model: str, **options):
        if model == "mini":
            return engine
        raise ModelError(f"{model}: unet/config.json is missing in {model}/unet; mend it, or see /var/lib/models/x.txt")

    monkeypatch.setattr("chromatune.colorizer.load_backend", fail)
    settings = {"model": ("mini", str(folder))}
    predictor = LocalPredictor(make_serve_settings(**settings), warnings.append)
    client = client_of(predictor, **settings)
    until(lambda: predictor.state.name == "ready")
    answer = client.post("/v1/colorize", files=photo, data={"model": "portraits"})
    assert answer.status_code == 503
    assert answer.json()["detail"] == "portraits: unet/config.json is missing in portraits/unet; mend it, or see x.txt"
    assert str(folder) in warnings[0]  # who runs the server is told all
    assert client.post("/v1/colorize", files=photo).status_code == 200


def test_what_a_colorizer_leaves_out_is_said_without_its_path(local_of, picture, colorizer):
    client, _ = local_of(model=(colorizer,))
    photo = {"photo": ("x.png", picture(size=(64, 48)))}
    session = client.post("/v1/sessions", files=photo, data={"options": '{"prompt": "warm colors"}'}).json()
    line = "violet.onnx colors every photo in its own way: prompt left out; hints and --strength act"
    assert line in session["facts"]["warnings"]
    refused = client.post(f"/v1/sessions/{session['id']}/versions", json={"options": {"variant": 2}})
    assert refused.json()["detail"].startswith("violet.onnx has one version of a photo")


def test_a_blend_goes_by_its_models_names_and_is_the_command_lines_file(local_of, picture, colorizer, tmp_path):
    from chromatune.cli import main

    blend, source, target = f"mini+{colorizer}:0.3", tmp_path / "x.png", tmp_path / "out.png"
    source.write_bytes(picture(size=(64, 48)))
    assert main(["colorize", str(source), "-o", str(target), "--model", blend]) == 0
    client, _ = local_of(model=(blend,), device="cpu")
    answer = client.post("/v1/colorize", files={"photo": ("x.png", source.read_bytes())})
    assert answer.headers["x-chromatune-model"] == "mini+violet.onnx:0.3"
    assert answer.content == target.read_bytes()


def test_where_the_default_model_cannot_be_loaded_the_server_says_so(client_of, photo, until, tmp_path):
    folder = tmp_path / "empty"
    folder.mkdir()
    predictor = LocalPredictor(make_serve_settings(model=(str(folder),)))
    client = client_of(predictor, model=(str(folder),))
    until(lambda: predictor.state.name == "failed")
    for answer in (client.get("/readyz"), client.post("/v1/colorize", files=photo)):
        assert (answer.status_code, answer.json()["detail"]) == (
            503,
            "empty is not a model's folder: it has no model_index.json",
        )


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("/srv/models/x: broken", "x: broken"),
        ("see (/a/b/c.json), or C:\\models\\d.txt", "see (c.json), or d.txt"),
        ("and/or 3/4 someone/model", "and/or 3/4 someone/model"),
    ],
)
def test_lines_lose_folders_of_this_machine(line, shown):
    assert without_paths(line) == shown


def test_a_queue_that_is_full_refuses_and_takes_again(engine, local_of, photo, until, monkeypatch):
    go = threading.Event()
    original = type(engine).__call__
    monkeypatch.setattr(type(engine), "__call__", lambda self, *given: go.wait(20) and original(self, *given))
    engine.batches = False
    client, predictor = local_of(model=("mini",), workers=1, queue=1)
    with ThreadPoolExecutor(2) as clients:
        answers = [clients.submit(client.post, "/v1/colorize", files=photo) for _ in range(2)]
        until(lambda: predictor.waiting == 2)
        full = client.post("/v1/colorize", files=photo)
        assert (full.status_code, full.json()["detail"]) == (429, "too many photos are queued; try again later")
        assert int(full.headers["retry-after"]) >= 1
        batch = client.post("/v1/batches", files=[("photos", photo["photo"])])  # waits for its turn
        assert batch.status_code == 202
        go.set()
        assert [answer.result().status_code for answer in answers] == [200, 200]
    until(lambda: client.get(f"/v1/batches/{batch.json()['id']}").json()["state"] == "done")
    until(lambda: predictor.waiting == 0)
    assert client.post("/v1/colorize", files=photo).status_code == 200


def test_uploads_are_written_nowhere_but_into_the_temporary_folder_which_is_emptied(
    engine, local_of, temporary_folder, tmp_path
):
    import io

    from PIL import Image

    noise = np.random.default_rng(0).integers(0, 255, (1050, 1050), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "PNG")  # 1.1 MB: more than is held in memory
    before = set(tmp_path.rglob("*"))
    client, _ = local_of(model=("mini",))
    assert client.post("/v1/colorize", files={"photo": ("x.png", file.getvalue())}).status_code == 200
    assert client.post("/v1/sessions", files={"photo": ("x.png", file.getvalue())}).status_code == 201
    assert list(temporary_folder.iterdir()) == []
    assert set(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("batches", [True, False])
def test_photos_share_passes_where_the_model_gains_by_it(engine, local_of, batches):
    engine.batches = batches
    _, predictor = local_of(model=("mini",))
    assert isinstance(predictor.model("mini").backend, DynamicBatcher) == batches


def test_as_many_photos_are_read_as_go_through_together(engine, local_of):
    _, predictor = local_of(model=("mini",))
    assert predictor.photo_threads.slots == 8 + 32
    engine.batches = False
    _, predictor = local_of(model=("mini",), workers=3, queue=5)
    assert predictor.photo_threads.slots == 3 + 5


def test_only_so_many_pixels_are_decoded_at_the_same_time(picture):
    predictor = LocalPredictor(make_serve_settings(model=("mini",), max_megapixels=0.01))
    request = ColorizeRequest(picture(size=(90, 100)), "a.png", "mini")
    began = threading.Event()

    def third() -> None:
        with predictor.memory(request):
            began.set()

    thread = threading.Thread(target=third)
    with predictor.memory(request):
        with predictor.memory(request):
            thread.start()
            assert not began.wait(0.1)
        assert began.wait(60)
    thread.join()


def test_a_finished_picture_gives_its_colors(local_of, picture):
    """Alone, and as a version of an open photo."""
    rng = np.random.default_rng(0)
    truth = np.kron(rng.integers(0, 256, (12, 16, 3)), np.ones((12, 12, 1))).astype(np.uint8)
    client, _ = local_of(model=("mini",))

    def png(pixels: np.ndarray) -> bytes:
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        return file.getvalue()

    gray = color.luma(truth)
    files = {"photo": ("scan.png", png(gray)), "finished": ("done.png", png(truth))}
    answer = client.post("/v1/recolor", files=files)
    assert answer.status_code == 200, answer.text
    alone = np.asarray(Image.open(io.BytesIO(answer.content)))
    assert color.luma_drift(alone, gray)[0] <= 1
    assert np.abs(alone.astype(int) - truth).mean() < 12
    facts = client.post("/v1/recolor", files=files, headers={"accept": "application/json"}).json()
    assert facts["model"] == "finished picture"
    session = client.post("/v1/sessions", files={"photo": files["photo"]}).json()["id"]
    added = client.post(f"/v1/sessions/{session}/finished", files={"picture": files["finished"]})
    assert added.status_code == 201, added.text
    version = added.json()["version"]
    result = client.post(f"/v1/sessions/{session}/result", json={"version": version})
    pixels = np.asarray(Image.open(io.BytesIO(result.content)))
    assert np.abs(pixels.astype(int) - alone).max() <= 2  # by another way to the same
    made = provenance_of(read_photo(result.content).captions.xmp)
    assert made is not None and made.colors_from == "finished picture"
    other = np.kron(rng.integers(0, 256, (12, 16, 3)), np.ones((12, 12, 1))).astype(np.uint8)
    redrawn = truth.copy()
    redrawn[:, :72] = other[:, :72]
    added = client.post(f"/v1/sessions/{session}/finished", files={"picture": ("redrawn.png", png(redrawn))}).json()
    assert 0.25 < added["facts"]["missing"] < 0.6
    answer = client.get(f"/v1/sessions/{session}/confidence", params={"version": added["version"]})
    veil = np.asarray(Image.open(io.BytesIO(answer.content)).resize((192, 144)))[..., 3]
    assert veil[:, 10:60].mean() > 200 and veil[:, 100:].mean() < 60
    refused = client.get(f"/v1/sessions/{session}/confidence", params={"version": 1})
    assert refused.status_code == 422 and "was made by a model" in refused.text
    for name, data in (("gray.png", png(gray)), ("other.png", png(other))):
        refused = client.post(f"/v1/sessions/{session}/finished", files={"picture": (name, data)})
        assert refused.status_code == 400 and name in refused.text

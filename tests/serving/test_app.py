"""Routes and their failures: what comes in, what goes out, and each failure with its status and one line."""

from __future__ import annotations

import http.client
import io
import json
import shutil
from typing import IO

import numpy as np
import pytest
from PIL import Image

from chromatune.errors import MissingExtraError, ModelError, NotAPictureError, OptionsError, PhotoError
from chromatune.hints.hints import Layer, Stroke
from chromatune.options import make_options
from chromatune.pipeline import MODELS_DIR
from chromatune.serving import responses
from chromatune.serving.local import read_hints
from chromatune.serving.predictor import QueueFull
from chromatune.serving.settings import make_serve_settings


def test_a_photo_comes_back_in_color_with_facts_in_headers(client, scripted, photo):
    answer = client.post("/v1/colorize", files=photo, data={"options": '{"seed": 7, "strength": 0.5}'})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
    assert answer.content == b"colored " + photo["photo"][1]
    assert answer.headers["x-chromatune-seed"] == "7"
    assert answer.headers["content-disposition"] == "inline; filename*=UTF-8''x.color.png"
    (request,) = scripted.requests
    assert (request.model, request.options) == ("mini", make_options(seed=7, strength=0.5))


def test_who_accepts_json_gets_facts_alone(client, photo):
    answer = client.post("/v1/colorize", files=photo, headers={"accept": "application/json"})
    assert answer.json() == {"name": "x.png", "seed": 0, "warnings": []}


@pytest.mark.parametrize(
    ("given", "called"),
    [
        ("../../etc/passwd.png", "''passwd.color"),
        ("C:\\photos\\oma.png", "''oma.color"),
        ("Oma Käthe\n.png", "Oma%20K%C3%A4the"),
        ('"; filename=evil.exe', "evil"),
        ("", ""),
    ],
)
def test_names_of_clients_go_nowhere_but_into_names(client, photo, given, called):
    answer = client.post("/v1/colorize", files={"photo": (given, photo["photo"][1])})
    if not given:  # it is no file then
        assert answer.status_code == 422
        return
    disposition = answer.headers["content-disposition"]
    assert answer.status_code == 200 and called in disposition
    value = disposition.removeprefix("inline; filename*=UTF-8''")
    assert not set(value) & set('/\\"; \n\r')


def test_models_on_offer_and_no_paths(client_of, scripted, tmp_path):
    folder = tmp_path / "portraits"
    folder.mkdir()
    client = client_of(scripted, model=(str(folder), "mini", "someone/model"))
    assert client.get("/v1/models").json()["models"] == ["portraits", "mini", "someone/model"]


def test_models_are_described_with_what_they_follow(engine, local_of, tmp_path, monkeypatch, colorizer):
    """Nothing is fetched to describe a model, and one that is broken is left out."""
    monkeypatch.setattr("chromatune.pipeline.model_files._fetch", lambda name: pytest.fail("it is fetched"))
    folder = tmp_path / "my models" / "portraits"
    folder.mkdir(parents=True)
    shutil.copytree(MODELS_DIR / "mini-base" / "unet", folder / "unet", ignore=shutil.ignore_patterns("*.onnx", "*.s*"))
    shutil.copy(MODELS_DIR / "mini-base" / "model_index.json", folder)
    run = tmp_path / "my models" / "album" / "model"
    shutil.copytree(folder, run)
    (run / "chromatune.json").write_text(json.dumps({"label": "Our album"}))
    (tmp_path / "broken").mkdir()
    other = [colorizer, f"mini+{colorizer}:0.3", "someone/model", "someone/model+mini:0.5", str(tmp_path / "broken")]
    client, _ = local_of(model=("mini", str(folder), "mini-base", str(run), *other))
    answer = client.get("/v1/models").json()
    details = {each["name"]: each for each in answer["details"]}
    assert list(details) == ["mini", "portraits", "mini-base", "album", "violet.onnx", "mini+violet.onnx:0.3"]
    assert details["portraits"]["description"] == details["portraits"]["label"] == "portraits"
    assert details["album"]["label"] == "Our album"
    assert "what mini was before" in details["mini-base"]["description"]
    assert (details["mini-base"]["family"], details["mini-base"]["license"]) == ("InstructPix2Pix", "Apache-2.0")
    assert details.pop("violet.onnx")["follows"] == []
    assert all({"prompt", "seed", "steps"} <= set(each["follows"]) for each in details.values())
    assert str(tmp_path.parent) not in str(answer)
    assert answer["compared"] == answer["models"]


def test_only_models_that_were_asked_for_are_compared(client):
    answer = client.get("/v1/models").json()
    assert (answer["models"], answer["compared"]) == (["mini", "mini-base"], ["mini"])


def test_a_file_is_offered_by_its_name(tmp_path, monkeypatch):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "portraits.onnx").touch()
    monkeypatch.chdir(tmp_path)
    settings = make_serve_settings(model=("models/portraits.onnx", "mini"))
    assert settings.models == ("portraits.onnx", "mini")
    assert settings.source_of("portraits.onnx") == "models/portraits.onnx"


def test_the_model_of_a_run_is_offered_by_the_name_of_the_run(tmp_path, monkeypatch):
    """All are in folders called `model`, and two of them are offered together."""
    for run in ("album", "portraits"):
        (tmp_path / run / "model").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "portraits")
    assert make_serve_settings(model=("../album/model", "model")).models == ("album", "portraits")


def test_limits_of_edits_are_those_of_the_options(client):
    assert client.get("/v1/models").json()["limits"] == {
        "strength": {"minimum": 0, "maximum": 1},
        "vivid": {"minimum": 0, "maximum": 2},
        "hint_reach": {"minimum": 0.02, "maximum": 10},
        "hint_strength": {"minimum": 0, "maximum": 1},
    }


def test_two_models_of_one_name_are_refused(client_of, scripted, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name / "same").mkdir(parents=True)
    with pytest.raises(OptionsError, match="have the same name"):
        client_of(scripted, model=(str(tmp_path / "a" / "same"), str(tmp_path / "b" / "same")))


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (PhotoError("x.png: damaged"), 400),
        (NotAPictureError("x.png: not a picture in a known format"), 415),
        (OptionsError("model=7: not offered"), 422),
        (ModelError("mini returned NaN or infinite values"), 503),
        (MissingExtraError("it", "torch"), 503),
        (MemoryError(), 503),
        (QueueFull(), 429),
    ],
)
def test_each_failure_has_its_status_and_one_line(client, scripted, photo, error, status):
    scripted.error = error
    answer = client.post("/v1/colorize", files=photo)
    assert answer.status_code == status
    line = answer.json()["detail"]
    assert line and "\n" not in line
    if str(error):
        assert line == str(error)
    if status == 429:
        assert int(answer.headers["retry-after"]) >= 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("[]", "a JSON object"),
        ("{", "a JSON object"),
        ("7", "a JSON object"),
        ("[" * 100_000, "a JSON object"),
        ('{"steps": 0}', "steps=0: input should be greater than or equal to 1"),
        ('{"nonsense": 1}', "unknown option 'nonsense'"),
        ('{"": 1}', "unknown option ''"),
        ('{"seed": 1e400}', "seed=inf"),
    ],
)
def test_options_are_held_to_the_command_lines_limits(client, scripted, photo, options, said):
    answer = client.post("/v1/colorize", files=photo, data={"options": options})
    assert answer.status_code == 422
    assert said in answer.json()["detail"]
    assert scripted.requests == []


def test_without_a_photo(client):
    for send in ({}, {"data": {"photo": "text"}}, {"data": {"photo": "/etc/passwd"}}, {"json": {"photo": "x"}}):
        answer = client.post("/v1/colorize", **send)
        assert (answer.status_code, answer.json()["detail"]) == (
            422, "the form field photo must be a file",
        )  # fmt: skip


def test_what_takes_too_long_is_given_up(client_of, scripted, photo, until):
    scripted.seconds = 60
    client = client_of(scripted, timeout_s=0.2)
    answer = client.post("/v1/colorize", files=photo)
    assert answer.status_code == 504
    assert "0.2 s" in answer.json()["detail"]
    until(lambda: scripted.cancelled == 1)


def test_hints_come_as_json_and_as_a_layer(client, scripted, photo):
    file = io.BytesIO()
    Image.fromarray(np.full((6, 8, 4), 200, np.uint8)).save(file, "PNG")
    hints = {"marks": [{"points": [[1, 2]], "color": "#a03020"}]}
    files = photo | {"hints_layer": ("layer.png", file.getvalue())}
    answer = client.post("/v1/colorize", files=files, data={"hints": json.dumps(hints)})
    assert answer.status_code == 200
    layer, stroke = read_hints(scripted.requests[0]).marks
    assert isinstance(layer, Layer) and isinstance(stroke, Stroke)
    assert (layer.width_px, stroke.color) == (8, (160, 48, 32))


@pytest.mark.parametrize(
    ("data", "files", "status", "said"),
    [
        ({"hints": "{"}, {}, 422, "marks|JSON|json"),
        ({"hints": '{"marks": [{"points": [[1, 2]], "color": "#ggg"}]}'}, {}, 422, "marks"),
        ({}, {"hints_layer": ("l.png", b"no picture")}, 415, "l.png: not a picture"),
        ({}, {"hints_layer": ("l.png", None)}, 400, "no transparency"),
    ],
)
def test_bad_hints_have_a_line(local_of, photo, picture, data, files, status, said):
    client, _ = local_of(model=("mini",))
    files = {name: (called, content or picture()) for name, (called, content) in files.items()}
    answer = client.post("/v1/colorize", files=photo | files, data=data)
    assert answer.status_code == status
    assert any(word in answer.json()["detail"] for word in said.split("|"))


def test_a_layer_larger_than_photos_may_be_is_refused(local_of, photo, picture):
    client, _ = local_of(model=("mini",), max_megapixels=0.001)
    answer = client.post("/v1/colorize", files=photo | {"hints_layer": ("l.png", picture(size=(100, 100)))})
    assert answer.status_code == 400


def test_metrics_count_by_route_and_not_by_what_clients_invent(client_of, scripted, photo):
    client = client_of(scripted)
    client.post("/v1/colorize", files=photo)
    client.get("/secret-1")
    client.request("BREW", "/secret-2")
    text = client.get("/metrics").text
    assert 'chromatune_requests_total{method="POST",route="/v1/colorize",status="200"} 1.0' in text
    assert "chromatune_photos_total 1.0" in text
    assert "secret" not in text and "BREW" not in text


def test_the_description_is_drawn_by_files_of_this_server(client):
    page = client.get("/docs").text
    assert "//" not in page.replace("<!doctype", "")
    assert client.get("/docs/assets/swagger-ui-bundle.js").status_code == 200
    assert set(client.get("/openapi.json").json()["paths"]) >= {
        "/v1/colorize",
        "/v1/sessions",
        "/v1/batches",
        "/metrics",
    }


def test_the_predictor_stops_with_the_app(client_of, scripted):
    client = client_of(scripted)
    client.__exit__(None, None, None)
    assert scripted.stopped
    client.__enter__()


def test_a_large_result_is_sent_from_the_disk_and_leaves_nothing(client, photo, monkeypatch, temporary_folder):
    opened, on_disk = list[IO[bytes]](), responses._on_disk

    def noting(data: bytes) -> IO[bytes]:
        opened.append(on_disk(data))
        return opened[-1]

    monkeypatch.setattr(responses, "_on_disk", noting)
    large = bytes(range(256)) * 4000
    answer = client.post("/v1/colorize", files={"photo": ("x.png", large)})
    assert answer.content == b"colored " + large
    assert answer.headers["content-length"] == str(len(answer.content))
    assert opened[0].closed and list(temporary_folder.iterdir()) == []
    client.post("/v1/colorize", files=photo)
    assert len(opened) == 1  # a small one is not


def test_a_header_has_no_space_at_an_end(port_of, scripted, photo):
    port = port_of(scripted)
    body = (
        b'--x\r\nContent-Disposition: form-data; name="photo"; filename=" a "\r\n\r\n'
        + photo["photo"][1]
        + b"\r\n--x--\r\n"
    )
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", "/v1/colorize", body, {"Content-Type": "multipart/form-data; boundary=x"})
    answer = connection.getresponse()
    assert (answer.status, answer.headers["x-chromatune-name"]) == (200, "%20a%20")
    connection.close()

"""Photos that are open for edits: over the arithmetic model, and with the shipped one."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pytest
from PIL import Image

from chromatune import color
from chromatune.colorizer import Colorizer
from chromatune.hints import Hints
from chromatune.options import make_options
from chromatune.serving.local import PREPARED_S


def opened(client, data: bytes, name: str = "x.png", **form: str) -> dict:
    answer = client.post("/v1/sessions", files={"photo": (name, data)}, data=form)
    assert answer.status_code == 201, answer.text
    return answer.json()


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


@pytest.fixture
def session(engine, served_of, picture):
    """A client, and the path of a session on a gray picture of 80 × 60 pixels whose first pass is a little blue."""
    client = served_of(model=("mini",))
    key = opened(client, picture(size=(80, 60)), options='{"seed": 5}')["id"]
    return client, f"/v1/sessions/{key}"


def test_a_session_opens_with_a_first_version(engine, served_of, picture):
    client = served_of(model=("mini",))
    answer = opened(client, picture(), options='{"seed": 5}')
    assert answer["version"] == 1
    facts = answer["facts"]
    assert (facts["name"], facts["width_px"], facts["height_px"], facts["seed"]) == ("x.png", 8, 6, 5)


def test_changes_cost_no_pass(session, engine):
    client, path = session
    passes = len(engine.calls)
    edits: list[dict[str, float]] = [{"vivid": 2}, {}, {"strength": 0.5}, {"strength": 0}]
    answers = [client.post(f"{path}/preview", json=edit) for edit in edits]
    assert [answer.headers["content-type"] for answer in answers] == ["image/jpeg"] * 4
    blue = [float(pixels(answer.content)[..., 2].mean()) for answer in answers]
    assert blue[0] > blue[1] > blue[2] > blue[3] == pytest.approx(100, abs=1)
    hints = {"marks": [{"points": [[5, 5]], "color": "#a03020", "radius_px": 4}]}
    stroke = pixels(client.post(f"{path}/preview", json={"hints": hints}).content)
    old = {"marks": [{"points": [[5, 5]], "colour": "#a03020", "radius_px": 4}]}  # until 0.3
    np.testing.assert_array_equal(pixels(client.post(f"{path}/preview", json={"hints": old}).content), stroke)
    assert stroke[5, 5, 0] > stroke[5, 5, 2] + 20
    assert len(engine.calls) == passes


def test_the_result_is_what_colorize_gives_for_all_together(session, engine, picture):
    client, path = session
    hints = Hints().stroke([(5, 5), (30, 8)], 3, "#a03020")
    edit = {"strength": 0.8, "hint_reach": 2, "hint_strength": 0.9, "hints": json.loads(hints.to_json())}
    answer = client.post(f"{path}/result", json=edit)
    assert answer.headers["content-disposition"].startswith("attachment; ")
    options = make_options(seed=5, strength=0.8, hint_reach=2, hint_strength=0.9)
    wanted = Colorizer(engine).colorize(picture(size=(80, 60)), options, hints=hints)
    assert answer.content == wanted.encode("PNG")
    assert answer.headers["x-chromatune-seed"] == "5"
    direct = client.post(
        "/v1/colorize",
        files={"photo": ("x.png", picture(size=(80, 60)))},
        data={"options": options.model_dump_json(), "hints": hints.to_json()},
    )
    assert direct.content == answer.content


def test_versions_stand_beside_each_other(session):
    client, path = session
    answer = client.post(f"{path}/versions", json={"options": {"seed": 12, "prompt": "odd"}})
    assert (answer.status_code, answer.json()["version"]) == (201, 2)
    assert answer.json()["facts"]["warnings"] == ["the prompt is odd"]
    blue = {
        number: float(pixels(client.post(f"{path}/preview", json={"version": number}).content)[..., 2].mean())
        for number in (1, 2, None)
    }
    assert blue[2] > blue[1] + 5 and blue[None] == blue[2]


def test_a_variant_shares_the_first_pass_and_says_how_far_it_departs(session, engine):
    client, path = session
    passes = len(engine.calls)
    facts = [
        client.post(f"{path}/versions", json={"options": {"seed": 5, "variant": number}}).json()["facts"]
        for number in (1, 2, 4)
    ]
    assert [(each["variant"], each["seed"], each["steps"]) for each in facts] == [(1, 5, 4), (2, 5, 4), (4, 5, 4)]
    assert facts[0]["departure"] == 0 < facts[1]["departure"] < facts[2]["departure"]
    assert len(engine.calls) == (passes + 3 if passes else 0)  # with Ray, other processes call it
    result = client.post(f"{path}/result", json={})
    assert result.headers["x-chromatune-variant"] == "4"


def test_the_oldest_of_many_versions_is_dropped(session):
    client, path = session
    for seed in range(12):
        client.post(f"{path}/versions", json={"options": {"seed": seed}})
    gone = client.post(f"{path}/preview", json={"version": 1})
    assert (gone.status_code, "version=1: does not exist" in gone.json()["detail"]) == (422, True)
    assert client.post(f"{path}/preview", json={"version": 2}).status_code == 200


def test_suggestions_begin_with_the_own_color_and_are_distinct(session, engine):
    client, path = session
    answer = client.get(f"{path}/suggestions?x=20&y=10").json()
    colors = answer["colors"]
    assert answer["colours"] == colors  # the field's name of version 0.1, until 0.3
    assert colors and len(set(colors)) == len(colors)
    red, _, blue = (int(colors[0][at : at + 2], 16) for at in (1, 3, 5))
    assert 10 < blue - red < 30  # five units of the seed
    passes = len(engine.calls)
    client.get(f"{path}/suggestions?x=60&y=50")
    assert len(engine.calls) == passes  # what the model gives for other prompts is stored


BAD_EDITS: list[tuple[str, dict[str, Any] | None, int, str]] = [
    ("preview", {"strength": 2}, 422, "strength"),
    ("preview", {"max_pixels": 1}, 422, "max_pixels"),
    ("preview", {"nonsense": 1}, 422, "nonsense"),
    ("preview", {"version": 9}, 422, "version=9"),
    ("preview", {"hints": {"marks": [{"points": [[500, 5]], "color": "red"}]}}, 400, "outside"),
    ("preview", {"hints": {"marks": [{"points": [], "color": "red"}]}}, 422, "points"),
    ("preview", {"hints": {"marks": [{"png": "AAAA", "width_px": 80, "height_px": 60}]}}, 415, "not a picture"),
    ("result", {"version": 9}, 422, "version=9"),
    ("versions", {"options": {"steps": 0}}, 422, "steps"),
    ("versions", {"options": {"recompose": False}}, 422, "recompose"),
    ("versions", {"model": "nobody"}, 422, "not offered"),
    ("suggestions?x=500&y=1", None, 400, "outside"),
    ("suggestions?x=nan&y=1", None, 422, "x"),
    ("suggestions?x=1&y=1&version=9", None, 422, "version=9"),
]


def test_bad_edits_have_a_line(session):
    client, path = session
    for route, edit, status, said in BAD_EDITS:
        answer = client.get(f"{path}/{route}") if edit is None else client.post(f"{path}/{route}", json=edit)
        assert answer.status_code == status, answer.text
        assert said in answer.json()["detail"]


def test_a_session_without_the_photos_own_luminance_is_none(client, photo):
    answer = client.post("/v1/sessions", files=photo, data={"options": '{"recompose": false}'})
    assert (answer.status_code, "a session needs the photo's own luminance" in answer.json()["detail"]) == (422, True)


def test_sessions_are_bounded_and_end(engine, served_of, picture):
    client = served_of(model=("mini",), sessions=2)
    keys = [opened(client, picture())["id"] for _ in range(3)]
    found = [client.post(f"/v1/sessions/{key}/preview", json={}).status_code for key in keys]
    assert found == [404, 200, 200]
    assert client.delete(f"/v1/sessions/{keys[2]}").status_code == 204
    gone = client.post(f"/v1/sessions/{keys[2]}/preview", json={})
    assert (gone.status_code, gone.json()["detail"]) == (404, "this photo is no longer open; send it again")


def test_what_was_worked_out_for_hints_is_held_for_few_photos(engine, local_of, picture):
    client, predictor = local_of(model=("mini",))
    hints = {"marks": [{"points": [[1, 1]], "color": "red"}]}
    for _ in range(6):
        key = opened(client, picture(size=(40, 30)))["id"]
        client.post(f"/v1/sessions/{key}/preview", json={"hints": hints})
    prepared = [each() for each, _ in predictor._prepared]
    assert len(prepared) == 4
    assert all(each is not None and each._hinted is not None for each in prepared)


def test_what_was_worked_out_for_hints_is_freed_after_a_while(engine, local_of, picture):
    client, predictor = local_of(model=("mini",))
    path, now = f"/v1/sessions/{opened(client, picture(size=(80, 60)))['id']}", [0.0]
    predictor._clock = lambda: now[0]
    edit = {"hints": {"marks": [{"points": [[5, 5]], "color": "red"}]}}
    first = client.post(f"{path}/preview", json=edit).content
    (editor,) = (each() for each, _ in predictor._prepared)
    now[0] = PREPARED_S - 1
    predictor.free_idle()
    assert editor._hinted is not None
    now[0] = PREPARED_S + 1
    predictor.free_idle()
    assert editor._hinted is None and not predictor._prepared
    assert client.post(f"{path}/preview", json=edit).content == first


def test_a_16_bit_photo_with_transparency(engine, served_of):
    from chromatune.images import Photo, encode_photo, read_photo

    gray = np.linspace(0, 65535, 48).reshape(6, 8).astype(np.uint16)
    alpha = np.full((6, 8), 65535, np.uint16)
    alpha[0] = 0
    data = encode_photo(np.repeat(gray[..., None], 3, 2), Photo(gray, alpha), "PNG")
    client = served_of(model=("mini",))
    path = f"/v1/sessions/{opened(client, data)['id']}"
    preview = client.post(f"{path}/preview", json={})
    assert preview.headers["content-type"] == "image/png"
    assert np.asarray(Image.open(io.BytesIO(preview.content)))[0, 0, 3] == 0
    result = read_photo(client.post(f"{path}/result", json={}).content)
    assert result.gray.dtype == np.uint16
    assert np.abs(result.gray.astype(int) - gray).max() <= 1


def test_the_shipped_model_keeps_luminance_and_follows_a_stroke(served_of):
    from skimage import data

    client = served_of(model=("mini",))
    gray = np.asarray(Image.fromarray(data.astronaut()).convert("L").resize((300, 200)))
    file = io.BytesIO()
    Image.fromarray(gray).save(file, "PNG")
    path = f"/v1/sessions/{opened(client, file.getvalue())['id']}"
    plain = pixels(client.post(f"{path}/result", json={}).content)
    hints = {"marks": [{"points": [[20, 20], [40, 30]], "color": "#20a040", "radius_px": 8}]}
    stroke = pixels(client.post(f"{path}/result", json={"hints": hints, "hint_reach": 0.1}).content)
    for result in (plain, stroke):
        assert color.luma_drift(result, gray)[0] <= 1
    changed = np.abs(stroke.astype(int) - plain).sum(-1)
    assert changed[18:28, 22:38].mean() > 50 > 6 > changed[-20:, -20:].mean()


def test_a_reference_gives_its_colors(served_of):
    from skimage import data

    client = served_of(model=("mini",))
    truth = Image.fromarray(data.astronaut()).resize((256, 256))
    photo, reference = io.BytesIO(), io.BytesIO()
    truth.convert("L").save(photo, "PNG")
    truth.save(reference, "PNG")
    files = [("photo", ("x.png", photo.getvalue())), ("reference", ("color.png", reference.getvalue()))]
    wanted = np.asarray(truth).astype(int)
    plain, alike = (
        pixels(client.post("/v1/colorize", files=given).content).astype(int) for given in (files[:1], files)
    )
    assert np.square(alike - wanted).mean() < 0.7 * np.square(plain - wanted).mean()
    opened = client.post("/v1/sessions", files=files).json()
    assert np.array_equal(pixels(client.post(f"/v1/sessions/{opened['id']}/result", json={}).content), alike)
    gray = client.post("/v1/colorize", files=[files[0], ("reference", ("gray.png", photo.getvalue()))])
    assert (gray.status_code, gray.json()["detail"]) == (
        400,
        "gray.png has no color; a reference is a photo in color",
    )


def stamped() -> np.ndarray:
    """(120, 160, 3) uint8: gray, with a red field at its top left."""
    rows = np.linspace(60, 200, 120)[:, None, None]
    rgb = np.broadcast_to(rows, (120, 160, 3)).astype(np.uint8).copy()
    rgb[20:40, 20:50] = 190, 30, 45
    return rgb


def encoded(rgb: np.ndarray, format: str = "PNG", **options) -> bytes:
    data = io.BytesIO()
    Image.fromarray(rgb).save(data, format, **options)
    return data.getvalue()


def test_the_original_is_the_photo_as_it_was(engine, served_of, picture):
    client = served_of(model=("mini",))
    gray = opened(client, picture(size=(80, 60)))["id"]
    shown = client.get(f"/v1/sessions/{gray}/original")
    assert shown.headers["content-type"] == "image/jpeg"
    assert pixels(shown.content).shape == (60, 80, 3) and np.ptp(pixels(shown.content)) == 0
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned
    turned = opened(client, encoded(stamped(), "TIFF", exif=exif), "x.tif")["id"]
    rgb = pixels(client.get(f"/v1/sessions/{turned}/original").content).astype(int)
    assert rgb.shape == (160, 120, 3)
    assert abs(rgb[35, 90] - [190, 30, 45]).max() < 12 and np.ptp(rgb[100, 60]) < 6
    small = pixels(client.get(f"/v1/sessions/{turned}/original?max_pixels=4800").content)
    assert small.shape == (80, 60, 3)
    assert client.get("/v1/sessions/none/original").status_code == 404
    assert client.get(f"/v1/sessions/{turned}/original?max_pixels=1").status_code == 422


def test_own_color_is_an_edit_and_said(engine, served_of, picture):
    client = served_of(model=("mini",))
    assert opened(client, picture(size=(80, 60)))["facts"]["own_color"] == 0
    answer = opened(client, encoded(stamped()))
    path, facts = f"/v1/sessions/{answer['id']}", answer["facts"]
    assert 0.02 < facts["own_color"] < 0.06
    assert facts["notes"][0].startswith("kept the photo's own color in 3 % of it")  # 600 of 19,200 pixels and a rim
    assert facts["warnings"] == facts["notes"]
    passes = len(engine.calls)
    results = {}
    for choice in ("auto", "replace", "blend"):
        answer = client.post(f"{path}/result", json={"own_color": choice})
        results[choice] = pixels(answer.content).astype(int)
        assert ("kept" in answer.headers.get("x-chromatune-warnings", "")) == (choice == "auto")
    red = {choice: int(rgb[30, 35, 0] - rgb[30, 35, 2]) for choice, rgb in results.items()}
    assert red["auto"] > 100 > red["blend"] > 20 > red["replace"]
    assert len(engine.calls) == passes
    assert client.post(f"{path}/result", json={"own_color": "some"}).status_code == 422

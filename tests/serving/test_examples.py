"""What `/docs` fills in where requests are tried, sent as it is; and the example client against a server."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from chromatune.hints import Hints, Stroke
from chromatune.serving.local import LocalPredictor
from chromatune.serving.settings import make_serve_settings

ROOT = Path(__file__).parents[2]
KINDS = {"sessions": "session", "batches": "batch", "videos": "video"}


class Trying:
    """A person at `/docs`: gives files and ids, and leaves all else as it is filled in."""

    def __init__(self, client, files: dict[str, tuple[str, bytes]]) -> None:
        self.client, self.files = client, files
        self.spec = client.get("/openapi.json").json()
        self.tried: set[tuple[str, str]] = set()

    def resolved(self, schema: dict[str, Any]) -> dict[str, Any]:
        if "$ref" in schema:
            return self.spec["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        return schema

    def sample(self, schema: dict[str, Any]) -> Any:
        """What Swagger UI makes up: an example, else the default, else something of the type."""
        schema = self.resolved(schema)
        if schema.get("examples"):
            return schema["examples"][0]
        if "default" in schema:
            return schema["default"]
        if "anyOf" in schema:
            return self.sample(schema["anyOf"][0])
        made = {
            "string": "string",
            "integer": schema.get("minimum", 0),
            "number": schema.get("maximum", 0),
            "array": [],
        }
        return made.get(schema.get("type", ""), {})

    def form(self, schema: dict[str, Any]) -> dict[str, Any]:
        files, fields = [], {}
        for name, field in self.resolved(schema)["properties"].items():
            one, many = "contentMediaType" in json.dumps(field), field.get("items", {}).get("format") == "binary"
            if name in self.files and (one or many):
                files.append((name, self.files[name]))
            elif not one and not many and (value := self.sample(field)) != "":
                fields[name] = value
        return {"files": files, "data": fields}

    def json(self, media: dict[str, Any]) -> Any:
        examples = [example["value"] for example in media.get("examples", {}).values()]
        if examples:
            return examples[0]
        properties = self.resolved(media["schema"])["properties"]
        return {name: self.sample(field) for name, field in properties.items()}

    def try_out(self, method: str, path: str, **given: Any) -> Any:
        operation = self.spec["paths"][path][method]
        self.tried.add((method, path))
        query, filled = {}, dict(given)
        for parameter in operation.get("parameters", []):
            name, schema = parameter["name"], parameter["schema"]
            examples = [example["value"] for example in parameter.get("examples", {}).values()]
            value = examples[0] if examples else schema.get("default")
            filled.setdefault(name, value)
            if parameter["in"] == "query" and filled[name] is not None:
                query[name] = filled[name]
        body: dict[str, Any] = {}
        for kind, media in operation.get("requestBody", {}).get("content", {}).items():
            body = {"json": self.json(media)} if kind == "application/json" else self.form(media["schema"])
        answer = self.client.request(method.upper(), path.format(**filled), params=query, **body)
        assert answer.status_code // 100 == 2, (method, path, body.get("json", body.get("data")), answer.text)
        return answer


def png(pixels: np.ndarray) -> bytes:
    """A picture as a file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def settled(until):
    """Waits until a video is not in progress, and gives its status."""

    def wait(client, path: str) -> dict[str, Any]:
        until(lambda: client.get(path).json()["state"] not in ("reading", "colorizing"))
        return client.get(path).json()

    return wait


@pytest.fixture
def trying(engine, local_of, video_bytes):
    client, _ = local_of(model=("mini",))
    gray = np.random.default_rng(0).integers(40, 215, (8, 12), np.uint8).repeat(8, 0).repeat(8, 1)
    tinted = np.stack([gray, gray // 2, gray // 3], axis=-1)
    tinted[:, 48:] = tinted[:, 48:, ::-1]  # one tint alone would be that of a print
    photo, finished = (("x.png", png(pixels)) for pixels in (gray, tinted))
    files = dict.fromkeys(("photo", "photos"), photo) | dict.fromkeys(("finished", "picture"), finished)
    files["video"] = "x.mp4", video_bytes(8)
    return Trying(client, files)


def test_every_request_that_docs_fill_in_succeeds(trying, settled, until):
    """Routes in the order in which a person would try them: what is opened first, what is deleted last."""
    for method, path in [(m, p) for p, operations in trying.spec["paths"].items() for m in operations]:
        if "{" not in path and path.split("/")[-1] not in KINDS:
            trying.try_out(method, path)
    for kind in KINDS:
        key = trying.try_out("post", f"/v1/{kind}").json()["id"]
        under = f"/v1/{kind}/{{key}}"
        if kind == "batches":
            until(lambda at=f"/v1/batches/{key}": trying.client.get(at).json()["state"] == "done")
        if kind == "videos":
            frame = settled(trying.client, f"/v1/videos/{key}")["shots"][0]["frame"]
            trying.try_out("get", f"{under}/stills/{{frame}}", key=key, frame=frame)
            trying.try_out("post", f"{under}/colorize", key=key)
            settled(trying.client, f"/v1/videos/{key}")
        if kind == "sessions":
            trying.try_out("post", f"{under}/finished", key=key)
        rest = [(m, p) for p, operations in trying.spec["paths"].items() for m in operations if p.startswith(under)]
        for method, path in sorted(rest, key=lambda each: (each[0] == "delete", -len(each[1]))):
            if (method, path) not in trying.tried:
                trying.try_out(method, path, key=key)
    assert trying.tried == {(m, p) for p, operations in trying.spec["paths"].items() for m in operations}


def test_files_are_chosen_and_no_field_is_filled_with_nonsense(client):
    """Swagger UI draws a button for a list of files by its `format`, and fills "string" into what has no default."""
    schemas = client.get("/openapi.json").json()["components"]["schemas"]
    for name, schema in schemas.items():
        for field, content in schema["properties"].items() if name.startswith("Body_") else ():
            if content.get("type") == "array":
                assert content["items"]["format"] == "binary", (name, field)
                assert field in schema["required"] or content["default"] == [], (name, field)
            elif "contentMediaType" not in json.dumps(content):
                assert content.get("default") in ("", "{}"), (name, field)


def test_a_file_that_is_not_chosen_is_none(client, scripted, photo):
    """Swagger UI sends an empty text for it, and for each empty line of a list."""
    data = {"reference": "", "hints_layer": "", "model": "", "options": "", "hints": ""}
    answer = client.post("/v1/colorize", files=photo, data=data)
    assert answer.status_code == 200, answer.text
    (request,) = scripted.requests
    assert (request.references, request.hints_layer, request.model) == ((), None, "mini")
    assert client.post("/v1/colorize", data={"photo": ""}, files={"hints_layer": photo["photo"]}).json() == {
        "detail": "the form field photo must be a file"
    }


def test_colors_have_one_form_in_the_description(client):
    spec = client.get("/openapi.json").text
    color = json.loads(spec)["components"]["schemas"]["Stroke"]["properties"]["color"]
    assert color["type"] == "string" and re.fullmatch(color["pattern"], color["examples"][0])
    assert not re.search("navy|darkred", spec)
    for given in ("#a03020", [160, 48, 32]):  # other forms are read as ever
        stroke = {"points": [[4, 3]], "color": given}
        (mark,) = Hints.from_json({"marks": [stroke]}).marks
        assert isinstance(mark, Stroke) and mark.color == (160, 48, 32)


def test_the_example_client_colorizes_over_http(engine, port_of, until, picture, video_bytes, tmp_path):
    script = ROOT / "examples" / "client.py"
    assert len(script.read_text().splitlines()) <= 30
    predictor = LocalPredictor(make_serve_settings(model=("mini",)))
    port = port_of(predictor, model=("mini",))
    until(lambda: predictor.state.name == "ready")
    (tmp_path / "portrait.png").write_bytes(picture(size=(96, 64)))
    (tmp_path / "garden.mp4").write_bytes(video_bytes(8))
    words = [str(script), "portrait.png", "garden.mp4", f"http://127.0.0.1:{port}"]
    done = subprocess.run([sys.executable, *words], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    made = {path.name for path in tmp_path.iterdir() if path.is_file()} - {"portrait.png", "garden.mp4"}
    assert made == {"portrait.color.png", "portrait.strokes.png", "portrait.pale.png", "garden.color.mp4"}
    plain, by_strokes = (np.asarray(Image.open(tmp_path / f"portrait.{name}.png")) for name in ("color", "strokes"))
    assert not np.array_equal(plain, by_strokes)

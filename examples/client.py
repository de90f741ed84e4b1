"""Use a server over HTTP: python examples/client.py portrait.jpg garden.mp4 [http://127.0.0.1:8321]"""

import json
import sys
import time
from pathlib import Path

import httpx

HINTS = {"marks": [{"points": [[40, 30], [60, 30]], "color": "#a03020"}]}  # a stroke, in pixels of the photo
photo, film = Path(sys.argv[1]), Path(sys.argv[2])
server = sys.argv[3] if len(sys.argv) > 3 else "http://127.0.0.1:8321"
with httpx.Client(base_url=server, timeout=300, event_hooks={"response": [httpx.Response.raise_for_status]}) as client:
    # A photo, as it is and with a stroke
    for name, hints in (("color", ""), ("strokes", json.dumps(HINTS))):
        answer = client.post("/v1/colorize", files={"photo": photo.open("rb")}, data={"hints": hints})
        photo.with_suffix(f".{name}{photo.suffix}").write_bytes(answer.content)
    # A session: the photo is sent once and edited many times
    session = client.post("/v1/sessions", files={"photo": photo.open("rb")}).json()["id"]
    answer = client.post(f"/v1/sessions/{session}/result", json={"strength": 0.5, "hints": HINTS})
    photo.with_suffix(f".pale{photo.suffix}").write_bytes(answer.content)
    # A film: its shots are found, then it is colorized, both in the background
    path = "/v1/videos/" + client.post("/v1/videos", files={"video": film.open("rb")}).json()["id"]
    while (state := client.get(path).json()["state"]) not in ("done", "failed"):
        if state == "ready":
            client.post(f"{path}/colorize", json={"options": {"seed": 7}})
        time.sleep(0.5)
    film.with_suffix(".color.mp4").write_bytes(client.get(f"{path}/result").content)

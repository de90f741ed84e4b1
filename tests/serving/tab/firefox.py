"""Firefox, driven by WebDriver BiDi (w3.org/TR/webdriver-bidi), which it speaks without a driver of its own."""

from __future__ import annotations

import itertools
import json
import shutil
import socket
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from websockets.sync.client import connect

FIREFOX = shutil.which("firefox-esr") or shutil.which("firefox")
START_S, ANSWER_S = 60, 900
# Firefox's compiler mixes AVX with older SSE instructions, which on some processors takes hundreds of times as long
PREFERENCES = 'user_pref("javascript.options.wasm_simd_avx", false);\n'


class Firefox:
    """One window of a browser with a profile of its own."""

    def __init__(self, profile: Path) -> None:
        assert FIREFOX is not None
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        (profile / "user.js").write_text(PREFERENCES)
        arguments = ["--headless", "--no-remote", "--profile", str(profile), "--remote-debugging-port", str(port)]
        self._process = subprocess.Popen(
            [FIREFOX, *arguments, "about:blank"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self._numbers, self._stack = itertools.count(1), ExitStack()
        self._stack.callback(self._end)
        self._socket = self._connected(f"ws://127.0.0.1:{port}/session")
        self._command("session.new", capabilities={})
        self._window = self._command("browsingContext.getTree")["contexts"][0]["context"]

    def _connected(self, address: str) -> Any:
        end = time.monotonic() + START_S
        while True:
            try:
                return self._stack.enter_context(connect(address, max_size=None))
            except OSError:
                assert time.monotonic() < end, "Firefox does not start"
                time.sleep(0.2)

    def _command(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            answer = json.loads(self._socket.recv(timeout=ANSWER_S))
            if answer.get("id") == number:
                assert answer["type"] == "success", answer
                return dict(answer["result"])

    def goto(self, url: str) -> None:
        """Open an address, and wait until it is loaded."""
        self._command("browsingContext.navigate", context=self._window, url=url, wait="complete")

    def evaluate(self, expression: str) -> Any:
        """Return the value of an expression, or what its promise gives: it is sent as JSON."""
        code = f"Promise.resolve({expression}).then((value) => JSON.stringify(value ?? null))"
        target = {"context": self._window}
        answer = self._command("script.evaluate", expression=code, target=target, awaitPromise=True)
        assert answer["type"] == "success", answer
        return json.loads(answer["result"]["value"])

    def close(self) -> None:
        """End the browser."""
        self._stack.close()

    def _end(self) -> None:
        self._process.terminate()
        self._process.wait(30)

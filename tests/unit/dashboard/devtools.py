"""A tab of headless Chromium, driven through a pipe by its developer tools' protocol."""

from __future__ import annotations

import base64
import itertools
import json
import os
import select
import subprocess
import time
from pathlib import Path
from typing import Any

from browsing import FLAGS

PATIENCE = 60.0
"""Seconds for anything to happen, on machines that do other work."""


class Tab:
    """One page; what it logs and what it asks the network for is kept."""

    def __init__(self, browser: str, profile: Path) -> None:
        to_read, self._to = os.pipe()
        self._from, to_write = os.pipe()

        def place() -> None:
            os.dup2(to_read, 3)
            os.dup2(to_write, 4)

        command = [browser, *FLAGS, "--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank"]
        with open(os.devnull, "w") as nowhere:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=nowhere, stderr=nowhere, pass_fds=(3, 4), preexec_fn=place
            )
        os.close(to_read)
        os.close(to_write)
        self._ids, self._rest, self._session = itertools.count(1), b"", ""
        self.logged: list[str] = []
        self.asked: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> Any:
        """What a command gives back."""
        number = next(self._ids)
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        until = time.monotonic() + PATIENCE
        while True:
            heard = self._hear(until - time.monotonic())
            assert heard is not None, f"no answer to {method}"
            if heard.get("id") == number:
                assert "error" not in heard, heard
                return heard["result"]

    def _hear(self, seconds: float) -> dict[str, Any] | None:
        """The next message; None when none came in time. Events are noted."""
        while b"\0" not in self._rest:
            if not select.select([self._from], [], [], max(0.0, seconds))[0]:
                return None
            self._rest += os.read(self._from, 1 << 20)
        line, _, self._rest = self._rest.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        given = message.get("params", {})
        match message.get("method"):
            case "Log.entryAdded":
                self.logged.append(
                    f"{given['entry']['level']}: {given['entry']['text']} {given['entry'].get('url', '')}"
                )
            case "Runtime.exceptionThrown":
                self.logged.append(f"exception: {given['exceptionDetails']}")
            case "Runtime.consoleAPICalled":
                self.logged.append(f"console: {given['args']}")
            case "Network.requestWillBeSent":
                self.asked.append(given["request"]["url"])
        return message

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression."""
        given = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in given, given
        return given["result"].get("value")

    def until(self, expression: str, seconds: float = PATIENCE) -> float:
        """Wait until an expression is true; the seconds that took."""
        began = time.monotonic()
        # Between two pages there is nothing that could be asked.
        tolerant = f"(() => {{ try {{ return {expression}; }} catch {{ return false; }} }})()"
        while not self.evaluate(tolerant):
            if time.monotonic() - began > seconds:
                seen = self.evaluate("`${location.href} ${document.title}\n${document.body.innerText.slice(0, 500)}`")
                raise AssertionError(f"never: {expression}\n{self.logged}\n{seen}")
            time.sleep(0.05)
        return time.monotonic() - began

    def open(self, address: str, *, width: int = 1200, height: int = 900, dark: bool = False) -> None:
        """Load a page in a window of a size."""
        phone = width < 600
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.navigate", url=address)
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    def picture(self, path: Path, *, whole: bool = False) -> None:
        """What is seen, as a PNG; with `whole` all of the page."""
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))

    def close(self) -> None:
        """End the browser."""
        self._session = ""
        try:
            os.write(self._to, b'{"id": 0, "method": "Browser.close"}\0')
            self._process.wait(20)
        except (OSError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        for pipe in (self._to, self._from):
            os.close(pipe)

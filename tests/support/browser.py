"""Headless Chromium for tests, driven over a pipe by its DevTools protocol: no port, no driver, no package.

Messages are JSON objects that end with a zero byte (`--remote-debugging-pipe`); the protocol's commands are those of
https://chromedevtools.github.io/devtools-protocol/, version 1.3.
"""

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

TIMEOUT = 60.0  # seconds: for one answer of the browser, on a loaded machine
FLAGS = (
    "--headless=new",
    "--no-sandbox",  # root may not start one, and the pages are ours
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--hide-scrollbars",
    "--force-device-scale-factor=1",
    "--remote-debugging-pipe",
)
KEYS = {"Tab": 9, "Enter": 13, " ": 32, "ArrowDown": 40}  # key -> its code in Windows' numbering


class BrowserError(Exception):
    """The browser refused a command, a script threw, or no answer came in time."""


def chromium() -> str:
    """Path of Chromium; the test is skipped where none is installed."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path
    pytest.skip("no browser looks at the pages: Chromium is not installed (Debian: apt-get install chromium)")


class Page:
    """One page: it is opened, resized, read by scripts, and what it asks for and complains about is collected."""

    def __init__(self, write: int, read: int) -> None:
        self._write, self._read = write, read
        self._buffer, self._number, self._session = b"", 0, ""
        self.requests: list[str] = []  # every URL but data URIs
        self.complaints: list[str] = []  # exceptions of scripts, and what the console has at level error
        target = self.command("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.command("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.command(f"{domain}.enable")

    def command(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send one command and return its result.

        Raises:
            BrowserError: the browser refused it, or didn't answer.
        """
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        number = self._number
        answer = self._until(lambda m: m.get("id") == number, method)
        if "error" in answer:
            raise BrowserError(f"{method}: {answer['error']['message']}")
        return answer["result"]

    def _until(self, wanted_message: Callable[[dict[str, Any]], bool], what: str) -> dict[str, Any]:
        deadline = time.monotonic() + TIMEOUT
        while True:
            while b"\0" in self._buffer:
                raw, self._buffer = self._buffer.split(b"\0", 1)
                message = json.loads(raw)
                self._note(message)
                if wanted_message(message):
                    return message
            ready, _, _ = select.select([self._read], [], [], max(0.0, deadline - time.monotonic()))
            block = os.read(self._read, 1 << 20) if ready else b""
            if not block:
                raise BrowserError(f"{what}: no answer from Chromium")
            self._buffer += block

    def _note(self, message: dict[str, Any]) -> None:
        method, parameters = message.get("method"), message.get("params", {})
        if method == "Network.requestWillBeSent" and not parameters["request"]["url"].startswith("data:"):
            self.requests.append(parameters["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            details = parameters["exceptionDetails"]
            self.complaints.append(details.get("exception", {}).get("description", details["text"]))
        elif method == "Log.entryAdded" and parameters["entry"]["level"] == "error":
            self.complaints.append(f"{parameters['entry']['text']} {parameters['entry'].get('url', '')}")

    def open(self, url: str) -> None:
        """Load a page and wait for its load event."""
        self.requests.clear()
        self.complaints.clear()
        self.command("Page.navigate", url=url)
        self._until(lambda m: m.get("method") == "Page.loadEventFired", url)

    def window(self, width: int, height: int = 1080) -> None:
        """Size of the viewport in CSS pixels."""
        self.command(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )

    def colour_scheme(self, scheme: str) -> None:
        """What `prefers-color-scheme` says: `light` or `dark`."""
        self.command("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def script(self, expression: str) -> Any:
        """Value of a JavaScript expression; promises are awaited."""
        answer = self.command("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            details = answer["exceptionDetails"]
            raise BrowserError(details.get("exception", {}).get("description", details["text"]))
        return answer["result"].get("value")

    def press(self, key: str) -> None:
        """Press and release a key of `KEYS`, as the keyboard does."""
        text = {"Enter": "\r", " ": " "}.get(key, "")
        event = {"key": key, "code": "Space" if key == " " else key, "windowsVirtualKeyCode": KEYS[key]}
        self.command("Input.dispatchKeyEvent", type="keyDown", text=text, **event)
        self.command("Input.dispatchKeyEvent", type="keyUp", **event)

    def spoken(self) -> list[tuple[str, str]]:
        """Role and name of every node that a screen reader is given, in order."""
        nodes = self.command("Accessibility.getFullAXTree")["nodes"]
        seen = [node for node in nodes if not node["ignored"]]
        return [(n["role"]["value"], n.get("name", {}).get("value", "")) for n in seen]

    def screenshot(self, file: Path, entire: bool = False) -> None:
        """Write a PNG of the window, or of the entire page."""
        picture = self.command("Page.captureScreenshot", format="png", captureBeyondViewport=entire)
        file.write_bytes(base64.b64decode(picture["data"]))


@contextmanager
def browser(profile: Path) -> Iterator[Page]:
    """A running Chromium with one page; `profile` is the folder for what it writes. It ends with the block."""
    path = chromium()
    (to_read, to_write), (from_read, from_write) = os.pipe(), os.pipe()
    # The browser reads descriptor 3 and writes descriptor 4; above 9 the pipes can't be one of them.
    inherited = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (to_read, from_write)]
    process = subprocess.Popen(
        ["bash", "-c", f'exec 3<&{inherited[0]} 4>&{inherited[1]} "$@"', "bash", path, *FLAGS,
         f"--user-data-dir={profile}"],
        pass_fds=inherited,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "HOME": str(profile)},
    )  # fmt: skip
    for end in (to_read, from_write, *inherited):
        os.close(end)
    try:
        yield Page(to_write, from_read)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        os.close(to_write)
        os.close(from_read)

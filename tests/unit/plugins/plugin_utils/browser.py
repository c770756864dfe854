# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A page in headless Chromium, as a person sees it: what the console says, what is asked of whom, what was drawn, a picture.

It speaks the DevTools protocol (https://chromedevtools.github.io/devtools-protocol/) over the pipe of --remote-debugging-pipe:
JSON messages that end in a zero byte, to the browser on descriptor 3 and from it on descriptor 4.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
#: Seconds that the browser has for an answer, on a machine that does much else.
PATIENCE = 60.0
#: Puts two pipes where the browser looks for them, and becomes it. A shell's redirections know one digit only.
PLACE = """import fcntl, os, sys
to, of = (fcntl.fcntl(int(n), fcntl.F_DUPFD, 10) for n in sys.argv[1:3])
os.dup2(to, 3), os.dup2(of, 4)
os.execv(sys.argv[3], sys.argv[3:])"""


def program() -> str | None:
    return next((found for name in NAMES if (found := shutil.which(name))), None)


needs_browser = pytest.mark.skipif(program() is None, reason="Chromium is not installed: apt-get install chromium")


class Refused(Exception):
    """The browser's answer is an error."""


class Browser:
    """One tab. C(said) has what its console and its log have told, C(asked) the addresses of all requests."""

    def __init__(self, to: int, of: int) -> None:
        self._to, self._of = to, of
        self._rest = b""
        self._number = 0
        self._asked_for = ""
        self._patience = PATIENCE
        self._session: str | None = None
        self.said: list[str] = []
        self.asked: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for part in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{part}.enable")
        self.call("Page.bringToFront")

    # -- the wire -----------------------------------------------------------------------------------------------------

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Ask, and wait for the answer; events on the way are taken in."""
        self._number += 1
        self._asked_for = method
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._take()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise Refused(f"{method}: {answer['error']}")
                result: dict[str, Any] = answer["result"]
                return result

    def _take(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            ready, _to, _wrong = select.select([self._of], [], [], self._patience)
            if not ready:
                raise TimeoutError(f"the browser does not answer to {self._asked_for}")
            read = os.read(self._of, 1 << 20)
            assert read, "the browser has gone"
            self._rest += read
        text, _zero, self._rest = self._rest.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        params = message.get("params", {})
        match message.get("method"):
            case "Runtime.consoleAPICalled":
                self.said.append(f"{params['type']}: {params['args']}")
            case "Runtime.exceptionThrown":
                self.said.append(f"exception: {params['exceptionDetails']}")
            case "Log.entryAdded":
                self.said.append(f"{params['entry']['level']}: {params['entry']['text']}")
            case "Network.requestWillBeSent":
                self.asked.append(params["request"]["url"])
        return message

    # -- what tests do ------------------------------------------------------------------------------------------------

    def open(self, page: Path) -> None:
        """Show a file, until it is loaded and laid out."""
        self.close()
        self._go(page.as_uri(), "file:")
        self.evaluate("document.body?.getBoundingClientRect().height")

    def close(self) -> None:
        """Show nothing."""
        self._go("about:blank", "about:")

    def _go(self, url: str, scheme: str) -> None:
        """By asking: whether an event comes for the first empty page depends on how busy the machine is."""
        self.call("Page.navigate", url=url)
        end = time.monotonic() + PATIENCE
        while self.evaluate("location.protocol + document.readyState") != f"{scheme}complete":
            assert time.monotonic() < end, f"not loaded: {url}"
            time.sleep(0.02)  # between two questions

    def evaluate(self, script: str) -> Any:
        """The value of an expression in the page."""
        for once_more in (True, True, True, False):
            try:
                answer = self.call("Runtime.evaluate", expression=script, returnByValue=True)
                break
            except Refused:
                if not once_more:
                    raise  # else the page was just reloading itself
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def look(self, width: int, height: int = 900, dark: bool = False, paper: bool = False) -> None:
        """What it is seen on: a screen of so many pixels, in light or dark, or paper."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", media="print" if paper else "screen", features=[scheme])

    def picture(self, path: Path, most: int = 6000) -> None:
        """The whole page as a PNG file, down to C(most) pixels."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        self.call("Emulation.setDeviceMetricsOverride", width=round(size["width"]), height=most, deviceScaleFactor=1, mobile=False)
        height = self.evaluate("document.body.getBoundingClientRect().height")
        clip = {"x": 0, "y": 0, "width": size["width"], "height": min(height, most), "scale": 1}
        path.parent.mkdir(parents=True, exist_ok=True)
        self._patience = PATIENCE / 3
        try:
            shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
            path.write_bytes(base64.b64decode(shot["data"]))
        except TimeoutError:
            pass  # it is for people; on a machine that is busy enough no frame comes, and the tests do not need it
        finally:
            self._patience = PATIENCE


@contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """A browser of our own, with an empty profile and nothing that it does by itself."""
    found = program()
    assert found is not None
    to_it, from_us = os.pipe()
    to_us, from_it = os.pipe()
    options = ["--headless=new", "--remote-debugging-pipe", "--no-first-run", "--disable-gpu", "--hide-scrollbars", "--disable-extensions"]
    options += ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"]
    options += [f"--user-data-dir={profile}", "--disable-crash-reporter"]
    # A tab that it believes nobody looks at gets no frames, and pictures wait for one.
    options += ["--disable-renderer-backgrounding", "--disable-backgrounding-occluded-windows", "--disable-background-timer-throttling"]
    if os.geteuid() == 0:
        options.append("--no-sandbox")  # it refuses to run as root otherwise; the pages are our own
    command = [sys.executable, "-c", PLACE, str(to_it), str(from_it), found, *options]
    with subprocess.Popen(command, pass_fds=(to_it, from_it), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        os.close(to_it)
        os.close(from_it)
        try:
            yield Browser(from_us, to_us)
        finally:
            os.close(from_us)
            process.terminate()
            try:
                process.wait(5)  # its profile is nobody's: it need not take leave
            except subprocess.TimeoutExpired:
                process.kill()
            os.close(to_us)

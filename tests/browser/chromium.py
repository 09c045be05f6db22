"""A headless Chromium, driven over the DevTools protocol."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import websocket

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_START_S = 30.0
_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--remote-debugging-port=0",
    "--remote-allow-origins=*",
    "--no-first-run",
    # A test needs nothing from outside, so nothing may be asked for.
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@dataclass
class Page:
    """One page; `problems` are its console errors and exceptions so far."""

    socket: websocket.WebSocket
    problems: list[str] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command and wait for its answer."""
        number = next(self._numbers)
        self.socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            said = json.loads(self.socket.recv())
            if said.get("id") == number:
                assert "error" not in said, said
                return dict(said["result"])
            self._note(said)

    def _note(self, said: dict[str, Any]) -> None:
        method, params = said.get("method"), said.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.problems.append(json.dumps(params)[:500])
        if method == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.problems.append(params["entry"]["text"])

    def js(self, expression: str) -> Any:
        """The value of an expression in the page."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def show(self, path: Path, width: int, dark: bool) -> None:
        """Open a report at a width, in a theme, and wait until its plots are drawn."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False
        )
        theme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[theme])
        self.call("Page.navigate", url=path.resolve().as_uri())
        ready = "document.readyState == 'complete' ? r(1) : addEventListener('load', () => r(1))"
        self.js(f"new Promise(r => {ready})")
        self.until("document.documentElement.dataset.drawn == 'yes'")

    def until(self, condition: str) -> None:
        """Wait for a condition in the page; fails after 20 s."""
        step = f"if ({condition}) r(true); else if (Date.now() > end) r(false); else setTimeout(step, 30)"
        wait = f"const end = Date.now() + 20000, step = () => {{ {step}; }}; step();"
        assert self.js(f"new Promise(r => {{ {wait} }})"), condition

    def box(self, element: str) -> list[float]:
        """[x, y, width, height] of an element (an expression), once it is in sight."""
        place = "const b = e.getBoundingClientRect(); return [b.x, b.y, b.width, b.height]"
        found = self.js(
            f"(() => {{ const e = {element}; e.scrollIntoView({{block: 'center'}}); {place}; }})()"
        )
        return [float(number) for number in found]

    def click(self, selector: str) -> None:
        """A real click in the middle of the first element that matches."""
        x, y, width, height = self.box(f"document.querySelector({json.dumps(selector)})")
        self.drag((x + width / 2, y + height / 2), (x + width / 2, y + height / 2))

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """Press at one place, move, and let go at the other."""
        for kind, (x, y), buttons in (
            ("mouseMoved", start, 0),
            ("mousePressed", start, 1),
            ("mouseMoved", end, 1),
            ("mouseReleased", end, 0),
        ):
            self.call(
                "Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=buttons, clickCount=1
            )

    def picture(self, path: Path) -> None:
        """The whole page as a PNG."""
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))


@contextlib.contextmanager
def chromium(profile: Path) -> Iterator[Page]:
    """A browser with one page, ended with the block."""
    assert PROGRAM is not None
    flags = [*_FLAGS, f"--user-data-dir={profile}", "about:blank"]
    with subprocess.Popen([PROGRAM, *flags], stderr=subprocess.DEVNULL) as browser:
        try:
            socket = websocket.create_connection(_page_url(profile), timeout=60)
            page = Page(socket)
            for domain in ("Page", "Runtime", "Log"):
                page.call(f"{domain}.enable")
            yield page
            socket.close()
        finally:
            browser.terminate()


def _page_url(profile: Path) -> str:
    """The page's own socket, once the browser has said on which port it listens."""
    port_file, deadline = profile / "DevToolsActivePort", time.monotonic() + _START_S
    while not (port_file.exists() and port_file.read_text().count("\n")):
        assert time.monotonic() < deadline, "Chromium did not start"
        time.sleep(0.05)
    port = int(port_file.read_text().splitlines()[0])
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list") as answer:
        pages = [item for item in json.load(answer) if item["type"] == "page"]
    return str(pages[0]["webSocketDebuggerUrl"])

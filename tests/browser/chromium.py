"""Debian's Chromium and its driver, without a window; selenium is given both, so nothing is downloaded."""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.actions.action_builder import ActionBuilder
from selenium.webdriver.support.wait import WebDriverWait

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
WAIT_S = 20.0
_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    # A test needs nothing from outside, so nothing may be asked for.
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


class Page:
    """One page of a browser, with what tests do in it."""

    def __init__(self, driver: Chrome) -> None:
        self.driver = driver

    def js(self, expression: str) -> Any:
        """The value of an expression in the page."""
        return self.driver.execute_script(f"return ({expression})")

    def problems(self) -> list[str]:
        """Console errors and uncaught exceptions since this was last asked."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]

    def show(self, path: Path, width: int, dark: bool) -> None:
        """Open a report at a width, in a theme, and wait until its plots are drawn. Earlier problems go."""
        self.open(path.resolve().as_uri(), width, dark)
        self.until("document.documentElement.dataset.drawn == 'yes'")

    def open(self, url: str, width: int, dark: bool) -> None:
        """Open an address at a width, in a theme. Earlier problems go."""
        self._devtools(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False
        )
        theme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._devtools("Emulation.setEmulatedMedia", features=[theme])
        self.problems()
        self.driver.get(url)

    def until(self, condition: str, limit_s: float = WAIT_S) -> None:
        """Wait for a condition in the page; fails after 20 s, or the limit given."""
        WebDriverWait(self.driver, limit_s, poll_frequency=0.03).until(
            lambda _: self.js(f"Boolean({condition})"), condition
        )

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
        """Press at one place of the window, move, and let go at the other."""
        actions = ActionBuilder(self.driver)
        pointer = actions.pointer_action
        pointer.move_to_location(*start).pointer_down().move_to_location(*end).pointer_up()
        actions.perform()

    def point_at(self, x: float, y: float) -> None:
        """Move the pointer to a place of the window."""
        actions = ActionBuilder(self.driver)
        actions.pointer_action.move_to_location(x, y)
        actions.perform()

    def picture(self, path: Path) -> None:
        """The whole page as a PNG."""
        shot = self._devtools("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    def _devtools(self, command: str, **parameters: Any) -> dict[str, Any]:
        return dict(self.driver.execute_cdp_cmd(command, parameters))


@contextlib.contextmanager
def chromium(profile: Path) -> Iterator[Page]:
    """A browser with a fresh profile and one page, ended with the block."""
    options = ChromeOptions()
    assert PROGRAM is not None
    options.binary_location = PROGRAM
    for flag in (*_FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = Chrome(options=options, service=Service(DRIVER))
    try:
        yield Page(driver)
    finally:
        driver.quit()

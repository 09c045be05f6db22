"""Locust's page in a real browser: from the form over live numbers to the stop, without an error."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser.chromium import DRIVER, PROGRAM, Page, chromium
from tests.runs.conftest import free_port, launcher, start_server, wait_until

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        None in (PROGRAM, DRIVER), reason="no Chromium or driver: `make test-browser` installs them"
    ),
]
VIEW = "document.getElementById('turnbench-conversations')"
ROWS = f"[...{VIEW}.querySelectorAll('tbody tr')].map(r => [...r.cells].map(c => c.textContent))"
BUTTON = "[...document.querySelectorAll('button')].find(b => b.textContent.trim().toLowerCase() == '{}')"


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    with chromium(tmp_path / "profile") as opened:
        yield opened


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """The page of a Locust whose host is an emulator: 0.1 s to the first of 100 tokens, 50 a second."""
    server = start_server(tmp_path / "truth.jsonl", ("--ttft", "100ms", "--itl", "20ms", "--tokens", "100"))
    port = free_port()
    try:
        with launcher(tmp_path) as locust:
            locust("--web-port", str(port), "-H", server.url, "--warmup", "1s", where=tmp_path / "web")
            wait_until(lambda: is_open(port), "Locust's page")
            yield f"http://127.0.0.1:{port}"
    finally:
        server.stop()


def is_open(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


def choose(page: Page, element: str, value: str) -> None:
    changed = f"e.value = '{value}'; e.dispatchEvent(new Event('change', {{bubbles: true}}));"
    page.js(f"(e => {{ {changed} }})({element})")


def test_from_the_form_over_live_numbers_to_the_report(page: Page, url: str, tmp_path: Path) -> None:
    page.open(url, 1280, False)
    page.until("document.querySelector('.tb-form')")
    page.until("document.querySelector('.tb-form').textContent.includes('The host serves')")
    page.picture(tmp_path / "form-light.png")
    choose(page, "document.getElementById('tb-scenario')", "work")
    form = page.js("document.querySelector('.tb-form').textContent")
    assert "A working day" in form
    assert "Tasks: chat, extract, summarise" in form
    assert page.js("document.querySelector('[name=scenario]').value") == "work"
    page.js("(e => { e.value = '6'; })(document.querySelector('[name=userCount]'))")

    page.js(BUTTON.format("start") + ".click()")
    page.until(f"{VIEW} && {VIEW}.textContent.includes('measuring') && {ROWS}.length > 0", 90)
    task, turns, unanswered, ttft_p50, _, ttg_p50, *_ = page.js(ROWS)[0]
    assert task in ("chat", "extract", "summarise")
    assert int(turns) > 0
    assert int(unanswered) == 0
    assert float(ttft_p50.removesuffix(" s")) >= 0.1
    assert float(ttg_p50.removesuffix(" s")) >= 2.0
    assert "EMULATED" in page.js(f"{VIEW}.textContent")
    page.until(f"{VIEW}.querySelector('pre').textContent.length > 20", 60)
    page.picture(tmp_path / "live-light.png")
    tabs = page.js(
        "[...document.querySelectorAll('[role=tab]')].filter(t => t.offsetParent).map(t => t.textContent)"
    )
    assert {"Statistics", "Conversations"} <= set(tabs)
    assert not {"Charts", "Current Ratio", "Download Data"} & set(tabs)

    page.js("[...document.querySelectorAll('[role=tab]')].find(t => t.textContent == 'Statistics').click()")
    rows = "[...document.querySelectorAll('.MuiTable-root tbody tr')]"
    page.until(f"{rows}.length > 0")
    names = page.js(f"{rows}.map(r => r.cells[0].textContent + r.cells[1].textContent)")
    assert set(names) <= {"TTGchat", "TTGextract", "TTGsummarise"}
    assert page.problems() == []

    page.open(url, 1280, True)
    page.until(f"{VIEW} && {ROWS}.length > 0")
    assert page.js("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
    page.picture(tmp_path / "live-dark.png")
    page.open(url, 400, True)
    page.until(f"{VIEW} && {ROWS}.length > 0")
    page.picture(tmp_path / "live-narrow.png")
    page.open(url, 1280, False)
    page.until(BUTTON.format("stop"))
    page.js(BUTTON.format("stop") + ".click()")
    page.until(f"{VIEW} && {VIEW}.querySelector('a')", 60)
    assert page.problems() == []
    page.open(url + "/turnbench/report", 1280, False)
    page.until("document.querySelector('.stamp')")
    assert page.problems() == []

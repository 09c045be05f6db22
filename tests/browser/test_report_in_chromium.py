"""The report in a real browser: both widths, both themes, hostile names, sorting."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from analysis.pipeline import analyse
from tests.analysis.conftest import MadeRun, level, turn
from tests.browser.chromium import PROGRAM, Page, chromium

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(PROGRAM is None, reason="no Chromium here; `make test-browser` says how to get one"),
]
HOSTILE = "<img src=x onerror=document.title='owned'>"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with chromium(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of three models, one with a hostile name, at two loads."""
    path = tmp_path_factory.mktemp("sweep")
    cells = []
    for number, name in enumerate(("terse", "talker", HOSTILE)):
        levels = [
            level(n, start_s=n * 100, window_s=(n * 100, n * 100 + 60), end_s=n * 100 + 90, users=4**n)
            for n in range(2)
        ]
        turns = [
            turn(
                1000 * n + k,
                t,
                sent_s=n * 100 + k + t / 4,
                model=name,
                task=("chat", "</script><script>document.title='owned'</script>")[k % 2],
                ttft_ms=80 + 10 * t + k % 7,
                gap_ms=20 - 5 * number,
                events=10 + 40 * number,
                error=HOSTILE,
            )
            for n in range(2)
            for k in range(50)
            for t in (1, 2, 3)
        ]
        MadeRun(path / f"m{number}", turns, levels).write()
        cells.append({"dir": f"m{number}", "model": name, "status": "finished"})
    (path / "sweep.json").write_text(
        json.dumps({"format": "turnbench-sweep/1", "name": HOSTILE, "cells": cells})
    )
    return analyse(path).report


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1280, 400])
def test_the_report_opens_without_an_error_and_without_scrolling_sideways(
    page: Page, report: Path, width: int, dark: bool, tmp_path: Path
) -> None:
    page.problems.clear()
    page.show(report, width, dark)
    assert page.js("document.querySelectorAll('.plot .main-svg').length") > 3
    assert page.js("document.documentElement.scrollWidth") <= width
    paper = page.js("getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(20, 23, 26)") is dark
    assert page.problems == []
    page.picture(tmp_path / f"{width}-{'dark' if dark else 'light'}.png")


def test_no_script_runs_from_a_model_task_or_run_name(page: Page, report: Path) -> None:
    page.show(report, 1280, False)
    assert "owned" not in page.js("document.title").replace("document.title='owned'", "")
    assert page.js("document.querySelectorAll('img[src=x]').length") == 0


def test_a_click_on_a_header_sorts_by_its_numbers_and_again_turns_it_round(page: Page, report: Path) -> None:
    page.show(report, 1280, False)
    column = (
        "[...document.querySelectorAll('table.headline tbody tr')].map(r => Number(r.cells[7].textContent))"
    )
    click = "document.querySelectorAll('table.headline thead button')[7].click()"
    page.js(click)
    rising = page.js(column)
    page.js(click)
    assert rising == sorted(rising)
    assert page.js(column) == rising[::-1]
    assert len(set(rising)) > 1


def test_a_click_on_the_legend_hides_a_model(page: Page, report: Path) -> None:
    page.show(report, 1280, False)
    box = page.js(
        "(() => { const t = document.querySelector('.legendtoggle'); t.scrollIntoView({block: 'center'});"
        " const b = t.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2]; })()"
    )
    for kind in ("mousePressed", "mouseReleased"):
        page.call("Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], button="left", clickCount=1)
    hidden = (
        "new Promise(r => setTimeout(() => r([...document.querySelectorAll('.plot')]"
        ".flatMap(p => p.data).filter(t => t.visible === 'legendonly').length), 800))"
    )
    assert page.js(hidden) == 1
    assert page.problems == []

"""The report in a real browser: both widths, both themes, hostile names, and what can be clicked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from analysis.pipeline import analyse
from tests.analysis.conftest import START_NS, MadeRun, S, level, turn
from tests.browser.chromium import DRIVER, PROGRAM, Page, chromium
from turnbench.formats import TurnRecord

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        None in (PROGRAM, DRIVER), reason="no Chromium or driver: `make test-browser` installs them"
    ),
]
HOSTILE = "<img src=x onerror=document.title='owned'>"
MODELS = ("terse", "talker", HOSTILE, "steady", "late")
TASKS = ("chat", "</script><script>document.title='owned'</script>")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with chromium(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of five emulated models, one with a hostile name, at two loads."""
    path = tmp_path_factory.mktemp("sweep")
    cells = []
    for number, name in enumerate(MODELS):
        levels = [
            level(n, start_s=n * 100, window_s=(n * 100, n * 100 + 60), end_s=n * 100 + 90, users=4**n)
            for n in range(2)
        ]
        manifest = {"emulated": True, "server": {"name": HOSTILE}, "labels": {HOSTILE: HOSTILE}}
        folder = MadeRun(path / f"m{number}", turns_of(name, number), levels, manifest=manifest).write()
        lines = [
            {"t_ns": START_NS + k * S, "vllm:num_requests_running": k % 5, "vllm:kv_cache_usage_perc": 0.3}
            for k in range(190)
        ]
        (folder / "server.jsonl").write_text("\n".join(map(json.dumps, lines)))
        (folder / "scenario.yaml").write_text(HOSTILE)
        cells.append({"dir": folder.name, "model": name, "status": "finished"})
    text = json.dumps({"format": "turnbench-sweep/1", "name": HOSTILE, "cells": cells})
    (path / "sweep.json").write_text(text)
    return analyse(path).report


def turns_of(name: str, number: int) -> list[TurnRecord]:
    return [
        turn(
            1000 * n + k,
            t,
            sent_s=n * 100 + k + t / 4,
            model=name,
            task=TASKS[k % 2],
            ttft_ms=80 + 10 * t + k % 7,
            gap_ms=20 - 3 * number,
            events=10 + 40 * number,
            error=HOSTILE,
            prompt_tokens=60 * 2**t,
            outcome="http_5xx" if k == 7 else "ok",
        )
        for n in range(2)
        for k in range(50)
        for t in (1, 2, 3)
    ]


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1280, 400])
def test_the_report_opens_without_an_error_and_without_scrolling_sideways(
    page: Page, report: Path, width: int, dark: bool, tmp_path: Path
) -> None:
    page.show(report, width, dark)
    assert page.js("document.querySelectorAll('.plot .main-svg').length") > 10
    assert page.js("document.documentElement.scrollWidth") <= width
    paper = page.js("getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(20, 23, 26)") is dark
    assert page.problems() == []
    page.picture(tmp_path / f"{width}-{'dark' if dark else 'light'}.png")


@pytest.mark.parametrize("width", [1280, 400])
def test_the_first_screen_says_who_waits_how_long_and_that_it_is_emulated(
    page: Page, report: Path, width: int
) -> None:
    page.show(report, width, False)
    below = "Math.max(...[...document.querySelectorAll('{}')].map(e => e.getBoundingClientRect().bottom))"
    assert page.js(below.format(".stamp")) < 100
    assert page.js(below.format(".rank")) < 900
    assert page.js(below.format("table.glance")) < (900 if width > 1000 else 1300)


def test_every_group_of_plots_is_drawn_and_each_plot_says_emulated(page: Page, report: Path) -> None:
    page.show(report, 1280, False)
    groups = page.js("[...document.querySelectorAll('#plots section')].map(s => s.className)")
    assert groups == [
        f"group-{name}" for name in ("wait", "attained", "load", "growth", "time", "raster", "client")
    ]
    unsaid = (
        "[...document.querySelectorAll('.plot')].filter(p => p.offsetParent && "
        "![...p.querySelectorAll('.annotation-text')].some(t => t.textContent == 'EMULATED')).length"
    )
    assert page.js(unsaid) == 0


def test_no_script_runs_from_a_model_task_run_or_server(page: Page, report: Path) -> None:
    page.show(report, 1280, False)
    page.js("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert "owned" not in page.js("document.title").replace("document.title='owned'", "")
    assert page.js("document.querySelectorAll('img[src=x]').length") == 0
    assert page.js("document.querySelectorAll('script').length") == 4
    assert page.problems() == []


def test_a_click_on_a_header_sorts_by_its_numbers_and_again_turns_it_round(page: Page, report: Path) -> None:
    page.show(report, 1280, False)
    column = (
        "[...document.querySelectorAll('table.headline tbody tr')].map(r => Number(r.cells[7].textContent))"
    )
    page.click("table.headline th:nth-child(8) .sort")
    rising = page.js(column)
    page.click("table.headline th:nth-child(8) .sort")
    assert rising == sorted(rising)
    assert page.js(column) == rising[::-1]
    assert len(set(rising)) > 1


def test_every_table_with_a_head_sorts_by_each_of_its_columns(page: Page, report: Path) -> None:
    page.show(report, 1280, False)
    page.problems()
    page.js("document.querySelectorAll('details').forEach(d => d.open = true)")
    clicked = page.js("[...document.querySelectorAll('th .sort')].map(b => b.click()).length")
    assert clicked > 60
    assert page.js("document.querySelectorAll('th[aria-sort]').length") > 8
    assert page.problems() == []


def test_a_table_is_copied_for_a_spreadsheet_and_for_a_pull_request(page: Page, report: Path) -> None:
    page.show(report, 1280, False)
    page.js("navigator.clipboard.writeText = async (text) => { window.copied = text; }")
    rows = page.js("document.querySelectorAll('table.glance tr').length")
    page.click(".copy button:nth-child(1)")
    page.until("window.copied !== undefined")
    tabbed = page.js("window.copied").splitlines()
    assert len(tabbed) == rows
    assert {line.count("\t") for line in tabbed} == {tabbed[0].count("\t")}
    assert not any(cell.startswith(("=", "+", "@")) for line in tabbed for cell in line.split("\t"))
    page.click(".copy button:nth-child(2)")
    page.until("window.copied.startsWith('|')")
    marked = page.js("window.copied").splitlines()
    assert len(marked) == rows + 1
    assert set(marked[1]) == {"|", "-"}
    assert not any("<" in line.replace("\\<", "") for line in marked)


def test_a_click_on_a_question_mark_tells_what_a_number_is(page: Page, report: Path) -> None:
    page.show(report, 1280, False)
    shown = "[...document.querySelectorAll('.meaning:popover-open')].map(m => m.textContent)"
    assert page.js(shown) == []
    page.click("table.headline th:nth-child(6) .def")
    (text,) = page.js(shown)
    assert text.startswith("TTG")
    assert "last piece of the answer" in text
    page.click("h1")
    assert page.js(shown) == []


def test_the_choice_of_a_level_shows_its_figure_and_hides_the_others(page: Page, report: Path) -> None:
    page.show(report, 1280, False)
    page.problems()
    drawn = "[...document.querySelectorAll('.group-time .plot')].filter(p => p.offsetParent).map(p => p.id)"
    before = page.js(drawn)
    menu = "document.querySelector('.group-time select')"
    assert page.js(f"{menu}.options.length") == 10
    for group in ("time", "attained", "raster"):
        page.js(
            f"(() => {{ const m = document.querySelector('.group-{group} select'); m.selectedIndex = 2;"
            " m.dispatchEvent(new Event('change')); })()"
        )
    page.until(f"document.getElementById({drawn}[0]).querySelector('.main-svg')")
    after = page.js(drawn)
    assert len(before) == len(after) == 1
    assert before != after
    assert page.problems() == []


def test_a_click_on_the_legend_hides_a_model(page: Page, report: Path) -> None:
    page.show(report, 1280, False)
    page.click(".legendtoggle")
    traces = "[...document.querySelectorAll('.plot')].flatMap(p => p.data || [])"
    page.until(f"{traces}.filter(t => t.visible === 'legendonly').length == 1")
    assert page.problems() == []


def test_a_drag_over_a_plot_zooms_and_a_pointer_over_it_tells_numbers(page: Page, report: Path) -> None:
    page.show(report, 1280, False)
    plot = "document.querySelector('.group-client .plot')"
    box = page.box(f"{plot}.querySelector('.nsewdrag')")
    at = [(box[0] + box[2] * part, box[1] + box[3] / 2) for part in (0.3, 0.7)]
    before = page.js(f"{plot}.layout.xaxis.range")
    page.drag(at[0], at[1])
    page.until(f"{plot}.layout.xaxis.range[1] < {before[1]}")
    page.point_at(box[0] + box[2] / 2, box[1] + box[3] / 2)
    page.until(f"{plot}.querySelector('.hoverlayer').textContent.length > 0")
    assert page.problems() == []

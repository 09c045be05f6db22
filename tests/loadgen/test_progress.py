"""The line that shows how far a run is: plain in a file, kept up to date in a terminal."""

from __future__ import annotations

import io
import logging
import re
from types import SimpleNamespace
from typing import Any

import gevent
import pytest
from gevent.event import Event

from loadgen.control._progress import Progress
from loadgen.options._shape import Load
from loadgen.options._shapes import Levels, OpenSteps


class Screen(io.StringIO):
    """A file, or a terminal."""

    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


@pytest.fixture(autouse=True)
def _a_terminal_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"TERM": "xterm", "COLUMNS": "120", "NO_COLOR": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("FORCE_COLOR", raising=False)


def shown(screen: Any) -> Any:
    """What is shown of a level of two, which measures for 60 s; the second takes 70 s at least."""
    now = SimpleNamespace(now_ns=lambda: int(100e9))
    run: Any = SimpleNamespace(turns=5, failed=1, unanswered=1, timeline=now)
    progress = Progress(SimpleNamespace(user_count=3), run, screen)
    progress.level(1, "of 2", Load(users=16), 70.0)
    progress.phase("warm-up", int(105e9))
    progress.phase("measuring", int(160e9))
    run.turns, run.failed, run.unanswered = 317, 3, 7
    progress.phase("waiting for measured turns")
    progress.over()
    return screen.getvalue()


def plain(screen: str) -> str:
    """A line for each time that the terminal's was cleared, without its styles."""
    return re.sub(r"\x1b\[[0-9;]*m", "", screen.replace("\r\x1b[0K", "\n"))


def test_a_file_gets_two_plain_lines_a_level() -> None:
    assert shown(Screen(False)).splitlines() == [
        "level 1 of 2: 16 people, warm-up over, measuring for 1 min 0 s; at least 2 min 10 s left",
        "level 1 of 2: 16 people: over; 312 turns done, 2 failed, 4 given up",
    ]


def test_a_terminal_gets_one_line_kept_up_to_date() -> None:
    lines = plain(shown(Screen(True))).splitlines()
    assert [line for line in lines if line] == [
        "level 1 of 2: 16 people, 3 there; 0 turns done, 0 failed",
        "level 1 of 2: 16 people, warm-up 0 of 5 s; 0 turns done, 0 failed; at least 1 min 15 s left",
        "level 1 of 2: 16 people, measuring 0 of 1 min 0 s; 0 turns done, 0 failed; at least 2 min 10 s left",
        "level 1 of 2: 16 people, waiting for measured turns for 0 s; 312 turns done, 2 failed, 4 given up",
        "level 1 of 2: 16 people: over; 312 turns done, 2 failed, 4 given up",
    ]
    assert shown(Screen(True)).count("\n") == 1


def test_a_line_never_fills_a_narrow_terminal_since_it_could_not_be_cleared_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    lines = plain(shown(Screen(True))).splitlines()
    assert max(len(line) for line in lines[:-1]) == 59
    assert "level 1 of 2: 16 people, measuring 0 of 1 min 0 s; 0 turns…" in lines


def test_a_log_line_does_not_begin_where_the_line_of_the_level_ends() -> None:
    screen, ended = Screen(True), Event()
    run: Any = SimpleNamespace(turns=0, failed=0, unanswered=0, timeline=SimpleNamespace(now_ns=lambda: 0))
    progress = Progress(SimpleNamespace(user_count=3), run, screen)
    handler = logging.StreamHandler(screen)
    logging.getLogger().addHandler(handler)
    try:
        keeping = gevent.spawn(progress.keep, ended)
        gevent.sleep(0)
        progress.level(1, "of 2", Load(users=16), None)
        logging.getLogger("x").warning("something was found")
        ended.set()
        keeping.join()
    finally:
        logging.getLogger().removeHandler(handler)
    assert handler.filters == []
    assert "something was found" in plain(screen.getvalue()).splitlines()


def test_a_run_goes_on_when_nobody_reads_its_progress_any_more() -> None:
    class Gone(Screen):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    assert shown(Gone(True)) == ""


def test_the_least_time_left_counts_who_has_to_come_the_warm_up_and_the_window() -> None:
    levels = Levels(levels=[10, 200], hold_s=60.0, warmup_s=5.0)
    assert levels.rest_s(0) == 2 * 65 + 1 + 2
    assert levels.rest_s(1) == 65 + 2
    steps = OpenSteps(rates_per_s=[1.0, 2.0], hold_s=10.0)
    assert [str(load) for load in steps.loads()] == ["1 arrivals/s", "2 arrivals/s"]
    assert steps.rest_s(0) == 2 * 15

"""The panel that shows how a run stands: in a terminal kept up to date, elsewhere plain lines."""

from __future__ import annotations

import io
import logging
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gevent
import pytest
from gevent.event import Event

from loadgen.control._live import LiveClient, LiveSnapshot, LiveTask
from loadgen.control._progress import Progress, panel
from loadgen.control._state import RunState, WorkerState
from loadgen.options._shape import Load
from loadgen.options._shapes import Levels, OpenSteps
from turnbench.formats import Finding, LevelEntry, TurnRecord
from turnbench.formats.turn import encode
from turnbench.outcomes import FAILED

S = 1_000_000_000


class Screen(io.StringIO):
    """A file, or a terminal."""

    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


@pytest.fixture(autouse=True)
def _a_terminal_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"TERM": "xterm", "COLUMNS": "100", "LINES": "30", "NO_COLOR": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("FORCE_COLOR", raising=False)


class Disk:
    """A run's files, none of which is written."""

    path = Path("run-1")

    def __init__(self) -> None:
        self.manifest: Any = SimpleNamespace(
            levels=[], findings=[], emulated=False, endpoint=SimpleNamespace(model="m")
        )

    def append(self, kind: str, worker: int, line: bytes) -> None: ...


class Played:
    """A run whose clock is set by hand."""

    def __init__(self, screen: Any) -> None:
        self.now_s = 100.0
        prepared: Any = SimpleNamespace(
            scenario=SimpleNamespace(name="chat"),
            settings=SimpleNamespace(abort_errors=1.0),
            shape=SimpleNamespace(ends="time"),
        )
        clock: Any = SimpleNamespace(now_ns=lambda: int(self.now_s * S))
        disk: Any = Disk()
        self.run = RunState(prepared, disk, {}, timeline=clock)
        self.worker = WorkerState(0, "local")
        self.progress = Progress(SimpleNamespace(user_count=3), self.run, screen)
        self.turns = 0

    def level(self, number: int, shape: Levels) -> None:
        self.progress.level(number, shape, shape.loads()[number - 1])
        entry = LevelEntry(index=number - 1, users=16, start_ns=int(self.now_s * S))
        self.run.manifest.levels.append(entry)

    def measure(self, until_s: float) -> None:
        self.run.manifest.levels[-1].window_start_ns = int(self.now_s * S)
        self.progress.phase("measuring", int(until_s * S))

    def turn(self, ttft_ms: int, ttg_ms: int, outcome: Any = "ok", **more: Any) -> None:
        self.turns += 1
        record = TurnRecord(
            **{"conversation": self.turns, "turn": 1, "task": "chat", "model": "m", "run": "run-1"}
            | {"due_ns": int(self.now_s * S), "sent_ns": int(self.now_s * S), "outcome": outcome}
            | {"end_ns": int(self.now_s * S) + ttg_ms * 1_000_000, "output_tokens": 50}
            | {"event_us": [ttft_ms * 1000, ttg_ms * 1000]}
            | more
        )
        wrong = int(outcome != "ok")
        message = {"turns": 1, "answered": 1 - wrong, "failed": int(outcome in FAILED), "unanswered": wrong}
        self.run.take_batch(self.worker, message | {"lines": [("turns", encode(record))]})


def shown(screen: Any) -> Any:
    """What is shown of the first of two levels, which measures for 60 s."""
    played = Played(screen)
    played.level(1, Levels(levels=[16, 32], hold_s=60.0, warmup_s=5.0))
    played.progress.phase("warm-up", 105 * S)
    played.turn(900, 9000)
    played.now_s = 105.0
    played.measure(165.0)
    for ttft_ms in range(100, 120):
        played.turn(ttft_ms, 2000)
    played.turn(0, 0, "http_5xx", event_us=[], output_tokens=None, error="busy")
    played.turn(50, 0, "stalled", event_us=[50_000], error="silent")
    played.now_s = 145.0
    played.progress._draw()
    played.progress.over()
    return screen.getvalue()


def last_panel(screen: str) -> list[str]:
    """The panel drawn last, and what is below it, without styles."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", screen)
    return re.split(r"\r?(?:\x1b\[1A\x1b\[2K)+", text)[-2].splitlines()


def test_a_file_gets_plain_lines_a_level_with_each_task() -> None:
    assert shown(Screen(False)).splitlines() == [
        "level 1 of 2: 16 people, warm-up over, measuring for 1 min 0 s; "
        "at least 2 min 6 s left, about 2 min 24 s",
        "level 1 of 2: 16 people: over; 23 turns done, 1 failed, 1 given up",
        "  chat: TTFT p50 0.109 s, p95 0.118 s; TTG p50 2 s, p95 2 s; 22 turns measured, 2 unanswered",
    ]


def test_a_terminal_gets_a_panel_of_the_measured_turns_alone() -> None:
    lines = last_panel(shown(Screen(True)))
    text = " ".join(" ".join(lines).split())
    assert "level 1 of 2: 16 people, measuring 40 of 1 min 0 s" in text
    assert "chat 22 2 0.109 s 0.118 s 2 s 2 s 25 " in text
    assert "http_5xx 1, stalled 1 (last: silent)" in text
    assert "23 turns done, 1 failed, 1 given up" in text


def test_the_time_left_is_the_least_and_a_likely_one_with_drains_as_long_as_the_longest_answer() -> None:
    text = " ".join(last_panel(shown(Screen(True))))
    # 20 s of this window, 1 + 5 + 60 s of the next level; the longest answer took 9 s, in the warm-up.
    assert "at least 1 min 26 s left, about 1 min 44 s" in text


@pytest.mark.parametrize("width", [30, 60, 100, 200])
@pytest.mark.parametrize("tasks", [0, 1, 60])
def test_a_panel_is_never_wider_or_taller_than_the_terminal_since_it_could_not_be_erased_then(
    width: int, tasks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    rows = [
        LiveTask(
            task=f"task {number} \x1b[2J" * 4, turns=10**6, unanswered=1, ttft_p50_ms=1e4,
            ttft_p95_ms=None, ttg_p50_ms=1e6, ttg_p95_ms=1e6, tps=123.4, tokens_per_s=1e6,
        )
        for number in range(tasks)
    ]  # fmt: skip
    client = LiveClient(clock="kernel", lag_ms=1.0, cpu_share=0.5, workers=1)
    seen = LiveSnapshot(
        run="r", scenario="s", model="m", emulated=True, level="level 1 of 2: 16 people", phase="measuring",
        least_left_s=60.0, likely_left_s=70.0, tasks=rows, outcomes={"http_5xx": 2}, last_error="no\n" * 99,
        client=client,
    )  # fmt: skip
    played = Played(Screen(True))
    terminal = played.progress._terminal
    assert terminal is not None
    lines = terminal.render_lines(panel(seen, "5 turns done", width, 30), pad=False)
    assert len(lines) < 30
    assert max(sum(part.cell_length for part in line) for line in lines) <= width
    assert not any("\x1b" in part.text for line in lines for part in line)


def test_a_log_line_begins_where_the_panel_stood() -> None:
    screen, ended = Screen(True), Event()
    played = Played(screen)
    handler = logging.StreamHandler(screen)
    logging.getLogger().addHandler(handler)
    try:
        keeping = gevent.spawn(played.progress.keep, ended)
        gevent.sleep(0)
        played.level(1, Levels(levels=[16], hold_s=60.0))
        logging.getLogger("x").warning("something was found")
        ended.set()
        keeping.join()
    finally:
        logging.getLogger().removeHandler(handler)
    assert handler.filters == []
    drawn, _, after = screen.getvalue().partition("\r")
    lines = drawn.count("\n")
    assert lines > 3
    assert after == "\x1b[1A\x1b[2K" * lines + "something was found\n"


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
    assert str(Load(users=1)) == "1 person"


def test_what_a_server_says_in_a_finding_cannot_steer_the_terminal(caplog: pytest.LogCaptureFixture) -> None:
    run = Played(Screen(False)).run
    run.report(Finding("note", "unlisted_model", "it shows a\x1b]0;owned\x07\x1b[2J", "choose another"))
    (found,) = run.manifest.findings
    for shown in (found.what, caplog.text):
        assert "it shows a" in shown
        assert not re.search(r"[\x00-\x09\x0b-\x1f]", shown)

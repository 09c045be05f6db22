"""What a person sees while a run goes on: a panel with the level's numbers, kept up to date in a terminal.

Elsewhere plain lines are written: one when a level's window opens, one a minute, and one for each task when
the level is over. Of the time left they say the least, and the likely one once there are answers. Without
rich's live display, whose thread has no place among greenlets.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from typing import Any, NoReturn, TextIO

from gevent.event import Event
from rich import box
from rich.console import Console, Group, RenderableType
from rich.control import Control
from rich.panel import Panel
from rich.segment import ControlType
from rich.table import Table
from rich.text import Text

from loadgen.control._live import DRAINING, LevelView, LiveSnapshot, LiveTask
from loadgen.control._state import RunState
from loadgen.options._shape import Load, Shape
from turnbench.cleaning import printable
from turnbench.units import duration

_REDRAW_S = 0.5
_PLAIN_EVERY_S = 60.0
_WIDE = 90
"""Columns of a terminal that has room for every number of a task."""
_FRAME_LINES = 8
"""Lines of the panel that are no task's, and the one below it where the cursor stands."""


class _Terminal(Console):
    """rich's console, for which nobody reading any more is an error like others and not the end."""

    def on_broken_pipe(self) -> NoReturn:
        raise BrokenPipeError


class Progress:
    """Shows a run's levels on `out`, by default standard error."""

    def __init__(self, runner: Any, run: RunState, out: TextIO | None = None) -> None:
        self._runner = runner
        self._run = run
        self._out = out or sys.stderr
        terminal = _Terminal(file=self._out, highlight=False, soft_wrap=False)
        live = terminal.is_terminal and not terminal.is_dumb_terminal
        self._terminal = terminal if live else None
        self._drawn_lines = 0
        self._before = (0, 0, 0)

    def level(self, number: int, shape: Shape, load: Load) -> None:
        """A level begins."""
        later = max(len(shape.loads()) - number, 0)
        view = LevelView(number, shape.how_many, load, shape.rest_s(number), later)
        self._run.live.level = view
        self._before = (self._run.turns, self._run.failed, self._run.unanswered)
        self._draw()

    def phase(self, name: str, until_ns: int | None = None, goal: str = "") -> None:
        """The level is now in this phase, until then if that is known, or until it has reached its goal."""
        view = self._run.live.level
        if view is None:
            return
        view.phase, view.from_ns, view.until_ns = name, self._run.timeline.now_ns(), until_ns
        view.goal = goal
        if name == "measuring" and self._terminal is None:
            how_long = "until it is ended"
            if until_ns is not None:
                how_long = f"for {duration((until_ns - view.from_ns) / 1e9)}"
            how_long += f" or until {goal}" * bool(goal)
            left = _left(self._run.snapshot(self._runner.user_count))
            self._line(f"{view.title}, warm-up over, measuring {how_long}{left and '; ' + left}")
        self._draw()

    def known(self, how_well: str) -> None:
        """How well the number is known that the level waits for, and how long that will take."""
        if self._run.live.level is not None and how_well:
            self._run.live.level.phase = f"measuring ({how_well})"

    def over(self) -> None:
        """The level has ended."""
        view = self._run.live.level
        if view is None:
            return
        tasks = self._run.snapshot(self._runner.user_count).tasks
        self._run.live.level = None
        self._erase()
        self._line(f"{view.title}: over; {self._turns()}")
        for task in tasks:
            self._line(f"  {_in_words(task)}")

    def keep(self, ended: Event) -> None:
        """Until the run has ended: draw anew, and let log lines begin where the panel does.

        Without a terminal a line is written each minute instead.
        """
        handlers = logging.getLogger().handlers if self._terminal is not None else []
        for handler in handlers:
            handler.addFilter(self._make_room)
        try:
            while not ended.wait(_REDRAW_S if self._terminal is not None else _PLAIN_EVERY_S):
                view = self._run.live.level
                if self._terminal is not None:
                    self._draw()
                elif view is not None:
                    seen = self._run.snapshot(self._runner.user_count)
                    left = _left(seen)
                    self._line(f"{view.title}, {_phase(seen)}; {self._turns()}{left and '; ' + left}")
        finally:
            for handler in handlers:
                handler.removeFilter(self._make_room)

    def _make_room(self, record: logging.LogRecord) -> bool:
        """A log line is about to be written where the panel stands."""
        self._erase()
        return True

    def _turns(self) -> str:
        now = (self._run.turns, self._run.failed, self._run.unanswered)
        turns, failed, unanswered = (count - before for count, before in zip(now, self._before, strict=True))
        given_up = f", {unanswered - failed} given up" * (unanswered > failed)
        return f"{turns} turn{'' if turns == 1 else 's'} done, {failed} failed{given_up}"

    def _draw(self) -> None:
        if self._terminal is None or self._run.live.level is None:
            return
        seen = self._run.snapshot(self._runner.user_count)
        self._erase()
        self._print(panel(seen, self._turns(), self._terminal.width, self._terminal.height))

    def _erase(self) -> None:
        """Take the panel away; the cursor is then where it began."""
        lines, self._drawn_lines = self._drawn_lines, 0
        if self._terminal is not None and lines:
            up = [(ControlType.CURSOR_UP, 1), (ControlType.ERASE_IN_LINE, 2)] * lines
            try:
                self._terminal.control(Control(ControlType.CARRIAGE_RETURN, *up))
            except OSError:
                self._terminal = None

    def _print(self, shown: RenderableType) -> None:
        assert self._terminal is not None
        try:
            self._drawn_lines = len(self._terminal.render_lines(shown))
            self._terminal.print(shown)
        except OSError:
            self._terminal = None  # whoever read it is gone; the run is not

    def _line(self, text: str) -> None:
        try:
            if self._terminal is not None:
                self._terminal.print(Text(text), soft_wrap=True)
                return
            self._out.write(text + "\n")
            self._out.flush()
        except OSError:
            self._terminal = None


def panel(seen: LiveSnapshot, turns: str, width: int, height: int) -> RenderableType:
    """The level under way, no wider and no taller than the terminal: what is taller could not be erased."""
    title = f"{seen.level}, {_phase(seen)}" + (" · EMULATED" if seen.emulated else "")
    left = _left(seen)
    below = turns + (f" · {left}" if left else "") + (" · ends after this level" * seen.ends_after_level)
    room = height - _FRAME_LINES
    if room < 1:
        return _one_line(f"{title} · {below}")
    wide = width >= _WIDE
    table = Table(box=None, padding=(0, 1), expand=True, header_style="dim")
    table.add_column("task", no_wrap=True, overflow="ellipsis", ratio=1)
    heads = ["turns", "unanswered", "TTFT p50", "p95", "TTG p50", "p95", "tps", "tokens/s"]
    shown = range(len(heads)) if wide else (0, 1, 2, 4, 7)
    for index in shown:
        table.add_column(heads[index], justify="right", no_wrap=True)
    for task in seen.tasks[:room]:
        cells = list(_cells(task))
        style = "red" if task.unanswered else ""
        table.add_row(printable(task.task), *(Text(cells[i], style if i == 1 else "") for i in shown))
    if not seen.tasks:
        table.add_row("no turn has ended yet", *[""] * len(shown))
    elif len(seen.tasks) > room:
        table.add_row(f"and {len(seen.tasks) - room} tasks more", *[""] * len(shown))
    parts: list[RenderableType] = [table, Text(), _one_line(_client(seen))]
    wrong = {name: count for name, count in seen.outcomes.items() if name != "ok"}
    if wrong:
        said = "" if seen.last_error is None else f" (last: {printable(seen.last_error)})"
        parts.append(_one_line(", ".join(f"{name} {n}" for name, n in wrong.items()) + said, "red"))
    frame = "cyan" if seen.measured else "dim"
    return Panel(
        Group(*parts), title=Text(title, "bold"), subtitle=Text(below, "dim"), box=box.ROUNDED,
        border_style=frame, title_align="left", subtitle_align="left", width=min(width, 140),
    )  # fmt: skip


def _one_line(text: str, style: str = "") -> Text:
    return Text(" " + " ".join(text.split()), style, no_wrap=True, overflow="ellipsis")


def _phase(seen: LiveSnapshot) -> str:
    if seen.phase == "beginning":
        return f"{seen.people} there"
    if seen.phase_of_s is not None:
        return f"{seen.phase} {seen.phase_s:.0f} of {duration(seen.phase_of_s)}"
    return f"{seen.phase} for {duration(seen.phase_s)}"


def _left(seen: LiveSnapshot) -> str:
    if seen.least_left_s is None or seen.likely_left_s is None:
        return ""
    least = f"at least {duration(seen.least_left_s)} left"
    if seen.phase == DRAINING or seen.likely_left_s - seen.least_left_s >= 1:
        least += f", about {duration(seen.likely_left_s)}"
    return least


def _client(seen: LiveSnapshot) -> str:
    streams = f"{seen.in_flight} stream{'' if seen.in_flight == 1 else 's'} in flight"
    client = seen.client
    said = [f"clock {client.clock}"] if client.clock else []
    if client.lag_ms is not None:
        said.append(f"its event loop late by {client.lag_ms:.1f} ms at most in 10 s")
    if client.cpu_share is not None:
        said.append(f"{client.cpu_share:.0%} of a core")
    return f"{streams}; client: {', '.join(said) or 'nothing heard yet'}"


def _cells(task: LiveTask) -> Iterator[str]:
    yield str(task.turns)
    yield str(task.unanswered)
    for value_ms in (task.ttft_p50_ms, task.ttft_p95_ms, task.ttg_p50_ms, task.ttg_p95_ms):
        yield _seconds(value_ms)
    yield "–" if task.tps is None else f"{task.tps:.3g}"
    yield f"{task.tokens_per_s:,.0f}"


def _seconds(value_ms: float | None) -> str:
    return "–" if value_ms is None else f"{value_ms / 1e3:.3g} s"


def _in_words(task: LiveTask) -> str:
    return (
        f"{printable(task.task)}: TTFT p50 {_seconds(task.ttft_p50_ms)}, p95 {_seconds(task.ttft_p95_ms)}; "
        f"TTG p50 {_seconds(task.ttg_p50_ms)}, p95 {_seconds(task.ttg_p95_ms)}; "
        f"{task.turns} turns measured, {task.unanswered} unanswered"
    )

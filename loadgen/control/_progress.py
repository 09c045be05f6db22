"""What a person sees while a run goes on: one line a level.

In a terminal rich keeps it up to date in place, cut to the terminal's width; elsewhere two plain lines are
written for each level, one when its window opens and one when it is over. They say what has happened, and of
the time left only its least. Without rich's live display, whose thread has no place among greenlets.
"""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass
from typing import Any, NoReturn, TextIO

from gevent.event import Event
from rich.console import Console
from rich.control import Control
from rich.segment import ControlType
from rich.text import Text

from loadgen.control._state import RunState
from loadgen.options._shape import Load
from turnbench.units import duration

_REDRAW_S = 0.5
_CLEAR_LINE = Control(ControlType.CARRIAGE_RETURN, (ControlType.ERASE_IN_LINE, 0))


class _Terminal(Console):
    """rich's console, for which nobody reading any more is an error like others and not the end."""

    def on_broken_pipe(self) -> NoReturn:
        raise BrokenPipeError


@dataclass
class LevelView:
    """What is known of the level under way."""

    number: int
    how_many: str
    load: Load
    rest_s: float | None
    """Least time of the levels after it; None if nobody knows how many come."""
    turns_before: int
    failed_before: int
    unanswered_before: int
    phase: str = "beginning"
    from_ns: int = 0
    until_ns: int | None = None

    @property
    def title(self) -> str:
        return f"level {self.number} {self.how_many}: {self.load}"


class Progress:
    """Shows a run's levels on `out`, by default standard error."""

    def __init__(self, runner: Any, run: RunState, out: TextIO | None = None) -> None:
        self._runner = runner
        self._run = run
        self._out = out or sys.stderr
        terminal = _Terminal(file=self._out, highlight=False, soft_wrap=False)
        live = terminal.is_terminal and not terminal.is_dumb_terminal
        self._terminal = terminal if live else None
        self._view: LevelView | None = None

    def level(self, number: int, how_many: str, load: Load, rest_s: float | None) -> None:
        """A level begins; `how_many` levels there are, such as `of 6`."""
        before = self._run.turns, self._run.failed, self._run.unanswered
        self._view = LevelView(number, how_many, load, rest_s, *before)
        self._redraw()

    def phase(self, name: str, until_ns: int | None = None) -> None:
        """The level is now in this phase, until then if that is known."""
        view = self._view
        if view is None:
            return
        view.phase, view.from_ns, view.until_ns = name, self._run.timeline.now_ns(), until_ns
        if name == "measuring" and self._terminal is None:
            how_long = "until it is ended"
            if until_ns is not None:
                how_long = f"for {duration((until_ns - view.from_ns) / 1e9)}"
            self._write(Text(f"{view.title}, warm-up over, measuring {how_long}{self._left(view)}"), end="\n")
        self._redraw()

    def over(self) -> None:
        """The level has ended."""
        if self._view is not None:
            view, self._view = self._view, None
            self._write(Text.assemble((view.title, "bold"), ": over; ", *self._turns(view)), end="\n")

    def keep(self, ended: Event) -> None:
        """In a terminal: redraw until the run has ended, and let log lines begin on a line of their own."""
        handlers = logging.getLogger().handlers if self._terminal is not None else []
        for handler in handlers:
            handler.addFilter(self._make_room)
        try:
            while self._terminal is not None and not ended.wait(_REDRAW_S):
                self._redraw()
        finally:
            for handler in handlers:
                handler.removeFilter(self._make_room)

    def _make_room(self, record: logging.LogRecord) -> bool:
        """A log line is about to be written where the line of the level stands."""
        if self._view is not None:
            self._write(Text(), end="")
        return True

    def _redraw(self) -> None:
        view = self._view
        if self._terminal is None or view is None:
            return
        passed_s = max(self._run.timeline.now_ns() - view.from_ns, 0) / 1e9 if view.from_ns else 0.0
        phase = view.phase
        if not view.from_ns:
            phase = phase if view.load.users is None else f"{self._runner.user_count} there"
        elif view.until_ns is not None:
            phase += f" {passed_s:.0f} of {duration((view.until_ns - view.from_ns) / 1e9)}"
        else:
            phase += f" for {duration(passed_s)}"
        head, left = (view.title, "bold"), (self._left(view), "dim")
        self._write(Text.assemble(head, f", {phase}; ", *self._turns(view), left), end="")

    def _turns(self, view: LevelView) -> tuple[str, tuple[str, str]]:
        turns, failed = self._run.turns - view.turns_before, self._run.failed - view.failed_before
        given_up = self._run.unanswered - view.unanswered_before - failed
        done = f"{turns} turn{'' if turns == 1 else 's'} done, "
        bad = f"{failed} failed" + f", {given_up} given up" * (given_up > 0)
        return done, (bad, "red" if failed or given_up else "")

    def _left(self, view: LevelView) -> str:
        if view.rest_s is None or view.until_ns is None:
            return ""
        here_s = max(view.until_ns - self._run.timeline.now_ns(), 0) / 1e9
        return f"; at least {duration(here_s + view.rest_s)} left"

    def _write(self, line: Text, end: str) -> None:
        try:
            if self._terminal is None:
                self._out.write(line.plain + end)
                self._out.flush()
                return
            self._terminal.control(_CLEAR_LINE)
            if not end:  # a line that filled the terminal would wrap, and could not be cleared any more
                line.truncate(self._terminal.width - 1, overflow="ellipsis")
            self._terminal.print(line, end=end, soft_wrap=True)
        except OSError:
            self._terminal = None  # whoever read it is gone; the run is not

"""What a person sees while a run goes on: one line a level.

In a terminal it is kept up to date in place; elsewhere two plain lines are said of each level, one when its
window opens and one when it is over. They tell what has happened, and of the time left only its least.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any, TextIO

from gevent.event import Event

from loadgen.control._state import RunState
from loadgen.options._shapes import Load
from turnbench.units import duration

_REDRAW_S = 0.5


@dataclass
class LevelView:
    """What is known of the level under way."""

    number: int
    of: str
    load: Load
    rest_s: float | None
    """Least time of the levels after it; None if nobody knows how many come."""
    turns_before: int
    failed_before: int
    phase: str = "beginning"
    from_ns: int = 0
    until_ns: int | None = None


class Progress:
    """Tells of a run's levels on `out`; `live` in a terminal."""

    def __init__(self, runner: Any, run: RunState, out: TextIO | None = None) -> None:
        self._runner = runner
        self._run = run
        self._out = out or sys.stderr
        self._live = self._out.isatty()
        self._view: LevelView | None = None

    def level(self, number: int, of: str, load: Load, rest_s: float | None) -> None:
        """A level begins; `of` says how many there are, such as `of 6`."""
        self._view = LevelView(number, of, load, rest_s, self._run.turns, self._run.failed)
        self._redraw()

    def phase(self, name: str, until_ns: int | None = None) -> None:
        """The level is now in this phase, until then if that is known."""
        if self._view is not None:
            self._view.phase, self._view.from_ns = name, self._run.timeline.now_ns()
            self._view.until_ns = until_ns
            if name == "measuring" and not self._live:
                self._say(self._opening(self._view))
            self._redraw()

    def over(self) -> None:
        """The level has ended."""
        if self._view is not None:
            view, self._view = self._view, None
            self._say(f"{_title(view)}: over; {self._turns(view)}")

    def keep(self, ended: Event) -> None:
        """In a terminal: redraw until the run has ended."""
        while self._live and not ended.wait(_REDRAW_S):
            self._redraw()

    def _opening(self, view: LevelView) -> str:
        how_long = "until it is ended"
        if view.until_ns is not None:
            how_long = f"for {duration((view.until_ns - view.from_ns) / 1e9)}"
        return f"{_title(view)}, warm-up over, measuring {how_long}{self._left(view)}"

    def _redraw(self) -> None:
        if not self._live or self._view is None:
            return
        view = self._view
        passed_s = max(self._run.timeline.now_ns() - view.from_ns, 0) / 1e9 if view.from_ns else 0.0
        phase = view.phase
        if not view.from_ns:
            phase = phase if view.load.users is None else f"{self._runner.user_count} there"
        elif view.until_ns is not None:
            phase += f" {passed_s:.0f} of {duration((view.until_ns - view.from_ns) / 1e9)}"
        else:
            phase += f" for {duration(passed_s)}"
        line = f"{_title(view)}, {phase}; {self._turns(view)}{self._left(view)}"
        self._write(f"\r\x1b[K{line}")

    def _turns(self, view: LevelView) -> str:
        turns, failed = self._run.turns - view.turns_before, self._run.failed - view.failed_before
        return f"{turns} turn{'' if turns == 1 else 's'} done, {failed} failed"

    def _left(self, view: LevelView) -> str:
        if view.rest_s is None or view.until_ns is None:
            return ""
        here_s = max(view.until_ns - self._run.timeline.now_ns(), 0) / 1e9
        return f"; at least {duration(here_s + view.rest_s)} left"

    def _say(self, line: str) -> None:
        self._write(f"\r\x1b[K{line}\n" if self._live else f"{line}\n")

    def _write(self, text: str) -> None:
        try:
            self._out.write(text)
            self._out.flush()
        except OSError:
            self._live = False  # whoever read it is gone; the run is not


def _title(view: LevelView) -> str:
    return f"level {view.number} {view.of}: {view.load}"

"""What a sweep says while it goes on: what has ended, what runs, and an honest time left."""

from __future__ import annotations

import asyncio
import time

from rich.console import Console
from rich.live import Live
from rich.text import Text

from turnbench.formats import SweepEntry
from turnbench.sweep.forecast import RUN_S, RunForecast, left_s, scale_of, starts_at_once
from turnbench.sweep.record import SweepRecord
from turnbench.sweep.runs import served_for
from turnbench.units import duration

_TICK_S = 1.0
_TICK_IN_FILE_S = 30.0
_LAST_RUNS = 8


class SweepProgress:
    """Lines on standard output; in a terminal also a last one that is written anew each second.

    It keeps what runs took: `took_s` from start to end, of which their levels `played_s`.
    """

    def __init__(self, record: SweepRecord, forecasts: dict[str, RunForecast | None]) -> None:
        self._record = record
        self._forecasts = forecasts
        self._started_s = time.monotonic()
        self._begun_s: dict[str, float] = {}
        self._done: list[SweepEntry] = []
        self._played_s: dict[str, float] = {}
        self._starts_s: list[float] = []
        self._total = len(self._open())
        self.stopping = False
        """Somebody ended it: what waits is not played any more."""
        self._console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
        self._live = Live(console=self._console, auto_refresh=False, transient=True, redirect_stderr=False)

    @property
    def passed_s(self) -> float:
        """Since the sweep, or this part of it, began."""
        return time.monotonic() - self._started_s

    # --- what happens ---

    def begin(self) -> None:
        """Say what is about to be played, and how long that takes."""
        plan = self._record.plan
        models = "that run already" if plan.endpoints else f"({plan.backend})"
        self.say(f"sweep {self._record.folder}: {', '.join(plan.names)} {models}")
        left = self.left_s()
        if left is None:
            self.say(f"{self._total} runs; how long they take shows when the first has ended")
        elif self._total:
            runs = f"{self._total} run{'s' * (self._total > 1)}, {plan.parallel} at a time"
            how = "about" if self._bounded else "at least"
            why = (
                f"by the roofline of {plan.hardware}, were every answer as long as it may be; "
                * self._bounded
            )
            self.say(f"this takes {how} {duration(left)}: {runs} ({why}without the starts of servers)")

    def starting_server(self, run: SweepEntry) -> None:
        """A server for this run is being started."""
        self.say(f"  {self.passed_s:5.0f} s  starting a server: {' '.join(filter(None, served_for(run)))}")

    def server_started(self, took_s: float) -> None:
        """A server was ready after so long."""
        self._starts_s.append(took_s)

    def note(self, run: SweepEntry, played_s: float | None = None) -> None:
        """What became of a run just now; `played_s`: how long its levels took."""
        if run.status == "running":
            self._begun_s[run.dir] = time.monotonic()
            if self._record.plan.parallel > 1:
                return
        else:
            self._begun_s.pop(run.dir, None)
            self._done.append(run)
            if played_s is not None:
                self._played_s[run.dir] = played_s
        ahead, open_runs = "", len(self._open())
        if open_runs and run.status != "running":
            ahead = f"; {open_runs} of {self._total} to go{self._time_left()}"
        self.say(f"  {self.passed_s:5.0f} s  {run.dir}: {run.status}{ahead}")

    def so_far(self, ended_by: str | None = None) -> str:
        """How many runs have finished, and how many of them in this part of the sweep, which took so long."""
        runs = self._record.runs
        finished, now = (sum(run.status == "finished" for run in some) for some in (runs, self._done))
        text = f"{finished} of {len(runs)} runs{' have finished' * (finished < len(runs))}"
        text += f", {now} of them now, in" if now < finished else " in"
        return f"{f'ended by {ended_by}: ' if ended_by else ''}{text} {duration(self.passed_s)}"

    def say(self, text: str) -> None:
        """One line, above the one that is written anew."""
        self._console.print(Text(text))

    def line(self) -> str:
        """Where it stands now."""
        done = self._total - len(self._open())
        state = f"{len(self._begun_s)} running" if done < self._total else "the last servers stop"
        return f"  {self.passed_s:5.0f} s  {done} of {self._total} done, {state}{self._time_left()}"

    def _time_left(self) -> str:
        """The time left in words; nothing where it is not known, or where no run is left."""
        if self.stopping:
            return ", stopping"
        left = self.left_s()
        if left is None or not self._open():
            return ""
        if left > 0:
            return f", about {duration(max(left, 1.0))} left"
        return ", longer than expected" if self._bounded else ""  # a least time is no expectation

    async def tick(self) -> None:
        """Say where it stands, each second in a terminal, else now and then; until cancelled."""
        on_terminal = self._console.is_terminal
        with self._live:
            while True:
                await asyncio.sleep(_TICK_S if on_terminal else _TICK_IN_FILE_S)
                text = self.line()
                if on_terminal:
                    self._live.update(Text(text), refresh=True)
                else:
                    self.say(text)

    # --- how long it takes ---

    @property
    def _bounded(self) -> bool:
        """Whether no open run should take longer than its forecast; else that is a least time."""
        forecasts = [self._forecasts[run.dir] for run in self._open()]
        return all(forecast is not None and forecast.bounded for forecast in forecasts)

    def in_order(self, waiting: list[SweepEntry]) -> list[SweepEntry]:
        """As the plan's seed has it; where several run at once the long ones first, so that none runs alone
        at the end."""
        if self._record.plan.parallel == 1 or not all(self._forecasts[run.dir] for run in waiting):
            return waiting
        return sorted(waiting, key=lambda run: -self._forecast_s(run))

    def left_s(self) -> float | None:
        """Until the last run ends; None as long as nothing is known of some run."""
        now_s = time.monotonic()
        running, waiting = [], []
        for run in self.in_order(self._open()):
            takes_s = self._takes_s(run)
            if takes_s is None:
                return None
            began_s = self._begun_s.get(run.dir)
            if began_s is None:
                waiting.append(takes_s)
            else:
                running.append(takes_s - (now_s - began_s))
        places = self._record.plan.parallel
        starts_s = len(waiting) * self._beside_s(self._done) / starts_at_once(self._total, places)
        return max(left_s(running, waiting + self._servers_ahead_s(), places), starts_s)

    def _open(self) -> list[SweepEntry]:
        return [run for run in self._record.runs if run.status in ("waiting", "running")]

    def _servers_ahead_s(self) -> list[float]:
        """Servers that are still to be started, as long as those so far took."""
        if not self._starts_s:
            return []
        ahead = {served_for(run) for run in self._open()}
        ahead -= {served_for(run) for run in self._open() if run.dir in self._begun_s}
        return [sum(self._starts_s) / len(self._starts_s)] * len(ahead)

    def _forecast_s(self, run: SweepEntry) -> float:
        forecast = self._forecasts[run.dir]
        return forecast.plays_s if forecast else 0.0

    def _takes_s(self, run: SweepEntry) -> float | None:
        """Its forecast, corrected by what runs like it took against theirs; without one, what they took."""
        ended = [each for each in self._done if each.took_s is not None and each.status == "finished"]
        like = [each for each in ended if (each.scenario, each.variant) == (run.scenario, run.variant)]
        # Another variant says nothing of these: exact answers take all of their forecast, natural ones half.
        known = like or [each for each in ended if each.variant == run.variant]
        if forecast_s := self._forecast_s(run):
            known = [each for each in known if each.dir in self._played_s]
            pairs = [(self._played_s[each.dir], self._forecast_s(each)) for each in known]
            return self._beside_s(ended) + forecast_s * scale_of(pairs)
        known = known or ended
        return sum(each.took_s or 0.0 for each in known) / len(known) if known else None

    def _beside_s(self, ended: list[SweepEntry]) -> float:
        """What a run takes besides its levels: its start and end, longer where many share the machine."""
        known = [
            run.took_s - self._played_s[run.dir]
            for run in ended
            if run.took_s is not None and run.dir in self._played_s
        ]
        last = known[-_LAST_RUNS:]
        return sum(last) / len(last) if last else RUN_S

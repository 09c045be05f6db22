"""What a sweep says while it goes on: what has ended, what runs, and an honest time left."""

from __future__ import annotations

import asyncio
import sys
import time

from turnbench.sweep.book import Book, Entry
from turnbench.sweep.forecast import RUN_S, Guess, left_s, scale_of, starts_at_once
from turnbench.units import duration

_TICK_S = 1.0
_TICK_IN_FILE_S = 30.0
_LAST_RUNS = 8


class Progress:
    """Lines on standard output; in a terminal also a last one that is written anew each second."""

    def __init__(self, book: Book, guesses: dict[str, Guess | None]) -> None:
        self._book = book
        self._guesses = guesses
        self._started_s = time.monotonic()
        self._begun_s: dict[str, float] = {}
        self._done: list[Entry] = []
        self._starts_s: list[float] = []
        self._total = sum(entry.status == "waiting" for entry in book.entries)
        self._live = sys.stdout.isatty()

    @property
    def passed_s(self) -> float:
        return time.monotonic() - self._started_s

    def in_order(self, waiting: list[Entry]) -> list[Entry]:
        """As the plan's seed has it; where several run at once the long ones first, so that none runs alone
        at the end."""
        if self._book.plan.parallel == 1 or not all(self._guesses[e.cell.dir] for e in waiting):
            return waiting
        return sorted(waiting, key=lambda entry: -self._guess_s(entry))

    def begin(self) -> None:
        plan, guesses = self._book.plan, [self._guesses[entry.cell.dir] for entry in self._open()]
        models = "that run already" if plan.endpoints else f"({plan.backend})"
        self.say(f"sweep {self._book.folder}: {', '.join(plan.models)} {models}")
        left = self.left_s()
        if left is None:
            self.say(f"{self._total} runs; how long they take shows when the first has ended")
        elif self._total:
            bounded = all(guess is not None and guess.bounded for guess in guesses)
            how = "about" if bounded else "at least"
            why = f"by the roofline of {plan.hardware}, were every answer as long as it may be; " * bounded
            runs = f"{self._total} runs, {plan.parallel} at a time"
            self.say(f"this takes {how} {duration(left)}: {runs} ({why}without the starts of servers)")

    def say(self, text: str) -> None:
        if self._live:
            print(end="\r\x1b[K")
        print(text, flush=True)

    def note(self, entry: Entry) -> None:
        """What became of a run just now."""
        name = entry.cell.dir
        if entry.status == "running":
            self._begun_s[name] = time.monotonic()
            if self._book.plan.parallel > 1:
                return
        else:
            self._begun_s.pop(name, None)
            self._done.append(entry)
        self.say(f"  {self.passed_s:5.0f} s  {name}: {entry.status}{self._ahead(entry)}")

    def serving(self, entry: Entry) -> None:
        name = " ".join(filter(None, entry.cell.server))
        self.say(f"  {self.passed_s:5.0f} s  starting a server: {name}")

    def server_started(self, took_s: float) -> None:
        self._starts_s.append(took_s)

    def _ahead(self, entry: Entry) -> str:
        open_runs = len(self._open())
        if not open_runs or entry.status == "running":
            return ""
        left = self.left_s()
        return f"; {open_runs} of {self._total} left" + (f", about {duration(left)}" if left else "")

    def _open(self) -> list[Entry]:
        return [entry for entry in self._book.entries if entry.status in ("waiting", "running")]

    def left_s(self) -> float | None:
        """Until the last run ends; None as long as nothing is known of some run."""
        now_s = time.monotonic()
        running, waiting = [], []
        for entry in self.in_order(self._open()):
            takes_s = self._takes_s(entry)
            if takes_s is None:
                return None
            began_s = self._begun_s.get(entry.cell.dir)
            if began_s is None:
                waiting.append(takes_s)
            else:
                running.append(takes_s - (now_s - began_s))
        places = self._book.plan.parallel
        starts_s = len(waiting) * _beside_s(self._done) / starts_at_once(self._total, places)
        return max(left_s(running, waiting + self._starts_ahead_s(), places), starts_s)

    def _starts_ahead_s(self) -> list[float]:
        """Servers that are still to be started, as long as those so far took."""
        if not self._starts_s:
            return []
        ahead = {entry.cell.server for entry in self._open()}
        ahead -= {e.cell.server for e in self._open() if e.cell.dir in self._begun_s}
        return [sum(self._starts_s) / len(self._starts_s)] * len(ahead)

    def _guess_s(self, entry: Entry) -> float:
        guess = self._guesses[entry.cell.dir]
        return guess.plays_s if guess else 0.0

    def _takes_s(self, entry: Entry) -> float | None:
        """Its guess, corrected by what runs like it took against theirs; without one, what they took."""
        ended = [e for e in self._done if e.took_s is not None and e.status == "finished"]
        cell = entry.cell
        like = [e for e in ended if (e.cell.scenario, e.cell.variant) == (cell.scenario, cell.variant)]
        # Another variant says nothing of these: exact answers take all of their guess, natural ones half.
        known = like or [e for e in ended if e.cell.variant == cell.variant]
        if guess_s := self._guess_s(entry):
            pairs = [(e.played_s, self._guess_s(e)) for e in known if e.played_s is not None]
            return _beside_s(ended) + guess_s * scale_of(pairs)
        known = known or ended
        return sum(e.took_s or 0.0 for e in known) / len(known) if known else None

    async def tick(self) -> None:
        """Say where it stands, each second in a terminal, else now and then; until cancelled."""
        while True:
            await asyncio.sleep(_TICK_S if self._live else _TICK_IN_FILE_S)
            left, done = self.left_s(), self._total - len(self._open())
            text = f"  {self.passed_s:5.0f} s  {done} of {self._total} done, {len(self._begun_s)} running"
            text += f", about {duration(left)} left" if left else ""
            print(f"\r\x1b[K{text}" if self._live else text, end="" if self._live else "\n", flush=True)


def _beside_s(ended: list[Entry]) -> float:
    """What a run takes besides its levels: its start and end, longer where many share the machine."""
    known = [e.took_s - e.played_s for e in ended if e.took_s is not None and e.played_s is not None]
    last = known[-_LAST_RUNS:]
    return sum(last) / len(last) if last else RUN_S

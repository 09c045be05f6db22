"""The numbers of a run under way, from its raw turns: what the panel in a terminal and Locust's page show.

Times of a turn are computed by `turnbench.metrics`, as in the report. The report says more, with intervals,
and knows the turns that still run; what is here is of those that have ended. A turn counts once, by its last
attempt. Nothing of it is written down.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np

from loadgen.options._shape import Load
from turnbench.formats import HealthLine, LevelEntry, TurnRecord
from turnbench.formats.turn import decode
from turnbench.metrics import ttft_ms, ttg_ms
from turnbench.outcomes import ANSWERED, CENSORED, NOT_MEASURED, UNANSWERED
from turnbench.turns import Floats, counts_stop_token, turns_of

_NEWEST_TURNS = 20_000
"""Percentiles are of so many turns of a task at most, the newest."""
_NEWEST_UNANSWERED = 2_000
"""Of so many turns it is kept how they went, since another attempt may still follow."""
_NEWEST_ERRORS = 50
"""Of so many unanswered turns it is kept what they say: errors may be long, and all differ."""
_RATE_S = 30.0
_DECODED_AT_ONCE = 500
_HEALTH_S = 3.0
"""A worker that has said nothing for so long has no streams to show."""
_LAG_S = 10.0
_REDONE_S = 1.9


class LiveTask(msgspec.Struct, kw_only=True):
    """The turns of a task that were sent in the window (before it: in the warm-up) and have ended."""

    task: str
    turns: int
    unanswered: int
    ttft_p50_ms: float | None
    ttft_p95_ms: float | None
    ttg_p50_ms: float | None
    ttg_p95_ms: float | None
    tps: float | None
    """Tokens a second of an answer: all tokens over the sum of TTG, as in the report."""
    tokens_per_s: float
    """Of all streams together: tokens of the turns that ended in the last 30 s."""


class LiveClient(msgspec.Struct, kw_only=True, frozen=True):
    """Whether it is the client that is slow."""

    clock: str | None = None
    lag_ms: float | None = None
    """The latest wake-up of an engine's event loop in the last 10 s."""
    cpu_share: float | None = None
    """Of one core, of the busiest engine."""
    workers: int = 0


class LiveAnswer(msgspec.Struct):
    """The end of one conversation's answer, as it came."""

    task: str
    conversation: int
    turn: int
    text: str


class LiveSnapshot(msgspec.Struct, kw_only=True):
    """All that a live view shows, at one moment."""

    run: str | None
    """Null: none is under way, and nothing else says anything."""
    scenario: str = ""
    model: str = ""
    emulated: bool = False
    level: str | None = None
    """Such as `level 2 of 6: 16 people`; null: no level is under way."""
    phase: str = "between levels"
    phase_s: float = 0.0
    phase_of_s: float | None = None
    """How long the phase lasts in all, where that is known."""
    least_left_s: float | None = None
    likely_left_s: float | None = None
    """With drains as long as the longest answer so far."""
    people: int = 0
    in_flight: int = 0
    measured: bool = False
    """Whether the rows are of measured turns, and not of the warm-up."""
    tasks: list[LiveTask] = []
    outcomes: dict[str, int] = {}
    """Turns of the level by outcome, answered ones included."""
    last_error: str | None = None
    client: LiveClient = LiveClient()
    findings: list[str] = []
    more_levels: bool = False
    """Whether others follow the level under way, or may."""
    ends_after_level: bool = False
    answer: LiveAnswer | None = None
    report: bool = False
    """Whether a run has ended whose report can be opened."""


@dataclass
class LevelView:
    """What is known of the level under way."""

    number: int
    how_many: str
    """Such as `of 6`."""
    load: Load
    rest_s: float | None
    """Least time of the levels after it; None if nobody knows how many come."""
    later: int = 0
    """Levels after it."""
    phase: str = "beginning"
    from_ns: int = 0
    until_ns: int | None = None
    goal: str = ""
    """What --until waits for, in words: the phase may end before its time."""

    @property
    def title(self) -> str:
        return f"level {self.number} {self.how_many}: {self.load}"


@dataclass
class _Rows:
    """The answered turns of one task."""

    answered: int = 0
    _ring: Floats = field(default_factory=lambda: np.empty((_NEWEST_TURNS, 3)))
    """Made whole at the start: a list that grows would look like memory that is lost."""

    def add(self, ttft: float, ttg: float, tokens: float) -> None:
        """Another one, in the place of the oldest; its waits are in milliseconds."""
        self._ring[self.answered % _NEWEST_TURNS] = ttft, ttg, tokens
        self.answered += 1

    @property
    def newest(self) -> Floats:
        """TTFT and TTG in milliseconds, and output tokens: a row a turn, in no order."""
        return self._ring[: self.answered]


@dataclass(frozen=True, slots=True)
class _Unanswered:
    """The last attempt at a turn that brought no whole answer; another may still follow."""

    task: str
    outcome: str
    ttft_ms: float


OnTurns = Callable[[Sequence[TurnRecord], list[float], list[float], list[float]], None]
"""Gets records with their TTFT and TTG in milliseconds and their output tokens; NaN where there is none."""


class LiveNumbers:
    """Gets every record and health line of a run as it comes, and says how the level under way stands."""

    def __init__(self, server: dict[str, object] | None = None) -> None:
        self.level: LevelView | None = None
        self.longest_ms = 0.0
        """The longest answer of the run."""
        self.on_turns: OnTurns | None = None
        """Gets every turn of the run as it is worked on, in the window or not."""
        self._stop_counted = counts_stop_token(server or {})
        self._new: list[tuple[bytes, int]] = []
        self._of: tuple[int, int | None] = (-1, None)
        """Which level the rows are of, and where its window begins."""
        self._rows: dict[str, _Rows] = {}
        self._ended: dict[str, deque[tuple[int, float]]] = {}
        """When a turn of a task ended, in the window or not, and its tokens."""
        self._unanswered: dict[tuple[int, int], _Unanswered] = {}
        """The newest of them, by conversation and turn."""
        self._errors: dict[tuple[int, int], str] = {}
        """Of the newest of them that say something, what that is."""
        self._given_up: Counter[tuple[str, str]] = Counter()
        """Of those before, whose next attempt would be here by now: how many, by task and outcome."""
        self._clock: str | None = None
        self._health: dict[int, HealthLine] = {}
        self._lags: deque[tuple[int, float]] = deque()
        self._made: tuple[int, list[LiveTask]] = (0, [])

    # --- what comes in ---

    def take_turn(self, line: bytes, offset_ns: int) -> None:
        """A line of turns-W.jsonl; `offset_ns`: how far its worker's clock is ahead of ours."""
        self._new.append((line, offset_ns))

    def take_health(self, line: bytes, now_ns: int) -> None:
        """A line of health-W.jsonl."""
        health = msgspec.json.decode(line, type=HealthLine)
        self._health[health.worker] = msgspec.structs.replace(health, t_ns=now_ns)
        self._lags.append((now_ns, health.loop_lag_ms or 0.0))
        while self._lags and self._lags[0][0] < now_ns - _LAG_S * 1e9:
            self._lags.popleft()

    @property
    def waiting(self) -> bool:
        """Whether so much has come that it should be worked on, looked at or not."""
        return len(self._new) >= _DECODED_AT_ONCE

    def digest(self, level: LevelEntry | None) -> None:
        """Work on what has come; `level` is the one under way, as run.json has it."""
        of = (-1, None) if level is None else (level.index, level.window_start_ns)
        if of != self._of:  # a new level, or the window has opened after the warm-up
            if of[0] != self._of[0]:
                self._ended = {}
            self._of, self._rows, self._unanswered, self._errors = of, {}, {}, {}
            self._given_up = Counter()
            self._made = (0, [])
        new, self._new = self._new, []
        if not new or (level is None and self.on_turns is None):
            return
        records = [decode(line) for line, _ in new]
        turns = turns_of(records, stop_counted=self._stop_counted)
        numbers = (ttft_ms(turns).tolist(), ttg_ms(turns).tolist(), turns.output_tokens.tolist())
        if self.on_turns is not None:
            self.on_turns(records, *numbers)
        if level is None:
            return
        start_ns = (level.start_ns or 0) if level.window_start_ns is None else level.window_start_ns
        end_ns = math.inf if level.window_end_ns is None else level.window_end_ns
        for record, (_, offset_ns), ttft, ttg, tokens in zip(records, new, *numbers, strict=True):
            sent_ns = (record.due_ns if record.sent_ns is None else record.sent_ns) - offset_ns
            if record.outcome in ANSWERED:
                self.longest_ms = max(self.longest_ms, ttg)
            if record.end_ns is not None and not math.isnan(tokens):
                ended = self._ended.setdefault(record.task, deque())
                ended.append((record.end_ns - offset_ns, tokens))
            if start_ns <= sent_ns < end_ns and record.outcome not in NOT_MEASURED:
                self._add(record, ttft, ttg, tokens)

    def _add(self, record: TurnRecord, ttft: float, ttg: float, tokens: float) -> None:
        key = (record.conversation, record.turn)
        self._unanswered.pop(key, None)
        self._errors.pop(key, None)
        rows = self._rows.setdefault(record.task, _Rows())
        self._clock = record.clock
        if record.outcome not in ANSWERED:
            self._unanswered[key] = _Unanswered(record.task, record.outcome, ttft)
            if record.error:
                self._errors[key] = record.error
                if len(self._errors) > _NEWEST_ERRORS:
                    del self._errors[next(iter(self._errors))]
            if len(self._unanswered) > _NEWEST_UNANSWERED:
                oldest = self._unanswered.pop(next(iter(self._unanswered)))
                self._given_up[oldest.task, oldest.outcome] += 1
            return
        rows.add(ttft, ttg, tokens)

    # --- what is seen ---

    def tasks(self, now_ns: int, since_ns: int) -> list[LiveTask]:
        """A row for each task; `since_ns`: when the level began. Made anew every 2 s at most."""
        made_ns, made = self._made
        if now_ns - made_ns >= _REDONE_S * 1e9:
            made = [self._task(name, rows, now_ns, since_ns) for name, rows in sorted(self._rows.items())]
            self._made = (now_ns, made)
        return made

    def _task(self, name: str, rows: _Rows, now_ns: int, since_ns: int) -> LiveTask:
        others = [each for each in self._unanswered.values() if each.task == name]
        # Who still waited when last seen waited longer than all that was answered.
        censored = [
            (math.inf if math.isnan(each.ttft_ms) else each.ttft_ms, math.inf)
            for each in others
            if each.outcome in CENSORED
        ]
        answered = rows.newest
        waits = np.vstack((answered[:, :2], np.array(censored, dtype=np.float64).reshape(-1, 2)))
        from_ns = max(now_ns - int(_RATE_S * 1e9), since_ns)
        ended = self._ended.get(name, deque())
        while ended and ended[0][0] < from_ns:
            ended.popleft()
        given_up = {outcome: n for (task, outcome), n in self._given_up.items() if task == name}
        tokens, ttg_s = np.nansum(answered[:, 2]), answered[:, 1].sum() / 1e3
        return LiveTask(
            task=name,
            turns=rows.answered + len(others) + sum(given_up.values()),
            unanswered=sum(each.outcome in UNANSWERED for each in others)
            + sum(n for outcome, n in given_up.items() if outcome in UNANSWERED),
            ttft_p50_ms=_percentile(waits[:, 0], 0.5),
            ttft_p95_ms=_percentile(waits[:, 0], 0.95),
            ttg_p50_ms=_percentile(waits[:, 1], 0.5),
            ttg_p95_ms=_percentile(waits[:, 1], 0.95),
            tps=float(tokens / ttg_s) if ttg_s > 0 else None,
            tokens_per_s=sum(each for _, each in ended) / max((now_ns - from_ns) / 1e9, 1.0),
        )

    def outcomes(self) -> dict[str, int]:
        """Turns of the level by outcome."""
        found = Counter(each.outcome for each in self._unanswered.values())
        for (_, outcome), turns in self._given_up.items():
            found[outcome] += turns
        if answered := sum(rows.answered for rows in self._rows.values()):
            found["ok"] = answered
        return dict(found.most_common())

    def last_error(self) -> str | None:
        """What the newest failed turn says."""
        return next(reversed(self._errors.values()), None)

    def in_flight(self, now_ns: int) -> int:
        """Requests under way, by the newest health line of each worker."""
        return sum(line.in_flight or 0 for line in self._fresh(now_ns))

    def client(self, now_ns: int) -> LiveClient:
        """The clock, and how busy this side is."""
        fresh = list(self._fresh(now_ns))
        return LiveClient(
            clock=self._clock,
            lag_ms=max((lag for _, lag in self._lags), default=None),
            cpu_share=max((line.cpu_share for line in fresh if line.cpu_share is not None), default=None),
            workers=len(fresh),
        )

    def _fresh(self, now_ns: int) -> Iterable[HealthLine]:
        return (line for line in self._health.values() if now_ns - line.t_ns < _HEALTH_S * 1e9)

    def left_s(self, now_ns: int) -> tuple[float, float] | None:
        """(least, likely) time to the end of the last level; None where nobody knows.

        A level drains after its window, until its last measured turn has ended. How long that takes is known
        only afterwards: the least is without, the likely one with the longest answer so far for each level.
        """
        view = self.level
        if (
            view is None
            or view.goal
            or view.rest_s is None
            or (view.until_ns is None and view.phase != DRAINING)
        ):
            return None
        here_s = max((view.until_ns or 0) - now_ns, 0) / 1e9
        return here_s + view.rest_s, here_s + view.rest_s + (view.later + 1) * self.longest_ms / 1e3


DRAINING = "waiting for measured turns"
"""The phase of a level after its window."""


def _percentile(values: np.ndarray[tuple[int], np.dtype[np.float64]], share: float) -> float | None:
    """The smallest value that so large a share does not exceed; None where that one never ended."""
    if not len(values):
        return None
    found = float(np.quantile(values, share, method="inverted_cdf"))
    return found if math.isfinite(found) else None

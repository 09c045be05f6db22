"""--until KEY=SHARE: a level ends once the 95 % interval of that number is within SHARE of it.

Works in the process that directs the run, never in an engine: records come in anyway, and a look costs some
milliseconds. Looks are bounded: each comes when the window is a tenth longer than at the one before, at least
2 s, so an hour has some sixty.

Looking again and again ends a level at a moment at which its interval happens to be narrow, and which then
holds the truth less often than it says. So each look also says how long a window its interval asks for (a
standard error falls with the root of time), and the window has to be as long as the longest that any look of
its second half asked for; and it has 20 conversations and lasts 20 s at least. `python -m benchmarks.until`
counts what is left of the bias. The interval is that of the analysis, over all of the level's turns; what was
reached is computed anew once all of them have ended.
"""

from __future__ import annotations

from array import array

import numpy as np

from loadgen.options._prepare import Prepared
from loadgen.options._values import Until
from turnbench.formats import LevelEntry, TurnRecord, UntilEntry
from turnbench.metrics import METRICS
from turnbench.outcomes import ANSWERED, BROKEN_OFF, CENSORED, NOT_MEASURED
from turnbench.stats.known import KnownNumber, SentTurns, known
from turnbench.turns import counts_stop_token, turns_of
from turnbench.units import duration

LEAST_S = 20.0
LEAST_CONVERSATIONS = 20
_LOOK_LATER = 1.1
_LOOK_EVERY_S = 2.0


class LookPlan:
    """When the interval is looked at, and after which look the window may end."""

    def __init__(self, asked_share: float) -> None:
        self.next_s = LEAST_S / 2
        """Length of the window at the next look."""
        self.share: float | None = None
        """How well the number was known at the last look."""
        self.looks = 0
        self._asked_share = asked_share
        self._asks_s: list[tuple[float, float]] = []
        """Of each look, the window then and the window that it asked for."""

    @property
    def needed_s(self) -> float | None:
        """The window that will be needed, as the looks so far foresee it; None: nobody knows."""
        asks_s = [asks_s for _, asks_s in self._asks_s]
        return max(*asks_s, LEAST_S) if asks_s else None

    def look(self, passed_s: float, share: float | None, conversations: int) -> bool:
        """Whether the window may end now, when the number of so many conversations is known to `share`."""
        self.next_s = max(passed_s * _LOOK_LATER, passed_s + _LOOK_EVERY_S)
        self.looks += 1
        self.share = share
        self._asks_s = [(at_s, asks_s) for at_s, asks_s in self._asks_s if at_s >= passed_s / 2]
        if share is None or conversations < LEAST_CONVERSATIONS:
            return False
        self._asks_s.append((passed_s, passed_s * (share / self._asked_share) ** 2))
        return passed_s >= (self.needed_s or 0.0)


class PrecisionWatch:
    """Gets the turns of one level, and says when its number is known well enough."""

    def __init__(self, asked: Until, prepared: Prepared) -> None:
        self.asked = asked
        self.plan = LookPlan(asked.share)
        self._stop_counted = counts_stop_token(prepared.endpoint.server | prepared.facts)
        self._new: list[tuple[TurnRecord, int]] = []
        self._rows: dict[tuple[int, int], int] = {}
        self._talks, self._sent_ns = array("q"), array("q")
        self._ttft_ms, self._ttg_ms, self._tokens = array("d"), array("d"), array("d")

    def add(self, record: TurnRecord, offset_ns: int) -> None:
        """`offset_ns`: how far the clock of the record's worker is ahead of ours."""
        if record.outcome not in NOT_MEASURED:
            self._new.append((record, offset_ns))

    def reached(self, start_ns: int, now_ns: int) -> bool:
        """Whether the window may end now."""
        passed_s = (now_ns - start_ns) / 1e9
        if passed_s < self.plan.next_s:
            return False
        found, conversations = self._known(start_ns, now_ns)
        return self.plan.look(passed_s, found.share, conversations)

    def in_words(self, passed_s: float) -> str:
        """How well the number is known, and what is left by the looks so far; "" before the first one."""
        if self.plan.share is None or self.plan.needed_s is None:
            return ""
        left = duration(max(self.plan.needed_s - passed_s, 0.0))
        return f"{self.asked.key} within {self.plan.share * 100:.1f}%, about {left} left"

    def entry(self, level: LevelEntry, *, early: bool) -> UntilEntry:
        """What was reached, of all turns of a level whose window is over."""
        start_ns, end_ns = level.window_start_ns or 0, level.window_end_ns or 0
        found, _ = self._known(start_ns, end_ns)
        return UntilEntry(
            key=self.asked.key,
            share=self.asked.share,
            reached=found.share,
            after_s=(end_ns - start_ns) / 1e9,
            early=early,
            looks=self.plan.looks,
        )

    def _known(self, start_ns: int, end_ns: int) -> tuple[KnownNumber, int]:
        """(the number of the turns sent in the window, conversations that they are of)."""
        self._measure_new()
        sent_ns = np.array(self._sent_ns, dtype=np.int64)
        inside = (sent_ns >= start_ns) & (sent_ns < end_ns)
        if not inside.any():
            return KnownNumber(None, None), 0
        talks = np.unique(np.array(self._talks, dtype=np.int64)[inside], return_inverse=True)[1]
        ttft_ms, ttg_ms, tokens = (
            np.array(column, dtype=np.float64)[inside]
            for column in (self._ttft_ms, self._ttg_ms, self._tokens)
        )
        position = (sent_ns[inside] - start_ns) / (end_ns - start_ns)
        turns = SentTurns(position, talks, ttft_ms, ttg_ms, tokens)
        return known(self.asked.key, turns), int(talks.max()) + 1

    def _measure_new(self) -> None:
        """Keep the numbers of the turns that ended since the last look; a turn counts by its last attempt."""
        new, self._new = self._new, []
        turns = turns_of([record for record, _ in new], stop_counted=self._stop_counted)
        firsts, wholes = (METRICS[key].compute(turns).tolist() for key in ("ttft_ms", "ttg_ms"))
        for (record, offset_ns), first_ms, whole_ms, tokens in zip(
            new, firsts, wholes, turns.output_tokens.tolist(), strict=True
        ):
            has_first = first_ms == first_ms
            broken = record.outcome in BROKEN_OFF and has_first
            if record.outcome in CENSORED or broken:
                first_ms, whole_ms = first_ms if has_first else np.inf, np.inf
            elif record.outcome not in ANSWERED:
                first_ms = whole_ms = np.nan
            key = record.conversation, record.turn
            if (row := self._rows.get(key)) is None:
                self._rows[key] = len(self._talks)
                self._talks.append(record.conversation)
                self._sent_ns.append((record.sent_ns or record.due_ns) - offset_ns)
                self._ttft_ms.append(first_ms)
                self._ttg_ms.append(whole_ms)
                self._tokens.append(tokens)
            else:
                self._ttft_ms[row], self._ttg_ms[row], self._tokens[row] = first_ms, whole_ms, tokens

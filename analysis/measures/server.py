"""What the server measured of itself during a level, beside what the client measured of the same answers.

A server's histograms and counts only grow, so what lies between two looks at its /metrics is what happened
between them. The client's side is made of every turn, measured or not, whose moment lies between the same two
looks: the two sides then differ by what lies between server and client, and by what else asks the server.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import takewhile

import numpy as np

from analysis.turns.frame import floats
from analysis.turns.levels import Level
from analysis.turns.study import Study
from turnbench.formats import ServerMeasures, ServerSample, ServerWait
from turnbench.server_metrics import ServerHistogram, histogram, named
from turnbench.stats.percentiles import LEAST_N, QUANTILES, percentile
from turnbench.turns import Bools, Floats

WAITS = {
    "ttft": "ttft_s",
    "itl": "itl_s",
    "queue": "queue_s",
    "e2e": "e2e_s",
}
"""The waits that stand in the summary, by the key of the server's histogram."""
_PERCENTILES = ("p50", "p90", "p99")
_TURNS_AT_ONCE = 4096


def server_of(study: Study, level: Level) -> ServerMeasures | None:
    """None where the server was not looked at twice around the level's window, or says nothing of waits."""
    looks = _looks(study.server, level)
    if looks is None:
        return None
    before, after = looks
    client = _Client(study, before.t_ns, after.t_ns)
    found = {}
    for name, key in WAITS.items():
        theirs = histogram(key, before.values, after.values)
        if theirs is not None and theirs.count > 0:
            found[name] = _wait(theirs, client.waits_ms(name))
    was, now = named(before.values), named(after.values)
    grown = {key: now[key] - was[key] for key in now if key in was and now[key] >= was[key]}
    grown = {key: amount for key, amount in grown.items() if np.isfinite(amount)}
    if not found and not grown:
        return None
    return ServerMeasures(
        seconds=(after.t_ns - before.t_ns) / 1e9,
        **found,
        prompt_tokens=grown.get("prompt_tokens"),
        output_tokens=grown.get("output_tokens"),
        preemptions=grown.get("preemptions"),
        cache_hit_share=_share(grown, "cache_hits", "cache_queries", _mean(study, level, "cache_hit_share")),
        acceptance_share=_share(
            grown, "accepted_tokens", "drafted_tokens", _mean(study, level, "acceptance_share")
        ),
    )


def _looks(samples: list[ServerSample], level: Level) -> tuple[ServerSample, ServerSample] | None:
    """The last look before the window and the first after it, else those that are next to these."""
    mine = [sample for sample in samples if level.start_ns <= sample.t_ns <= level.end_ns]
    early = list(takewhile(lambda sample: sample.t_ns <= level.window_start_ns, mine))
    rest = mine[len(early) :]
    until = next((n for n, sample in enumerate(rest, 1) if sample.t_ns >= level.window_end_ns), len(rest))
    chosen = [*early[-1:], *rest[:until]]
    return (chosen[0], chosen[-1]) if len(chosen) > 1 else None


@dataclass(frozen=True)
class _Client:
    """What the client measured between two moments, of every turn, attempts included."""

    study: Study
    from_ns: int
    to_ns: int

    def waits_ms(self, name: str) -> Floats | None:
        """Waits of this name by the moment at which each ended; None for one that no client sees."""
        if name == "itl":
            return self._gaps_ms()
        column = {"ttft": "ttft_ms", "e2e": "ttg_ms"}.get(name)
        if column is None:
            return None
        waited_ms = floats(self.study.frame[column])
        return waited_ms[self._inside(self._sent_ns + waited_ms * 1e6)]

    def _gaps_ms(self) -> Floats:
        """A few thousand turns at a time: a long run has tens of millions of events."""
        events, sent_ns = self.study.events, self._sent_ns
        streamed = (events.counts > 1) & ~self.study.frame["buffered"].to_numpy(dtype=bool)
        streamed &= (sent_ns < self.to_ns - self.from_ns) & (sent_ns + events.last(events.at_us) * 1e3 > 0)
        turns, parts = np.flatnonzero(streamed), [np.zeros(0, dtype=np.float32)]
        for some in np.array_split(turns, len(turns) // _TURNS_AT_ONCE + 1):
            turn, place = events.of(some)
            later = place > events.offsets[:-1][turn]
            turn, place = turn[later], place[later]
            inside = self._inside(sent_ns[turn] + events.at_us[place].astype(np.float64) * 1e3)
            parts.append(events.gaps_ms(place[inside]).astype(np.float32))
        return np.concatenate(parts).astype(np.float64)

    @property
    def _sent_ns(self) -> Floats:
        return floats(self.study.frame["sent_ns"] - self.from_ns)

    def _inside(self, ended_ns: Floats) -> Bools:
        inside: Bools = (ended_ns > 0) & (ended_ns <= self.to_ns - self.from_ns)
        return inside


def _wait(theirs: ServerHistogram, ours_ms: Floats | None) -> ServerWait:
    wait = ServerWait(n=round(theirs.count))
    if np.isfinite(theirs.mean_s * 1e3):
        wait.mean_ms = theirs.mean_s * 1e3
    for name in _PERCENTILES:
        if theirs.count >= LEAST_N[name]:
            low_s, high_s = theirs.percentile_s(QUANTILES[name])
            ends = [end * 1e3 if np.isfinite(end * 1e3) else None for end in (low_s, high_s)]
            setattr(wait, name, ends)
    if ours_ms is None:
        return wait
    wait.client_n = len(ours_ms)
    if len(ours_ms):
        wait.client_mean_ms = float(ours_ms.mean())
        if wait.mean_ms is not None:
            wait.difference_ms = wait.client_mean_ms - wait.mean_ms
        for name in _PERCENTILES:
            if len(ours_ms) >= LEAST_N[name]:
                setattr(wait, f"client_{name}", percentile(ours_ms, QUANTILES[name]))
    return wait


def _share(grown: dict[str, float], part: str, whole: str, else_said: float | None) -> float | None:
    """By the counts; where there are none, as the server itself computes it."""
    share = grown[part] / grown[whole] if part in grown and grown.get(whole) else else_said
    return share if share is not None and np.isfinite(share) else None


def _mean(study: Study, level: Level, key: str) -> float | None:
    """The mean of a share that the server itself computes, over the window."""
    inside = [s for s in study.server if level.window_start_ns <= s.t_ns < level.window_end_ns]
    values = [named(sample.values)[key] for sample in inside if key in named(sample.values)]
    return sum(values) / len(values) if values else None

"""What the client itself may have spoilt at one level: late sending, late seeing, too little CPU or load."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from analysis.checks.evidence import LevelEvidence
from analysis.measures.client import cpu_busy, lag_p99_ms, stolen_shares
from analysis.measures.distribution import MOST_COALESCED, coalesced_share
from analysis.turns.frame import floats
from analysis.turns.levels import Level
from analysis.turns.study import Study
from turnbench.formats import Finding, Severity
from turnbench.outcomes import CLIENT_FAULTS, NOT_BEGUN
from turnbench.turns import Bools, Ints

INVALID_LATE_MS = 100.0
"""p99 of sent - due: a tenth of a second is what people notice as a delay (Miller 1968)."""
SUSPECT_LATE_MS = 10.0
"""A tenth of that."""
INVALID_LAG_MS = 20.0
"""p99 of late seeing, where no kernel stamp corrects for it: a token's time on a quick server."""
BUSY_SECONDS = 0.10
"""Share of the window's seconds in which an engine may be busy."""
MOST_UNSTAMPED = 0.01
"""Share of turns without the kernel's stamps that moves no percentile we show by more than its interval."""
SUSPECT_STOLEN, NOTED_STOLEN = 0.05, 0.01
"""Share of a CPU's time that the machine's host took."""
INVALID_RATE, SUSPECT_RATE = 0.95, 0.99
"""Conversations begun, as a share of those that should have been."""
RATE_SIGMAS = 3.0
"""A shortfall of arrivals within so many standard deviations of their process is chance."""

_FAULT_REMEDIES = {
    "client_ports": "no local port was left: use fewer new connections a second, more workers, or widen "
    "net.ipv4.ip_local_port_range",
    "client_files": "the client ran out of file descriptors: raise the limit (ulimit -n) or use more workers",
}


def faults(at: LevelEvidence) -> Iterator[Finding]:
    """Turns that this machine could not send."""
    frame = at.study.frame
    counts = frame[frame["counts"] & (frame["level"] == at.level.index)]["outcome"].value_counts()
    for name in CLIENT_FAULTS:
        if name in counts:
            what = f"{counts[name]} turns ended as {name}"
            yield at.finding("invalid", "client_fault", what, _FAULT_REMEDIES[name])


def late(at: LevelEvidence) -> Iterator[Finding]:
    """Turns sent after they were due."""
    late_ms = at.rows["first_late_ms"]
    p99_ms = _p99(late_ms)
    if p99_ms <= SUSPECT_LATE_MS:
        return
    severity: Severity = "invalid" if p99_ms > INVALID_LATE_MS else "suspect"
    fewer = "" if at.level.users == 1 else "use fewer people a worker (--processes, more machines) or "
    remedy = f"{fewer}a faster client machine, or end what else runs on this one"
    if _p99(late_ms - np.nan_to_num(floats(at.rows["connect_us"])) / 1e3) <= SUSPECT_LATE_MS:
        remedy = (
            "opening connections takes this long: see the network and the server's accept queue, and --warmup"
        )
    what = f"turns were sent late by the client, p99 {p99_ms:.1f} ms after they were due"
    yield at.finding(severity, "late", what, remedy)


def _p99(values: pd.Series) -> float:
    known = values.dropna()
    return float(known.quantile(0.99)) if len(known) else 0.0


def before_sent(at: LevelEvidence) -> Iterator[Finding]:
    """Answers that came before their request had left: times are never clipped, so this shows."""
    early = at.rows["ttft_ms"] < 0
    if early.any():
        what = f"{int(early.sum())} turns have an answer from before their request was sent"
        remedy = "clocks of this machine disagree: report it with run.json, and try --clock kernel"
        yield at.finding("suspect", "before_sent", what, remedy)


def lag(at: LevelEvidence) -> Iterator[Finding]:
    """Data seen late, where no stamp of the kernel corrects for it."""
    own = at.rows[at.rows["clock"] == "user"]
    if 0 < len(own) <= MOST_UNSTAMPED * len(at.rows):
        what = (
            f"{len(own)} of {len(at.rows)} turns lack the kernel's stamps: their times are the client's own"
        )
        yield at.finding("note", "unstamped", what, "none is needed for so few of them")
        return
    lag_ms = lag_p99_ms(at.study, own, at.level)
    if len(own) and lag_ms is not None and lag_ms > INVALID_LAG_MS:
        what = f"the client saw data late (p99 {lag_ms:.1f} ms) and had no kernel clock to correct for it"
        remedy = "run the client on Linux with --clock kernel, or with fewer people a worker"
        yield at.finding("invalid", "lag", what, remedy)


def coalesced(at: LevelEvidence) -> Iterator[Finding]:
    share = coalesced_share(at.rows, at.study)
    if share > MOST_COALESCED:
        what = (
            f"{share:.1%} of events shared a read with an earlier one, "
            "so percentiles of the gaps between events are not given"
        )
        remedy = "use more workers so that reads are not late; if the server itself sends in bursts, use TPOT"
        yield at.finding("suspect", "coalesced", what, remedy)


def busy(at: LevelEvidence) -> Iterator[Finding]:
    for worker, share in cpu_busy(at.study, at.level).items():
        if share > BUSY_SECONDS:
            what = (
                f"the engine of worker {worker} used 90 % of a core or more in {share:.0%} of the window's "
                "seconds"
            )
            remedy = "add workers (--processes) or machines, so that the client is not the limit"
            yield at.finding("suspect", "cpu", what, remedy)


def stolen(at: LevelEvidence) -> Iterator[Finding]:
    """Workers of one machine see the same: the one that saw the most stands for all."""
    shares = stolen_shares(at.study, at.level)
    worker = max(shares, key=shares.__getitem__, default=None)
    if worker is None or shares[worker][0] <= NOTED_STOLEN:
        return
    mean, most = shares[worker]
    severity: Severity = "suspect" if mean > SUSPECT_STOLEN else "note"
    what = (
        f"the host of worker {worker}'s machine took {mean:.1%} of a CPU's time, {most:.0%} in one second: "
        "what ran on it stood still meanwhile, and no clock can correct for that"
    )
    remedy = "measure on a machine that is not shared, or again when its neighbours are quiet"
    yield at.finding(severity, "stolen", what, remedy)


def rate(at: LevelEvidence) -> Iterator[Finding]:
    """Open loop: the arrival rate that was asked for was not reached."""
    reached = rate_reached(at.study, at.level)
    if reached is None or reached >= SUSPECT_RATE:
        return
    severity: Severity = "invalid" if reached < INVALID_RATE else "suspect"
    what = f"{reached:.1%} of the conversations due at {at.level.arrival_rate_per_s:g}/s began"
    remedy = "add workers (--processes) or machines, or lower --arrival-rate"
    yield at.finding(severity, "rate", what, remedy)


def rate_reached(study: Study, level: Level) -> float | None:
    """Conversations begun in the window as a share of those that should have been; None in closed loop.

    Arrivals are random, so a window may well hold fewer than rate x length. Those that became due in it
    are what is compared, drops included; only a shortfall from rate x length that chance does not explain
    (three standard deviations of the arrival process) is taken for one.
    """
    if not level.arrival_rate_per_s or level.window_s <= 0:
        return None
    first = study.frame[study.frame["counts"] & (study.frame["turn"] == 1)]
    due = _inside(first["due_ns"].to_numpy(dtype=np.int64), level)
    # A turn that could not even be sent (no connection) was begun all the same: that is the server's.
    sent = _inside(first["moment_ns"].to_numpy(dtype=np.int64), level) & ~first["outcome"].isin(NOT_BEGUN)
    wanted = int(due.sum()) + _dropped(study, level)
    nominal = level.arrival_rate_per_s * level.window_s
    burstiness = study.manifest.settings.get(
        "burstiness"
    )  # gamma gaps: a count's variance is its mean over it
    shape = float(burstiness) if isinstance(burstiness, int | float) and burstiness > 0 else 1.0
    if nominal - wanted > RATE_SIGMAS * np.sqrt(nominal / shape):
        wanted = round(nominal)
    return min(float(sent.sum()) / wanted, 1.0) if wanted else None


def _inside(at_ns: Ints, level: Level) -> Bools:
    return (at_ns >= level.window_start_ns) & (at_ns < level.window_end_ns)


def _dropped(study: Study, level: Level) -> int:
    """Turns dropped in the window by the health lines, where they have no record of their own."""
    if study.frame["outcome"].isin(NOT_BEGUN).any():
        return 0
    total = 0
    for _, lines in study.health.dropna(subset=["dropped"]).groupby("worker"):
        before = lines[lines["t_ns"] <= level.window_start_ns]["dropped"]
        until = lines[lines["t_ns"] <= level.window_end_ns]["dropped"]
        total += int(until.max() if len(until) else 0) - int(before.max() if len(before) else 0)
    return total

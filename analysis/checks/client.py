"""What the client itself may have spoilt at one level: late sending, late seeing, too little CPU or load."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np

from analysis.checks.answers import is_held_back
from analysis.checks.evidence import LevelEvidence
from analysis.measures.client import cpu_busy, lag_p99_ms, stolen_shares
from analysis.measures.distribution import MOST_COALESCED, coalesced_share
from analysis.measures.throughput import streams_mean
from analysis.turns.frame import floats
from analysis.turns.levels import Level
from analysis.turns.study import Study
from turnbench.findings import FindingKind, invalid, note, suspect
from turnbench.formats import Finding, Severity
from turnbench.outcomes import CLIENT_FAULTS, NOT_BEGUN
from turnbench.stats.distributions import binomial_tail
from turnbench.stats.percentiles import LEAST_N
from turnbench.turns import Bools, Floats, Ints

INVALID_LATE_MS = 100.0
"""Open loop, p99 of sent - due: a tenth of a second is what people notice as a delay (Miller 1968)."""
SUSPECT_LATE_MS = 10.0
"""A tenth of that."""
INVALID_LATE_SHARE, SUSPECT_LATE_SHARE = 0.10, 0.01
"""Closed loop, sum of lateness over that of lateness and time to generate: the load that was not made."""
OWN_LATE_MS, OWN_LATE_SHARE = 2.0, 0.05
"""Closed loop: reading an answer and asking again took 0.9 to 1.3 ms (docs/clocks.md). Up to this mean, a
share of the load that is missing is a note, if no larger than that."""
SURE_OF_LATE = 0.05
"""p of the binomial test that more than 1 % of turns were late, where there are too few for a p99."""
INVALID_LAG_MS = 20.0
"""p99 of late seeing, where no kernel stamp corrects for it: a token's time on a quick server."""
PROMPT_LAG_MS = 1.0
"""Up to here reads are in time: no server makes several events within it one by one."""
BUSY_SECONDS = 0.10
"""Share of the window's seconds in which an engine may be busy."""
MOST_UNSTAMPED = 0.01
"""Share of turns without the kernel's stamps that moves no percentile we show by more than its interval."""
SUSPECT_STOLEN, NOTED_STOLEN = 0.05, 0.01
"""Share of a CPU's time that the machine's host took."""
INVALID_RATE, SUSPECT_RATE = 0.95, 0.99
"""Conversations begun, as a share of those that should have been."""
RATE_SIGMAS = 3.0
"""Where no plan fixes their number, a shortfall within so many standard deviations is chance."""

_FAULT_REMEDIES = {
    "client_ports": "no local port was left: use fewer new connections a second, more workers, or widen "
    "net.ipv4.ip_local_port_range",
    "client_files": "the client ran out of file descriptors: raise the limit (ulimit -n) or use more workers",
}
_FEWER = "use fewer people a worker (--processes, more machines)"
_LIGHTER = {
    "alone": "end what else runs on the client's machine, or take a faster one: a person has one worker",
    "on each core": "use more machines: this one has a worker for each of its cores already",
    "busy": _FEWER,
    "idle": f"{_FEWER}, or end what else runs on the client's machine: its engine had CPU to spare",
}
"""What makes a client quicker that was too slow; nobody is advised to share what can't be shared."""
_KNOWN = {"lighter": _LIGHTER.values()}

# fmt: off
CLIENT_FAULT = invalid("client_fault",
    "{} turns ended as {}",
    "{remedy}",
    {"remedy": _FAULT_REMEDIES.values()})
LATE = FindingKind(("invalid", "suspect", "note"), "late",
    "{what}",
    "{lighter}",
    {"what": ["Turns sent after they were due"], **_KNOWN})
LATE_CONNECTING = replace(LATE,
    remedy="opening connections takes this long: see the network and the server's accept queue, and --warmup")
LATE_OWN = replace(LATE,
    remedy="nothing to mend: with longer answers, or people who think (--think-time), it is less of the time")
BEFORE_SENT = suspect("before_sent",
    "{} turns have an answer from before their request was sent, or from that moment",
    "clocks of this machine disagree: report it with run.json, and try --clock kernel")
UNSTAMPED = note("unstamped",
    "{} of {} turns lack the kernel's stamps: their times are the client's own",
    "none is needed for so few of them")
LAG = invalid("lag",
    "the client saw data late (p99 {:.1f} ms) and had no kernel clock to correct for it",
    "run it on Linux with --clock kernel, or {lighter}",
    _KNOWN)
COALESCED = suspect("coalesced",
    "{:.1%} of events shared a read with an earlier one, so percentiles of the gaps between events are not "
    "given",
    "the client was in time, so the server sends in bursts, or a gateway does: use TPOT",
    _KNOWN)
COALESCED_LATE = replace(COALESCED, remedy="{lighter}; if the server itself sends in bursts, use TPOT")
CPU = suspect("cpu",
    "the engine of worker {} used 90 % of a core or more in {:.0%} of the window's seconds",
    "{lighter}",
    _KNOWN)
STOLEN = FindingKind(("suspect", "note"), "stolen",
    "the host of worker {}'s machine took {:.1%} of a CPU's time, {:.0%} in one second: what ran on it stood "
    "still meanwhile, and no clock can correct for that",
    "measure on a machine that is not shared, or again when its neighbours are quiet")
RATE = FindingKind(("invalid", "suspect"), "rate",
    "{:.1%} of the conversations due at {:g}/s began",
    "lower --arrival-rate, or {lighter}",
    _KNOWN)
# fmt: on


def faults(at: LevelEvidence) -> Iterator[Finding]:
    """Turns that this machine could not send."""
    frame = at.study.frame
    counts = frame[frame["counts"] & (frame["level"] == at.level.index)]["outcome"].value_counts()
    for name in CLIENT_FAULTS:
        if name in counts:
            yield at.finding(CLIENT_FAULT, counts[name], name, remedy=_FAULT_REMEDIES[name])


def late(at: LevelEvidence) -> Iterator[Finding]:
    """Turns sent after they were due.

    In closed loop lateness after a reply enters no wait, it lowers the load: its share of the time is judged.
    In open loop a turn that is late is late in its response delay: the p99 is judged.
    """
    late_ms = np.maximum(np.nan_to_num(floats(at.rows["first_late_ms"])), 0.0)
    judge = late_open if at.level.arrival_rate_per_s else partial(_late_closed, at)
    found = judge(late_ms)
    if found is None:
        return
    severity, what = found
    connecting_ms = np.nan_to_num(floats(at.rows["connect_us"])) / 1e3
    if severity == "note":
        kind = LATE_OWN
    else:
        kind = LATE if judge(np.maximum(late_ms - connecting_ms, 0.0)) is not None else LATE_CONNECTING
    yield at.finding(kind, severity=severity, what=what, lighter=_lighter(at))


def late_share(late_ms: Floats, answering_ms: Floats) -> float:
    """Closed loop: the part of the time in which people waited for the client and not for an answer."""
    late, answering = float(late_ms.sum()), float(np.nansum(answering_ms))
    return late / (late + answering) if late + answering > 0 else 0.0


def _late_closed(at: LevelEvidence, late_ms: Floats) -> tuple[Severity, str] | None:
    answering_ms = np.fmax(floats(at.rows["ttg_ms"]), floats(at.rows["end_ns"] - at.rows["sent_ns"]) / 1e6)
    share = late_share(late_ms, answering_ms)
    if share <= SUSPECT_LATE_SHARE:
        return None
    streams = streams_mean(at.study.frame, at.level)
    reached = "" if streams is None else f": {streams:.2f} of {at.level.load} streams were in flight"
    what = f"turns were sent late by the client for {share:.1%} of the time, which lowers the load{reached}"
    if share <= OWN_LATE_SHARE and late_ms.mean() <= OWN_LATE_MS:
        return "note", f"{what} ({late_ms.mean():.1f} ms a turn, as a client takes to read and to ask)"
    return "invalid" if share > INVALID_LATE_SHARE else "suspect", what


def late_open(late_ms: Floats) -> tuple[Severity, str] | None:
    """Whether turns of an open loop that began so late make a level less than valid, and in what words."""
    turns = len(late_ms)
    severities: tuple[tuple[Severity, float], ...] = (
        ("invalid", INVALID_LATE_MS),
        ("suspect", SUSPECT_LATE_MS),
    )
    for severity, limit_ms in severities:
        if turns >= LEAST_N["p99"]:
            p99_ms = float(np.quantile(late_ms, 0.99))
            if p99_ms > limit_ms:
                what = f"turns were sent late by the client, p99 {p99_ms:.1f} ms after they were due"
                return severity, what
        elif turns:
            over = int((late_ms > limit_ms).sum())
            if over and binomial_tail(over, turns, 0.01) < SURE_OF_LATE:
                what = (
                    f"{over} of {turns} turns were sent over {limit_ms:g} ms late by the client, at most "
                    f"{late_ms.max():.1f} ms: surely more than 1 %"
                )
                return severity, what
    return None


def before_sent(at: LevelEvidence) -> Iterator[Finding]:
    """Answers that came before their request had left, or in the same microsecond: no network is that quick.

    Times are never clipped, so this shows; versions before 0.2.0 took the answer's head for the request's end
    where they had noted that one later, and recorded a wait of 0.
    """
    early = at.rows["ttft_ms"] <= 0
    if early.any():
        yield at.finding(BEFORE_SENT, int(early.sum()))


def lag(at: LevelEvidence) -> Iterator[Finding]:
    """Data seen late, where no stamp of the kernel corrects for it."""
    unstamped = at.rows["clock"] == "user"
    if not unstamped.any():
        return
    if (count := int(unstamped.sum())) <= MOST_UNSTAMPED * len(at.rows):
        yield at.finding(UNSTAMPED, count, len(at.rows))
        return
    lag_ms = lag_p99_ms(at.study, at.rows[unstamped], at.level)
    if lag_ms is not None and lag_ms > INVALID_LAG_MS:
        yield at.finding(LAG, lag_ms, lighter=_lighter(at))


def coalesced(at: LevelEvidence) -> Iterator[Finding]:
    share = coalesced_share(at.rows, at.study)
    if share > MOST_COALESCED and not is_held_back(at):  # that is said by itself, and no worker helps there
        lag_ms = lag_p99_ms(at.study, at.rows, at.level)
        kind = COALESCED_LATE if lag_ms is None or lag_ms > PROMPT_LAG_MS else COALESCED
        yield at.finding(kind, share, lighter=_lighter(at))


def busy(at: LevelEvidence) -> Iterator[Finding]:
    for worker, share in cpu_busy(at.study, at.level).items():
        if share > BUSY_SECONDS:
            yield at.finding(CPU, worker, share, lighter=_lighter(at))


def stolen(at: LevelEvidence) -> Iterator[Finding]:
    """Workers of one machine see the same: the one that saw the most stands for all."""
    shares = stolen_shares(at.study, at.level)
    worker = max(shares, key=shares.__getitem__, default=None)
    if worker is None or shares[worker][0] <= NOTED_STOLEN:
        return
    mean, most = shares[worker]
    yield at.finding(STOLEN, worker, mean, most, severity="suspect" if mean > SUSPECT_STOLEN else "note")


def rate(at: LevelEvidence) -> Iterator[Finding]:
    """Open loop: the arrival rate that was asked for was not reached."""
    reached = rate_reached(at.study, at.level)
    if reached is None or reached >= SUSPECT_RATE:
        return
    severity = "invalid" if reached < INVALID_RATE else "suspect"
    yield at.finding(RATE, reached, at.level.arrival_rate_per_s, severity=severity, lighter=_lighter(at))


def _lighter(at: LevelEvidence) -> str:
    manifest = at.study.manifest
    workers, cores = max(len(manifest.workers), 1), manifest.host.get("cores") or manifest.host.get("cpus")
    if at.level.users is not None and at.level.users <= workers:
        return _LIGHTER["alone"]
    if isinstance(cores, int) and workers >= cores:
        return _LIGHTER["on each core"]
    busiest = max(cpu_busy(at.study, at.level).values(), default=0.0)
    return _LIGHTER["busy" if busiest > BUSY_SECONDS else "idle"]


def rate_reached(study: Study, level: Level) -> float | None:
    """Conversations begun in the window over those that should have been; None in closed loop.

    The plan fixes the number of arrivals in a window, from 100 on. Where it does not, and in runs from before
    it did, a window may well hold fewer: those that became due in it are what is compared, drops included,
    and only a shortfall that chance does not explain (three standard deviations of the arrival process) is
    taken for one.
    """
    if not level.arrival_rate_per_s or level.window_s <= 0:
        return None
    first = study.frame[study.frame["counts"] & (study.frame["turn"] == 1)]
    due = _inside(first["due_ns"].to_numpy(dtype=np.int64), level)
    # A turn that could not even be sent (no connection) was begun all the same: that is the server's.
    sent = _inside(first["moment_ns"].to_numpy(dtype=np.int64), level) & ~first["outcome"].isin(NOT_BEGUN)
    wanted = int(due.sum()) + _dropped(study, level)
    nominal = level.arrival_rate_per_s * level.window_s
    burstiness = study.manifest.settings.get("burstiness")
    # Of gamma gaps a count's variance is its mean over their shape.
    shape = float(burstiness) if isinstance(burstiness, int | float) and burstiness > 0 else 1.0
    planned = level.planned_arrivals
    if planned is not None and abs(nominal - planned) < 1:  # not a window that was ended early
        wanted = planned
    elif nominal - wanted > RATE_SIGMAS * np.sqrt(nominal / shape):
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

"""What can be wrong with one level: each check gives its findings, with what to do next."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.cells import MOST_COALESCED, coalesced_share
from analysis.client import cpu_busy, lag_p99_ms
from analysis.finding import Finding
from analysis.levels import Level
from analysis.rate import rate_findings
from analysis.steadiness import drift
from analysis.study import Study
from analysis.turn_metrics import floats
from analysis.warmup import too_short

INVALID_LATE_MS = 100.0
SUSPECT_LATE_MS = 10.0
INVALID_LAG_MS = 20.0
MOST_FAILED = 0.01
BUSY_SECONDS = 0.10

_CLIENT_FAULTS = {
    "client_ports": "no local port was left: use fewer new connections a second, more workers, or widen "
    "net.ipv4.ip_local_port_range",
    "client_files": "the client ran out of file descriptors: raise the limit (ulimit -n) or use more workers",
}


def finished(rows: pd.DataFrame) -> int:
    """How many of these turns got their whole answer."""
    return int((rows["outcome"] == "ok").sum())


def nothing_finished(study: Study, at: int | None) -> Finding:
    """No turn of the run, or of the level `at`, got its answer."""
    turns = (
        study.frame[study.frame["counts"]] if at is None else study.measured[study.measured["level"] == at]
    )
    seen = turns["outcome"].value_counts()
    where = "in the run" if at is None else f"in the window of level {at}"
    named = ", ".join(f"{count} {name}" for name, count in seen.items()) or "no turn was sent"
    remedy = "see that the server answers and the window is longer than an answer takes (--hold, --drain)"
    return Finding("invalid", "no_turns", f"no turn finished {where} ({named})", remedy, at)


def level_findings(study: Study, level: Level) -> list[Finding]:
    """Everything wrong with one level."""
    rows = study.measured[study.measured["level"] == level.index]
    found = [] if level.whole else [_not_whole(level)]
    if not finished(rows):
        found.append(nothing_finished(study, level.index))
    if rows.empty:
        return found
    checks = (_faults, _late, _lag, _coalesced, _failed, _unfinished, _busy, _warm, drift)
    for check in checks:
        found += check(study, level, rows)
    return found + rate_findings(study, level)


def _not_whole(level: Level) -> Finding:
    what = f"the window of level {level.index} was not completed: its numbers are of what there is"
    return Finding("suspect", "window", what, "run this level again", level.index)


def _faults(study: Study, level: Level, rows: pd.DataFrame) -> list[Finding]:
    counts = study.frame[study.frame["counts"] & (study.frame["level"] == level.index)][
        "outcome"
    ].value_counts()
    return [
        Finding("invalid", "client_fault", f"{counts[name]} turns ended as {name}", remedy, level.index)
        for name, remedy in _CLIENT_FAULTS.items()
        if counts.get(name, 0)
    ]


def _late(study: Study, level: Level, rows: pd.DataFrame) -> list[Finding]:
    late_ms = rows["first_late_ms"].dropna()
    p99_ms = float(late_ms.quantile(0.99)) if len(late_ms) else 0.0
    if p99_ms <= SUSPECT_LATE_MS:
        return []
    severity = "invalid" if p99_ms > INVALID_LATE_MS else "suspect"
    connect_ms = np.nan_to_num(floats(rows["connect_us"])) / 1e3
    by_connect = float((rows["first_late_ms"] - connect_ms).quantile(0.99)) <= SUSPECT_LATE_MS
    remedy = "use fewer people a worker (--processes, more machines) or a faster client machine"
    if by_connect:
        remedy = (
            "opening connections takes this long: see the network and the server's accept queue, and --warmup"
        )
    what = f"level {level.index}: turns were sent late by the client, p99 {p99_ms:.1f} ms after they were due"
    return [Finding(severity, "late", what, remedy, level.index)]


def _lag(study: Study, level: Level, rows: pd.DataFrame) -> list[Finding]:
    lag_ms = lag_p99_ms(study, rows, level)
    if not (rows["clock"] == "user").any() or lag_ms is None or lag_ms <= INVALID_LAG_MS:
        return []
    what = (
        f"level {level.index}: the client saw data late (p99 {lag_ms:.1f} ms) and had no kernel clock "
        "to correct for it"
    )
    remedy = "run the client on Linux with --clock kernel, or with fewer people a worker"
    return [Finding("invalid", "lag", what, remedy, level.index)]


def _coalesced(study: Study, level: Level, rows: pd.DataFrame) -> list[Finding]:
    share = coalesced_share(rows, study)
    if share <= MOST_COALESCED:
        return []
    what = (
        f"level {level.index}: {share:.1%} of events shared a read with an earlier one, "
        "so percentiles of the gaps between events are not told"
    )
    remedy = "use more workers so that reads are not late; if the server itself sends in bursts, use TPOT"
    return [Finding("suspect", "coalesced", what, remedy, level.index)]


def _failed(study: Study, level: Level, rows: pd.DataFrame) -> list[Finding]:
    bad = rows[~rows["outcome"].isin(["ok", "unfinished"])]
    if len(bad) <= MOST_FAILED * len(rows):
        return []
    named = ", ".join(f"{count} {name}" for name, count in bad["outcome"].value_counts().items())
    from_s, to_s = (
        (int(at) - level.window_start_ns) / 1e9 for at in (bad["moment_ns"].min(), bad["moment_ns"].max())
    )
    what = (
        f"level {level.index}: {len(bad)} of {len(rows)} turns failed ({named}), sent from {from_s:.0f} to "
        f"{to_s:.0f} s of the window"
    )
    remedy = "see the errors in turns-*.jsonl and the server's log: times are of the turns that got through"
    return [Finding("suspect", "failed", what, remedy, level.index)]


def _unfinished(study: Study, level: Level, rows: pd.DataFrame) -> list[Finding]:
    count = int((rows["outcome"] == "unfinished").sum())
    if not count:
        return []
    what = (
        f"level {level.index}: {count} of {len(rows)} turns had not ended when the drain was over; "
        "they rank above all finished ones"
    )
    # Over 1 % of turns without an answer is what "failed" is for, whatever kept the answer away.
    severity = "suspect" if count > MOST_FAILED * len(rows) else "note"
    return [
        Finding(severity, "unfinished", what, "give them longer (--drain) or lower the load", level.index)
    ]


def _busy(study: Study, level: Level, rows: pd.DataFrame) -> list[Finding]:
    found = []
    for worker, share in cpu_busy(study, level).items():
        if share > BUSY_SECONDS:
            what = (
                f"level {level.index}: the engine of worker {worker} used 90 % of a core or more "
                f"in {share:.0%} of the window's seconds"
            )
            remedy = "add workers (--processes) or machines, so that the client is not the limit"
            found.append(Finding("suspect", "cpu", what, remedy, level.index))
    return found


def _warm(study: Study, level: Level, rows: pd.DataFrame) -> list[Finding]:
    ok = rows[rows["outcome"] == "ok"].sort_values("moment_ns")
    values = ok["ttg_ms"].dropna()
    early = too_short(values.to_numpy(dtype=np.float64))
    if early is None:
        return []
    cut, share = early
    seconds = (ok.loc[values.index[cut], "moment_ns"] - level.window_start_ns) / 1e9
    what = (
        f"level {level.index}: the first {cut} turns took {share:+.0%} as long as the rest: "
        "the warm-up was too short"
    )
    return [
        Finding(
            "suspect", "warmup", what, f"lengthen --warmup by {max(seconds, 1):.0f} s or more", level.index
        )
    ]

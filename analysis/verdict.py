"""The verdict: is this a measurement of the server, and what to do if it isn't."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.cells import MOST_COALESCED, coalesced_share
from analysis.client import cpu_busy, lag_p99_ms
from analysis.finding import Finding
from analysis.ledger import Ledger, ledger_findings
from analysis.levels import NO_LEVEL, Level, dicts
from analysis.rate import rate_findings
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


def findings_of(study: Study, ledger: Ledger) -> list[Finding]:
    """Everything wrong with a run: the load generator's own findings first, then ours, level by level."""
    found = _own(study) + _status(study) + ledger_findings(study, ledger) + _reading(study)
    if not _finished(study.frame[study.frame["counts"]]):
        found.append(_nothing(study, None))
    else:
        for level in study.levels:
            found += _level(study, level)
    return list(dict.fromkeys(found))


def _own(study: Study) -> list[Finding]:
    return [
        Finding(*(str(item.get(key, "")) for key in ("level", "check", "what", "remedy")))
        for item in dicts(study.manifest.get("findings"))
    ]


def _status(study: Study) -> list[Finding]:
    status = study.manifest.get("status")
    if status == "finished":
        return []
    if status == "interrupted":
        what, remedy = "the run was interrupted: this report is partial", "run again for whole levels"
        return [Finding("suspect", "partial", what, remedy)]
    if status == "running":
        what = "the run is incomplete: it still runs, or was killed before it could end"
        return [Finding("invalid", "incomplete", what, "analyse it again once it has ended, or run again")]
    what = f"the run did not end well: its status is {status!r}"
    return [
        Finding("invalid", "status", what, "see the other findings and the run's messages, then run again")
    ]


def _reading(study: Study) -> list[Finding]:
    found = []
    if study.torn:
        what = f"{study.torn} line(s) could not be read, as after a crash in mid-write; they are left out"
        found.append(Finding("note", "torn", what, "nothing to do if the ledger closes"))
    odd = study.measured[(study.measured["token_scale"] != 1) & (study.measured["outcome"] == "ok")]
    if len(odd):
        what = (
            f"in {len(odd)} turns the server's token count does not fit its events: "
            "TPOT and token arrivals assume tokens spread evenly over events"
        )
        remedy = "use a server that offers continuous_usage_stats, which tells the tokens of each event"
        found.append(Finding("note", "token_split", what, remedy))
    guessed = study.measured[
        (study.measured["token_source"] == "events") & (study.measured["outcome"] == "ok")
    ]
    if len(guessed):
        what = f"in {len(guessed)} turns the server gave no token count: events were counted as tokens"
        remedy = (
            "have the server send usage (stream_options.include_usage) before comparing tokens per second"
        )
        found.append(Finding("note", "token_source", what, remedy))
    outside = study.frame[study.frame["counts"] & (study.frame["level"] == NO_LEVEL)]
    if len(outside):
        what = f"{len(outside)} turns lie outside every level and are not measured"
        remedy = "nothing to do if the run was cut short; else check the workers' clock offsets in run.json"
        found.append(Finding("note", "outside", what, remedy))
    return found


def _finished(rows: pd.DataFrame) -> int:
    return int((rows["outcome"] == "ok").sum())


def _nothing(study: Study, at: int | None) -> Finding:
    turns = (
        study.frame[study.frame["counts"]] if at is None else study.measured[study.measured["level"] == at]
    )
    seen = turns["outcome"].value_counts()
    where = "in the run" if at is None else f"in the window of level {at}"
    named = ", ".join(f"{count} {name}" for name, count in seen.items()) or "no turn was sent"
    remedy = "see that the server answers and the window is longer than an answer takes (--hold, --drain)"
    return Finding("invalid", "no_turns", f"no turn finished {where} ({named})", remedy, at)


def _level(study: Study, level: Level) -> list[Finding]:
    rows = study.measured[study.measured["level"] == level.index]
    found = [] if level.whole else [_not_whole(level)]
    if not _finished(rows):
        found.append(_nothing(study, level.index))
    if rows.empty:
        return found
    checks = (_faults, _late, _lag, _coalesced, _failed, _unfinished, _busy, _warm)
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
    what = f"level {level.index}: {len(bad)} of {len(rows)} turns failed ({named})"
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

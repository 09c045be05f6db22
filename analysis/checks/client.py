"""What the client itself may have spoilt at one level: late sending, late seeing, too little CPU."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from analysis.checks.finding import of_level
from analysis.measures.cells import MOST_COALESCED, coalesced_share
from analysis.measures.client import cpu_busy, lag_p99_ms, stolen_shares
from analysis.turns.frame import floats
from analysis.turns.levels import Level
from analysis.turns.study import Study
from turnbench.formats import Finding, Severity

INVALID_LATE_MS = 100.0
SUSPECT_LATE_MS = 10.0
INVALID_LAG_MS = 20.0
BUSY_SECONDS = 0.10
MOST_UNSTAMPED = 0.01
SUSPECT_STOLEN, NOTED_STOLEN = 0.05, 0.01

_FAULTS = {
    "client_ports": "no local port was left: use fewer new connections a second, more workers, or widen "
    "net.ipv4.ip_local_port_range",
    "client_files": "the client ran out of file descriptors: raise the limit (ulimit -n) or use more workers",
}


def client_findings(study: Study, level: Level, rows: pd.DataFrame) -> Iterator[Finding]:
    """All of them; `rows` are the level's measured turns."""
    for check in (_faults, _late, _lag, _coalesced, _busy, _stolen):
        yield from check(study, level, rows)


def _faults(study: Study, level: Level, rows: pd.DataFrame) -> Iterator[Finding]:
    mine = study.frame[study.frame["counts"] & (study.frame["level"] == level.index)]
    counts = mine["outcome"].value_counts()
    for name, remedy in _FAULTS.items():
        if name in counts:
            what = f"{counts[name]} turns ended as {name}"
            yield of_level(level.index, "invalid", "client_fault", what, remedy)


def _late(study: Study, level: Level, rows: pd.DataFrame) -> Iterator[Finding]:
    p99_ms = _p99(rows["first_late_ms"])
    if p99_ms <= SUSPECT_LATE_MS:
        return
    severity: Severity = "invalid" if p99_ms > INVALID_LATE_MS else "suspect"
    remedy = "use fewer people a worker (--processes, more machines) or a faster client machine"
    if _p99(rows["first_late_ms"] - np.nan_to_num(floats(rows["connect_us"])) / 1e3) <= SUSPECT_LATE_MS:
        remedy = (
            "opening connections takes this long: see the network and the server's accept queue, and --warmup"
        )
    what = f"turns were sent late by the client, p99 {p99_ms:.1f} ms after they were due"
    yield of_level(level.index, severity, "late", what, remedy)


def _p99(values: pd.Series) -> float:
    known = values.dropna()
    return float(known.quantile(0.99)) if len(known) else 0.0


def _lag(study: Study, level: Level, rows: pd.DataFrame) -> Iterator[Finding]:
    own = rows[rows["clock"] == "user"]
    if 0 < len(own) <= MOST_UNSTAMPED * len(rows):
        what = f"{len(own)} of {len(rows)} turns lack the kernel's stamps: their times are the client's own"
        yield of_level(level.index, "note", "unstamped", what, "none is needed for so few of them")
        return
    lag_ms = lag_p99_ms(study, own, level)
    if len(own) and lag_ms is not None and lag_ms > INVALID_LAG_MS:
        what = f"the client saw data late (p99 {lag_ms:.1f} ms) and had no kernel clock to correct for it"
        remedy = "run the client on Linux with --clock kernel, or with fewer people a worker"
        yield of_level(level.index, "invalid", "lag", what, remedy)


def _coalesced(study: Study, level: Level, rows: pd.DataFrame) -> Iterator[Finding]:
    share = coalesced_share(rows, study)
    if share > MOST_COALESCED:
        what = (
            f"{share:.1%} of events shared a read with an earlier one, "
            "so percentiles of the gaps between events are not told"
        )
        remedy = "use more workers so that reads are not late; if the server itself sends in bursts, use TPOT"
        yield of_level(level.index, "suspect", "coalesced", what, remedy)


def _busy(study: Study, level: Level, rows: pd.DataFrame) -> Iterator[Finding]:
    for worker, share in cpu_busy(study, level).items():
        if share > BUSY_SECONDS:
            what = (
                f"the engine of worker {worker} used 90 % of a core or more in {share:.0%} of the window's "
                "seconds"
            )
            remedy = "add workers (--processes) or machines, so that the client is not the limit"
            yield of_level(level.index, "suspect", "cpu", what, remedy)


def _stolen(study: Study, level: Level, rows: pd.DataFrame) -> Iterator[Finding]:
    """Workers of one machine see the same: the one that saw the most speaks for all."""
    shares = stolen_shares(study, level)
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
    yield of_level(level.index, severity, "stolen", what, remedy)

"""The client itself: its clock, lag and CPU, so that its slowness is not taken for the server's."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.measures.distribution import coalesced_share
from analysis.turns.levels import Level
from analysis.turns.study import Study
from turnbench.formats import ClientSummary
from turnbench.turns import Bools, Floats

BUSY_CPU_SHARE = 0.9


def client_of(study: Study) -> ClientSummary:
    """The client over the windows of all levels."""
    rows = study.measured
    cpu = _in_windows(study, "cpu_share", study.levels)
    stolen = _in_windows(study, "stolen_share", study.levels)
    return ClientSummary(
        clock=" and ".join(sorted(set(rows["clock"]))) or None,
        clock_shares={str(name): float(n) for name, n in rows["clock"].value_counts(normalize=True).items()},
        sent_by_kernel_share=float((rows["sent_clock"] == "tx").mean()) if len(rows) else None,
        write_after_sent_ms=_p99_ms((rows["write_ns"] - rows["sent_ns"]) / 1e6),
        late_ms=_p99_ms(rows["first_late_ms"]),
        read_after_packet_ms=_p99_ms(rows["read_after_us"] / 1e3),
        lag_ms=lag_p99_ms(study, rows),
        coalesced_share=coalesced_share(rows, study) if len(rows) else None,
        cpu_share=float(cpu.mean()) if len(cpu) else None,
        lag_max_ms=float(rows["lag_us_max"].max()) / 1e3 if len(rows) else None,
        stolen_share=float(stolen.mean()) if len(stolen) else None,
        cpu_share_max=float(cpu.max()) if len(cpu) else None,
    )


def _p99_ms(values: pd.Series) -> float | None:
    known = values.dropna()
    return float(known.astype(float).quantile(0.99)) if len(known) else None


def lag_p99_ms(study: Study, rows: pd.DataFrame, level: Level | None = None) -> float | None:
    """p99 of how late the client saw data: of each turn's longest lag by the kernel's clock.

    A user-space clock can't see its own lag, so there the event loop's lag stands for it, if it is worse.
    """
    seen: list[Floats] = []
    if len(rows):
        seen.append(rows["lag_us_max"].to_numpy(dtype=np.float64) / 1e3)
    if (rows["clock"] == "user").any():
        seen.append(_in_windows(study, "loop_lag_ms", [level] if level else study.levels))
    ends = [float(np.quantile(part, 0.99)) for part in seen if len(part)]
    return max(ends, default=None)


def cpu_busy(study: Study, level: Level) -> dict[int, float]:
    """Share of the window's seconds in which each worker's engine used 90 % of a core or more."""
    health = study.health.loc[_within(study, [level]), ["worker", "cpu_share"]].dropna()
    busy = (health["cpu_share"] >= BUSY_CPU_SHARE).groupby(health["worker"].astype(int)).mean()
    return {int(worker): float(share) for worker, share in busy.items()}  # type: ignore[call-overload]


def stolen_shares(study: Study, level: Level) -> dict[int, tuple[float, float]]:
    """What the host of each worker's machine took of a CPU's time: mean of the window, and worst second."""
    health = study.health.loc[_within(study, [level]), ["worker", "stolen_share"]].dropna()
    by_worker = health["stolen_share"].groupby(health["worker"].astype(int)).agg(["mean", "max"])
    return {int(worker): (float(mean), float(most)) for worker, mean, most in by_worker.itertuples()}


def _in_windows(study: Study, name: str, levels: list[Level]) -> Floats:
    return study.health.loc[_within(study, levels), name].dropna().to_numpy(dtype=np.float64)


def _within(study: Study, levels: list[Level]) -> Bools:
    at = study.health["t_ns"].to_numpy(dtype=np.float64)
    inside = np.zeros(len(at), dtype=bool)
    for level in levels:
        inside |= (at >= level.window_start_ns) & (at < level.window_end_ns)
    return inside

"""The ledger: planned turns against what became of them. Nothing may vanish unseen."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from analysis.turns.study import Study
from turnbench.formats import Finding
from turnbench.outcomes import OUTCOMES


@dataclass(frozen=True)
class Ledger:
    """planned = begun + dropped; begun = recorded + missing + lost. Counts are turns, not attempts."""

    planned: int = 0
    dropped: int = 0
    begun: int = 0
    recorded: int = 0
    missing: int = 0
    """Turns that an engine says it finished but whose records are not here."""
    lost: int = 0
    """Turns that were open when their engine ended."""

    def plus(self, other: Ledger) -> Ledger:
        return Ledger(*(getattr(self, f) + getattr(other, f) for f in self.__dataclass_fields__))


def ledger_of(study: Study) -> Ledger:
    """The whole run's ledger, from every worker's last health line and the records."""
    recorded = _recorded(study, "lost")
    total = Ledger()
    for worker in sorted(set(recorded.index) | set(study.health["worker"].astype(int))):
        lines = study.health[study.health["worker"] == worker]
        total = total.plus(_of_worker(lines, int(recorded.get(worker, 0)), _killed(study)))
    drops = int((study.frame["counts"] & (study.frame["outcome"] == "dropped")).sum())
    more = max(drops - total.dropped, 0)
    return total.plus(Ledger(planned=more, dropped=more))


def _recorded(study: Study, *without: str) -> pd.Series:
    """Turns with a record, by worker; drops and losses are no record of a begun and ended turn."""
    turns = study.frame[study.frame["counts"] & ~study.frame["outcome"].isin(["dropped", *without])]
    return turns.groupby("worker").size()


def _killed(study: Study) -> bool:
    return study.manifest.status not in ("finished", "interrupted")


def _of_worker(lines: pd.DataFrame, recorded: int, killed: bool) -> Ledger:
    counters = lines[["planned", "dropped", "begun", "finished"]].dropna()
    if counters.empty:
        return Ledger(planned=recorded, begun=recorded, recorded=recorded)
    planned, dropped, begun, finished = (int(value) for value in counters.iloc[-1])
    if killed and recorded > begun:  # turns of the last second, after the last health line
        planned, begun = planned + recorded - begun, recorded
    lost = max(begun - max(finished, recorded), 0)
    return Ledger(planned, dropped, begun, recorded, max(finished - recorded, 0), lost)


def outcomes_of(study: Study, ledger: Ledger) -> dict[str, int]:
    """Turns by outcome over the whole run, `lost` and `dropped` as the ledger knows them."""
    counts = study.frame[study.frame["counts"]]["outcome"].value_counts()
    found = {name: int(counts.get(name, 0)) for name in OUTCOMES}
    found |= {"lost": max(found["lost"], ledger.lost), "dropped": ledger.dropped}
    return {name: count for name, count in found.items() if count}


def ledger_findings(study: Study, ledger: Ledger) -> list[Finding]:
    """What the ledger says is wrong."""
    found = []
    if study.health.empty and len(study.frame):
        found.append(
            Finding(
                "suspect",
                "ledger",
                "there are no health lines, so it isn't known whether every turn has its record",
                "keep health-*.jsonl beside the turns; if they were never written, run again",
            )
        )
    if ledger.missing:
        found.append(
            Finding(
                "invalid",
                "records",
                f"{ledger.missing} of {ledger.begun} turns ended but have no record here",
                "copy every turns-*.jsonl of every worker into the run directory, or run again",
            )
        )
    if ledger.lost:
        found.append(
            Finding(
                "invalid",
                "lost",
                f"{ledger.lost} of {ledger.begun} turns were still open when their engine ended",
                "see why the engine or worker ended (its messages, memory, signals), then run again",
            )
        )
    found += _does_not_close(study, ledger)
    return found


def _does_not_close(study: Study, ledger: Ledger) -> list[Finding]:
    sums = []
    if ledger.planned != ledger.begun + ledger.dropped:
        sums.append(f"planned {ledger.planned} is not begun {ledger.begun} + dropped {ledger.dropped}")
    if ledger.begun != ledger.recorded + ledger.missing + ledger.lost:
        parts = f"recorded {ledger.recorded} + missing {ledger.missing} + lost {ledger.lost}"
        sums.append(f"begun {ledger.begun} is not {parts}")
    remedy = "the run's books are wrong: don't use its rates; please report this with the run directory"
    return [Finding("invalid", "ledger", f"the ledger does not close: {text}", remedy) for text in sums]

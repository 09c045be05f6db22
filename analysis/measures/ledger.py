"""The ledger: planned turns against what became of them. Nothing may vanish unseen."""

from __future__ import annotations

import pandas as pd

from analysis.turns.study import Study
from turnbench.formats import TurnLedger
from turnbench.outcomes import OUTCOMES


def ledger_of(study: Study) -> TurnLedger:
    """The whole run's ledger, from every worker's last health line and the records."""
    # A drop or a loss is no record of a turn that was begun and ended.
    turns = study.frame[study.frame["counts"] & ~study.frame["outcome"].isin(["dropped", "lost"])]
    recorded = turns.groupby("worker").size()
    killed = study.manifest.status not in ("finished", "interrupted")
    total = TurnLedger()
    for worker in sorted(set(recorded.index) | set(study.health["worker"].astype(int))):
        lines = study.health[study.health["worker"] == worker]
        total = total.plus(_of_worker(lines, int(recorded.get(worker, 0)), killed))
    drops = int((study.frame["counts"] & (study.frame["outcome"] == "dropped")).sum())
    more = max(drops - total.dropped, 0)
    return total.plus(TurnLedger(planned=more, dropped=more))


def _of_worker(lines: pd.DataFrame, recorded: int, killed: bool) -> TurnLedger:
    counters = lines[["planned", "dropped", "begun", "finished"]].dropna()
    if counters.empty:
        return TurnLedger(planned=recorded, begun=recorded, recorded=recorded)
    planned, dropped, begun, finished = (int(value) for value in counters.iloc[-1])
    if killed and recorded > begun:  # turns of the last second, after the last health line
        planned, begun = planned + recorded - begun, recorded
    lost = max(begun - max(finished, recorded), 0)
    return TurnLedger(planned, dropped, begun, recorded, max(finished - recorded, 0), lost)


def outcomes_of(study: Study, ledger: TurnLedger) -> dict[str, int]:
    """Turns by outcome over the whole run, `lost` and `dropped` as the ledger knows them."""
    counts = study.frame[study.frame["counts"]]["outcome"].value_counts()
    found = {name: int(counts.get(name, 0)) for name in OUTCOMES}
    found |= {"lost": max(found["lost"], ledger.lost), "dropped": ledger.dropped}
    return {name: count for name, count in found.items() if count}

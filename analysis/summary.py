"""The summary of one run: verdict, levels, cells, client and outcomes; see `turnbench.formats.summary`."""

from __future__ import annotations

import msgspec
import pandas as pd

from analysis.checks.evidence import RunEvidence, worst
from analysis.checks.verdict import findings_of
from analysis.measures.by_turn import by_context, by_turn, conversations_of
from analysis.measures.cells import cells_of
from analysis.measures.client import client_of
from analysis.measures.energy import energy_of
from analysis.measures.ledger import ledger_of, outcomes_of
from analysis.measures.server import server_of
from analysis.measures.throughput import little, load_curve, streams_mean
from analysis.turns.frame import floats
from analysis.turns.levels import Level
from analysis.turns.study import Study
from turnbench import exits
from turnbench.formats import Finding, LevelSummary, Summary, Verdict
from turnbench.formats.server import GpuSample
from turnbench.limits import MOST_POINTS, answer, holds


def summarise(study: Study) -> Summary:
    """The summary of one run; every number is finite or null."""
    ledger = ledger_of(study)
    findings = findings_of(RunEvidence(study, ledger))
    gpus = list(study.run.gpus())
    levels = [_level(study, level, findings, gpus) for level in study.levels]
    return Summary(
        run=study.run.path.resolve().name,
        emulated=study.emulated,
        answer_lengths=_answer_lengths(study),
        partial=study.manifest.status != "finished",
        verdict=Verdict(worst(findings), findings),
        levels=levels,
        curve=load_curve(study, levels),
        by_turn=by_turn(study),
        by_context=by_context(study),
        cells=cells_of(study),
        reading_words_per_min=study.words_per_min,
        client=client_of(study),
        outcomes=outcomes_of(study, ledger),
        ledger=ledger,
    )


def _answer_lengths(study: Study) -> str | None:
    """None where an emulator did not choose them."""
    source = study.manifest.server.get("answer_lengths")
    chosen = study.emulated and not study.manifest.settings.get("exact_tokens")
    return str(source) if source and chosen else None


def _level(study: Study, level: Level, findings: list[Finding], gpus: list[GpuSample]) -> LevelSummary:
    rows = study.measured[study.measured["level"] == level.index]
    limited = rows[["meets", "task", "talk", "moment_ns"]].dropna(subset="meets")
    shares = limited["task"].map({task: item.share for task, item in study.limits.items()}).astype(float)
    streams = streams_mean(study.frame, level)
    held = holds(int(limited["meets"].astype(int).sum()), floats(shares))
    in_order = limited.sort_values("moment_ns")
    return LevelSummary(
        index=level.index,
        users=level.users,
        arrival_rate_per_s=level.arrival_rate_per_s,
        load=level.load,
        status=worst(finding for finding in findings if _concerns(finding, level)),
        window_s=level.window_s,
        streams_mean=streams,
        little=little(rows, level, streams),
        conversations=conversations_of(study, level),
        energy=energy_of(study, level, gpus),
        server=server_of(study, level),
        holds_limits=held,
        limits_sure=None if held is None else _is_sure(study, in_order, float(shares.mean())),
        until=level.until,
    )


def _is_sure(study: Study, limited: pd.DataFrame, share: float) -> bool:
    """Whether these turns of a level, in order, tell if so large a share of turns meets the limits."""
    counts = limited["meets"].astype(int).groupby(limited["talk"], sort=False).agg(["sum", "size"])
    searched = study.manifest.capacity is not msgspec.UNSET
    loads = MOST_POINTS if searched else len(study.levels)
    return answer(list(counts.itertuples(index=False, name=None)), share, loads) != "open"


def _concerns(finding: Finding, level: Level) -> bool:
    """Whether it says something of this level: where the whole run is INVALID, no level can be trusted."""
    return finding.at == level.index or (finding.at is None and finding.level == "invalid")


def exit_code(summary: Summary) -> int:
    """3 for INVALID, 1 where a level misses its limits, else 0."""
    if summary.verdict.status == "invalid":
        return exits.INVALID
    return exits.MISSED if any(level.holds_limits is False for level in summary.levels) else exits.OK

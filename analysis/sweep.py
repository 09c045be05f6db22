"""A sweep: one run directory a cell (model, precision), read together as one result."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeVar

import msgspec

from analysis.checks.evidence import RANK
from analysis.compare.variants import Cells, Names, PlayedRun, named
from analysis.measures.cells import ALL
from turnbench.findings import invalid
from turnbench.formats import (
    CellSummary,
    ClientSummary,
    Finding,
    GrowthRow,
    LevelSummary,
    RunInShort,
    Summary,
    SweepEntry,
    Verdict,
)
from turnbench.run_directory import RunError, read_sweep

NO_RESULT = invalid("cell",
    "this run has no result (status {!r}): {}",
    "run the sweep again with --resume, which redoes the runs that are not finished")  # fmt: skip


@dataclass(frozen=True)
class Sweep:
    """A sweep directory."""

    path: Path
    name: str
    cells: list[SweepEntry]


def sweep_at(path: Path) -> Sweep | None:
    """The sweep in a directory, None where it holds none; raises RunError for a file that isn't one."""
    manifest = read_sweep(path)
    if manifest is None:
        return None
    for cell in manifest.cells:
        _check_inside(path, cell.dir)
    return Sweep(path, manifest.name or path.name, manifest.cells)


def _check_inside(path: Path, folder: str) -> None:
    """A sweep's files are written into its cells, so no cell may lie anywhere else."""
    parts = PurePosixPath(folder).parts
    if not parts or ".." in parts or PurePosixPath(folder).is_absolute():
        raise RunError(f"{path}/sweep.json: cell directory {folder!r} is not inside the sweep; mend `dir`")


def missing(cell: SweepEntry, why: str) -> Summary:
    """The summary of a cell whose run can't be read."""
    verdict = Verdict("invalid", [NO_RESULT.finding(cell.status, why)])
    return Summary(run=cell.dir, emulated=False, partial=True, verdict=verdict)


def pooled(sweep: Sweep, summaries: list[Summary]) -> Summary:
    """One summary of all runs; levels, cells and findings also carry the `run` they belong to."""
    if not summaries:
        summaries = [missing(SweepEntry(dir=".", status="empty"), "the sweep has no cells")]
    outcomes: Counter[str] = Counter()
    for summary in summaries:
        outcomes.update(summary.outcomes)
    status = max((summary.verdict.status for summary in summaries), key=RANK.__getitem__)
    found = Summary(
        run=sweep.name,
        emulated=any(summary.emulated for summary in summaries),
        answer_lengths=", ".join(
            dict.fromkeys(each.answer_lengths for each in summaries if each.answer_lengths)
        )
        or None,
        partial=any(summary.partial for summary in summaries),
        verdict=Verdict(status, _tagged(summaries, lambda summary: summary.verdict.findings)),
        levels=_tagged(summaries, lambda summary: summary.levels),
        cells=_tagged(summaries, lambda summary: summary.cells),
        by_turn=_tagged(summaries, lambda summary: summary.by_turn),
        by_context=_tagged(summaries, lambda summary: summary.by_context),
        client=_worst_client([summary.client for summary in summaries if summary.client]),
        outcomes=dict(outcomes),
        runs=_tagged(summaries, lambda summary: summary.runs or [_in_short(summary)]),
    )
    names = names_of(found)
    for cell in found.cells:
        name = names.get((str(cell.run), cell.model))
        cell.name = name.one if name else cell.model
        cell.setting = name.setting if name else ""
    return found


def _in_short(summary: Summary) -> RunInShort:
    return RunInShort(
        run="",
        emulated=summary.emulated,
        client=summary.client,
        curve=summary.curve or None,
        verdict=summary.verdict.status,
        variant=summary.variant or {},
    )


def names_of(summary: Summary) -> Names:
    """What each run's models are called; nothing for a single run, whose models need no other name."""
    loads = {(level.run, level.index): level.load for level in summary.levels}
    played = []
    for run in summary.runs or []:
        cells: dict[str, Cells] = {}
        for cell in summary.cells:
            if cell.run == run.run and ALL not in (cell.model, cell.task, cell.level):
                load = loads[run.run, int(cell.level)]
                cells.setdefault(cell.model, set()).add((cell.task, load))
        played.append(PlayedRun(run.run, run.variant, cells))
    return named(played)


Tagged = TypeVar("Tagged", Finding, LevelSummary, CellSummary, GrowthRow, RunInShort)


def _tagged(summaries: list[Summary], part: Callable[[Summary], list[Tagged]]) -> list[Tagged]:
    """Each with the run that it is of; those of a sweep inside keep their own name after the sweep's."""
    return [
        msgspec.structs.replace(item, run=f"{summary.run}/{item.run}" if item.run else summary.run)
        for summary in summaries
        for item in part(summary)
    ]


def _worst_client(clients: list[ClientSummary]) -> ClientSummary:
    """The worst of each number over the runs; every clock that was used, with its mean share."""
    clocks = sorted({one for client in clients if client.clock for one in client.clock.split(" and ")})
    worst: dict[str, float | None] = {}
    for name in ClientSummary.__struct_fields__:
        if name not in ("clock", "clock_shares"):
            known = [value for client in clients if (value := getattr(client, name)) is not None]
            worst[name] = (min if name == "sent_by_kernel_share" else max)(known, default=None)
    shares = {
        clock: sum(client.clock_shares.get(clock, 0.0) for client in clients) / len(clients)
        for clock in clocks
    }
    return ClientSummary(clock=" and ".join(clocks) or None, clock_shares=shares, **worst)

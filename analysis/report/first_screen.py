"""The first screen: how long for each task, model by model at one load, or load by load for one model."""

from __future__ import annotations

from dataclasses import dataclass

from analysis.measures.cells import ALL
from analysis.tables.rows import LevelCell, cells_at_levels, typical_ms
from analysis.tables.writing import NONE, middle, number, people, seconds
from turnbench.formats import Summary

_MOST_TASKS = 4
_MOST_ROWS = 12


@dataclass(frozen=True)
class GlanceEntry:
    """One task of one row: time to generate with the length of its bar, and tokens per second."""

    time: str = NONE
    share: float = 0.0
    soonest: bool = False
    tps: str = NONE
    fastest: bool = False


@dataclass(frozen=True)
class Glance:
    """A small table; `names` is what its rows are: model or people."""

    caption: str
    names: str
    tasks: list[str]
    rows: list[tuple[str, list[GlanceEntry]]]
    lead: str
    ends: list[str]
    """After `lead`, a line a task: which model was first, and which was last."""
    omitted: int
    """Rows and tasks that did not fit."""


def glance_of(summary: Summary) -> Glance | None:
    """None where no task was played by two models, or by one at two loads."""
    cells = _one_setting([cell for cell in cells_at_levels(summary) if cell.task != ALL])
    names = list(dict.fromkeys(cell.name for cell in cells))
    loads = list(dict.fromkeys(cell.load for cell in cells))
    if len(names) < 2:
        return _glance(cells, "load", names[0]) if len(loads) > 1 else None
    count = {load: len({cell.name for cell in cells if cell.load == load}) for load in loads}
    most = [load for load in loads if count[load] == max(count.values())][-1]
    mine = [cell for cell in cells if cell.load == most]
    setting = f" ({mine[0].setting})" if mine[0].setting else ""
    return _glance(mine, "name", people(mine[0].level) + setting)


def _one_setting(cells: list[LevelCell]) -> list[LevelCell]:
    """The cells of the first setting, where every setting has two models: only those compare fairly."""
    models: dict[str, set[str]] = {}
    for cell in cells:
        models.setdefault(cell.setting, set()).add(cell.cell.model)
    if len(models) < 2 or min(map(len, models.values())) < 2:
        return cells
    return [cell for cell in cells if cell.setting == min(models)]


def _glance(cells: list[LevelCell], by: str, whose: str) -> Glance:
    """Of these cells: a row for each value of `by` (name or load); `whose` is what all of them share."""
    tasks = list(dict.fromkeys(cell.task for cell in cells))
    most = sorted(tasks, key=lambda task: -sum(cell.cell.turns for cell in cells if cell.task == task))
    shown = [task for task in tasks if task in most[:_MOST_TASKS]]
    found = {(getattr(cell, by), cell.task): cell for cell in cells}
    heads = list(dict.fromkeys(getattr(cell, by) for cell in cells))
    models = by == "name"
    if models:
        heads.sort(key=lambda name: sum(typical_ms(found.get((name, task))) for task in shown))
    columns = [[found.get((head, task)) for head in heads[:_MOST_ROWS]] for task in shown]
    entries = [_column(column, models) for column in columns]
    return Glance(
        caption=f"{f'With {whose}' if models else whose}: time to the complete answer, and tokens per second",
        names="model" if models else "people",
        tasks=shown,
        rows=[(head, [column[n] for column in entries]) for n, head in enumerate(heads[:_MOST_ROWS])],
        lead=f"With {whose}, half of the answers were complete within:",
        ends=[line for n, task in enumerate(shown) if models and (line := _ends(task, columns[n]))],
        omitted=max(len(heads) - _MOST_ROWS, 0) + len(tasks) - len(shown),
    )


def _column(cells: list[LevelCell | None], judged: bool) -> list[GlanceEntry]:
    times = [typical_ms(cell) for cell in cells]
    ended = [time for time in times if time < float("inf")]
    rates = [(cell and cell.cell.tps) or 0.0 for cell in cells]
    found = []
    for cell, time, rate in zip(cells, times, rates, strict=True):
        if cell is None:
            found.append(GlanceEntry())
            continue
        share = time / max(ended) if time < float("inf") and max(ended) > 0 else 0.0
        text = middle(cell.of("ttg_ms"), seconds, cell.cell.turns)
        best = judged and len(ended) > 1 and time == min(ended)
        found.append(GlanceEntry(text, share, best, number(cell.cell.tps), judged and 0 < rate == max(rates)))
    return found


def _ends(task: str, cells: list[LevelCell | None]) -> str:
    """The first and the last model of a task, where all have a median; and who may be as fast as the first:
    those whose intervals overlap its own, or aren't known."""
    known = [cell for cell in cells if cell]
    if len(known) < 2 or any(cell.of("ttg_ms").p50 is None for cell in known):
        return ""
    first, *others = sorted(known, key=typical_ms)
    last = others[-1]
    high = (first.of("ttg_ms").ci95["p50"] or [None, None])[1]
    near = []
    for cell in others:
        low = (cell.of("ttg_ms").ci95["p50"] or [None])[0]
        if high is None or low is None or low <= high:
            near.append(cell.name)
    doubt = f" ({' or '.join(near)} may be as fast)" if near else ""
    return (
        f"{task}: {seconds(typical_ms(first))} with {first.name}{doubt}; "
        f"{seconds(typical_ms(last))} with {last.name}, the slowest of {len(known)} models."
    )

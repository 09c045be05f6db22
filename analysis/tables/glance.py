"""The first screen: how long for each task, model by model at one load, or load by load for one model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from analysis.measures.cells import ALL
from analysis.tables.headline import cells_at_levels, middle, number, seconds
from analysis.tables.sentences import people

_MOST_TASKS = 4
_MOST_ROWS = 12
Cell = dict[str, Any]


@dataclass(frozen=True)
class Entry:
    """One task of one row: time to generate with the length of its bar, and tokens a second."""

    time: str = "–"
    share: float = 0.0
    soonest: bool = False
    tps: str = "–"
    fastest: bool = False


@dataclass(frozen=True)
class Glance:
    """A small table; `names` is what its rows are: model or people."""

    caption: str
    names: str
    tasks: list[str]
    rows: list[tuple[str, list[Entry]]]
    said: str
    first: list[str]
    """Under `said`, a line a task: who was first, who was last."""
    left_out: int
    """Rows and tasks that did not fit."""


def glance_of(summary: dict[str, Any]) -> Glance | None:
    """None where no task was played by two models, or by one at two loads."""
    cells = _one_setting([cell for cell in cells_at_levels(summary) if cell["task"] != ALL])
    names = list(dict.fromkeys(cell["name"] for cell in cells))
    if len(names) > 1:
        load = _common_load(cells)
        mine = [cell for cell in cells if cell["load"] == load]
        setting = f" ({mine[0]['setting']})" if mine[0].get("setting") else ""
        return _glance(mine, "name", people(_level_of(summary, mine[0])) + setting)
    return _glance(cells, "load", names[0]) if len({cell["load"] for cell in cells}) > 1 else None


def _one_setting(cells: list[Cell]) -> list[Cell]:
    """The cells of the first setting, where every setting has two models: only those compare fairly."""
    models: dict[str, set[str]] = {}
    for cell in cells:
        models.setdefault(cell.get("setting", ""), set()).add(cell["model"])
    if len(models) < 2 or min(map(len, models.values())) < 2:
        return cells
    return [cell for cell in cells if cell.get("setting", "") == min(models)]


def _common_load(cells: list[Cell]) -> str:
    """The last load at which most models were played."""
    loads = list(dict.fromkeys(cell["load"] for cell in cells))
    count = {load: len({cell["name"] for cell in cells if cell["load"] == load}) for load in loads}
    return str([load for load in loads if count[load] == max(count.values())][-1])


def _level_of(summary: dict[str, Any], cell: Cell) -> dict[str, Any]:
    keys = cell.get("run"), cell["level"]
    return next(level for level in summary["levels"] if (level.get("run"), level["index"]) == keys)


def _glance(cells: list[Cell], by: str, whose: str) -> Glance:
    tasks = list(dict.fromkeys(cell["task"] for cell in cells))
    most = sorted(tasks, key=lambda task: -sum(cell["turns"] for cell in cells if cell["task"] == task))
    shown = [task for task in tasks if task in most[:_MOST_TASKS]]
    found = {(cell[by], cell["task"]): cell for cell in cells}
    heads = list(dict.fromkeys(cell[by] for cell in cells))
    models = by == "name"
    if models:
        heads.sort(key=lambda name: sum(_value(found.get((name, task))) for task in shown))
    columns = [[found.get((head, task)) for head in heads[:_MOST_ROWS]] for task in shown]
    entries = [_column(column, models) for column in columns]
    return Glance(
        caption=f"{f'With {whose}' if models else whose}: the whole answer, and its tokens a second",
        names="model" if models else "people",
        tasks=shown,
        rows=[(head, [column[n] for column in entries]) for n, head in enumerate(heads[:_MOST_ROWS])],
        said=f"With {whose}, half of the answers were complete within:",
        first=[line for n, task in enumerate(shown) if models and (line := _first(task, columns[n]))],
        left_out=max(len(heads) - _MOST_ROWS, 0) + len(tasks) - len(shown),
    )


def _value(cell: Cell | None) -> float:
    told = cell["ttg_ms"] if cell else {}
    value = told.get("p50") if told.get("p50") is not None else told.get("mean")
    return float("inf") if value is None else float(value)


def _column(cells: list[Cell | None], judged: bool) -> list[Entry]:
    times = [_value(cell) for cell in cells]
    ended = [time for time in times if time < float("inf")]
    rates = [(cell and cell["tps"]) or 0.0 for cell in cells]
    found = []
    for cell, time, rate in zip(cells, times, rates, strict=True):
        if cell is None:
            found.append(Entry())
            continue
        share = time / max(ended) if time < float("inf") and max(ended) > 0 else 0.0
        text = middle(cell["ttg_ms"], seconds, cell["turns"])
        best = judged and len(ended) > 1 and time == min(ended)
        found.append(Entry(text, share, best, number(cell["tps"]), judged and 0 < rate == max(rates)))
    return found


def _first(task: str, cells: list[Cell | None]) -> str:
    """The first and the last model of a task, where all have a median."""
    told = [cell for cell in cells if cell]
    if len(told) < 2 or any(cell["ttg_ms"]["p50"] is None for cell in told):
        return ""
    first, *others, last = sorted(told, key=_value)
    near = [cell["name"] for cell in (*others, last) if _overlap(first, cell)]
    doubt = f", not surely before {' or '.join(near)}" if near else ""
    return (
        f"{task}: {seconds(_value(first))} with {first['name']}{doubt}; "
        f"{seconds(_value(last))} with {last['name']}, the last of {len(told)} models."
    )


def _overlap(first: Cell, other: Cell) -> bool:
    """Whether the two medians' intervals touch, or aren't known."""
    high, low = ((cell["ttg_ms"]["ci95"]["p50"] or [None, None]) for cell in (first, other))
    return high[1] is None or low[0] is None or bool(low[0] <= high[1])

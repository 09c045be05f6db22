"""One table for several models: each task's time and speed, model under model, load beside load."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from analysis.measures.cells import ALL
from analysis.tables import study_tables as tables
from analysis.tables.headline import cells_at_levels, clean, middle, number, seconds

_MOST_LOADS = 3
_LONGEST_NAME = 28
Cell = dict[str, Any]


def sweep_table(summary: dict[str, Any], title: str) -> Table | None:
    """TTG p50 and tps by task, model and load; None where there are not several models with a task."""
    cells = [cell for cell in cells_at_levels(summary) if cell["task"] != ALL]
    names = list(dict.fromkeys(cell["name"] for cell in cells))
    if len(names) < 2:
        return None
    loads = _shown_loads(cells)
    table = _new_table(title)
    for name in ("task", "model"):
        table.add_column(name, overflow="fold", max_width=_LONGEST_NAME)
    for index, load in enumerate(loads):
        table.add_column(f"TTG s\n{_people(load, index)}", justify="right", no_wrap=True)
    for load in loads:
        table.add_column(f"tps\n{load}", justify="right", no_wrap=True)
    found = {(cell["task"], cell["name"], cell["load"]): cell for cell in cells}
    for task in dict.fromkeys(cell["task"] for cell in cells):
        _add_task(table, task, names, loads, found)
    return table


def study_tables(summary: dict[str, Any], mark: str) -> list[Table]:
    """Tasks over the quickest one at the highest load, and orders at each precision, where there are any."""
    study = summary["study"]
    last = study["ratios"][-1]["load"] if study["ratios"] else ""
    at_last = {"ratios": [row for row in study["ratios"] if row["load"] == last]}
    found = []
    if ratios := tables.ratio_rows(at_last):
        title = f"{mark}Each task over the model's quickest one, at a load of {last}"
        heads = [head for head in tables.RATIO_HEADS if head != "people"]
        rows = [
            [text for text, head in zip(row, tables.RATIO_HEADS, strict=True) if head != "people"]
            for row in ratios
        ]
        found.append(_plain_table(title, heads, rows, {"model", "task"}))
    if precisions := tables.precision_rows(study):
        title = f"{mark}The order of models at each precision against that at 16 bits"
        found.append(_plain_table(title, list(tables.PRECISION_HEADS), precisions, {"task", "precision"}))
    return found


def _plain_table(title: str, heads: list[str], rows: list[list[str]], names: set[str]) -> Table:
    table = _new_table(title)
    for head in heads:
        table.add_column(
            head.replace(" ", "\n", 1), justify="left" if head in names else "right", overflow="fold"
        )
    for row in rows:
        table.add_row(*(Text(clean(text)) for text in row))
    return table


def _new_table(title: str) -> Table:
    return Table(
        title=Text(clean(title), style="bold"),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )


def _add_task(table: Table, task: str, names: list[str], loads: list[str], found: dict[Any, Cell]) -> None:
    """The task's models, the soonest done at the highest load first."""
    mine = [name for name in names if any((task, name, load) in found for load in loads)]
    mine.sort(key=lambda name: _order(found.get((task, name, loads[-1]))))
    for place, name in enumerate(mine):
        cells = [found.get((task, name, load)) for load in loads]
        texts = [_time(cell) for cell in cells] + [number(cell["tps"]) if cell else "–" for cell in cells]
        head = clean(task) if place == 0 else ""
        end = place == len(mine) - 1
        table.add_row(Text(head), Text(clean(name)), *map(Text, texts), end_section=end)


def _order(cell: Cell | None) -> float:
    told = cell["ttg_ms"] if cell else {}
    value = told.get("p50") if told.get("p50") is not None else told.get("mean")
    return float("inf") if value is None else float(value)


def _shown_loads(cells: list[Cell]) -> list[str]:
    """At most three loads: the first, one in the middle and the last."""
    loads = list(dict.fromkeys(cell["load"] for cell in cells))
    return loads if len(loads) <= _MOST_LOADS else [loads[0], loads[len(loads) // 2], loads[-1]]


def _people(load: str, index: int) -> str:
    if not load.isdigit():
        return load
    return f"{load} {'person' if load == '1' else 'people'}" if index == 0 else load


def _time(cell: Cell | None) -> str:
    """The median in seconds; where it isn't allowed the mean with its n."""
    if cell is None:
        return "–"
    told = cell["ttg_ms"]
    text = middle(told, seconds, told["n"]).replace(" s", "")
    return f"{text} ({told['n']})" if text.startswith("m ") else text

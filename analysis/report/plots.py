"""The report's figures as plain plotly data, ready for JSON; no name in them can act as markup."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

from analysis.measures.cells import ALL
from analysis.report.facts import RunFacts
from analysis.report.plots_growth import growth
from analysis.report.plots_load import LOAD_NOTE, load_curves
from analysis.report.plots_spread import spreads
from analysis.report.plots_style import Cells, Figure, colour, figure, label, middles, pattern, points
from analysis.report.plots_time import lags, rasters, timelines
from analysis.tables.headline import cells_at_levels, clean

MEANS = "Medians with 95 % intervals. Open or faint: a mean, where too few turns allow a median."
NOTES = {"wait": MEANS, "load": f"{LOAD_NOTE} {MEANS}"}
"""What is said once over a group's figures."""
GROUPS = {
    "wait": "Time to generate, by task and model",
    "spread": "How times are spread",
    "load": "Throughput against waiting",
    "growth": "As the conversation grows",
    "time": "A level as it went",
    "raster": "The slowest answers, piece by piece",
    "client": "The client itself",
}


def figures(summary: dict[str, Any], facts: list[RunFacts]) -> list[Figure]:
    """Every figure: `{id, group, title, pick, note, terms, data, layout}`, in the order of the page."""
    cells = cells_at_levels(summary)
    called = _called(cells)
    runs = [replace(run, name=called.get(run.name, run.name)) for run in facts]
    made = [
        *_wait_by_task(cells),
        *spreads(cells, facts),
        *load_curves(summary, cells),
        *growth(summary, called),
        *timelines(runs),
        *rasters(runs),
        *lags(runs),
    ]
    stamped = [_stamped(one) for one in made] if summary["emulated"] else made
    return [{**one, "id": f"plot-{number}"} for number, one in enumerate(stamped)]


def _called(cells: Cells) -> dict[str, str]:
    """What each run of a sweep is called: its model, where no other run has that name."""
    names: dict[str, set[str]] = {}
    for cell in cells:
        if "run" in cell:
            names.setdefault(cell["run"], set()).add(cell["name"])
    alone = Counter(name for of_run in names.values() for name in of_run)
    return {run: min(of) if len(of) == 1 and alone[min(of)] == 1 else run for run, of in names.items()}


def _stamped(one: Figure) -> Figure:
    """Above the plot and inside it, where it stays when the plot is cut out of the page."""
    stamp = {"text": "EMULATED", "xref": "paper", "yref": "paper", "x": 1, "y": 1, "xanchor": "right"}
    stamp |= {"yanchor": "bottom", "yshift": 6, "showarrow": False, "font": {"size": 10, "color": "#b07800"}}
    notes = [*one["layout"].get("annotations", []), stamp]
    layout = one["layout"] | {"annotations": notes}
    return {**one, "title": f"EMULATED · {one['title']}", "layout": layout}


def _wait_by_task(cells: Cells) -> list[Figure]:
    """Time to generate: with one load a bar a task and model, with several a panel a task."""
    cells = [cell for cell in cells if cell["task"] != ALL]
    tasks = list(dict.fromkeys(cell["task"] for cell in cells))
    loads = list(dict.fromkeys(cell["load"] for cell in cells))
    names = list(dict.fromkeys(cell["name"] for cell in cells))
    if not cells:
        return []
    if len(loads) == 1:
        data = [_bars([cell for cell in cells if cell["name"] == name], n) for n, name in enumerate(names)]
        return [figure("wait", "Time to generate by task", data, "task", "TTG, s", terms=("TTG",))]
    made = []
    for task in tasks:
        mine = [cell for cell in cells if cell["task"] == task]
        data = [_line([c for c in mine if c["name"] == name], n) for n, name in enumerate(names)]
        data = [trace for trace in data if trace["x"]]
        one = figure("wait", f"Time to generate: {clean(task)}", data, "people", "TTG, s", terms=("TTG",))
        span = [-0.4, len(loads) - 0.6]
        one["layout"]["xaxis"] |= {"type": "category", "categoryarray": [*map(label, loads)], "range": span}
        made.append(one)
    return made


def _bars(cells: Cells, number: int) -> Figure:
    trace = middles([cell["ttg_ms"] for cell in cells])
    faint = [0.45 if kind == "mean" else 1.0 for kind in trace.pop("kinds")]
    marker = {"color": colour(number), "opacity": faint, "pattern": pattern(number)}
    names = {"type": "bar", "name": label(cells[0]["name"]), "x": [label(cell["task"]) for cell in cells]}
    return trace | names | {"marker": marker}


def _line(cells: Cells, number: int) -> Figure:
    trace = points([cell["ttg_ms"] for cell in cells], number)
    name = label(cells[0]["name"]) if cells else ""
    return trace | {"name": name, "x": [label(cell["load"]) for cell in cells]}

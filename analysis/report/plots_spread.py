"""Distributions of TTFT and TTG: which share of the turns was done by when."""

from __future__ import annotations

from typing import Any

from analysis.report.facts import SHARES, RunFacts
from analysis.report.plots_style import Cells, Figure, colour, figure, label, line, symbol

_METRICS = {"ttft_ms": ("TTFT", "first token"), "ttg_ms": ("TTG", "whole answer")}
_MOST_PICKS = 40
_MOST_MARKS = 9


def spreads(cells: Cells, facts: list[RunFacts]) -> list[Figure]:
    """Two figures a task and load with a line a model; of one model alone, two a task with a line a load."""
    names = {(cell.get("run", ""), cell["model"]): cell["name"] for cell in cells}
    told = [
        spread | {"name": names.get((run.name, spread["model"]), names.get(("", spread["model"])))}
        for run in facts
        for spread in run.spreads
    ]
    told = [spread | {"name": spread["name"] or spread["model"]} for spread in told]
    if len({spread["name"] for spread in told}) > 1:
        loads = list(dict.fromkeys(spread["load"] for spread in told))
        told.sort(key=lambda spread: -loads.index(spread["load"]))
        return _picked(told, lambda one: f"{one['task']}, load {one['load']}", lambda one: one["name"])
    return _picked(told, lambda one: one["task"], lambda one: f"load {one['load']}")


def _picked(told: list[dict[str, Any]], pick: Any, series: Any) -> list[Figure]:
    found = []
    order = list(dict.fromkeys(series(one) for one in told))
    for choice in list(dict.fromkeys(pick(one) for one in told))[:_MOST_PICKS]:
        mine = [one for one in told if pick(one) == choice]
        for metric, (term, words) in _METRICS.items():
            data = [_steps(one[metric], series(one), one["n"], order.index(series(one))) for one in mine]
            data = [trace for trace in data if trace["x"]]
            axes = (f"{term}, s", "share of turns, %")
            made = figure("spread", f"Time to the {words}", data, *axes, pick=choice, terms=(term,))
            made["layout"]["yaxis"] |= {"range": [0, 101]}
            made["layout"]["showlegend"] = True
            found.append(made)
    return found


def _steps(values: list[float | None], name: str, n: int, number: int) -> Figure:
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": label(f"{name} (n {n})"),
        "x": [None if value is None else float(f"{value / 1e3:.4g}") for value in values],
        "y0": 0,
        "dy": 100 / (SHARES - 1),
        "line": line(number) | {"shape": "hv"},
        "marker": {"symbol": symbol(number), "color": colour(number), "size": 7, "maxdisplayed": _MOST_MARKS},
        "hovertemplate": "%{y:.0f} % within %{x} s",
    }

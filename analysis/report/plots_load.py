"""Load curves: what a person waits against what the server puts out, with the point of saturation."""

from __future__ import annotations

from typing import Any

from analysis.measures.cells import ALL
from analysis.report.plots_style import Cells, Figure, colour, figure, label, points
from analysis.tables.headline import clean

_METRICS = {"ttft_ms": "TTFT", "ttg_ms": "TTG"}
LOAD_NOTE = (
    "Each point is one level, named by its load. Up is a longer wait, right is more work done. Ring: the "
    "load above which no higher one brought over 5 % more throughput; wide line: its 95 % interval. No ring: "
    "throughput still grew at the highest load."
)


def load_curves(summary: dict[str, Any], cells: Cells) -> list[Figure]:
    """TTFT and TTG against throughput, a line a model; runs of other tasks are a pick of their own."""
    runs: dict[tuple[str, str], Cells] = {}
    for cell in cells:
        runs.setdefault((cell.get("run", ""), cell["name"]), []).append(cell)
    curves = {run["run"]: run["curve"] for run in summary.get("runs", [])} or {"": summary.get("curve")}
    by_tasks: dict[str, dict[str, Cells]] = {}
    for (_, name), mine in runs.items():
        tasks = clean(", ".join(sorted({cell["task"] for cell in mine} - {ALL})))
        line = by_tasks.setdefault(tasks, {}).setdefault(name, [])
        line += [cell for cell in mine if cell["task"] == ALL]
    found = []
    for tasks, lines in by_tasks.items():
        for metric, term in _METRICS.items():
            data = [
                trace
                for number, (name, whole) in enumerate(lines.items())
                for trace in _curve(name, whole, metric, _only(curves, whole), number)
            ]
            axes = ("aggregate tokens/s", f"{term}, s")
            terms = (term, "agg. TPS", "saturation")
            title = f"{term} against throughput"
            found.append(figure("load", title, data, *axes, pick=tasks, terms=terms))
    return found


def _only(curves: dict[str, Any], cells: Cells) -> dict[str, Any] | None:
    """The saturation of these cells, which is known where one run played them all."""
    runs = {cell.get("run", "") for cell in cells}
    return curves.get(runs.pop()) if len(runs) == 1 else None


def _curve(name: str, cells: Cells, metric: str, curve: dict[str, Any] | None, number: int) -> list[Figure]:
    trace = points([cell[metric] for cell in cells], number)
    xs = [cell["aggregate_tps"] for cell in cells]
    trace |= {"name": label(name), "legendgroup": label(name), "x": xs, "mode": "lines+markers+text"}
    trace |= {
        "text": [label(cell["load"]) for cell in cells],
        "textposition": "top center",
        "cliponaxis": False,
    }
    return [*_saturation(name, cells, trace["y"], curve, number), trace]


def _saturation(
    name: str, cells: Cells, ys: list[float | None], curve: dict[str, Any] | None, number: int
) -> list[Figure]:
    if not curve or curve["saturation"] is None:
        return []
    loads = [cell["load"] for cell in cells]
    ends = [len(loads) - 1 if end is None else loads.index(end) for end in curve["saturation_ci95"]
            if end is None or end in loads]  # fmt: skip
    if curve["saturation"] not in loads or len(ends) < 2:
        return []
    at = loads.index(curve["saturation"])
    xs = [cell["aggregate_tps"] for cell in cells]
    span = slice(ends[0], ends[1] + 1)
    same = {
        "type": "scatter",
        "name": label(name),
        "legendgroup": label(name),
        "showlegend": False,
        "hoverinfo": "skip",
    }
    wide = same | {"mode": "lines", "x": xs[span], "y": ys[span], "opacity": 0.3}
    ring = same | {"mode": "markers", "x": [xs[at]], "y": [ys[at]]}
    shape = {"symbol": "circle-open", "size": 20, "color": colour(number), "line": {"width": 3}}
    return [wide | {"line": {"color": colour(number), "width": 12}}, ring | {"marker": shape}]

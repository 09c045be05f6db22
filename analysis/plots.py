"""The report's figures as plain plotly data, ready for JSON; no name in them can act as markup."""

from __future__ import annotations

import html
from typing import Any

from analysis.cells import ALL
from analysis.tables import clean, name_of

Figure = dict[str, Any]
MEANS = "Medians with 95 % intervals. Open or faint: a mean, where too few turns allow a median."
_SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6bb1", "#7f7f7f")
"""Colours that people with any colour vision tell apart (after Okabe and Ito)."""


def label(text: object) -> str:
    """Plotly takes some HTML in its labels: names must not."""
    return html.escape(clean(text), quote=False)


def figures(summary: dict[str, Any], lags: list[dict[str, Any]]) -> list[Figure]:
    """Every figure: `{id, group, title, note, data, layout}`."""
    made = [*_wait_by_task(summary), *_load_curve(summary), *_by_turn(summary), *_lag(lags)]
    prefix = "EMULATED · " if summary["emulated"] else ""
    return [{**figure, "id": f"plot-{n}", "title": prefix + figure["title"]} for n, figure in enumerate(made)]


def _cells(summary: dict[str, Any]) -> list[dict[str, Any]]:
    """Cells of one model and one level, with the model's `name` and the level's `load`."""
    levels = {(level.get("run"), level["index"]): level for level in summary["levels"]}
    return [
        cell | {"name": name_of(cell), "load": levels[(cell.get("run"), cell["level"])]["load"]}
        for cell in summary["cells"]
        if cell["model"] != ALL and cell["level"] != ALL
    ]


def _wait_by_task(summary: dict[str, Any]) -> list[Figure]:
    """Time to generate: with one load a bar a task and model, with several a panel a task."""
    cells = [cell for cell in _cells(summary) if cell["task"] != ALL]
    tasks = list(dict.fromkeys(cell["task"] for cell in cells))
    loads = list(dict.fromkeys(cell["load"] for cell in cells))
    if len(loads) <= 1:
        data = [_bars(cells, name, n) for n, name in enumerate(_names(cells))]
        return [_figure("wait", "Time to generate by task", "", data, "task", "TTG, s")] if data else []
    made = []
    for task in tasks:
        mine = [cell for cell in cells if cell["task"] == task]
        data = [_line(mine, name, n) for n, name in enumerate(_names(cells))]
        data = [trace for trace in data if trace["x"]]
        made.append(_figure("wait", f"Time to generate: {clean(task)}", "", data, "people", "TTG, s"))
        span = [-0.4, len(loads) - 0.6]
        made[-1]["layout"]["xaxis"] |= {"type": "category", "categoryarray": loads, "range": span}
    return made


def _names(cells: list[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(cell["name"] for cell in cells))


def _bars(cells: list[dict[str, Any]], name: str, number: int) -> Figure:
    mine = [cell for cell in cells if cell["name"] == name]
    trace = {"type": "bar", "name": label(name), "x": [label(cell["task"]) for cell in mine]} | _middles(mine)
    faint = [0.45 if kind == "mean" else 1.0 for kind in trace.pop("kinds")]
    return trace | {"marker": {"color": _colour(number), "opacity": faint}}


def _line(cells: list[dict[str, Any]], name: str, number: int) -> Figure:
    mine = [cell for cell in cells if cell["name"] == name]
    trace: Figure = {"type": "scatter", "mode": "lines+markers", "name": label(name)}
    return trace | {"x": [label(cell["load"]) for cell in mine]} | _points(mine, number)


def _middles(cells: list[dict[str, Any]]) -> Figure:
    """Medians in seconds with their intervals; where one isn't allowed the mean, as an open marker."""
    told = [cell["ttg_ms"] for cell in cells]
    kinds = ["mean" if item["p50"] is None else "p50" for item in told]
    middles = [item[kind] for item, kind in zip(told, kinds, strict=True)]
    ends = [item["ci95"][kind] or [None, None] for item, kind in zip(told, kinds, strict=True)]
    up = [_apart(end[1], middle) for end, middle in zip(ends, middles, strict=True)]
    down = [_apart(middle, end[0]) for end, middle in zip(ends, middles, strict=True)]
    error = {"type": "data", "symmetric": False, "array": up, "arrayminus": down, "thickness": 1}
    hover = [
        f"{'mean' if kind == 'mean' else 'median'} of {item['n']}"
        for kind, item in zip(kinds, told, strict=True)
    ]
    return {
        "y": [None if middle is None else middle / 1e3 for middle in middles],
        "error_y": error,
        "hovertext": hover,
        "kinds": kinds,
    }


def _points(cells: list[dict[str, Any]], number: int) -> Figure:
    trace = _middles(cells)
    open_where_mean = ["circle-open" if kind == "mean" else "circle" for kind in trace.pop("kinds")]
    return trace | {
        "marker": {"symbol": open_where_mean, "size": 8, "color": _colour(number)},
        "line": {"color": _colour(number)},
    }


def _apart(above: float | None, below: float | None) -> float:
    return (above - below) / 1e3 if above is not None and below is not None else 0.0


def _load_curve(summary: dict[str, Any]) -> list[Figure]:
    """What a person waits against what the server puts out, from level to level."""
    cells = [cell for cell in _cells(summary) if cell["task"] == ALL]
    data = []
    for number, name in enumerate(_names(cells)):
        mine = [cell for cell in cells if cell["name"] == name]
        trace: Figure = {
            "type": "scatter",
            "mode": "lines+markers+text",
            "name": label(name),
            "textposition": "top center",
        }
        trace |= {
            "x": [cell["aggregate_tps"] for cell in mine],
            "text": [label(cell["load"]) for cell in mine],
        }
        data.append(trace | _points(mine, number))
    if not data:
        return []
    note = (
        "Each point is one level, named by its load. Up is a longer wait, right is more work done. " + MEANS
    )
    axes = ("aggregate tokens/s", "TTG, s")
    return [_figure("load", "Throughput against waiting", note, data, *axes)]


def _by_turn(summary: dict[str, Any]) -> list[Figure]:
    """Time to first token as the conversation grows, at each run's highest load."""
    cells = summary.get("by_turn") or []
    data = []
    for number, run in enumerate(dict.fromkeys(cell.get("run", "") for cell in cells)):
        mine = [cell for cell in cells if cell.get("run", "") == run]
        top = max(cell["level"] for cell in mine)
        told = [cell | {"ttg_ms": cell["ttft_ms"]} for cell in mine if cell["level"] == top]
        if len(told) > 1:
            trace: Figure = {"type": "scatter", "mode": "lines+markers", "name": label(run or "TTFT")}
            data.append(trace | {"x": [cell["turn"] for cell in told]} | _points(told, number))
    if not data:
        return []
    note = "At the last level of each run. " + MEANS
    axes = ("turn of the conversation", "TTFT, s")
    figure = _figure("turns", "Time to first token by turn", note, data, *axes)
    figure["layout"]["xaxis"] |= {"dtick": 1, "rangemode": "normal"}
    return [figure]


def _lag(lags: list[dict[str, Any]]) -> list[Figure]:
    if not any(lag["x"] for lag in lags):
        return []
    data = [
        {"type": "scatter", "mode": "lines", "name": label(lag["name"]), "x": lag["x"], "y": lag["y"]}
        | {"line": {"color": _colour(number), "width": 1}}
        for number, lag in enumerate(lags)
    ]
    note = (
        "How late the client's own event loop woke, worst of each second. With the kernel's clock this "
        "is not in any latency; with the user clock it is."
    )
    return [_figure("client", "The client's own lag", note, data, "seconds since the run's start", "ms")]


def _figure(group: str, title: str, note: str, data: list[Figure], x: str, y: str) -> Figure:
    layout = {
        "xaxis": {"title": {"text": x}, "rangemode": "tozero"},
        "yaxis": {"title": {"text": y}, "rangemode": "tozero"},
        "showlegend": len(data) > 1,
    }
    return {"group": group, "title": title, "note": note, "data": data, "layout": layout}


def _colour(number: int) -> str:
    return _SERIES[number % len(_SERIES)]

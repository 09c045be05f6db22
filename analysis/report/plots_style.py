"""How the report's figures look: colours, dashes and shapes, so that none is told by colour alone."""

from __future__ import annotations

import html
from typing import Any

from analysis.tables.headline import clean

Figure = dict[str, Any]
Cells = list[dict[str, Any]]
_HEIGHT = 330
_SHORT_LEGEND = 6
"""Names that fit under a plot of the usual height, in pixels."""
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6bb1", "#7f7f7f")
"""Colours that people with any colour vision tell apart (after Okabe and Ito)."""
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "star", "hexagon")
_PATTERNS = ("", "/", "x", "-", "|", "+", ".")


def label(text: object) -> str:
    """Plotly takes some HTML in its labels: names must not."""
    return html.escape(clean(text), quote=False)


def colour(number: int) -> str:
    """The colour of series `number`."""
    return _COLOURS[number % len(_COLOURS)]


def line(number: int, width: float = 2) -> Figure:
    """A series' line: its colour and its dash."""
    return {"color": colour(number), "dash": _DASHES[number % len(_DASHES)], "width": width}


def symbol(number: int, *, hollow: bool = False) -> str:
    """A series' marker; an open one for a mean."""
    return _SYMBOLS[number % len(_SYMBOLS)] + "-open" * hollow


def pattern(number: int) -> Figure:
    """What fills a series' bars."""
    return {"shape": _PATTERNS[number % len(_PATTERNS)], "fillmode": "overlay", "size": 6}


def figure(
    group: str,
    title: str,
    data: list[Figure],
    x: str,
    y: str,
    *,
    pick: str = "",
    note: str = "",
    terms: tuple[str, ...] = (),
) -> Figure:
    """One figure of a group. Of figures with several picks one pick is shown at a time.

    `terms`: keys of the glossary that stand under it.
    """
    layout = {
        "xaxis": {"title": {"text": x}, "rangemode": "tozero"},
        "yaxis": {"title": {"text": y}, "rangemode": "tozero"},
        "showlegend": len(data) > 1,
    }
    told = {"group": group, "title": title, "pick": clean(pick), "note": note, "terms": list(terms)}
    named = sum(trace.get("showlegend", True) for trace in data)
    height = {"height": _HEIGHT + 18 * (named - _SHORT_LEGEND)} if named > _SHORT_LEGEND else {}
    return told | {"data": data, "layout": layout} | height


def middles(told: Cells) -> Figure:
    """Medians in seconds with their intervals; where one isn't allowed the mean. `kinds` says which."""
    kinds = ["mean" if item["p50"] is None else "p50" for item in told]
    values = [item[kind] for item, kind in zip(told, kinds, strict=True)]
    ends = [item["ci95"][kind] or [None, None] for item, kind in zip(told, kinds, strict=True)]
    up = [_apart(end[1], middle) for end, middle in zip(ends, values, strict=True)]
    down = [_apart(middle, end[0]) for end, middle in zip(ends, values, strict=True)]
    words = {"mean": "mean", "p50": "median"}
    return {
        "y": [None if value is None else value / 1e3 for value in values],
        "error_y": {"type": "data", "symmetric": False, "array": up, "arrayminus": down, "thickness": 1},
        "hovertext": [f"{words[kind]} of {item['n']}" for kind, item in zip(kinds, told, strict=True)],
        "kinds": kinds,
    }


def _apart(above: float | None, below: float | None) -> float:
    return (above - below) / 1e3 if above is not None and below is not None else 0.0


def points(told: Cells, number: int) -> Figure:
    """A line of medians (or means, open) of one series."""
    trace = middles(told)
    kinds = trace.pop("kinds")
    shapes = [symbol(number, hollow=kind == "mean") for kind in kinds]
    return trace | {
        "type": "scatter",
        "mode": "lines+markers",
        "marker": {"symbol": shapes, "size": 9, "color": colour(number)},
        "line": line(number),
    }

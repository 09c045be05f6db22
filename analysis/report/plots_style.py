"""How the report's figures look: colours, dashes and shapes; no series is known by its colour alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from analysis.tables.writing import for_terminal
from turnbench.formats.summary import Distribution

Trace = dict[str, Any]
"""A part of a figure in plotly's own terms."""
HEIGHT = 330
_SHORT_LEGEND = 6
"""Names that fit under a plot of the usual height, in pixels."""
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6bb1", "#7f7f7f")
"""Colours that people with any colour vision tell apart (after Okabe and Ito)."""
_FAINT = "30"
"""How opaque a band is, of ff."""
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "star", "hexagon")
_PATTERNS = ("", "/", "x", "-", "|", "+", ".")


@dataclass
class Figure:
    """One figure of a group. Of a group's figures with several picks one pick is shown at a time."""

    group: str
    title: str
    data: list[Trace]
    layout: dict[str, Any]
    pick: str = ""
    note: str = ""
    terms: tuple[str, ...] = ()
    """Keys of the glossary that are offered beside its title."""
    height: int = HEIGHT
    id: str = field(default="", kw_only=True)


def figure(group: str, title: str, data: list[Trace], x: str, y: str, **more: Any) -> Figure:
    """A figure with two axes from zero; `more` as in Figure."""
    named = sum(trace.get("showlegend", True) for trace in data)
    layout = {
        "xaxis": {"title": {"text": x}, "rangemode": "tozero"},
        "yaxis": {"title": {"text": y}, "rangemode": "tozero"},
        "showlegend": named > 1,
    }
    height = HEIGHT + 18 * max(named - _SHORT_LEGEND, 0)
    more["pick"] = for_terminal(more.get("pick", ""))
    return replace(Figure(group, for_terminal(title), data, layout, height=height), **more)


def colour(number: int) -> str:
    """The colour of series `number`."""
    return _COLOURS[number % len(_COLOURS)]


def line(number: int, width: float = 2) -> Trace:
    """A series' line: its colour and its dash."""
    return {"color": colour(number), "dash": _DASHES[number % len(_DASHES)], "width": width}


def symbol(number: int, *, hollow: bool = False) -> str:
    """A series' marker; an open one for a mean."""
    return _SYMBOLS[number % len(_SYMBOLS)] + "-open" * hollow


def pattern(number: int) -> Trace:
    """What fills a series' bars."""
    return {"shape": _PATTERNS[number % len(_PATTERNS)], "fillmode": "overlay", "size": 6}


def middles(distributions: list[Distribution]) -> tuple[Trace, list[bool]]:
    """Medians in seconds with their intervals; where one isn't allowed the mean: which of them are means."""
    means = [item.p50 is None for item in distributions]
    values = [item.mean if mean else item.p50 for item, mean in zip(distributions, means, strict=True)]
    ends = [
        item.ci95["mean" if mean else "p50"] or [None, None]
        for item, mean in zip(distributions, means, strict=True)
    ]
    up = [_apart_s(end[1], middle) for end, middle in zip(ends, values, strict=True)]
    down = [_apart_s(middle, end[0]) for end, middle in zip(ends, values, strict=True)]
    trace = {
        "y": [None if value is None else value / 1e3 for value in values],
        "error_y": {"type": "data", "symmetric": False, "array": up, "arrayminus": down, "thickness": 1},
        "hovertext": [
            f"{'mean' if mean else 'median'} of {item.n}"
            for mean, item in zip(means, distributions, strict=True)
        ],
    }
    return trace, means


def _apart_s(above_ms: float | None, below_ms: float | None) -> float:
    return (above_ms - below_ms) / 1e3 if above_ms is not None and below_ms is not None else 0.0


def shaded(
    x: Sequence[float | None],
    low: Sequence[float | None],
    high: Sequence[float | None],
    number: int,
    group: str,
) -> list[Trace]:
    """The band of one series, to be drawn before its line; `group`: the line's name."""
    edge: Trace = {"type": "scatter", "mode": "lines", "name": group, "legendgroup": group, "x": list(x)}
    edge |= {"showlegend": False, "hoverinfo": "skip", "line": {"width": 0, "color": colour(number)}}
    return [edge | {"y": low}, edge | {"y": high, "fill": "tonexty", "fillcolor": colour(number) + _FAINT}]


def points(distributions: list[Distribution], number: int) -> Trace:
    """A line of medians (or means, open) of one series."""
    trace, means = middles(distributions)
    shapes = [symbol(number, hollow=mean) for mean in means]
    return trace | {
        "type": "scatter",
        "mode": "lines+markers",
        "marker": {"symbol": shapes, "size": 9, "color": colour(number)},
        "line": line(number),
    }

"""Figures over time: a level with its errors and the server's metrics, slow answers, the client's lag."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from analysis.report.facts import RunFacts
from analysis.report.plots_style import Figure, colour, figure, label, line

_MOST_TIMELINES = 40
_MOST_RASTERS = 16
_GAP = 0.07
_ERROR_SHAPES = ("x", "cross", "diamond", "triangle-up", "star", "square", "pentagon")


def timelines(facts: list[RunFacts]) -> list[Figure]:
    """A figure a level, of at most 40 levels: the last of every run first, then the ones before them."""
    each = [(run, list(reversed(run.timelines))) for run in facts]
    depth = max((len(levels) for _, levels in each), default=0)
    order = [(run, levels[n]) for n in range(depth) for run, levels in each if n < len(levels)]
    kept = sorted(order[:_MOST_TIMELINES], key=lambda pair: facts.index(pair[0]))
    return [_timeline(run.name if len(facts) > 1 else "", told) for run, told in kept]


def _timeline(run: str, told: dict[str, Any]) -> Figure:
    panels = list(_panels(told))
    pick = f"{run}, load {told['load']}" if run else f"load {told['load']}"
    data = [trace | {"yaxis": _axis(n)} for n, (_, traces) in enumerate(panels) for trace in traces]
    note = (
        "Grey: the window in which turns are measured. Tokens of a turn are spread evenly over its stream."
        + ("" if told["errors"]["count"] else " No turn failed.")
        + ("" if told["server"]["at_s"] else " The server told no metrics of its own.")
    )
    one = figure(
        "time", "Second by second", data, "seconds since the level's start", "", pick=pick, note=note
    )
    one["layout"] |= _axes([title for title, _ in panels]) | {"shapes": [_window(told["window_s"])]}
    one["layout"]["hovermode"] = "x"
    one["terms"] = ["streams", "agg. TPS"]
    one["height"] = 130 * len(panels) + 110
    return one


def _panels(told: dict[str, Any]) -> Iterator[tuple[str, list[Figure]]]:
    """(axis title, traces) from top to bottom."""
    server = told["server"]
    streams = [_over(told["at_s"], told["streams"], "streams (client)", 0)]
    for number, (key, words) in enumerate(
        (("running", "running (server)"), ("waiting", "waiting (server)")), 1
    ):
        if key in server:
            streams.append(_over(server["at_s"], server[key], words, number))
    yield "streams", streams
    yield "tokens/s", [_over(told["at_s"], told["tokens_per_s"], "tokens/s", 5)]
    if "kv_share" in server:
        percent = [None if share is None else share * 100 for share in server["kv_share"]]
        yield "KV cache, %", [_over(server["at_s"], percent, "KV cache used, %", 6)]
    if told["errors"]["count"]:
        yield "failed turns", _errors(told["errors"])


def _over(xs: list[float], ys: list[Any], name: str, number: int) -> Figure:
    return {"type": "scatter", "mode": "lines", "name": name, "x": xs, "y": ys, "line": line(number, 1.8)}


def _errors(errors: dict[str, Any]) -> list[Figure]:
    outcomes = list(dict.fromkeys(errors["outcome"]))
    found = []
    for number, outcome in enumerate(outcomes):
        xs = [at for at, name in zip(errors["at_s"], errors["outcome"], strict=True) if name == outcome]
        shape = {"symbol": _ERROR_SHAPES[number % len(_ERROR_SHAPES)], "size": 9, "color": "#d1242f"}
        trace = {"type": "scatter", "mode": "markers", "name": label(outcome), "x": xs, "marker": shape}
        found.append(trace | {"y": [label(outcome)] * len(xs), "hovertemplate": "%{x} s"})
    return found


def _axis(number: int) -> str:
    return f"y{number + 1}" if number else "y"


def _axes(titles: list[str]) -> dict[str, Any]:
    """One axis a panel, stacked, over one axis of time."""
    height = (1 - _GAP * (len(titles) - 1)) / len(titles)
    found: dict[str, Any] = {}
    for number, title in enumerate(titles):
        top = 1 - number * (height + _GAP)
        place = {"domain": [max(top - height, 0), top], "title": {"text": title}, "rangemode": "tozero"}
        found["yaxis" + _axis(number)[1:]] = place
    last = _axis(len(titles) - 1)
    found["xaxis"] = {"title": {"text": "seconds since the level's start"}, "anchor": last}
    return found


def _window(ends: list[float]) -> Figure:
    place = {"type": "rect", "xref": "x", "yref": "paper", "x0": ends[0], "x1": ends[1], "y0": 0, "y1": 1}
    return place | {"fillcolor": "#888888", "opacity": 0.12, "line": {"width": 0}, "layer": "below"}


def rasters(facts: list[RunFacts]) -> list[Figure]:
    """A figure a run, of at most 16 runs: a row a slow turn, a tick an arrival."""
    told = [(run.name if len(facts) > 1 else "", run.raster) for run in facts if run.raster]
    return [_raster(name, raster) for name, raster in told[:_MOST_RASTERS]]


def _raster(run: str, raster: dict[str, Any]) -> Figure:
    turns = raster["turns"]
    rows = [f"{n}" for n in range(1, len(turns) + 1)]
    ticks = [
        f"{label(turn['task'][:14])} · {label(turn['load'])} · {turn['conversation']}/{turn['turn']}"
        for turn in turns
    ]
    waits, pauses, arrivals = _Segments(), _Segments(), ([], [])  # type: ignore[var-annotated]
    for row, turn in zip(rows, turns, strict=True):
        if turn["at_s"]:
            waits.add(0, turn["at_s"][0], row)
        if turn["gap_s"]:
            pauses.add(turn["gap_s"][0], turn["gap_s"][1], row)
        arrivals[0].extend(turn["at_s"])
        arrivals[1].extend([row] * len(turn["at_s"]))
    thin = {"type": "scatter", "mode": "markers", "name": "arrival", "x": arrivals[0], "y": arrivals[1]}
    mark = {"symbol": "line-ns-open", "size": 9, "color": colour(0), "line": {"width": 1}}
    data = [
        waits.trace("waiting for the first token", "#888888", "dot", 1.5),
        pauses.trace("longest pause", colour(1), "solid", 5),
        thin | {"marker": mark, "hovertemplate": "%{x} s"},
    ]
    note = (
        f"The {len(turns)} of {raster['of']} measured turns that took longest, each with its task, load and "
        "conversation/turn."
    )
    note += " Arrivals are thinned evenly." if raster["thinned"] else ""
    one = figure(
        "raster", "When each piece arrived", data, "seconds since the turn was sent", "", pick=run, note=note
    )
    axis = {"type": "category", "autorange": "reversed", "categoryarray": rows, "tickvals": rows}
    one["layout"]["yaxis"] = axis | {"ticktext": ticks, "tickfont": {"size": 10}}
    one["terms"] = ["TTFT", "TTG", "inter-event"]
    one["height"] = 110 + 20 * len(turns)
    return one


class _Segments:
    """Lines that do not join: plotly breaks a line where a value is null."""

    def __init__(self) -> None:
        self.x: list[float | None] = []
        self.y: list[str | None] = []

    def add(self, start: float, end: float, row: str) -> None:
        self.x += [start, end, None]
        self.y += [row, row, None]

    def trace(self, name: str, ink: str, dash: str, width: float) -> Figure:
        drawn = {"color": ink, "dash": dash, "width": width}
        names = {"type": "scatter", "mode": "lines", "name": name, "hoverinfo": "skip"}
        return names | {"x": self.x, "y": self.y, "line": drawn}


def lags(facts: list[RunFacts]) -> list[Figure]:
    """The client's own lag over each run."""
    several = len(facts) > 1
    told = [(run.name if several else "", lag) for run in facts for lag in run.lags if lag["x"]]
    if not told:
        return []
    data = [
        {"type": "scatter", "mode": "lines", "name": label(f"{run} worker {lag['worker']}".strip())}
        | {"x": lag["x"], "y": lag["y"], "line": line(number, 1)}
        for number, (run, lag) in enumerate(told[: 4 * _MOST_RASTERS])
    ]
    note = (
        "How late the client's own event loop woke, worst of each second. With the kernel's clock this "
        "is not in any latency; with the user clock it is."
    )
    axes = ("seconds since the run's start", "ms")
    one = figure("client", "The client's own lag", data, *axes, note=note, terms=("lag",))
    one["layout"]["hovermode"] = "x"
    return [one]

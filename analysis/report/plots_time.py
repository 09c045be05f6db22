"""Figures over time: a level with its errors and the server's metrics, slow answers, the client's lag."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from analysis.report.facts import Errors, LevelTimeline, RunFacts, SlowTurns
from analysis.report.plots_style import Figure, Trace, colour, figure, line
from analysis.tables.writing import for_plotly

_MOST_TIMELINES = 40
_MOST_RUNS = 16
_MOST_LAGS = 64
_GAP = 0.07
_SHARES = {
    "kv_share": "KV cache used",
    "cache_hit_share": "prefix cache hits",
    "acceptance_share": "drafts accepted",
}
_ERROR_SHAPES = ("x", "cross", "diamond", "triangle-up", "star", "square", "pentagon")


def timelines(facts: list[RunFacts]) -> list[Figure]:
    """A figure a level, of at most 40 levels: the last of every run first, then the ones before them."""
    each = [(run, list(reversed(run.timelines))) for run in facts]
    depth = max((len(levels) for _, levels in each), default=0)
    order = [(run, levels[n]) for n in range(depth) for run, levels in each if n < len(levels)]
    kept = sorted(order[:_MOST_TIMELINES], key=lambda pair: facts.index(pair[0]))
    return [_timeline(run.name if len(facts) > 1 else "", level) for run, level in kept]


def _timeline(run: str, level: LevelTimeline) -> Figure:
    panels = list(_panels(level))
    data = [trace | {"yaxis": _axis(n)} for n, (_, traces) in enumerate(panels) for trace in traces]
    begin, end = level.window_s
    window = {"type": "rect", "xref": "x", "yref": "paper", "x0": begin, "x1": end, "y0": 0, "y1": 1}
    window |= {"fillcolor": "#888888", "opacity": 0.12, "line": {"width": 0}, "layer": "below"}
    one = figure(
        "time",
        "Streams, tokens and errors",
        data,
        "seconds since the level's start",
        "",
        pick=f"{run}, load {level.load}" if run else f"load {level.load}",
        note="Grey: the window in which turns are measured. Tokens are spread evenly over their stream."
        + ("" if level.errors.count else " No turn failed.")
        + ("" if level.server.at_s else " The server reported no metrics."),
        terms=("streams", "agg. TPS"),
        height=130 * len(panels) + 110,
    )
    one.layout |= _axes([title for title, _ in panels]) | {"shapes": [window], "hovermode": "x"}
    return one


def _panels(level: LevelTimeline) -> Iterator[tuple[str, list[Trace]]]:
    """(axis title, traces) from top to bottom."""
    at_s, values = level.server.at_s, level.server.values
    streams = [_over(level.at_s, level.streams, "streams (client)", 0)]
    for number, key in enumerate(("running", "waiting"), 1):
        if key in values:
            streams.append(_over(at_s, values[key], f"{key} (server)", number))
    yield "streams", streams
    yield "tokens/s", [_over(level.at_s, level.tokens_per_s, "tokens/s", 5)]
    shares = [
        _over(at_s, [None if share is None else share * 100 for share in values[key]], f"{name}, %", number)
        for number, (key, name) in enumerate(_SHARES.items(), 6)
        if key in values
    ]
    if shares:
        yield ("KV cache, %" if list(values.keys() & _SHARES) == ["kv_share"] else "server, %"), shares
    if "preemptions" in values:
        yield "preemptions", [_over(at_s, values["preemptions"], "preemptions (server)", 9)]
    if level.errors.count:
        yield "failed turns", _errors(level.errors)


def _over(xs: list[float], ys: list[Any], name: str, number: int) -> Trace:
    return {"type": "scatter", "mode": "lines", "name": name, "x": xs, "y": ys, "line": line(number, 1.8)}


def _errors(errors: Errors) -> list[Trace]:
    found = []
    for number, outcome in enumerate(dict.fromkeys(errors.outcomes)):
        xs = [at for at, name in zip(errors.at_s, errors.outcomes, strict=True) if name == outcome]
        shape = {"symbol": _ERROR_SHAPES[number % len(_ERROR_SHAPES)], "size": 9, "color": "#d1242f"}
        trace = {"type": "scatter", "mode": "markers", "name": for_plotly(outcome), "x": xs, "marker": shape}
        found.append(trace | {"y": [for_plotly(outcome)] * len(xs), "hovertemplate": "%{x} s"})
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


def slowest_turns(facts: list[RunFacts]) -> list[Figure]:
    """A figure a run, of at most 16 runs: a row a slow turn, a tick an arrival."""
    known = [(run.name if len(facts) > 1 else "", run.slowest) for run in facts if run.slowest]
    return [_slowest(name, slowest) for name, slowest in known[:_MOST_RUNS]]


def _slowest(run: str, slowest: SlowTurns) -> Figure:
    turns = slowest.turns
    rows = [f"{n}" for n in range(1, len(turns) + 1)]
    ticks = [
        f"{for_plotly(turn.task[:14])} · {for_plotly(turn.load)} · {turn.conversation}/{turn.turn}"
        for turn in turns
    ]
    waits, pauses = _Segments(), _Segments()
    for row, turn in zip(rows, turns, strict=True):
        if turn.at_s:
            waits.add(0, turn.at_s[0], row)
        if turn.pause_s:
            pauses.add(*turn.pause_s, row)
    arrivals: Trace = {"type": "scatter", "mode": "markers", "name": "arrival", "hovertemplate": "%{x} s"}
    arrivals |= {
        "x": [at for turn in turns for at in turn.at_s],
        "y": [row for row, turn in zip(rows, turns, strict=True) for _ in turn.at_s],
        "marker": {"symbol": "line-ns-open", "size": 9, "color": colour(0), "line": {"width": 1}},
    }
    data = [
        waits.trace("waiting for the first token", "#888888", "dot", 1.5),
        pauses.trace("longest pause", colour(1), "solid", 5),
        arrivals,
    ]
    one = figure(
        "raster",
        "Arrival of each event",
        data,
        "seconds since the turn was sent",
        "",
        pick=run,
        note=f"The {len(turns)} of {slowest.of} measured turns that took longest, each with its task, load "
        "and conversation/turn."
        + (" Of long answers, evenly chosen events are shown." if slowest.thinned else ""),
        terms=("TTFT", "TTG", "inter-event"),
        height=110 + 20 * len(turns),
    )
    axis = {"type": "category", "autorange": "reversed", "categoryarray": rows, "tickvals": rows}
    one.layout["yaxis"] = axis | {"ticktext": ticks, "tickfont": {"size": 10}}
    return one


class _Segments:
    """Lines that do not join: plotly breaks a line where a value is null."""

    def __init__(self) -> None:
        self.x: list[float | None] = []
        self.y: list[str | None] = []

    def add(self, start: float, end: float, row: str) -> None:
        self.x += [start, end, None]
        self.y += [row, row, None]

    def trace(self, name: str, ink: str, dash: str, width: float) -> Trace:
        drawn = {"color": ink, "dash": dash, "width": width}
        names = {"type": "scatter", "mode": "lines", "name": name, "hoverinfo": "skip"}
        return names | {"x": self.x, "y": self.y, "line": drawn}


def lags(facts: list[RunFacts]) -> list[Figure]:
    """The client's own lag over each run."""
    several = len(facts) > 1
    known = [(run.name if several else "", lag) for run in facts for lag in run.lags if lag.at_s]
    if not known:
        return []
    data = [
        {"type": "scatter", "mode": "lines", "name": for_plotly(f"{run} worker {lag.worker}".strip())}
        | {"x": lag.at_s, "y": lag.lag_ms, "line": line(number, 1)}
        for number, (run, lag) in enumerate(known[:_MOST_LAGS])
    ]
    note = (
        "How late the client's event loop woke up, the worst of each second. With the wire or "
        "the kernel clock no latency includes it; with the user clock every latency may."
    )
    axes = ("seconds since the run's start", "ms")
    one = figure("client", "Lag of the client", data, *axes, note=note, terms=("lag",))
    one.layout["hovermode"] = "x"
    return [one]

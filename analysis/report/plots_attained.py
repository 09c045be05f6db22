"""The report's attainment curves: which share of the turns was within each limit of waiting."""

from __future__ import annotations

from analysis.measures.attainment import Attainment
from analysis.report.facts import Attained, RunFacts
from analysis.report.plots_style import Figure, Trace, colour, figure, line, shaded, symbol
from analysis.tables.rows import LevelCell
from analysis.tables.writing import for_plotly, number
from turnbench.limits import limits_by_task

_METRICS = {"ttft_ms": ("TTFT", "Time to first token"), "ttg_ms": ("TTG", "Time to generate")}
_MOST_PICKS = 40
_MOST_MARKS = 9


def attained(cells: list[LevelCell], facts: list[RunFacts]) -> list[Figure]:
    """Two figures a task and load with a line a model; of one model alone, two a task with a line a load."""
    names = {(cell.run, cell.cell.model): cell.name for cell in cells}
    named: list[tuple[str, Attained]] = []
    for run in facts:
        for one in run.attained:
            alone = names.get(("", one.model), one.model)
            named.append((names.get((run.name, one.model), alone), one))
    if len({name for name, _ in named}) > 1:
        loads = list(dict.fromkeys(one.load for _, one in named))
        named.sort(key=lambda pair: -loads.index(pair[1].load))
        keyed = [(f"{one.task}, load {one.load}", name, one) for name, one in named]
    else:
        keyed = [(one.task, f"load {one.load}", one) for _, one in named]
    series = list(dict.fromkeys(name for _, name, _ in keyed))
    limits = {task: item.limits for run in facts for task, item in limits_by_task(run.manifest.slo).items()}
    found = []
    for pick in list(dict.fromkeys(pick for pick, _, _ in keyed))[:_MOST_PICKS]:
        mine = [(name, one) for its, name, one in keyed if its == pick]
        for metric, (term, title) in _METRICS.items():
            data: list[Trace] = []
            for name, one in mine:
                data += _curve(getattr(one, metric), f"{name} (n {one.n})", series.index(name))
            if not data:
                continue
            made = figure("attained", title, data, f"{term} limit, s", "turns within it, %", pick=pick)
            made.terms = (term,)
            made.layout["yaxis"] |= {"range": [0, 102]}
            made.layout["showlegend"] = True
            if (limit_ms := limits.get(mine[0][1].task, {}).get(metric)) is not None:
                _mark(made, limit_ms)
            found.append(made)
    return found


def _curve(one: Attainment, name: str, series: int) -> list[Trace]:
    """A band, and a stepped curve over it; nothing where no turn has the metric."""
    if not one.limits_ms:
        return []
    same: Trace = {"type": "scatter", "name": for_plotly(name), "legendgroup": for_plotly(name)}
    curve = same | {
        "mode": "lines+markers",
        "x": [_seconds(limit) for limit in one.limits_ms],
        "y": [_percent(share) for share in one.within],
        "line": line(series) | {"shape": "hv"},
        "marker": {"symbol": symbol(series), "color": colour(series), "size": 7, "maxdisplayed": _MOST_MARKS},
        "hovertemplate": "%{y} % within %{x} s",
    }
    if not one.band_ms:
        return [curve]
    low, high = ([_percent(share) for share in ends] for ends in (one.low, one.high))
    return [*shaded([*map(_seconds, one.band_ms)], low, high, series, for_plotly(name)), curve]


def _mark(made: Figure, limit_ms: float) -> None:
    """A line where the run's own limit is."""
    at = {"x0": _seconds(limit_ms), "x1": _seconds(limit_ms), "y0": 0, "y1": 1, "yref": "paper"}
    made.layout["shapes"] = [
        at | {"type": "line", "line": {"width": 1, "dash": "dot", "color": "#7f7f7f"}},
    ]
    made.note = f"Dotted: the run's limit, {number(limit_ms / 1e3)} s."


def _seconds(value_ms: float) -> float:
    return float(f"{value_ms / 1e3:.4g}")


def _percent(share: float) -> float:
    return round(100 * share, 1)

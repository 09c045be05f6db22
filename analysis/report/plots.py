"""The report's figures as plain plotly data, ready for JSON; no name in them can act as markup.

Here are those of cells: waiting times, distributions, load curves, growth of a conversation. Those over time
are in `plots_time`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from analysis.measures.cells import ALL
from analysis.report.facts import RunFacts
from analysis.report.plots_attained import attained
from analysis.report.plots_style import (
    Figure,
    Trace,
    colour,
    figure,
    line,
    middles,
    pattern,
    points,
    shaded,
    symbol,
)
from analysis.report.plots_time import lags, slowest_turns, timelines
from analysis.tables.rows import LevelCell, cells_at_levels, run_of
from analysis.tables.writing import for_plotly, stamp
from turnbench.formats.summary import GrowthRow, LoadCurve, Summary

GROUPS = {
    "wait": "Time to generate, by task and model",
    "attained": "Share of turns within a limit",
    "load": "Waiting against throughput",
    "growth": "As the conversation grows",
    "time": "Each level over time",
    "raster": "The slowest answers, event by event",
    "client": "The client",
}
_MEANS = "Medians with 95% intervals. Open or faint: a mean, where there are too few turns for a median."
NOTES = {
    "wait": _MEANS,
    "attained": "Of all measured turns, the share within each limit. Failed turns are within none: a curve "
    "may end below 100%. Band: 95% interval; its upper end counts turns that still ran when they were last "
    "seen as within every limit that they had not outlived.",
    "load": "Each point is one level, labelled with its load. Higher up is a longer wait, further right more "
    "throughput. Ring: the load beyond which no higher one raised throughput by more than 5%; wide line: "
    f"its 95% interval. No ring: throughput was still growing at the highest load. {_MEANS}",
}
"""What is said once over a group's figures."""
_METRICS = {"ttft_ms": "TTFT", "ttg_ms": "TTG"}
_MOST_LINES = 24
_AT_TOP = "At the highest load of each run."


def figures(summary: Summary, facts: list[RunFacts]) -> list[Figure]:
    """Every figure, in the order of the page."""
    cells = cells_at_levels(summary)
    names: dict[str, set[str]] = {}
    for cell in cells:
        if cell.run:
            names.setdefault(cell.run, set()).add(cell.name)
    # A run of a sweep goes by its model, where no other run has that name.
    alone = Counter(name for of_run in names.values() for name in of_run)
    called = {run: min(of) if len(of) == 1 and alone[min(of)] == 1 else run for run, of in names.items()}
    runs = [replace(run, name=called.get(run.name, run.name)) for run in facts]
    made = [
        *_waits(cells),
        *attained(cells, facts),
        *_load_curves(summary, cells),
        *_growth(summary, called),
        *timelines(runs),
        *slowest_turns(runs),
        *lags(runs),
    ]
    for number, one in enumerate(made):
        one.id = f"plot-{number}"
        if summary.emulated:
            _mark(one)
    return made


def _mark(one: Figure) -> None:
    """EMULATED above the plot and inside it, where it stays when the plot is cut out of the page."""
    note = {"text": "EMULATED", "xref": "paper", "yref": "paper", "x": 1, "y": 1, "xanchor": "right"}
    note |= {"yanchor": "bottom", "yshift": 6, "showarrow": False, "font": {"size": 10, "color": "#b07800"}}
    one.layout["annotations"] = [*one.layout.get("annotations", []), note]
    one.title = stamp(emulated=True) + one.title


def _waits(cells: list[LevelCell]) -> list[Figure]:
    """Time to generate: with one load a bar a task and model, with several a panel a task."""
    cells = [cell for cell in cells if cell.task != ALL]
    loads = list(dict.fromkeys(cell.load for cell in cells))
    names = list(dict.fromkeys(cell.name for cell in cells))
    if not cells:
        return []
    if len(loads) == 1:
        data = []
        for number, name in enumerate(names):
            mine = [cell for cell in cells if cell.name == name]
            trace, means = middles([cell.of("ttg_ms") for cell in mine])
            faint = [0.45 if mean else 1.0 for mean in means]
            marker = {"color": colour(number), "opacity": faint, "pattern": pattern(number)}
            tasks = [for_plotly(cell.task) for cell in mine]
            data.append(trace | {"type": "bar", "name": for_plotly(name), "x": tasks, "marker": marker})
        return [figure("wait", "Time to generate by task", data, "task", "TTG, s", terms=("TTG",))]
    made = []
    for task in dict.fromkeys(cell.task for cell in cells):
        data = []
        for number, name in enumerate(names):
            mine = [cell for cell in cells if cell.task == task and cell.name == name]
            if mine:
                trace = points([cell.of("ttg_ms") for cell in mine], number)
                xs = [for_plotly(cell.load) for cell in mine]
                data.append(trace | {"name": for_plotly(name), "x": xs})
        one = figure("wait", f"Time to generate: {task}", data, "people", "TTG, s", terms=("TTG",))
        axis = {"type": "category", "categoryarray": [*map(for_plotly, loads)]}
        one.layout["xaxis"] |= axis | {"range": [-0.4, len(loads) - 0.6]}
        made.append(one)
    return made


def _load_curves(summary: Summary, cells: list[LevelCell]) -> list[Figure]:
    """TTFT and TTG against throughput, a line a model; runs of other tasks are a pick of their own."""
    runs: dict[tuple[str, str], list[LevelCell]] = {}
    for cell in cells:
        runs.setdefault((cell.run, cell.name), []).append(cell)
    curves = {run.run: run.curve for run in summary.runs or []} or {"": summary.curve or None}
    by_tasks: dict[str, dict[str, list[LevelCell]]] = {}
    for (_, name), mine in runs.items():
        tasks = ", ".join(sorted({cell.task for cell in mine} - {ALL}))
        whole = by_tasks.setdefault(tasks, {}).setdefault(name, [])
        whole += [cell for cell in mine if cell.task == ALL]
    found = []
    for tasks, lines in by_tasks.items():
        for metric, term in _METRICS.items():
            data = []
            for number, (name, whole) in enumerate(lines.items()):
                of_runs = {cell.run for cell in whole}
                curve = (
                    curves.get(min(of_runs)) if len(of_runs) == 1 else None
                )  # known where one run played all
                data += _curve(name, whole, metric, curve, number)
            axes = ("aggregate tokens/s", f"{term}, s")
            terms = (term, "agg. TPS", "saturation")
            found.append(figure("load", f"{term} against throughput", data, *axes, pick=tasks, terms=terms))
    return found


def _curve(
    name: str, cells: list[LevelCell], metric: str, curve: LoadCurve | None, number: int
) -> list[Trace]:
    """A model's line over a wide piece and a ring for its saturation, where that is known."""
    same: Trace = {"name": for_plotly(name), "legendgroup": for_plotly(name)}
    xs = [cell.cell.aggregate_tps for cell in cells]
    loads = [cell.load for cell in cells]
    trace = (
        points([cell.of(metric) for cell in cells], number) | same | {"x": xs, "mode": "lines+markers+text"}
    )
    trace |= {"text": [*map(for_plotly, loads)], "textposition": "top center", "cliponaxis": False}
    if not curve or curve.saturation is None or curve.saturation not in loads:
        return [trace]
    ends = [
        len(loads) - 1 if end is None else loads.index(end)
        for end in curve.saturation_ci95
        if end is None or end in loads
    ]
    if len(ends) < 2:
        return [trace]
    at, span = loads.index(curve.saturation), slice(ends[0], ends[1] + 1)
    same |= {"type": "scatter", "showlegend": False, "hoverinfo": "skip"}
    wide = same | {"mode": "lines", "x": xs[span], "y": trace["y"][span], "opacity": 0.3}
    ring = same | {"mode": "markers", "x": [xs[at]], "y": [trace["y"][at]]}
    shape = {"symbol": "circle-open", "size": 20, "color": colour(number), "line": {"width": 3}}
    return [wide | {"line": {"color": colour(number), "width": 12}}, ring | {"marker": shape}, trace]


def _growth(summary: Summary, called: dict[str, str]) -> list[Figure]:
    """TTFT by turn and by context length, and cached tokens expected and observed; `called`: runs' names."""
    turns, contexts = (
        {called.get(run, run): cells for run, cells in _at_top(rows, summary).items()}
        for rows in (summary.by_turn, summary.by_context)
    )
    made = []
    if data := _first_token(turns):
        axes = ("turn of the conversation", "TTFT, s")
        made.append(figure("growth", "TTFT by turn", data, *axes, note=_AT_TOP, terms=("TTFT",)))
    if data := _by_length(contexts):
        note = f"{_AT_TOP} Prompts in groups that double in length, each at its mean. Band: 95% interval."
        if any(row.prefix for rows in contexts.values() for row in rows):
            note += " Cached: at least half of the prompt came from the server's prefix cache."
        axes = ("prompt, tokens", "TTFT, s")
        made.append(figure("growth", "TTFT by prompt length", data, *axes, note=note, terms=("TTFT",)))
        edges = {end for rows in contexts.values() for row in rows for end in _ends(row)}
        made[-1].layout["xaxis"] |= {"type": "log", "tickvals": sorted(end for end in edges if end)}
    if data := _cached(turns):
        note = f"{_AT_TOP} Expected (open, dotted): what the turn before left in a prefix cache."
        axes = ("turn of the conversation", "cached tokens, mean")
        made.append(figure("growth", "Cached tokens by turn", data, *axes, note=note, terms=("cached",)))
    for one in made:
        one.layout["xaxis"] |= {"rangemode": "normal"} | (
            {} if "type" in one.layout["xaxis"] else {"dtick": 1}
        )
    return made


def _ends(row: GrowthRow) -> list[int]:
    """Prompt tokens of its bin, from and to."""
    return row.context_tokens or [0, 0]


def _at_top(rows: list[GrowthRow], summary: Summary) -> dict[str, list[GrowthRow]]:
    """The rows of each run at its highest load, of the runs with the highest of all."""
    loads = {
        (run_of(level), level.index): float(level.users or level.arrival_rate_per_s or 0)
        for level in summary.levels
    }
    found: dict[str, list[GrowthRow]] = {}
    tops: dict[str, float] = {}
    for run in dict.fromkeys(map(run_of, rows)):
        mine = [row for row in rows if run_of(row) == run]
        top = max({row.level for row in mine}, key=lambda level: loads.get((run, level), 0.0))
        found[run] = [row for row in mine if row.level == top]
        tops[run] = loads.get((run, top), 0.0)
    highest = [run for run in found if tops[run] == max(tops.values())]
    return {run: found[run] for run in highest[:_MOST_LINES]}


def _first_token(runs: dict[str, list[GrowthRow]]) -> list[Trace]:
    found = []
    for number, (run, rows) in enumerate(runs.items()):
        if len(rows) > 1:
            trace = points([row.ttft_ms for row in rows], number)
            found.append(trace | {"name": for_plotly(run or "TTFT"), "x": [row.turn or 0 for row in rows]})
    return found


def _by_length(runs: dict[str, list[GrowthRow]]) -> list[Trace]:
    """A line with its band for each run; prompts from the prefix cache have one of their own."""
    found: list[Trace] = []
    series = [
        (f"{run} {kind}".strip() or "TTFT", mine)
        for run, rows in runs.items()
        for kind in ("computed", "cached", "")
        if (mine := [row for row in rows if (row.prefix or "") == kind])
    ]
    if max((len(rows) for _, rows in series), default=0) < 2:
        return []
    for number, (name, rows) in enumerate(series):
        trace = points([row.ttft_ms for row in rows], number)
        errors = trace.pop("error_y")
        xs = [row.prompt_tokens_mean for row in rows]
        low, high = (
            [y if y is None else y + sign * error for y, error in zip(trace["y"], errors[key], strict=True)]
            for sign, key in ((-1, "arrayminus"), (1, "array"))
        )
        found += shaded(xs, low, high, number, for_plotly(name))
        found.append(trace | {"name": for_plotly(name), "legendgroup": for_plotly(name), "x": xs})
    return found


def _cached(runs: dict[str, list[GrowthRow]]) -> list[Trace]:
    found = []
    for number, (run, rows) in enumerate(runs.items()):
        if len(rows) < 2 or all(row.cached_tokens_mean is None for row in rows):
            continue
        for words, means, dotted in (
            ("observed", [row.cached_tokens_mean for row in rows], False),
            ("expected", [row.expected_cached_mean for row in rows], True),
        ):
            marker = {"symbol": symbol(number, hollow=dotted), "color": colour(number), "size": 9}
            trace: Trace = {"type": "scatter", "mode": "lines+markers", "marker": marker}
            trace["name"] = for_plotly(f"{run} {words}".strip())
            trace |= {"x": [row.turn for row in rows], "y": means}
            found.append(trace | {"line": line(number, 1.5) | ({"dash": "dot"} if dotted else {})})
    return found

"""Waiting as the conversation grows: by turn, by length of the prompt, and what a cache spared."""

from __future__ import annotations

from typing import Any

from analysis.report.plots_style import Cells, Figure, colour, figure, label, line, points, symbol

_MOST_LINES = 24
_AT = "At the highest load of each run."


def growth(summary: dict[str, Any], called: dict[str, str]) -> list[Figure]:
    """TTFT by turn and by context length, and cached tokens expected against seen; `called`: runs' names."""
    turns, contexts = (
        {called.get(run, run): cells for run, cells in _at_top(summary.get(key) or [], summary).items()}
        for key in ("by_turn", "by_context")
    )
    made = []
    if data := _lines(turns, lambda cell: cell["turn"]):
        one = figure(
            "growth", "TTFT by turn", data, "turn of the conversation", "TTFT, s", note=_AT, terms=("TTFT",)
        )
        one["layout"]["xaxis"] |= {"dtick": 1, "rangemode": "normal"}
        made.append(one)
    if data := _lines(contexts, lambda cell: (cell["context_tokens"][0] or 32) * 2**0.5):
        note = f"{_AT} Prompts in steps of twice the length; the point is the middle of the step."
        axes = ("prompt, tokens", "TTFT, s")
        one = figure("growth", "TTFT by length of the context", data, *axes, note=note, terms=("TTFT",))
        edges = sorted(
            {end for cells in contexts.values() for cell in cells for end in cell["context_tokens"]}
        )
        one["layout"]["xaxis"] |= {"type": "log", "rangemode": "normal", "tickvals": [e for e in edges if e]}
        made.append(one)
    if data := _cached(turns):
        note = f"{_AT} Expected (open, dotted): prompt and answer of the turn before, as a cache holds them."
        axes = ("turn of the conversation", "cached tokens, mean")
        one = figure("growth", "Cached tokens by turn", data, *axes, note=note, terms=("cached",))
        one["layout"]["xaxis"] |= {"dtick": 1, "rangemode": "normal"}
        made.append(one)
    return made


def _at_top(cells: Cells, summary: dict[str, Any]) -> dict[str, Cells]:
    """The cells of each run at its highest load, of the runs with the highest of all."""
    loads = {(level.get("run", ""), level["index"]): level for level in summary["levels"]}
    found: dict[str, Cells] = {}
    tops: dict[str, float] = {}
    for run in dict.fromkeys(cell.get("run", "") for cell in cells):
        mine = [cell for cell in cells if cell.get("run", "") == run]
        top = max({cell["level"] for cell in mine}, key=lambda level: _load(loads.get((run, level))))
        found[run] = [cell for cell in mine if cell["level"] == top]
        tops[run] = _load(loads.get((run, top)))
    highest = [run for run in found if tops[run] == max(tops.values())]
    return {run: found[run] for run in highest[:_MOST_LINES]}


def _load(level: dict[str, Any] | None) -> float:
    return float(level["users"] or level["arrival_rate_per_s"] or 0) if level else 0.0


def _lines(runs: dict[str, Cells], x: Any) -> list[Figure]:
    found = []
    for number, (run, cells) in enumerate(runs.items()):
        if len(cells) > 1:
            trace = points([cell["ttft_ms"] for cell in cells], number)
            found.append(trace | {"name": label(run or "TTFT"), "x": [x(cell) for cell in cells]})
    return found


def _cached(runs: dict[str, Cells]) -> list[Figure]:
    found = []
    for number, (run, cells) in enumerate(runs.items()):
        if len(cells) < 2 or all(cell["cached_tokens_mean"] is None for cell in cells):
            continue
        for key, words, dotted in (("cached_tokens", "seen", False), ("expected_cached", "expected", True)):
            marker = {"symbol": symbol(number, hollow=dotted), "color": colour(number), "size": 9}
            trace: Figure = {"type": "scatter", "mode": "lines+markers"}
            trace["name"] = label(f"{run} {words}".strip())
            trace |= {"x": [cell["turn"] for cell in cells], "y": [cell[f"{key}_mean"] for cell in cells]}
            style = line(number, 1.5) | ({"dash": "dot"} if dotted else {})
            found.append(trace | {"line": style, "marker": marker})
    return found

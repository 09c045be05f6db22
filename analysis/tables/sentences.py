"""The answer in words: how long does a person wait?"""

from __future__ import annotations

from typing import Any

from analysis.measures.cells import ALL
from analysis.tables.headline import name_of, seconds

_MOST = 8


def answer(summary: dict[str, Any]) -> list[str]:
    """A sentence for each model (at most eight), at its lowest and its highest load."""
    levels = {(level.get("run"), level["index"]): level for level in summary["levels"]}
    by_name: dict[str, list[dict[str, Any]]] = {}
    for cell in summary["cells"]:
        if cell["task"] == ALL and cell["level"] != ALL and cell["model"] != ALL:
            by_name.setdefault(name_of(cell), []).append(cell)
    return [_of_model(name, cells, levels) for name, cells in list(by_name.items())[:_MOST]]


def _of_model(name: str, cells: list[dict[str, Any]], levels: dict[Any, dict[str, Any]]) -> str:
    ends = [cells[0]] if len(cells) == 1 else [cells[0], cells[-1]]
    parts = [_at(cell, levels[(cell.get("run"), cell["level"])]) for cell in ends]
    return f"{name}: {'; '.join(parts)}."


def _at(cell: dict[str, Any], level: dict[str, Any]) -> str:
    load = f"with {people(level)}"
    whole, first = cell["ttg_ms"], cell["ttft_ms"]
    if whole["p50"] is not None and first["p50"] is not None:
        return (
            f"{load}, half of the answers began within {seconds(first['p50'])} "
            f"and were complete within {seconds(whole['p50'])}"
        )
    if whole["mean"] is not None and first["mean"] is not None:
        return (
            f"{load}, an answer began after {seconds(first['mean'])} and was complete after "
            f"{seconds(whole['mean'])} on average (only {whole['n']} turns: too few for a median)"
        )
    return f"{load}, {cell['ok']} of {cell['turns']} turns ended, too few to tell how long one takes"


def people(level: dict[str, Any]) -> str:
    """A level's load in words."""
    if level["users"] is not None:
        return "1 person" if level["users"] == 1 else f"{level['users']} people"
    rate = level["arrival_rate_per_s"]
    return f"{rate:g} conversations a second arriving" if rate else "the load as it was"

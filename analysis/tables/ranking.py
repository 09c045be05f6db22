"""The comparison of models as rows of text for the report."""

from __future__ import annotations

from typing import Any

from analysis.compare.shares import PARTS
from analysis.measures.cells import ALL
from analysis.tables.headline import number, seconds

Rows = list[list[str]]
_MOST_CELLS = 40
_MOST_SWAPPED = 12
ORDER_HEADS = (
    "task",
    "people",
    "tau",
    "pairs that agree",
    "surest swap",
    *(part.replace("_", " ") for part in PARTS),
)


def order_rows(comparison: dict[str, Any] | None) -> Rows:
    """One row a task and load: both orders' agreement, the surest swap, the shares of the spread."""
    return [_order(cell) for cell in comparison["cells"]] if comparison else []


def _order(cell: dict[str, Any]) -> list[str]:
    ends = cell["tau_ci95"]
    return [
        *_names(cell),
        _signed(cell["tau"]) + (f" ({ends[0]:+.2f} to {ends[1]:+.2f})" if ends else ""),
        f"{cell['pairs_agreeing']} of {cell['pairs_in_all']}",
        _surest(cell["pairs"]),
        *(_share(cell["shares"], part) for part in PARTS),
    ]


def _names(cell: dict[str, Any]) -> list[str]:
    task = "all tasks" if cell["task"] == ALL else str(cell["task"])
    return [f"{task} ({cell['setting']})" if cell["setting"] else task, cell["load"]]


def _signed(value: float | None) -> str:
    return "–" if value is None else f"{value:+.2f}"


def _surest(pairs: list[dict[str, Any]]) -> str:
    swaps = [pair for pair in pairs if pair["swaps"]]
    if not swaps:
        return "none"
    best = max(swaps, key=lambda pair: pair["p"] or 0.0)
    sure = "" if best["p"] is None else f" ({best['p']:.0%})"
    return f"{best['faster']} faster, {best['sooner']} sooner{sure}"


def _share(shares: dict[str, Any] | None, part: str) -> str:
    if shares is None:
        return "–"
    ends = shares["ci95"] and shares["ci95"][part]
    told = f"{round(shares[part] * 100)} %"
    return f"{told} ({round(ends[0] * 100)} to {round(ends[1] * 100)})" if ends and None not in ends else told


def swap_tables(comparison: dict[str, Any] | None) -> dict[str, list[Any]]:
    """`ranks`: (caption, rows) and `swaps`: (caption, heads, rows), one a task and load.

    Of very many models or cells as many as a page can hold; summary.json has them all.
    """
    cells = (comparison["cells"] if comparison else [])[-_MOST_CELLS:]
    ranks = [(_caption(cell), [_model(model) for model in cell["models"][:_MOST_CELLS]]) for cell in cells]
    swaps = [
        (_caption(cell), ["speed of \\ lengths of", *cell["swap"]["names"]], _swap(cell["swap"]))
        for cell in cells
        if cell["swap"] and len(cell["swap"]["names"]) <= _MOST_SWAPPED
    ]
    return {"ranks": ranks, "swaps": swaps}


def _caption(cell: dict[str, Any]) -> str:
    task, load = _names(cell)
    return f"{task}, load {load}"


def _model(model: dict[str, Any]) -> list[str]:
    return [
        model["name"],
        str(model["turns"]),
        number(model["tps"]),
        f"{model['rank_tps']:g}",
        "∞" if model["time_ms"] is None else seconds(model["time_ms"]),
        f"{model['rank_time']:g}",
        number(model["tokens_mean"]),
        number(model["words_per_s"]),
        number(model["s_per_100_words"]),
    ]


def _swap(swap: dict[str, Any]) -> Rows:
    return [
        [name, *("–" if value is None else seconds(value) for value in row)]
        for name, row in zip(swap["names"], swap["time_ms"], strict=True)
    ]


def effect_rows(comparison: dict[str, Any] | None) -> Rows:
    """One row a term of the analysis of variance."""
    effects = (comparison or {}).get("effects") or []
    return [
        [item["term"], str(item["df"]), f"{item['omega_squared']:.3f}", _p(item["p_value"])]
        for item in effects
    ]


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"

"""The comparison in one paragraph: each sentence says what its number says and no more."""

from __future__ import annotations

from typing import Any

from analysis.compare.ranking import SIGNIFICANT
from analysis.measures.cells import ALL
from analysis.tables.headline import number, seconds

_SURE = 0.95
_MOST_TASKS = 6


def in_words(cells: list[dict[str, Any]]) -> str:
    """About the last load at which most models were measured, task by task."""
    most = max(len(cell["models"]) for cell in cells)
    load = [cell["load"] for cell in cells if len(cell["models"]) == most][-1]
    mine = [cell for cell in cells if cell["load"] == load]
    tasks = [cell for cell in mine if cell["task"] != ALL] or mine
    worst = sorted(tasks, key=lambda cell: cell["tau"] or 0.0)[:_MOST_TASKS]
    at = f"With {load} people at once" if load.isdigit() else f"At a load of {load}"
    at += f" ({cells[0]['setting']})" if cells[0].get("setting") else ""
    said = [_order(cell) for cell in worst]
    widest = max(tasks, key=_gap)
    return " ".join(
        [
            f"{at}: {said[0][0].lower()}{said[0][1:]}",
            *said[1:],
            *_swap(widest),
            *_shares(widest),
            _significance(tasks),
        ]
    )


def swap_in_words(cells: list[dict[str, Any]]) -> str:
    """The widest sure swap over all cells of single tasks, in a sentence; "" where there is none."""
    tasks = [cell for cell in cells if cell["task"] != ALL and _surest(cell)]
    if not tasks:
        return ""
    widest = max(tasks, key=_gap)
    setting = f" ({widest['setting']})" if widest.get("setting") else ""
    return f"{_swap(widest)[0][:-1]}, at a load of {widest['load']}{setting}."


def _order(cell: dict[str, Any]) -> str:
    tau, ends = cell["tau"], cell["tau_ci95"]
    if tau is None:
        return f"In {cell['task']}, the models are tied and have no order."
    told = (
        f"In {cell['task']}, the order of models by tokens per second and their order by time agree on "
        f"{cell['pairs_agreeing']} of {cell['pairs_in_all']} pairs (Kendall's tau {tau:+.2f}"
    )
    if ends is None:
        return f"{told}; too few conversations for an interval)."
    doubt = ", so it is not known which way they lean" if ends[0] <= 0 <= ends[1] else ""
    return f"{told}, 95 % interval {ends[0]:+.2f} to {ends[1]:+.2f}{doubt})."


def _surest(cell: dict[str, Any]) -> dict[str, Any] | None:
    """The pair that surely swaps and lies furthest apart in time."""
    pairs = [pair for pair in cell["pairs"] if pair["swaps"] and (pair["p"] or 0) >= _SURE]
    return max(pairs, key=lambda pair: _ratio(cell, pair), default=None)


def _ratio(cell: dict[str, Any], pair: dict[str, Any]) -> float:
    times = {model["name"]: model["time_ms"] for model in cell["models"]}
    return float((times[pair["faster"]] or 0) / times[pair["sooner"]])


def _gap(cell: dict[str, Any]) -> float:
    pair = _surest(cell)
    return _ratio(cell, pair) if pair else 0.0


def _swap(cell: dict[str, Any]) -> list[str]:
    pair = _surest(cell)
    if pair is None:
        return ["No pair of models is surely faster in tokens per second and slower to finish."]
    fast, soon = (
        next(model for model in cell["models"] if model["name"] == pair[key]) for key in ("faster", "sooner")
    )
    if fast["time_ms"] is None:
        return [f"{fast['name']} has turns that never ended."]
    return [
        f"In {cell['task']}, {fast['name']} makes more tokens a second than {soon['name']} "
        f"({number(fast['tps'])} against {number(soon['tps'])}) and takes longer to finish "
        f"({seconds(fast['time_ms'])} against {seconds(soon['time_ms'])} on average; "
        f"so in {_resamples(pair['p'])})."
    ]


def _resamples(p: float) -> str:
    """A share that is never rounded up to all."""
    return "all resamples" if p == 1 else f"{min(p, 0.999):.1%} of resamples"


def _shares(cell: dict[str, Any]) -> list[str]:
    shares = cell["shares"]
    if shares is None:
        return []
    ends = shares["ci95"] and shares["ci95"]["verbosity"]
    interval = f" ({ends[0]:.0%} to {ends[1]:.0%})" if ends and ends[0] is not None else ""
    return [
        f"Of the spread of times in {cell['task']}, {shares['verbosity']:.0%}{interval} goes with how much "
        f"was said, {shares['time_per_token']:.0%} with the time per token and "
        f"{shares['first_token']:.0%} with the first token."
    ]


def _significance(cells: list[dict[str, Any]]) -> str:
    models = max(len(cell["models"]) for cell in cells)
    least = next(cell["least_p_value"] for cell in cells if len(cell["models"]) == models)
    if least > SIGNIFICANT:
        return (
            f"{models} models are too few for any order to be significant (a perfect one has "
            f"p = {least:.2g}): this is about these models, not about models."
        )
    if models <= 5:
        return (
            f"With {models} models nothing short of a perfect order is significant: "
            "this is about these models, not about models."
        )
    return "The intervals are about these models, not about models in general."

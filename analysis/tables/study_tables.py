"""The study's own table beside ours, and orders at each precision, as rows of text."""

from __future__ import annotations

from typing import Any

from analysis.compare.task_ratios import LENGTHS, STUDY_RATIO
from analysis.tables.headline import number, seconds

Rows = list[list[str]]
RATIO_HEADS = (
    "model",
    "people",
    "task",
    "n",
    "mean TTG",
    "over quickest",
    "n at 256",
    "TTG@256, mean",
    "over quickest at 256",
)
PRECISION_HEADS = ("task", "people", "precision", "models", "tau by time", "95 %", "tau by tps", "95 %")
STUDY_NAME = "the study (2024)"
RATIO_NOTE = (
    "Mean time to generate of a task over that of the model's quickest task at the same load, with its 95 % "
    "interval. The study's row: 30 to 40 % more on complex tasks at 256 tokens, as a summary of it reports."
)
PRECISION_NOTE = (
    "Kendall's tau between the order of models at 16 bits and at the lower precision; +1: the same order. "
    "The study expects its relative findings to hold at 8 and 4 bits."
)


def ratio_rows(study: dict[str, Any]) -> Rows:
    """The study's own row, then one a model, load and task; nothing where there is nothing to compare."""
    rows = [[row["name"], row["load"], row["task"], *_lengths(row)] for row in study["ratios"]]
    low, high = STUDY_RATIO
    own = [STUDY_NAME, "–", "complex tasks", "–", "–", "–", "–", "–", f"{low:.2f} to {high:.2f}"]
    return [own, *rows] if rows else []


def _lengths(row: dict[str, Any]) -> list[str]:
    found = []
    for length in LENGTHS:
        told = row[length]
        found += [str(told["n"]), seconds(told["time_ms"]), _ratio(told)] if told else ["–", "–", "–"]
    return found


def _ratio(told: dict[str, Any]) -> str:
    text = number(told["ratio"])
    return f"{text} ({number(told['ci95'][0])} to {number(told['ci95'][1])})" if told["ci95"] else text


def precision_rows(study: dict[str, Any]) -> Rows:
    """A row a task, load and lower precision."""
    return [
        [
            row["task"],
            row["load"],
            row["precision"],
            str(row["models"]),
            _signed(row["tau_time"]),
            _ends(row["tau_time_ci95"]),
            _signed(row["tau_tps"]),
            _ends(row["tau_tps_ci95"]),
        ]
        for row in study["precisions"]
    ]


def _signed(value: float | None) -> str:
    return "–" if value is None else f"{value:+.2f}"


def _ends(ends: list[float] | None) -> str:
    return "–" if ends is None else f"{ends[0]:+.2f} to {ends[1]:+.2f}"


def in_words(study: dict[str, Any]) -> list[str]:
    """How far apart the tasks lie at natural length and at 256 tokens, over all models at one load."""
    return [words for length in LENGTHS if (words := _of_length(study["ratios"], length))]


def _of_length(ratios: list[dict[str, Any]], length: str) -> str:
    told = [row for row in ratios if row[length]]
    if not told:
        return ""
    load = told[-1]["load"]
    most: dict[str, float] = {}
    for row in told:
        if row["load"] == load:
            most[row["name"]] = max(most.get(row["name"], 1.0), row[length]["ratio"])
    ends = sorted(
        {number(min(most.values())), number(max(most.values()))}, key=lambda t: float(t.replace(",", ""))
    )
    at = "At natural length" if length == "natural" else "At 256 tokens"
    whose = "the model" if len(most) == 1 else f"each of {len(most)} models"
    return (
        f"{at} and a load of {load}, the slowest task took {whose} {' to '.join(ends)} times as long on "
        f"average as the quickest."
    )

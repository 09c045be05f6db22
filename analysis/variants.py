"""What tells apart several runs of one model: precision, hardware, engine, answers; else directories."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations
from typing import Any

FACETS = {
    "precision": (("server", "precision"), ("labels", "precision")),
    "hardware": (("server", "hardware"), ("server", "gpu"), ("labels", "hardware"), ("labels", "gpu")),
    "backend": (("server", "backend"), ("labels", "backend")),
}
"""Where run.json tells each, the first that does."""
EXACT = "answers"
"""One facet more: "256 tokens" where every answer was made to have so many."""
_LONGEST = 40
_EXACT_TOKENS = 256
_REPEAT = re.compile(r"-(r\d+)$")
"""The end of a directory's name in a sweep that plays each run several times."""

Cells = set[tuple[str, str]]


@dataclass(frozen=True)
class Played:
    """One run: its directory, its variant, and the (task, load) cells of each model that it played."""

    run: str
    variant: dict[str, str]
    cells: dict[str, Cells]


@dataclass(frozen=True)
class Named:
    """How a run's model is called, from the finest name to the coarsest."""

    one: str
    """In a table of runs."""
    pool: str
    """With its repeats."""
    speaker: str
    """At any length of answers."""
    family: str
    """At any precision."""


def variant_of(manifest: dict[str, Any]) -> dict[str, str]:
    """`{precision, hardware, backend, answers}` of a run, "" where it isn't told."""
    settings = manifest.get("settings")
    exact = ""
    if isinstance(settings, dict) and settings.get("exact_tokens") is True:
        exact = f"{settings.get('max_tokens') or _EXACT_TOKENS} tokens"[:_LONGEST]
    return {name: _first(manifest, places) for name, places in FACETS.items()} | {EXACT: exact}


def _first(manifest: dict[str, Any], places: Iterable[tuple[str, str]]) -> str:
    for part, key in places:
        section = manifest.get(part)
        value = section.get(key) if isinstance(section, dict) else None
        if isinstance(value, str) and value.strip():
            text = value.strip()[:_LONGEST]
            return text.lower() if key == "precision" else text
    return ""


def named(runs: list[Played]) -> dict[tuple[str, str], Named]:
    """The names of every (run, model): by model alone, where that tells runs apart."""
    found: dict[tuple[str, str], Named] = {}
    for model in dict.fromkeys(model for run in runs for model in run.cells):
        mine = [run for run in runs if model in run.cells]
        apart = [f for f in (*FACETS, EXACT) if len({run.variant.get(f, "") for run in mine}) > 1]
        by_label: dict[str, list[Played]] = {}
        for run in mine:
            by_label.setdefault(_label(model, run, apart), []).append(run)
        for label, same in by_label.items():
            for run in same:
                coarse = [
                    _label(model, run, [f for f in apart if f != left]) for left in (EXACT, "precision")
                ]
                found[run.run, model] = _names(label, coarse, model, run, same)
    return found


def _label(model: str, run: Played, facets: list[str]) -> str:
    return " ".join([model, *(run.variant[facet] for facet in facets if run.variant.get(facet))])


def _names(label: str, coarse: list[str], model: str, run: Played, same: list[Played]) -> Named:
    """Runs that share a label and no cell are parts of one study; repeats are pooled; others stay apart."""
    overlap = [(a, b) for a, b in combinations(same, 2) if run in (a, b) and a.cells[model] & b.cells[model]]
    if not overlap:
        return Named(label, label, *coarse)
    if all(_play(a.run) == _play(b.run) for a, b in overlap):
        return Named(f"{label} {run.run.rsplit('-', 1)[-1]}", label, *coarse)
    return Named(run.run, run.run, run.run, run.run)


def _play(run: str) -> str:
    """A run's name without the number of its repeat; no other run's where it has none."""
    return _REPEAT.sub("", run) if _REPEAT.search(run) else f"{run}/"

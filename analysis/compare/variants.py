"""What tells apart several runs of one model: precision, hardware, engine, answers; else directories."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations

from turnbench.formats import RunManifest

FACETS = {
    "precision": (("server", "precision"), ("labels", "precision")),
    "hardware": (("server", "hardware"), ("server", "gpu"), ("labels", "hardware"), ("labels", "gpu")),
    "backend": (("server", "backend"), ("labels", "backend")),
}
"""Where run.json tells each, the first that does."""
EXACT = "answers"
"""One facet more: "256 tokens" where every answer was made to have so many."""
VARIANT = "variant"
"""The sweep's own word for a run's options, which names it where nothing else does."""
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
    setting: str = ""
    """What models that can fairly be compared share: precision, hardware, length of answers."""


def variant_of(manifest: RunManifest) -> dict[str, str]:
    """`{precision, hardware, backend, answers}` of a run, "" where it isn't told."""
    exact = ""
    if manifest.settings.get("exact_tokens") is True:
        exact = f"{manifest.settings.get('max_tokens') or _EXACT_TOKENS} tokens"[:_LONGEST]
    return {name: _first(manifest, places) for name, places in FACETS.items()} | {EXACT: exact}


def _first(manifest: RunManifest, places: Iterable[tuple[str, str]]) -> str:
    for part, key in places:
        value = getattr(manifest, part).get(key)
        if isinstance(value, str) and value.strip():
            text = value.strip()[:_LONGEST]
            return text.lower() if key == "precision" else text
    return ""


def named(runs: list[Played]) -> dict[tuple[str, str], Named]:
    """The names of every (run, model): by model alone, where that tells runs apart."""
    found: dict[tuple[str, str], Named] = {}
    for model in dict.fromkeys(model for run in runs for model in run.cells):
        mine = [run for run in runs if model in run.cells]
        apart = _apart(mine, (*FACETS, EXACT))
        if any(_clash(model, same) for same in _by_label(model, mine, apart)):
            apart = _apart(mine, (*FACETS, EXACT, VARIANT))
        for same in _by_label(model, mine, apart):
            for run in same:
                found[run.run, model] = _names(model, run, same, apart)
    return found


def _apart(runs: list[Played], facets: tuple[str, ...]) -> list[str]:
    """The facets in which these runs differ."""
    return [facet for facet in facets if len({run.variant.get(facet, "") for run in runs}) > 1]


def _by_label(model: str, runs: list[Played], facets: list[str]) -> list[list[Played]]:
    found: dict[str, list[Played]] = {}
    for run in runs:
        found.setdefault(_label(model, run, facets), []).append(run)
    return list(found.values())


def _clash(model: str, runs: list[Played]) -> bool:
    """Whether two of them played the same cell and are no repeats of each other."""
    return any(
        a.cells[model] & b.cells[model] and _play(a.run) != _play(b.run) for a, b in combinations(runs, 2)
    )


def _label(model: str, run: Played, facets: list[str]) -> str:
    return " ".join([model, *(run.variant[facet] for facet in facets if run.variant.get(facet))])


def _names(model: str, run: Played, same: list[Played], apart: list[str]) -> Named:
    """Runs that share a label and no cell are parts of one study; repeats are pooled; others stay apart."""
    if _clash(model, same):
        return Named(run.run, run.run, run.run, run.run)
    label = _label(model, run, apart)
    repeated = any(run is not other and run.cells[model] & other.cells[model] for other in same)
    one = f"{label} {run.run.rsplit('-', 1)[-1]}" if repeated else label
    speaker, family = (_label(model, run, [f for f in apart if f != left]) for left in (EXACT, "precision"))
    return Named(one, label, speaker, family, label.removeprefix(model).strip())


def _play(run: str) -> str:
    """A run's name without the number of its repeat; no other run's where it has none."""
    return _REPEAT.sub("", run) if _REPEAT.search(run) else f"{run}/"

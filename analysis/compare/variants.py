"""The measured turns of many runs side by side, and what the models in them are called.

Several runs of one model are named by what differs between them: precision, hardware, engine, length of
answers; else by their directories.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from itertools import combinations

import numpy as np
import pandas as pd

from analysis.measures.censored import is_censored
from analysis.turns.study import Study
from turnbench.formats import RunManifest
from turnbench.outcomes import ANSWERED
from turnbench.turns import Ints

FACETS = {
    "precision": (("server", "precision"), ("labels", "precision")),
    "hardware": (("server", "hardware"), ("server", "gpu"), ("labels", "hardware"), ("labels", "gpu")),
    "backend": (("server", "backend"), ("labels", "backend")),
}
"""Where run.json has each: the first of these places that does."""
EXACT = "answers"
"""One more facet: "256 tokens" where every answer was made to have so many."""
VARIANT = "variant"
"""The sweep's own word for a run's options, which names it where nothing else does."""
_LONGEST = 40
_EXACT_TOKENS = 256
_REPEAT = re.compile(r"-(r\d+)$")
"""The end of a directory's name in a sweep that plays each run several times."""

Cells = set[tuple[str, str]]


@dataclass(frozen=True)
class PlayedRun:
    """One run: its directory, its variant, and the (task, load) cells of each model that it played."""

    run: str
    variant: dict[str, str]
    cells: dict[str, Cells]


@dataclass(frozen=True)
class ModelName:
    """What a run's model is called, from the finest name to the coarsest."""

    one: str
    """In a table of runs."""
    pool: str
    """With its repeats."""
    any_length: str
    """Without the length of its answers."""
    any_precision: str
    """Without its precision."""
    setting: str = ""
    """What models that can fairly be compared share: precision, hardware, length of answers."""


def variant_of(manifest: RunManifest, exact_kept: bool = True) -> dict[str, str]:
    """`{precision, hardware, backend, answers}` of a run, "" where it isn't known.

    `exact_kept`: whether answers were as long as --exact-tokens asks; if not, they are of no one length.
    """
    exact = ""
    if exact_kept and manifest.settings.get("exact_tokens") is True:
        exact = f"{manifest.settings.get('max_tokens') or _EXACT_TOKENS} tokens"[:_LONGEST]
    return {name: _first(manifest, places) for name, places in FACETS.items()} | {EXACT: exact}


def _first(manifest: RunManifest, places: Iterable[tuple[str, str]]) -> str:
    for part, key in places:
        value = getattr(manifest, part).get(key)
        if isinstance(value, str) and value.strip():
            text = value.strip()[:_LONGEST]
            return text.lower() if key == "precision" else text
    return ""


def named(runs: list[PlayedRun]) -> dict[tuple[str, str], ModelName]:
    """The names of every (run, model): by model alone, where that tells runs apart."""
    found: dict[tuple[str, str], ModelName] = {}
    for model in dict.fromkeys(model for run in runs for model in run.cells):
        mine = [run for run in runs if model in run.cells]
        apart = _apart(mine, (*FACETS, EXACT))
        if any(_clash(model, same) for same in _by_label(model, mine, apart)):
            apart = _apart(mine, (*FACETS, EXACT, VARIANT))
        for same in _by_label(model, mine, apart):
            for run in same:
                found[run.run, model] = _names(model, run, same, apart)
    return found


def _apart(runs: list[PlayedRun], facets: tuple[str, ...]) -> list[str]:
    """The facets in which these runs differ."""
    return [facet for facet in facets if len({run.variant.get(facet, "") for run in runs}) > 1]


def _by_label(model: str, runs: list[PlayedRun], facets: list[str]) -> list[list[PlayedRun]]:
    found: dict[str, list[PlayedRun]] = {}
    for run in runs:
        found.setdefault(_label(model, run, facets), []).append(run)
    return list(found.values())


def _clash(model: str, runs: list[PlayedRun]) -> bool:
    """Whether two of them played the same cell and are no repeats of each other."""
    return any(
        a.cells[model] & b.cells[model] and _play(a.run) != _play(b.run) for a, b in combinations(runs, 2)
    )


def _label(model: str, run: PlayedRun, facets: list[str]) -> str:
    return " ".join([model, *(run.variant[facet] for facet in facets if run.variant.get(facet))])


def _names(model: str, run: PlayedRun, same: list[PlayedRun], apart: list[str]) -> ModelName:
    """Runs that share a label and no cell are parts of one study; repeats are pooled; others stay apart."""
    if _clash(model, same):
        return ModelName(run.run, run.run, run.run, run.run)
    label = _label(model, run, apart)
    repeated = any(run is not other and run.cells[model] & other.cells[model] for other in same)
    one = f"{label} {run.run.rsplit('-', 1)[-1]}" if repeated else label
    any_length, any_precision = (
        _label(model, run, [f for f in apart if f != left]) for left in (EXACT, "precision")
    )
    return ModelName(one, label, any_length, any_precision, label.removeprefix(model).strip())


def _play(run: str) -> str:
    """A run's name without the number of its repeat; no other run's where it has none."""
    return _REPEAT.sub("", run) if _REPEAT.search(run) else f"{run}/"


Names = dict[tuple[str, str], ModelName]

_KEPT = (
    "model",
    "task",
    "level",
    "talk",
    "conversation",
    "turn",
    "outcome",
    "meets",
    "prompt_tokens",
    "ttft_ms",
    "tpot_ms",
    "ttg_ms",
    "ttg256_ms",
    "tokens",
    "later_tokens",
    "words",
)
_OF_RUN = ("precision", "exact", "plan", "limits")
_NAMES = ("name", "any_length", "any_precision")
"""What a model is called, see `ModelName`; beside them its `setting`."""


def sample_of(study: Study, run: str, exact_kept: bool = True) -> pd.DataFrame:
    """One row a measured turn, failed ones too; `load` is its level in words, `plan` what decides its prompt
    beside its numbers ("" where that isn't known), `limits` those that it had to meet."""
    rows = study.measured
    loads = {level.index: level.load for level in study.levels}
    variant = variant_of(study.manifest, exact_kept)
    sample = rows[list(_KEPT)].assign(load=rows["level"].map(loads), run=run)
    limits = repr(sorted(study.manifest.slo.items()))
    of_run = {"precision": variant["precision"], "plan": _plan_of(study), "limits": limits}
    return sample.assign(**of_run, exact=bool(variant[EXACT]))


def _plan_of(study: Study) -> str:
    """The seed and a digest of the scenario: runs that share it play the same conversations."""
    scenario = study.run.scenario_text()
    return f"{study.manifest.seed}/{sha256(scenario.encode()).hexdigest()}" if scenario else ""


def with_waits(turns: pd.DataFrame) -> pd.DataFrame:
    """Those that were answered, and those that still ran when they were last seen."""
    return turns[turns["outcome"].isin(ANSWERED) | is_censored(turns)]


def side_by_side(samples: list[pd.DataFrame], names: Names | None = None) -> pd.DataFrame:
    """One table of all runs. `names` of each (run, model); without them, the model's own.

    `name` is that of a model with its repeats; `any_length`, `any_precision`, `setting`: see `ModelName`.
    """
    samples = [sample for sample in samples if len(sample)]
    if not samples:
        return pd.DataFrame(
            columns=[*_KEPT, "load", "run", "precision", "exact", "plan", "limits", *_NAMES, "setting"]
        )
    pooled = pd.concat(samples, ignore_index=True)
    order = pooled["load"].map({load: load_order(load) for load in pooled["load"].unique()}).to_numpy()
    if (np.diff(order) < 0).any():  # a long run is in order already, and need not be copied
        pooled = pooled.iloc[np.argsort(order, kind="stable")].reset_index(drop=True)
    for column in _NAMES:
        pooled[column] = pooled["model"]
    pooled["setting"] = ""
    for (run, model), found in (names or {}).items():
        mine = (pooled["run"] == run) & (pooled["model"] == model)
        columns = [found.pool, found.any_length, found.any_precision, found.setting]
        pooled.loc[mine, [*_NAMES, "setting"]] = columns
    return pooled


def load_order(load: str) -> float:
    """A load in words as a number to sort by: 16, 2.5/s, level 3."""
    found = re.search(r"\d+(\.\d+)?", load)
    return float(found[0]) if found else 0.0


def clusters(rows: pd.DataFrame) -> Ints:
    """The conversation of each row, from 0; conversations of two runs are never one."""
    run, runs = pd.factorize(rows["run"])
    pairs = rows["talk"].to_numpy() * len(runs) + run
    return np.asarray(pd.factorize(pairs)[0], dtype=np.int64)

"""The plan of a sweep: which models, served how, and the options of their runs."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from loadgen._options import OPTIONS
from loadgen._runwriter import slug

PLAN_FORMAT = "turnbench-sweep-plan/1"
_BACKENDS = ("vllm", "vllm-cpu", "emulator")
_KEYS = ("format", "name", "models", "backend", "hardware", "parallel", "run", "scenarios", "repeats", "seed",
         "endpoints")  # fmt: skip
_OURS = ("run-dir", "model")


class PlanError(ValueError):
    """Every mistake in a plan file."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclass(frozen=True)
class SweepPlan:
    """A checked plan. `parallel` runs go on at once: for emulators, whose times don't depend on it."""

    name: str
    models: list[str]
    backend: str = "emulator"
    hardware: str = "a100-40gb"
    parallel: int = 1
    run: dict[str, str] = field(default_factory=dict)
    """Options of each run, by their long name without dashes."""
    scenarios: list[str] = field(default_factory=list)
    """Each model plays each of them in a run of its own; empty: the one of `run`."""
    endpoints: dict[str, str] = field(default_factory=dict)
    """Servers that run already, name to URL, instead of models to serve."""
    repeats: int = 1
    seed: int = 0
    """Decides the order of the runs where a model has more than one."""


@dataclass(frozen=True)
class Cell:
    """One run of a sweep and the name of its directory."""

    dir: str
    model: str
    scenario: str | None


def cells_of(plan: SweepPlan) -> list[Cell]:
    """Every run of the plan; shuffled by its seed where models have several, so that no time favours one."""
    cells = []
    scenarios: list[str | None] = [*plan.scenarios] or [None]
    for repeat in range(1, plan.repeats + 1):
        for model in plan.models:
            for scenario in scenarios:
                parts = [slug(model)] + ([slug(scenario)] if scenario else [])
                parts += [f"r{repeat}"] if plan.repeats > 1 else []
                cells.append(Cell("-".join(parts), model, scenario))
    if len(cells) > len(plan.models):
        random.Random(plan.seed).shuffle(cells)
    return cells


def read_plan(path: str) -> SweepPlan:
    """Read a plan file; raises PlanError with every mistake."""
    try:
        raw = yaml.load(Path(path).read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise PlanError([f"{path}: {' '.join(str(error).split())}"]) from None
    if not isinstance(raw, dict):
        raise PlanError([f"{path}: not a mapping; start with `format: {PLAN_FORMAT}`"])
    problems = [f"{path}: {problem}" for problem in _problems(raw)]
    if problems:
        raise PlanError(problems)
    return SweepPlan(
        name=raw["name"],
        models=raw.get("models") or list(raw["endpoints"]),
        endpoints=raw.get("endpoints", {}),
        backend=raw.get("backend", "emulator"),
        hardware=raw.get("hardware", "a100-40gb"),
        parallel=int(raw.get("parallel", "1")),
        run=raw.get("run", {}),
        scenarios=raw.get("scenarios", []),
        repeats=int(raw.get("repeats", "1")),
        seed=int(raw.get("seed", "0")),
    )


def _problems(raw: dict[str, Any]) -> list[str]:
    found = [f"unknown key {key!r}; keys are {', '.join(_KEYS)}" for key in raw if key not in _KEYS]
    if raw.get("format") != PLAN_FORMAT:
        found.append(f"format is {raw.get('format')!r}, must be {PLAN_FORMAT!r}")
    if not isinstance(raw.get("name"), str) or not raw.get("name"):
        found.append("name is missing: a word for the sweep's directory")
    models = raw.get("models")
    if "endpoints" in raw:
        found += _endpoint_problems(raw)
    elif not isinstance(models, list) or not models or not all(isinstance(m, str) for m in models):
        found.append("models is missing: a list of names that `python -m serve list` shows")
    elif len({slug(model) for model in models}) < len(models):  # each has a directory of its own
        found.append("models names one model twice")
    if raw.get("backend", "emulator") not in _BACKENDS:
        found.append(f"backend {raw['backend']!r}: one of {', '.join(_BACKENDS)}")
    if not isinstance(raw.get("hardware", ""), str):
        found.append("hardware is not a word, such as a100-40gb")
    found += _parallel_problems(raw) + _cell_problems(raw)
    run = raw.get("run", {})
    if not isinstance(run, dict):
        return [*found, "run is not a mapping of options, such as `levels: 1,4`"]
    known = {option.name for option in OPTIONS if not option.repeats} - set(_OURS)
    known |= {"users", "spawn-rate", "run-time"}
    found += [f"run: unknown option {name!r}" for name in run if name not in known]
    odd = [name for name in known & run.keys() if not isinstance(run[name], str)]
    return found + [f"run: {name} is not one value; write it as on the command line" for name in odd]


def _endpoint_problems(raw: dict[str, Any]) -> list[str]:
    endpoints = raw["endpoints"]
    if "models" in raw:
        return ["models and endpoints exclude each other: models are served, endpoints run already"]
    if not isinstance(endpoints, dict) or not endpoints:
        return ["endpoints is not a mapping of a name to a URL, such as `mine: http://127.0.0.1:8000`"]
    bad = [name for name, url in endpoints.items() if not re.match(r"https?://[^/\s]", str(url))]
    found = [f"endpoints: {name}: not an http:// or https:// URL" for name in bad]
    if len({slug(str(name)) for name in endpoints}) < len(endpoints):
        found.append("endpoints names one server twice")
    return found


def _cell_problems(raw: dict[str, Any]) -> list[str]:
    found = []
    scenarios = raw.get("scenarios", [])
    if not isinstance(scenarios, list) or not all(isinstance(name, str) and name for name in scenarios):
        found.append("scenarios is not a list of names or files")
    elif len({slug(name) for name in scenarios}) < len(scenarios):
        found.append("scenarios names one scenario twice")
    elif scenarios and isinstance(raw.get("run"), dict) and "scenario" in raw["run"]:
        found.append("scenarios and run: scenario exclude each other; keep one")
    for name, pattern in (("repeats", r"[1-9][0-9]{0,3}"), ("seed", r"[0-9]{1,18}")):
        if not re.fullmatch(pattern, str(raw.get(name, "1"))):
            found.append(
                f"{name} is {str(raw[name])[:40]!r}: a whole number from {int(name == 'repeats')} up"
            )
    return found


def _parallel_problems(raw: dict[str, Any]) -> list[str]:
    parallel = raw.get("parallel", "1")
    if not re.fullmatch(r"[1-9][0-9]{0,3}", str(parallel)):
        return [f"parallel is {str(parallel)[:40]!r}: a whole number from 1 up"]
    if int(parallel) > 1 and raw.get("backend", "emulator") != "emulator":
        return ["parallel is for emulators: real servers would slow each other down"]
    return []

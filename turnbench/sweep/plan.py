"""The plan of a sweep: which models, served how, and the options of their runs."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from turnbench.sweep.check import PLAN_FORMAT, problems_of


class PlanError(ValueError):
    """Every mistake in a plan file."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclass(frozen=True)
class SweepPlan:
    """A checked plan: a run for each model x precision x scenario x variant x level x repeat."""

    name: str
    models: list[str]
    backend: str = "emulator"
    hardware: str = "a100-40gb"
    parallel: int = 1
    """Runs that go on at once: for emulators, whose times don't depend on each other."""
    run: dict[str, str] = field(default_factory=dict)
    """Options of each run, by their long name without dashes."""
    scenarios: list[str] = field(default_factory=list)
    """Each model plays each of them in a run of its own; empty: the one of `run`."""
    endpoints: dict[str, str] = field(default_factory=dict)
    """Servers that run already, name to URL, instead of models to serve."""
    repeats: int = 1
    seed: int = 0
    """Decides the order of the runs where a model has more than one."""
    precisions: list[str] = field(default_factory=list)
    """Each model is served in each of them; empty: in FP16."""
    levels: list[str] = field(default_factory=list)
    """Numbers of people with a run each; empty: the run's own `levels`, one after the other in it."""
    variants: dict[str, dict[str, str]] = field(default_factory=dict)
    """Name to options that win over those of `run`: everything is played once with each."""
    weights: str = "real"
    args: str = ""
    """More options for each server, as one text."""


def read_plan(path: str) -> SweepPlan:
    """Read a plan file; raises PlanError with every mistake."""
    try:
        raw = yaml.load(Path(path).read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise PlanError([f"{path}: {' '.join(str(error).split())}"]) from None
    if not isinstance(raw, dict):
        raise PlanError([f"{path}: not a mapping; start with `format: {PLAN_FORMAT}`"])
    return _plan_of(raw, path)


def plan_of_sweep(written: dict[str, Any], where: str) -> SweepPlan:
    """The plan that a sweep.json holds; raises PlanError if somebody changed it for the worse."""
    kept = {key: value for key, value in written.items() if value or key == "models"}
    if kept.get("endpoints"):
        kept.pop("models")
    texts = {key: str(value) if isinstance(value, int) else value for key, value in kept.items()}
    return _plan_of(texts | {"format": PLAN_FORMAT}, where)


def _plan_of(raw: dict[str, Any], where: str) -> SweepPlan:
    problems = [f"{where}: {problem}" for problem in problems_of(raw)]
    if problems:
        raise PlanError(problems)
    given = {key: value for key, value in raw.items() if key != "format"}
    given |= {key: int(given[key]) for key in ("parallel", "repeats", "seed") if key in given}
    given["models"] = given.get("models") or list(given["endpoints"])
    given["variants"] = {name: each or {} for name, each in given.get("variants", {}).items()}
    return SweepPlan(**given)


@dataclass(frozen=True)
class Wishes:
    """What the command line changes in a plan; None: as the file has it."""

    models: list[str] | None = None
    backend: str | None = None
    hardware: str | None = None
    precisions: list[str] | None = None
    weights: str | None = None
    parallel: int | None = None
    questions: int | None = None
    """Only so many conversations of each finite scenario."""


def wished(plan: SweepPlan, wishes: Wishes) -> tuple[SweepPlan, list[str]]:
    """The plan as wished, and what follows from it for a person to know; raises PlanError."""
    given = {k: value for k, value in vars(wishes).items() if value is not None and k != "questions"}
    said: list[str] = []
    if plan.endpoints:
        plan = _with_endpoints(plan, given)
    backend = given.get("backend", plan.backend)
    if backend != "emulator" and plan.parallel > 1 and "parallel" not in given:
        given["parallel"] = 1
        said.append(f"one run at a time: several on {backend} would slow each other down")
    found = replace(plan, **given)
    if wishes.questions is not None:
        found = _with_questions(found, wishes.questions, said)
    texts = {key: str(value) if isinstance(value, int) else value for key, value in asdict(found).items()}
    if found.endpoints:
        del texts["models"]
    else:
        del texts["endpoints"]
    if problems := problems_of(texts | {"format": PLAN_FORMAT}):
        raise PlanError(problems)
    return found, said


def _with_endpoints(plan: SweepPlan, given: dict[str, Any]) -> SweepPlan:
    """Of servers that run already only some can be asked; how they are served is not ours to say."""
    models = given.get("models", plan.models)
    unknown = [name for name in models if name not in plan.endpoints]
    found = [f"--model {name}: the plan's endpoints are {', '.join(plan.endpoints)}" for name in unknown]
    found += [f"--{name.rstrip('s')}: the plan's servers run already" for name in given if name != "models"]
    if found:
        raise PlanError(found)
    return replace(plan, endpoints={name: plan.endpoints[name] for name in models})


def _with_questions(plan: SweepPlan, questions: int, said: list[str]) -> SweepPlan:
    """So many conversations of each scenario; a level that they can't fill would be a smaller one."""
    scenarios = [f"{name.partition(':')[0]}:{questions}" for name in plan.scenarios]
    levels = [level for level in plan.levels if int(level) <= questions]
    if left_out := [level for level in plan.levels if level not in levels]:
        said.append(f"left out: {', '.join(left_out)} at once, which {questions} questions can't fill")
    run = plan.run
    if not scenarios:
        run = run | {"scenario": f"{run.get('scenario', 'chat').partition(':')[0]}:{questions}"}
    return replace(plan, scenarios=scenarios, levels=levels or ["1"] * bool(plan.levels), run=run)

"""The plan of a sweep: which models, served how, and the options of their runs.

A plan is a YAML file. Every mistake in it is reported at once, each at its line. Options of runs stay the
text that was typed, as on the command line: `no`, 012 and 1,4 mean what they mean there.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo

from loadgen.options._option import declared, switch
from loadgen.options._settings import Settings
from turnbench.checked_yaml import validated
from turnbench.formats import Backend, Precision
from turnbench.names import slug
from turnbench.places import data_file
from turnbench.problems import FileProblems, Problem, listed, nearest, quoted
from turnbench.strict_yaml import Map, Node, Seq, Text, key_of, read_file

PLAN_FORMAT = "turnbench-sweep-plan/1"
NOUN = "sweep plan"
_SET_BY_SWEEP = ("host", "run-dir", "model")
OPTIONS = {
    option.name: option
    for option in declared(Settings)
    if not option.repeats and option.name not in _SET_BY_SWEEP
}
"""Those that the runs of a plan may set, Locust's own among them, by their long names."""


class PlanError(FileProblems):
    """Every mistake of a plan, or of what it leads to."""

    @classmethod
    def of_lines(cls, lines: list[str]) -> PlanError:
        """With lines that others have written."""
        error = cls([])
        error.problems, error.args = lines, ("\n".join(lines),)
        return error


def _distinct(names: Any, info: ValidationInfo) -> Any:
    """Each has a directory of its own, so no two may lead to the same name."""
    if len({slug(str(name)) for name in names}) < len(names):
        raise ValueError(f"{info.field_name} names one twice; keep one")
    return names


Word = Annotated[str, Field(min_length=1)]
Distinct = AfterValidator(_distinct)
Options = Annotated[dict[str, str], BeforeValidator(lambda value: value or {})]
"""Options of a run by their long names without dashes, as typed. An empty value is no options."""
Url = Annotated[str, Field(pattern=r"^https?://[^/\s]")]


class SweepPlan(BaseModel):
    """A checked plan: a run for each model x precision x scenario x variant x level x repeat."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["turnbench-sweep-plan/1"]
    name: Word
    """The sweep's directory becomes runs/TIME-NAME."""
    models: Annotated[list[Word], Field(min_length=1), Distinct] = []
    """Served in turn; names that `turnbench serve list` shows. Empty where there are endpoints."""
    endpoints: Annotated[dict[str, Url], Field(min_length=1), Distinct] = {}
    """Servers that run already, name to URL, instead of models to serve."""
    backend: Backend = "emulator"
    hardware: Word = "a100-40gb"
    """The GPU that the emulator plays."""
    weights: Literal["real", "dummy"] = "real"
    args: str = ""
    """More options for each server, as one text."""
    precisions: Annotated[list[Precision], Distinct] = []
    """Each model is served in each of them; empty: in FP16."""
    scenarios: Annotated[list[Word], Distinct] = []
    """Each model plays each of them in a run of its own; empty: the one of `run`."""
    levels: Annotated[list[Annotated[int, Field(ge=1, le=1_000_000)]], Distinct] = []
    """Numbers of people with a run each; empty: the run's own `levels`, one after the other in it."""
    variants: Annotated[dict[str, Options], Distinct] = {}
    """Name to options that win over those of `run`: everything is played once with each."""
    repeats: Annotated[int, Field(ge=1, le=9999)] = 1
    seed: Annotated[int, Field(ge=0, le=10**18)] = 0
    """Decides the order of the runs where a model has more than one."""
    parallel: Annotated[int, Field(ge=1, le=9999)] = 1
    """Runs that go on at once: for emulators, whose times don't depend on each other."""
    run: Options = {}
    """Options of every run."""

    @property
    def names(self) -> list[str]:
        """What is compared: the models, or the endpoints."""
        return list(self.endpoints) or self.models


def read_plan(path: str) -> SweepPlan:
    """The plan in a file, or the bundled one of that name; raises PlanError with every mistake."""
    bundled = data_file("sweeps") / f"{path}.yaml"
    if not os.path.exists(path) and Path(path).name == path and os.path.isfile(bundled):
        path = str(bundled)
    root, problems = read_file(path, NOUN, f"format: {PLAN_FORMAT}")
    if root is None:
        raise PlanError(problems)
    return _checked(root, problems)


def plan_of_sweep(written: dict[str, Any], where: str) -> SweepPlan:
    """The plan that a sweep.json holds; raises PlanError if somebody changed it for the worse."""
    kept = {key: value for key, value in written.items() if value or key == "models"}
    if kept.get("endpoints"):
        kept.pop("models", None)
    return _checked(_tree(kept | {"format": PLAN_FORMAT}, where), [])


def _checked(root: Node, problems: list[Problem]) -> SweepPlan:
    plan, mistakes = validated(SweepPlan, root, root, NOUN)
    found = [*problems, *mistakes, *_contradictions(root)]
    if plan is None or found:
        raise PlanError(found)
    return plan


def _tree(value: Any, source: str) -> Node:
    """A JSON value as a tree of a file without lines."""
    node: Node
    if isinstance(value, dict):
        node = Map()
        for name, each in value.items():
            key = Text(name)
            key.source, key.line = source, 0
            node[key] = _tree(each, source)
    elif isinstance(value, list):
        node = Seq(_tree(each, source) for each in value)
    else:
        node = Text(value if isinstance(value, str) else json.dumps(value))
    node.source, node.line = source, 0
    return node


def _contradictions(root: Node) -> Iterator[Problem]:
    """What one key says against another, and options that no run has."""
    if not isinstance(root, Map):
        return
    run = root["run"] if isinstance(root.get("run"), Map) else Map()
    variants = root["variants"] if isinstance(root.get("variants"), Map) else Map()

    def at(key: str, text: str, node: Map = root) -> Problem:
        return Problem(root.source, key_of(node, key).line, text)

    if "models" not in root and "endpoints" not in root:
        yield Problem(root.source, 1, "no 'models' here; add 'models: [yi-6b]', of `turnbench serve list`")
    if "endpoints" in root:
        for key in root.keys() & {"models", "precisions"}:
            yield at(key, f"{key} and endpoints exclude each other: endpoints run already; keep one")
    if "levels" in root and run.keys() & {"levels", "users"}:
        yield at("levels", "levels excludes levels and users of run; keep one")
    if "scenarios" in root and "scenario" in run:
        yield at("scenarios", "scenarios and scenario of run exclude each other; keep one")
    parallel, backend = root.get("parallel", ""), root.get("backend", "emulator")
    if re.fullmatch("[1-9][0-9]{0,3}", str(parallel)) and str(parallel) != "1" and backend != "emulator":
        yield at("parallel", "parallel is for emulators: real servers would slow each other down")
    yield from _option_problems("run", run)
    for name, options in variants.items():
        if isinstance(options, Map):
            yield from _option_problems(str(name), options)
            for key in options.keys() & {"scenario", "levels", "users"}:
                yield at(key, f"{name}: scenarios and levels have lists of their own in the plan", options)


def _option_problems(where: str, options: Map) -> Iterator[Problem]:
    for name, value in options.items():
        line = key_of(options, name).line
        if name not in OPTIONS:
            hint = nearest(name, OPTIONS, "options")
            yield Problem(options.source, line, f"{where}: unknown option {quoted(name)}; {hint}")
        elif OPTIONS[name].is_switch and isinstance(value, Text):
            try:
                switch(value)
            except ValueError:
                yield Problem(options.source, line, f"{where}: {name} is {quoted(value)}; write on or off")


@dataclass(frozen=True)
class Overrides:
    """What the command line changes in a plan; None: as the file has it."""

    models: list[str] | None = None
    backend: str | None = None
    hardware: str | None = None
    precisions: list[str] | None = None
    weights: str | None = None
    parallel: int | None = None
    questions: int | None = None
    """Only so many conversations of each finite scenario."""


def overridden(plan: SweepPlan, overrides: Overrides) -> tuple[SweepPlan, list[str]]:
    """The plan as changed, and what follows from it for a person to know; raises PlanError."""
    given = {key: value for key, value in vars(overrides).items() if value is not None and key != "questions"}
    notes: list[str] = []
    if plan.endpoints:
        given = _of_endpoints(plan, given)
    backend = given.get("backend", plan.backend)
    if backend != "emulator" and plan.parallel > 1 and "parallel" not in given:
        given["parallel"] = 1
        notes.append(f"one run at a time: several on {backend} would slow each other down")
    if overrides.questions is not None:
        given |= _with_questions(plan, overrides.questions, notes)
    changed = {key: value for key, value in (plan.model_dump() | given).items() if value or key == "args"}
    return _checked(_tree(changed, plan.name), []), notes


def _of_endpoints(plan: SweepPlan, given: dict[str, Any]) -> dict[str, Any]:
    """Of servers that run already only some can be asked; how they are served is not ours to say."""
    models = given.get("models", plan.names)
    unknown = [name for name in models if name not in plan.endpoints]
    found = [f"--model {name}: the plan's endpoints are {listed(plan.endpoints)}" for name in unknown]
    found += [f"--{name.rstrip('s')}: the plan's servers run already" for name in given if name != "models"]
    if found:
        raise PlanError.of_lines(found)
    return {"endpoints": {name: plan.endpoints[name] for name in models}}


def _with_questions(plan: SweepPlan, questions: int, notes: list[str]) -> dict[str, Any]:
    """So many conversations of each scenario; a level that they can't fill would be a smaller one."""
    scenarios = [f"{name.partition(':')[0]}:{questions}" for name in plan.scenarios]
    levels = [level for level in plan.levels if level <= questions]
    if dropped := [str(level) for level in plan.levels if level not in levels]:
        notes.append(f"not played: levels {', '.join(dropped)}, which {questions} questions can't fill")
    run = plan.run
    if not scenarios:
        run = run | {"scenario": f"{run.get('scenario', 'chat').partition(':')[0]}:{questions}"}
    return {"scenarios": scenarios, "levels": levels or [1] * bool(plan.levels), "run": run}

"""The runs of a sweep: which there are and in which order, their command lines, and what can be seen to fail
before anything is started.

A run is a SweepEntry of sweep.json; its directory is named after what differs from the others.
"""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path

from loadgen.options._command_line import OptionErrors, settings_from
from loadgen.options._option import switch
from loadgen.options._settings import Settings
from scenarios import ScenarioError, load
from turnbench import exits
from turnbench.formats import SweepEntry
from turnbench.names import slug
from turnbench.sweep.plan import OPTIONS, PlanError, SweepPlan

ServedModel = tuple[str, str | None]
"""What has to be served for a run: a model, and its precision."""

_ANY_HOST = "http://127.0.0.1:1"


def runs_of(plan: SweepPlan) -> list[SweepEntry]:
    """Every run of the plan; shuffled by its seed where models have several, so that no time favours one."""
    precisions: Sequence[str | None] = [None] if plan.endpoints else plan.precisions or ["fp16"]
    scenarios: Sequence[str | None] = plan.scenarios or [None]
    variants: Sequence[str | None] = [*plan.variants] or [None]
    levels: Sequence[int | None] = plan.levels or [None]
    repeats = range(1, plan.repeats + 1)
    axes = product(repeats, plan.names, precisions, scenarios, variants, levels)
    found = []
    for repeat, model, precision, scenario, variant, level in axes:
        parts = [slug(model)]
        parts += [str(precision)] if len(plan.precisions) > 1 else []
        parts += [slug(scenario)] if scenario else []
        parts += [slug(variant)] if variant else []
        parts += [f"u{level}"] if level else []
        parts += [f"r{repeat}"] if plan.repeats > 1 else []
        found.append(
            SweepEntry(
                dir="-".join(parts), model=model, precision=precision, scenario=scenario, variant=variant,
                level=level, repeat=repeat,
            )
        )  # fmt: skip
    if len(found) > len(plan.names):
        random.Random(plan.seed).shuffle(found)
    return found


def served_for(run: SweepEntry) -> ServedModel:
    """What has to be served for it."""
    return run.model, run.precision


def next_of(waiting: Sequence[SweepEntry], served: ServedModel | None) -> SweepEntry:
    """The first that needs no other server than the one that runs; else the first of all."""
    return next((run for run in waiting if served_for(run) == served), waiting[0])


def run_options(plan: SweepPlan, run: SweepEntry) -> dict[str, str]:
    """The options of this run, by their long names: the plan's own and what the run stands for."""
    options = plan.run | (plan.variants[run.variant] if run.variant else {})
    if run.scenario:
        options["scenario"] = run.scenario
    if run.level is not None:
        options["levels"] = str(run.level)
    return options


def client_command(plan: SweepPlan, run: SweepEntry, url: str, folder: Path) -> list[str]:
    """The arguments of `turnbench run` for this run."""
    command = ["-H", url, "--run-dir", str(folder / run.dir), "--no-analysis"]
    for name, value in run_options(plan, run).items():
        if not OPTIONS[name].is_switch:
            command.append(f"--{name}={value}")
        elif switch(value):
            command.append(f"--{name}")
    return command


def server_command(plan: SweepPlan, run: SweepEntry) -> list[str]:
    """`serve`'s arguments for this run's model."""
    command = ["up", run.model, "--backend", plan.backend, "--hardware", plan.hardware, "--port", "0"]
    command += ["--precision", run.precision or "fp16", "--weights", plan.weights]
    return command + ([f"--args={plan.args}"] if plan.args else [])


# --- before anything is started ---


def require_ready(plan: SweepPlan, runs: list[SweepEntry]) -> None:
    """Raises PlanError with every mistake that its runs and servers would stumble over one by one."""
    problems = []
    for run in runs:
        try:
            settings_of(plan, run)
        except OptionErrors as error:
            problems += [f"run: {problem}" for problem in error.problems]
    for name in dict.fromkeys(run_options(plan, run).get("scenario", "chat") for run in runs):
        try:
            load(name)
        except ScenarioError as error:
            problems += error.problems
    if not plan.endpoints:
        problems += _refusals(
            [server_command(plan, run) for run in {served_for(r): r for r in runs}.values()]
        )
    if problems:
        raise PlanError.of_lines(list(dict.fromkeys(problems)))


def settings_of(plan: SweepPlan, run: SweepEntry) -> Settings:
    """The settings that a run will have; raises OptionErrors with all that is wrong with its options."""
    options = {OPTIONS[name].dest: value for name, value in run_options(plan, run).items()}
    return settings_from({"host": _ANY_HOST, "turnbench_users_given": "num_users" in options} | options)


def _refusals(commands: list[list[str]]) -> list[str]:
    """What `serve` says to servers that it would not start; all are asked at once."""
    asked = [
        subprocess.Popen(
            [sys.executable, "-P", "-m", "serve", *command, "--print-command"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for command in commands
    ]
    answers = [(each.communicate()[1], each.returncode) for each in asked]
    refused = [text.strip() for text, code in answers if code == exits.BAD_CONFIGURATION]
    return [text.removeprefix("serve: ") for text in refused]

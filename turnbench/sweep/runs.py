"""The runs of a sweep: which there are and in which order, their command lines, and what can be seen to fail
before anything is started.

A run is a SweepEntry of sweep.json; what tells it from the others is in the name of its directory.
"""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

from loadgen.options._command_line import OptionErrors, settings_from
from scenarios import ScenarioError, load
from turnbench import exits
from turnbench.formats import SweepEntry
from turnbench.names import slug
from turnbench.sweep.plan import ON, SWITCHES, PlanError, SweepPlan

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


def is_on(options: dict[str, str], switch: str) -> bool:
    """Whether a switch is on; the plan has been checked, so all other words mean off."""
    return options.get(switch, "off").lower() in ON


def client_command(plan: SweepPlan, run: SweepEntry, url: str, folder: Path) -> list[str]:
    """The arguments of `turnbench run` for this run."""
    command = ["-H", url, "--run-dir", str(folder / run.dir), "--no-analysis"]
    options = run_options(plan, run)
    for name, value in options.items():
        if name not in SWITCHES:
            command.append(f"--{name}={value}")
        elif is_on(options, name):
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
    problems = [f"run: {problem}" for run in runs for problem in _option_problems(run_options(plan, run))]
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


def parsed_options(options: dict[str, str]) -> tuple[dict[str, Any], list[str]]:
    """A run's options as Locust would hand them over, and those of Locust's that are no numbers."""
    read: dict[str, Any] = {"host": _ANY_HOST}
    problems = []
    numbers: dict[str, tuple[str, type]] = {"users": ("num_users", int), "spawn-rate": ("spawn_rate", float)}
    for name, value in options.items():
        key, convert = numbers.get(name, (name.replace("-", "_"), str))
        try:
            read["turnbench_run_time_s" if name == "run-time" else key] = convert(value)
        except ValueError:
            problems.append(f"--{name}: {value!r} is not a number")
    read["turnbench_users_given"] = "num_users" in read
    return read | {name.replace("-", "_"): is_on(options, name) for name in SWITCHES}, problems


def _option_problems(options: dict[str, str]) -> list[str]:
    read, problems = parsed_options(options)
    try:
        settings_from(read)
    except OptionErrors as error:
        problems += error.problems
    return problems


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
    said = [(each.communicate()[1], each.returncode) for each in asked]
    refused = [text.strip() for text, code in said if code == exits.BAD_CONFIGURATION]
    return [text.removeprefix("serve: ") for text in refused]

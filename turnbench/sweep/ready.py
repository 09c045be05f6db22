"""What can be seen to fail before anything is started: options, scenarios, servers that can't be had."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from loadgen.options._command_line import OptionErrors, settings_from
from scenarios import ScenarioError, load
from turnbench.sweep.cells import Cell, is_on, run_options, server_command
from turnbench.sweep.plan import PlanError, SweepPlan

_OF_LOCUST = {"users": ("num_users", int), "spawn-rate": ("spawn_rate", float)}
_ANY_HOST = "http://127.0.0.1:1"
_REFUSED = 2


def require_ready(plan: SweepPlan, cells: list[Cell]) -> None:
    """Raises PlanError with every mistake that its runs and servers would stumble over one by one."""
    problems = [problem for cell in cells for problem in _option_problems(plan, cell)]
    names = dict.fromkeys(run_options(plan, cell).get("scenario", "chat") for cell in cells)
    problems += [problem for name in names for problem in _scenario_problems(name)]
    if not plan.endpoints:
        problems += _refusals([server_command(plan, cell) for cell in {c.server: c for c in cells}.values()])
    if problems:
        raise PlanError(list(dict.fromkeys(problems)))


def _option_problems(plan: SweepPlan, cell: Cell) -> list[str]:
    options = run_options(plan, cell)
    read: dict[str, Any] = {"host": _ANY_HOST}
    found = []
    for name, value in options.items():
        key, convert = _OF_LOCUST.get(name, (name.replace("-", "_"), str))
        key = "turnbench_run_time_s" if name == "run-time" else key
        try:
            read[key] = convert(value)
        except ValueError:
            found.append(f"--{name}: {value!r} is not a number")
    read["turnbench_users_given"] = "num_users" in read
    switches = ("once", "exact-tokens", "find-capacity", "keep-text", "insecure", "trust-env", "no-analysis")
    read |= {name.replace("-", "_"): is_on(options, name) for name in switches}
    try:
        settings_from(read)
    except OptionErrors as error:
        found += error.problems
    return [f"run: {problem}" for problem in found]


def _scenario_problems(name: str) -> list[str]:
    try:
        load(name)
    except ScenarioError as error:
        return error.problems
    return []


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
    return [text.strip().removeprefix("serve: ") for text, code in said if code == _REFUSED]

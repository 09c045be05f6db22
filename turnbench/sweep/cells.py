"""The runs of a sweep: which there are, in which order, and which comes next where."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from loadgen.options._command_line import OPTIONS
from turnbench.names import slug
from turnbench.sweep.plan import SweepPlan

_SWITCHES = {option.name for option in OPTIONS if option.metavar is None}
_ON = ("true", "yes", "on", "1")


@dataclass(frozen=True)
class Cell:
    """One run of a sweep and the name of its directory; None where the plan has no such list."""

    dir: str
    model: str
    precision: str | None = None
    scenario: str | None = None
    variant: str | None = None
    level: int | None = None
    repeat: int = 1

    @property
    def server(self) -> tuple[str, str | None]:
        """What has to be served for it."""
        return self.model, self.precision


def cells_of(plan: SweepPlan) -> list[Cell]:
    """Every run of the plan; shuffled by its seed where models have several, so that no time favours one."""
    cells = []
    precisions: list[str | None] = [None] if plan.endpoints else [*(plan.precisions or ["fp16"])]
    scenarios: list[str | None] = [*plan.scenarios] or [None]
    variants: list[str | None] = [*plan.variants] or [None]
    levels: list[int | None] = [int(level) for level in plan.levels] or [None]
    for repeat in range(1, plan.repeats + 1):
        for model in plan.models:
            for precision in precisions:
                for scenario in scenarios:
                    for variant in variants:
                        for level in levels:
                            cell = Cell("", model, precision, scenario, variant, level, repeat)
                            cells.append(_named(cell, plan))
    if len(cells) > len(plan.models):
        random.Random(plan.seed).shuffle(cells)
    return cells


def _named(cell: Cell, plan: SweepPlan) -> Cell:
    """With a directory named after whatever tells it from the others."""
    parts = [slug(cell.model)]
    parts += [str(cell.precision)] if len(plan.precisions) > 1 else []
    parts += [slug(cell.scenario)] if cell.scenario else []
    parts += [slug(cell.variant)] if cell.variant else []
    parts += [f"u{cell.level}"] if cell.level else []
    parts += [f"r{cell.repeat}"] if plan.repeats > 1 else []
    name = "-".join(parts)
    return Cell(name, cell.model, cell.precision, cell.scenario, cell.variant, cell.level, cell.repeat)


def next_of(waiting: Sequence[Cell], served: tuple[str, str | None] | None) -> Cell:
    """The first that needs no other server than the one that runs; else the first of all."""
    return next((cell for cell in waiting if cell.server == served), waiting[0])


def run_options(plan: SweepPlan, cell: Cell) -> dict[str, str]:
    """The options of this run, by their long names: the plan's own and what the cell stands for."""
    options = plan.run | (plan.variants[cell.variant] if cell.variant else {})
    if cell.scenario:
        options["scenario"] = cell.scenario
    if cell.level is not None:
        options["levels"] = str(cell.level)
    return options


def is_on(options: dict[str, str], switch: str) -> bool:
    return options.get(switch, "off").lower() in _ON


def client_command(plan: SweepPlan, cell: Cell, url: str, folder: Path) -> list[str]:
    """The arguments of `turnbench run` for this run."""
    command = ["-H", url]
    command += ["--run-dir", str(folder / cell.dir), "--no-analysis"]
    for name, value in run_options(plan, cell).items():
        if name not in _SWITCHES:
            command.append(f"--{name}={value}")
        elif value.lower() in _ON:
            command.append(f"--{name}")
    return command


def server_command(plan: SweepPlan, cell: Cell) -> list[str]:
    """`serve`'s arguments for this run's model."""
    command = ["up", cell.model, "--backend", plan.backend, "--hardware", plan.hardware, "--port", "0"]
    command += ["--precision", cell.precision or "fp16", "--weights", plan.weights]
    return command + ([f"--args={plan.args}"] if plan.args else [])

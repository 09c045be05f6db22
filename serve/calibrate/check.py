"""`python -m serve check RUN...`: how far the emulator, as it is, is off from runs of real servers.

Each level is played again with its own requests through the emulator's scheduler, on the run's GPU and by
the times of `efficiency.yaml`. Nothing is fitted.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from serve.calibrate.main import server_in_words
from serve.calibrate.recorded import CannotCalibrate, RecordedRun, read_recorded
from serve.calibrate.table import PredictedRow, median_errors_in_words, predicted_rows, rows_table
from serve.catalogue import Catalogue, Gpu
from serve.emulator.machines import FrontEnd, RooflineMachine, StepWork
from serve.emulator.scheduler import batch_limits
from turnbench import exits
from turnbench.formats.server import PRECISIONS, Precision, RecordedServer


@dataclass(frozen=True, slots=True)
class EmulatedGpuServer:
    """A model on a GPU of the catalogue, with the front end that the emulator has."""

    machine: RooflineMachine

    def step_ns(self, work: StepWork) -> int:
        """Duration of a step in nanoseconds."""
        return self.machine.step_ns(work)

    def kv_tokens(self) -> int:
        """Tokens of context that its cache of keys and values holds."""
        return self.machine.kv_tokens()

    @property
    def frontend_ns(self) -> int:
        """Nanoseconds before a request is queued."""
        return FrontEnd().request_ns

    @property
    def limits(self) -> tuple[int, int]:
        """Sequences, and new tokens, in one step at most."""
        return batch_limits(self.machine.gpu)


def check(options: argparse.Namespace, catalogue: Catalogue, say: Callable[[str], None]) -> int:
    """Print a table for each run, and say which of its levels have too few turns; 2 if a run cannot be
    checked at all."""
    code = exits.OK
    for directory in options.directories:
        try:
            run = read_recorded(Path(directory))
            print(_table(run, catalogue, options.hardware, say), end="\n\n")
        except CannotCalibrate as error:
            say(str(error))
            code = exits.BAD_CONFIGURATION
    return code


def _table(run: RecordedRun, catalogue: Catalogue, hardware: str | None, say: Callable[[str], None]) -> str:
    server = EmulatedGpuServer(_machine(run, catalogue, hardware))
    tasks = {turn.task for level in run.levels.values() for turn in level.turns}
    rows: list[PredictedRow] = []
    left_out = []
    for level in run.levels.values():
        try:
            rows += predicted_rows(level, server, by_task=len(tasks) > 1)
        except CannotCalibrate as error:
            left_out.append(error)
    if not rows:
        raise left_out[0]
    for why in left_out:
        say(f"{run.name}: {why}")
    mark = "EMULATED RUN: " if run.emulated else ""
    what = f"measured, and as the emulator has it on {server.machine.gpu.name}"
    lines = [
        f"{mark}{run.name}, {run.model} ({server_in_words(run)}): {what}",
        *rows_table(rows),
        f"median error of the emulator: {median_errors_in_words(rows)}",
    ]
    return "\n".join(lines)


def _machine(run: RecordedRun, catalogue: Catalogue, hardware: str | None) -> RooflineMachine:
    model = catalogue.models.get(run.model)
    if model is None:
        raise CannotCalibrate(f"{run.name} is of {run.model}, of which the catalogue has no facts")
    if run.server.get("layers"):
        raise CannotCalibrate(f"{run.name} has {run.server['layers']} layers only: no emulator is like that")
    gpu = catalogue.gpus.get(hardware) if hardware else gpu_of(run.server, catalogue)
    if gpu is None:
        raise CannotCalibrate(
            f"{run.name} names no GPU of the catalogue: say which with --hardware "
            f"({', '.join(catalogue.gpus)})"
        )
    precision: Precision = next((each for each in PRECISIONS if each == run.server.get("precision")), "fp16")
    return RooflineMachine(model, gpu, precision)


def gpu_of(server: RecordedServer, catalogue: Catalogue) -> Gpu | None:
    """The GPU of the catalogue that a server says it runs on, or plays; None if it names none of them."""
    if (played := catalogue.gpus.get(str(server.get("hardware")))) is not None:
        return played
    # As the driver writes them: NVIDIA A100-SXM4-80GB, NVIDIA GeForce RTX 4090, NVIDIA H200.
    said = "".join(each for each in str(server.get("gpu") or "").split(",")[0].lower() if each.isalnum())
    alike = [gpu for gpu in catalogue.gpus.values() if gpu.name.rsplit("-", 1)[0] in said]
    exact = [gpu for gpu in alike if gpu.name.rsplit("-", 1)[1] in said]
    return next(iter(exact or alike)) if len(exact or alike) == 1 else None

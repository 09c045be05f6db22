"""What an engine reaches of the hardware's peaks: `efficiency.yaml`, one set of numbers for all GPUs.

`python -m serve fit` fits them to the measurements in `published/` and writes the file, with what is left
over on each GPU. They hold for the engine that was measured there, in FP16; a calibration (`serve calibrate`)
holds for a server of your own.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BaseModel, ConfigDict, Field

from turnbench.checked_yaml import checked
from turnbench.formats.server import Precision
from turnbench.problems import FileProblems

EFFICIENCY_FILE = Path(__file__).resolve().with_name("efficiency.yaml")
HEAD = "# Fitted to published/ by `python -m serve fit --out FILE`; docs/results/emulator.md says how well.\n"

Share = Annotated[float, Field(gt=0, le=1)]
Part = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Text = Annotated[str, Field(min_length=1, max_length=500)]


class BadEfficiency(FileProblems):
    """The file cannot be used."""


class _Entry(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class StepCosts(_Entry):
    """Of one step of the engine."""

    bandwidth_share: Share
    """Of the peak memory bandwidth."""
    compute_share: Share
    """Of the peak dense FP16 rate. It is given to the fit: see `serve.fit`."""
    overhead_us: Part
    """Of each step, whatever is in it."""
    sequence_us: Part
    """Of each answer that a step makes a further token of."""


class PowerLevels(_Entry):
    """What a GPU draws as a share of its limit, by what it does. While it multiplies or reads keys and
    values it draws the limit."""

    idle: Share
    """With a model in memory and nothing to do. It is given to the fit: no published batch is idle."""
    reading: Share
    """While it reads weights, and for what an answer costs beside its operations."""
    waiting: Share
    """Of a step's constant, the part in which the GPU draws no more than idle; in the rest it draws as in
    reading. It is given: eight batches don't tell it apart."""

    def of_limit(self, working: float, constant: float) -> float:
        """Mean power over the limit, from two shares of the time: multiplying or reading keys and values, and
        the constants of steps."""
        waiting = self.waiting * constant
        return working + self.idle * waiting + self.reading * (1 - working - waiting)


class ErrorsOf(_Entry):
    """Sizes of relative errors, as shares."""

    points: Annotated[int, Field(gt=0)]
    median: Part
    p90: Part
    worst: Part


class Efficiency(_Entry):
    """The fitted numbers, where they are from and how far they are off."""

    source: Text
    step: StepCosts
    power: PowerLevels
    time_errors: dict[str, ErrorsOf]
    """By GPU, on the points that were fitted."""
    power_errors: dict[str, ErrorsOf]


def read_efficiency(path: Path) -> Efficiency:
    """The checked file; raises BadEfficiency with every mistake."""
    return checked(Efficiency, path, "efficiency", error=BadEfficiency)


@cache
def load_efficiency() -> Efficiency:
    """The project's own file."""
    return read_efficiency(EFFICIENCY_FILE)


def unvalidated(gpus: Iterable[str], precision: Precision) -> list[str]:
    """A line for the precision and one for the GPUs of which nothing published was found to judge by."""
    guessed = ", ".join(gpu for gpu in gpus if gpu not in load_efficiency().time_errors)
    sources = [
        ("" if precision in ("fp16", "bf16") else precision, "the bytes read"),
        (guessed, "the data sheet"),
    ]
    return [
        f"no published time or power was found for {what}: what is predicted follows from {source} alone"
        for what, source in sources
        if what
    ]


def write_efficiency(efficiency: Efficiency, path: Path) -> None:
    """Write the file that `read_efficiency` reads; raises OSError."""
    text = yaml.safe_dump(efficiency.model_dump(), sort_keys=False, allow_unicode=True)
    path.write_text(HEAD + text, encoding="utf-8")

"""A machine measured instead of computed: the calibration file, and how long a step of it takes.

Each time is one that a run showed (`python -m serve calibrate RUN`), so it holds for that model on that
machine with that server, and says nothing of another. A step takes `step_ms` whatever is in it, `sequence_ms`
more for each answer that it makes a token of, `prompt_token_ms` for each new token of a prompt, and
`context_token_us` for each token that it reads from the cache of keys and values.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

from serve.emulator.machines import StepWork
from turnbench.checked_yaml import checked
from turnbench.problems import FileProblems, Problem

FORMAT = "turnbench-calibration/1"
HEAD = "# A server's times, fitted to a run. python -m serve up MODEL --backend emulator --calibration FILE\n"

Time = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]
Count = Annotated[int, Field(gt=0)]
Error = Annotated[float, Field(ge=0, allow_inf_nan=False)] | None
Text = Annotated[str, Field(min_length=1, max_length=500)]


class BadCalibration(FileProblems):
    """The file is no calibration, or that of another model."""


class Calibration(BaseModel):
    """One fitted server; times in the unit of their name."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    format: Literal["turnbench-calibration/1"] = FORMAT  # type: ignore[assignment]
    model: Text
    """The model's name in requests, one of the catalogue."""
    server: Text
    """What was measured, in words."""
    run: Text
    levels: Annotated[list[Count], Field(min_length=1)]
    """The levels of the run that the times were fitted to."""
    step_ms: Time
    sequence_ms: Time
    prompt_token_ms: Time
    context_token_us: Time
    frontend_ms: Time
    """Before a request is queued, and whatever else stands before its first token only."""
    kv_tokens: Count
    max_num_seqs: Count
    max_batched_tokens: Count
    answer_lengths: dict[Text, Annotated[list[Time], Field(min_length=2, max_length=2)]] | None = None
    """How long the run's answers were, by task: median in tokens, sigma of the logarithm; null: not taken."""
    ttft_error: Error = None
    tpot_error: Error = None
    tps_error: Error = None
    """Median error on the run's other levels, as a share; null where it had none."""


@dataclass(frozen=True, slots=True)
class MeasuredMachine:
    """What the scheduler asks of a machine, answered from a calibration."""

    calibration: Calibration

    def step_ns(self, work: StepWork) -> int:
        """Duration of a step in nanoseconds."""
        costs = self.calibration
        took_ms = costs.step_ms + costs.sequence_ms * work.decoding
        took_ms += costs.prompt_token_ms * (work.tokens - work.decoding)
        return round(took_ms * 1e6 + costs.context_token_us * 1e3 * work.context)

    def kv_tokens(self) -> int:
        """Tokens of context that its cache of keys and values holds."""
        return self.calibration.kv_tokens

    @property
    def frontend_ns(self) -> int:
        """Nanoseconds before a request is queued."""
        return round(self.calibration.frontend_ms * 1e6)

    @property
    def limits(self) -> tuple[int, int]:
        """Sequences, and new tokens, in one step at most."""
        return self.calibration.max_num_seqs, self.calibration.max_batched_tokens


def read_calibration(path: Path) -> Calibration:
    """The checked file; raises BadCalibration with every mistake."""
    start = f"format: {FORMAT}"
    return checked(Calibration, path, "calibration", start=start, error=BadCalibration)


def measured_machine(path: Path, model: str) -> MeasuredMachine:
    """The machine of this file; raises BadCalibration, also for a file of another model."""
    facts = read_calibration(path)
    if facts.model != model:
        what = f"is of {facts.model}, not of {model}: serve {facts.model} with it"
        raise BadCalibration([Problem(str(path), 0, what)])
    return MeasuredMachine(facts)


def write_calibration(calibration: Calibration, path: Path) -> None:
    """Write the file that `read_calibration` reads; raises OSError."""
    text = yaml.safe_dump(calibration.model_dump(), sort_keys=False, allow_unicode=True)
    path.write_text(HEAD + text, encoding="utf-8")

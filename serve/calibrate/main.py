"""`python -m serve calibrate RUN`: fit the emulator to a run, and say how well it predicts the rest of it."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from statistics import median

from serve.calibrate.fit import fit
from serve.calibrate.lengths import answer_lengths
from serve.calibrate.recorded import CannotCalibrate, RecordedLevel, RecordedRun, read_recorded
from serve.calibrate.table import (
    PredictedRow,
    median_errors,
    median_errors_in_words,
    predicted_rows,
    rows_table,
)
from serve.emulator.calibration import Calibration, MeasuredMachine, write_calibration
from serve.emulator.scheduler import MAX_BATCHED_TOKENS
from turnbench.formats import RecordedServer

FILE_NAME = "calibration.yaml"
MAX_NUM_SEQS = 256
"""vLLM's default, where the run does not say what the server was given."""
PLENTY_TOKENS = 10_000_000
"""Of cache, where the run never saw it fill: then its size played no part."""
LEAST_USAGE = 0.02
"""Below this share the cache's usage is mostly rounding."""


def calibrate(options: argparse.Namespace, say: Callable[[str], None]) -> int:
    """Fit, print the table, write the file; raises CannotCalibrate."""
    run = read_recorded(Path(options.directory))
    chosen = [_level(run, users) for users in options.levels]
    calibration = fit(chosen, _facts(run, options.levels))
    server = MeasuredMachine(calibration)
    rows = [
        row for level in run.levels.values() for row in predicted_rows(level, server, fitted=level in chosen)
    ]
    calibration = calibration.model_copy(update=median_errors(rows))
    if options.lengths:
        lengths = answer_lengths(Path(options.directory).resolve(), say)
        calibration = calibration.model_copy(update={"answer_lengths": lengths})
    print(table(run, rows))
    file = Path(options.out) if options.out else Path(options.directory).resolve() / FILE_NAME
    write_calibration(calibration, file)
    say(f"{file}: python -m serve up {run.model} --backend emulator --calibration {file}")
    return 0


def _level(run: RecordedRun, users: int) -> RecordedLevel:
    if users in run.levels:
        return run.levels[users]
    there = ", ".join(map(str, run.levels))
    raise CannotCalibrate(
        f"{run.name} has no level of {users}: it has {there} (--levels {','.join(there.split(', ')[:2])})"
    )


def _facts(run: RecordedRun, levels: list[int]) -> Calibration:
    """All that a calibration holds beside its times."""
    return Calibration(
        model=run.model,
        server=server_in_words(run),
        run=run.name,
        levels=levels,
        step_ms=0.0,
        sequence_ms=0.0,
        prompt_token_ms=0.0,
        context_token_us=0.0,
        frontend_ms=0.0,
        kv_tokens=_kv_tokens(run, [run.levels[users] for users in levels]),
        max_num_seqs=_argument(run.server, "--max-num-seqs") or MAX_NUM_SEQS,
        max_batched_tokens=_argument(run.server, "--max-num-batched-tokens") or MAX_BATCHED_TOKENS,
    )


def server_in_words(run: RecordedRun) -> str:
    """What the run says of its server: never that an emulator was a real one."""
    facts = run.server
    parts = [facts.get("backend"), facts.get("version"), facts.get("precision"), facts.get("gpu")]
    parts += ["random weights" if facts.get("weights") == "dummy" else None]
    words = ", ".join(str(part) for part in parts if part) or "unknown server"
    return ("EMULATED: " if run.emulated else "") + words[:400]


def _argument(server: RecordedServer, name: str) -> int | None:
    """The value of a server's own option, from its description, if it says so."""
    given = [str(each) for each in server.get("arguments") or []]
    for index, each in enumerate(given):
        key, _, value = each.partition("=")
        if key == name:
            value = value or "".join(given[index + 1 : index + 2])
            return int(value) if value.isdecimal() and int(value) else None
    return None


def _kv_tokens(run: RecordedRun, levels: list[RecordedLevel]) -> int:
    """What the server's cache holds: tokens in flight over the share that its own metrics gave for them."""
    sizes = []
    for sample in run.metrics:
        usage, at_ns = sample.values.get("vllm:kv_cache_usage_perc", 0.0), sample.t_ns
        if usage >= LEAST_USAGE:
            sizes += [_in_flight(level, at_ns) / usage for level in levels if _in_flight(level, at_ns)]
    return round(median(sizes)) if sizes else PLENTY_TOKENS


def _in_flight(level: RecordedLevel, at_ns: int) -> int:
    """Tokens that the open turns of a moment had in the cache."""
    return sum(
        turn.prompt_tokens + sum(1 for each in turn.event_ns if each <= at_ns)
        for turn in level.turns
        if turn.event_ns and turn.event_ns[0] <= at_ns < turn.end_ns
    )


def table(run: RecordedRun, rows: list[PredictedRow]) -> str:
    """Measured beside predicted for each level, and the median error on those that the fit has not seen."""
    mark = "EMULATED RUN: " if run.emulated else ""
    errors = median_errors_in_words(rows)
    what = "measured, and predicted by the fitted emulator"
    lines = [
        f"{mark}{run.name}, {run.model} ({server_in_words(run)}): {what}",
        *rows_table(rows),
        "* fitted on these levels; the others were predicted from nothing but their requests",
        f"median error of the others: {errors}" if errors else "no level is left to check the fit on",
    ]
    return "\n".join(lines)

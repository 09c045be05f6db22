"""Fits the emulator's times to a run, by what lay between two moments of each of its answers.

From the first token to the last lie so many steps, tokens made for anyone, tokens of new prompts and tokens
read from the cache; up to the first token lie half of the step that was under way, the answer's own step and
the front end. Each has its cost, and the costs add up to the time between: a linear model of five costs, none
below zero. They are found by least squares of the logarithm of modelled over measured time, with a soft L1
loss, so that the turns which a busy machine held up don't carry it; the search begins at the non-negative
least squares of the relative errors (Lawson and Hanson 1974).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.optimize import least_squares, nnls

from serve.calibrate.recorded import CannotCalibrate, RecordedLevel, RecordedTurn
from serve.emulator.calibration import Calibration

Array = np.ndarray[Any, np.dtype[np.float64]]

LEAST = np.array([0.05, 0.01, 0.001, 1e-5, 0.5])
"""What the search starts from at least (ms): it moves by shares of its start, and zero has none."""
LEAST_MS = 1e-3
LEAST_TURNS = 5
DISTURBED = 0.1
"""Relative error from which a turn counts as disturbed rather than as a little off."""


def fit(levels: list[RecordedLevel], facts: Calibration) -> Calibration:
    """`facts` with the times that fit these levels best; raises CannotCalibrate."""
    for level in levels:
        if len(whole := _spread(level)) < LEAST_TURNS:
            raise too_few(level, f"{len(whole)} whole answers")
    parts = [rows for level in levels for rows in (_decode_rows(level), _first_token_rows(level))]
    seen, took_ms = (np.concatenate(column) for column in zip(*parts, strict=True))
    costs, _ = nnls(seen / took_ms[:, None], np.ones(len(took_ms)))
    start = np.maximum(costs, LEAST)

    def miss(times: Array) -> Array:
        off: Array = np.log(np.maximum(seen @ times, LEAST_MS) / took_ms)
        return off

    found = least_squares(miss, start, bounds=(0, np.inf), x_scale=start, loss="soft_l1", f_scale=DISTURBED)
    step, sequence, prompt_token, context_token, frontend = map(float, found.x)
    return facts.model_copy(
        update={
            "step_ms": step,
            "sequence_ms": sequence,
            "prompt_token_ms": prompt_token,
            "context_token_us": 1e3 * context_token,
            "frontend_ms": frontend,
        }
    )


def too_few(level: RecordedLevel, there: str) -> CannotCalibrate:
    """What to say of a level with too little to fit or to check anything."""
    return CannotCalibrate(
        f"level {level.users} has {there}, and {LEAST_TURNS} are needed; play it again with a longer --hold"
    )


class _Sums:
    """How much of something had happened by a moment."""

    def __init__(self, at_ns: Array, amounts: Array) -> None:
        order = np.argsort(at_ns, kind="stable")
        self._at_ns = at_ns[order]
        self._sums = np.concatenate([[0.0], np.cumsum(amounts[order])])

    def between(self, after_ns: float, upto_ns: float) -> float:
        low, high = np.searchsorted(self._at_ns, [after_ns, upto_ns], side="right")
        return float(self._sums[high] - self._sums[low])


def _spread(level: RecordedLevel) -> list[RecordedTurn]:
    return [turn for turn in level.turns if turn.ok and len(turn.event_ns) > 1]


def _decode_rows(level: RecordedLevel) -> tuple[Array, Array]:
    """For each answer, from its first to its last token: the five amounts, and the time in ms."""
    making = [turn for turn in level.turns if len(turn.event_ns) > 1]
    at_ns = np.concatenate([turn.event_ns[1:] for turn in making]).astype(float)
    made = np.concatenate([np.diff(turn.tokens) for turn in making])
    read = np.concatenate([turn.prompt_tokens + np.array(turn.tokens[:-1]) for turn in making])
    sums = [_Sums(at_ns, made), _prompts(level), _Sums(at_ns, read * made)]
    rows, took_ms = [], []
    for turn in _spread(level):
        first_ns, last_ns = turn.event_ns[0], turn.event_ns[-1]
        steps = turn.tokens[-1] - turn.tokens[0]
        rows.append([steps, *(each.between(first_ns, last_ns) for each in sums), 0])
        took_ms.append((last_ns - first_ns) / 1e6)
    return np.array(rows, float), np.array(took_ms)


def _first_token_rows(level: RecordedLevel) -> tuple[Array, Array]:
    """For each answer, up to its first token: half of the step that it found under way, and its own."""
    prompts = _prompts(level)
    rows, took_ms = [], []
    for turn in _spread(level):
        others = sum(
            1 for each in level.turns if each.event_ns and each.event_ns[0] < turn.sent_ns < each.event_ns[-1]
        )
        steps = 1.5 if others else 1.0
        rows.append([steps, steps * others, prompts.between(turn.sent_ns, turn.event_ns[0]), 0, 1])
        took_ms.append((turn.event_ns[0] - turn.sent_ns) / 1e6)
    return np.array(rows, float), np.array(took_ms)


def _prompts(level: RecordedLevel) -> _Sums:
    """New tokens of prompts, by when their answers' first tokens came."""
    begun = [turn for turn in level.turns if turn.event_ns]
    new = [turn.prompt_tokens - turn.cached_tokens for turn in begun]
    return _Sums(np.array([turn.event_ns[0] for turn in begun], float), np.array(new, float))

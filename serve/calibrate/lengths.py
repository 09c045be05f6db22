"""How long a real model's answers were, task by task, for an emulator that is to talk as much as it did.

Of each task of the run: the median number of tokens before the stop token, and the spread of their
logarithms, which is all that `serve.emulator.answers` draws from. Answers that ran into their limit would
have been longer; they count as long as they got, so a median among them is too low, and that is said.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from statistics import median, stdev

from serve.calibrate.recorded import CannotCalibrate
from serve.emulator.answers import CHAT, known_tasks
from turnbench.run_directory import read_run

LEAST_ANSWERS = 5
STOPPED, LIMITED = "stop", "length"


def answer_lengths(folder: Path, say: Callable[[str], None]) -> dict[str, list[float]]:
    """Median and sigma of the logarithm for each task that the emulator knows; the rest counts as chat."""
    run = read_run(folder)
    if run.manifest.settings.get("exact_tokens"):
        raise CannotCalibrate(
            f"{folder.name} forced every answer's length: --lengths needs a run without --exact-tokens"
        )
    tasks = known_tasks()
    found: dict[str, list[tuple[int, bool]]] = {}
    for turn in run.turns():
        ended = turn.finish_reason == STOPPED
        if turn.outcome == "ok" and turn.output_tokens and (ended or turn.finish_reason == LIMITED):
            task = turn.task if turn.task in tasks else CHAT
            found.setdefault(task, []).append((max(1, turn.output_tokens - ended), ended))
    lengths: dict[str, list[float]] = {}
    for task, answers in sorted(found.items()):
        if len(answers) < LEAST_ANSWERS:
            say(f"{task}: {len(answers)} whole answers are too few for their length; it stays assumed")
            continue
        middle = median(tokens for tokens, _ in answers)
        spread = [math.log(tokens) for tokens, ended in answers if ended]
        cut = 1 - len(spread) / len(answers)
        if cut >= 0.5:
            say(f"{task}: {cut:.0%} of the answers ran into their limit; the model's own are longer")
        lengths[task] = [float(middle), round(stdev(spread), 3) if len(spread) > 1 else 0.0]
    if not lengths:
        raise CannotCalibrate(
            f"{folder.name} has no task with {LEAST_ANSWERS} whole answers: play a longer run"
        )
    return lengths

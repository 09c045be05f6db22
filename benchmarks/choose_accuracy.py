"""How many of a run's multiple-choice questions were answered with the right letter.

    python -m benchmarks.choose_accuracy RUN...

RUN is a run or a sweep of `choose`, alone or in a mix, that kept its texts (`--keep-text`). The right letter
is the plan's: the run's scenario and seed say what conversation k asked. An answer counts if it begins with a
letter or says "the answer is" and one; any other text is wrong. Guessing gives 25 %.
"""

from __future__ import annotations

import argparse
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import scenarios
from scenarios._texts import texts
from turnbench.run_directory import RunError, read_run

TASK = "choose"
LETTER = re.compile(r"^\W*([a-d])(?:[).:,]|\W*$)|\banswer(?: is)?:?\W+([a-d])\b", re.IGNORECASE)
Z95 = 1.96


@dataclass
class Score:
    """The answers of one model at one load."""

    answers: int = 0
    letters: int = 0
    right: int = 0

    def share(self) -> tuple[float, float, float]:
        """Right ones, with the 95 % interval of Wilson (1927)."""
        n, p = self.answers, self.right / self.answers
        middle = (p + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
        half = Z95 / (1 + Z95**2 / n) * (p * (1 - p) / n + Z95**2 / (4 * n * n)) ** 0.5
        return p, middle - half, middle + half


def letter_of(answer: str) -> str | None:
    """The letter that an answer gives, if it gives one."""
    found = LETTER.search(answer)
    return (found[1] or found[2]).lower() if found else None


def right_letter(prompt: str) -> str:
    """Of the question that this message of the study's asks."""
    asked = [item for item in texts("questions") if f"{item['question']}\n{_choices(item)}" in prompt]
    return str(asked[0]["answer"])


def _choices(item: Any) -> str:
    return "\n".join(f"{letter}) {text}" for letter, text in item["choices"].items())


def scores(folder: Path) -> dict[tuple[str, int], Score]:
    """By model and people; raises RunError."""
    run = read_run(folder)
    scenario = scenarios.load(str(folder / "scenario.yaml"))
    found: dict[tuple[str, int], Score] = defaultdict(Score)
    levels = [level for level in run.manifest.levels if level.users and level.end_ns]
    for turn in run.turns():
        sent_ns = turn.sent_ns or 0
        level = next((each for each in levels if (each.start_ns or 0) <= sent_ns < (each.end_ns or 0)), None)
        if turn.task != TASK or turn.outcome != "ok" or turn.text is None or level is None:
            continue
        asked = scenarios.plan(scenario, run.manifest.seed or 0, turn.conversation).turns[0].user
        score, letter = found[turn.model or "", level.users or 0], letter_of(turn.text)
        score.answers += 1
        score.letters += letter is not None
        score.right += letter == right_letter(asked)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="directories of runs or sweeps")
    found: dict[tuple[str, int], Score] = {}
    for folder in parser.parse_args().runs:
        for run in [folder] if (folder / "run.json").is_file() else sorted(folder.glob("*/")):
            try:
                found |= scores(run)
            except RunError as error:
                raise SystemExit(str(error)) from None
    if not found:
        raise SystemExit(f"no answer to {TASK} with its text was found: play it with --keep-text")
    print(f"{'model':<16} {'people':>6} {'answers':>7} {'a letter':>8} {'right':>6}  95 % interval")
    whole = Score()
    for (model, users), score in found.items():
        for name in vars(whole):
            setattr(whole, name, getattr(whole, name) + getattr(score, name))
        _print(model, str(users), score)
    _print("all", "", whole)
    return 0


def _print(model: str, users: str, score: Score) -> None:
    right, low, high = score.share()
    letters = score.letters / score.answers
    print(f"{model:<16} {users:>6} {score.answers:>7} {letters:>8.0%} {right:>6.0%}  {low:.0%} to {high:.0%}")


if __name__ == "__main__":
    raise SystemExit(main())

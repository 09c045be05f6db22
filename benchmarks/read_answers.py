"""What was read out of a run's answers, to be checked by eye: one JSON object a line.

    turnbench run -H URL --scenario choose --levels 1 --keep-text
    python -m benchmarks.read_answers runs/LATEST [--most 50] > answers.jsonl

Each line has the key, the text of the answer, what was read out of it, and whether that is right. Lines with
"eye" added (the letter or text that a person reads in it, or null) stand in tests/fixtures/answers, and
tests/turnbench/test_answers.py reads them again.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import msgspec

from scenarios import parse, plan
from turnbench.answers import read_answer
from turnbench.run_directory import read_run


def main() -> int:
    """Print the lines."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--most", type=int, default=50)
    options = parser.parse_args()
    run = read_run(options.run)
    scenario = parse(run.scenario_text() or "")
    printed = 0
    for record in run.turns():
        turns = plan(scenario, run.manifest.seed, record.conversation).turns
        key = turns[record.turn - 1].key
        if key is None or record.text is None or record.outcome != "ok" or printed == options.most:
            continue
        printed += 1
        answered, right = read_answer(key, record.text)
        line = {"key": msgspec.to_builtins(key), "text": record.text, "answered": answered, "right": right}
        print(json.dumps(line, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

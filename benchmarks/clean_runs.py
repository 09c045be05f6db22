"""How often is a level SUSPECT where nothing is wrong? Short runs of a few people against the emulator.

    python -m benchmarks.clean_runs [--runs 5] [--people 1,4,16,64] [--hold 6] [--arrivals 5,20]

Each run plays every number of people (and every rate of arrivals, in a run of its own) for so many seconds,
at a fixed schedule: whatever is found is a false alarm, or a disturbance of this machine, which the time that
its host took (below the table) may explain.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from analysis.summary import summarise
from analysis.turns.study import study_run
from benchmarks.clock import Emulator
from benchmarks.disturbance import account
from turnbench.run_directory import read_run

TOKENS = 64
TOKENS_PER_S = 100
_WARMUP_S = 2


def play(url: str, load: list[str], hold_s: float, where: Path) -> None:
    """One run; its files are read once all runs are over, so that no analysis takes the next one's CPU."""
    command = [sys.executable, "-m", "locust", "-f", "loadgen/", "--headless", "-H", url]
    command += ["--scenario", "explain", "--exact-tokens", "--max-tokens", str(TOKENS), "--no-analysis"]
    command += [*load, "--warmup", f"{_WARMUP_S}s", "--run-dir", str(where)]
    command += ["-t", f"{_WARMUP_S + hold_s:g}s"] if "--arrival-rate" in load else ["--hold", f"{hold_s:g}s"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if not (where / "run.json").exists():
        raise SystemExit(f"the run did not start (exit code {done.returncode}):\n{done.stderr}")


def findings(where: Path) -> list[tuple[str, int, str, list[str]]]:
    """(load, turns, status, what was found) of each level."""
    study = study_run(read_run(where))
    summary = summarise(study)
    turns = study.measured.groupby("level").size()
    return [
        (
            level.load,
            int(turns.get(level.index, 0)),
            level.status,
            [f"{f.check}: {f.what}" for f in summary.verdict.findings if f.at in (None, level.index)],
        )
        for level in summary.levels
    ]


def main() -> int:
    """Print the table as Markdown, and below it what was found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--people", default="1,4,16,64")
    parser.add_argument("--arrivals", default="", help="rates a second, each a run of its own")
    parser.add_argument("--hold", type=float, default=6.0, help="seconds of each window")
    options = parser.parse_args()
    loads = [["--levels", options.people]]
    loads += [["--arrival-rate", rate] for rate in options.arrivals.split(",") if rate]
    with tempfile.TemporaryDirectory() as name:
        server = Emulator(Path(name), TOKENS_PER_S)
        before = account(server.pid)
        try:
            for number in range(options.runs):
                for which, load in enumerate(loads):
                    play(server.url, load, options.hold, Path(name) / f"run-{number}-{which}")
            stolen_s = account(server.pid).steal_s - before.steal_s
        finally:
            server.stop()
        played = [level for where in sorted(Path(name).glob("run-*")) for level in findings(where)]
    statuses: dict[str, Counter[str]] = {}
    turns: Counter[str] = Counter()
    for at, count, status, _ in played:
        statuses.setdefault(at, Counter())[status] += 1
        turns[at] += count
    print("| load | levels | turns | VALID | SUSPECT | INVALID |\n|---|---|---|---|---|---|")
    for at, seen in statuses.items():
        shares = " | ".join(str(seen[status]) for status in ("valid", "suspect", "invalid"))
        print(f"| {at} | {seen.total()} | {turns[at]} | {shares} |")
    print(f"\n{stolen_s:.1f} s of CPU were taken by the machine's host.")
    said = Counter(f"{at}: {what}" for at, _, _, found in played for what in found)
    for what, count in said.most_common():
        print(f"{count} x {what}")
    return int(any(status != "valid" for _, _, status, _ in played))


if __name__ == "__main__":
    raise SystemExit(main())

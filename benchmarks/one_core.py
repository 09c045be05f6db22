"""Is a wait ever reported too short? Client, server and a busy loop share one core.

    python -m benchmarks.one_core [--runs 5] [--seconds 10] [--streams 20] [--clock auto]

The truth of a wait is the emulator's: a moment from before it handed the first (or the last) token to its
kernel, less the moment at which its kernel received the request. Nobody can have waited less. A client that
loses its core after its call that sends, and stamps the request then, reports less.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from turnbench.formats import TurnRecord
from turnbench.run_directory import read_run

CORE = "1"
RATE_PER_S, TTFT_MS, TOKENS = 200, 40, 60
SHORT_MS = 0.2
"""A wait that is shorter than the truth by more than this is wrong."""


def play(clock: str, streams: int, seconds: float, folder: Path, checkout: Path) -> list[tuple[float, float]]:
    """(TTFT, TTG) less the truth, in ms, of every answered turn of one run."""
    truth_path, run_path = folder / "truth.jsonl", folder / "run"
    pinned = ["taskset", "-c", CORE, sys.executable]
    busy = subprocess.Popen([*pinned, "-c", "while True: pass"])
    server = subprocess.Popen(
        [*pinned, "-m", "serve.emulator", "--schedule", "fixed", "--ttft", f"{TTFT_MS}ms", "--port", "0"]
        + ["--itl", f"{1000 / RATE_PER_S:g}ms", "--truth", str(truth_path)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout is not None
        url = server.stdout.readline().removeprefix("ready: ").strip()
        interpreter = checkout / ".venv" / "bin" / "python"
        subprocess.run(
            ["taskset", "-c", CORE, str(interpreter if interpreter.exists() else sys.executable)]
            + ["-m", "locust", "-f", "loadgen/", "--headless", "-H", url, "--scenario", "explain"]
            + ["--levels", str(streams), "--hold", f"{seconds:g}s", "--warmup", "2s", "--exact-tokens"]
            + ["--max-tokens", str(TOKENS), "--clock", clock, "--no-analysis", "--run-dir", str(run_path)],
            check=False,
            capture_output=True,
            cwd=checkout,
            env=os.environ | {"PYTHONPATH": str(checkout)},
        )
    finally:
        for process in (server, busy):
            process.terminate()
            process.wait()
    with truth_path.open() as lines:
        truth = {entry["request_id"]: entry for entry in map(json.loads, lines)}
    return [off(turn, truth[request_id(turn)]) for turn in read_run(run_path).turns() if turn.outcome == "ok"]


def request_id(turn: TurnRecord) -> str:
    return f"{turn.run}/{turn.conversation}/{turn.turn}/{turn.attempt}"


def off(turn: TurnRecord, truth: dict[str, list[int]]) -> tuple[float, float]:
    begun, received_ns = truth["event_begun_ns"], truth["received_ns"]
    return tuple(  # type: ignore[return-value]
        turn.event_us[place] / 1e3 - (begun[place] - received_ns) / 1e6  # type: ignore[operator]
        for place in (0, -1)
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10.0, help="length of each window")
    parser.add_argument("--streams", type=int, default=20)
    parser.add_argument("--clock", default="auto")
    parser.add_argument("--checkout", type=Path, default=Path.cwd(), help="whose client to run")
    options = parser.parse_args()
    wrong = 0
    for number in range(options.runs):
        with tempfile.TemporaryDirectory() as name:
            found = play(options.clock, options.streams, options.seconds, Path(name), options.checkout)
        for what, values in zip(("TTFT", "TTG"), np.array(found).T, strict=True):
            short = int((values < -SHORT_MS).sum())
            wrong += short
            print(
                f"run {number + 1}: {len(values)} turns, {what} less the truth: least {values.min():.3f} ms, "
                f"p50 {np.median(values):.3f}, p99 {np.quantile(values, 0.99):.3f}; "
                f"{short} too short by over {SHORT_MS:g} ms",
                flush=True,
            )
    print("no wait was reported too short" if not wrong else f"{wrong} waits were reported too short")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

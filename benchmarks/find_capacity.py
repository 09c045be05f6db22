"""Does --find-capacity find it? Against an emulator whose own parameters say what it can serve.

    python -m benchmarks.find_capacity [--slots 16] [--tokens 20] [--hold 12s] [--people]

The emulator has so many slots and answers in so many tokens. While all slots are busy, a slot gives `tokens`
steps to one conversation, so conversations/s = slots / (tokens x step). A step takes the larger of two times
of `python -m serve.pace`: to read weights and contexts, and to compute the prompts that come in meanwhile.
The limit on the first token is loose enough for the queue of random arrivals below that rate, and tight
enough that above it the growing queue shows within --hold. With --people the load is people instead of
arrivals, and the capacity is the number of slots.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.clock import CLIENT_CORE, SERVER_CORE
from turnbench.formats import CapacitySummary
from turnbench.run_directory import RunDirectory, read_run

MODEL = "yi-6b"
WITHIN = 0.10
MOST_POINTS = 12


def known_per_s(slots: int, tokens: int, prompt: float) -> float:
    """Conversations per second of the emulator's own parameters."""
    said = subprocess.run(
        [sys.executable, "-m", "serve.pace", MODEL], check=True, capture_output=True, text=True
    )
    pace = json.loads(said.stdout)
    read_s = pace["step_s"] + pace["step_context_s"] * slots * (prompt + tokens / 2)
    prompts_s = slots / tokens * prompt * pace["prefill_token_s"]
    return float(slots / (tokens * max(read_s, prompts_s)))


def search(url: str, options: argparse.Namespace, where: Path) -> RunDirectory:
    load = [] if options.people else ["--arrival-rate", "2"]
    limit = "ttft_ms=150,share=0.8" if options.people else f"ttft_ms={options.limit_ms:g},share=0.95"
    command = ["taskset", "-c", CLIENT_CORE, sys.executable, "-m", "locust", "-f", "loadgen/", "--headless"]
    command += ["-H", url, "--scenario", "choose", "--find-capacity", *load, "--slo", limit]
    command += ["--exact-tokens", "--max-tokens", str(options.tokens), "--hold", options.hold]
    command += ["--warmup", "2s", "--no-analysis", "--run-dir", str(where)]
    done = subprocess.run(command, check=False, text=True, stdout=subprocess.PIPE)
    print(done.stdout)
    if done.returncode:
        raise SystemExit(f"the run ended with exit code {done.returncode}")
    return read_run(where)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--slots", type=int, default=16, help="sequences the emulator serves at once (16)")
    parser.add_argument("--tokens", type=int, default=20, help="tokens of an answer (20)")
    parser.add_argument("--hold", default="12s", help="length of a point (12s)")
    parser.add_argument("--limit-ms", type=float, default=1000.0, help="on the first token (1000)")
    parser.add_argument("--people", action="store_true", help="closed loop")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        server = subprocess.Popen(
            ["taskset", "-c", SERVER_CORE, sys.executable, "-m", "serve.emulator", "--model", MODEL]
            + ["--port", "0", "--max-num-seqs", str(options.slots)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert server.stdout is not None
        try:
            url = server.stdout.readline().removeprefix("ready: ").strip()
            run = search(url, options, Path(name) / "run")
        finally:
            server.send_signal(signal.SIGTERM)
            server.communicate()
        prompt = float(np.mean([turn.prompt_tokens for turn in run.turns() if turn.prompt_tokens]))
        result, levels = run.manifest.capacity, len(run.manifest.levels)
        if not isinstance(result, CapacitySummary):
            raise SystemExit("the search wrote no result")
    known = options.slots if options.people else known_per_s(options.slots, options.tokens, prompt)
    error = (result.value or 0) / known - 1
    points = len(result.points)
    print(f"known {known:.1f} {result.unit}, found {result.value}: {error:+.1%}")
    print(f"{points} points, {levels} of them kept in the run")
    good = abs(error) <= WITHIN and points <= MOST_POINTS and levels == points
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())

"""What do many people who think between their turns cost one engine? Set beside the server's truth.

    python -m benchmarks.people [--people 5000] [--think scenario*0.3] [--seconds 40]

The server has one core, the client (Locust, engine and all) another. Fails if the run has a finding, if not
every person came, or if the records and the server's log don't hold the same turns.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil

from benchmarks.clock import CLIENT_CORE, Emulator, measured, truth_of
from benchmarks.disturbance import account
from turnbench.formats import HealthLine
from turnbench.outcomes import STILL_RUNNING, TROUBLE
from turnbench.run_directory import RunDirectory, read_run

TOKENS = 40
TOKENS_PER_S = 100
ARRIVE_S = 25
WARMUP_S = 5


@dataclass
class Watch(threading.Thread):
    """The memory and CPU of Locust itself, looked at each half second until it ends."""

    process: psutil.Process
    rss_mb: float = 0.0
    cpu: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(daemon=True)

    __hash__ = threading.Thread.__hash__

    def run(self) -> None:
        try:
            while self.process.is_running() and self.process.status() != psutil.STATUS_ZOMBIE:
                self.rss_mb = max(self.rss_mb, self.process.memory_info().rss / 1e6)
                self.cpu.append(self.process.cpu_percent() / 100)
                time.sleep(0.5)
        except psutil.NoSuchProcess:
            return


def play(url: str, people: int, think: str, seconds: float, where: Path) -> tuple[RunDirectory, Watch, int]:
    """The run, what Locust used, and its exit code."""
    ramp_s = ARRIVE_S + WARMUP_S
    command = ["taskset", "-c", CLIENT_CORE, sys.executable, "-m", "locust", "-f", "loadgen/", "--headless"]
    command += ["-H", url, "--scenario", "chat", "-u", str(people), "-r", f"{people / ARRIVE_S:g}"]
    command += ["-t", f"{ramp_s + seconds:g}s", "--warmup", f"{WARMUP_S}s", "--think-time", think]
    command += ["--max-tokens", str(TOKENS), "--run-dir", str(where), "--no-analysis", "--drain", "10s"]
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, stdout=said, stderr=said)
        watch = Watch(psutil.Process(process.pid))
        watch.start()
        code = process.wait()
        watch.join()
        if not (where / "run.json").exists():
            said.seek(0)
            raise SystemExit(f"the run did not start (exit code {code}):\n{said.read().decode()}")
    return read_run(where), watch, code


def in_window(run: RunDirectory) -> list[HealthLine]:
    level = run.manifest.levels[0]
    start_ns, end_ns = level.window_start_ns or 0, level.window_end_ns or 0
    return [line for line in run.health() if start_ns <= line.t_ns < end_ns]


def describe(run: RunDirectory, watch: Watch, truth_path: Path) -> list[str]:
    """The figures, a line each."""
    truth, turns, health = truth_of(truth_path), measured(run), in_window(run)
    true = [truth[f"{t.run}/{t.conversation}/{t.turn}/{t.attempt}"] for t in turns]
    ttft = np.percentile([t.event_us[0] / 1e3 for t in turns], (50, 99))
    ttft_true = np.percentile([(e["event_ns"][0] - e["received_ns"]) / 1e6 for e in true], (50, 99))
    late = np.percentile([((t.sent_ns or 0) - t.due_ns) / 1e6 for t in turns], (50, 99))
    lag = np.percentile([line.loop_lag_ms or 0 for line in health], (50, 99))
    window_s, rss_mb = len(health), max(line.rss_mb or 0 for line in run.health())
    flight = np.mean([line.in_flight or 0 for line in health])
    return [
        f"people        {run.manifest.levels[0].users}, {flight:.0f} streams in flight on average",
        f"turns         {len(turns)} measured in {window_s} s, {len(turns) / window_s:.0f}/s, "
        f"{sum(t.output_tokens or 0 for t in turns) / window_s:.0f} tokens/s",
        f"memory        engine {rss_mb:.0f} MB, Locust {watch.rss_mb:.0f} MB",
        f"CPU           engine {np.mean([line.cpu_share or 0 for line in health]):.0%} of the core, "
        f"Locust {np.mean(watch.cpu[4:-4]):.0%} over the whole run",
        f"loop lag      the worst of each second: p50 {lag[0]:.1f} ms, p99 {lag[1]:.1f} ms",
        f"start         sent after it was due: p50 {late[0]:.2f} ms, p99 {late[1]:.2f} ms",
        f"TTFT p50      {ttft[0]:.2f} ms, true {ttft_true[0]:.2f} ms",
        f"TTFT p99      {ttft[1]:.2f} ms, true {ttft_true[1]:.2f} ms",
    ]


def faults(run: RunDirectory, code: int, people: int, truth_path: Path) -> list[str]:
    """What must not be; empty if all is well."""
    found = [f"exit code {code}"] if code else []
    found += [f"{finding.check}: {finding.what}" for finding in run.manifest.findings]
    ids = {f"{t.run}/{t.conversation}/{t.turn}/{t.attempt}" for t in run.turns() if t.sent_ns is not None}
    seen = set(truth_of(truth_path))
    if ids != seen:
        found.append(
            f"{len(seen - ids)} requests that the server saw have no record, {len(ids - seen)} the reverse"
        )
    players = len({t.conversation for t in run.turns()})
    if players < people:
        found.append(f"only {players} conversations of {people} people began")
    failed = sum(t.outcome in (*TROUBLE, *STILL_RUNNING) for t in run.turns())
    return found + ([f"{failed} turns failed"] if failed else [])


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--people", type=int, default=5000)
    parser.add_argument("--think", default="scenario*0.3", help="--think-time (median 30 s)")
    parser.add_argument("--seconds", type=float, default=40.0, help="length of the window")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        server = Emulator(Path(name), TOKENS_PER_S)
        before, began = account(server.pid), time.monotonic()
        try:
            where = Path(name) / "run"
            run, watch, code = play(server.url, options.people, options.think, options.seconds, where)
            stolen_s = account(server.pid).steal_s - before.steal_s
        finally:
            said = server.stop()
        share = stolen_s / (time.monotonic() - began)
        print(f"{options.people} people, --think-time {options.think}; the host took {share:.1%} of a core")
        print(f"the server on itself: {said}")
        print("\n".join(describe(run, watch, server.truth)))
        wrong = faults(run, code, options.people, server.truth)
    print("\n".join(wrong) or "every turn of the server's log has its record, and every person came")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

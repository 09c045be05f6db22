"""Open loop: do conversations begin at the asked rate, in the asked gaps, on time? If the server freezes too?

    python -m benchmarks.arrivals [--rate 50] [--burstiness 1] [--seconds 60] [--processes N]

The server has one core, the client another. A Kolmogorov-Smirnov test sets the gaps against the asked gamma:
the planned ones, and those between the moments at which requests were handed to the kernel. In a second run
the server is stopped (SIGSTOP) for five seconds: whoever came due meanwhile must show that wait.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import stats

from benchmarks.clock import CLIENT_CORE, Emulator
from benchmarks.disturbance import DISTURBED, account, lost_s
from turnbench.formats import TurnRecord
from turnbench.outcomes import ANSWERED
from turnbench.run_directory import RunDirectory, read_run

WARMUP_S = 5.0
FROZEN_S = 5.0
LEAST_P = 0.01
RATE_WITHIN = 0.01
FREEZE_SLACK_S = 0.05
"""The signal's way to the server, at both ends."""


@dataclass(frozen=True)
class Asked:
    """What the load should be."""

    rate_per_s: float
    burstiness: float
    seconds: float
    processes: int


def start(url: str, asked: Asked, where: Path) -> subprocess.Popen[str]:
    command = ["taskset", "-c", CLIENT_CORE, sys.executable, "-m", "locust", "-f", "loadgen/", "--headless"]
    command += ["-H", url, "--scenario", "choose", "--arrival-rate", f"{asked.rate_per_s:g}"]
    command += ["--burstiness", f"{asked.burstiness:g}", "-t", f"{WARMUP_S + asked.seconds:g}s"]
    command += ["--warmup", f"{WARMUP_S:g}s", "--exact-tokens", "--max-tokens", "40", "--no-analysis"]
    command += ["--processes", str(asked.processes)] if asked.processes > 1 else []
    command += ["--run-dir", str(where)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finished(process: subprocess.Popen[str], where: Path) -> RunDirectory:
    said, _ = process.communicate()
    if process.returncode or not (where / "run.json").exists():
        raise SystemExit(f"the run ended with exit code {process.returncode}:\n{said}")
    return read_run(where)


def due_in_window(run: RunDirectory) -> list[TurnRecord]:
    """First turns that came due in the window, in their order."""
    (level,) = run.manifest.levels
    found = [
        turn
        for turn in run.turns()
        if turn.turn == 1
        and turn.attempt == 1
        and (level.window_start_ns or 0) <= turn.due_ns < (level.window_end_ns or 0)
    ]
    return sorted(found, key=lambda turn: turn.due_ns)


def show_rate(run: RunDirectory, asked: Asked) -> list[str]:
    """Prints the figures; the promises that were broken."""
    turns = due_in_window(run)
    sent = np.array([turn.sent_ns for turn in turns if turn.sent_ns is not None]) / 1e9
    due = np.array([turn.due_ns for turn in turns]) / 1e9
    late_ms = (sent - due) * 1e3 if len(sent) == len(due) else np.array([np.inf])
    rate = len(sent) / asked.seconds
    law = stats.gamma(asked.burstiness, scale=1 / (asked.rate_per_s * asked.burstiness))
    p = {}
    print(
        f"asked {asked.rate_per_s:g}/s for {asked.seconds:g} s, sent {rate:.2f}/s ({len(sent)} conversations)"
    )
    for name, moments in (("due", due), ("sent", np.sort(sent))):
        told = stats.kstest(np.diff(moments), law.cdf)
        p[name] = told.pvalue
        print(
            f"gaps as {name:4}  D {told.statistic:.4f}, p {told.pvalue:.3f} for gamma({asked.burstiness:g})"
        )
    p50, p99, most = np.percentile(late_ms, (50, 99, 100))
    print(f"start lateness p50 {p50:.2f} ms, p99 {p99:.2f} ms, max {most:.1f} ms")
    broken = [] if abs(rate / asked.rate_per_s - 1) <= RATE_WITHIN else ["the rate is not within 1 %"]
    return broken + [f"gaps as {name} are not the asked ones" for name in p if p[name] < LEAST_P]


def freeze(server: Emulator, process: subprocess.Popen[str], where: Path) -> tuple[RunDirectory, int, int]:
    """Stop the server in the middle of the window; the run, and when it stopped and went on."""
    while not list(where.glob("turns-*.jsonl")) and process.poll() is None:
        time.sleep(0.1)
    time.sleep(2 * WARMUP_S)
    frozen_ns = time.time_ns()
    os.kill(server.pid, signal.SIGSTOP)
    time.sleep(FROZEN_S)
    os.kill(server.pid, signal.SIGCONT)
    thawed_ns = time.time_ns()
    return finished(process, where), frozen_ns, thawed_ns


def show_freeze(run: RunDirectory, frozen_ns: int, thawed_ns: int) -> list[str]:
    slack_ns = int(FREEZE_SLACK_S * 1e9)
    turns = [t for t in due_in_window(run) if frozen_ns + slack_ns < t.due_ns < thawed_ns - slack_ns]
    seen = [t for t in turns if t.outcome in ANSWERED and t.sent_ns is not None and t.event_us]
    delay_s = [((t.sent_ns or 0) + t.event_us[0] * 1000 - t.due_ns) / 1e9 for t in seen]
    hidden = sum(
        delay < (thawed_ns - turn.due_ns) / 1e9 - FREEZE_SLACK_S
        for delay, turn in zip(delay_s, seen, strict=True)
    )
    wait = f"response delay {min(delay_s):.2f} to {max(delay_s):.2f} s" if delay_s else "none was answered"
    frozen_s = (thawed_ns - frozen_ns) / 1e9
    print(f"frozen for {frozen_s:.1f} s: {len(turns)} came due, {len(seen)} answered; {wait}")
    broken = ["no turn came due while the server was frozen"] if not turns else []
    broken += [f"{len(turns) - len(seen)} were never answered"] if len(seen) < len(turns) else []
    return broken + ([f"{hidden} do not show the wait"] if hidden else [])


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rate", type=float, default=50.0, help="conversations per second (50)")
    parser.add_argument("--burstiness", type=float, default=1.0, help="shape of the gamma gaps (1)")
    parser.add_argument("--seconds", type=float, default=60.0, help="length of the window (60)")
    parser.add_argument("--processes", type=int, default=1, help="workers (1)")
    options = parser.parse_args()
    asked = Asked(options.rate, options.burstiness, options.seconds, options.processes)
    with tempfile.TemporaryDirectory() as name:
        server = Emulator(Path(name), 100)
        before, began = account(server.pid), time.monotonic()
        try:
            where = Path(name) / "rate"
            run = finished(start(server.url, asked, where), where)
            broken = show_rate(run, asked)
            lost = lost_s(before, account(server.pid), run) / (time.monotonic() - began)
            disturbed = (
                "; DISTURBED: gaps as sent are then the machine's, not ours" if lost > DISTURBED else ""
            )
            print(f"others took {lost:.1%} of a core{disturbed}")
            where = Path(name) / "freeze"
            short = Asked(asked.rate_per_s, asked.burstiness, 4 * FROZEN_S, asked.processes)
            broken += show_freeze(*freeze(server, start(server.url, short, where), where))
        finally:
            server.stop()
    print("\n".join(broken) or "every promise kept")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())

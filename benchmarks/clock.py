"""How true are the times? Runs against the emulator's fixed schedule, set beside its own truth log.

    python -m benchmarks.clock [--seconds 12] [--only 400] [--repeats 3] [--again 2] [--tls] [--busy]

The server has one core, the client (Locust, engine and all) another. Truth is what the server logged: when
the request came and when each event was handed to the kernel. A run from which the machine took more than
1 % of a core (other processes, the host of a virtual machine) is said to be disturbed and played again: by
that account, never by its figures.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from bisect import bisect_right
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import trustme
from rich.console import Console
from rich.table import Table

from benchmarks.disturbance import DISTURBED, account, lost_s, process_cpu_s
from turnbench.formats import TurnRecord
from turnbench.outcomes import ANSWERED, STILL_RUNNING, TROUBLE
from turnbench.run_directory import RunDirectory, read_run

TOKENS = 200
TTFT_MS = 100
LOADS = ((100, 100), (400, 100), (800, 50))
SERVER_CORE, CLIENT_CORE = "0", "1"


@dataclass(frozen=True)
class Row:
    """One run beside the truth; times in milliseconds."""

    streams: int
    rate: int
    clock: str
    turns: int
    ttft_p50: float
    ttft_p50_true: float
    ttft_p99: float
    ttft_p99_true: float
    itl_p50: float
    itl_p50_true: float
    itl_p99: float
    itl_p99_true: float
    coalesced: float
    cpu_us: float
    """The engine's CPU time a token, while the level was measured."""
    raw_cpu_us: float
    """That of a client which does nothing but recvmsg, once its connections are open."""
    server_cpu_us: float
    """The server's: on one machine its core pays for what a tap copies."""


class Emulator:
    """The fixed schedule on its own core, with its truth log."""

    def __init__(self, folder: Path, rate: int, tls: bool = False, options: tuple[str, ...] = ()) -> None:
        self.truth = folder / "truth.jsonl"
        certificate = []
        if tls:
            issued = trustme.CA().issue_cert("127.0.0.1")
            issued.cert_chain_pems[0].write_to_path(str(folder / "chain.pem"))
            issued.private_key_pem.write_to_path(str(folder / "key.pem"))
            certificate = ["--tls-cert", str(folder / "chain.pem"), "--tls-key", str(folder / "key.pem")]
        self._process = subprocess.Popen(
            ["taskset", "-c", SERVER_CORE, sys.executable, "-m", "serve.emulator", "--schedule", "fixed"]
            + ["--ttft", f"{TTFT_MS}ms", "--itl", f"{1000 / rate:g}ms", "--port", "0"]
            + ["--truth", str(self.truth), "--max-num-seqs", "4096", *certificate, *options],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().removeprefix("ready: ").strip()

    @property
    def pid(self) -> int:
        return self._process.pid

    def stop(self) -> str:
        """End it; what it says of its own lateness."""
        self._process.send_signal(signal.SIGTERM)
        said, _ = self._process.communicate(timeout=30)
        return said.strip()


def run_client(
    url: str, streams: int, clock: str, seconds: float, folder: Path, tokens: int = TOKENS
) -> RunDirectory:
    """One level of `streams` people against `url`, on the client's core."""
    where = folder / f"run-{clock}"
    done = subprocess.run(
        ["taskset", "-c", CLIENT_CORE, sys.executable, "-m", "locust", "-f", "loadgen/", "--headless"]
        + ["-H", url, "--scenario", "explain", "--levels", str(streams), "--hold", f"{seconds:g}s"]
        + ["--exact-tokens", "--max-tokens", str(tokens), "--warmup", "4s", "--clock", clock]
        + ["--run-dir", str(where), *(["--insecure"] if url.startswith("https:") else [])],
        check=False,
        capture_output=True,
        text=True,
    )
    if not (where / "run.json").exists():
        raise SystemExit(f"the run did not start (exit code {done.returncode}):\n{done.stderr}")
    run = read_run(where)
    failed = [turn for turn in run.turns() if turn.outcome in (*TROUBLE, *STILL_RUNNING)]
    if failed or run.manifest.findings:
        raise SystemExit(f"{len(failed)} turns failed, findings {run.manifest.findings}: nothing to compare")
    return run


def undisturbed(
    server: Emulator, streams: int, clock: str, folder: Path, options: argparse.Namespace, limit: float
) -> tuple[RunDirectory, float, str]:
    """A run from which the machine took little, or the last of `--again` more if there is none.

    With it the server's CPU seconds in that time, and what was taken.
    """
    for attempt in range(options.again + 1):
        before, began, served_s = account(server.pid), time.monotonic(), process_cpu_s(server.pid)
        run = run_client(server.url, streams, clock, options.seconds, folder / str(attempt), options.tokens)
        served_s = process_cpu_s(server.pid) - served_s
        lost = lost_s(before, account(server.pid), run) / (time.monotonic() - began)
        if lost <= limit:
            break
    what = f"{clock} clock: others took {lost:.1%} of a core, disturbed runs before it: {attempt}"
    return run, served_s, what if lost <= limit else f"{what}; DISTURBED, every time"


def measured(run: RunDirectory) -> list[TurnRecord]:
    level = run.manifest.levels[0]
    start, end = level.window_start_ns or 0, level.window_end_ns or 0
    return [t for t in run.turns() if t.outcome in ANSWERED and t.sent_ns and start <= t.sent_ns < end]


def truth_of(path: Path) -> dict[str, dict[str, Any]]:
    with path.open() as lines:
        return {entry["request_id"]: entry for entry in map(json.loads, lines)}


def percentiles(values: list[np.ndarray[Any, Any]]) -> tuple[float, float]:
    pooled = np.concatenate(values)
    return float(np.percentile(pooled, 50)), float(np.percentile(pooled, 99))


def compare(
    run: RunDirectory,
    truth: dict[str, dict[str, Any]],
    streams: int,
    rate: int,
    raw_us: float,
    served_s: float = math.nan,
) -> Row:
    turns = measured(run)
    tokens = max(
        sum(turn.output_tokens or 0 for turn in run.turns()), 1
    )  # as the server's CPU: the whole run's
    name = run.manifest.settings["clock"]
    true = [truth[f"{t.run}/{t.conversation}/{t.turn}/{t.attempt}"] for t in turns]
    ttft = percentiles([np.array([t.event_us[0] for t in turns]) / 1e3])
    ttft_true = percentiles([np.array([e["event_ns"][0] - e["received_ns"] for e in true]) / 1e6])
    itl = percentiles([np.diff(t.event_us) / 1e3 for t in turns])
    itl_true = percentiles([np.diff(e["event_ns"]) / 1e6 for e in true])
    coalesced = sum(t.coalesced for t in turns) / sum(len(t.event_us) for t in turns)
    return Row(streams, rate, name, len(turns), ttft[0], ttft_true[0], ttft[1], ttft_true[1], itl[0],
               itl_true[0], itl[1], itl_true[1], coalesced, engine_cpu_us(run), raw_us,
               served_s / tokens * 1e6)  # fmt: skip


def engine_cpu_us(run: RunDirectory) -> float:
    """CPU microseconds of the engine per token, both within the window, from health line to health line.

    What a run does once, such as opening its connections, is left out: it is the less a token the longer one
    measures.
    """
    level, lines = run.manifest.levels[0], list(run.health())
    start, end = level.window_start_ns or 0, level.window_end_ns or 0
    lines = lines[max(bisect_right([line.t_ns for line in lines], start) - 1, 0) :]
    lines = lines[: bisect_right([line.t_ns for line in lines], end)]
    cpu_s = sum((b.cpu_share or 0.0) * (b.t_ns - a.t_ns) / 1e9 for a, b in pairwise(lines))
    at_ns = np.concatenate([np.array(t.event_us) * 1000 + (t.sent_ns or 0) for t in run.turns()])
    return cpu_s / int(((at_ns > lines[0].t_ns) & (at_ns <= lines[-1].t_ns)).sum()) * 1e6


def raw_cpu_us(url: str, streams: int, seconds: float, tokens: int) -> float:
    """CPU microseconds per token of the raw client, which knows no TLS: not a number there."""
    if url.startswith("https:"):
        return math.nan
    host, port = url.removeprefix("http://").split(":")
    said = subprocess.run(
        ["taskset", "-c", CLIENT_CORE, sys.executable, "-m", "benchmarks.raw_client", host, port]
        + [str(streams), str(tokens), f"{seconds:g}"],
        check=True,
        capture_output=True,
        text=True,
    )
    return float(json.loads(said.stdout)["cpu_us_per_token"])


def show(rows: list[Row], console: Console) -> None:
    table = Table(title="Measured beside true (ms), one core for the client", box=None, pad_edge=False)
    for name in ("streams", "tok/s", "clock", "turns", "TTFT p50", "true", "TTFT p99", "true", "ITL p50",
                 "true", "ITL p99", "true", "coalesced", "CPU us/tok", "x raw", "tok/s a core",
                 "server us/tok"):  # fmt: skip
        table.add_column(name, justify="right")
    for r in rows:
        times = (r.ttft_p50, r.ttft_p50_true, r.ttft_p99, r.ttft_p99_true, r.itl_p50, r.itl_p50_true,
                 r.itl_p99, r.itl_p99_true)  # fmt: skip
        table.add_row(str(r.streams), str(r.streams * r.rate), r.clock, str(r.turns),
                      *(f"{ms:.2f}" for ms in times), f"{r.coalesced:.2%}", f"{r.cpu_us:.1f}",
                      f"{r.cpu_us / r.raw_cpu_us:.2f}", f"{1e6 / r.cpu_us:,.0f}",
                      f"{r.server_cpu_us:.1f}")  # fmt: skip
    console.print(table)


def promises(rows: list[Row], busy: bool = False) -> list[str]:
    """What wire and kernel clock are held to, and by how much they missed; empty if they kept everything.

    Beside a busy loop only the wire clock is: tokens that come while the client waits share a read.
    With --repeats the median miss of each figure counts: a shared machine is disturbed now and then.
    """
    misses: dict[tuple[str, int, str, float], list[float]] = {}
    for r in rows:
        ttft = r.ttft_p50 - r.ttft_p50_true, r.ttft_p99 - r.ttft_p99_true
        gaps = r.itl_p50 - r.itl_p50_true, r.itl_p99 - r.itl_p99_true
        if r.clock == "wire":
            limits = {"TTFT p50": (ttft[0], 0.1), "TTFT p99": (ttft[1], 1.0), "ITL p50": (gaps[0], 0.02),
                      "ITL p99": (gaps[1], 0.5)}  # fmt: skip
        elif r.clock == "kernel" and not busy:
            limits = {"TTFT p50": (ttft[0], 0.5), "TTFT p99": (ttft[1], 15.0 if r.streams == 800 else 5.0),
                      "CPU per token over the raw client's": (r.cpu_us / r.raw_cpu_us, 3.0)}  # fmt: skip
            if r.streams == 400:
                limits |= {"ITL p50": (gaps[0], 0.05), "ITL p99": (gaps[1], 1.0)}
        else:
            continue
        for what, (off, limit) in limits.items():
            misses.setdefault((r.clock, r.streams, what, limit), []).append(off)
    return [
        f"{clock} clock, {streams} streams: {what} off by {median(offs):.2f}, allowed {limit:g}"
        for (clock, streams, what, limit), offs in misses.items()
        if abs(median(offs)) > limit
    ]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=12.0, help="length of each window")
    parser.add_argument("--repeats", type=int, default=1, help="times that each load is played")
    parser.add_argument("--again", type=int, default=2, help="times that a disturbed run is played again")
    parser.add_argument("--only", type=int, help="only the load with this many streams")
    parser.add_argument("--tokens", type=int, default=TOKENS, help="tokens of each answer (%(default)s)")
    parser.add_argument("--tls", action="store_true", help="over TLS, whose ends packets don't show")
    parser.add_argument("--busy", action="store_true", help="with a busy loop on the client's core")
    parser.add_argument("--clocks", default="wire,kernel,user", help="the clocks to run (%(default)s)")
    options = parser.parse_args()
    console = Console(width=int(os.environ.get("COLUMNS", "170")))
    rows = []
    limit = math.inf if options.busy else DISTURBED
    loads = [load for load in LOADS if options.only in (None, load[0])]
    for streams, rate in loads * options.repeats:
        with tempfile.TemporaryDirectory() as name:
            server = Emulator(Path(name), rate, options.tls)
            loop = "while True: pass" if options.busy else ""
            busy = subprocess.Popen(["taskset", "-c", CLIENT_CORE, sys.executable, "-c", loop])
            try:
                raw_us = raw_cpu_us(server.url, streams, options.seconds, options.tokens)
                played = [
                    undisturbed(server, streams, clock, Path(name), options, limit)
                    for clock in options.clocks.split(",")
                ]
            finally:
                said = server.stop()
                busy.kill()
                busy.wait()
            console.print(f"{streams} x {rate}/s, the server on itself: {said}")
            console.print("\n".join(what for _, _, what in played))
            truth = truth_of(server.truth)
            rows += [compare(run, truth, streams, rate, raw_us, served_s) for run, served_s, _ in played]
    show(rows, console)
    broken = promises(rows, options.busy)
    console.print("\n".join(broken) or "every promise kept")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())

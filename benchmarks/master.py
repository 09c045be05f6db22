"""How many records a second does a master carry? Workers that send them at rising rates, and make no load.

    python -m benchmarks.master [--workers 2] [--tokens 256] [--rates 250,500,1000,...] [--step 6]

The master has one core, the workers another. A record is one of a real run with that many tokens an answer.
At each rate: CPU of both cores, what the master wrote, and how far the records on disk are behind those that
were sent. Files are flushed once a second, so a second behind is none; more is a queue that grows: at the
master if its core is full, else at the workers.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

from benchmarks.clock import CLIENT_CORE, SERVER_CORE, Emulator, run_client
from benchmarks.disturbance import account

PORT = 15917
PEOPLE = 4
FULL = 1.5
"""Seconds behind from which on a queue grows: a batch is 0.25 s old, a flush 1 s."""


def records(tokens: int, folder: Path) -> Path:
    """Records of a real run with answers of this many tokens."""
    server = Emulator(folder, 1000)
    try:
        run = run_client(server.url, 8, "auto", 3, folder, tokens)
    finally:
        server.stop()
    found = [line for path in run.path.glob("turns-*.jsonl") for line in path.read_bytes().splitlines()]
    at = folder / "records.jsonl"
    at.write_bytes(b"\n".join(line for line in found if b'"outcome":"ok"' in line))
    return at


def play(workers: int, rates: list[float], step_s: float, lines: Path, folder: Path) -> list[list[str]]:
    """A row for each rate."""
    sent = folder / "sent"
    sent.mkdir()
    server = Emulator(folder, 1000)
    environment = os.environ | {
        "RECORDS_PER_S": ",".join(f"{rate / workers:g}" for rate in rates),
        "STEP_S": f"{step_s:g}",
        "RECORDS": str(lines),
        "SENT": str(sent),
    }
    locust = [sys.executable, "-m", "locust"]
    master = ["taskset", "-c", CLIENT_CORE, *locust, "-f", "loadgen/", "--headless", "--master"]
    master += ["--master-bind-port", str(PORT), "--expect-workers", str(workers), "-H", server.url]
    master += ["-u", str(max(PEOPLE, workers)), "-r", "1000", "-t", f"{len(rates) * step_s + 5:g}s"]
    master += ["--warmup", "0s", "--drain", "1s", "--run-dir", str(folder / "run"), "--no-analysis"]
    worker = ["taskset", "-c", SERVER_CORE, *locust, "-f", "benchmarks/record_source.py", "--worker"]
    worker += ["--master-port", str(PORT)]
    nothing = subprocess.DEVNULL
    directing = subprocess.Popen(master, stdout=nothing, stderr=nothing)
    sending = [
        subprocess.Popen(worker, env=environment, stdout=nothing, stderr=nothing) for _ in range(workers)
    ]
    watched = [psutil.Process(process.pid) for process in (directing, *sending)]
    try:
        return look(watched[0], watched[1:], sent, folder / "run", rates, step_s, lines)
    finally:
        directing.wait(60)
        for process in sending:
            process.wait(20)
        server.stop()


def look(
    master: psutil.Process,
    workers: list[psutil.Process],
    sent: Path,
    run: Path,
    rates: list[float],
    step_s: float,
    lines: Path,
) -> list[list[str]]:
    """Look at each step's last two thirds."""
    sizes = [len(line) + 1 for line in lines.read_bytes().splitlines()]
    line_bytes = sum(sizes) / len(sizes)

    def counts() -> tuple[float, float]:
        """Now: records sent, records on disk."""
        written = sum(path.stat().st_size for path in run.glob("turns-*.jsonl")) / line_bytes
        return sum(int(path.read_bytes() or 0) for path in sent.iterdir()), written

    def cpu_s(processes: list[psutil.Process]) -> float:
        return sum(sum(process.cpu_times()[:2]) for process in processes)

    while len(list(sent.iterdir())) < len(workers):
        time.sleep(0.01)
    began_s, rows = time.monotonic(), []
    for number, rate in enumerate(rates):
        time.sleep(max(began_s + (number + 1 / 3) * step_s - time.monotonic(), 0))
        at_s, before, cpu = time.monotonic(), counts(), (cpu_s([master]), cpu_s(workers))
        behind_s = []
        while time.monotonic() < began_s + (number + 1) * step_s - 0.05:
            time.sleep(0.1)
            now = counts()
            behind_s.append((now[0] - now[1]) / rate)
        took_s, after = time.monotonic() - at_s, counts()
        used = [(cpu_s([master]) - cpu[0]) / took_s, (cpu_s(workers) - cpu[1]) / took_s]
        per_s, written_per_s = ((b - a) / took_s for a, b in zip(before, after, strict=True))
        rows.append(
            [f"{per_s:.0f}", f"{per_s * line_bytes / 1e6:.1f}", f"{written_per_s:.0f}"]
            + [f"{used[0]:.0%}", f"{used[1]:.0%}", f"{max(behind_s):.1f}"]
            + ["queue grows" if max(behind_s) > FULL else ""]
        )
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--rates", default="250,500,1000,2000,3000,4000,6000")
    parser.add_argument("--step", type=float, default=6.0)
    given = parser.parse_args()
    rates = [float(rate) for rate in given.rates.split(",")]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lines = records(given.tokens, folder)
        (folder / "of").mkdir()
        before = account(os.getpid())
        rows = play(given.workers, rates, given.step, lines, folder / "of")
        after = account(os.getpid())
        size = lines.stat().st_size / len(lines.read_bytes().splitlines())
    table = Table(title=f"{given.workers} workers, records of {given.tokens} tokens, {size:.0f} bytes each")
    for head in ("sent/s", "MB/s", "written/s", "master's core", "workers' core", "behind s", ""):
        table.add_column(head, justify="right")
    for row in rows:
        table.add_row(*row)
    Console(width=100).print(table)
    print(f"stolen from both cores: {after.steal_s - before.steal_s:.1f} s")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

"""How many streams can one emulator process keep on time? 2,000 of them at 20 tokens a second each.

    python -m benchmarks.capacity [--only fixed] [--nap-ms 0] [--streams 2000] [--seconds 15] [--again 2]

The emulator has one core, a client that only reads has another. Lateness is the emulator's own: when each
event was handed to the kernel, less when its schedule wanted it. CPU and memory are the kernel's account.
The roofline's scheduler gets its steps from `capacity.yaml`: no GPU of the catalogue gives 20 tokens/s to
each of 2,000 streams.

A client that sleeps is woken for every event, which costs the server too; one that naps looks at its sockets
every so often, as one that is busy does. A run from which the host took more than 1 % of a core is disturbed,
and played again by that account alone.
"""

from __future__ import annotations

import argparse
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.disturbance import DISTURBED, stolen_s

SERVER_CORE, CLIENT_CORE = "0", "1"
TOKENS = 200
TOKENS_PER_S = 20
LATENESS_P99_MS = 10.0
MEMORY_MB = 500.0
SCHEDULES = {
    "fixed": ("--schedule", "fixed", "--ttft", "100ms", "--itl", f"{1000 // TOKENS_PER_S}ms"),
    "roofline": ("--model", "yi-6b", "--calibration", str(Path(__file__).with_name("capacity.yaml"))),
}
LATENESS = re.compile(r"lateness: (\d+) events sent, p50 ([\d.]+) ms, p99 ([\d.]+) ms")


@dataclass(frozen=True)
class ScheduleRow:
    """One schedule under the whole load. `events_per_s`: while all streams were open."""

    schedule: str
    streams: int
    events: int
    events_per_s: float
    late_p50_ms: float
    late_p99_ms: float
    cpu_us: float
    peak_mb: float
    stolen: float
    """Share of a core that the host of this virtual machine gave to others meanwhile."""

    def broken(self) -> list[str]:
        """What was promised and not kept, in words."""
        found = []
        if self.late_p99_ms >= LATENESS_P99_MS:
            found.append(
                f"{self.schedule}: lateness p99 {self.late_p99_ms:.2f} ms, allowed {LATENESS_P99_MS:g}"
            )
        if self.peak_mb >= MEMORY_MB:
            found.append(f"{self.schedule}: {self.peak_mb:.0f} MB of memory, allowed {MEMORY_MB:g}")
        if self.events_per_s < 0.95 * self.streams * TOKENS_PER_S:
            wanted = self.streams * TOKENS_PER_S
            found.append(
                f"{self.schedule}: {self.events_per_s:.0f} events/s of the {wanted} that were asked for"
            )
        return found


@contextmanager
def emulator(options: tuple[str, ...]) -> Iterator[tuple[psutil.Process, str, list[str]]]:
    """The process on its core, its URL, and after the end what it said."""
    command = ["taskset", "-c", SERVER_CORE, sys.executable, "-m", "serve.emulator", "--port", "0", *options]
    said: list[str] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            url = process.stdout.readline().removeprefix("ready: ").strip()
            yield psutil.Process(process.pid), url, said
        finally:
            process.send_signal(signal.SIGTERM)
            said.append(process.stdout.read())


def peak_mb(pid: int) -> float:
    """The most memory that the process ever held."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def made(url: str) -> float:
    """Tokens that the emulator has made so far."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=30) as answer:
        lines = answer.read().decode().splitlines()
    return next(float(x.rsplit(" ", 1)[1]) for x in lines if x.startswith("vllm:generation_tokens_total{"))


def load(url: str, streams: int, seconds: float, nap_ms: float) -> float:
    """Play the whole load; events per second while all streams were open."""
    host, port = url.removeprefix("http://").split(":")
    ramp_s = TOKENS / TOKENS_PER_S
    command = ["taskset", "-c", CLIENT_CORE, sys.executable, "-m", "benchmarks.raw_client", host, port]
    command += [str(streams), str(TOKENS), f"{ramp_s + seconds:g}", f"{ramp_s:g}", f"{nap_ms / 1000:g}"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as client:
        time.sleep(ramp_s + 1)
        began, before = time.monotonic(), made(url)
        time.sleep(seconds - 1)
        rate = (made(url) - before) / (time.monotonic() - began)
    if client.returncode:
        raise SystemExit("the client failed")
    return rate


def measure(schedule: str, streams: int, seconds: float, nap_ms: float) -> ScheduleRow:
    with emulator(SCHEDULES[schedule]) as (process, url, said):
        before, began, taken_s = process.cpu_times(), time.monotonic(), stolen_s()
        rate = load(url, streams, seconds, nap_ms)
        after = process.cpu_times()
        stolen = (stolen_s() - taken_s) / (time.monotonic() - began)
        peak = peak_mb(process.pid)
    found = LATENESS.match(said[0])
    if found is None:
        raise SystemExit(f"the emulator did not tell its lateness: {said[0]!r}")
    events, p50, p99 = int(found[1]), float(found[2]), float(found[3])
    cpu_s = after.user + after.system - before.user - before.system
    return ScheduleRow(schedule, streams, events, rate, p50, p99, cpu_s / events * 1e6, peak, stolen)


def show(row: ScheduleRow) -> str:
    return (
        f"{row.schedule:9} {row.streams} streams, {row.events_per_s:.0f} events/s: lateness p50 "
        f"{row.late_p50_ms:.2f} ms, p99 {row.late_p99_ms:.2f} ms; {row.cpu_us:.1f} us CPU an event; "
        f"{row.peak_mb:.0f} MB at most; the host took {row.stolen:.1%} of a core"
    )


def undisturbed(schedule: str, options: argparse.Namespace) -> ScheduleRow:
    """A run from which the host took little, the last of `again` more if there is none."""
    for _ in range(options.again + 1):
        row = measure(schedule, options.streams, options.seconds, options.nap_ms)
        print(show(row), flush=True)
        if row.stolen <= DISTURBED:
            break
    return row


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--streams", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=15.0, help="how long answers are asked for")
    parser.add_argument("--only", choices=sorted(SCHEDULES))
    parser.add_argument("--nap-ms", type=float, default=0.0, help="how long the client does not look")
    parser.add_argument("--again", type=int, default=2, help="times that a disturbed run is played again")
    options = parser.parse_args()
    broken: list[str] = []
    for schedule in SCHEDULES:
        if options.only in (None, schedule):
            row = undisturbed(schedule, options)
            broken += row.broken()
    print("\n".join(broken) or "every promise kept")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())

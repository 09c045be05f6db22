"""Does a long run grow, and do faults of some turns move the others? 500 streams, every fault of one request.

    python -m benchmarks.soak [--minutes 30] [--streams 500] [--share 0.002] [--plot soak.svg]

An emulator and a client, a core each. Each fault that an emulator can cause in one request happens in this
share of the requests; a second run, a sixth as long, has none. Printed: what became of the turns, the memory
and the open descriptors of the engine and of Locust, their slope (least squares over means of half a minute,
without the first fifth, with its 95 % interval), and what `turnbench compare` says of the medians.

Exit 1 if memory or descriptors grow (by over 2 % an hour, with an interval that excludes 0; judged from
ten minutes on), if the ledger has a hole, or if a median moved. Where an interval holds both 0 and more than
2 % an hour, that is said: a longer run tells.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
from scipy import stats

from benchmarks.clock import CLIENT_CORE, SERVER_CORE
from turnbench.run_directory import RunDirectory, read_run

OF_ONE_REQUEST = (
    "status, status: 429, retry_after_s: 3600",
    "status, status: 503, body_bytes: 1048576",
    "html",
    "redirect",
    "reset",
    "eof",
    "eof, end: connection",
    "hang",
    "drip, gap: 500ms",
    "endless, gap: 20ms",
    "split, bytes: 7",
    "coalesce",
    "gzip",
    "cr",
    "multi_line",
    "bad_json",
    "error_event",
    "oversized",
    "empty",
    "usage_absent",
    "usage_wrong",
    "reasoning_only",
)
"""Each as in a file of faults; `die` and `freeze` are about the whole server."""
STEP_S = 30.0
WARMING_SHARE = 0.2
JUDGED_FROM_S = 600.0
GROWTH_PER_HOUR_MAX = 0.02
Points = list[tuple[float, float]]
"""Seconds, and a value."""


@dataclass
class Memory(threading.Thread):
    """Resident memory and descriptors of Locust, once a second until it ends."""

    process: psutil.Process
    rss_mb: Points = field(default_factory=list)
    files: Points = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(daemon=True)

    __hash__ = threading.Thread.__hash__

    def run(self) -> None:
        begun = time.monotonic()
        try:
            while self.process.status() != psutil.STATUS_ZOMBIE:
                at_s = time.monotonic() - begun
                self.rss_mb.append((at_s, self.process.memory_info().rss / 1e6))
                self.files.append((at_s, float(self.process.num_fds())))
                time.sleep(1)
        except psutil.NoSuchProcess:
            return


@dataclass(frozen=True)
class Slope:
    """How a value grows in an hour, with its 95 % interval."""

    mean: float
    per_hour: float
    low: float
    high: float

    @property
    def grows(self) -> bool:
        return self.low > 0 and self.per_hour > self._limit_per_hour

    @property
    def may_grow(self) -> bool:
        """Whether the interval leaves open if it stands still or grows too much."""
        return not self.grows and self.low <= self._limit_per_hour < self.high

    @property
    def _limit_per_hour(self) -> float:
        return GROWTH_PER_HOUR_MAX * self.mean


def slope(points: Points) -> Slope | None:
    """Least squares over means of STEP_S, without the time in which things fill; None: too short.

    What malloc keeps of a long answer stays for a while, so that neighbours are alike and count for less than
    as many values would: n (1 - r) / (1 + r), with r the correlation at lag 1 (Santer et al. 2000,
    doi:10.1029/1999JD901105) of what is left beside a parabola, since a curve is no noise.
    """
    last_s = max((at_s for at_s, _ in points), default=0.0)
    steps: dict[int, list[float]] = {}
    for at_s, value in points:
        if at_s >= WARMING_SHARE * last_s:
            steps.setdefault(int(at_s / STEP_S), []).append(value)
    if len(steps) < 4:
        return None
    hours = np.array(list(steps)) * STEP_S / 3600
    means = np.array([np.mean(values) for values in steps.values()])
    if not np.ptp(means):  # a line through these has no error to speak of
        return Slope(float(means[0]), 0.0, 0.0, 0.0)
    line = stats.linregress(hours, means)
    noise = means - np.polynomial.Polynomial.fit(hours, means, 2)(hours)
    alike = 0.0
    if np.ptp(noise) > 1e-9 * np.ptp(means):
        alike = max(float(noise[1:] @ noise[:-1] / (noise @ noise)), 0.0)
    count = max(len(steps) * (1 - alike) / (1 + alike), 3.0)
    half = float(stats.t.ppf(0.975, count - 2) * line.stderr * np.sqrt((len(steps) - 2) / (count - 2)))
    return Slope(float(np.mean(means)), float(line.slope), float(line.slope) - half, float(line.slope) + half)


def play(folder: Path, name: str, streams: int, seconds: float, share: float) -> tuple[RunDirectory, Memory]:
    """One run; with a share, of that share of each fault."""
    command = ["taskset", "-c", SERVER_CORE, sys.executable, "-m", "serve.emulator", "--port", "0"]
    command += ["--schedule", "fixed", "--ttft", "300ms", "--itl", "100ms", "--max-num-seqs", "4096"]
    if share:
        faults = "".join(f"  - {{fault: {each}, rate: {share:g}}}\n" for each in OF_ONE_REQUEST)
        (folder / "faults.yaml").write_text(
            f"format: turnbench-faults/1\nfaults:\n{faults}", encoding="utf-8"
        )
        command += ["--faults", str(folder / "faults.yaml")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        url = server.stdout.readline().removeprefix("ready: ").strip()
        load = ["taskset", "-c", CLIENT_CORE, sys.executable, "-m", "locust", "-f", "loadgen/", "--headless"]
        load += ["-H", url, "--scenario", "explain", "--levels", str(streams), "-r", "50"]
        load += ["--hold", f"{seconds:g}s", "--exact-tokens", "--max-tokens", "100", "--no-analysis"]
        load += ["--idle-timeout", "10s", "--deadline", "40s", "--run-dir", str(folder / name)]
        with subprocess.Popen(load, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as locust:
            memory = Memory(psutil.Process(locust.pid))
            memory.start()
            _, said = locust.communicate()
        server.send_signal(signal.SIGTERM)
        server.communicate()
    if not (folder / name / "run.json").exists():
        raise SystemExit(f"the run did not start:\n{said}")
    return read_run(folder / name), memory


def plotted(series: dict[str, Points]) -> str:
    """The series as SVG, each on its own scale from 0 to a quarter above its highest value."""
    width, height, left = 760, 130, 130
    parts = []
    for row, (name, points) in enumerate(series.items()):
        top, last_s = 1.25 * max(v for _, v in points), max(at_s for at_s, _ in points)
        y0 = row * (height + 30) + height + 10
        path = " ".join(
            f"{left + at_s / last_s * (width - left - 10):.1f},{y0 - value / top * height:.1f}"
            for at_s, value in points[:: max(1, len(points) // 600)]
        )
        parts.append(
            f'<polyline points="{path}" fill="none" stroke="#0072b2" stroke-width="1.5"/>'
            f'<path d="M{left} {y0 - height}V{y0}H{width - 10}" fill="none" stroke="#888"/>'
            f'<text x="4" y="{y0 - height / 2:.0f}">{name}</text>'
            f'<text x="{left - 6}" y="{y0 - height + 12}" text-anchor="end">{top:.0f}</text>'
            f'<text x="{left - 6}" y="{y0}" text-anchor="end">0</text>'
            f'<text x="{width - 10}" y="{y0 + 16}" text-anchor="end">{last_s / 60:.0f} min</text>'
        )
    size = f'width="{width}" height="{len(series) * (height + 30) + 10}"'
    style = "<style>text{font:12px sans-serif;fill:#555}</style>"
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>{style}{"".join(parts)}</svg>\n'


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--streams", type=int, default=500)
    parser.add_argument("--share", type=float, default=0.002, help="of requests, for each fault (0.002)")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="write the series as SVG")
    options = parser.parse_args()
    seconds, wrong, unsure = options.minutes * 60, [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run, memory = play(folder, "faulty", options.streams, seconds, options.share)
        play(folder, "healthy", options.streams, max(seconds / 6, 20), 0)
        health = [line for line in run.health() if line.rss_mb is not None]
        begun_ns = health[0].t_ns
        series = {
            "engine MB": [((h.t_ns - begun_ns) / 1e9, h.rss_mb or 0.0) for h in health],
            "engine files": [((h.t_ns - begun_ns) / 1e9, float(h.files or 0)) for h in health],
            "Locust MB": memory.rss_mb,
            "Locust files": memory.files,
        }
        turns = Counter(turn.outcome for turn in run.turns())
        print(f"{options.streams} streams, {seconds / 60:g} min, {options.share:.1%} of each of "
              f"{len(OF_ONE_REQUEST)} faults: {turns.total()} turns")  # fmt: skip
        print("  " + ", ".join(f"{outcome} {count}" for outcome, count in turns.most_common()))
        last = health[-1]
        if (last.begun or 0) != (last.finished or 0) or (last.finished or 0) != turns.total():
            wrong.append(f"the ledger: {last.begun} begun, {last.finished} finished, {turns.total()} records")
        for what, points in series.items():
            if (found := slope(points)) is None:
                print(f"  {what:<13} too short for a slope; {points[0][1]:.0f} to {points[-1][1]:.0f}")
                continue
            print(
                f"  {what:<13} mean {found.mean:7.1f}, {found.per_hour:+8.2f} an hour "
                f"[{found.low:+.2f}, {found.high:+.2f}]"
            )
            if found.grows and seconds >= JUDGED_FROM_S:
                wrong.append(f"{what} grows")
            elif found.may_grow:
                unsure.append(f"{what} may grow by more than {GROWTH_PER_HOUR_MAX:.0%} an hour or not")
        compare = [sys.executable, "-m", "analysis", str(folder / "faulty"), "--compare"]
        subprocess.run([*compare, str(folder / "healthy"), "--single"], capture_output=True, check=False)
        for change in json.loads((folder / "faulty" / "compare.json").read_bytes())["changes"]:
            low, high = change["ci"]
            interval = "open" if low is None or high is None else f"[{low:.3f}, {high:.3f}]"
            a_ms, b_ms, ratio = (change[key] or 0 for key in ("a_ms", "b_ms", "ratio"))
            print(f"  {change['metric']:<13} {a_ms:.1f} ms with faults, {b_ms:.1f} ms without: "
                  f"{ratio:.3f} {interval} {change['verdict']}")  # fmt: skip
            wrong += [f"{change['metric']} moved"] if change["verdict"] in ("worse", "better") else []
        if options.plot:
            options.plot.write_text(plotted(series), encoding="utf-8")
    print("; ".join(wrong + unsure) or "flat, and the turns without a fault are where they were")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

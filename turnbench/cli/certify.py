"""`turnbench certify`: what this client adds to the times it measures, and up to which load.

Without a server it plays against the bundled fixed schedule, which logs when each event really left: measured
beside true, at more and more streams, until the client no longer keeps up. With `-H URL` it watches a real
server with two clocks at once: the packets, and the kernel's stamps of its own reads.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from turnbench import exits
from turnbench.command_line import CommandParser
from turnbench.formats import TurnRecord
from turnbench.run_directory import RunDirectory, RunError, read_run

_TTFT_MS, _RATE_PER_S, _TOKENS = 100, 50, 100
_STREAMS = "1,25,50,100,200,400,800"
_MOST_ADDED_MS = 1.0
"""A p99 that the client may add to a TTFT or a gap and still be certified."""


@dataclass(frozen=True)
class Certificate:
    """What the client added at one load; milliseconds, and shares."""

    streams: int
    tokens_per_s: float
    clock: str
    turns: int
    ttft_added_p50_ms: float
    ttft_added_p99_ms: float
    gap_added_p99_ms: float
    late_p99_ms: float
    late_share: float
    """Of the time, that which passed between an answer's end and the next request."""
    coalesced_share: float
    engine_cpu_share: float

    @property
    def holds(self) -> bool:
        return not self.misses

    @property
    def misses(self) -> list[str]:
        """Why it is not certified, a sentence's part each."""
        from analysis.checks.client import SUSPECT_LATE_SHARE

        added = {"TTFT": self.ttft_added_p99_ms, "gaps": self.gap_added_p99_ms}
        off = [
            f"{what} off by {abs(ms):.2f} ms at p99 (at most {_MOST_ADDED_MS:g})"
            for what, ms in added.items()
            if abs(ms) > _MOST_ADDED_MS
        ]
        if self.late_share > SUSPECT_LATE_SHARE:
            limit = f"(at most {SUSPECT_LATE_SHARE:.0%}), so the load was lower than asked"
            off.append(f"next turns were late for {self.late_share:.2%} of the time {limit}")
        return off


def command_parser(prog: str) -> CommandParser:
    """Only how to print it."""
    parser = CommandParser(
        prog=prog,
        description=(__doc__ or "").splitlines()[0].partition(": ")[2],
        example=f"{prog} --streams 10,100,400",
    )
    add = parser.add_argument
    add("-H", "--host", metavar="URL", help="watch this server with two clocks, instead of the bundled one")
    add("--streams", metavar="LIST", default=_STREAMS, help="people at once, level by level (%(default)s)")
    add("--seconds", type=float, default=6.0, metavar="S", help="how long each is measured (%(default)g)")
    add("--clock", choices=("auto", "wire", "kernel", "user"), default="auto", help="(%(default)s)")
    add("--json", action="store_true", help="one JSON object")
    return parser


def main(arguments: list[str], prog: str = "turnbench certify") -> int:
    """0 if the first load is certified; 3 if not, or if nothing could be measured."""
    parser = command_parser(prog)
    given = parser.parse_args(arguments)
    try:
        levels = [int(part) for part in given.streams.split(",")]
    except ValueError:
        parser.error(f"--streams {given.streams!r}: write whole numbers such as 10,100,400")
    if min(levels) < 1 or given.seconds <= 0:
        parser.error("--streams and --seconds are more than 0")
    try:
        with tempfile.TemporaryDirectory(prefix="turnbench-certify-") as name:
            if given.host:
                return _watch(given, levels[0], Path(name))
            return _against_schedule(given, levels, Path(name))
    except (RunError, _NoRun) as error:
        print(f"{prog}: {error}", file=sys.stderr)
        return exits.INVALID


class _NoRun(Exception):
    """A run that did not begin; the text says why."""


def _against_schedule(given: Any, levels: list[int], folder: Path) -> int:
    found: list[Certificate] = []
    if not given.json:
        print(
            "streams  tokens/s   clock  turns  TTFT +p50   +p99  gaps +p99  late p99  of time  coalesced  CPU"
        )
    for streams in levels:
        with _server(folder / f"truth-{streams}.jsonl") as url:
            run = _play(given, url, streams, folder / f"run-{streams}", "--exact-tokens", "--max-tokens",
                        str(_TOKENS))  # fmt: skip
        found.append(_certificate(run, streams, folder / f"truth-{streams}.jsonl"))
        if not given.json:
            print(_line(found[-1]), flush=True)
        if not found[-1].holds:
            break
    held = [each for each in found if each.holds]
    if given.json:
        levels_found = [asdict(each) | {"misses": each.misses} for each in found]
        print(
            json.dumps(
                {"certified_streams": held[-1].streams if held else 0, "levels": levels_found}, indent=2
            )
        )
    else:
        _conclude(held, found[-1])
    return exits.OK if held else exits.INVALID


def _conclude(held: list[Certificate], last: Certificate) -> None:
    if held:
        print(
            f"certified up to {held[-1].streams} streams ({held[-1].tokens_per_s:,.0f} tokens/s) an engine: "
            f"at most {_MOST_ADDED_MS:g} ms added at p99"
        )
    if not last.holds:
        print(f"not at {last.streams}: {'; '.join(last.misses)}")
        others = "use more engines (--processes N), or more machines"
        print(others if held else "see `turnbench doctor`, and what else runs on this machine")


def _watch(given: Any, streams: int, folder: Path) -> int:
    """A real server: nobody knows the truth, but two clocks see the same stream."""
    run = _play(given, given.host, streams, folder / "run")
    turns = [turn for turn in run.turns() if turn.outcome == "ok"]
    if not turns:
        raise _NoRun(f"no turn was answered at {given.host}")
    seen = [turn.read_after_us / 1e3 for turn in turns if turn.read_after_us is not None]
    late = [
        (turn.write_ns - turn.sent_ns) / 1e6
        for turn in turns
        if turn.sent_clock == "tx" and turn.write_ns is not None and turn.sent_ns is not None
    ]
    clocks = {name: sum(turn.clock == name for turn in turns) for name in ("wire", "kernel", "user")}
    result = {
        "turns": len(turns),
        "turns_by_clock": {name: count for name, count in clocks.items() if count},
        "read_after_packet_p50_ms": _quantile(seen, 0.5),
        "read_after_packet_p99_ms": _quantile(seen, 0.99),
        "sent_by_kernel_share": len(late) / len(turns),
        "write_after_sent_p50_ms": _quantile(late, 0.5),
        "write_after_sent_p99_ms": _quantile(late, 0.99),
    }
    if given.json:
        print(json.dumps(result, indent=2))
        return exits.OK
    print(f"{len(turns)} turns at {streams} streams; timed by: {result['turns_by_clock']}")
    if seen:
        print(
            f"first tokens were read {result['read_after_packet_p50_ms']:.3f} ms (p50), "
            f"{result['read_after_packet_p99_ms']:.3f} ms (p99) after their packets; "
            "the kernel clock would add that"
        )
    else:
        print("no turn was timed by its packets: see `turnbench doctor` for what the wire clock needs")
    if late:
        print(
            f"requests had left {result['write_after_sent_p50_ms']:.3f} ms (p50), "
            f"{result['write_after_sent_p99_ms']:.3f} ms (p99) before the client's own call returned"
        )
    return exits.OK


@contextmanager
def _server(truth: Path) -> Iterator[str]:
    """The bundled fixed schedule, on a core of its own where there are two."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "serve.emulator", "--schedule", "fixed", "--port", "0"]
        + ["--ttft", f"{_TTFT_MS}ms", "--itl", f"{1000 / _RATE_PER_S:g}ms", "--truth", str(truth)]
        + ["--max-num-seqs", "4096"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        preexec_fn=_on_core(0),
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line.startswith("ready: "):
            raise _NoRun("the bundled server did not start: try `python -m serve.emulator`")
        yield line.removeprefix("ready: ").strip()
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)


def _play(given: Any, url: str, streams: int, where: Path, *options: str) -> RunDirectory:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "turnbench", "run", "-H", url, "--scenario", "explain"]
        + ["--levels", str(streams), "--hold", f"{given.seconds:g}s", "--warmup", "2s", *options]
        + ["--clock", given.clock, "--no-analysis", "--run-dir", str(where)],
        check=False,
        capture_output=True,
        text=True,
        preexec_fn=_on_core(1),
    )
    if not (where / "run.json").exists():
        said = done.stderr.strip().splitlines()
        raise _NoRun(said[-1] if said else f"the run did not begin (exit code {done.returncode})")
    return read_run(where)


def _on_core(number: int) -> Any:
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if len(cores) < 2:
        return None
    return lambda: os.sched_setaffinity(0, {cores[number]})


def _certificate(run: RunDirectory, streams: int, truth_path: Path) -> Certificate:
    from analysis.checks.client import late_share

    level = run.manifest.levels[0]
    start_ns, end_ns = level.window_start_ns or 0, level.window_end_ns or 0
    turns = [
        turn
        for turn in run.turns()
        if turn.outcome == "ok" and turn.sent_ns is not None and start_ns <= turn.sent_ns < end_ns
    ]
    if not turns:
        raise _NoRun(
            f"no turn was answered at {streams} streams; look at the machine with `turnbench doctor`"
        )
    with truth_path.open() as lines:
        truth = {entry["request_id"]: entry for entry in map(json.loads, lines)}
    true = [truth[f"{t.run}/{t.conversation}/{t.turn}/{t.attempt}"] for t in turns]
    ttft_ms = np.array([turn.event_us[0] / 1e3 for turn in turns])
    true_ms = np.array([(each["event_ns"][0] - each["received_ns"]) / 1e6 for each in true])
    gaps_ms = np.concatenate([np.diff(turn.event_us) / 1e3 for turn in turns])
    true_gaps_ms = np.concatenate([np.diff(each["event_ns"]) / 1e6 for each in true])
    late_ms = np.array([_late_ms(turn) for turn in turns])
    took_ms = np.array([turn.event_us[-1] / 1e3 for turn in turns])
    window = [line for line in run.health() if start_ns <= line.t_ns < end_ns]
    shares = [line.cpu_share for line in window if line.cpu_share is not None]
    return Certificate(
        streams=streams,
        tokens_per_s=sum(len(turn.event_us) for turn in turns) / ((end_ns - start_ns) / 1e9),
        clock=" and ".join(sorted({turn.clock for turn in turns})),
        turns=len(turns),
        ttft_added_p50_ms=float(np.quantile(ttft_ms, 0.5) - np.quantile(true_ms, 0.5)),
        ttft_added_p99_ms=float(np.quantile(ttft_ms, 0.99) - np.quantile(true_ms, 0.99)),
        gap_added_p99_ms=float(np.quantile(gaps_ms, 0.99) - np.quantile(true_gaps_ms, 0.99)),
        late_p99_ms=float(np.quantile(late_ms, 0.99)),
        late_share=late_share(late_ms, took_ms),
        coalesced_share=sum(turn.coalesced for turn in turns) / sum(len(turn.event_us) for turn in turns),
        engine_cpu_share=sum(shares) / len(shares) if shares else 0.0,
    )


def _late_ms(turn: TurnRecord) -> float:
    return 0.0 if turn.sent_ns is None else (turn.sent_ns - turn.due_ns) / 1e6


def _line(at: Certificate) -> str:
    return (
        f"{at.streams:7d} {at.tokens_per_s:9,.0f} {at.clock:>7} {at.turns:6d} {at.ttft_added_p50_ms:10.3f} "
        f"{at.ttft_added_p99_ms:6.3f} {at.gap_added_p99_ms:10.3f} {at.late_p99_ms:9.2f} {at.late_share:8.2%} "
        f"{at.coalesced_share:10.2%} {at.engine_cpu_share:4.0%}{'' if at.holds else '  not certified'}"
    )


def _quantile(values: list[float], share: float) -> float | None:
    return float(np.quantile(values, share)) if values else None

"""Six load generators against the same server: what each reported, beside what the server did.

    python -m benchmarks.peers [--tools turnbench,vllm] [--loads 100x100,400x100,800x50] [--seconds 12]
                               [--write docs/peers.md]

One core has the server, the other the tool with all its processes. The server is the emulator's fixed
schedule, whose truth log says when each request came and each event left. Every tool asks for the same: so
many streams, each in one request after the other, prompts of 32 tokens, answers of exactly 200. `peer_tools`
has each tool's command and reads its results.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import psutil

from benchmarks.clock import CLIENT_CORE
from benchmarks.peer_servers import PeerLoad, emulated, real
from benchmarks.peer_tools import TOOLS, AskedLoad, PeerTool, install, tokenizer_folder

_LOOK_S = 0.25
_LONGEST_S = 240.0
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
QUIET = {
    "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1",
    "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false",
}  # fmt: skip


class PeerRow(msgspec.Struct, kw_only=True):
    """One tool under one load; times in milliseconds. What a tool does not say is null."""

    tool: str
    version: str
    date: str
    server: str
    streams: int
    tokens_per_s_each: int | None
    """The rate that the server keeps; a real one keeps none."""
    output_tokens: int
    requests: int
    other_lengths: int = 0
    """Answers of another length than was asked for."""
    problem: str | None = None
    """Why there are no numbers."""
    ttft_p50: float | None = None
    ttft_p99: float | None = None
    gap_p50: float | None = None
    gap_p99: float | None = None
    tokens_per_s: float | None = None
    ttft_p50_true: float | None = None
    ttft_p99_true: float | None = None
    gap_p50_true: float | None = None
    gap_p99_true: float | None = None
    tokens_per_s_true: float | None = None
    cpu_us_per_token: float | None = None
    """Of all its processes while requests were open."""
    cpu_s_beside: float | None = None
    """CPU seconds before the first request and after the last: start, making prompts, results."""
    peak_mb: float | None = None
    installed_mb: int | None = None

    @property
    def key(self) -> tuple[str, str, int]:
        """A later row with the same one takes its place."""
        return self.tool, self.server, self.streams


@dataclass
class UsageWatch:
    """CPU and memory of a process with all below it, over time."""

    pid: int
    seen: list[tuple[int, float, float]] = field(default_factory=list)
    """(time in ns, CPU seconds so far, MB)."""

    def look(self) -> None:
        cpu_s = rss = 0.0
        try:
            root = psutil.Process(self.pid)
            family = [root, *root.children(recursive=True)]
        except psutil.Error:
            return
        for each in family:
            try:
                times = each.cpu_times()
                cpu_s += times.user + times.system + times.children_user + times.children_system
                rss += each.memory_info().rss
            except psutil.Error:
                continue
        self.seen.append((time.time_ns(), cpu_s, rss / 1e6))

    def until(self, ended: threading.Event) -> None:
        while not ended.wait(_LOOK_S):
            self.look()

    def cpu_s(self, at_ns: int) -> float:
        """CPU seconds used until then."""
        times = [at for at, _, _ in self.seen]
        return float(np.interp(at_ns, times, [cpu for _, cpu, _ in self.seen])) if times else 0.0


@contextmanager
def watched(process: subprocess.Popen[Any]) -> Iterator[UsageWatch]:
    watch, ended = UsageWatch(process.pid), threading.Event()
    looking = threading.Thread(target=watch.until, args=(ended,))
    looking.start()
    try:
        yield watch
    finally:
        ended.set()
        looking.join()


def play(tool: PeerTool, asked: AskedLoad, log: Path) -> tuple[UsageWatch, int]:
    """Run the tool on the client's core to its end; its exit code, -1 if it took too long."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["taskset", "-c", CLIENT_CORE, *tool.command(asked)],
            stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, cwd=tool.where(asked),
            env=os.environ | QUIET | (OFFLINE if tool.offline else {}), start_new_session=True,
        )  # fmt: skip
        with watched(process) as watch:
            try:
                return watch, process.wait(timeout=_LONGEST_S)
            except subprocess.TimeoutExpired:
                return watch, -1
            finally:
                if process.poll() is None:
                    for each in psutil.Process(process.pid).children(recursive=True):
                        each.kill()
                    process.kill()
                    process.wait()


def row_of(tool: PeerTool, load: PeerLoad, seconds: float, kept: Path | None) -> PeerRow:
    """One tool under one load."""
    requests = load.streams * max(round(seconds / load.answer_s), 2)
    row = PeerRow(
        tool=tool.name, version=tool.version(), date=f"{datetime.now(UTC):%Y-%m-%d}", server=load.server,
        streams=load.streams, tokens_per_s_each=load.tokens_per_s_each, output_tokens=load.output_tokens,
        requests=requests, installed_mb=tool.installed_mb(),
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        folder = kept or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        server = load.start(folder)
        asked = AskedLoad(
            server.url, load.model, load.streams, requests, load.output_tokens, load.answer_s, load.tokenizer,
            load.server != "emulator", folder,
        )  # fmt: skip
        try:
            watch, code = play(tool, asked, folder / f"{tool.name}.log")
        finally:
            server.stop()
        if code not in tool.good_codes:
            row.problem = "took too long" if code == -1 else f"exit code {code}"
            return row
        with server.truth.open() as lines:  # not by their ids: most tools send none
            true = sorted(map(json.loads, lines), key=lambda each: each["received_ns"])
        answered = [
            each
            for each in true
            if len(each["event_ns"]) > 1
            # Shorter where a tool ends its load; some leave when they have the last token.
            and not (each["aborted"] and each["output_tokens"] < load.output_tokens)
        ]
        window = None if tool.window is None else tool.window(asked)
        _add_truth(row, _from_the_load_on(answered, load.streams), window, watch)
        for key, value in tool.read(asked).items():
            setattr(row, key, value)
    return row


def _from_the_load_on(true: list[dict[str, Any]], streams: int) -> list[dict[str, Any]]:
    """Without the requests that a tool sends before its load, to see whether anybody is there.

    The load begins after the last moment, among the first requests, at which the server had nothing to do.
    """
    begin, busy_until_ns = 0, 0
    for place, each in enumerate(true[:streams]):
        if each["received_ns"] > busy_until_ns:
            begin = place
        busy_until_ns = max(busy_until_ns, each["event_ns"][-1])
    return true[begin:]


def _add_truth(
    row: PeerRow, answered: list[dict[str, Any]], window: tuple[int, int] | None, watch: UsageWatch
) -> None:
    """What the server did in the requests that the tool's numbers are of, and what they cost the tool."""
    if not answered:
        row.problem = "no request came"
        return
    begin_ns, end_ns = window or (
        answered[0]["received_ns"],
        max(each["event_ns"][-1] for each in answered) + 1,
    )
    true = [each for each in answered if begin_ns <= each["received_ns"] < end_ns]
    ttft = [(each["event_ns"][0] - each["received_ns"]) / 1e6 for each in true]
    gaps = np.concatenate([np.diff(each["event_ns"]) / 1e6 for each in true])
    row.requests = len(true)
    row.other_lengths = sum(each["output_tokens"] != row.output_tokens for each in true)
    row.ttft_p50_true, row.ttft_p99_true = (float(np.percentile(ttft, share)) for share in (50, 99))
    row.gap_p50_true, row.gap_p99_true = (float(np.percentile(gaps, share)) for share in (50, 99))
    tokens = sum(_tokens_between(each, begin_ns, end_ns) for each in answered)
    row.tokens_per_s_true = tokens / ((end_ns - begin_ns) / 1e9)
    cpu_s = watch.cpu_s(end_ns) - watch.cpu_s(begin_ns)
    row.cpu_us_per_token = cpu_s / tokens * 1e6
    row.cpu_s_beside = watch.seen[-1][1] - cpu_s
    row.peak_mb = max(mb for _, _, mb in watch.seen)


def _tokens_between(answer: dict[str, Any], begin_ns: int, end_ns: int) -> float:
    """An answer's tokens that left in this time; an event may hold several."""
    at_ns = np.array(answer["event_ns"])
    inside = int(((at_ns >= begin_ns) & (at_ns < end_ns)).sum())
    return float(answer["output_tokens"]) * inside / len(at_ns)


# --- the table ---

_HEADS = (
    "tool", "TTFT p50", "true", "TTFT p99", "true", "gap p50", "true", "gap p99", "true", "tokens/s", "true",
    "CPU us/token", "CPU s beside", "peak MB", "installed MB",
)  # fmt: skip


def table(rows: list[PeerRow]) -> str:
    """The rows as Markdown, one table a load."""
    lines = []
    by_load: dict[tuple[str, int], list[PeerRow]] = {}
    for row in rows:
        by_load.setdefault((row.server, row.streams), []).append(row)
    for (server, streams), of_load in by_load.items():
        each = of_load[0]
        what = f"the emulator, {streams} streams at {each.tokens_per_s_each} tokens/s"
        lines += [f"### {f'A real vLLM, {streams} streams' if server == 'vllm' else what.capitalize()}", ""]
        days = " and ".join(sorted({row.date for row in of_load}))
        lines += [f"Answers of {each.output_tokens} tokens, measured on {days}.", ""]
        lines += [f"| {' | '.join(_HEADS)} |", "|---" + "|--:" * (len(_HEADS) - 1) + "|"]
        lines += [*map(_line, of_load), ""]
        for row in of_load:
            if row.other_lengths:
                lines += [
                    f"{row.tool}: {row.other_lengths} of {row.requests} answers had another length.",
                    "",
                ]
    return "\n".join(lines)


def _line(row: PeerRow) -> str:
    name = f"{row.tool} {row.version}"
    if row.problem is not None:
        return f"| {name} | {row.problem} |" + " |" * (len(_HEADS) - 2)
    pairs = (
        (row.ttft_p50, row.ttft_p50_true), (row.ttft_p99, row.ttft_p99_true), (row.gap_p50, row.gap_p50_true),
        (row.gap_p99, row.gap_p99_true),
    )  # fmt: skip
    cells = [_number(value, 2) for pair in pairs for value in pair]
    cells += [_number(value, 0) for value in (row.tokens_per_s, row.tokens_per_s_true)]
    cells += [_number(row.cpu_us_per_token, 1), _number(row.cpu_s_beside, 1), _number(row.peak_mb, 0)]
    cells.append("-" if row.installed_mb is None else f"{row.installed_mb:,}")
    return f"| {' | '.join((name, *cells))} |"


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


_BEGIN, _END = "<!-- peers: begin -->", "<!-- peers: end -->"


def write(page: Path, rows: list[PeerRow]) -> None:
    """Put the tables into the page, between its two marks, and the rows beside it as JSON."""
    before, _, rest = page.read_text(encoding="utf-8").partition(_BEGIN)
    after = rest.partition(_END)[2]
    link = "The rows as data: [results/peers.json](results/peers.json)."
    page.write_text(f"{before}{_BEGIN}\n\n{table(rows)}\n{link}\n\n{_END}{after}", encoding="utf-8")
    text = msgspec.json.format(msgspec.json.encode(rows), indent=1)
    (page.parent / "results" / "peers.json").write_bytes(text + b"\n")


def loads(text: str) -> list[tuple[int, int | None]]:
    """Streams and their tokens per second, or no rate for a real vLLM."""
    found = []
    for each in filter(None, text.split(",")):
        if (named := re.fullmatch(r"(\d+)x(\d+)|vllm:(\d+)", each)) is None:
            raise argparse.ArgumentTypeError(f"{each!r}: give STREAMSxRATE or vllm:STREAMS")
        streams, rate, on_vllm = named.groups()
        found.append((int(streams or on_vllm), None if rate is None else int(rate)))
    return found


def named(text: str) -> list[PeerTool]:
    """The tools of these names."""
    names = list(filter(None, text.split(",")))
    if unknown := [name for name in names if name not in TOOLS]:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(TOOLS)}")
    return [TOOLS[name] for name in names]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tools", type=named, default=",".join(TOOLS), help="which (%(default)s)")
    parser.add_argument("--loads", type=loads, default="100x100,400x100,800x50,vllm:4", help="(%(default)s)")
    parser.add_argument(
        "--seconds",
        type=float,
        default=12.0,
        help="a load lasts about so long; on vLLM, which answers fewer requests, twice",
    )
    parser.add_argument("--install-only", action="store_true", help="make the environments, and no load")
    parser.add_argument("--rows", type=Path, help="keep rows in this JSON file: one more run adds to them")
    parser.add_argument("--keep", type=Path, help="keep what the tools wrote in this folder")
    parser.add_argument("--write", type=Path, help="put the tables into this page")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended
    for tool in options.tools:
        install(tool)
    rows: list[PeerRow] = []
    if options.rows is not None and options.rows.exists():
        rows = msgspec.json.decode(options.rows.read_bytes(), type=list[PeerRow])
    for streams, rate in [] if options.install_only else options.loads:
        server = real(streams) if rate is None else nullcontext(emulated(streams, rate, tokenizer_folder()))
        with server as load:
            for tool in options.tools:
                print(f"{tool.name}: {streams} streams, {load.server} ...", file=sys.stderr, flush=True)
                kept = None if options.keep is None else options.keep / f"{tool.name}-{load.server}-{streams}"
                row = row_of(tool, load, options.seconds * (2 if rate is None else 1), kept)
                rows = [each for each in rows if each.key != row.key] + [row]
                if options.rows is not None:
                    options.rows.write_bytes(msgspec.json.encode(rows))
    rows.sort(key=lambda row: (row.server, row.streams, list(TOOLS).index(row.tool)))
    print(table(rows))
    if options.write is not None:
        write(options.write, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())

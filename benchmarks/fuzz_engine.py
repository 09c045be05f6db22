"""Fuzzed streams over sockets, through the whole load generator.

    python -m benchmarks.fuzz_engine [COUNT] [SEED]

For each dialect a run of COUNT one-turn conversations by 64 people. The server answers each with bytes of
`benchmarks.fuzz_streams`, in pieces and with pauses, and then closes, resets or goes silent; its page of
metrics is fuzzed too. Every turn must end as one outcome of the closed list in time, the ledger must close,
and the analysis of the run must end by itself. Prints what came of the turns; exit 1 where something escaped.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import re
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from pathlib import Path

from benchmarks.fuzz_streams import body_for, mutated, response
from loadgen.dialects import DIALECTS
from turnbench.outcomes import OUTCOMES
from turnbench.run_directory import read_run

PEOPLE = 64
IDLE_S = 2
LONGEST_S = 30.0
"""Well over an idle time-out and what a person rests after a failure, for a turn with its second attempt."""
METRICS = b"""vllm:num_requests_running{engine="0"} 3
vllm:time_to_first_token_seconds_bucket{le="0.1"} 3
vllm:kv_cache_usage_perc{engine="0"} 0.5
"""
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.I)


class FuzzServer:
    """Answers from a thread of its own until it is closed."""

    def __init__(self, seed: int) -> None:
        self._seed, self._asked = seed, 0
        self._loop = asyncio.new_event_loop()
        self._listening = threading.Event()
        self.port = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self._listening.wait()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self) -> None:
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=512))
        self.port = server.sockets[0].getsockname()[1]
        self._listening.set()
        self._loop.run_forever()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                head = await reader.readuntil(b"\r\n\r\n")
                length = _LENGTH.search(head)
                await reader.readexactly(int(length[1]) if length else 0)
                self._asked += 1
                await self._answer(
                    head.split(b" ", 2)[1].decode(), random.Random(f"{self._seed}/{self._asked}"), writer
                )
        finally:
            writer.close()

    async def _answer(self, path: str, draw: random.Random, writer: asyncio.StreamWriter) -> None:
        dialect = next((name for name, each in DIALECTS.items() if path == f"/v1{each.path}"), None)
        if dialect is None:
            bodies = {
                "/v1/models": json.dumps({"data": [{"id": "m"}]}).encode(),
                "/metrics": mutated(draw, METRICS),
            }
            body = bodies.get(path, b"")
            status = b"200 OK" if body else b"404 Not Found"
            writer.write(
                b"HTTP/1.1 %s\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % (status, len(body)) + body
            )
            return
        raw, chunked, encoding = response(draw, body_for(draw, dialect))
        lines = [b"HTTP/1.1 200 OK", b"Content-Type: text/event-stream", b"Connection: close"]
        lines += [b"Transfer-Encoding: chunked"] if chunked else []
        lines += [b"Content-Encoding: gzip"] if encoding == "gzip" else []
        raw = b"\r\n".join(lines) + b"\r\n\r\n" + raw.partition(b"\r\n\r\n")[2]
        cuts = sorted(
            {draw.randrange(1, len(raw) + 1) for _ in range(draw.choice((0, 1, 3, 30)))} | {len(raw)}
        )
        for start, end in zip([0, *cuts], cuts, strict=False):
            writer.write(raw[start:end])
            await writer.drain()
            await asyncio.sleep(draw.choice((0, 0, 0.001)))
        last = draw.random()
        if last < 0.05:
            writer.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )
        elif last < 0.06:
            await asyncio.sleep(IDLE_S + 1)


def scenario(count: int) -> str:
    """One turn with each of so many texts."""
    texts = ", ".join(f"{{q: number {number}}}" for number in range(count))
    task = "{name: ask, texts: t, once: true, prompt: 'Say {q}', max_tokens: 20}"
    return f"format: turnbench-scenario/1\nname: fuzz\ntasks: [{task}]\nsets: {{t: [{texts}]}}\n"


def escaped(dialect: str, count: int, seed: int, home: Path) -> tuple[Counter[str], list[str]]:
    """(how many turns ended as what, what must not be) of one run."""
    (home / "scenario.yaml").write_text(scenario(count))
    server, where = FuzzServer(seed), home / "run"
    command = [
        sys.executable,
        "-m",
        "locust",
        "-f",
        "loadgen/",
        "--headless",
        "-H",
        f"http://127.0.0.1:{server.port}",
    ]
    command += ["--dialect", dialect, "--scenario", str(home / "scenario.yaml"), "--once", "-u", str(PEOPLE)]
    command += ["-r", "100", "--idle-timeout", f"{IDLE_S}s", "--deadline", "20s", "--run-dir", str(where)]
    try:
        played = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    finally:
        server.close()
    if not (where / "run.json").exists():
        return Counter(), [f"the run did not start: {played.stdout[-500:]}{played.stderr[-2000:]}"]
    run = read_run(where)
    turns = list(run.turns())
    found = [f"a traceback: {played.stderr[-3000:]}"] if "Traceback" in played.stdout + played.stderr else []
    found += (
        [] if played.returncode in (0, 1, 3) else [f"exit code {played.returncode}: {played.stderr[-1000:]}"]
    )
    found += [f"outcome {turn.outcome}" for turn in turns if turn.outcome not in OUTCOMES]
    found += [f"{run.manifest.status}: {run.manifest.findings}"] if run.manifest.status != "finished" else []
    if (asked := len({turn.conversation for turn in turns})) != count:
        found.append(f"{asked} of {count} conversations have a record")
    slow = [
        turn
        for turn in turns
        if turn.sent_ns and turn.end_ns and turn.end_ns - turn.sent_ns > LONGEST_S * 1e9
    ]
    found += [f"turn {turn.conversation} took over {LONGEST_S:g} s" for turn in slow]
    last = list(run.health())[-1]
    if (last.planned, last.begun) != ((last.begun or 0) + (last.dropped or 0), last.finished):
        found.append(f"the ledger does not close: {last}")
    found += [] if (where / "summary.json").exists() else ["the run could not be analysed"]
    return Counter(turn.outcome for turn in turns), found


def main() -> int:
    arguments = [int(each) for each in sys.argv[1:3]]
    count, seed = arguments + [2000, 1][len(arguments) :]
    wrong = []
    for dialect in DIALECTS:
        with tempfile.TemporaryDirectory() as name:
            outcomes, found = escaped(dialect, count, seed, Path(name))
        words = ", ".join(f"{how_many} {outcome}" for outcome, how_many in outcomes.most_common())
        print(f"{dialect}: {words}", flush=True)
        wrong += [f"{dialect}: {each}" for each in found]
    print("\n".join(wrong[:20]) or "no escape, no hang, every ledger closes")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

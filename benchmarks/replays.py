"""How exactly is each kind of trace replayed? A small file in the layout of each, played at its own times.

    python -m benchmarks.replays [KIND ...] [--rows 60] [--seconds 4] [--agents 12]

Requests come in bursts, pairs at one moment, and gaps of half a second. Printed for each kind: requests, how
long after its time each was sent by the kernel's stamp (p50, p99, the most), how far from the trace the
server got them, and how far prompts were from their length in tokens. Then agents: conversations in which a
planner starts two sub-agents, of three requests and of two, and goes on when both have ended and a pause is
over; a turn's time is the end of the last that it waits for, and its pause. Exit 1 if a request was not
answered, if two were sent in another order than the trace has, if one began before another that it waits for
had ended, or if the p99 is over 10 ms.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from turnbench.formats.turn import decode
from turnbench.run_directory import read_run

LATE_MS_MAX = 10.0
BEGIN = datetime(2024, 5, 10, 0, 0, 0, 9930, tzinfo=UTC)
Rows = list[tuple[float, int, int]]
"""Seconds, tokens in, tokens out."""


def rows_of(count: int, seconds: float) -> Rows:
    """The same for every kind: whole milliseconds, in order, some at one moment."""
    draw = random.Random(4)
    at_s = sorted(round(draw.betavariate(0.6, 0.8) * seconds, 3) for _ in range(count))
    at_s = [0.0, *(at_s[n - 1 if n % 10 == 0 else n] for n in range(1, count))]
    return [(at, draw.randrange(20, 2000), draw.randrange(2, 12)) for at in sorted(at_s)]


def table(names: str, line: Callable[[float, int, int], str]) -> Callable[[Rows], str]:
    return lambda rows: "\n".join([names, *(line(*row) for row in rows)]) + "\n"


def lines(made: Callable[[int, float, int, int], Any]) -> Callable[[Rows], str]:
    return lambda rows: "".join(json.dumps(made(n, *row)) + "\n" for n, row in enumerate(rows))


def span(n: int, at: float, told: int, said: int) -> dict[str, Any]:
    begun_ns = round((BEGIN.timestamp() + at) * 1e9)
    attributes = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "m"}
    usage = {"gen_ai.usage.input_tokens": told, "gen_ai.usage.output_tokens": said}
    return {"name": f"chat {n}", "start_time_unix_nano": begun_ns, "attributes": attributes | usage}


def otlp(rows: Rows) -> str:
    """One export, as the OTLP/JSON encoding has it."""
    spans = []
    for n, row in enumerate(rows):
        each = span(n, *row)
        attributes = [
            {
                "key": key,
                "value": {"intValue": str(value)} if isinstance(value, int) else {"stringValue": value},
            }
            for key, value in each["attributes"].items()
        ]
        spans.append({"name": each["name"], "startTimeUnixNano": str(each["start_time_unix_nano"])})
        spans[-1]["attributes"] = attributes
    return json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}) + "\n"


def moment(at: float, form: str) -> str:
    return (BEGIN + timedelta(seconds=at)).strftime(form)


KINDS: dict[str, tuple[str, Callable[[Rows], str]]] = {
    "azure 2023": (".csv", table(
        "TIMESTAMP,ContextTokens,GeneratedTokens",
        lambda at, told, said: f"{moment(at, '%Y-%m-%d %H:%M:%S.%f')}0,{told},{said}")),
    "azure 2024": (".csv", table(
        "TIMESTAMP,ContextTokens,GeneratedTokens",
        lambda at, told, said: f"{moment(at, '%Y-%m-%d %H:%M:%S.%f')}+00:00,{told},{said}")),
    "azure multimodal": (".csv", table(
        "TIMESTAMP,NumImages,ContextTokens,GeneratedTokens",
        lambda at, told, said: f"{moment(at, '%Y-%m-%d %H:%M:%S.%f')},{said % 3},{told},{said}")),
    "burstgpt": (".csv", table(
        "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type",
        lambda at, told, said: f"{at + 5:g},ChatGPT,{told},{said},{told + said},Conversation log")),
    "mooncake": (".jsonl", lines(lambda n, at, told, said: {
        "timestamp": round(at * 1000), "input_length": told, "output_length": said,
        "hash_ids": [0, *range(n, n + -(-told // 512) - 1)]})),
    "mooncake, text": (".jsonl", lines(lambda n, at, told, said: {
        "timestamp": round(at * 1000), "session_id": f"s{n}", "text_input": f"Question {n}?",
        "output_length": said})),
    "bailian": (".jsonl", lines(lambda n, at, told, said: {
        "chat_id": n, "parent_chat_id": -1, "timestamp": at, "input_length": told, "output_length": said,
        "type": "text", "turn": 1, "hash_ids": list(range(n, n + -(-told // 16)))})),
    "otel": (".jsonl", lines(span)),
    "otel, OTLP": (".jsonl", otlp),
}  # fmt: skip


def session(name: str, *turns: dict[str, Any]) -> dict[str, Any]:
    return {"session_id": name, "turns": list(turns)}


def says(text: str, **other: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], "max_tokens": 6, "delay": 30} | other


def sessions(count: int) -> str:
    """In AIPerf's layout."""
    made = []
    for n in range(count):
        plan = says(f"Plan {n}.", spawns=[f"a{n}", f"b{n}"], forks=[f"c{n}"])
        made += [session(f"root{n}", plan, says("Put it together.", delay=50))]
        made += [session(f"a{n}", *(says(f"Look at {part}.") for part in range(3)))]
        made += [session(f"b{n}", says("Check."), says("Check again.", delay=90))]
        made += [session(f"c{n}", says("What is weak in the plan?"))]
    return "".join(json.dumps(each) + "\n" for each in made)


def recordings(count: int) -> str:
    """In kv-cache-tester's layout."""

    def request(t: float, tokens: int, blocks: int) -> dict[str, Any]:
        ids = list(range(blocks))
        return {"t": t, "type": "s", "in": tokens, "out": 6, "hash_ids": ids, "api_time": 0.05}

    def agent(name: str, *requests: dict[str, Any]) -> dict[str, Any]:
        return {"t": 0.08, "type": "subagent", "agent_id": name, "requests": list(requests)}

    a = agent("a", *(request(0.08 * n, 300 + 64 * n, 5 + n) for n in range(3)))
    b = agent("b", request(0, 200, 4), request(0.14, 264, 5))
    c = agent("c", request(0, 500, 8))
    requests = [request(0, 400, 7), a, b, c, request(0.39, 480, 8)]
    return "".join(
        json.dumps({"id": f"t{n}", "block_size": 64, "requests": requests}) + "\n" for n in range(count)
    )


AGENTS = {"agents": (".jsonl", sessions), "agent-trace": (".jsonl", recordings)}
AGENT_TURNS = 8


def play_agents(kind: str, url: str, count: int, folder: Path) -> tuple[str, list[str]]:
    """As `play`, of conversations whose turns wait for one another, three at a time."""
    suffix, written = AGENTS[kind]
    path, where = folder / f"{kind}{suffix}", folder / f"run-{kind}"
    path.write_text(written(count), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "locust", "-f", "loadgen/", "--headless", "-H", url, "--scenario", str(path)]
        + ["--once", "--levels", "3", "--think-time", "scenario", "--exact-tokens", "--max-tokens", "6"]
        + ["--no-analysis", "--run-dir", str(where)],
        check=False,
        capture_output=True,
        text=True,
    )
    if not (where / "run.json").exists():
        return f"{kind:<18} did not start", [f"{kind}: {done.stderr.strip().splitlines()[-1]}"]
    lines = (line for file in where.glob("turns-*.jsonl") for line in file.read_bytes().splitlines())
    turns = {(turn.conversation, turn.turn): turn for turn in map(decode, lines)}
    wrong = (
        [] if len(turns) == count * AGENT_TURNS else [f"{kind}: {len(turns)} of {count * AGENT_TURNS} turns"]
    )
    if failed := [turn.outcome for turn in turns.values() if turn.outcome != "ok"]:
        return f"{kind:<18} {len(failed)} failed", [*wrong, f"{kind}: {set(failed)}"]
    waited = [(turn, [turns[turn.conversation, n] for n in turn.after or ()]) for turn in turns.values()]
    early = sum((turn.sent_ns or 0) < (each.end_ns or 0) for turn, before in waited for each in before)
    wrong += [f"{kind}: {early} began before one that they wait for had ended"] if early else []
    joined = sum(len(before) > 1 for _, before in waited)
    wrong += [] if joined == count else [f"{kind}: {joined} of {count} waited for several"]
    late = np.abs([((turn.sent_ns or 0) - turn.due_ns) / 1e6 for turn, before in waited if before])
    late_ms = float(np.percentile(late, 99))
    wrong += [f"{kind}: p99 {late_ms:.1f} ms"] if late_ms > LATE_MS_MAX else []
    return f"{kind:<18}{len(late):>5}{np.percentile(late, 50):>9.2f}{late_ms:>8.2f}{max(late):>8.2f}", wrong


def play(kind: str, url: str, rows: Rows, truth: Path, folder: Path) -> tuple[str, list[str]]:
    """One line of the table, and what was wrong."""
    suffix, written = KINDS[kind]
    path = folder / f"{kind.replace(' ', '-').replace(',', '')}{suffix}"
    path.write_text(written(rows), encoding="utf-8")
    where = folder / f"run-{path.stem}"
    done = subprocess.run(
        [sys.executable, "-m", "locust", "-f", "loadgen/", "--headless", "-H", url, "--scenario", str(path)]
        + ["--warmup", "0", "--exact-tokens", "--no-analysis", "--run-dir", str(where)],
        check=False,
        capture_output=True,
        text=True,
    )
    if not (where / "run.json").exists():
        return f"{kind:<18} did not start", [f"{kind}: {done.stderr.strip().splitlines()[-1]}"]
    start_ns = read_run(where).manifest.levels[0].start_ns or 0
    lines = (line for file in where.glob("turns-*.jsonl") for line in file.read_bytes().splitlines())
    turns = sorted(map(decode, lines), key=lambda turn: turn.conversation)
    wrong = [] if len(turns) == len(rows) else [f"{kind}: {len(turns)} of {len(rows)} rows were played"]
    if failed := [turn.outcome for turn in turns if turn.outcome != "ok"]:
        return f"{kind:<18} {len(failed)} failed", [*wrong, f"{kind}: {set(failed)}"]
    seen = {
        each["request_id"]: each["received_ns"] for each in map(json.loads, truth.read_bytes().splitlines())
    }
    at_ns = [start_ns + round(at * 1e9) for at, _, _ in rows]
    sent = [((turn.sent_ns or 0) - at) / 1e6 for turn, at in zip(turns, at_ns, strict=True)]
    got = [
        (seen[f"{turn.run}/{turn.conversation}/{turn.turn}/{turn.attempt}"] - at) / 1e6
        for turn, at in zip(turns, at_ns, strict=True)
    ]
    swapped = sum(
        (b.sent_ns or 0) < (a.sent_ns or 0) and rows[n + 1][0] > rows[n][0]
        for n, (a, b) in enumerate(pairwise(turns))
    )
    wrong += [f"{kind}: {swapped} requests came before an earlier one"] if swapped else []
    late_ms = float(np.percentile(np.abs(sent), 99))
    wrong += [f"{kind}: p99 {late_ms:.1f} ms"] if late_ms > LATE_MS_MAX else []
    off = [
        abs(turn.prompt_tokens - turn.asked_prompt_tokens) / turn.asked_prompt_tokens
        for turn in turns
        if turn.prompt_tokens and turn.asked_prompt_tokens
    ]
    length = f"{np.median(off):.1%}" if off else "text"
    return (
        f"{kind:<18}{len(turns):>5}{np.percentile(sent, 50):>9.2f}{late_ms:>8.2f}{max(map(abs, sent)):>8.2f}"
        f"{np.percentile(got, 50):>9.2f}{np.percentile(np.abs(got), 99):>8.2f}{length:>10}"
    ), wrong


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"{', '.join([*KINDS, *AGENTS])} (all)")
    parser.add_argument("--rows", type=int, default=60)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--agents", type=int, default=12, help="conversations with sub-agents (12)")
    options = parser.parse_args()
    if unknown := set(options.kinds) - {*KINDS, *AGENTS}:
        parser.error(f"no such kind: {', '.join(sorted(unknown))}")
    rows, wrong = rows_of(options.rows, options.seconds), []
    print("milliseconds after its time       sent                  received   length")
    print(f"{'kind':<18}{'n':>5}{'p50':>9}{'p99':>8}{'most':>8}{'p50':>9}{'p99':>8}{'off':>10}", flush=True)
    with tempfile.TemporaryDirectory() as name:
        truth = Path(name) / "truth.jsonl"
        command = [sys.executable, "-m", "serve.emulator", "--port", "0", "--schedule", "fixed"]
        command += ["--ttft", "20ms", "--itl", "2ms", "--truth", str(truth)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            url = server.stdout.readline().removeprefix("ready: ").strip()
            for kind in options.kinds or [*KINDS, *AGENTS]:
                if kind in AGENTS:
                    line, found = play_agents(kind, url, options.agents, Path(name))
                else:
                    line, found = play(kind, url, rows, truth, Path(name))
                wrong += found
                print(line, flush=True)
            server.send_signal(signal.SIGTERM)
            server.communicate()
    print("; ".join(wrong) or "every request was sent at its time, in the trace's order")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

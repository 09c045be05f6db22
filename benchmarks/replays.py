"""How exactly is each kind of trace replayed? A small file in the layout of each, played at its own times.

    python -m benchmarks.replays [KIND ...] [--rows 60] [--seconds 4]

Requests come in bursts, pairs at one moment, and gaps of half a second. Printed for each kind: requests, how
long after its time each was sent by the kernel's stamp (p50, p99, the most), how far from the trace the
server got them, and how far prompts were from their length in tokens. Exit 1 if a request was not answered,
if two were sent in another order than the trace has, or if the p99 is over 10 ms.
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
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"{', '.join(KINDS)} (all)")
    parser.add_argument("--rows", type=int, default=60)
    parser.add_argument("--seconds", type=float, default=4.0)
    options = parser.parse_args()
    if unknown := set(options.kinds) - set(KINDS):
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
            for kind in options.kinds or KINDS:
                line, found = play(kind, url, rows, truth, Path(name))
                wrong += found
                print(line, flush=True)
            server.send_signal(signal.SIGTERM)
            server.communicate()
    print("; ".join(wrong) or "every request was sent at its time, in the trace's order")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

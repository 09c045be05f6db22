"""How long does a file of 100,000 rows of each kind take to start, and how much memory? `python -m
benchmarks.data_files [ROWS [KIND ...]]`

Each file is made, opened in a process of its own and its first conversation planned; then the row in its
middle is spoilt, and the line that is reported for it is printed. Exit 1 where a bad row is not named or,
with the usual number of rows, a start takes more CPU time or memory than is promised.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

ROWS = 100_000
PROMISED_S, PROMISED_MB = 3.0, 300.0
START = """
import re, sys, time, scenarios
begun, wall = time.process_time(), time.monotonic()
try:
    scenario = scenarios.load(sys.argv[1])
    scenarios.plan(scenario, 0, 0)
    found = str(scenario.size)
except scenarios.ScenarioError as error:
    found = error.problems[0]
spent, wall = time.process_time() - begun, time.monotonic() - wall
highest_kb = int(re.search(r"VmHWM:\\s*(\\d+)", open("/proc/self/status").read())[1])
print(spent, wall, highest_kb / 1024, found)
"""
WORDS = "The quick brown fox jumps over the lazy dog and looks for a place to sleep. " * 12


def chat(n: int) -> list[tuple[str, str]]:
    """Two turns of about 2 kB."""
    return [
        ("user", f"{n}: {WORDS[:500]}"),
        ("assistant", WORDS[:500]),
        ("user", "And?"),
        ("assistant", WORDS),
    ]


def roles(n: int) -> list[dict[str, str]]:
    return [{"role": role, "content": text} for role, text in chat(n)]


def blocks(n: int, size: int) -> dict[str, Any]:
    ids = [1, 2, *range(10 * n, 10 * n + 6)]
    return {"input_length": size * 8 - 3, "output_length": 52, "hash_ids": ids}


def session(n: int) -> dict[str, Any]:
    """Two turns of 1 kB; every second one spawns the one before, so that two rows are a conversation."""
    first, last = ({"messages": [{"role": "user", "content": f"{n}: {WORDS}"}]} for _ in range(2))
    return {"session_id": str(n), "turns": [first | ({"spawns": [str(n - 1)]} if n % 2 else {}), last]}


def recording(n: int) -> dict[str, Any]:
    """Two requests with two of a sub-agent between them."""

    def request(at_s: float, size_blocks: int) -> dict[str, Any]:
        ids = [1, 2, *range(10 * n, 10 * n + size_blocks - 2)]
        return {
            "t": at_s,
            "type": "s",
            "in": 64 * size_blocks - 3,
            "out": 52,
            "api_time": 0.5,
            "hash_ids": ids,
        }

    below = {"t": 1.0, "type": "subagent", "requests": [request(0, 4), request(1, 5)]}
    return {"id": str(n), "block_size": 64, "requests": [request(0, 8), below, request(4, 9)]}


JSON_KINDS: dict[str, tuple[tuple[str, ...], Callable[[int], Any]]] = {
    "sharegpt": (
        (".json", ".jsonl"),
        lambda n: {
            "id": str(n),
            "conversations": [
                {"from": "human" if role == "user" else "gpt", "value": text} for role, text in chat(n)
            ],
        },
    ),
    "messages": ((".jsonl", ".parquet"), lambda n: {"messages": roles(n)}),
    "chat-log": ((".jsonl", ".parquet"), lambda n: {"conversation_id": str(n), "conversation": roles(n)}),
    "preference": ((".jsonl", ".parquet"), lambda n: {"prompt": roles(n)[:1], "chosen": roles(n)[1:2]}),
    "batch": ((".jsonl",), lambda n: {"custom_id": str(n), "body": {"messages": roles(n), "max_tokens": 9}}),
    "prompts": ((".jsonl", ".parquet"), lambda n: {"prompt": f"{n}: {WORDS}", "output_tokens": 40}),
    "alpaca": ((".json",), lambda n: {"instruction": f"{n}: {WORDS[:300]}", "input": "x", "output": WORDS}),
    "mmlu": (
        (".jsonl", ".parquet"),
        lambda n: {"question": f"{n}: {WORDS[:200]}", "choices": ["a", "b", "c", "d"], "answer": n % 4},
    ),
    "mooncake": ((".jsonl",), lambda n: {"timestamp": n * 30} | blocks(n, 512)),
    "bailian": (
        (".jsonl",),
        lambda n: {"chat_id": n, "parent_chat_id": -1, "timestamp": n * 0.03, "turn": 1} | blocks(n, 16),
    ),
    "otel": (
        (".jsonl",),
        lambda n: {
            "name": "chat",
            "start_time": f"2024-05-10T{n // 3600 % 24:02}:{n // 60 % 60:02}:{n % 60:02}Z",
            "attributes": {
                "gen_ai.operation.name": "chat",
                "gen_ai.usage.input_tokens": 374,
                "gen_ai.usage.output_tokens": 44,
            },
        },
    ),
    "agents": ((".jsonl",), session),
    "agent-trace": ((".jsonl",), recording),
}
TABLES: dict[str, tuple[str, Callable[[int], list[str]]]] = {
    "prompts": ("id;prompt;answer", lambda n: [str(n), f'"{WORDS}; a ""quote"",\nand a second line"', "x"]),
    "mmlu": ("question;A;B;C;D;answer", lambda n: [f"{n}: {WORDS[:200]}", "1", "2", "3", "4", "B"]),
    "azure": (
        "TIMESTAMP;ContextTokens;GeneratedTokens",
        lambda n: [f"2024-05-10 {n // 3600 % 24:02}:{n // 60 % 60:02}:{n % 60:02}.009930+00:00", "374", "44"],
    ),
    "burstgpt": (
        "Timestamp;Model;Request tokens;Response tokens",
        lambda n: [str(n * 0.5), "ChatGPT", "374", "44"],
    ),
}
BAD: dict[str, Any] = {
    "conversations": 3, "messages": 3, "conversation": 3, "chosen": 3, "body": 3, "prompt": "",
    "instruction": 3, "question": "", "input_length": "many", "turns": 3, "requests": 3,
    "start_time": "soon",
}  # fmt: skip


def write_json(path: Path, rows: int, row: Callable[[int], Any], spoilt: int | None) -> None:
    """An array, lines, or Parquet, some rows at a time."""

    def of(n: int) -> Any:
        found = row(n)
        if n == spoilt:
            key = next(key for key in ("chosen", *BAD) if key in found)
            found |= {key: [] if path.suffix == ".parquet" and isinstance(found[key], list) else BAD[key]}
            if path.suffix == ".parquet" and "chosen" in found:
                found["prompt"] = []
        return found

    if path.suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        schema = pyarrow.Table.from_pylist([row(0)]).schema
        with pyarrow.parquet.ParquetWriter(path, schema) as writer:
            for start in range(0, rows, 10_000):
                some = [of(n) for n in range(start, min(rows, start + 10_000))]
                writer.write_table(pyarrow.Table.from_pylist(some, schema))
        return
    array = path.suffix == ".json"
    with path.open("w", encoding="utf-8") as file:
        file.write("[\n" * array)
        for n in range(rows):
            file.write(json.dumps(of(n)) + ("," * (n + 1 < rows) if array else "") + "\n")
        file.write("]\n" * array)


def write_table(
    path: Path, rows: int, names: str, row: Callable[[int], list[str]], spoilt: int | None
) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(names + "\n")
        for n in range(rows):
            fields = row(n)
            file.write(";".join(fields[:-1] if n == spoilt else fields) + "\n")


def main() -> int:
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else ROWS
    kinds = sys.argv[2:]
    failed = False
    print(f"{rows:,} rows".ljust(24) + "MB of file   CPU s  wall s  peak MB  a bad row in the middle")
    with tempfile.TemporaryDirectory() as folder:
        for kind, suffix, write in _files(rows):
            if kinds and kind not in kinds:
                continue
            path = Path(folder, f"{kind}{suffix}")
            write(path, None)
            size_mb = path.stat().st_size / 1e6
            cpu_s, wall_s, peak_mb, found = _start(path)
            write(path, rows // 2)
            said = _start(path)[3].removeprefix(f"{folder}/")
            path.unlink()
            named = not said.isdecimal() or (suffix == ".parquet" and kind in ("messages", "chat-log"))
            conversations = (rows + 1) // 2 if kind == "agents" else rows
            failed |= found != str(conversations) or not named
            failed |= rows == ROWS and (cpu_s > PROMISED_S or peak_mb > PROMISED_MB)
            figures = f"{size_mb:>10.0f} {cpu_s:>7.2f} {wall_s:>7.2f} {peak_mb:>8.0f}"
            print(f"{kind + suffix:<24}{figures}  {said[:80]}", flush=True)
    return 1 if failed else 0


def _files(rows: int) -> list[tuple[str, str, Callable[[Path, int | None], None]]]:
    """Kind, ending, and what writes the file with a row spoilt."""
    return [
        *(
            (kind, suffix, partial(_json, rows, row))
            for kind, (suffixes, row) in JSON_KINDS.items()
            for suffix in suffixes
        ),
        *((kind, ".csv", partial(_table, rows, names, cells)) for kind, (names, cells) in TABLES.items()),
    ]


def _json(rows: int, row: Callable[[int], Any], path: Path, spoilt: int | None) -> None:
    write_json(path, rows, row, spoilt)


def _table(rows: int, names: str, cells: Callable[[int], list[str]], path: Path, spoilt: int | None) -> None:
    write_table(path, rows, names, cells, spoilt)


def _start(path: Path) -> tuple[float, float, float, str]:
    done = subprocess.run([sys.executable, "-c", START, path], capture_output=True, text=True, check=True)
    cpu_s, wall_s, peak_mb, found = done.stdout.strip().split(" ", 3)
    return float(cpu_s), float(wall_s), float(peak_mb), found


if __name__ == "__main__":
    sys.exit(main())

"""How long a run can be analysed? A made run of many turns, its time and its memory.

`python -m benchmarks.scale [TURNS] [TOKENS]` (100,000 x 256): the targets are 15 s and 2 GB for 100,000
turns, 3 minutes and 6 GB for 1,000,000.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np

from turnbench.formats import RUN_FORMAT

START_NS = 1_700_000_000_000_000_000
_PER_CONVERSATION = 5
_LEVELS = 4
_TASKS = ("choose", "paraphrase", "explain")
_MOST_S = {100_000: 15.0, 1_000_000: 180.0}
_MOST_GB = {100_000: 2.0, 1_000_000: 6.0}
_VARIETY = 500


def write_run(path: Path, turns: int, tokens: int) -> None:
    """A run of four levels and three tasks; its streams are 500 different ones, used again and again."""
    window_s = max(turns / _LEVELS / 100, 10)
    levels = [_level(index, window_s) for index in range(_LEVELS)]
    manifest = {"format": RUN_FORMAT, "status": "finished", "levels": levels, "emulated": True, "workers": []}
    path.mkdir(parents=True, exist_ok=True)
    (path / "run.json").write_bytes(msgspec.json.encode(manifest))
    with (path / "turns-0.jsonl").open("wb") as file:
        for line in _lines(turns, tokens, window_s):
            file.write(line)
    counts = {"planned": turns, "begun": turns, "finished": turns, "dropped": 0}
    health = [
        {"t_ns": START_NS + s * 10**9, "worker": 0, "loop_lag_ms": 1.0, "cpu_share": 0.3, **counts}
        for s in range(int(window_s * _LEVELS) + 1)
    ]
    (path / "health-0.jsonl").write_bytes(msgspec.json.Encoder().encode_lines(health))


def _level(index: int, window_s: float) -> dict[str, int]:
    start, end = (START_NS + round((index + n) * window_s * 1e9) for n in (0, 1))
    times = {"start_ns": start, "window_start_ns": start, "window_end_ns": end, "end_ns": end}
    return {"index": index, "users": 4**index} | times


def _lines(turns: int, tokens: int, window_s: float) -> Iterator[bytes]:
    rng = np.random.default_rng(0)
    gaps_us = rng.lognormal(9.9, 0.2, (_VARIETY, tokens)).cumsum(axis=1) + 80_000
    streams = [msgspec.json.encode(row.astype(int).tolist()) for row in gaps_us]
    words = msgspec.json.encode([1] * tokens)
    last_ns = (gaps_us[:, -1] * 1000).astype(int)
    every_ns = round(window_s * _LEVELS / turns * 1e9)
    for number in range(turns):
        which, sent = number % _VARIETY, START_NS + number * every_ns
        talk, turn = divmod(number, _PER_CONVERSATION)
        head = (
            f'{{"run":"made","conversation":{talk},"turn":{turn + 1},"task":"{_TASKS[number % 3]}",'
            f'"model":"m","due_ns":{sent},"sent_ns":{sent},"head_ns":{sent + 10**7},'
            f'"end_ns":{sent + int(last_ns[which])},"connect_us":0,"answer_event":0,"output_tokens":{tokens},'
            f'"prompt_tokens":200,"token_source":"usage","words":{tokens},"chars":{tokens * 4},"status":200,'
            f'"finish_reason":"stop","lag_us_max":{which},"event_us":'
        )
        yield head.encode() + streams[which] + b',"event_words":' + words + b"}\n"


def measure(turns: int, tokens: int) -> tuple[float, float]:
    """(seconds, GB) that `python -m analysis` takes for such a run."""
    with tempfile.TemporaryDirectory(prefix="turnbench-scale-") as folder:
        path = Path(folder) / "run"
        write_run(path, turns, tokens)
        began = time.monotonic()
        subprocess.run([sys.executable, "-m", "analysis", str(path)], check=True, stdout=subprocess.DEVNULL)
        took_s = time.monotonic() - began
    return took_s, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6


def main() -> int:
    """Print the figures; exit 1 where a target is missed."""
    turns = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    tokens = int(sys.argv[2]) if len(sys.argv) > 2 else 256
    took_s, used_gb = measure(turns, tokens)
    print(f"{turns:,} turns x {tokens} tokens: {took_s:.1f} s, {used_gb:.2f} GB")
    missed = took_s > _MOST_S.get(turns, np.inf) or used_gb > _MOST_GB.get(turns, np.inf)
    return int(missed)


if __name__ == "__main__":
    raise SystemExit(main())

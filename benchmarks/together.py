"""How late are the next turns of people whose answers end together?

    python -m benchmarks.together [--people 400,50] [--rounds 5] [--clock auto]

The engine's own driver, reader and scheduler on one core, the emulator's fixed schedule on another. All
people begin at once, every answer has exactly 100 tokens in the same second, and each person asks again as
soon as the answer is whole. Lateness is from the answer's last byte to the departure of the next request: of
the first, the median and the 99th percentile of the people. A server that is near the end of its own core
spreads the ends, which decides how late the last are: from the first to the last end is printed beside it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
from collections.abc import Coroutine
from typing import Any

import numpy as np

from loadgen._messages import EngineMessage, Job, TurnEnded
from loadgen.engine._driver import LoadDriver
from loadgen.engine._garbage import take_over
from loadgen.engine._run import EngineRun, watch
from loadgen.engine._selector import new_loop
from loadgen.options._settings import Settings
from loadgen.transport._http import open_session
from loadgen.transport._reader import open_reader
from scenarios import parse
from turnbench.clock import Timeline
from turnbench.formats.turn import decode

SERVER_CORE, CLIENT_CORE = 0, 1
TOKENS, RATE_PER_S = 100, 100
SCENARIO = """
format: turnbench-scenario/1
name: together
tasks: [{name: ask, texts: t, prompt: "{q}", turns: 2, then: ["And then?"], max_tokens: 100}]
sets: {t: [{q: Hello}]}
"""


async def play(url: str, people: int, clock: str) -> tuple[list[float], float]:
    """Lateness of each person's second turn, and how long the first answers end over, both in ms."""
    messages: list[EngineMessage] = []
    loop, timeline = asyncio.get_running_loop(), Timeline()
    settings = Settings(host=url, think_time="none", exact_tokens=True, max_tokens=TOKENS, users=people)
    job = Job(
        run="together",
        worker=0,
        workers=1,
        settings=settings,
        scenario=SCENARIO,
        salt="ab",
        model="yi-6b",
        usage_in_events=True,
        context=None,
    )
    reader, _ = open_reader(loop, timeline, clock, 4 * people)
    session = open_session(reader, connect_timeout_s=30, ssl=False, trust_env=False)
    run = EngineRun(job, session, timeline, messages.append)
    tasks: set[asyncio.Task[None]] = set()

    def spawn(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = loop.create_task(work)
        tasks.add(task)
        return task

    take_over()
    driver = LoadDriver(run, parse(SCENARIO), spawn)
    spawn(watch(run))
    spawn(run.keep_reporting())
    for user in range(people):
        driver.play(user, most=1)
    driver.begin_level(0)
    while sum(isinstance(message, TurnEnded) for message in messages) < 2 * people:
        await asyncio.sleep(0.1)
    await driver.cut()
    for task in tasks:
        task.cancel()
    await session.close()
    reader.close()
    records = [decode(message.line) for message in messages if isinstance(message, TurnEnded)]
    bad = [record for record in records if record.outcome != "ok"]
    if bad:
        raise SystemExit(f"{len(bad)} turns failed, the first: {bad[0].outcome}: {bad[0].error}")
    second = [record for record in records if record.turn == 2]
    due_ns = [record.due_ns for record in second]
    late_ms = [(record.sent_ns - record.due_ns) / 1e6 for record in second if record.sent_ns is not None]
    return late_ms, (max(due_ns) - min(due_ns)) / 1e6


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--people", default="400,50", help="(%(default)s)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clock", default="auto")
    options = parser.parse_args()
    server = subprocess.Popen(
        ["taskset", "-c", str(SERVER_CORE), sys.executable, "-m", "serve.emulator", "--schedule", "fixed"]
        + ["--ttft", "500ms", "--itl", f"{1000 / RATE_PER_S:g}ms", "--port", "0", "--max-num-seqs", "4096"],
        stdout=subprocess.PIPE,
        text=True,
    )
    os.sched_setaffinity(0, {CLIENT_CORE})
    try:
        assert server.stdout is not None
        url = server.stdout.readline().removeprefix("ready: ").strip()
        for people in map(int, options.people.split(",")):
            for number in range(options.rounds):
                with asyncio.Runner(loop_factory=new_loop) as runner:
                    late_ms, over_ms = runner.run(play(url, people, options.clock))
                first, median, last = np.quantile(late_ms, (0, 0.5, 0.99))
                print(
                    f"{people} people, round {number + 1}: answers end over {over_ms:.0f} ms, "
                    f"next turns late by {first:.1f} ms (first), {median:.1f} (median), {last:.1f} (p99)",
                    flush=True,
                )
    finally:
        server.terminate()
        server.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())

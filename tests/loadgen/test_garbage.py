"""What a long level leaves behind: the engine looks for cycles among older objects at a level's end only."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from loadgen.engine._garbage import GarbageLook
from loadgen.transport._read_log import ReadLog
from loadgen.transport._work import WorkScheduler, WorkStage
from tests.emulators import emulator

FAULTS = (
    "reset",
    "eof, end: connection",
    "drip, gap: 300ms",
    "endless, gap: 20ms",
    "html",
    "hang",
    "bad_json",
)


async def test_no_turn_however_it_ends_leaves_a_cycle_behind(client: Any, tmp_path: Path) -> None:
    rules = "".join(
        f"  - {{fault: {fault}, requests: {number}}}\n" for number, fault in enumerate(FAULTS * 2, start=1)
    )
    file = tmp_path / "faults.yaml"
    file.write_text(f"format: turnbench-faults/1\nfaults:\n{rules}", encoding="utf-8")
    fixed = ("--schedule", "fixed", "--ttft", "5ms", "--itl", "1ms", "--tokens", "20")
    with emulator(*fixed, "--model", "m", "--faults", str(file)) as url:
        person = client(url, idle_timeout_s=0.2, deadline_s=0.4, connect_timeout_s=0.2)
        for _ in FAULTS:  # what is made once is no turn's
            await person.ended(person.start())
        gc.collect()
        gc.disable()
        try:
            for _ in FAULTS:
                await person.ended(person.start())
            await asyncio.sleep(0.3)  # timers that nobody waits for hold a request until they are due
            gc.set_debug(gc.DEBUG_SAVEALL)
            gc.collect()
            kept = sum(isinstance(each, ReadLog) for each in gc.get_objects())
            left = Counter(type(each).__name__ for each in gc.garbage)
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()
    outcomes = {record.outcome for record in person.records}
    assert {"disconnected", "truncated", "deadline", "bad_content_type", "stalled", "bad_json"} <= outcomes
    found = {"_SelectorSocketTransport", "StreamReader", "traceback", "StampedHandler", "ReadLog"} & set(left)
    assert found == set(), left
    assert kept <= 2, "what a turn received, beside those of timers that the pool has under way"


async def test_many_new_objects_are_looked_through_but_only_when_nobody_waits(
    client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    collected: list[int] = []
    new = 4_000
    monkeypatch.setattr(gc, "collect", collected.append)
    monkeypatch.setattr(gc, "get_count", lambda: (new, 0, 0))
    run = client("http://127.0.0.1:9").driver.run
    await asyncio.sleep(0.1)  # five looks of `watch`
    assert collected == [], "turns and their like explain so many"
    new = 6_000
    async with asyncio.timeout(10):
        while len(collected) < 2:
            await asyncio.sleep(0.01)
        async with run.scheduler.turn_for(WorkStage.REQUEST):
            before = len(collected)
            await asyncio.sleep(0.2)  # ten looks
            assert len(collected) == before
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert len(collected) <= before + 1, "they did not pile up"
    assert set(collected) == {0}


def test_turns_under_way_explain_new_objects_and_no_look_is_put_off_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks: list[Callable[[], object]] = []
    collected: list[int] = []
    scheduler, now_s = WorkScheduler(), 10.0
    monkeypatch.setattr(scheduler, "later", looks.append)
    monkeypatch.setattr(gc, "get_count", lambda: (40_000, 0, 0))
    monkeypatch.setattr(gc, "collect", collected.append)
    garbage = GarbageLook(scheduler, lambda: now_s)
    garbage.consider(800)
    assert looks == []
    garbage.consider(100)
    now_s += 0.9
    garbage.consider(100)
    assert (len(looks), collected) == (1, [])
    now_s += 0.2  # nobody had the time
    garbage.consider(100)
    assert collected == [0]
    looks[0]()
    assert collected == [0], "it was done"

"""Which piece of work the engine does next, and when the loop looks at its sockets between two."""

from __future__ import annotations

import asyncio

import pytest

from loadgen.transport._work import WorkScheduler, WorkStage

END, DECODE, REQUEST, RECORD = WorkStage.END, WorkStage.DECODE, WorkStage.REQUEST, WorkStage.RECORD


async def order_of(*tasks: list[WorkStage]) -> list[tuple[int, WorkStage, int]]:
    """(task, stage, round of the loop) of each piece of work, in the order in which it was done."""
    scheduler, done, rounds = WorkScheduler(), [], 0

    async def count_rounds() -> None:
        nonlocal rounds
        while True:
            await asyncio.sleep(0)
            rounds += 1

    async def work(number: int, stages: list[WorkStage]) -> None:
        for stage in stages:
            async with scheduler.turn_for(stage):
                done.append((number, stage, rounds))

    counting = asyncio.create_task(count_rounds())
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        for number, stages in enumerate(tasks):
            group.create_task(work(number, stages))
    counting.cancel()
    return done


async def test_the_request_after_an_answer_is_made_in_the_round_of_its_end() -> None:
    done = await order_of([END, DECODE, REQUEST], [END, REQUEST], [END, REQUEST])
    assert [(number, stage) for number, stage, _ in done] == [
        (0, END), (0, DECODE), (0, REQUEST), (1, END), (1, REQUEST), (2, END), (2, REQUEST),
    ]  # fmt: skip
    rounds = {number: {at for each, _, at in done if each == number} for number in (0, 1, 2)}
    assert [len(at) for at in rounds.values()] == [1, 1, 1]
    assert max(rounds[0]) < min(rounds[1]) <= max(rounds[1]) < min(rounds[2])


async def test_records_leave_a_round_of_the_loop_between_two() -> None:
    done = await order_of([RECORD, RECORD, RECORD])
    assert len({at for _, _, at in done}) == 3


async def test_the_latest_stage_goes_first() -> None:
    done = await order_of([RECORD], [RECORD, RECORD], [END], [REQUEST])
    assert [number for number, _, _ in done] == [0, 3, 2, 1, 1]


async def test_who_leaves_while_waiting_keeps_nobody_out() -> None:
    scheduler = WorkScheduler()
    async with scheduler.turn_for(END):
        waiting = asyncio.create_task(scheduler.begin(END))
        await asyncio.sleep(0)
    await asyncio.sleep(0)  # it is let in now
    waiting.cancel()
    async with asyncio.timeout(5):
        await asyncio.wait([waiting])
        async with scheduler.turn_for(RECORD):
            pass
    assert waiting.cancelled()


async def test_small_work_of_a_moment_shares_a_round_unless_something_is_more_urgent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("loadgen.transport._work._TOGETHER_S", 5.0)
    scheduler, done = WorkScheduler(), list[str]()

    async def end() -> None:
        async with scheduler.turn_for(END):
            done.append("end")

    for number in range(3):
        scheduler.later(lambda number=number: done.append(f"{number}"))  # type: ignore[misc]
    await asyncio.sleep(0)
    assert done == ["0", "1", "2"]
    scheduler.later(lambda: done.append("3"))
    ending = asyncio.create_task(end())
    scheduler.later(lambda: done.append("4"))
    async with asyncio.timeout(5):
        while len(done) < 6:
            await asyncio.sleep(0)
    assert ending.done()
    assert done.index("end") < done.index("4")


async def test_events_are_read_one_by_one_as_long_as_few_come(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 100.0
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now_s)
    scheduler = WorkScheduler()
    assert all(scheduler.has_time_for(1) for _ in range(199))
    assert not scheduler.has_time_for(1)
    now_s += 1.9
    assert not scheduler.has_time_for(1), "many come for a while to come"
    now_s += 0.3
    assert scheduler.has_time_for(50)
    assert not scheduler.has_time_for(4000)

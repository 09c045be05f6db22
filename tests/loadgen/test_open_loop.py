"""Open loop on one worker: what is made ready early is counted only when it is due."""

from __future__ import annotations

import asyncio
from itertools import takewhile
from typing import Any

from loadgen._messages import ArrivalSchedule
from loadgen.engine._arrivals import ExactTimer, arrivals_of
from loadgen.options._shape import EngineLoad
from turnbench.clock import Timeline


async def answers(peer: Any) -> None:
    while True:
        await peer.answer("word")


async def received(
    serve: Any, client: Any, least: int, rate_per_s: float = 40.0, **settings: Any
) -> tuple[Any, Any, list[int]]:
    """A server and a client after at least so many arrivals, and how many were due until their end."""
    server = await serve(answers)
    one = client(server.url, load=EngineLoad(open_loop=True), **settings)
    start_ns = one.driver.run.timeline.now_ns()
    arrivals = ArrivalSchedule(start_ns, first=0, rate_per_s=rate_per_s, spans_s=[5.0])
    one.driver.begin_level(1, arrivals)
    one.start()
    async with asyncio.timeout(30):
        while len(one.records) < least:
            one.news.clear()
            await one.news.wait()
    before_ns = one.driver.run.timeline.now_ns()
    await one.driver.cut()
    after_ns = one.driver.run.timeline.now_ns()
    plan = arrivals_of(one.driver.run.job, arrivals)
    due = [due_ns for _, due_ns in takewhile(lambda arrival: arrival[1] <= after_ns, plan)]
    return server, one, [sum(due_ns <= end_ns for due_ns in due) for end_ns in (before_ns, after_ns)]


async def test_only_what_was_due_before_the_levels_end_is_counted(serve: Any, client: Any) -> None:
    _, one, (least, most) = await received(serve, client, 8)
    assert least <= one.driver.run.ledger.planned <= most
    assert sorted(record.conversation for record in one.records) == list(range(len(one.records)))


async def test_a_connection_held_for_a_request_goes_to_it_and_on_to_others(serve: Any, client: Any) -> None:
    """One arrival every 50 ms or so: even half a second without a CPU leaves the bound below in reach."""
    server, one, _ = await received(serve, client, 40, rate_per_s=20.0, burstiness=50.0)
    assert 1 <= sum((record.connect_us or 0) > 0 for record in one.records) <= server.connections
    assert server.connections < len(server.requests) / 2, "held connections did not come back"


async def test_an_alarm_rings_in_the_order_of_its_times_and_never_early() -> None:
    timeline = Timeline()
    timer, rang = ExactTimer(timeline), []
    now_ns = timeline.now_ns()

    async def wait(after_ms: int) -> None:
        due_ns = now_ns + after_ms * 1_000_000
        await timer.until(due_ns)
        assert timeline.now_ns() >= due_ns
        rang.append(after_ms)

    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        for after_ms in (300, 100, 0, 200, -5):
            group.create_task(wait(after_ms))
    assert rang == [0, -5, 100, 200, 300]
    timer.close()


async def test_an_alarm_that_nobody_waits_for_any_more_disturbs_no_other() -> None:
    timeline = Timeline()
    timer = ExactTimer(timeline)
    first = asyncio.ensure_future(timer.until(timeline.now_ns() + 5_000_000))
    await asyncio.sleep(0)
    first.cancel()
    async with asyncio.timeout(30):
        await timer.until(timeline.now_ns() + 10_000_000)
    assert first.cancelled()
    timer.close()

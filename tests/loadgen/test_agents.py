"""Conversations with branches: several turns of one person at once, each after those that it waits for.

The `client` fixture checks after every test that the ledger closed and that no task of the engine failed.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

HEAD = "format: turnbench-scenario/1\nname: own\nsource: "
MS = 1_000_000


def says(text: str, **other: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}]} | other


ROWS = [
    {"session_id": "root", "turns": [
        {"messages": [{"role": "system", "content": "Plan."}, {"role": "user", "content": "Go"}],
         "spawns": ["a", "b"], "forks": ["c"]},
        says("Join", delay=40),
    ]},
    {"session_id": "a", "turns": [
        {"messages": [{"role": "system", "content": "Look."}, {"role": "user", "content": "A1"}]}, says("A2"),
    ]},
    {"session_id": "b", "turns": [says("B1", extra={"top_k": 3}, tools=[{"type": "function"}])]},
    {"session_id": "c", "turns": [says("C1")]},
]  # fmt: skip


@pytest.fixture
def agents(tmp_path: Path) -> Callable[..., str]:
    """A scenario of a file with these sessions."""

    def write(rows: Any = None, **source: Any) -> str:
        path = tmp_path / "agents.jsonl"
        path.write_text("\n".join(map(json.dumps, rows or ROWS)))
        return HEAD + json.dumps({"path": str(path)} | source) + "\n"

    return write


def talk_of(request: bytes) -> tuple[dict[str, Any], list[str]]:
    """A request's body, and what its messages say, without tags."""
    body = json.loads(request.partition(b"\r\n\r\n")[2])
    return body, [message["content"].rpartition("] ")[2] for message in body["messages"]]


def answering(delays_s: dict[str, float], broken: str = "") -> Any:
    """Answers `to X` to what says X at last, after so long."""

    async def script(peer: Any) -> None:
        while True:
            _, texts = talk_of(await peer.request())
            await asyncio.sleep(delays_s.get(texts[-1], 0.0))
            if texts[-1] == broken:
                await peer.head("500 Internal Server Error", "Content-Length: 0")
                continue
            await peer.head()
            await peer.chunk(peer.words(f"to {texts[-1]}"))
            usage = {"prompt_tokens": sum(map(len, texts)), "completion_tokens": 2}
            await peer.finish(peer.event({"choices": [], "usage": usage}) + peer.END[-14:])

    return script


async def test_branches_run_side_by_side_and_the_turn_after_them_waits_for_the_last(
    serve: Any, client: Any, agents: Any
) -> None:
    server = await serve(answering({"A1": 0.05, "B1": 0.15, "A2": 0.02}))
    person = client(server.url, scenario=agents(), think_time="scenario")
    await person.ended(person.start())
    records = {record.turn: record for record in person.records}
    go, c, a1, a2, b, join = (records[n] for n in range(1, 7))
    assert {record.outcome for record in records.values()} == {"ok"}
    assert [(r.branch, r.after, r.continues, r.depth, r.last) for r in (go, c, a1, a2, b, join)] == [
        ("root", [], 0, 1, False), ("c", [1], 1, 2, False), ("a", [1], 0, 1, False),
        ("a", [3], 3, 2, False), ("b", [1], 0, 1, False), ("root", [1, 4, 5], 1, 2, True),
    ]  # fmt: skip
    assert a1.due_ns == b.due_ns == c.due_ns == go.end_ns
    assert a2.due_ns == a1.end_ns
    assert join.due_ns == max(a2.end_ns, b.end_ns) + 40 * MS
    assert a1.sent_ns < b.end_ns, "side by side"
    assert b.sent_ns < a1.end_ns
    assert join.sent_ns >= join.due_ns


async def test_two_that_begin_together_each_say_their_own_in_every_conversation(
    serve: Any, client: Any, agents: Any
) -> None:
    """Of the next conversation the first request is made beforehand."""
    rows = [
        {"session_id": "root", "pre_session_spawns": ["early"], "turns": [says("Go")]},
        {"session_id": "early", "turns": [says("Early")]},
    ]
    server = await serve(answering({"Go": 0.02, "Early": 0.02}))
    person = client(server.url, scenario=agents(rows), think_time="none")
    person.driver.play(1, most=4)
    await person.ended(1)
    said = [talk_of(request)[1][-1] for request in server.requests]
    assert sorted(said) == ["Early"] * 4 + ["Go"] * 4


async def test_a_fork_tells_the_history_of_its_parent_and_a_spawned_agent_its_own(
    serve: Any, client: Any, agents: Any
) -> None:
    server = await serve(answering({}))
    person = client(server.url, scenario=agents())
    await person.ended(person.start())
    told = {texts[-1]: (body, texts) for body, texts in map(talk_of, server.requests)}
    assert {last: texts for last, (_, texts) in told.items()} == {
        "Go": ["Plan.", "Go"],
        "C1": ["Plan.", "Go", "to Go", "C1"],
        "A1": ["Look.", "A1"],
        "A2": ["Look.", "A1", "to A1", "A2"],
        "B1": ["B1"],
        "Join": ["Plan.", "Go", "to Go", "Join"],
    }
    prefix = told["C1"][0]["messages"][:2]
    assert prefix == told["Go"][0]["messages"] == told["Join"][0]["messages"][:2], (
        "byte for byte, for its cache"
    )
    assert (told["B1"][0]["top_k"], told["B1"][0]["tools"]) == (3, [{"type": "function"}])
    assert "tools" not in told["A1"][0]


async def test_what_waits_for_a_failed_turn_is_not_played_and_other_branches_go_on(
    serve: Any, client: Any, agents: Any
) -> None:
    server = await serve(answering({"B1": 0.02}, broken="A1"))
    person = client(server.url, scenario=agents())
    await person.ended(person.start())
    found = {record.turn: record.outcome for record in person.records}
    assert found == {1: "ok", 2: "ok", 3: "http_5xx", 5: "ok"}


async def test_somebody_who_leaves_begins_no_further_turn_in_any_branch(
    serve: Any, client: Any, agents: Any
) -> None:
    server = await serve(answering({"A1": 0.1, "B1": 0.1}))
    person = client(server.url, scenario=agents())
    user = person.start()
    async with asyncio.timeout(5):
        while len(server.requests) < 4:
            await asyncio.sleep(0.005)
    person.driver.leave(user)
    await person.ended(user)
    assert {record.turn for record in person.records} == {1, 2, 3, 5}


async def test_a_cut_level_ends_every_branch(serve: Any, client: Any, agents: Any) -> None:
    server = await serve(answering({"A1": 30, "B1": 30, "C1": 30}))
    person = client(server.url, scenario=agents())
    user = person.start()
    async with asyncio.timeout(5):
        while len(server.requests) < 4:
            await asyncio.sleep(0.005)
    await person.driver.cut()
    await person.ended(user)
    assert {record.turn: record.outcome for record in person.records} == {
        1: "ok",
        2: "cut",
        3: "cut",
        5: "cut",
    }


@pytest.mark.parametrize(("at_end", "played"), [("stop", {1}), ("drop_oldest", {1, 2}), ("fail", {1, 2})])
async def test_a_branch_that_no_longer_fits_ends_as_any_conversation(
    serve: Any, client: Any, agents: Any, at_end: str, played: set[int]
) -> None:
    rows = [
        {"session_id": "root", "turns": [says("x" * 60, max_tokens=8, forks=["c"])]},
        {"session_id": "c", "turns": [says("y" * 30, max_tokens=8)]},
    ]
    server = await serve(answering({}))
    person = client(server.url, scenario=agents(rows, at_context_end=at_end), context=90)
    await person.ended(person.start())
    assert {record.turn for record in person.records} == played
    told = [len(texts) for _, texts in map(talk_of, server.requests)]
    assert told == {"stop": [1], "drop_oldest": [1, 1], "fail": [1, 3]}[at_end]

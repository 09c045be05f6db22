"""Files of agents: who waits for whom, whose history each turn has, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import scenarios
from scenarios import Conversation, ScenarioError, plan
from scenarios.data import DataSource, Place, open_data
from tests.tries import tries
from turnbench.problems import FileProblems

Write = Callable[[Any], str]


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def session(name: str, *turns: dict[str, Any], **other: Any) -> dict[str, Any]:
    return {"session_id": name, "turns": list(turns)} | other


def says(text: str, **other: Any) -> dict[str, Any]:
    return {"messages": [user(text)]} | other


def request(t: float, tokens: int, ids: list[int], api: float | None = 1.0, **other: Any) -> dict[str, Any]:
    return {"t": t, "type": "s", "in": tokens, "out": 10, "hash_ids": ids, "api_time": api} | other


def subagent(t: float, *requests: dict[str, Any], **other: Any) -> dict[str, Any]:
    return {"t": t, "type": "subagent", "requests": list(requests)} | other


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(rows: Any) -> str:
        path = tmp_path / "agents.jsonl"
        path.write_text("\n".join(map(json.dumps, rows)))
        return str(path)

    return write


def only(path: str) -> Conversation:
    scenario = scenarios.load(path)
    assert scenario.size == 1
    return plan(scenario, 0, 0)


def places(conversation: Conversation) -> list[tuple[str, tuple[int, ...], int | None]]:
    found = [turn.place for turn in conversation.turns]
    assert all(place is not None for place in found)
    return [(place.branch, place.after, place.continues) for place in found if place is not None]


def refusals(path: str, **options: Any) -> str:
    with pytest.raises(ScenarioError) as caught:
        scenarios.load(path, **options)
    return str(caught.value)


def test_a_turn_waits_for_all_that_was_spawned_before_it_and_a_fork_goes_on_with_the_history(
    write: Write,
) -> None:
    system = {"role": "system", "content": "Plan well."}
    first = {"messages": [system, user("Plan")], "spawns": ["a", "b"], "forks": ["c"], "max_tokens": 9}
    conversation = only(
        write(
            [
                session("root", first, says("Join", delay=250, extra={"top_k": 3, "stream": False})),
                session("a", {"messages": [system | {"content": "Look."}, user("A1")]}, says("A2")),
                session("b", says("B1", tools=[{"type": "function", "function": {"name": "f"}}])),
                session("c", says("C1", model="other")),
            ]
        )
    )
    assert [turn.user for turn in conversation.turns] == ["Plan", "C1", "A1", "A2", "B1", "Join"]
    assert places(conversation) == [
        ("root", (), None), ("c", (0,), 0), ("a", (0,), None), ("a", (2,), 2), ("b", (0,), None),
        ("root", (0, 3, 4), 0),
    ]  # fmt: skip
    assert [turn.place and turn.place.system for turn in conversation.turns] == [
        "Plan well.", None, "Look.", None, None, None
    ]  # fmt: skip
    assert conversation.system == "Plan well."
    join, b = conversation.turns[5], conversation.turns[4]
    assert (join.think_s, join.body, conversation.turns[0].max_tokens) == (0.25, {"top_k": 3}, 9)
    assert b.tools == ({"type": "function", "function": {"name": "f"}},)


def test_an_agent_may_go_on_while_others_work_and_wait_for_them_later(write: Write) -> None:
    spawn = {
        "spawns": [{"children": ["a"], "join_at": 2}, {"children": ["d"], "join_at": None}],
        "forks": [{"child": "b", "background": True}],
    }
    root = session("root", says("1", **spawn), says("2"), says("3"), pre_session_spawns=["early"])
    rows = [root, *(session(name, says(name)) for name in ("early", "a", "b", "d"))]
    assert places(only(write(rows))) == [
        ("root", (), None), ("early", (), None), ("b", (0,), 0), ("a", (0,), None), ("d", (0,), None),
        ("root", (0, 4), 0), ("root", (5, 3), 5),
    ]  # fmt: skip


def test_a_session_that_two_spawn_is_played_twice_and_roots_are_conversations(write: Write) -> None:
    rows = [
        session("one", says("1", spawns=["helper"]), says("then")),
        session("helper", says("H")),
        session("two", says("2", spawns=["helper"])),
        session("three", {"text": "3"}),
    ]
    scenario = scenarios.load(write(rows))
    told = sorted([turn.user for turn in plan(scenario, 0, k).turns] for k in range(3))
    assert (scenario.size, told) == (3, [["1", "H", "then"], ["2", "H"], ["3"]])


def test_sessions_of_texts_and_pictures_are_played_with_their_lengths_and_pauses(write: Write) -> None:
    address = "https://host/a.png"
    extra = {"stop": ["END"], "max_tokens": 4, "top_k": 1, "stream": False}
    turns = [
        {"role": "user", "text": "Hi", "output_length": 5, "messages": None},
        {"texts": ["And", {"contents": ["so?"]}], "images": [address], "delay": 500, "extra": extra},
    ]
    path = write([session("s", *turns)])
    scenario = scenarios.load(path)
    first, second = only(path).turns
    assert (scenario.needs, scenario.notes) == ({"parts"}, ())
    assert (first.user, first.max_tokens) == ("Hi", 5)
    texts = [{"type": "text", "text": text} for text in ("And", "so?")]
    picture = {"type": "image_url", "image_url": {"url": address}}
    assert second.added == ({"role": "user", "content": [*texts, picture]},)
    assert (second.think_s, second.max_tokens, second.stop, second.body) == (0.5, 4, ("END",), {"top_k": 1})


def test_what_of_a_session_is_not_played_is_reported_by_its_rows(write: Write) -> None:
    turn = {"text": "Hi", "image": "/home/me/a.png", "timestamp": 5}
    scenario = scenarios.load(write([session("a", turn, turn), session("b", turn), session("c", says("x"))]))
    notes = {note.check: note.what for note in scenario.notes}
    assert notes["parts_not_sent"].startswith("3 pictures of 2 rows are not sent")
    assert notes["turn_times"].startswith("3 turns have a 'timestamp', which is not played")


def test_a_session_of_whole_requests_goes_on_with_no_history(write: Write) -> None:
    system = {"role": "system", "content": "Plan."}
    whole = {"messages": [system, user("1"), {"role": "assistant", "content": "2"}, user("3")]}
    rows = [session("s", says("1"), whole, context_mode="message_array_with_responses")]
    conversation = only(write(rows))
    assert places(conversation) == [("s", (), None), ("s", (0,), None)]
    second = conversation.turns[1]
    assert second.place is not None
    assert (second.place.system, [each["content"] for each in second.added]) == ("Plan.", ["1", "2", "3"])


def test_turns_with_a_speaker_and_a_text_are_a_chat_and_no_session(write: Write) -> None:
    turns = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]
    assert scenarios.load(write([{"turns": turns}])).tasks == ("chat-log",)
    seen = {"role": "user", "text": "Hi", "image": "https://host/a.png"}
    assert scenarios.load(write([{"turns": [seen]}])).tasks == ("agents",)


WRONG = {
    "names a session that is not there": (
        [session("root", says("1", spawns=["gone"]))],
        "session 'gone', which 'root' names, stands in no row",
    ),
    "names itself": ([session("root", says("1", forks=["root"]))], "waits for 'root', which waits for it"),
    "goes in a circle": (
        [session("r", says("0", spawns=["a"])), session("a", says("1", spawns=["b"])),
         session("b", says("2", forks=["a"]))],
        "'a', which waits for it; cut the circle",
    ),
    "stands there twice": ([session("a", says("1")), session("a", says("2"))], "stands there twice"),
    "has no turn": ([session("r", says("1")), session("a")], "'turns' is empty"),
    "joins before": (
        [session("r", says("1", spawns=[{"children": ["r"], "join_at": 0}]), says("2"))],
        "turn 1 has join_at '0'",
    ),
    "has a way of its own with histories": (
        [session("r", says("1"), context_mode="deltas_with_responses")],
        "context_mode 'deltas_with_responses' is not known",
    ),
    "has a picture that is no text": ([session("r", {"images": [5]})], "turn 1: 'image' is a number"),
    "has a picture alone, by a path": ([session("r", {"image": "a.png"})], "turn 1 has no messages"),
    "waits without end": ([session("r", says("1", delay=10**400))], "a number too large to compute with"),
    "joins beyond": (
        [session("r", says("1", spawns=[{"children": ["r"], "join_at": 2}]), says("2"))],
        "turn 1 has join_at '2'",
    ),
    "waits for minus a second": ([session("r", says("1", delay=-1000))], "turn 1 has a delay of"),
    "names a number with a point": ([session("r", says("1", forks=[1.5]))], "'forks' names '1.5'"),
    "is a driver without requests": (
        [session("r", says("1")), {"session_id": "o", "orchestrator": True, "spawns": ["r"]}],
        "an orchestrator sends no request",
    ),
    "says nothing": ([session("r", {"messages": []})], "turn 1 has no messages"),
    "is doubled without end": (
        [session(f"{n}", says("x", spawns=[f"{n + 1}"] * 2)) for n in range(40)] + [session("40", says("x"))],
        "turns; name fewer sessions in it",
    ),
    "nests without end": (
        [session(f"{n}", says("x", spawns=[f"{n + 1}"])) for n in range(900)] + [session("900", says("x"))],
        "51 agents one below another",
    ),
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
def test_a_session_is_refused_by_its_row_if_it(write: Write, wrong: str) -> None:
    rows, words = WRONG[wrong]
    said = refusals(write(rows))
    assert words in said
    assert "agents.jsonl:" in said


def test_the_other_conversations_are_played_where_one_is_wrong(write: Write) -> None:
    rows = [session("bad", says("1", spawns=["gone"])), session("good", says("2"))]
    scenario = scenarios.load(write(rows), skip_bad_rows=True)
    assert [turn.user for turn in plan(scenario, 0, 0).turns] == ["2"]
    assert scenario.size == 1
    assert "1 row " in next(note.what for note in scenario.notes if note.check == "bad_rows_skipped")


RECORDED = {
    "id": "trace_1", "block_size": 64, "hash_id_scope": "local", "requests": [
        request(0.0, 200, [1, 2, 3, 4]),
        subagent(1.25, request(0.0, 130, [1, 2, 9], 0.5), request(0.75, 170, [1, 2, 9], 0.5), agent_id="x"),
        subagent(1.25, request(0.0, 250, [1, 2, 3, 4], 2.0), agent_id="y"),
        request(3.5, 260, [1, 2, 3, 4, 5], think_time=0.0),
        request(5.0, 100, [1, 7]),
        request(5.5, 110, [1, 8]),
        request(9.0, 150, [1, 7, 9], think_time=0.125),
    ],
}  # fmt: skip


def test_a_recorded_request_waits_for_those_that_had_ended_when_it_began(write: Write) -> None:
    conversation = only(write([RECORDED]))
    assert places(conversation) == [
        ("main", (), None),
        ("main/x", (0,), None), ("main/x", (1,), 1),
        ("main/y", (0,), 0),  # its blocks begin with all of the first prompt's
        ("main", (2, 3), 0),
        ("main", (4,), None),  # a prompt that was cut
        ("main", (4,), None),  # at one time with the one before
        ("main", (5, 6), 5),
    ]  # fmt: skip
    pauses = [turn.think_s for turn in conversation.turns]
    assert pauses == pytest.approx([0, 0.25, 0.25, 0.25, 0.25, 0.5, 1, 2.5])
    assert [turn.prompt_tokens for turn in conversation.turns] == [200, 130, None, None, None, 100, 110, None]


def test_prompts_share_what_their_blocks_share_within_a_recording_alone(write: Write) -> None:
    scenario = scenarios.load(write([RECORDED, RECORDED | {"id": "trace_2"}]))
    one, two = ([turn.user for turn in plan(scenario, 0, k).turns] for k in range(2))
    block = round(64 * 4.5)
    assert one[0][: 2 * block] == one[1][: 2 * block]
    assert one[0][2 * block :][:50] != one[1][2 * block :][:50]
    assert one[0][:block] != two[0][:block]
    assert not plan(scenario, 0, 0).shared_start
    everywhere = [RECORDED | {"hash_id_scope": "global", "id": name} for name in ("a", "b")]
    scenario = scenarios.load(write(everywhere))
    one, two = ([turn.user for turn in plan(scenario, 0, k).turns] for k in range(2))
    assert one[0] == two[0][: len(one[0])]
    assert plan(scenario, 0, 0).shared_start


def test_times_of_sub_agents_from_the_start_of_the_recording_are_told_from_their_own(write: Write) -> None:
    inner = [request(1.25, 130, [1, 9], 0.5), request(2.0, 170, [1, 9], 0.5)]
    rows = [{"requests": [request(0.0, 200, [1, 2]), subagent(1.25, *inner), request(3.5, 260, [1, 2, 3])]}]
    pauses = [turn.think_s for turn in only(write(rows)).turns]
    assert pauses == pytest.approx([0, 0.25, 0.25, 1.0])


def test_a_recording_without_the_length_of_answers_is_played_by_its_gaps_and_a_note_says_so(
    write: Write,
) -> None:
    rows = [{"requests": [request(0.0, 90, [1, 2], None), request(4.0, 120, [1, 2, 3], None)]}]
    scenario = scenarios.load(write(rows))
    assert [turn.think_s for turn in plan(scenario, 0, 0).turns] == [0, 4]
    assert [note.check for note in scenario.notes] == ["recorded_gaps"]


@pytest.mark.parametrize(
    ("requests", "words"),
    [
        ([request(0.0, 0, [1])], "request 1 of main has 0 tokens in"),
        ([request(-1.0, 9, [1])], "has t '-1.0'; write seconds"),
        ([request(10**400, 9, [1])], "a number too large to compute with"),
        ([{"in": 3, "hash_ids": []}], "request 1 of main has no 't'"),
        ([request(0.0, 9, [1.5])], "'hash_ids' must be a list of numbers"),
        ([request(0.0, 9, [1]), subagent(1, request(0, -3, [1]))], "request 1 of main/2 has -3"),
        ([request(0.0, 9, [1]), {"type": "subagent", "requests": 5}], "is a sub-agent whose 'requests'"),
        ([request(0.0, 9, [1]), 7], "request 2 of main is a number"),
    ],
)  # fmt: skip
def test_a_wrong_recording_is_named_by_its_request(write: Write, requests: Any, words: str) -> None:
    assert words in refusals(write([RECORDED, {"requests": requests}]))


@pytest.mark.parametrize("size", ["x", True, 0, -5])
def test_a_block_of_no_size_is_a_bad_row(write: Write, size: Any) -> None:
    assert "agents.jsonl:2: " in refusals(write([RECORDED, RECORDED | {"block_size": size}]))


def test_sub_agents_without_end_are_refused(write: Write) -> None:
    nested: Any = [request(0.0, 9, [1])]
    for _ in range(60):
        nested = [subagent(0.0, *nested)]
    assert "sub-agents 51 deep" in refusals(write([RECORDED, {"requests": nested}]))


anything = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 10**30) | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["requests", "t", "type", "in", "out", "hash_ids", "api_time", "think_time", "session_id",
             "turns", "messages", "role", "content", "spawns", "forks", "children", "join_at", "delay",
             "extra", "tools", "pre_session_spawns", "text", "images", "contents", "timestamp"]
        ),
        inner,
        max_size=5,
    ),
    max_leaves=25,
)  # fmt: skip


ROW_KEYS = ["requests", "session_id", "turns", "block_size", "context_mode", "hash_id_scope"]


@tries(60)
@given(st.lists(st.dictionaries(st.sampled_from(ROW_KEYS), anything), max_size=4),
       st.sampled_from(["agents", "agent-trace"]))  # fmt: skip
def test_any_rows_are_played_or_refused_and_a_turn_waits_only_for_earlier_ones(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Any], kind: str
) -> None:
    path = tmp_path_factory.mktemp("any") / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, [*rows, RECORDED, session("r", says("1"))])))
    try:
        data = open_data(DataSource(str(path)), kind, skip_bad_rows=True)
    except FileProblems:
        return
    for i in range(len(data)):
        turns = data.row(i).turns
        assert isinstance(turns[0].place, Place)
        for number, turn in enumerate(turns):
            assert turn.place is not None
            assert all(before < number for before in turn.place.after)
            assert turn.place.continues is None or turn.place.continues < number
            assert turn.think_s is not None
            assert turn.think_s >= 0

"""How people talk: tools, pauses, patience, what a request tells of earlier turns, and a full context.

The `client` fixture checks after every test that the ledger closed and that no task of the engine failed.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from loadgen.engine import _driver
from scenarios import dialogue, parse, plan

TALK = """
format: turnbench-scenario/1
name: test
tasks: [{name: talk, texts: t, prompt: "{q}", max_tokens: 16, %s}]
sets: {t: [{q: Hello, then: ["Really?", "Because", "Go on!!"]}]}
"""
ERRAND = """
format: turnbench-scenario/1
name: test
tasks:
  - {name: errand, texts: t, prompt: "{q}", max_tokens: 16, turns: 2, think_s: 5,
     tools: [{name: weather, description: The forecast., arguments: {place: where}}]}
sets:
  t:
    - q: Umbrella?
      calls: [{tool: weather, arguments: {place: Bergen}, result: "14 mm"}]
      then: ["And then?"]
"""
TEXT = b"This model's maximum context length is 64 tokens"


def bodies(server: Any) -> list[dict[str, Any]]:
    return [json.loads(request.partition(b"\r\n\r\n")[2]) for request in server.requests]


def messages_of(server: Any) -> list[list[str]]:
    """The contents of every request's messages, without the tag before the first."""
    return [[m["content"].rpartition("] ")[2] for m in body["messages"]] for body in bodies(server)]


def usage(prompt_tokens: int) -> dict[str, Any]:
    return {"choices": [], "usage": {"prompt_tokens": prompt_tokens, "completion_tokens": 2}}


async def answers(peer: Any) -> None:
    """Answers for ever; a token of the prompt is one character."""
    while True:
        request = await peer.request()
        messages = json.loads(request.partition(b"\r\n\r\n")[2])["messages"]
        await peer.head()
        await peer.chunk(peer.words("Good", " one"))
        await peer.finish(peer.event(usage(sum(len(m["content"]) for m in messages))) + peer.END[-14:])


async def test_tools_go_with_every_request_and_their_results_come_back_as_messages(
    serve: Any, client: Any
) -> None:
    call = {"index": 0, "id": "a", "type": "function", "function": {"name": "weather", "arguments": "{}"}}

    async def script(peer: Any) -> None:
        await peer.request()
        await peer.head()
        await peer.finish(peer.event(peer.chunk_of(tool_calls=[call])) + peer.END)
        while True:
            await peer.answer()

    server = await serve(script)
    person = client(server.url, scenario=ERRAND, think_time="scenario*0.001")
    await person.ended(person.start())
    assert [(r.turn, r.outcome, r.answer_event) for r in person.records] == [
        (1, "ok", 0), (2, "ok", 0), (3, "ok", 0)
    ]  # fmt: skip
    asked = bodies(server)
    assert [body["tools"][0]["function"]["name"] for body in asked] == ["weather"] * 3
    assert [m["role"] for m in asked[1]["messages"]] == ["user", "assistant", "tool"]
    assert json.loads(asked[1]["messages"][1]["tool_calls"][0]["function"]["arguments"]) == {
        "place": "Bergen"
    }
    assert asked[1]["messages"][2]["content"] == "14 mm"
    assert [m["role"] for m in asked[2]["messages"][3:]] == ["assistant", "user"]
    first, second, third = person.records
    assert second.due_ns == first.end_ns, "a tool does not think"
    assert third.due_ns == second.end_ns + 5_000_000


async def test_a_pause_follows_from_the_words_of_the_real_reply(serve: Any, client: Any) -> None:
    async def script(peer: Any) -> None:
        while True:
            await peer.answer("one two three", " four five six")

    server = await serve(script)
    scenario = TALK % "turns: 2, think_s: {read_wpm: 600, type_wpm: 600}"
    person = client(server.url, scenario=scenario, think_time="scenario*0.1")
    await person.ended(person.start())
    first, second = person.records
    assert second.due_ns - first.end_ns == 70_000_000, "six words read and one typed, in a tenth of 0.7 s"


@pytest.mark.parametrize("comes", ["nothing", "a head", "an empty event"])
async def test_a_person_without_a_word_leaves(serve: Any, client: Any, comes: str) -> None:
    async def script(peer: Any) -> None:
        await peer.request()
        if comes != "nothing":
            await peer.head()
        if comes == "an empty event":
            await peer.chunk(peer.event(peer.chunk_of(role="assistant", content="")))
        await peer.until_closed()

    server = await serve(script)
    person = client(
        server.url, scenario=TALK % "turns: 3, patience: {first_s: 20}", think_time="scenario*0.01"
    )
    person.driver.run.failure_pause_s = 3600.0  # nothing failed: the next may come at once
    await person.ended(person.start())
    (record,) = person.records
    assert (record.outcome, record.error) == ("abandoned", "the person left: no word for 0.2 s")
    assert record.event_us == []
    # From when it was due: a busy machine sends a little later, and patience has begun by then.
    assert record.end_ns - record.due_ns > 200_000_000


async def test_a_person_leaves_in_the_middle_of_a_long_answer_and_what_came_is_kept(
    serve: Any, client: Any
) -> None:
    said = 0

    async def script(peer: Any) -> None:
        nonlocal said
        await peer.request()
        await peer.head()
        while True:
            await peer.chunk(peer.words("more "))
            said += 1
            await asyncio.sleep(0.02)

    server = await serve(script)
    scenario = TALK % "turns: 3, patience: {first_s: 60, share: 1, after_s: 20}"
    person = client(server.url, scenario=scenario, think_time="scenario*0.05")
    await person.ended(person.start())
    (record,) = person.records
    assert (record.outcome, record.error) == ("abandoned", "the person left 1 s after the first word")
    assert said - 2 <= len(record.event_us) <= said
    assert len(record.event_us) > 2


async def test_who_has_a_first_word_in_time_waits_for_the_rest(serve: Any, client: Any) -> None:
    async def script(peer: Any) -> None:
        await peer.request()
        await peer.head()
        await peer.chunk(peer.words("Well"))
        await asyncio.sleep(0.4)
        await peer.finish(peer.words(" then") + peer.END)

    server = await serve(script)
    person = client(server.url, scenario=TALK % "turns: 1, patience: {first_s: 0.1}", think_time="1")
    await person.ended(person.start())
    assert [r.outcome for r in person.records] == ["ok"]


async def test_nobody_leaves_where_there_is_no_human_time(serve: Any, client: Any) -> None:
    async def script(peer: Any) -> None:
        await peer.request()
        await peer.head()
        await asyncio.sleep(0.3)
        await peer.finish(peer.words("Late") + peer.END)

    server = await serve(script)
    person = client(server.url, scenario=TALK % "turns: 1, patience: {first_s: 0.1}", think_time="none")
    await person.ended(person.start())
    assert [r.outcome for r in person.records] == ["ok"]


async def test_patience_also_ends_while_a_turn_waits_for_its_retry(serve: Any, client: Any) -> None:
    async def script(peer: Any) -> None:
        await peer.request()
        await peer.head("503 Busy", "Content-Length: 0", "Retry-After: 3600")

    server = await serve(script)
    scenario = TALK % "turns: 2, patience: {first_s: 0.1}"
    person = client(server.url, scenario=scenario, think_time="scenario", retry=5)
    await person.ended(person.start())
    assert [r.outcome for r in person.records] == ["http_5xx"]


@pytest.mark.parametrize(
    ("keys", "reply"),
    [("turns: 3", "Good one"), ('turns: 3, history: canned, replies: ["Canned."]', "Canned.")],
    ids=["real", "canned"],
)
async def test_a_request_tells_of_earlier_turns_with_the_replies_that_the_scenario_says(
    serve: Any, client: Any, keys: str, reply: str
) -> None:
    server = await serve(answers)
    person = client(server.url, scenario=TALK % keys)
    await person.ended(person.start())
    assert [r.outcome for r in person.records] == ["ok"] * 3
    first, second, third = (messages[-1] for messages in messages_of(server))
    assert messages_of(server)[-1] == [first, reply, second, reply, third]


async def test_a_persons_next_conversation_is_due_when_the_one_before_it_ended(
    serve: Any, client: Any
) -> None:
    person = client((await serve(answers)).url, scenario=TALK % "turns: 2")
    person.driver.play(1, most=2)
    await person.ended(1)
    _, last, first, _ = person.records
    assert (last.conversation, first.conversation) == (0, 1)
    assert first.due_ns == last.end_ns < first.sent_ns


async def test_after_one_that_failed_it_is_due_once_the_person_has_rested(serve: Any, client: Any) -> None:
    async def fails(peer: Any) -> None:
        await peer.request()
        await peer.head("500 No")
        await peer.finish()

    person = client((await serve(fails)).url, scenario=TALK % "turns: 2")
    person.driver.play(1, most=2)
    await person.ended(1)
    failed, other = person.records
    assert other.due_ns - failed.due_ns >= 20_000_000, "the tests' pause after a failure"


class Slow:
    """Answers each request once it is told to go on, or refuses it for a field."""

    def __init__(self, refuses: str = "") -> None:
        self.refuses = refuses
        self.goes_on = asyncio.Semaphore(0)

    async def __call__(self, peer: Any) -> None:
        while True:
            request = await peer.request()
            await self.goes_on.acquire()
            if self.refuses and self.refuses.encode() in request:
                error = json.dumps({"error": {"message": f"{self.refuses}: unknown field"}}).encode()
                await peer.head("400 Bad", f"Content-Length: {len(error)}")
                await peer.send(error)
            else:
                await peer.head()
                await peer.chunk(peer.words("Good"))
                await peer.finish(peer.END)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of the conversations that were drawn."""
    numbers: list[int] = []
    draw = _driver.plan
    monkeypatch.setattr(_driver, "plan", lambda *what: numbers.append(what[2]) or draw(*what))
    return numbers


async def until_ready(drawn: list[int], numbers: list[int]) -> None:
    """While the first answer is awaited."""
    async with asyncio.timeout(10):
        while drawn != numbers:
            await asyncio.sleep(0.005)


async def test_what_a_person_plays_next_is_made_ready_while_they_wait(
    serve: Any, client: Any, drawn: list[int]
) -> None:
    slow = Slow()
    person = client((await serve(slow)).url, scenario=TALK % "turns: 1")
    person.driver.play(1, most=2)
    await until_ready(drawn, [0, 1])
    slow.goes_on.release()
    slow.goes_on.release()
    await person.ended(1)
    assert [(r.conversation, r.outcome) for r in person.records] == [(0, "ok"), (1, "ok")]
    assert person.driver.next_conversation == 2, "whatever is ready beside them"


async def test_what_was_made_ready_in_a_level_is_made_anew_in_the_next(
    serve: Any, client: Any, drawn: list[int]
) -> None:
    slow = Slow()
    server = await serve(slow)
    person = client(server.url, scenario=TALK % "turns: 1")
    person.driver.play(1, most=1)
    await until_ready(drawn, [0, 1])
    slow.goes_on.release()
    await person.ended(1)
    person.driver.begin_level(7)
    person.driver.play(2, most=1)
    slow.goes_on.release()
    await person.ended(2)
    assert [r.conversation for r in person.records] == [0, 1]
    seed = person.driver.run.job.settings.seed
    said = [
        dialogue(plan(parse(TALK % "turns: 1"), seed, n), "ab", level, []) for n, level in ((0, 0), (1, 7))
    ]
    assert [body["messages"] for body in bodies(server)] == said


async def test_what_was_made_ready_is_asked_as_the_server_wants_it_by_then(
    serve: Any, client: Any, drawn: list[int]
) -> None:
    slow = Slow(refuses="temperature")
    server = await serve(slow)
    person = client(server.url, scenario=TALK % "turns: 1", temperature=0.5)
    person.driver.play(1, most=2)
    await until_ready(drawn, [0, 1])
    for _ in range(3):
        slow.goes_on.release()
    await person.ended(1)
    assert ["temperature" in body for body in bodies(server)] == [True, False, False]


async def test_a_request_may_tell_nothing_of_earlier_turns(serve: Any, client: Any) -> None:
    server = await serve(answers)
    person = client(server.url, scenario=TALK % "turns: 3, history: none")
    await person.ended(person.start())
    assert [len(messages) for messages in messages_of(server)] == [1, 1, 1]


async def test_a_conversation_stops_before_it_would_overflow_the_context(serve: Any, client: Any) -> None:
    """Tag and `Hello` are 16 characters, the reply 8, the next turn 7 and the next answer 16 tokens: 47."""
    for context, turns in ((47, 2), (46, 1)):
        server = await serve(answers)
        person = client(server.url, scenario=TALK % "turns: 2", context=context)
        await person.ended(person.start())
        assert [(r.turn, r.last) for r in person.records][-1] == (turns, True)
        assert [r.at_context_end for r in person.records][-1] == ("stop" if turns == 1 else None)
        assert {r.outcome for r in person.records} == {"ok"}


async def test_the_oldest_turns_are_no_longer_mentioned_when_the_context_is_full(
    serve: Any, client: Any
) -> None:
    server = await serve(answers)
    scenario = TALK % "turns: 4, at_context_end: drop_oldest"
    person = client(server.url, scenario=scenario, context=48)
    await person.ended(person.start())
    assert [(r.outcome, r.at_context_end) for r in person.records] == [
        ("ok", None), ("ok", None), ("ok", "drop_oldest"), ("ok", "drop_oldest")
    ]  # fmt: skip
    second, third, fourth = (messages[-1] for messages in messages_of(server)[1:])
    assert messages_of(server)[2:] == [[second, "Good one", third], [third, "Good one", fourth]]


async def refuses(peer: Any) -> None:
    """Refuses every request of more than three messages."""
    while True:
        request = await peer.request()
        if len(json.loads(request.partition(b"\r\n\r\n")[2])["messages"]) > 3:
            await peer.head("400 Bad Request", f"Content-Length: {len(TEXT)}")
            await peer.send(TEXT)
        else:
            await peer.head()
            await peer.finish(peer.words("Good one") + peer.END)


async def test_a_server_that_tells_its_context_only_by_refusing_is_asked_again_with_less(
    serve: Any, client: Any
) -> None:
    server = await serve(refuses)
    person = client(server.url, scenario=TALK % "turns: 4, at_context_end: drop_oldest")
    await person.ended(person.start())
    assert [(r.turn, r.attempt, r.outcome, r.at_context_end) for r in person.records] == [
        (1, 1, "ok", None),
        (2, 1, "ok", None),
        (3, 1, "context_full", None),
        (3, 2, "ok", "drop_oldest"),
        (4, 1, "context_full", "drop_oldest"),
        (4, 2, "ok", "drop_oldest"),
    ]
    third, fourth = messages_of(server)[3][-1], messages_of(server)[5][-1]
    assert messages_of(server)[-1] == [third, "Good one", fourth]


@pytest.mark.parametrize("at_end", ["fail", "stop"])
async def test_a_refusal_of_the_server_is_recorded_as_such(serve: Any, client: Any, at_end: str) -> None:
    """`fail` asks for it whatever is known of the context; `stop` can't foresee what was not said."""
    server = await serve(refuses)
    context = 40 if at_end == "fail" else None
    person = client(server.url, scenario=TALK % f"turns: 4, at_context_end: {at_end}", context=context)
    await person.ended(person.start())
    assert [r.outcome for r in person.records] == ["ok", "ok", "context_full"]


@pytest.mark.parametrize(
    "why",
    [
        "System role not supported",
        "Conversation roles must alternate user/assistant/user/assistant/...",
        "Only user and assistant roles are supported!",
    ],
)
async def test_a_model_that_takes_no_system_message_has_it_before_the_first_of_the_user(
    serve: Any, client: Any, why: str
) -> None:
    async def script(peer: Any) -> None:
        while True:
            request = await peer.request()
            if b'"role":"system"' in request:
                await peer.head("400 Bad Request", f"Content-Length: {len(why)}")
                await peer.send(why.encode())
            else:
                await peer.head()
                await peer.finish(peer.words("Good one") + peer.END)

    server = await serve(script)
    person = client(server.url, scenario=TALK % 'turns: 2, system: "Be kind."')
    for _ in range(2):
        await person.ended(person.start())
    assert [(r.conversation, r.turn, r.attempt, r.outcome) for r in person.records] == [
        (0, 1, 1, "http_4xx"),
        (0, 1, 2, "ok"),
        (0, 2, 1, "ok"),
        (1, 1, 1, "ok"),
        (1, 2, 1, "ok"),
    ]
    asked = bodies(server)
    assert [[m["role"] for m in body["messages"]] for body in asked[1:3]] == [
        ["user"],
        ["user", "assistant", "user"],
    ]
    assert messages_of(server)[1] == ["Be kind.\n\nHello"]
    first = asked[1]["messages"][0]["content"]
    assert asked[2]["messages"][0]["content"] == first, "what the server has in its cache stays as it was"

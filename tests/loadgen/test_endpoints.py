"""The dialects of completions, responses and messages: what is asked, and what their streams say."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.dialects import DIALECTS, Dialect, Prompt, StreamedReply, TurnRequest
from loadgen.options._headers import headers_of, secrets_of
from loadgen.options._settings import Settings
from scenarios import Conversation, Turn, parse, plan

CONVERSATION = """
format: turnbench-scenario/1
name: test
tasks:
  - {name: ask, system: Be brief., texts: t, prompt: "{q}", turns: 2, then: ["And then?"], max_tokens: 16}
sets: {t: [{q: Hello}]}
"""
TOOL = {
    "type": "function",
    "function": {"name": "add", "description": "Adds.", "parameters": {"type": "object"}},
}
COMPLETIONS, RESPONSES, MESSAGES = (DIALECTS[name] for name in ("completions", "responses", "messages"))


def prompt(dialect: Dialect, replies: list[str], **more: Any) -> Prompt:
    asked = {"salt": "ab", "level": 0, "turns_dropped": 0, "system_role": True} | more
    return dialect.prompt(plan(parse(CONVERSATION), 0, 0), replies, **asked)


def body(dialect: Dialect, replies: list[str] | None = None, **more: Any) -> dict[str, Any]:
    asked: dict[str, Any] = {
        "model": "m", "max_tokens": 16, "exact_tokens": False, "stop": ["END"],
        "sampling": {"temperature": 0}, "tools": [], "usage_in_events": False,
    }  # fmt: skip
    return dialect.body(TurnRequest(prompt=prompt(dialect, replies or []), **asked | more))


def said(dialect: Dialect, *events: Any) -> StreamedReply:
    return dialect.read([each if isinstance(each, bytes) else json.dumps(each).encode() for each in events])


# --- completions ---


def test_a_base_model_gets_the_history_as_text_and_goes_on_as_the_assistant() -> None:
    first, second = (prompt(COMPLETIONS, replies) for replies in ([], ["Hi there."]))
    assert " Be brief.\n\nUser: " in first.content
    assert first.content.endswith("Hello\n\nAssistant:")
    assert second.content == (first.content + " Hi there.\n\nUser: And then?\n\nAssistant:"), (
        "so that a prefix cache finds the first prompt again"
    )
    assert (second.turns, second.characters) == (2, len(second.content))
    assert "Be brief." in prompt(COMPLETIONS, [], system_role=False).content
    assert "Hello" not in prompt(COMPLETIONS, ["Hi"], turns_dropped=1).content


def test_a_completion_is_asked_for_with_a_prompt_and_ends_before_the_person_speaks() -> None:
    found = body(COMPLETIONS, tools=[TOOL])
    assert "messages" not in found
    assert "tools" not in found
    assert (found["stop"], found["max_tokens"], found["stream"]) == (["END", "\nUser:"], 16, True)
    exact = body(COMPLETIONS, exact_tokens=True)
    assert "stop" not in exact
    assert (exact["min_tokens"], exact["ignore_eos"]) == (16, True)


def test_a_completion_s_events_carry_text() -> None:
    reply = said(
        COMPLETIONS,
        {"choices": [{"index": 0, "text": "Once", "finish_reason": None}]},
        {"choices": [{"index": 0, "text": " more", "finish_reason": "length"}]},
        {"choices": [], "usage": {"prompt_tokens": 4, "completion_tokens": 2}},
        b"[DONE]",
    )
    assert (reply.text, reply.events, reply.output_tokens, reply.finish_reason) == (
        "Once more",
        [0, 1],
        2,
        "length",
    )
    assert reply.done


def test_what_the_model_said_beside_a_call_of_a_tool_is_in_the_history_of_every_dialect() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
    given = {"role": "assistant", "content": "Let me add.", "tool_calls": [call]}
    result = {"role": "tool", "tool_call_id": "c", "content": "2"}
    turns = (Turn("Add.", 0.0, 16), Turn("2", 0.0, 16, added=(result,), given=(given,)))
    talk = Conversation(index=0, task="ask", system=None, shared_system=False, turns=turns)
    chat, completions, responses, messages = (
        dialect.prompt(talk, ["x"], salt="none", level=0, turns_dropped=0, system_role=True)
        for dialect in (DIALECTS["chat"], COMPLETIONS, RESPONSES, MESSAGES)
    )
    asked = {"role": "user", "content": "Add."}
    assert chat.content == [asked, given, result]
    assert chat.characters == len("Add.Let me add.2") + len(str([call]))
    assert f"Assistant: Let me add.\n{[call]}\n\nTool: 2" in completions.content
    assert responses.content == [
        asked,
        {"role": "assistant", "content": "Let me add."},
        {"type": "function_call", "call_id": "c", "name": "add", "arguments": '{"a": 1}'},
        {"type": "function_call_output", "call_id": "c", "output": "2"},
    ]
    use = {"type": "tool_use", "id": "c", "name": "add", "input": {"a": 1}}
    assert messages.content[1] == [
        asked,
        {"role": "assistant", "content": [{"type": "text", "text": "Let me add."}, use]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c", "content": "2"}]},
    ]


# --- responses ---

CREATED = {"type": "response.created", "response": {"status": "in_progress", "usage": None}}
COUNTS = {"input_tokens": 9, "input_tokens_details": {"cached_tokens": 4}, "output_tokens": 3,
          "output_tokens_details": {"reasoning_tokens": 1}, "total_tokens": 12}  # fmt: skip


def response_text(text: str, kind: str = "output_text") -> dict[str, Any]:
    return {"type": f"response.{kind}.delta", "item_id": "i", "output_index": 0, "delta": text}


def response_end(status: str = "completed", **more: Any) -> dict[str, Any]:
    return {"type": f"response.{status}", "response": {"status": status, "usage": COUNTS, **more}}


def test_a_response_is_asked_for_with_items_and_not_stored() -> None:
    found = body(RESPONSES, ["Hi"], tools=[TOOL])
    assert [item["role"] for item in found["input"]] == ["system", "user", "assistant", "user"]
    assert (found["max_output_tokens"], found["store"], found["stream"]) == (16, False, True)
    assert found["tools"] == [
        {"type": "function", "name": "add", "description": "Adds.", "parameters": {"type": "object"}}
    ]
    assert not {"messages", "max_tokens", "stream_options"} & found.keys()


def test_a_response_s_text_reasoning_and_usage_are_read() -> None:
    reply = said(
        RESPONSES,
        CREATED,
        {"type": "response.output_item.added", "item": {"type": "message", "content": []}},
        response_text("hm ", "reasoning_text"),
        response_text("Hello"),
        response_text(" there"),
        {"type": "response.output_text.done", "text": "Hello there"},
        response_end(),
    )
    assert (reply.text, "".join(reply.answer), reply.answer_event) == ("hm Hello there", "Hello there", 1)
    assert reply.events == [2, 3, 4]
    assert (reply.prompt_tokens, reply.cached_tokens, reply.output_tokens, reply.reasoning_tokens) == (
        9,
        4,
        3,
        1,
    )
    assert (reply.finish_reason, reply.done, reply.problem) == ("stop", True, None)


@pytest.mark.parametrize(
    ("end", "finished"),
    [
        (response_end("incomplete", incomplete_details={"reason": "max_output_tokens"}), "length"),
        (response_end("incomplete", incomplete_details={"reason": "content_filter"}), "content_filter"),
        (response_end("incomplete"), "incomplete"),
        (response_end("completed", incomplete_details=None), "stop"),
    ],
)
def test_why_a_response_ended_is_told_in_chat_s_words(end: dict[str, Any], finished: str) -> None:
    reply = said(RESPONSES, CREATED, response_text("Hi"), end)
    assert (reply.finish_reason, reply.done, reply.completion_tokens) == (finished, True, 3)


@pytest.mark.parametrize(
    ("end", "outcome"),
    [
        (
            {"type": "response.failed", "response": {"error": {"code": "server_error", "message": "boom"}}},
            "server_error",
        ),
        ({"type": "error", "code": "server_error", "message": "boom", "param": None}, "server_error"),
        ({"type": "error", "error": {"type": "x", "message": "boom"}}, "server_error"),
        ({"error": {"message": "boom"}}, "server_error"),
        ({"type": "error", "message": "boom: over the maximum context length"}, "context_full"),
    ],
)
def test_an_error_in_a_response_s_stream_is_the_reply_s_problem(end: dict[str, Any], outcome: str) -> None:
    reply = said(RESPONSES, CREATED, response_text("Hi"), end, response_end())
    assert reply.problem is not None
    assert (reply.problem[0], "boom" in reply.problem[1], reply.done) == (outcome, True, False)
    assert reply.text == "Hi"


def test_a_call_and_a_refusal_are_content_and_whole_text_without_deltas_counts_once() -> None:
    call = said(RESPONSES, response_text('{"a"', "function_call_arguments"), response_end())
    assert (call.tool_calls, call.finish_reason, call.events) == (True, "tool_calls", [0])
    assert said(RESPONSES, response_text("No.", "refusal"), response_end()).text == "No."
    whole = said(RESPONSES, {"type": "response.output_text.done", "text": "All."}, response_end())
    assert (whole.text, whole.events) == ("All.", [0])


# --- messages ---


def start(**usage: Any) -> dict[str, Any]:
    return {"type": "message_start", "message": {"role": "assistant", "usage": usage}}


def delta(kind: str = "text", text: str = "Hi") -> dict[str, Any]:
    return {"type": "content_block_delta", "index": 0, "delta": {"type": f"{kind}_delta", kind: text}}


def stop(reason: str = "end_turn", **usage: Any) -> list[dict[str, Any]]:
    return [
        {"type": "message_delta", "delta": {"stop_reason": reason}, "usage": usage},
        {"type": "message_stop"},
    ]


def test_a_message_is_asked_for_with_its_system_text_apart() -> None:
    found = body(MESSAGES, ["Hi"], tools=[TOOL])
    assert found["system"].endswith(" Be brief.")
    assert [message["role"] for message in found["messages"]] == ["user", "assistant", "user"]
    assert (found["max_tokens"], found["stop_sequences"], found["stream"]) == (16, ["END"], True)
    assert found["tools"] == [{"name": "add", "description": "Adds.", "input_schema": {"type": "object"}}]
    assert not {"stop", "stream_options"} & found.keys()


def test_a_message_s_text_thinking_and_usage_are_read() -> None:
    block = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    reply = said(
        MESSAGES,
        start(input_tokens=5, cache_read_input_tokens=4, cache_creation_input_tokens=2, output_tokens=1),
        {"type": "ping"},
        delta("thinking", "hm "),
        block,
        delta(text="Hello"),
        delta(text=" there"),
        {"type": "content_block_stop", "index": 0},
        *stop("max_tokens", output_tokens=3),
    )
    assert (reply.text, "".join(reply.answer), reply.answer_event) == ("hm Hello there", "Hello there", 1)
    assert reply.events == [2, 4, 5]
    assert (reply.prompt_tokens, reply.cached_tokens, reply.output_tokens) == (11, 4, 3)
    assert (reply.finish_reason, reply.done, reply.problem) == ("length", True, None)


def test_counts_that_come_with_the_end_go_before_those_of_the_start() -> None:
    """vLLM knows no counts at the start and writes 0 there."""
    reply = said(
        MESSAGES, start(input_tokens=0, output_tokens=0), delta(), *stop(input_tokens=7, output_tokens=1)
    )
    assert (reply.prompt_tokens, reply.output_tokens) == (7, 1)


def test_half_a_character_beside_reasoning_ends_no_turn() -> None:
    half = b'{"type": "content_block_delta", "delta": {"text": "\\ud83d", "thinking": "hm"}}'
    reply = said(MESSAGES, start(), half, *stop())
    assert (reply.text, reply.answer, reply.done) == ("hm", [], True)


def test_a_prompt_of_which_nothing_is_counted_is_not_one_of_no_tokens() -> None:
    reply = said(MESSAGES, start(input_tokens=0, output_tokens=0), delta(), *stop(output_tokens=1))
    assert (reply.prompt_tokens, reply.output_tokens) == (None, 1)


def test_a_message_that_broke_off_has_no_count_of_its_output() -> None:
    reply = said(MESSAGES, start(input_tokens=7, output_tokens=1), delta(), delta(), delta())
    assert (reply.completion_tokens, reply.output_tokens, reply.done) == (None, 3, False)


def test_a_tool_s_use_is_a_call() -> None:
    use = {"type": "content_block_start", "content_block": {"type": "tool_use", "name": "add", "input": {}}}
    arguments = {"type": "content_block_delta", "delta": {"type": "input_json_delta", "partial_json": "{"}}
    reply = said(MESSAGES, start(), use, arguments, *stop("tool_use"))
    assert (reply.tool_calls, reply.finish_reason, reply.events) == (True, "tool_calls", [1, 2])


@pytest.mark.parametrize(
    ("message", "outcome"), [("Overloaded", "server_error"), ("prompt is too long: 9 > 8", "context_full")]
)
def test_an_error_event_is_the_message_s_problem(message: str, outcome: str) -> None:
    error = {"type": "error", "error": {"type": "overloaded_error", "message": message}}
    reply = said(MESSAGES, start(), delta(), error)
    assert reply.problem == (outcome, message)


@pytest.mark.parametrize(
    "failure",
    [
        {"type": "error", "error": {"type": "api_error", "message": "boom"}},
        {"type": "error", "message": "boom", "code": 500},
        {"error": "boom"},
        {"object": "error", "message": "boom"},
        {"detail": "boom"},
    ],
    ids=str,
)
@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("name", ["responses", "messages"])
def test_a_failure_of_any_shape_is_found_also_behind_the_end(
    name: str, late: bool, failure: dict[str, Any]
) -> None:
    events = GOOD[name]
    reply = said(DIALECTS[name], *([*events, failure] if late else [*events[:2], failure, *events[2:]]))
    assert reply.problem is not None
    assert (reply.problem[0], "boom" in reply.problem[1], reply.done) == ("server_error", True, False)


@pytest.mark.parametrize("name", ["responses", "messages"])
def test_what_is_odd_and_harmless_is_read(name: str) -> None:
    events = GOOD[name]
    reply = said(DIALECTS[name], *events[:1], b": ping", b"  ", b"null", {"type": "unheard_of"}, *events[1:])
    assert (reply.text, reply.done, reply.problem, reply.oddities) == ("Hi", True, None, {"comments"})
    halves = said(DIALECTS[name], json.dumps(events[1]).replace("Hi", "\\ud83d").encode(), *events[2:])
    assert (halves.text, halves.problem) == ("\ufffd", None)


@pytest.mark.parametrize(
    "halves", [(b"Gr\xc3", b"\xbc"), (b"Gr\\u00fc\\ud83c", b"\\udf0d"), (b"\xf0\x9f", b"\x8c\x8d")]
)
@pytest.mark.parametrize("name", ["responses", "messages"])
def test_characters_split_over_events_are_whole_again(name: str, halves: tuple[bytes, bytes]) -> None:
    begin, text, *end = (json.dumps(each).encode() for each in GOOD[name])
    reply = said(DIALECTS[name], begin, *(text.replace(b"Hi", half) for half in halves), *end)
    whole = b"".join(halves).decode("raw_unicode_escape" if b"u" in halves[1] else "utf-8")
    assert reply.text == whole.encode("utf-16", "surrogatepass").decode("utf-16")
    assert (reply.problem, "split" in reply.oddities) == (None, True)


@pytest.mark.parametrize("count", ["2", 2.0, 0, None, -1, "two"])
def test_counts_of_any_type_are_read_as_far_as_they_can_be_one(count: Any) -> None:
    replies = [
        said(RESPONSES, CREATED, response_text("Hi"), response_end(usage={"output_tokens": count})),
        said(RESPONSES, CREATED, response_text("Hi"), response_end(usage={"completion_tokens": count})),
        said(MESSAGES, start(), delta(), *stop(output_tokens=count)),
    ]
    known = count in ("2", 2.0)
    assert {reply.output_tokens for reply in replies} == {2 if known else 1}
    assert {reply.token_source for reply in replies} == {"usage" if known else "events"}
    assert {"counts" in reply.oddities for reply in replies} == {count is not None}


@pytest.mark.parametrize(
    ("events", "text", "answer"),
    [
        ([response_text("Hm", "reasoning"), response_text("Hi")], "HmHi", 1),
        ([response_text("Hm", "reasoning_summary_text"), response_text("Hi")], "HmHi", 1),
        ([response_text("Hm", "reasoning_content"), response_text("Hi")], "HmHi", 1),
        ([response_text("Hi") | {"delta": {"text": "Hi"}}], "Hi", 0),
        ([response_text("Hi", "content_part") | {"delta": {"text": "Hi"}}], "Hi", 0),
        ([response_text("{}", "custom_tool_call_input")], "", 0),
        ([response_text("{}", "mcp_call_arguments")], "", 0),
        ([{"type": "response.output_item.done", "item": {"type": "function_call", "name": "f"}}], "", 0),
    ],
)
def test_other_servers_names_of_a_response_s_events_are_known(
    events: list[Any], text: str, answer: int
) -> None:
    reply = said(RESPONSES, CREATED, *events, response_end())
    assert (reply.text, reply.answer_event, reply.problem) == (text, answer, None)
    assert reply.tool_calls == (text == "")


def test_a_response_that_is_made_before_any_of_it_is_said_is_read_from_its_end() -> None:
    output = [{"type": "reasoning", "content": None}, {"type": "message", "content": [{"text": "Hi"}]}]
    reply = said(RESPONSES, CREATED, response_end(output=output))
    assert (reply.text, reply.answer_event, reply.output_tokens) == ("Hi", 0, 3)


@pytest.mark.parametrize(
    "more", [{"status": "failed"}, {"error": {"message": "boom"}}, {"status": "cancelled"}]
)
@pytest.mark.parametrize("kind", ["completed", "done"])
def test_a_response_s_end_can_say_that_it_failed(kind: str, more: Any) -> None:
    end = {"type": f"response.{kind}", "response": {"status": "completed", "usage": COUNTS} | more}
    reply = said(RESPONSES, CREATED, response_text("Hi"), end)
    assert reply.problem == ("server_error", "boom" if "error" in more else "the response failed")


@pytest.mark.parametrize(
    ("name", "closing"),
    [
        ("responses", {"type": "response.output_text.done", "text": "Hi"}),
        ("responses", {"type": "response.output_item.done", "item": {"type": "message"}}),
        ("messages", {"type": "content_block_stop", "index": 0}),
    ],
)
def test_the_end_mark_of_chat_ends_an_answer_whose_text_has_ended(name: str, closing: Any) -> None:
    """A gateway writes it behind what broke off, too."""
    events = GOOD[name][:2]
    whole = said(DIALECTS[name], *events, closing, b"[DONE]")
    assert (whole.text, whole.done) == ("Hi", True)
    assert not said(DIALECTS[name], *events, closing).done
    assert not said(DIALECTS[name], *events, b"[DONE]").done


def test_a_message_that_the_server_gave_up_is_no_answer() -> None:
    assert said(MESSAGES, start(), delta(), *stop("error")).problem == (
        "server_error", "the server ended the answer as error"
    )  # fmt: skip
    failed = said(RESPONSES, CREATED, response_text("Hi"), {"type": "response.cancelled", "response": {}})
    assert failed.problem == ("server_error", "the response failed")


def test_a_full_context_is_known_in_anthropic_s_words() -> None:
    assert MESSAGES.refusal(400, "prompt is too long: 210000 tokens > 200000 maximum") == "context_full"
    assert MESSAGES.refusal(400, "`max_tokens` exceed context limit: 1 + 2 > 3") == "context_full"
    assert MESSAGES.refusal(400, "messages: field required") is None


def test_the_key_goes_where_each_dialect_wants_it_and_is_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    for name in DIALECTS:
        settings = Settings(host="http://h", dialect=name)
        found = headers_of(settings)
        assert secrets_of(settings, found).scrubbed("a sk-secret b") == "a *** b"
        if name == "messages":
            assert (found["x-api-key"], found["anthropic-version"]) == ("sk-secret", "2023-06-01")
            assert "Authorization" not in found
        else:
            assert found["Authorization"] == "Bearer sk-secret"


# --- all ---

GOOD = {
    "completions": [{"choices": [{"text": "Hi"}]}, {"choices": [{"text": "", "finish_reason": "stop"}]}],
    "responses": [CREATED, response_text("Hi"), response_end()],
    "messages": [start(input_tokens=1), delta(), *stop(output_tokens=1)],
}
LAST = {"completions": b"data: [DONE]", "responses": None, "messages": None}


@pytest.mark.parametrize("name", GOOD)
async def test_a_turn_of_each_dialect_is_played_and_timed(play: Any, name: str) -> None:
    async def script(peer: Any) -> None:
        await peer.request()
        await peer.head()
        for each in GOOD[name]:
            kind = f"event: {each['type']}\n".encode() if "type" in each else b""
            await peer.chunk(kind + peer.event(each))
        await peer.finish(peer.event("[DONE]") if name == "completions" else b"")

    played = await play(script, dialect=name)
    record = played.record
    assert (record.outcome, record.chars, len(record.event_us)) == ("ok", 2, 1)
    assert played.server.requests[0].startswith(b"POST /v1" + DIALECTS[name].path.encode() + b" ")


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_stream_is_complete_when_its_last_event_is_closed(name: str, end: str) -> None:
    datas = [json.dumps(each) for each in GOOD[name]]
    datas += ["[DONE]"] if name == "completions" else []
    whole = "".join(f"data: {data}{end}{end}" for data in datas).encode()
    dialect = DIALECTS[name]
    assert dialect.is_complete(whole[-4096:])
    assert dialect.is_complete(whole[-4096:] + b"\r\n"), "the end of a chunk"
    assert not dialect.is_complete(whole[: len(whole) // 2])


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda each: st.lists(each, max_size=3) | st.dictionaries(st.text(max_size=5), each, max_size=3),
    max_leaves=6,
)


@st.composite
def mutated(draw: Any) -> tuple[str, list[bytes]]:
    """A good stream with places replaced by any JSON, and its bytes by any bytes."""
    name = draw(st.sampled_from(sorted(GOOD)))
    events = json.loads(json.dumps(GOOD[name]))
    for _ in range(draw(st.integers(0, 3))):
        place: Any = draw(st.sampled_from(events)) if events else {}
        while isinstance(place, dict) and place:
            key = draw(st.sampled_from(sorted(place)))
            if not isinstance(place[key], dict) or draw(st.booleans()):
                place[key] = draw(values)
                break
            place = place[key]
    datas = [json.dumps(each).encode() for each in events]
    if draw(st.booleans()):
        datas.insert(draw(st.integers(0, len(datas))), draw(st.binary(max_size=20) | st.just(b"[DONE]")))
    return name, datas


@given(mutated())
def test_no_stream_makes_a_dialect_raise(case: tuple[str, list[bytes]]) -> None:
    name, datas = case
    reply = DIALECTS[name].read(datas)
    assert len(reply.events) == len(reply.event_tokens) == len(reply.event_words()) == len(reply.parts)
    assert reply.events == sorted(set(reply.events))
    assert all(0 <= place < len(datas) for place in reply.events)
    json.dumps(reply.text).encode()


@given(st.sampled_from(sorted(DIALECTS)), st.binary(max_size=200))
def test_any_bytes_are_complete_or_not(name: str, tail: bytes) -> None:
    assert DIALECTS[name].is_complete(tail) in (True, False)

"""What the emulator says on the wire, by a client that knows only HTTP."""

from __future__ import annotations

import json
from typing import Any

import pytest

STREAMED = {"stream": True, "stream_options": {"include_usage": True, "continuous_usage_stats": True}}


def test_a_stream_begins_with_the_role_alone_and_ends_with_usage_and_done(fixed, make_chat, chunk_text):
    got = fixed.ask(body=make_chat(max_tokens=4, **STREAMED))
    assert got.headers["content-type"].startswith("text/event-stream")
    assert got.events[-1] == "[DONE]"
    first, *middle, usage = got.chunks()
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert [bool(chunk_text(chunk)) for chunk in middle] == [True] * 4
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == 4
    assert usage["usage"]["prompt_tokens"] + 4 == usage["usage"]["total_tokens"]


def test_cumulative_usage_rises_by_one_a_token(fixed, make_chat):
    got = fixed.ask(body=make_chat(max_tokens=5, **STREAMED))
    counts = [chunk["usage"]["completion_tokens"] for chunk in got.chunks()]
    assert counts == [0, 1, 2, 3, 4, 5, 5]


def test_without_stream_options_no_event_carries_usage(fixed, make_chat):
    got = fixed.ask(body=make_chat(max_tokens=3, stream=True))
    assert got.events[-1] == "[DONE]"
    assert not any("usage" in chunk for chunk in got.chunks())


def test_at_the_token_limit_the_last_content_event_carries_length(fixed, make_chat, chunk_text):
    chunks = fixed.ask(body=make_chat(max_tokens=3, stream=True, ignore_eos=True)).chunks()
    assert chunks[-1]["choices"][0]["finish_reason"] == "length"
    assert chunk_text(chunks[-1])
    assert all(chunk["choices"][0]["finish_reason"] is None for chunk in chunks[:-1])


def test_the_stop_token_counts_in_usage_and_is_an_event_without_text(start_emulator, make_chat, chunk_text):
    short = start_emulator("--schedule", "fixed", "--ttft", "2ms", "--itl", "1ms", "--tokens", "3")
    got = short.ask(body=make_chat(max_tokens=50, **STREAMED))
    *_, last, usage = got.chunks()
    assert (chunk_text(last), last["choices"][0]["finish_reason"]) == ("", "stop")
    assert usage["usage"]["completion_tokens"] == 4
    assert len(got.content_arrivals_ns()) == 3
    exact = short.ask(body=make_chat(max_tokens=50, ignore_eos=True))
    assert exact.json()["usage"]["completion_tokens"] == 50
    at_least = short.ask(body=make_chat(max_tokens=50, min_tokens=10)).json()
    assert at_least["usage"]["completion_tokens"] == 11
    assert at_least["choices"][0]["finish_reason"] == "stop"


def test_a_stop_string_cuts_the_text_before_it(fixed, make_chat):
    got = fixed.ask(body=make_chat(max_tokens=400, stop=["e"])).json()["choices"][0]
    assert "e" not in got["message"]["content"]
    assert (got["finish_reason"], got["stop_reason"]) == ("stop", "e")
    streamed = fixed.ask(body=make_chat(max_tokens=400, stop="e", stream=True)).chunks()
    assert "e" not in "".join(chunk["choices"][0]["delta"]["content"] for chunk in streamed)
    assert streamed[-1]["choices"][0]["finish_reason"] == "stop"


def test_an_answer_in_one_piece_has_the_whole_text_and_usage(fixed, make_chat):
    got = fixed.ask(body=make_chat(max_tokens=20)).json()
    assert got["object"] == "chat.completion"
    assert len(got["choices"][0]["message"]["content"].split()) > 8
    assert got["usage"]["completion_tokens"] == 20


def test_a_plain_completion_streams_text_without_a_role(fixed):
    got = fixed.ask("/v1/completions", {"prompt": "Once", "max_tokens": 3, "stream": True})
    assert [chunk["object"] for chunk in got.chunks()] == ["text_completion"] * 3
    assert all(chunk["choices"][0]["text"] for chunk in got.chunks())


@pytest.mark.parametrize("prompt", ["Once", ["Once"], [12, 99]])
def test_a_plain_completion_takes_a_prompt_in_each_form(fixed, prompt):
    got = fixed.ask("/v1/completions", {"prompt": prompt, "max_tokens": 3}).json()
    assert got["usage"]["completion_tokens"] == 3


REFUSED: list[tuple[int, Any]] = [
    (400, b"{not json"),
    (400, b"\xff\xfe"),
    (400, b"[]"),
    (400, {"model": "yi-6b"}),
    (400, {"model": "yi-6b", "messages": []}),
    (400, {"model": "yi-6b", "messages": [{"role": "king", "content": "x"}]}),
    (400, {"model": "yi-6b", "messages": [{"role": "user", "content": 3}]}),
    (400, {"messages": [{"role": "user", "content": "x"}], "max_tokens": "many"}),
    (400, {"messages": [{"role": "user", "content": "x"}], "max_tokens": 0}),
    (400, {"messages": [{"role": "user", "content": "x"}], "max_tokens": 2, "min_tokens": 3}),
    (400, {"messages": [{"role": "user", "content": "x"}], "temperature": -1}),
    (400, {"messages": [{"role": "user", "content": "x"}], "n": 2}),
    (400, {"messages": [{"role": "user", "content": "x"}], "stream_options": {"include_usage": True}}),
    (400, {"messages": [{"role": "user", "content": "x" * 20_000}]}),
    (400, {"messages": [{"role": "user", "content": "x"}], "max_tokens": 4097}),
    (400, {"messages": [{"role": "user", "content": "x"}], "stop": ["a", ""]}),
    (404, {"model": "gpt-9", "messages": [{"role": "user", "content": "x"}]}),
]


@pytest.mark.parametrize(("status", "body"), REFUSED)
def test_a_bad_request_gets_an_error_object(fixed, status, body):
    got = fixed.ask(body=body)
    assert got.status == status
    error = got.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] == status
    assert got.headers["x-turnbench-emulated"] == "1"


def test_an_overflow_names_the_context_length(fixed, make_chat):
    message = fixed.ask(body=make_chat("x" * 20_000)).json()["error"]["message"]
    assert "maximum context length is 4096 tokens" in message


def test_an_answer_longer_than_the_room_beside_its_prompt_ends_where_the_context_does(fixed, make_chat):
    got = fixed.ask(body=make_chat("x" * 16_000, max_tokens=4096, ignore_eos=True)).json()
    assert got["usage"]["total_tokens"] == 4096
    assert got["choices"][0]["finish_reason"] == "length"


ALTERNATE = "Conversation roles must alternate user/assistant/user/assistant/..."


@pytest.mark.parametrize(
    ("model", "said"), [("mistral-7b", ALTERNATE), ("gemma-7b", "System role not supported")]
)
def test_what_a_models_template_refuses_is_refused_in_its_words(start_emulator, model, said):
    emulator = start_emulator("--model", model, "--schedule", "fixed", "--ttft", "1ms", "--itl", "1ms")

    def answer(*roles: str) -> Any:
        messages = [{"role": role, "content": "hello"} for role in roles]
        return emulator.ask(body={"messages": messages, "max_tokens": 2}).json()

    assert answer("system", "user")["error"]["message"] == said
    assert answer("user", "user")["error"]["message"] == ALTERNATE
    assert answer("assistant", "user")["error"]["message"] == ALTERNATE
    assert answer("user", "assistant", "user")["choices"]


def test_tokenize_counts_as_usage_does_and_knows_both_forms(fixed, make_chat):
    asked = make_chat("How many tokens is this?")
    counted = fixed.ask("/tokenize", asked).json()
    assert counted["count"] == fixed.ask(body={**asked, "max_tokens": 1}).json()["usage"]["prompt_tokens"]
    words = fixed.ask("/tokenize", {"prompt": "Once upon a time", "return_token_strs": True}).json()
    assert words["token_strs"] == ["Once", " upo", "n a ", "time"]
    assert words["max_model_len"] == 4096
    assert all(0 <= number < 64_000 for number in words["tokens"])
    assert fixed.ask("/tokenize", {"prompt": "Once", "model": "gpt-9"}).status == 404
    assert fixed.ask("/tokenize", {"model": "yi-6b"}).json()["error"]["param"] == "body.prompt"


def test_only_in_developers_mode_can_the_prefix_cache_be_emptied(start_emulator, fixed, make_chat):
    assert fixed.ask("/reset_prefix_cache").status == 404
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_SERVER_DEV_MODE", "1")
        emulator = start_emulator("--hardware", "h200-141gb")

    def cached() -> int:
        usage = emulator.ask(body=make_chat("Tell me of the sea. " * 30, max_tokens=2)).json()["usage"]
        return int(usage["prompt_tokens_details"]["cached_tokens"])

    assert (cached(), cached() > 100) == (0, True)
    assert emulator.ask("/reset_prefix_cache").json() == {"success": True}
    assert cached() == 0


def test_every_path_says_that_it_is_emulated(fixed):
    pages = {"/health": 200, "/version": 200, "/v1/models": 200, "/metrics": 200, "/nothing": 404}
    for path, status in pages.items():
        got = fixed.get(path)
        assert (got.status, got.headers["x-turnbench-emulated"]) == (status, "1"), path
    assert fixed.get("/v1/chat/completions").status == 405
    assert fixed.get("/version").json() == {"version": "turnbench-emulator/0.1.0"}
    (model,) = fixed.get("/v1/models").json()["data"]
    assert (model["id"], model["owned_by"]) == ("yi-6b", "turnbench-emulator")
    assert model["max_model_len"] == 4096


def test_the_metrics_count_what_was_served(start_emulator, make_chat):
    emulator = start_emulator("--schedule", "fixed", "--ttft", "1ms", "--itl", "1ms")
    for _ in range(3):
        emulator.ask(body=make_chat(max_tokens=7))
    assert emulator.metric("generation_tokens_total") == 21
    assert emulator.metric("prompt_tokens_total") == 3 * 9
    assert emulator.metric("num_requests_running") == 0
    assert 'finished_reason="length"} 3.0' in emulator.get("/metrics").body.decode()


def test_pieces_of_text_need_no_escaping_and_count_as_words(fixed, make_chat):
    got = fixed.ask(body=make_chat(max_tokens=2000))
    text = json.loads(got.body)["choices"][0]["message"]["content"]
    assert 1200 < len(text.split()) < 2000
    assert text.replace(" ", "").replace(",", "").replace(".", "").replace(";", "").isalpha()


# --- responses and messages ---

TYPED = {
    "/v1/responses": {"model": "yi-6b", "input": "hello", "max_output_tokens": 5},
    "/v1/messages": {"model": "yi-6b", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 5},
}


@pytest.mark.parametrize("path", TYPED)
def test_every_event_says_its_type_twice_and_has_a_token(fixed, path):
    got = fixed.ask(path, {**TYPED[path], "stream": True})
    named = [line[7:] for line in got.body.decode().split("\n") if line.startswith("event: ")]
    assert [event["type"] for event in got.chunks()] == named
    said = [event["delta"] for event in got.chunks() if event["type"].endswith("_text.delta")]
    said += [event["delta"]["text"] for event in got.chunks() if event["type"] == "content_block_delta"]
    assert len(said) == 5
    whole = fixed.ask(path, TYPED[path]).json()
    content = whole["content"] if path == "/v1/messages" else whole["output"][0]["content"]
    assert (content[0]["type"], bool(content[0]["text"])) in [("text", True), ("output_text", True)]


def test_the_three_dialects_of_a_conversation_count_the_same_prompt(fixed, make_chat):
    usage = [fixed.ask(path, body).json()["usage"] for path, body in TYPED.items()]
    chat = fixed.ask(body=make_chat(max_tokens=5)).json()["usage"]
    assert usage[0]["input_tokens"] == chat["prompt_tokens"]
    cached = usage[1]["cache_read_input_tokens"]
    assert usage[1]["input_tokens"] + cached == chat["prompt_tokens"]


def test_a_history_with_tools_parts_and_a_system_text_is_one_prompt(fixed):
    items = [
        {"role": "user", "content": [{"type": "input_text", "text": "What is 1 + 1?"}]},
        {"type": "function_call", "call_id": "c", "name": "add", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "2"},
    ]
    got = fixed.ask("/v1/responses", {"input": items, "instructions": "Be brief.", "max_output_tokens": 3})
    assert got.json()["usage"]["output_tokens"] == 3
    blocks = [
        {"role": "user", "content": "What is 1 + 1?"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "c", "name": "add", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c", "content": "2"}]},
    ]
    body = {"model": "yi-6b", "messages": blocks, "system": [{"type": "text", "text": "Be brief."}]}
    assert fixed.ask("/v1/messages", {**body, "max_tokens": 3}).json()["usage"]["output_tokens"] == 3


@pytest.mark.parametrize(
    "body",
    [
        {"messages": [{"role": "user", "content": "x"}], "max_tokens": 4},
        {"model": "yi-6b", "messages": [{"role": "user", "content": "x"}]},
        {"model": "yi-6b", "messages": [], "max_tokens": 4},
        {"model": "yi-6b", "messages": [{"role": "king", "content": "x"}], "max_tokens": 4},
        {"model": "yi-6b", "messages": [{"role": "user", "content": 3}], "max_tokens": 4},
        {"model": "yi-6b", "messages": [{"role": "user", "content": "x"}], "max_tokens": 0},
    ],
)
def test_a_message_that_can_t_be_answered_is_refused_in_its_api_s_form(fixed, body):
    got = fixed.ask("/v1/messages", body)
    assert (got.status, got.json()["type"]) == (400, "error")
    assert got.json()["error"]["message"]


@pytest.mark.parametrize("body", [{}, {"input": []}, {"input": [{"type": "odd"}]}, {"input": ["x"]}])
def test_a_response_that_can_t_be_made_is_refused(fixed, body):
    got = fixed.ask("/v1/responses", body)
    assert (got.status, bool(got.json()["error"]["message"])) == (400, True)


def test_a_key_may_come_as_anthropic_s_clients_send_it(start_emulator, monkeypatch):
    monkeypatch.setenv("EMULATOR_KEY", "let-me-in")
    guarded = start_emulator(
        "--schedule", "fixed", "--ttft", "2ms", "--itl", "1ms", "--api-key-env", "EMULATOR_KEY"
    )
    body = TYPED["/v1/messages"]
    assert guarded.ask("/v1/messages", body, x_api_key="let-me-in").status == 200
    assert guarded.ask("/v1/messages", body, x_api_key="let-them-in").status == 401
    assert guarded.ask("/v1/messages", body).status == 401

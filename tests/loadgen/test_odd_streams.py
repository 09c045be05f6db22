"""Streams as servers are known to send them: what is odd is read, what failed is a failure by its name.

Each kind stands here with the form in which somebody met it, and with others of its kind.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from loadgen.dialects import DIALECTS, ODDITIES, StreamedReply, _chat
from loadgen.transport._exchange import outcome_of, read_reply
from loadgen.transport._read_log import ReadLog, body_of

DONE = b"data: [DONE]\n\n"


def chunk(finish: Any = None, index: Any = 0, **delta: Any) -> bytes:
    return data({"choices": [{"index": index, "delta": delta, "finish_reason": finish}]})


def data(value: Any) -> bytes:
    return b"data: " + (value if isinstance(value, bytes) else json.dumps(value).encode()) + b"\n\n"


def said(*texts: Any) -> bytes:
    return b"".join(chunk(content=text) for text in texts)


ROLE = chunk(role="assistant", content="")
STOP = chunk(finish="stop")
USAGE = data({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 3}})


def logged(body: bytes) -> ReadLog:
    log = ReadLog()
    log.add(b"HTTP/1.1 200 OK\r\n\r\n" + body, 1, 0)
    return log


def read(body: bytes) -> StreamedReply:
    return read_reply(body_of(logged(body), chunked=False), DIALECTS["chat"])


def outcome(body: bytes) -> tuple[str, str | None]:
    return outcome_of(read(body), logged(body))


FAILURES = {
    "error": data({"error": {"message": "engine died", "code": 500}}),
    "error as text": data({"error": "engine died", "error_type": "generation"}),
    "object error": data({"object": "error", "message": "engine died", "type": "X", "code": 500}),
    "type error": data({"type": "error", "message": "engine died"}),
    "event error": b'event: error\ndata: {"message": "engine died", "status": 503}\n\n',
    "event error in words": b"event: error\ndata: engine died\n\n",
    "event error, CRLF": b"event:error\r\ndata: engine died\r\n\r\n",
    "event error, unclosed": b"event: error\ndata: engine died",
    "bare JSON": b'{"error": "engine died", "error_type": "val"}',
    "bare JSON over lines": b'{\n  "error": {\n    "message": "engine died"\n  }\n}\n',
    "bare list": b'[{"error": {"code": 500, "message": "engine died"}}]\n\n',
    "unclosed": b'data: {"error": {"message": "engine died"}}',
    "detail": data({"detail": "engine died"}),
    "detail of a field": data({"detail": [{"loc": ["body"], "msg": "engine died", "type": "value_error"}]}),
    "a code": data({"code": "InternalError", "message": "engine died"}),
    "a status": data({"status": 500, "msg": "engine died"}),
    "a status in a word": data({"status": "dead", "msg": "engine died"}),
    "status_code deep": data({"base_resp": {"status_code": 1013, "status_msg": "engine died"}}),
    "code in a header": data({"header": {"code": 10013, "message": "engine died", "status": 2}}),
    "Error deep": data({"Response": {"Error": {"Code": "Busy", "Message": "engine died"}, "RequestId": "x"}}),
    "error_code and error_msg": data({"id": "x", "error_code": 336003, "error_msg": "engine died"}),
    "Message": data({"ErrorCode": "ModelError", "Message": "engine died"}),
    "an exception's name": data({"modelStreamErrorException": {"message": "engine died"}}),
    "a kind and a message": data({"__type": "ThrottlingException", "message": "engine died"}),
    "a type that is bad": data({"type": "overloaded", "message": "engine died"}),
    "fault": data({"fault": {"faultstring": "engine died", "detail": {"errorcode": "x"}}}),
    "error in place of data": b'error: {"code": 500, "message": "engine died", "type": "server_error"}\n\n',
    "in the choice": data(
        {"choices": [{"delta": {}, "finish_reason": None, "error": {"code": 502, "message": "engine died"}}]}
    ),
    "in the choice that ends": data(
        {
            "choices": [
                {"delta": {"content": ""}, "finish_reason": "error", "error": {"message": "engine died"}}
            ]
        }
    ),
    "beside choices by another name": data({"id": "x", "choices": [], "detail": "engine died"}),
    "data twice": b"data: " + data({"error": {"message": "engine died"}}),
    "beside choices": data({"choices": [], "error": {"message": "engine died"}}),
    "in a last chunk": data(
        {"choices": [{"delta": {}, "finish_reason": "error"}], "error": {"message": "engine died"}}
    ),
    "two": data({"error": "engine died"}) + data({"error": "and again"}),
}


@pytest.mark.parametrize("end", [b"", DONE, STOP + USAGE + DONE], ids=["last", "before DONE", "before all"])
@pytest.mark.parametrize("begin", [b"", ROLE + said("Half", " an")], ids=["first", "after content"])
@pytest.mark.parametrize("how", FAILURES)
def test_a_failure_in_any_shape_and_place_is_one_with_the_servers_words(
    how: str, begin: bytes, end: bytes
) -> None:
    failure = FAILURES[how]
    if end and not failure.endswith(b"\n\n"):
        failure += b"\n\n"
    assert outcome(begin + failure + end) == ("server_error", "engine died")
    assert len(read(begin + failure + end).events) == (2 if begin else 0)


def test_an_error_event_without_a_word_is_a_failure() -> None:
    assert outcome(said("Hi") + b"event: error\n\n") == ("server_error", "an error event without a word")


@pytest.mark.parametrize("how", ["error", "event error", "object error"])
def test_a_failure_after_the_end_mark_is_one_too(how: str) -> None:
    assert outcome(said("Hi") + STOP + DONE + FAILURES[how])[0] == "server_error"


@pytest.mark.parametrize("depth", [100, 600, 900])
def test_lists_in_lists_behind_the_end_mark_are_passed_over(depth: int) -> None:
    assert outcome(said("Hi") + STOP + DONE + data(b"[" * depth + b"]" * depth)) == ("ok", None)


@pytest.mark.parametrize("reason", ["error", "abort", "aborted", "cancelled", "engine_error"])
def test_a_finish_reason_can_say_that_it_failed(reason: str) -> None:
    found, words = outcome(said("Hi") + chunk(finish=reason) + DONE)
    assert (found, reason in (words or "")) == ("server_error", True)


@pytest.mark.parametrize(
    "nothing",
    [
        *(
            {"error": None},
            {"error": ""},
            {"error": {}},
            {"type": "ping"},
            {"status": "ok"},
            {"status": "thinking"},
            {"code": "\u00b2"},
            {"id": "x", "status": "generating", "code": "warm"},
            {"id": "x"},
            None,
        ),
        *({"error": {"code": 0, "message": ""}}, {"error": {"code": None, "message": "success"}}),
        *({"error_code": 0, "error_msg": ""}, {"header": {"code": 0, "message": "Success", "status": 1}}),
        *({"type": "status", "message": "Loading"}, {"tool": "search", "message": "Searching", "emoji": "?"}),
        *({"choices": [], "prompt_filter_results": [{"prompt_index": 0}]}, {"choices": [], "error": "none"}),
    ],
    ids=json.dumps,
)
def test_what_only_looks_like_a_failure_is_none(nothing: Any) -> None:
    assert outcome(said("Hi") + data(nothing) + STOP + DONE) == ("ok", None)


CONTEXT_FULL = [
    "This model's maximum context length is 4096 tokens. However, you asked for 5000 tokens.",
    "Input length (7001 tokens) exceeds the maximum allowed length (5368 tokens).",
    "The input (9001 tokens) is longer than the model's context length (8192 tokens).",
    "the request exceeds the available context size (4096 tokens), try increasing it",
    "Requested tokens (5000) exceed context window of 2048",
    "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000 `inputs` tokens",
    "Input validation error: `inputs` must have less than 1024 tokens. Given: 2000",
    "prompt length (7000) exceeds maximum input length (4096)",
    "The sum of prompt length (4096.0), query length (0) should not exceed max_num_tokens (2048)",
    "prompt is too long: 208310 tokens > 200000 maximum",
    "The input token count (40000) exceeds the maximum number of tokens allowed (32768).",
    "However, the model is loaded with context length of only 4096 tokens, which is not enough",
    "litellm.ContextWindowExceededError: no fallback",
    "Request prompt has 9000 tokens in total, larger than the model input length limit 8192.",
]


@pytest.mark.parametrize("words", CONTEXT_FULL)
@pytest.mark.parametrize("status", [400, 413, 422, 500])
def test_a_full_context_is_known_in_every_servers_words_and_statuses(words: str, status: int) -> None:
    assert DIALECTS["chat"].refusal(status, json.dumps({"error": {"message": words}})) == "context_full"
    assert outcome(said("Hi") + data({"error": {"message": words}}) + DONE) == ("context_full", words)


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (429, "Request too large: maximum context length of 8000 tokens"),
        (413, "Request too large for model on tokens per minute (TPM): Limit 6000, Requested 9000 tokens"),
        (400, "max_tokens is too large: 99999. This model supports at most 16384 completion tokens"),
        (413, "<html><head><title>413 Request Entity Too Large</title></head></html>"),
        (500, "CUDA out of memory"),
        (400, "temperature must be less than 2"),
    ],
)
def test_other_refusals_are_no_full_context(status: int, words: str) -> None:
    assert DIALECTS["chat"].refusal(status, words) is None


LENIENT: dict[str, tuple[bytes, str, list[str], str]] = {
    "content null": (chunk(content=None), "Hi", ["Hi"], ""),
    "parts": (said([{"type": "text", "text": "So "}]), "So Hi", ["So ", "Hi"], "parts"),
    "parts as texts": (said(["S", "o "]), "So Hi", ["So ", "Hi"], "parts"),
    "one part": (said({"type": "text", "text": "So "}), "So Hi", ["So ", "Hi"], "parts"),
    "a part without text": (said([{"type": "image", "url": "x"}]), "Hi", ["Hi"], "parts"),
    "thinking parts": (
        said([{"type": "thinking", "thinking": [{"type": "text", "text": "So "}]}]), "So Hi", ["Hi"], "parts",
    ),
    "reasoning parts": (said([{"type": "reasoning", "text": "So "}]), "So Hi", ["Hi"], "parts"),
    "refusal": (chunk(refusal="No. "), "No. Hi", ["No. ", "Hi"], ""),
    "message": (data({"choices": [{"message": {"content": "So "}}]}), "So Hi", ["So ", "Hi"], ""),
    "message beside a delta": (
        data({"choices": [{"delta": {"content": "So "}, "message": {"content": "All so "}}]}),
        "So Hi", ["So ", "Hi"], "",
    ),
    "no choice": (data({"choices": [None]}), "Hi", ["Hi"], "types"),
    "reasoning by other names": (
        chunk(thinking="So ") + chunk(reasoning_text="I ") + chunk(reasoning="am ", reasoning_content="am "),
        "So I am Hi", ["Hi"], "",
    ),
    "reasoning_details": (
        chunk(reasoning_details=[{"type": "reasoning.text", "text": "So "}, {"type": "reasoning.encrypted"}]),
        "So Hi", ["Hi"], "",
    ),
    "reasoning_details beside": (
        chunk(reasoning="So ", reasoning_details=[{"type": "reasoning.summary", "summary": "So "}]),
        "So Hi", ["Hi"], "",
    ),
    "reasoning as an object": (chunk(reasoning={"content": "So "}), "So Hi", ["Hi"], "parts"),
    "finish reason null as text": (chunk(finish="null", content="So "), "So Hi", ["So ", "Hi"], ""),
    "data twice": (b"data: " + said("So "), "So Hi", ["So ", "Hi"], "doubled"),
    "data twice, three lines": (
        b"data: " + said("So ").replace(b"\n\n", b"\r\ndata: \r\ndata: \r\n\r\n"),
        "So Hi", ["So ", "Hi"], "doubled",
    ),
    "one line end": (said("So ", "so ").replace(b"\n\n", b"\n"), "So so Hi", ["So ", "so ", "Hi"], "lines"),
    "one line end, CRLF": (
        said("So ", "so ").replace(b"\n\n", b"\r\n"), "So so Hi", ["So ", "so ", "Hi"], "lines",
    ),
    "index null": (chunk(index=None, content="So "), "So Hi", ["So ", "Hi"], "types"),
    "finish reason empty": (chunk(finish="", content="So "), "So Hi", ["So ", "Hi"], ""),
    "finish reason an object": (chunk(finish={"type": "stop"}, content="a"), "aHi", ["a", "Hi"], "types"),
    "comment as data": (b"data: : OPENROUTER PROCESSING\n\n", "Hi", ["Hi"], "comments"),
    "ping as data": (b"data: ping\n\ndata: null\n\n", "Hi", ["Hi"], "comments"),
}  # fmt: skip


@pytest.mark.parametrize("how", LENIENT)
def test_what_is_odd_and_harmless_is_read(how: str) -> None:
    odd, text, answer, name = LENIENT[how]
    reply = read(odd + said("Hi") + STOP + USAGE + DONE)
    assert outcome_of(reply, ReadLog()) == ("ok", None)
    assert (reply.text, reply.answer) == (text, answer)
    assert (name in reply.oddities) if name else not reply.oddities
    assert reply.oddities <= ODDITIES.keys()


def test_thinking_parts_are_reasoning() -> None:
    thought = [{"type": "thinking", "thinking": [{"type": "text", "text": "Sum"}]}]
    reply = read(ROLE + said(thought, thought, [{"type": "text", "text": "Four"}], ".") + STOP + DONE)
    assert (reply.answer_event, reply.answer, reply.text) == (2, ["Four", "."], "SumSumFour.")


@pytest.mark.parametrize(
    ("texts", "event", "answer"),
    [
        (["<think>", "\nthe user greets", "\n</think>\n\n", "Good", " day."], 3, "Good day."),
        (["<thi", "nk>Hm</th", "ink>Good"], 2, "Good"),
        (["the user", " greets</think>", "Good"], 2, "Good"),
        (["[THINK]Hm[/THINK]", "Good"], 1, "Good"),
        (["<think></think>Good"], 0, "Good"),
        (["<think>", "never ends"], None, ""),
        (
            [
                "<|channel|>analysis<|message|>",
                "Hm",
                "<|end|><|start|>assistant",
                "<|channel|>final<|message|>Good",
            ],
            3,
            "Good",
        ),
        (["<|channel|>analysis<|message|>", "never ends"], None, ""),
        (["analysis", "The user greets.", "assistantfinal", "Good", " day."], 3, "Good day."),
        (["<|START_THINKING|>Hm<|END_THINKING|>", "<|START_RESPONSE|>", "Good"], 2, "Good"),
        (["<|begin_of_thought|>", "Hm<|end_of_thought|>", "\n\nGood"], 2, "Good"),
    ],
)
def test_thinking_in_tags_is_reasoning(texts: list[str], event: int | None, answer: str) -> None:
    reply = read(ROLE + said(*texts) + STOP + DONE)
    assert (reply.answer_event, "".join(reply.answer)) == (event, answer)
    assert (reply.text, reply.oddities) == ("".join(texts), {"tags"})


@pytest.mark.parametrize("text", ["a < b", "use <p> here", "I think>so"])
def test_other_tags_are_text(text: str) -> None:
    reply = read(said(text, "!") + STOP + DONE)
    assert (reply.answer_event, reply.answer, reply.oddities) == (0, [text, "!"], set())


@pytest.mark.parametrize(
    "order", [[(0, "AA"), (1, "BB"), (0, " aa"), (1, " bb")], [(1, "BB"), (0, "AA"), (1, " bb"), (0, " aa")]]
)
def test_choices_are_kept_apart(order: list[tuple[int, str]]) -> None:
    body = b"".join(chunk(index=index, content=text) for index, text in order)
    body += chunk(index=1, finish="stop") + chunk(index=0, finish="length")
    reply = read(body + data({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 4}}) + DONE)
    assert (reply.text, reply.finish_reason, reply.oddities) == ("AA aa", "length", {"choices"})
    assert (reply.output_tokens, reply.token_source) == (2, "events")  # 4 were those of both


def test_choices_of_one_event_are_kept_apart() -> None:
    both = [{"index": 1, "delta": {"content": "BB"}}, {"index": 0, "delta": {"content": "AA"}}]
    ends = [
        {"index": 1, "delta": {}, "finish_reason": "stop"},
        {"index": 0, "delta": {}, "finish_reason": "length"},
    ]
    reply = read(data({"choices": both}) + data({"choices": ends}) + DONE)
    assert (reply.text, reply.finish_reason) == ("AA", "length")


def test_choices_are_looked_for_once_a_reply(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else two answers of 4,000 tokens would hold the engine for a second."""
    looks = []
    monkeypatch.setattr(_chat, "choice_of_answer", lambda chunks, oddities: looks.append(len(chunks)) or 0)
    body = b"".join(chunk(index=index, content="w ") for _ in range(50) for index in (0, 1))
    assert read(body + STOP + DONE).text == "w " * 50
    assert looks == [101]


def test_one_choice_of_another_index_is_the_answer() -> None:
    reply = read(chunk(index=3, content="AA") + chunk(index=3, finish="stop") + DONE)
    assert (reply.text, reply.oddities) == ("AA", set())


@pytest.mark.parametrize(
    ("usage", "prompt", "output"),
    [
        (None, None, None),
        ({"prompt_tokens": None, "completion_tokens": None}, None, None),
        ({"prompt_tokens": 7.0, "completion_tokens": 9.0}, 7, 9),
        ({"prompt_tokens": "7", "completion_tokens": " 9 "}, 7, 9),
        ({"prompt_tokens": -7, "completion_tokens": -9}, None, None),
        ({"prompt_tokens": 7, "completion_tokens": 10**30}, 7, None),
        ({"prompt_tokens": 7, "completion_tokens": True}, 7, None),
        ({"prompt_tokens": 7, "completion_tokens": 2.5}, 7, None),
        ({"prompt_tokens": 7, "completion_tokens": [9]}, 7, None),
        ("9 tokens", None, None),
        ({"input_tokens": 7, "output_tokens": 9}, 7, 9),
        ({"prompt_tokens": 7, "completion_tokens": 9, "prompt_tokens_details": "none"}, 7, 9),
        ({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}, None, None),
    ],
    ids=lambda value: json.dumps(value)[:40],
)
def test_usage_of_any_type_is_read_as_far_as_it_can_be_one(usage: Any, prompt: int, output: int) -> None:
    reply = read(said("a", "b", "c") + STOP + data({"choices": [], "usage": usage}) + DONE)
    assert outcome_of(reply, ReadLog()) == ("ok", None)
    assert (reply.prompt_tokens, reply.completion_tokens) == (prompt, output)
    assert reply.output_tokens == (3 if output is None else output)


@pytest.mark.parametrize(
    ("usage", "output", "reasoning", "name"),
    [
        ({"completion_tokens": 5, "total_tokens": 112, "reasoning_tokens": 100}, 105, 100, "apart"),
        ({"completion_tokens": 5, "completion_tokens_details": {"reasoning_tokens": 100}}, 105, 100, "apart"),
        ({"completion_tokens": 105, "total_tokens": 112, "reasoning_tokens": 100}, 105, 100, ""),
        ({"completion_tokens": 105, "completion_tokens_details": {"reasoning_tokens": 100}}, 105, 100, ""),
    ],
)
def test_reasoning_is_among_the_tokens_that_were_made(
    usage: Any, output: int, reasoning: int, name: str
) -> None:
    """xAI counts it apart, others in."""
    reply = read(said("a") + STOP + data({"choices": [], "usage": {"prompt_tokens": 7} | usage}) + DONE)
    assert (reply.output_tokens, reply.reasoning_tokens, reply.prompt_tokens) == (output, reasoning, 7)
    assert reply.oddities == ({name} if name else set())


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens_details": {"cached_tokens": 64}},
        {"prompt_cache_hit_tokens": 64, "prompt_cache_miss_tokens": 20},
        {"cached_tokens": 64},
        {"cache_read_input_tokens": 64, "prompt_tokens_details": None},
    ],
)
def test_what_a_cache_held_is_known_by_every_server_s_name(usage: Any) -> None:
    counts = {"prompt_tokens": 84, "completion_tokens": 1} | usage
    reply = read(said("a") + STOP + data({"choices": [], "usage": counts}) + DONE)
    assert (reply.cached_tokens, reply.prompt_tokens, reply.output_tokens) == (64, 84, 1)


@pytest.mark.parametrize("so_far", [0, 1, 2])
def test_counts_of_an_answer_s_beginning_are_no_total(so_far: int) -> None:
    usage = {"prompt_tokens": 9, "completion_tokens": so_far}
    first = data({"choices": [{"delta": {"content": "a"}}], "usage": usage})
    reply = read(first + said("b", "c") + STOP + DONE)
    assert (reply.prompt_tokens, reply.output_tokens, reply.token_source) == (9, 3, "events")
    assert reply.oddities == {"counts"}


@pytest.mark.parametrize(
    "last",
    [
        {"choices": [], "x_groq": {"usage": {"prompt_tokens": 7, "completion_tokens": 9}}},
        {"choices": [], "timings": {"prompt_n": 7, "predicted_n": 9, "predicted_ms": 5.5}},
        {"choices": [], "timings": {"prompt_n": 1, "cache_n": 6, "predicted_n": 9}},
        {"choices": [{"delta": {}, "usage": {"prompt_tokens": 7, "completion_tokens": 9}}]},
    ],
    ids=["x_groq", "timings", "timings beside a cache", "in the choice"],
)
def test_usage_under_another_name_is_found(last: Any) -> None:
    reply = read(said("a", "b") + STOP + data(last) + DONE)
    assert (reply.prompt_tokens, reply.completion_tokens, reply.oddities) == (7, 9, {"renamed"})


@pytest.mark.parametrize("total", [1, 6])
def test_counts_of_each_event_are_added_up(total: int) -> None:
    def counted(text: str, count: int) -> bytes:
        usage = {"prompt_tokens": 5, "completion_tokens": count}
        return data({"choices": [{"delta": {"content": text}}], "usage": usage})

    body = b"".join(
        counted(text, count) for text, count in [("a", 1), ("b", 1), ("c", 2), ("d", 1), ("e", 1)]
    )
    reply = read(body + STOP + (counted("", total) if total > 1 else b"") + DONE)
    assert (reply.event_tokens, reply.output_tokens) == ([1, 1, 2, 1, 1], 6)
    assert "increments" in reply.oddities


@pytest.mark.parametrize(
    ("texts", "whole"),
    [
        (["New", " York", "New York is", " a", "New York is a city"], "New York is a city"),
        (["A", "A b", "A b c", "A b c d"], "A b c d"),
        (["Four ", "five", "Four five", "Four five six"], "Four five six"),
        (["Hello", "Hello there", "Hello there,", "Hello there, you"], "Hello there, you"),
        (["Hello" + " x" * n for n in range(40)], "Hello" + " x" * 39),
    ],
)
def test_text_that_is_repeated_is_kept_once(texts: list[str], whole: str) -> None:
    reply = read(ROLE + said(*texts) + STOP + DONE)
    assert (reply.text, reply.oddities) == (whole, {"repeats"})
    assert "".join(reply.answer) == whole
    assert reply.output_tokens == len(reply.events)


def test_reasoning_that_is_repeated_is_kept_once() -> None:
    thoughts = ["Let me", "Let me see", "Let me see.", "Let me see."]
    reply = read(b"".join(chunk(reasoning=text) for text in thoughts) + said("Four", ".") + STOP + DONE)
    assert (reply.text, reply.answer, reply.oddities) == ("Let me see.Four.", ["Four", "."], {"repeats"})
    assert reply.parts == ["Let me", " see", ".", "Four", "."]


def test_reasoning_that_says_what_the_answer_says_does_not_change_it() -> None:
    said_so = chunk(reasoning="I say It is so")
    reply = read(said("It", "It is") + said_so + said("It is so") + STOP + DONE)
    assert reply.parts == ["It", " is", "I say It is so", " so"]


def test_answers_and_reasoning_that_both_repeat_are_each_kept_once() -> None:
    odd = [{"content": "qq"}, {"content": "qqq"}, {"reasoning": "qqqq"}, {"reasoning": "qqqqq"},
           {"content": "qqqqqq"}, {"reasoning": "qqqqqqq"}]  # fmt: skip
    reply = read(b"".join(chunk(**each) for each in odd) + STOP + DONE)
    assert reply.problem is None
    assert sorted(reply.text) == ["q"] * len(reply.text)


@pytest.mark.parametrize(
    "texts",
    [
        ["ha", "ha", " ha"],
        ["no", "now"],
        ["1", "10"],
        ["12", "1", "12"],
        ["0", "0", "000"],
        ["ab", "abab", "ababab"],
    ],
)
def test_text_that_repeats_itself_by_chance_is_kept(texts: list[str]) -> None:
    reply = read(said(*texts) + STOP + DONE)
    assert (reply.text, reply.oddities) == ("".join(texts), set())


@pytest.mark.parametrize(
    "pieces",
    [
        [b"Gr\xc3", b"\xbc\xc3\x9fe \xf0\x9f", b"\x8c", b"\x8d"],
        ["Gr\u00fc\u00dfe \\ud83c".encode(), b"\\udf0d"],
        ["Gr\u00fc\u00dfe ".encode(), b"\\uD83C", b"\\uDF0D"],
    ],
    ids=["UTF-8", "surrogates", "surrogates alone"],
)
def test_characters_split_over_events_are_whole_again(pieces: list[bytes]) -> None:
    body = b"".join(data(b'{"choices":[{"delta":{"content":"' + piece + b'"}}]}') for piece in pieces)
    reply = read(body + STOP + DONE)
    assert outcome_of(reply, ReadLog()) == ("ok", None)
    assert (reply.text, "split" in reply.oddities) == ("Gr\u00fc\u00dfe \U0001f30d", True)


@pytest.mark.parametrize("piece", [b"\\ud83c", b"\\udf0d", b"\xc3"], ids=["high", "low", "half of UTF-8"])
def test_half_a_character_can_be_written_down(piece: bytes) -> None:
    reply = read(data(b'{"choices":[{"delta":{"content":"a' + piece + b'"}}]}') + STOP + DONE)
    assert reply.text == "a\ufffd"
    reply.text.encode()


@pytest.mark.parametrize("reason", ["null", "None", "NOT_FINISHED", "FINISH_REASON_UNSPECIFIED"])
def test_an_answer_that_breaks_off_is_truncated_whatever_its_events_call_their_end(reason: str) -> None:
    assert outcome(chunk(finish=reason, content="Hi"))[0] == "truncated"


@pytest.mark.parametrize("reason", ["length", "MAX_TOKENS", "max_tokens", "model_length", "max_new_tokens"])
def test_reasoning_that_its_limit_cut_is_an_answer_in_every_servers_words(reason: str) -> None:
    assert outcome(chunk(reasoning_content="So") + chunk(finish=reason) + DONE) == ("ok", None)


@pytest.mark.parametrize("end", [b"", DONE, b"data: [DONE]\n"], ids=["no end", "blank line", "line end"])
def test_a_stream_without_a_blank_line_is_read_line_by_line(end: bytes) -> None:
    body = (ROLE + said("So", " so") + STOP + USAGE).replace(b"\n\n", b"\n")
    reply = read(body + end)
    assert (outcome_of(reply, ReadLog()), reply.text, reply.output_tokens) == (("ok", None), "So so", 3)
    assert "lines" in reply.oddities


def test_an_object_over_several_lines_is_one() -> None:
    lines = json.dumps({"choices": [{"delta": {"content": "Hi"}}]}, indent=1).encode().split(b"\n")
    reply = read(b"".join(b"data: " + line + b"\n" for line in lines) + b"\n" + STOP + DONE)
    assert (reply.text, reply.oddities) == ("Hi", set())


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (ROLE + STOP + USAGE + DONE, "the reply had no content"),
        (chunk() + chunk(finish="length") + DONE, "the reply had no content and ended as length"),
        (
            ROLE + chunk(finish="content_filter") + DONE,
            "the reply had no content and ended as content_filter",
        ),
        (DONE, "the reply had no content"),
        (USAGE + DONE, "the reply had no content"),
    ],
    ids=["of a full context", "cut", "filtered", "nothing", "counts alone"],
)
def test_a_stream_without_any_text_is_empty(body: bytes, words: str) -> None:
    """As LM Studio answers a prompt that its context does not hold."""
    assert outcome(body) == ("empty", words)
    assert read(body).events == []


@pytest.mark.parametrize(
    "native",
    [
        {"model_name": "m", "text_output": "Hi"},
        {"token": {"id": 1, "text": "Hi", "special": False}, "generated_text": None},
        {"candidates": [{"content": {"parts": [{"text": "Hi"}], "role": "model"}}]},
        {"model": "m", "message": {"role": "assistant", "content": "Hi"}, "done": False},
    ],
    ids=["Triton", "TGI", "Gemini", "Ollama"],
)
def test_a_server_s_own_way_of_streaming_is_shown_and_no_answer(native: Any) -> None:
    found, words = outcome(data(native) * 2)
    assert (found, "nothing of this dialect" in (words or "")) == ("truncated", True)
    assert next(iter(native)) in (words or "")


@pytest.mark.parametrize(
    "mark",
    [
        *(b"data:[DONE]", b"data:  [DONE] ", b'data: "[DONE]"', b"data: [done]", b"data: DONE"),
        *(b"data: data: [DONE]", b"data: data: [DONE]\ndata: \ndata: "),
    ],
)
def test_the_end_mark_may_have_spaces_or_quotes_around_it(mark: bytes) -> None:
    assert outcome(said("Hi") + mark + b"\n\n") == ("ok", None)


def test_a_body_without_events_says_what_it_was() -> None:
    found, words = outcome(b"upstream connect error or disconnect/reset before headers\n")
    assert (found, "upstream connect error" in (words or "")) == ("truncated", True)
    found, words = outcome(said("Hi") + b"<html><h1>502 Bad Gateway</h1></html>")
    assert (found, "502 Bad Gateway" in (words or "")) == ("truncated", True)

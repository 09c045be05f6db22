"""Chunks of a chat completion to tokens, words and an outcome: where other tools went wrong."""

from __future__ import annotations

import gc
import json
from itertools import accumulate
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from loadgen.dialects import DIALECTS, StreamedReply, _chat
from loadgen.transport._exchange import outcome_of, read_reply
from loadgen.transport._read_log import PlainBody, ReadLog, body_of, plain_body

HEAD = b"HTTP/1.1 200 OK\r\n\r\n"
DONE = b"data: [DONE]\n\n"
CHAT = DIALECTS["chat"]


def delta(usage: int | None = None, finish: str | None = None, **fields: Any) -> dict[str, Any]:
    chunk: dict[str, Any] = {"choices": [{"index": 0, "delta": fields, "finish_reason": finish}]}
    if usage is not None:
        chunk["usage"] = {"prompt_tokens": 9, "completion_tokens": usage}
    return chunk


def said(*texts: str) -> list[dict[str, Any]]:
    return [delta(content=text) for text in texts]


ROLE = delta(role="assistant", content="")
STOP = delta(finish="stop")


def event(chunk: dict[str, Any] | bytes) -> bytes:
    data = chunk if isinstance(chunk, bytes) else json.dumps(chunk).encode()
    return b"data: " + data + b"\n\n"


def stream(*chunks: dict[str, Any] | bytes, end: bytes = DONE) -> tuple[StreamedReply, ReadLog]:
    """The reply of a stream whose head is read 0 and whose n-th chunk is read n."""
    log = ReadLog()
    log.add(HEAD, 0, 0)
    for number, chunk in enumerate(chunks, start=1):
        log.add(event(chunk), number, 0)
    if end:
        log.add(end, len(chunks) + 1, 0)
    return read_reply(body_of(log, chunked=False), CHAT), log


def reply_to(*chunks: dict[str, Any] | bytes, end: bytes = DONE) -> StreamedReply:
    return stream(*chunks, end=end)[0]


def outcome(*chunks: dict[str, Any] | bytes, end: bytes = DONE) -> tuple[str, str | None]:
    return outcome_of(*stream(*chunks, end=end))


def test_a_role_only_chunk_is_not_the_first_token() -> None:
    assert reply_to(ROLE, *said("Hi"), STOP).event_reads == [2]


@pytest.mark.parametrize(
    "nothing",
    [
        {"choices": []},
        {"choices": None},
        {"choices": [{}]},
        {"choices": [{"delta": None}]},
        delta(),
        delta(content=None),
        delta(content="", reasoning="", reasoning_content=None, tool_calls=[]),
        {"id": "x", "object": "chat.completion.chunk"},
    ],
    ids=json.dumps,
)
def test_an_event_with_nothing_in_it_is_not_content(nothing: dict[str, Any]) -> None:
    reply = reply_to(nothing, *said("Hi"), nothing, STOP)
    assert (reply.event_reads, reply.event_tokens) == ([2], [1])


def test_several_tokens_in_one_event_are_counted_by_the_servers_running_count() -> None:
    chunks = [delta(usage=0, role="assistant"), delta(usage=3, content="a b c"), delta(usage=4, content=" d")]
    reply = reply_to(*chunks, delta(usage=5, finish="stop"))
    assert reply.event_tokens == [3, 1]
    assert (reply.output_tokens, reply.token_source) == (5, "continuous_usage")


def test_tokens_of_empty_events_belong_to_the_content_event_after_them() -> None:
    chunks = [delta(usage=1, content="a"), delta(usage=2, content=""), delta(usage=3, content="b")]
    assert reply_to(*chunks, STOP).event_tokens == [1, 2]


def test_the_stop_token_counts_in_the_answer_but_in_no_event() -> None:
    """Else a one-token answer with its stop token would have a TPOT of zero."""
    reply = reply_to(delta(usage=1, content="a"), delta(usage=2, finish="stop"))
    assert (reply.event_tokens, reply.output_tokens) == ([1], 2)


def test_a_running_count_that_falls_back_gives_no_negative_tokens() -> None:
    reply = reply_to(delta(usage=5, content="a"), delta(usage=2, content="b"), delta(usage=6, content="c"))
    assert reply.event_tokens == [5, 0, 1]


def test_usage_at_the_end_alone_is_the_truth_of_the_sum() -> None:
    usage = {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 40}}
    reply = reply_to(*said("a", "b"), STOP, usage)
    assert (reply.event_tokens, reply.output_tokens, reply.token_source) == ([1, 1], 40, "usage")


def test_usage_with_the_last_content_event_alone_splits_no_events() -> None:
    """One count cannot say how many tokens each of three events had."""
    reply = reply_to(*said("a", "b"), delta(usage=40, content="c", finish="stop"))
    assert (reply.event_tokens, reply.output_tokens, reply.token_source) == ([1, 1, 1], 40, "usage")


def test_without_usage_events_are_counted_and_the_source_says_so() -> None:
    reply = reply_to(ROLE, *said("a", "b", "c"), STOP)
    assert (reply.output_tokens, reply.token_source) == (3, "events")


def test_usage_without_a_completion_count_is_no_count() -> None:
    reply = reply_to(*said("a"), {"choices": [], "usage": {"prompt_tokens": 7}})
    assert (reply.output_tokens, reply.token_source) == (1, "events")


def test_details_of_usage_are_kept() -> None:
    usage = {
        "prompt_tokens": 7,
        "completion_tokens": 2,
        "prompt_tokens_details": {"cached_tokens": 4},
        "completion_tokens_details": {"reasoning_tokens": 1, "audio_tokens": None},
    }
    found = reply_to(*said("a"), {"choices": [], "usage": usage})
    assert (found.prompt_tokens, found.cached_tokens, found.completion_tokens) == (7, 4, 2)
    assert found.reasoning_tokens == 1


def test_an_error_event_inside_a_200_is_no_success() -> None:
    error = {"error": {"message": "out of memory", "code": 500}}
    reply, log = stream(ROLE, *said("Hi"), error, STOP)
    assert outcome_of(reply, log) == ("server_error", "out of memory")
    assert reply.event_reads == [2]


@pytest.mark.parametrize("error", ["boom", {"code": 5}, ["a"], 7, "x" * 9000], ids=lambda e: str(e)[:9])
def test_an_error_of_any_shape_is_an_error(error: Any) -> None:
    found, message = outcome({"error": error})
    assert found == "server_error"
    assert 1 <= len(message or "") <= 500


def test_one_token_answers_are_kept() -> None:
    reply, log = stream(ROLE, delta(usage=1, content="b", finish="stop"))
    assert outcome_of(reply, log) == ("ok", None)
    assert (reply.event_reads, reply.event_tokens, reply.text) == ([2], [1], "b")


@pytest.mark.parametrize("chunks", [[ROLE, STOP], [STOP], []], ids=["role", "stop", "only done"])
def test_an_empty_reply_is_empty_and_has_no_first_token(chunks: list[dict[str, Any]]) -> None:
    reply, log = stream(*chunks)
    assert outcome_of(reply, log)[0] == "empty"
    assert (reply.event_reads, reply.answer_event, reply.output_tokens) == ([], None, 0)


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
def test_reasoning_counts_but_is_no_answer(field: str) -> None:
    reply, log = stream(delta(**{field: "Let me "}), delta(**{field: "think"}), STOP)
    assert outcome_of(reply, log)[0] == "reasoning_only"
    assert (reply.event_reads, reply.answer_event, reply.text) == ([1, 2], None, "Let me think")
    assert reply.answer == []


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
def test_the_first_answer_comes_after_the_reasoning(field: str) -> None:
    reply, log = stream(ROLE, delta(**{field: "Hm"}), *said("Yes"), STOP)
    assert outcome_of(reply, log)[0] == "ok"
    assert (reply.answer_event, reply.answer, reply.text) == (1, ["Yes"], "HmYes")


def test_reasoning_and_answer_in_one_event_are_both_kept() -> None:
    reply = reply_to(delta(reasoning="Hm. ", content="Yes"), STOP)
    assert (reply.text, reply.answer, reply.answer_event, reply.event_words()) == ("Hm. Yes", ["Yes"], 0, [2])


def test_reasoning_under_two_names_is_counted_once() -> None:
    reply = reply_to(delta(reasoning="Hm", reasoning_content="Hm"), *said("Yes"), STOP)
    assert reply.text == "HmYes"


def test_a_tool_call_is_content_and_an_answer() -> None:
    call = [{"index": 0, "function": {"name": "f", "arguments": "{}"}}]
    reply, log = stream(ROLE, delta(tool_calls=call), delta(finish="tool_calls"))
    assert outcome_of(reply, log) == ("ok", None)
    assert (reply.event_reads, reply.answer_event, reply.tool_calls) == ([2], 0, True)
    assert (reply.event_words(), reply.text) == ([0], "")


@pytest.mark.parametrize(
    "data",
    [
        b"{oops",
        b"[1]",
        b'{"choices": 5}',
        b'{"choices":[{"delta":{"content":5}}]}',
        b'{"choices":[{"delta":{"content":"\xff"}}]}',
        b'{"error":' + b"[" * 100_000,
    ],
    ids=["torn", "list", "number", "content", "not UTF-8", "deep"],
)
def test_malformed_json_is_reported_with_a_short_sample(data: bytes) -> None:
    reply, log = stream(*said("Hi"), data, *said("never read"))
    found, message = outcome_of(reply, log)
    assert found == "bad_json"
    assert message is not None
    assert len(message) < 400
    assert data[:8].decode("utf-8", "replace") in message
    assert (reply.event_reads, reply.text) == ([1], "Hi")


def test_an_event_of_over_a_mebibyte_is_oversized() -> None:
    assert outcome(*said("x" * (1 << 20)), STOP)[0] == "oversized"
    assert outcome(*said("x" * 1_000_000), STOP)[0] == "ok"


def test_done_without_a_finish_reason_ends_a_reply_well() -> None:
    assert outcome(*said("Hi"), end=DONE) == ("ok", None)


@pytest.mark.parametrize("empty", [b"data:\n\n", b"data: \n\n", b"data\n\n", b"data:\r\n\r\n"])
def test_an_event_without_data_is_passed_over(empty: bytes) -> None:
    log = ReadLog()
    log.add(HEAD + event(said("Hi")[0]) + empty + event(STOP) + DONE, 1, 0)
    reply = read_reply(body_of(log, chunked=False), CHAT)
    assert (outcome_of(reply, log), reply.text, reply.finish_reason) == (("ok", None), "Hi", "stop")


def test_an_end_without_done_or_finish_reason_is_truncated() -> None:
    assert outcome(*said("Hi"), end=b"")[0] == "truncated"
    assert outcome(*said("Hi"))[0] == "ok"
    assert outcome(*said("Hi"), STOP, end=b"")[0] == "ok"


@pytest.mark.parametrize("end", [b"data: [DONE]", b"data: [DONE]\n", b"data:[DONE]\r\n", event(STOP)[:-1]])
def test_a_last_event_that_is_whole_counts_without_its_blank_line(end: bytes) -> None:
    """llama-server and others end so."""
    reply, log = stream(*said("Hi"), end=end)
    assert (outcome_of(reply, log), reply.oddities) == (("ok", None), {"unclosed"})


def test_a_last_event_that_is_torn_does_not_count() -> None:
    assert outcome(*said("Hi"), end=event(STOP)[:-4])[0] == "truncated"
    assert outcome(*said("Hi"), end=b"data: [DO")[0] == "truncated"


def test_a_broken_connection_is_distinguished_from_a_clean_end() -> None:
    reply, log = stream(*said("Hi"), end=b"")
    log.reset = ConnectionResetError(104, "reset")
    assert outcome_of(reply, log)[0] == "disconnected"
    assert reply.event_reads == [1]


def test_what_follows_done_is_not_read() -> None:
    assert outcome(*said("Hi"), STOP, end=DONE + b"data: {oops\n\n")[0] == "ok"


def test_a_reset_after_the_whole_answer_is_no_failure() -> None:
    reply, log = stream(*said("Hi"), STOP)
    log.reset = ConnectionResetError(104, "reset")
    assert outcome_of(reply, log) == ("ok", None)


def test_events_that_share_a_read_share_its_arrival() -> None:
    log = ReadLog()
    log.add(HEAD, 0, 0)
    log.add(event(delta(content="a")) + event(delta(content="b")), 1, 0)
    half = event(delta(content="c"))
    log.add(half[:20], 2, 0)
    log.add(half[20:] + DONE, 3, 0)
    assert read_reply(body_of(log, chunked=False), CHAT).event_reads == [1, 1, 3]


@given(
    st.lists(st.text(st.sampled_from("ab \n\t\u00a0é"), min_size=1, max_size=4), max_size=20),
    # Else one of them may look like all that was said, sent again.
    st.sampled_from(["more than four ", "an event with more than any token has, "]),
)
def test_a_word_over_several_events_is_counted_once(texts: list[str], first: str) -> None:
    texts = [first, *texts]
    reply = reply_to(*said(*texts), STOP)
    whole = "".join(texts)
    assert reply.text == whole
    assert sum(reply.event_words()) == len(whole.split())
    for number in range(len(texts)):
        assert sum(reply.event_words()[: number + 1]) == len("".join(texts[: number + 1]).split())


def test_a_word_goes_on_over_an_event_without_text() -> None:
    assert StreamedReply(parts=["to", "", "day ", "", "is"]).event_words() == [1, 0, 0, 0, 1]


@example([b'{"detail":" "}'])  # an error, as some servers put it
@given(
    st.lists(st.binary(max_size=40) | st.sampled_from([b"[DONE]", b"{}", b'{"choices":[{}]}']), max_size=6)
)
def test_no_stream_at_all_makes_the_reader_raise(datas: list[bytes]) -> None:
    reply, log = stream(*datas, end=b"")
    assert outcome_of(reply, log)[0] in ("truncated", "bad_json", "empty", "ok", "server_error")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.floats(allow_nan=False),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["choices", "delta", "content", "usage", "completion_tokens", "error"]), inner
        )
    ),
)


@given(st.lists(json_values, max_size=4))
def test_any_json_leaves_aligned_lists_and_numbers_that_can_be_written(values: list[Any]) -> None:
    reply, _ = stream(*[json.dumps(value).encode() for value in values])
    assert len(reply.event_reads) == len(reply.event_tokens) == len(reply.event_words()) == len(reply.parts)
    msgspec.msgpack.encode([reply.event_tokens, reply.output_tokens, reply.text])


PLAIN_DATA = st.sampled_from(
    [b"{}", b'{"choices": []}', b'{"error": "no"}', b'{"choices": [{"delta": {"content": "w "}}]}', b"[DONE]"]
)
ODD_DATA = st.sampled_from(
    [
        b"",
        b" ",
        b"{}\n{}",
        b"\n",
        b"{",
        b"[]",
        b"\xff",
        b'{"choices": [{"delta":\n{}}]}',
        b"{}\r\n",
        b"a\n\ndata: b",
    ]
)
FRAMINGS = st.sampled_from(
    [b"%x\r\ndata: %b\n\n\r\n"] * 4 + [b"%X\r\ndata: %b\n\n\r\n", b"0%x\r\ndata: %b\n\n\r\n"]
)


@given(
    events=st.lists(st.tuples(PLAIN_DATA | ODD_DATA, FRAMINGS), max_size=6),
    cuts=st.lists(st.integers(1, 60), min_size=1, max_size=40),
    last=st.sampled_from([b"0\r\n\r\n"] * 3 + [b"", b"0\r\n", b"00\r\n\r\n"]),
)
def test_a_plain_body_read_in_a_few_passes_is_what_the_general_way_makes_of_it(
    events: list[tuple[bytes, bytes]], cuts: list[int], last: bytes
) -> None:
    raw = HEAD + b"".join(framing % (len(data) + 8, data) for data, framing in events) + last
    log, position = ReadLog(), 0
    for number, size in enumerate([*cuts, len(raw)]):
        if part := raw[position : position + size]:
            log.add(part, number, 0)
        position += size
    plain = plain_body(raw)
    if plain is None:
        return
    fast = CHAT.read(plain.events)
    fast.event_reads = log.reads_of(plain.ends_of(fast.events))
    assert fast == read_reply(body_of(log, chunked=True), CHAT)
    begins = [plain.start, *(end + 2 for end in plain.ends.tolist())]
    for offset in range(len(raw)):
        assert plain.next_chunk(raw, offset) == next((each for each in begins if each >= offset), None)


@given(
    events=st.lists(PLAIN_DATA, min_size=1, max_size=12),
    odd=st.none() | st.tuples(st.integers(0, 11), ODD_DATA),
    cuts=st.lists(st.integers(1, 900), max_size=8).map(sorted),
)
def test_a_plain_body_grows_to_what_it_is_as_a_whole(
    events: list[bytes], odd: tuple[int, bytes] | None, cuts: list[int]
) -> None:
    if odd is not None:
        events[odd[0] : odd[0]] = [odd[1]]
    raw = HEAD + b"".join(b"%x\r\ndata: %b\n\n\r\n" % (len(d) + 8, d) for d in events) + b"0\r\n\r\n"
    grown, goes_on = PlainBody(len(HEAD)), True
    for cut in [*(len(HEAD) + cut for cut in cuts), len(raw)]:
        goes_on = goes_on and grown.grow(raw[:cut])
    whole = plain_body(raw)
    assert (grown if goes_on and grown.is_whole(raw) else None) == whole


@pytest.mark.parametrize(("size", "is_plain"), [(b"b", True), (b"a", False), (b"c", False), (b"0b", False)])
def test_a_chunk_is_plain_if_its_size_is_that_of_its_event(size: bytes, is_plain: bool) -> None:
    chunk = b"\r\ndata: [1]\n\n\r\n"
    for raw in (size + chunk, size + chunk + b"b" + chunk, b"b" + chunk + size + chunk):
        assert (plain_body(HEAD + raw + b"0\r\n\r\n") is not None) == is_plain


def test_what_nearly_every_server_sends_is_plain() -> None:
    data = b'{"choices": [{"delta": {"content": "w "}}]}'
    chunk = b"%x\r\ndata: %b\n\n\r\n" % (len(data) + 8, data)
    plain = plain_body(HEAD + chunk * 3 + b"0\r\n\r\n")
    assert plain is not None
    assert plain.events == [data] * 3


def test_a_flood_of_plain_events_goes_the_general_way_where_others_need_not_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("loadgen.transport._read_log._MOST_PLAIN_EVENTS", 2)
    chunk = b"a\r\ndata: {}\n\n\r\n"
    assert plain_body(HEAD + chunk * 2 + b"0\r\n\r\n") is not None
    assert plain_body(HEAD + chunk * 3 + b"0\r\n\r\n") is None


TEXTS = st.sampled_from([" w", "w", "word ", " a longer text than the others", "", "\u20ac", "ww"])
ODD_CHUNKS = st.sampled_from(
    [
        {"choices": []},
        {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 7}},
        {"choices": [{"index": 1, "delta": {"content": "other"}}]},
        {"choices": [{"delta": {"content": "b"}}, {"index": 1, "delta": {"content": "c"}}]},
        {"choices": [{"delta": {"reasoning": "why"}}]},
        {"choices": [{"delta": {"content": "x", "tool_calls": [{"id": "a"}]}}]},
        {"choices": [{"delta": {"content": "x"}, "finish_reason": "stop"}]},
        {"choices": [{"delta": {"content": ["x"]}}]},
        {"choices": [{"delta": {"content": "x"}}], "usage": {"completion_tokens": "9"}},
        {"error": {"message": "no"}},
        {},
    ]
)


@given(
    texts=st.lists(st.sampled_from([" w", "word "]) | TEXTS, min_size=30, max_size=40)
    | st.lists(st.sampled_from([" w", "word "]), min_size=30, max_size=40),
    steps=st.none() | st.lists(st.integers(-1, 3), min_size=40, max_size=40) | st.just([1] * 40),
    odd=st.lists(st.tuples(st.integers(0, 40), ODD_CHUNKS), max_size=2),
    end=st.booleans(),
    looks=st.lists(st.tuples(st.integers(0, 45), st.booleans()), max_size=8).map(sorted),
)
@example(
    texts=[" w"] * 39,
    steps=[0] * 40,
    odd=[(0, {"choices": []}), (38, {"error": {"message": "no"}})],
    end=False,
    looks=[],
)
@example(
    texts=[" w"] * 40,
    steps=None,
    odd=[(40, {"choices": []})],
    end=True,
    looks=[(30, False), (42, False)],
)
@example(texts=[" w"] * 40, steps=None, odd=[], end=True, looks=[(3, True), (30, False), (39, True)])
def test_a_long_answer_read_at_once_is_what_its_events_say_one_by_one(
    texts: list[str],
    steps: list[int] | None,
    odd: list[tuple[int, Any]],
    end: bool,
    looks: list[tuple[int, bool]],
) -> None:
    """And what was read of it while the rest still came, one by one or not, where that goes on."""
    chunks: list[Any] = [{"choices": [{"delta": {"content": text}}]} for text in texts]
    for number, count in enumerate(accumulate(steps or [])):
        if number < len(chunks):
            chunks[number]["usage"] = {"completion_tokens": max(count, 0)}
    for place, chunk in odd:
        chunks.insert(place, chunk)
    events = [json.dumps(chunk).encode() for chunk in chunks] + [b"[DONE]"] * end
    at_once = CHAT.read(events)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_chat, "_LEAST_EVENTS", 1000)
        assert at_once == CHAT.read(events)
    ahead, come = CHAT.ahead(), list[bytes]()
    for size, one_by_one in [*looks, (len(events), False)]:
        come += events[len(come) : size]
        if not ahead.take(come, one_by_one):
            return
    if (reply := ahead.read(come)) is not None:
        assert reply == at_once


def test_of_a_plain_answer_little_is_left_to_read_at_its_end() -> None:
    chunks = [{"choices": [{"delta": {"content": f" {number}"}}]} for number in range(100)]
    chunks.append({"choices": [{"delta": {}, "finish_reason": "stop"}]})
    events = [json.dumps(chunk).encode() for chunk in chunks] + [b"[DONE]"]
    ahead, come = CHAT.ahead(), events[:50]
    assert ahead.take(come, one_by_one=False)
    assert [n for n, event in enumerate(come) if not event] == list(range(46))
    held = [each for each in vars(ahead).values() if gc.is_tracked(each) and isinstance(each, list)]
    assert sum(map(len, held)) < 10, "a collection of garbage looks through all that hundreds of streams hold"
    come += events[50:]
    assert ahead.read(come) == CHAT.read(events)


def test_of_an_answer_whose_events_are_read_one_by_one_none_is_left_but_those_of_its_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chunks: list[Any] = [{"choices": [{"delta": {"content": f" {number}"}}]} for number in range(9)]
    chunks += [{"choices": [{"delta": {"reasoning_content": "Hm"}}]}]
    chunks += [{"choices": [{"delta": {}, "finish_reason": "stop"}]}]
    events = [json.dumps(chunk).encode() for chunk in chunks] + [b"[DONE]"]
    decoded = list[bytes]()
    chunks_of = _chat.chunks_of
    monkeypatch.setattr(_chat, "chunks_of", lambda new, odd: decoded.extend(new) or chunks_of(new, odd))
    ahead, come = CHAT.ahead(), list[bytes]()
    for event in events[:9]:
        come.append(event)
        assert ahead.take(come, one_by_one=True)
    assert decoded == events[:9]
    come += events[9:]
    assert ahead.take(come, one_by_one=True)
    reply = ahead.read(come)
    assert decoded == events[:-1], "each was decoded once"
    assert reply == CHAT.read(events)

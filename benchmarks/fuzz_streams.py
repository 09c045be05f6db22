"""Streams that no server should send: `python -m benchmarks.fuzz_streams [COUNT] [SEED]`.

Mutations of each dialect's streams as servers send them, some of other dialects', and any bytes at all, in
any framing, split into any reads (`benchmarks.fuzz_engine` sends them over sockets). Each must end as one
outcome of the closed list, with a record that can be written down, in less than a second. Prints what came of
them, and fails at the first that escapes.
"""

from __future__ import annotations

import gzip
import json
import random
import sys
import time
from collections import Counter

import msgspec

from loadgen.dialects import DIALECTS, ODDITIES, StreamedReply
from loadgen.transport._exchange import outcome_of, read_reply
from loadgen.transport._read_log import PlainBody, ReadLog, body_of, plain_body
from turnbench.formats import TurnRecord
from turnbench.formats.turn import decode, encode
from turnbench.outcomes import OUTCOMES

LONGEST_S = 1.0


def _chunk(value: object) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def _chat(delta: object, finish: object = None) -> bytes:
    return _chunk({"id": "c", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})


def _typed(kind: str, **more: object) -> bytes:
    return f"event: {kind}\n".encode() + _chunk({"type": kind, **more})


_USAGE = {"prompt_tokens": 5, "completion_tokens": 3, "completion_tokens_details": {"reasoning_tokens": 1}}
_FAILURES = [
    b'{"error":"top_p must lie between 0 and 1","error_type":"val"}',
    _chunk({"object": "error", "message": "maximum context length is 4096 tokens", "code": 400}),
    _typed("error", error={"type": "overloaded_error", "message": "Overloaded"}),
    b'event: error\ndata: {"message": "worker 3 went away", "status": 503}\n\n',
    b'error: {"code": 500, "message": "gone"}\n\n',
    _chunk({"header": {"code": 10013, "message": "gone"}}),
    _chunk({"choices": [{"delta": {}, "finish_reason": "error", "error": {"message": "gone"}}]}),
]
"""What any server may say in place of an answer, or amid one."""
SEEDS: dict[str, list[bytes]] = {
    "chat": [
        _chat({"role": "assistant", "content": ""})
        + b"".join(_chat({"content": text}) for text in ("Grüße", " an", " 🌍", "!"))
        + _chat({}, "stop") + _chunk({"choices": [], "usage": _USAGE}) + b"data: [DONE]\n\n",
        b"".join(_chat({"reasoning_content": text}) for text in ("First", " I", " weigh"))
        + _chat({"content": "<think>x</think>y"}) + _chat({}, "length") + b"data: [DONE]\n\n",
        _chat({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "Sum"}]}]})
        + _chat({"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": "{}"}}]})
        + b"data: [DONE]",
        _chat({"content": "New"}) + _chat({"content": "New York"}) + _chat({"content": "New York is"})
        + _FAILURES[3] + b"data: [DONE]\n\n",
        b'data: {"choices":[{"delta":{"content":"\\ud83c"}}]}\n\n'
        b'data: {"choices":[{"delta":{"content":"\\udf0d"}}]}\n\n',
        b"".join(b"data: " + _chat({"content": text}) for text in ("A", " b", "c"))
        + b"data: data: [DONE]\n\n",
        (_chat({"thinking": "Hm"}) + _chat({"content": "x"}) + _chat({}, "null")).replace(b"\n\n", b"\n"),
        _chat({"content": "<|channel|>analysis<|message|>Hm<|end|>"}) + _chat({"content": "assistantfinal"})
        + _chat({"reasoning_details": [{"text": "x"}, {"summary": "y"}]}, "MAX_TOKENS")
        + _chunk({"choices": [], "usage": _USAGE | {"total_tokens": 9, "prompt_cache_hit_tokens": 2}}),
        _chunk({"choices": [{"message": {"content": "All"}, "finish_reason": "stop"}], "usage": _USAGE}),
        b": ping\r\n\r\ndata: : PROCESSING\r\n\r\n" + _chat({"content": "x"}) + b"data: [DONE]\r\n\r\n",
    ],
    "completions": [
        _chunk({"choices": [{"index": 1, "text": "BB"}, {"index": 0, "text": "AA"}], "usage": {"out": "2"}})
        + _chunk({"choices": [{"index": 0, "text": "", "finish_reason": "stop"}]})
        + b"data: [DONE]\r\n\r\n",
        b"".join(_chunk({"choices": [{"index": 0, "text": text}]}) for text in (" Once", " upon", " a time"))
        + _chunk({"choices": [], "usage": _USAGE}) + b"data: [DONE]\n\n",
        _chunk({"content": "Hi", "stop": False}) + _chunk({"content": "", "stop": True, "timings": {}}),
    ],
    "responses": [
        _typed("response.created", response={"id": "r"})
        + _typed("response.reasoning_text.delta", delta="Hm")
        + _typed("response.output_text.delta", delta="Hi")
        + _typed("response.completed", response={"usage": {"input_tokens": 5, "output_tokens": 2}}),
        _typed("response.created", response={"id": "r"})
        + _typed("response.output_item.added", item={"type": "function_call", "name": "f"})
        + _typed("response.function_call_arguments.delta", delta="{}")
        + _typed("response.refusal.delta", delta="No")
        + _typed("response.incomplete", response={"incomplete_details": {"reason": "max_output_tokens"}}),
        _typed("response.reasoning.delta", delta={"text": "Hm"})
        + b'data: {"type":"response.output_text.delta","delta":"G\xc3"}\n\n'
        + b'data: {"type":"response.output_text.delta","delta":"\xbc\\ud83c"}\n\n'
        + _typed("response.output_item.done", item={"type": "custom_tool_call"})
        + _typed("response.done", response={"status": "failed", "usage": {"output_tokens": "2"}}),
        _typed("response.completed", response={"output": [{"content": [{"text": "All"}]}], "usage": _USAGE}),
        _typed("response.output_text.delta", delta="Hi")
        + _typed("response.failed", response={"error": {"code": "server_error", "message": "gone"}}),
    ],
    "messages": [
        _typed("message_start", message={"usage": {"input_tokens": 5, "output_tokens": 1}})
        + _typed("content_block_start", index=0, content_block={"type": "text", "text": ""})
        + _typed("ping")
        + _typed("content_block_delta", index=0, delta={"type": "text_delta", "text": "Hi"})
        + _typed("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 2})
        + _typed("message_stop"),
        _typed("message_start", message={"usage": {"input_tokens": 5}})
        + _typed("content_block_start", index=0, content_block={"type": "thinking", "thinking": ""})
        + _typed("content_block_delta", index=0, delta={"type": "thinking_delta", "thinking": "Hm"})
        + _typed("content_block_stop", index=0)
        + _typed("content_block_start", index=1, content_block={"type": "tool_use", "name": "f", "input": {}})
        + _typed("content_block_delta", index=1, delta={"type": "input_json_delta", "partial_json": "{}"})
        + _typed("message_delta", delta={"stop_reason": "tool_use"}, usage={"output_tokens": 9})
        + _typed("message_stop"),
    ],
}  # fmt: skip
"""Streams as servers send them, by dialect."""
_PIECES = [
    *(
        b"null",
        b"true",
        b"-1",
        b"1e999",
        b"1" + b"0" * 40,
        b'""',
        b"[]",
        b"{}",
        b"[[]]",
        b'"\\ud800"',
        b"NaN",
    ),
    *(
        b"data: ",
        b"data:",
        b"\n\n",
        b"\r",
        b"\r\n\r\n",
        b"event: error\n",
        b"[DONE]",
        b"data: [DONE]\n\n",
        b": x\n",
    ),
    *(
        b'"choices"',
        b'"delta"',
        b'"usage"',
        b'"error"',
        b'"content"',
        b'"index"',
        b'"text"',
        b'"finish_reason"',
    ),
    *(
        b"\xf0\x9f",
        b"\x00",
        b"\xff",
        b"\xc3",
        b"\xef\xbb\xbf",
        b"\\ud83d",
        b"\\udc00",
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
    ),
    *(
        b"<think>",
        b"</think>",
        b"[" * 2000,
        b'{"a":' * 2000,
        b" " * 5000,
        b"0\r\n\r\n",
        b"ffffffffffffffffff\r\n",
    ),
]


def mutated(draw: random.Random, body: bytes) -> bytes:
    """A body with a few things changed in it."""
    for _ in range(draw.choice((0, 1, 1, 2, 3, 8))):
        at, end = sorted(draw.randrange(len(body) + 1) for _ in range(2))
        match draw.randrange(8):
            case 0:
                body = body[:at] + bytes([draw.randrange(256)]) + body[at + 1 :]
            case 1:
                body = body[:at] + body[min(end, at + 20) :]
            case 2 | 3:
                body = body[:at] + draw.choice(_PIECES) + body[at:]
            case 4:
                body = body[:at] + draw.choice(_PIECES) + body[min(end, at + 8) :]
            case 5:
                other = draw.choice([*_FAILURES, *draw.choice(list(SEEDS.values()))])
                body = body[:at] + other[draw.randrange(len(other)) :]
            case 6:
                body = body[:at] + body[at:end] * draw.randrange(4) + body[end:]
            case 7:
                body = body[:at]
    return body


def long_answer(draw: random.Random) -> bytes:
    """An answer of chat completions long enough to be read while it comes."""
    counts, events = draw.random() < 0.5, []
    for number in range(draw.randrange(20, 80)):
        chunk = {"choices": [{"index": 0, "delta": {"content": draw.choice((" w", "word ", "Grüße"))}}]}
        events.append(_chunk(chunk | ({"usage": {"completion_tokens": number + 1}} if counts else {})))
    others = [event + b"\n\n" for seed in SEEDS["chat"] for event in seed.split(b"\n\n")]
    for _ in range(draw.choice((0, 0, 1, 2))):
        events.insert(draw.randrange(len(events)), draw.choice([*_FAILURES, *others]))
    end = _chat({}, "stop") + _chunk({"choices": [], "usage": _USAGE}) + b"data: [DONE]\n\n"
    return b"".join(events) + end


def body_for(draw: random.Random, dialect: str) -> bytes:
    """A body for this dialect: mostly its own streams, mutated; some of another one, failures, any bytes."""
    kind = draw.random()
    if kind < 0.1:
        return draw.randbytes(draw.randrange(400))
    if kind < 0.2:
        return mutated(draw, draw.choice([*_FAILURES, *draw.choice(list(SEEDS.values()))]))
    if kind < 0.4 and dialect == "chat":
        return long_answer(draw)
    return mutated(draw, draw.choice(SEEDS[dialect]))


def response(draw: random.Random, body: bytes) -> tuple[bytes, bool, str]:
    """(a whole response with this body, whether it is chunked, its encoding)."""
    encoding = "gzip" if draw.random() < 0.05 else "identity"
    if encoding == "gzip":
        body = gzip.compress(body, 1)
        if draw.random() < 0.3:
            body = mutated(draw, body)
    chunked = draw.random() < 0.7
    if chunked:
        parts = body.split(b"\n\n") if draw.random() < 0.5 else [body]
        parts = [part + b"\n\n" for part in parts[:-1]] + [part for part in parts[-1:] if part]
        framed = b"".join(b"%x\r\n" % len(part) + part + b"\r\n" for part in parts) + b"0\r\n\r\n"
        body = mutated(draw, framed) if draw.random() < 0.2 else framed
    return b"HTTP/1.1 200 OK\r\n\r\n" + body, chunked, encoding


def read_while_it_came(
    draw: random.Random, raw: bytes, cuts: list[int], body: PlainBody, dialect: str
) -> StreamedReply | None:
    """What a plain body says if it is read after each of these reads; None: it is none to be read so."""
    if (ahead := DIALECTS[dialect].ahead) is None:
        return None
    reading, calm = ahead(), draw.random()
    for cut in cuts:
        if not (body.grow(raw[:cut]) and reading.take(body.events, draw.random() < calm)):
            return None
    return reading.read(body.events)


def read_once(
    draw: random.Random, raw: bytes, chunked: bool, encoding: str, dialect: str
) -> tuple[str, StreamedReply]:
    """The outcome of a response that came in any reads."""
    log = ReadLog()
    cuts = sorted({draw.randrange(1, len(raw) + 1) for _ in range(draw.choice((0, 1, 3, 30)))} | {len(raw)})
    for number, (start, end) in enumerate(zip([0, *cuts], cuts, strict=False)):
        log.add(raw[start:end], number, 0)
    plain = plain_body(raw) if chunked and encoding == "identity" else None
    if plain is not None:
        reply = DIALECTS[dialect].read(plain.events)
        ahead = read_while_it_came(draw, raw, cuts, PlainBody(plain.start), dialect)
        if ahead is not None:
            assert ahead == reply, "what was read while it came says something else"
        reply.event_reads = log.reads_of([plain.ends[place] for place in reply.events])
    else:
        reply = read_reply(body_of(log, chunked, encoding), DIALECTS[dialect])
    outcome, words = outcome_of(reply, log)
    counts = len(reply.events), len(reply.event_reads), len(reply.event_tokens), len(reply.event_words())
    assert len(set(counts)) == 1, f"lists are not aligned: {counts}"
    assert reply.oddities <= ODDITIES.keys()
    assert outcome in OUTCOMES
    record = TurnRecord(
        run="r", conversation=0, turn=1, task="t", model="m", due_ns=0, outcome=outcome, error=words,
        event_us=reply.event_reads, event_tokens=reply.event_tokens, event_words=reply.event_words(),
        text=reply.text, output_tokens=reply.output_tokens, prompt_tokens=reply.prompt_tokens,
        cached_tokens=reply.cached_tokens, reasoning_tokens=reply.reasoning_tokens,
        finish_reason=reply.finish_reason, token_source=reply.token_source, answer_event=reply.answer_event,
    )  # fmt: skip
    assert decode(encode(record)) == record, "the record is not what was written"
    msgspec.json.encode(reply.answer)  # the next request carries it
    return outcome, reply


def fuzz(count: int, seed: int) -> tuple[Counter[str], float]:
    """(how many ended as what, the longest time of one); raises what escaped, with the stream in a note."""
    draw = random.Random(seed)
    outcomes: Counter[str] = Counter()
    longest_s = 0.0
    for number in range(count):
        dialect = draw.choice(list(DIALECTS))
        raw, chunked, encoding = response(draw, body_for(draw, dialect))
        began = time.perf_counter()
        try:
            outcome, _ = read_once(draw, raw, chunked, encoding, dialect)
        except Exception as error:
            error.add_note(
                f"stream {number} of seed {seed}, {dialect}, chunked {chunked}, {encoding}: {raw[:3000]!r}"
            )
            raise
        took_s = time.perf_counter() - began
        longest_s = max(longest_s, took_s)
        assert took_s < LONGEST_S, f"stream {number} of seed {seed} took {took_s:.1f} s: {raw[:3000]!r}"
        outcomes[outcome] += 1
    return outcomes, longest_s


if __name__ == "__main__":
    arguments = [int(each) for each in sys.argv[1:3]]
    found, slowest_s = fuzz(*(arguments + [300_000, 1][len(arguments) :]))
    print(f"{found.total()} streams, the slowest took {slowest_s * 1e3:.0f} ms")
    for name, how_many in found.most_common():
        print(f"{how_many:8} {name}")

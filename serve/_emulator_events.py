"""Server-sent events in vLLM's dialect, assembled from templates made once a request."""

from __future__ import annotations

from typing import Any

import msgspec

from serve._emulator_answer import Answer
from serve._emulator_request import Ask

_MARK = "\x00piece\x00"
_encode = msgspec.json.encode


def usage(ask: Ask, output_tokens: int, cached_tokens: int | None) -> dict[str, Any]:
    """Token counts; with `cached_tokens` also how much of the prompt came from the prefix cache."""
    counts: dict[str, Any] = {
        "prompt_tokens": ask.prompt_tokens,
        "total_tokens": ask.prompt_tokens + output_tokens,
        "completion_tokens": output_tokens,
    }
    if cached_tokens is not None:
        counts["prompt_tokens_details"] = {"cached_tokens": cached_tokens}
    return counts


def framed(event: bytes) -> bytes:
    """One event in a chunk of its own, as a streaming server sends it."""
    return b"%x\r\n%b\r\n" % (len(event), event)


class Events:
    """Makes the events of one reply."""

    def __init__(self, ask: Ask, answer: Answer, response_id: str, created_s: int, model: str) -> None:
        self._ask = ask
        self._answer = answer
        kind = "chat.completion.chunk" if ask.chat else "text_completion"
        self._base = {"id": response_id, "object": kind, "created": created_s, "model": model}
        event = self._event(_MARK, None).removesuffix(b"\n\n")
        self._before, self._after = event.split(_encode(_MARK)[1:-1])
        self._fixed_bytes = len(self._before) + len(self._after) + 2
        self._every_usage = ask.every_usage
        if ask.every_usage:
            self._after = self._after.removesuffix(b"}")

    def _event(self, text: str, finish_reason: str | None, **delta: str) -> bytes:
        choice: dict[str, Any] = {"index": 0}
        if self._ask.chat:
            choice |= {"delta": {**delta, "content": text}, "logprobs": None, "finish_reason": finish_reason}
        else:
            choice |= {"text": text, "logprobs": None, "finish_reason": finish_reason}
        if finish_reason is not None or not self._ask.chat:
            choice["stop_reason"] = self._answer.stop_string if finish_reason else None
        return b"data: " + _encode({**self._base, "choices": [choice]}) + b"\n\n"

    def role(self) -> bytes:
        """The first event of a chat: a role and no text. Empty for a plain completion."""
        if not self._ask.chat:
            return b""
        return framed(self._with_usage(self._event("", None, role="assistant"), 0))

    def content(self, piece: str, tokens: int) -> bytes:
        """A content event in the middle of the answer; `tokens` counts those up to and including it."""
        text = piece.encode()
        if not self._every_usage:
            return b"%x\r\n%b%b%b\n\n\r\n" % (
                self._fixed_bytes + len(text), self._before, text, self._after,
            )  # fmt: skip
        prompt = self._ask.prompt_tokens
        counts = b',"usage":{"prompt_tokens":%d,"total_tokens":%d,"completion_tokens":%d}}' % (
            prompt, prompt + tokens, tokens,
        )  # fmt: skip
        size = self._fixed_bytes - 1 + len(text) + len(counts)
        return b"%x\r\n%b%b%b%b\n\n\r\n" % (size, self._before, text, self._after, counts)

    def last(self, piece: str, tokens: int) -> bytes:
        """The event that carries the finish reason, with the last piece of text or none."""
        return framed(self._with_usage(self._event(piece, self._answer.finish_reason), tokens))

    def tail(self, cached_tokens: int | None) -> bytes:
        """All that follows the last token: usage if asked for, the end mark, the end of the body."""
        closing = framed(b"data: [DONE]\n\n") + b"0\r\n\r\n"
        if not self._ask.usage:
            return closing
        counts = usage(self._ask, self._answer.tokens, cached_tokens)
        return framed(b"data: " + _encode({**self._base, "choices": [], "usage": counts}) + b"\n\n") + closing

    def _with_usage(self, event: bytes, tokens: int) -> bytes:
        if not self._every_usage:
            return event
        counts = _encode(usage(self._ask, tokens, None))
        return event.removesuffix(b"}\n\n") + b',"usage":' + counts + b"}\n\n"

    def whole(self, cached_tokens: int | None) -> bytes:
        """The body of an answer that is not streamed."""
        text = "".join(self._answer.pieces)
        choice: dict[str, Any] = {"index": 0}
        if self._ask.chat:
            choice["message"] = {"role": "assistant", "content": text, "refusal": None, "tool_calls": []}
        else:
            choice["text"] = text
        choice |= {
            "logprobs": None,
            "finish_reason": self._answer.finish_reason,
            "stop_reason": self._answer.stop_string,
        }
        kind = "chat.completion" if self._ask.chat else "text_completion"
        counts = usage(self._ask, self._answer.tokens, cached_tokens)
        return _encode({**self._base, "object": kind, "choices": [choice], "usage": counts})

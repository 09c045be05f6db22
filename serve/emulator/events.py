"""What vLLM 0.32 sends, field by field and in its order, assembled from templates made once a request.

`tests/conformance` lays these bodies beside recorded ones.
"""

from __future__ import annotations

from typing import Any

import msgspec

from serve.emulator.answer import Answer
from serve.emulator.request import Ask

VERSION = "turnbench-emulator/0.1.0"
FINGERPRINT = VERSION.replace("/", "-")
_MARK = "\x00piece\x00"
_encode = msgspec.json.encode


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
        self._counts = b',"usage":{"prompt_tokens":%d,"total_tokens":%d,"completion_tokens":%d'
        self._counts += b',"completion_tokens_details":null}}' if ask.chat else b"}}"
        event = self._event([self._choice(_MARK, None)]).removesuffix(b"\n\n")
        self._before, self._after = event.split(_encode(_MARK)[1:-1])
        self._fixed_bytes = len(self._before) + len(self._after) + 2
        self._every_usage = ask.every_usage
        if ask.every_usage:
            self._after = self._after.removesuffix(b"}")

    def _event(self, choices: list[dict[str, Any]], **more: Any) -> bytes:
        return b"data: " + _encode({**self._base, "choices": choices, **more}) + b"\n\n"

    def _choice(self, text: str, finish_reason: str | None) -> dict[str, Any]:
        stop = {"stop_reason": self._answer.stop_string if finish_reason else None}
        ends = {"logprobs": None, "finish_reason": finish_reason}
        if not self._ask.chat:
            return {"index": 0, "text": text, **ends, **stop, "prompt_token_ids": None, "token_ids": None}
        return {
            "index": 0,
            "delta": {"content": text},
            **ends,
            **(stop if finish_reason else {}),
            "token_ids": None,
        }

    def role(self) -> bytes:
        """The first event of a chat: a role and no text. Empty for a plain completion."""
        if not self._ask.chat:
            return b""
        delta = {"role": "assistant", "content": ""}
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}
        return framed(self._event([choice], **self._usage(0), prompt_token_ids=None, prompt_text=None))

    def contents(self, pieces: list[str], number: int) -> list[bytes]:
        """Content events in the middle of the answer, the first of them of the token with this number."""
        before, after, fixed = self._before, self._after, self._fixed_bytes
        texts = [piece.encode() for piece in pieces]
        if not self._every_usage:
            return [b"%x\r\n%b%b%b\n\n\r\n" % (fixed + len(text), before, text, after) for text in texts]
        prompt, fixed = self._ask.prompt_tokens, fixed - 1
        made = []
        for tokens, text in enumerate(texts, number):
            counts = self._counts % (prompt, prompt + tokens, tokens)
            size = fixed + len(text) + len(counts)
            made.append(b"%x\r\n%b%b%b%b\n\n\r\n" % (size, before, text, after, counts))
        return made

    def last(self, piece: str, tokens: int) -> bytes:
        """The event that carries the finish reason, with the last piece of text or none."""
        choice = self._choice(piece, self._answer.finish_reason)
        # Whatever comes last of all carries the fingerprint: this event, or the usage after it.
        end = {} if self._ask.usage else {"system_fingerprint": FINGERPRINT}
        return framed(self._event([choice], **self._usage(tokens), **end))

    def tail(self, cached_tokens: int | None) -> bytes:
        """All that follows the last token: usage if asked for, the end mark, the end of the body."""
        closing = framed(b"data: [DONE]\n\n") + b"0\r\n\r\n"
        if not self._ask.usage:
            return closing
        counts: dict[str, Any] = self._tokens(self._answer.tokens)
        if cached_tokens is not None:
            created = {"created_cache_tokens": self._ask.cacheable(cached_tokens)} if self._ask.chat else {}
            counts["prompt_tokens_details"] = {"cached_tokens": cached_tokens, **created}
        return framed(self._event([], usage=counts, system_fingerprint=FINGERPRINT)) + closing

    def _usage(self, tokens: int) -> dict[str, Any]:
        """Cumulative usage, where every event carries it."""
        if not self._ask.every_usage:
            return {}
        details = {"completion_tokens_details": None} if self._ask.chat else {}
        return {"usage": {**self._tokens(tokens), **details}}

    def _tokens(self, output_tokens: int) -> dict[str, Any]:
        prompt = self._ask.prompt_tokens
        return {
            "prompt_tokens": prompt,
            "total_tokens": prompt + output_tokens,
            "completion_tokens": output_tokens,
        }

    def whole(self, cached_tokens: int | None) -> bytes:
        """The body of an answer that is not streamed."""
        chat = self._ask.chat
        created = self._ask.cacheable(cached_tokens or 0) if chat else None
        details = {"cached_tokens": cached_tokens, "created_cache_tokens": created, "multimodal_tokens": None}
        body = {
            **self._base,
            "object": "chat.completion" if chat else "text_completion",
            "choices": [self._whole_choice("".join(self._answer.pieces))],
            "service_tier": None,
            "system_fingerprint": FINGERPRINT,
            "usage": {
                **self._tokens(self._answer.tokens),
                "prompt_tokens_details": None if cached_tokens is None else details,
                "completion_tokens_details": None,
            },
        }
        prompt = ("prompt_logprobs", "prompt_token_ids", "prompt_text") if chat else ()
        return _encode(body | dict.fromkeys((*prompt, "kv_transfer_params", "ec_transfer_params", "metrics")))

    def _whole_choice(self, text: str) -> dict[str, Any]:
        ends = {
            "logprobs": None,
            "finish_reason": self._answer.finish_reason,
            "stop_reason": self._answer.stop_string,
            "token_ids": None,
        }
        if not self._ask.chat:
            nothing = dict.fromkeys(("prompt_logprobs", "prompt_token_ids", "routed_experts"))
            return {"index": 0, "text": text, **ends, **nothing}
        absent = dict.fromkeys(("refusal", "annotations", "audio", "function_call", "reasoning"))
        message = {"role": "assistant", "content": text, **absent}
        return {"index": 0, "message": message, **ends, "routed_experts": None}

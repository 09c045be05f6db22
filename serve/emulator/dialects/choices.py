"""What OpenAI's two completion APIs have in common, as vLLM 0.32 serves them: fields, checks, usage, events.

Unknown fields pass, wrong types do not. Events are assembled from templates made once a request.
`tests/conformance` lays these bodies beside recorded ones.
"""

from __future__ import annotations

import re
import time
from typing import Any, TypeVar

import msgspec

from serve.emulator import VERSION
from serve.emulator.answers import Answer
from serve.emulator.request import (
    EmulatedModel,
    GenerationRequest,
    bad_request,
    bad_value,
    count_tokens,
    invalid,
    unknown_model,
)

FINGERPRINT = VERSION.replace("/", "-")
_MARK = "\x00piece\x00"
_encode = msgspec.json.encode


class StreamOptions(msgspec.Struct):
    """`stream_options` of a request."""

    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None


class SharedFields(msgspec.Struct, kw_only=True):
    """The fields of a request that both APIs have and the emulator heeds."""

    model: str | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None
    min_tokens: int | None = 0
    ignore_eos: bool | None = False
    stop: str | list[str] | None = None
    n: int | None = 1
    temperature: float | None = None
    top_p: float | None = None


_Body = TypeVar("_Body")
_AT = re.compile(r" - at `\$\.?(.*)`$")
_MISSING = re.compile(r"missing required field `(\w+)`")
_BYTE = re.compile(r"\(byte (\d+)\)$")


def decode(decoder: msgspec.json.Decoder[_Body], body: bytes) -> _Body:
    """The body as it should be; raises RequestRefused that names the field, as in body.messages.0.role."""
    if not body:
        raise invalid("{'type': 'missing', 'loc': 'body', 'msg': 'Field required', 'input': 'None'}", "body")
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        said, steps = str(error), ["body"]
        if at := _AT.search(said):
            steps += [step.strip("]") for step in re.split(r"[.\[]", at[1]) if step]
        if place := _MISSING.search(said) or _BYTE.search(said):
            steps.append(place[1])
        where = ".".join(steps)
        raise invalid(f"{{'loc': '{where}', 'msg': {said!r}}}", where) from None


def check_fields(body: SharedFields, model: EmulatedModel, field: str, max_tokens: int | None) -> None:
    """Raise RequestRefused for what no answer could keep; `field` is the one that limits its length."""
    if body.model is not None and body.model != model.name:
        raise unknown_model(body.model, model.name)
    if body.stream_options is not None and not body.stream:
        raise bad_value("Stream options can only be defined when `stream=True`.", "stream_options")
    if max_tokens is not None and max_tokens < 1:
        raise bad_value(f"max_tokens must be at least 1, got {max_tokens}.", "max_tokens", max_tokens)
    if max_tokens is not None and max_tokens > model.max_model_len:
        raise bad_value(
            f"{field}={max_tokens} cannot be greater than max_model_len={model.max_model_len}. "
            "Please request fewer output tokens.",
            field,
            max_tokens,
        )
    if max_tokens is not None and (least := body.min_tokens or 0) > max_tokens:
        raise bad_request(f"min_tokens must be less than or equal to max_tokens={max_tokens}, got {least}.")
    heat, share, choices = body.temperature, body.top_p, 1 if body.n is None else body.n
    if heat is not None and heat < 0:
        raise bad_value(f"temperature must be non-negative, got {heat}.", "temperature", heat)
    if share is not None and not 0 < share <= 1:
        raise bad_value(f"top_p must be in (0, 1], got {share}.", "top_p", share)
    if choices < 1:
        raise bad_request(f"n must be at least 1, got {choices}.")
    if choices > 1 and heat == 0:
        raise bad_request(f"n must be 1 when using greedy sampling, got {choices}.")
    if choices > 1:
        raise bad_request("The emulator makes one choice a request: n must be 1.")
    if body.stop is not None and "" in ([body.stop] if isinstance(body.stop, str) else body.stop):
        raise bad_request("stop cannot contain an empty string.")


def request_of(
    body: SharedFields, model: EmulatedModel, prompt: str, first_message: str, max_tokens: int | None
) -> GenerationRequest:
    """The checked request; raises RequestRefused if the prompt leaves no room for a token.

    A longer answer than there is room for is no mistake: it ends early instead.
    """
    prompt_tokens, longest = max(1, count_tokens(prompt)), model.max_model_len
    if prompt_tokens >= longest:
        # vLLM stops counting one beyond the limit.
        counted = "at least " * (prompt_tokens > longest) + str(min(prompt_tokens, longest + 1))
        raise bad_value(
            f"This model's maximum context length is {longest} tokens. However, your prompt contains "
            f"{counted} input tokens, which exceeds this limit even without any output tokens. "
            "Please reduce the length of the input prompt.",
            "input_tokens",
            min(prompt_tokens, longest + 1),
        )
    options = body.stream_options or StreamOptions()
    return GenerationRequest(
        prompt=prompt,
        first_message=first_message,
        prompt_tokens=prompt_tokens,
        stream=bool(body.stream),
        usage=bool(options.include_usage),
        every_usage=bool(options.include_usage and options.continuous_usage_stats),
        max_tokens=max_tokens,
        min_tokens=body.min_tokens or 0,
        ignore_eos=bool(body.ignore_eos),
        stop=(body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ()),
    )


def framed(event: bytes) -> bytes:
    """One event in a chunk of its own, as a streaming server sends it."""
    return b"%x\r\n%b\r\n" % (len(event), event)


class ChoiceEvents:
    """Makes the events of one reply whose text stands in `choices`, field by field in vLLM's order.

    What differs between the two APIs is named by the subclasses.
    """

    id_prefix: str
    object_name: str
    """`object` of every event."""
    whole_object_name: str
    """`object` of an answer that is not streamed."""
    counts_created_tokens: bool
    """Whether usage says how many tokens of the prompt went into the prefix cache."""
    event_usage_nulls: tuple[str, ...]
    """What usage has beside its counts in every event, all null."""
    choice_nulls: tuple[str, ...]
    """Null fields of the choice of a whole answer; `whole_nulls` of the answer itself."""
    whole_nulls: tuple[str, ...]

    def __init__(self, request: GenerationRequest, answer: Answer, model: EmulatedModel, number: int) -> None:
        self._request = request
        self._answer = answer
        self._base = {
            "id": f"{self.id_prefix}-emulated-{number:08x}",
            "object": self.object_name,
            "created": int(time.time()),
            "model": model.name,
        }
        details = b"".join(b',"%b":null' % name.encode() for name in self.event_usage_nulls)
        self._counts = b',"usage":{"prompt_tokens":%d,"total_tokens":%d,"completion_tokens":%d'
        self._counts += details + b"}}"
        event = self._event([self._choice(_MARK, None)]).removesuffix(b"\n\n")
        self._before, self._after = event.split(_encode(_MARK)[1:-1])
        self._fixed_bytes = len(self._before) + len(self._after) + 2
        self._every_usage = request.every_usage
        if request.every_usage:
            self._after = self._after.removesuffix(b"}")

    def _choice(self, text: str, finish_reason: str | None) -> dict[str, Any]:
        """The choice of an event with this text."""
        raise NotImplementedError

    def _whole_text(self, text: str) -> dict[str, Any]:
        """What holds the text of an answer that is not streamed."""
        raise NotImplementedError

    def _event(self, choices: list[dict[str, Any]], **more: Any) -> bytes:
        return b"data: " + _encode({**self._base, "choices": choices, **more}) + b"\n\n"

    def opening(self) -> bytes:
        """Nothing stands before the first token."""
        return b""

    def contents(self, pieces: list[str], number: int) -> list[bytes]:
        """Content events in the middle of the answer, the first of them of the token with this number."""
        before, after, fixed = self._before, self._after, self._fixed_bytes
        texts = [piece.encode() for piece in pieces]
        if not self._every_usage:
            return [b"%x\r\n%b%b%b\n\n\r\n" % (fixed + len(text), before, text, after) for text in texts]
        prompt, fixed = self._request.prompt_tokens, fixed - 1
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
        end = {} if self._request.usage else {"system_fingerprint": FINGERPRINT}
        return framed(self._event([choice], **self._usage_so_far(tokens), **end))

    def tail(self, cached_tokens: int | None) -> bytes:
        """All that follows the last token: usage if asked for, the end mark, the end of the body."""
        closing = framed(b"data: [DONE]\n\n") + b"0\r\n\r\n"
        if not self._request.usage:
            return closing
        counts: dict[str, Any] = self._token_counts(self._answer.tokens)
        if cached_tokens is not None:
            created = {"created_cache_tokens": self._request.cacheable(cached_tokens)}
            details = {"cached_tokens": cached_tokens, **(created if self.counts_created_tokens else {})}
            counts["prompt_tokens_details"] = details
        return framed(self._event([], usage=counts, system_fingerprint=FINGERPRINT)) + closing

    def _usage_so_far(self, tokens: int) -> dict[str, Any]:
        """Cumulative usage, where every event carries it."""
        if not self._request.every_usage:
            return {}
        return {"usage": {**self._token_counts(tokens), **dict.fromkeys(self.event_usage_nulls)}}

    def _token_counts(self, output_tokens: int) -> dict[str, Any]:
        prompt = self._request.prompt_tokens
        return {
            "prompt_tokens": prompt,
            "total_tokens": prompt + output_tokens,
            "completion_tokens": output_tokens,
        }

    def whole(self, cached_tokens: int | None) -> bytes:
        """The body of an answer that is not streamed."""
        created = self._request.cacheable(cached_tokens or 0) if self.counts_created_tokens else None
        details = {"cached_tokens": cached_tokens, "created_cache_tokens": created, "multimodal_tokens": None}
        choice = {
            "index": 0,
            **self._whole_text("".join(self._answer.pieces)),
            "logprobs": None,
            "finish_reason": self._answer.finish_reason,
            "stop_reason": self._answer.stop_string,
            "token_ids": None,
            **dict.fromkeys(self.choice_nulls),
        }
        body = {
            **self._base,
            "object": self.whole_object_name,
            "choices": [choice],
            "service_tier": None,
            "system_fingerprint": FINGERPRINT,
            "usage": {
                **self._token_counts(self._answer.tokens),
                "prompt_tokens_details": None if cached_tokens is None else details,
                "completion_tokens_details": None,
            },
        }
        nulls = (*self.whole_nulls, "kv_transfer_params", "ec_transfer_params", "metrics")
        return _encode(body | dict.fromkeys(nulls))


class ChoiceDialect:
    """How the text of an event with `choices` is found, for faults that bend it."""

    def text_of(self, event: Any) -> str:
        """The generated text that an event carries; empty if none."""
        if not event.get("choices"):
            return ""
        choice = event["choices"][0]
        return str(choice.get("text") or choice.get("delta", {}).get("content") or "")

    def error_event(self, error: dict[str, Any]) -> Any:
        """An event that reports this error."""
        return {"error": error}

    def counts_of(self, event: Any) -> tuple[dict[str, Any], str] | None:
        """The usage after the last event with text, and the name of its count of output tokens."""
        usage = event.get("usage")
        return (usage, "completion_tokens") if usage and not event.get("choices") else None

    def is_end(self, event: Any) -> bool:
        """There is an end mark."""
        return False

    def without_text(self, event: Any) -> Any | None:
        """The event with its text taken out; None for one that had nothing else."""
        choice = event["choices"][0]
        if choice["finish_reason"] is None:
            return None
        choice.update({"text": ""} if "text" in choice else {"delta": {"content": ""}})
        return event

    def as_reasoning(self, event: Any, key: str) -> Any:
        """The event with its text under this key; a plain completion has no reasoning."""
        delta = event["choices"][0].get("delta")
        if delta is not None:
            delta[key] = delta.pop("content")
        return event

"""A request to generate text in the emulator's own terms, whatever its dialect, and how one is refused.

Refusals are in the words in which vLLM 0.32 has them (see tests/conformance).
"""

from __future__ import annotations

import msgspec

from serve.emulator.scheduler import BLOCK_TOKENS

CHARS_PER_TOKEN = 4


class EmulatedModel(msgspec.Struct, frozen=True):
    """The model that is served, and what it accepts."""

    name: str
    max_model_len: int
    """Longest context, tokens."""
    system_role: bool = True
    """Whether its chat template takes a system message."""
    vocabulary: int = 32_000


class GenerationRequest(msgspec.Struct, kw_only=True):
    """What is asked for."""

    request_id: str | None = None
    """The client's X-Request-Id."""
    received_ns: int = 0
    """Monotonic moment at which its last byte came."""
    prompt: str
    """The whole rendered prompt; a conversation's next prompt starts with this one and its reply."""
    first_message: str
    """The first user message, from which the task is recognised."""
    prompt_tokens: int
    stream: bool
    usage: bool
    """Whether the stream ends with a usage event."""
    every_usage: bool
    """Whether each event carries cumulative usage."""
    max_tokens: int | None
    min_tokens: int
    ignore_eos: bool
    stop: tuple[str, ...]

    def cacheable(self, cached_tokens: int) -> int:
        """Prompt tokens that this request added to the prefix cache: whole blocks that were not in it."""
        return max(0, self.prompt_tokens // BLOCK_TOKENS * BLOCK_TOKENS - cached_tokens)


def count_tokens(text: str) -> int:
    """Tokens of a text, at four characters each, rounded up."""
    return -(-len(text) // CHARS_PER_TOKEN)


class RequestRefused(Exception):
    """A request that is answered with an error object."""

    def __init__(self, status: int, kind: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.message = message
        self.param = param

    def body(self) -> bytes:
        """The error object."""
        error = {"message": self.message, "type": self.kind, "param": self.param, "code": self.status}
        return msgspec.json.encode({"error": error})


def invalid(problem: str, param: str | None) -> RequestRefused:
    """A request that cannot be read."""
    return RequestRefused(400, "Bad Request", f"1 validation error:\n  {problem}", param)


def bad_request(message: str, param: str | None = None) -> RequestRefused:
    """A request that can be read but not answered."""
    return RequestRefused(400, "BadRequestError", message, param)


def bad_value(message: str, param: str, value: object = None) -> RequestRefused:
    """A field with a value that it may not have; vLLM says both again at the end."""
    said = f"parameter={param}" if value is None else f"parameter={param}, value={value}"
    return bad_request(f"{message} ({said})", param)


def unknown_model(asked: str, served: str) -> RequestRefused:
    """A request for another model than the one that is served."""
    message = f"The model `{asked}` does not exist. Valid aliases: {served}."
    return RequestRefused(404, "NotFoundError", message, "model")

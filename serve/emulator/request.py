"""What a client asks for, read and checked as vLLM does: unknown fields pass, wrong types do not."""

from __future__ import annotations

import msgspec

from serve.emulator.prefix_cache import BLOCK_TOKENS
from serve.emulator.refusal import bad_request, bad_value, decode, unknown_model
from serve.emulator.template import Message, check_roles, render


class StreamOptions(msgspec.Struct):
    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None


class _Common(msgspec.Struct, kw_only=True):
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


class ChatBody(_Common, kw_only=True):
    messages: list[Message]
    max_completion_tokens: int | None = None


class CompletionBody(_Common, kw_only=True):
    prompt: str | list[str | int] | None = None


class Ask(msgspec.Struct, kw_only=True):
    """One request in the emulator's own words."""

    chat: bool
    request_id: str | None
    received_ns: int
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


CHARS_PER_TOKEN = 4
COMPLETION_TOKENS = 16
"""Length of a plain completion whose request names none."""

_chat_decoder = msgspec.json.Decoder(ChatBody)
_completion_decoder = msgspec.json.Decoder(CompletionBody)


class Limits(msgspec.Struct, frozen=True):
    """What the served model accepts."""

    model: str
    max_model_len: int
    system_role: bool = True
    vocabulary: int = 32_000


def count_tokens(text: str) -> int:
    """Tokens of a text, at four characters each, rounded up."""
    return -(-len(text) // CHARS_PER_TOKEN)


def read_chat(body: bytes, limits: Limits, request_id: str | None, received_ns: int) -> Ask:
    """The ask of a chat completion; raises Refusal."""
    chat = decode(_chat_decoder, body)
    asked = ("max_completion_tokens", chat.max_completion_tokens)
    _check(chat, limits, asked if asked[1] is not None else ("max_tokens", chat.max_tokens))
    check_roles(chat.messages, limits.model, limits.system_role)
    users = [message.text() for message in chat.messages if message.role == "user"]
    return _ask(
        chat,
        limits,
        chat=True,
        request_id=request_id,
        received_ns=received_ns,
        prompt=render(chat.messages),
        first_message=users[0] if users else "",
        max_tokens=chat.max_tokens if asked[1] is None else asked[1],
    )


def read_completion(body: bytes, limits: Limits, request_id: str | None, received_ns: int) -> Ask:
    """The ask of a plain completion; raises Refusal."""
    completion = decode(_completion_decoder, body)
    prompt = _one_prompt(completion.prompt)
    _check(completion, limits, ("max_tokens", completion.max_tokens))
    return _ask(
        completion,
        limits,
        chat=False,
        request_id=request_id,
        received_ns=received_ns,
        prompt=prompt,
        first_message=prompt,
        max_tokens=COMPLETION_TOKENS if completion.max_tokens is None else completion.max_tokens,
    )


def _one_prompt(prompt: str | list[str | int] | None) -> str:
    if not prompt:
        raise bad_value("Either prompt or prompt_embeds must be provided and non-empty.", "prompt")
    if isinstance(prompt, str):
        return prompt
    texts = [item for item in prompt if isinstance(item, str)]
    if len(texts) == len(prompt) == 1:
        return texts[0]
    if texts:
        raise bad_request("The emulator takes one prompt a request.", "prompt")
    # A prompt of token numbers: each stands for as many characters as a token has here.
    return "".join(f"{int(item) % 10_000:04d}" for item in prompt)


def _ask(
    body: _Common,
    limits: Limits,
    *,
    chat: bool,
    request_id: str | None,
    received_ns: int,
    prompt: str,
    first_message: str,
    max_tokens: int | None,
) -> Ask:
    prompt_tokens = max(1, count_tokens(prompt))
    _check_room(prompt_tokens, limits)
    options = body.stream_options or StreamOptions()
    return Ask(
        chat=chat,
        request_id=request_id,
        received_ns=received_ns,
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


def _check(body: _Common, limits: Limits, limit: tuple[str, int | None]) -> None:
    """Raise Refusal for what no answer could keep; `limit` is the field that limits the answer, and how."""
    field, max_tokens = limit
    if body.model is not None and body.model != limits.model:
        raise unknown_model(body.model, limits.model)
    if body.stream_options is not None and not body.stream:
        raise bad_value("Stream options can only be defined when `stream=True`.", "stream_options")
    if max_tokens is not None and max_tokens < 1:
        raise bad_value(f"max_tokens must be at least 1, got {max_tokens}.", "max_tokens", max_tokens)
    if max_tokens is not None and max_tokens > limits.max_model_len:
        raise bad_value(
            f"{field}={max_tokens} cannot be greater than max_model_len={limits.max_model_len}. "
            "Please request fewer output tokens.",
            field,
            max_tokens,
        )
    if max_tokens is not None and (least := body.min_tokens or 0) > max_tokens:
        raise bad_request(f"min_tokens must be less than or equal to max_tokens={max_tokens}, got {least}.")
    _check_sampling(body)


def _check_sampling(body: _Common) -> None:
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


def _check_room(prompt_tokens: int, limits: Limits) -> None:
    """The prompt must leave room for a token. A longer answer than there is room for ends early instead."""
    longest = limits.max_model_len
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

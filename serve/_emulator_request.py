"""What a client asks for, read and checked as vLLM does: unknown fields pass, wrong types do not."""

from __future__ import annotations

from typing import Annotated, Literal, TypeVar

import msgspec

Count = Annotated[int, msgspec.Meta(ge=1)]


class Refusal(Exception):
    """A request that gets an error object for an answer."""

    def __init__(self, status: int, kind: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.message = message
        self.param = param

    def body(self) -> bytes:
        return msgspec.json.encode(
            {
                "error": {
                    "message": self.message,
                    "type": self.kind,
                    "param": self.param,
                    "code": self.status,
                }
            }
        )


class StreamOptions(msgspec.Struct):
    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None


class Part(msgspec.Struct):
    """One part of a message given in parts; only text counts here."""

    type: str
    text: str | None = None


class Message(msgspec.Struct):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[Part] | None = None

    def text(self) -> str:
        if isinstance(self.content, list):
            return "".join(part.text or "" for part in self.content)
        return self.content or ""


class _Common(msgspec.Struct, kw_only=True):
    model: str | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    max_tokens: Count | None = None
    min_tokens: Annotated[int, msgspec.Meta(ge=0)] | None = 0
    ignore_eos: bool | None = False
    stop: str | list[str] | None = None
    n: Count | None = 1
    temperature: Annotated[float, msgspec.Meta(ge=0)] | None = None
    top_p: Annotated[float, msgspec.Meta(gt=0, le=1)] | None = None


class ChatBody(_Common, kw_only=True):
    messages: Annotated[list[Message], msgspec.Meta(min_length=1)]
    max_completion_tokens: Count | None = None


class CompletionBody(_Common, kw_only=True):
    prompt: str | list[str | int]


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


CHARS_PER_TOKEN = 4
_ROLE_MARK = "<|{}|>\n"
_END_MARK = "<|end|>\n"

_chat_decoder = msgspec.json.Decoder(ChatBody)
_completion_decoder = msgspec.json.Decoder(CompletionBody)


class Limits(msgspec.Struct, frozen=True):
    """What the served model accepts."""

    model: str
    max_model_len: int
    system_role: bool = True


def count_tokens(text: str) -> int:
    """Tokens of a text, at four characters each, rounded up."""
    return -(-len(text) // CHARS_PER_TOKEN)


def read_chat(body: bytes, limits: Limits, request_id: str | None, received_ns: int) -> Ask:
    """The ask of a chat completion; raises Refusal."""
    chat = _decode(_chat_decoder, body)
    if not limits.system_role and any(message.role == "system" for message in chat.messages):
        raise Refusal(400, "BadRequestError", f"The chat template of {limits.model} takes no system message.")
    users = [message.text() for message in chat.messages if message.role == "user"]
    return _ask(
        chat,
        limits,
        chat=True,
        request_id=request_id,
        received_ns=received_ns,
        prompt=render(chat.messages),
        first_message=users[0] if users else "",
        max_tokens=chat.max_completion_tokens or chat.max_tokens,
    )


def read_completion(body: bytes, limits: Limits, request_id: str | None, received_ns: int) -> Ask:
    """The ask of a plain completion; raises Refusal."""
    completion = _decode(_completion_decoder, body)
    prompt = _one_prompt(completion.prompt)
    return _ask(
        completion,
        limits,
        chat=False,
        request_id=request_id,
        received_ns=received_ns,
        prompt=prompt,
        first_message=prompt,
        max_tokens=completion.max_tokens or 16,
    )


def render(messages: list[Message]) -> str:
    """The prompt of a conversation, each message between its marks, ready for the assistant to speak."""
    said = "".join(_ROLE_MARK.format(message.role) + message.text() + _END_MARK for message in messages)
    return said + _ROLE_MARK.format("assistant")


_Body = TypeVar("_Body")


def _decode(decoder: msgspec.json.Decoder[_Body], body: bytes) -> _Body:
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refusal(400, "BadRequestError", f"The request body cannot be read: {error}") from None


def _one_prompt(prompt: str | list[str | int]) -> str:
    if isinstance(prompt, str):
        return prompt
    texts = [item for item in prompt if isinstance(item, str)]
    if len(texts) == len(prompt) == 1:
        return texts[0]
    if texts or not prompt:
        raise Refusal(400, "BadRequestError", "The emulator takes one prompt a request.", "prompt")
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
    _check(body, limits, prompt_tokens, max_tokens)
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


def _check(body: _Common, limits: Limits, prompt_tokens: int, max_tokens: int | None) -> None:
    if body.model is not None and body.model != limits.model:
        raise Refusal(404, "NotFoundError", f"The model `{body.model}` does not exist.", "model")
    if body.n not in (None, 1):
        raise Refusal(400, "BadRequestError", "The emulator makes one choice a request: n must be 1.", "n")
    if body.stream_options is not None and not body.stream:
        raise Refusal(400, "BadRequestError", "stream_options needs stream to be true.", "stream_options")
    if max_tokens is not None and (body.min_tokens or 0) > max_tokens:
        raise Refusal(400, "BadRequestError", "min_tokens is larger than max_tokens.", "min_tokens")
    if prompt_tokens + (max_tokens or 1) > limits.max_model_len:
        asked = f"{prompt_tokens} input tokens" + (f" and {max_tokens} output tokens" if max_tokens else "")
        raise Refusal(
            400,
            "BadRequestError",
            f"This model's maximum context length is {limits.max_model_len} tokens, and the request asks for "
            f"{asked}. Shorten the messages or ask for fewer output tokens.",
            "input_tokens",
        )

"""The chunks of a streamed chat completion, decoded: strictly where they are as they should be, else not.

The structs hold nothing that could form a cycle (`gc=False`), so that the garbage collector need not walk
over a reply's thousands. Events that don't fit them are read once more, one by one, for what servers are
known to send instead: lists of parts, counts as text, characters split over events.
"""

from __future__ import annotations

import codecs
import contextlib
import json
import math
import re
from typing import Annotated, Any, Literal

import msgspec

from loadgen.dialects._dialect import Problem
from loadgen.dialects._failures import error_words, failure_in

EVENT_BYTES = 1 << 20
"""Longest event that is taken for one."""
DONE = b"[DONE]"
"""The data of the event that ends a stream of OpenAI's."""
_LAST_EVENTS = 3
"""Where usage under a name of the server's own is looked for."""
_MOST = 1 << 53

_Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 53)]


class ChatUsageDetails(msgspec.Struct, gc=False):
    """The parts of a count."""

    cached_tokens: _Count | None = None
    reasoning_tokens: _Count | None = None


class ChatUsage(msgspec.Struct, gc=False):
    """The server's counts so far, or of the whole reply."""

    prompt_tokens: _Count | None = None
    completion_tokens: _Count | None = None
    total_tokens: _Count | None = None
    prompt_tokens_details: ChatUsageDetails | None = None
    completion_tokens_details: ChatUsageDetails | None = None
    reasoning_tokens: _Count | None = None
    """Where servers have it beside the details, as Perplexity's."""
    cached_tokens: _Count | None = None
    prompt_cache_hit_tokens: _Count | None = None
    cache_read_input_tokens: _Count | None = None
    """Moonshot's, DeepSeek's and Anthropic's names for what a cache held of the prompt."""
    cache_creation_input_tokens: _Count | None = None

    @property
    def cached(self) -> int | None:
        """Tokens of the prompt that a cache held."""
        details = self.prompt_tokens_details
        named = (self.cached_tokens, self.prompt_cache_hit_tokens, self.cache_read_input_tokens)
        found = (None if details is None else details.cached_tokens, *named)
        return next((each for each in found if each is not None), None)

    @property
    def reasoning(self) -> int | None:
        """Tokens of reasoning, wherever they stand."""
        details = self.completion_tokens_details
        found = None if details is None else details.reasoning_tokens
        return self.reasoning_tokens if found is None else found

    def output(self, oddities: set[str]) -> int | None:
        """Tokens that were made. xAI's completion tokens leave out those of the reasoning."""
        made, thought = self.completion_tokens, self.reasoning
        if made is None or not thought:
            return made
        with_thought = (self.prompt_tokens or 0) + made + thought
        if not (thought > made if self.total_tokens is None else self.total_tokens == with_thought):
            return made
        oddities.add("apart")
        return made + thought


class ChatDelta(msgspec.Struct, gc=False):
    """What one chunk adds to the answer."""

    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    reasoning_text: str | None = None
    thinking: str | None = None
    reasoning_details: Any = None
    """OpenRouter's: a list of parts, mostly beside `reasoning` with the same text."""
    refusal: str | None = None
    tool_calls: list[Any] | None = None
    function_call: Any = None

    @property
    def thought(self) -> str:
        """The reasoning, once: servers that renamed it send the same text under both names."""
        said = self.reasoning or self.reasoning_content or self.reasoning_text or self.thinking
        return said or (_texts_of(self.reasoning_details) if self.reasoning_details else "")


class ChatChoice(msgspec.Struct, gc=False):
    """One of the answers that a chunk is part of; requests ask for one."""

    index: int = 0
    delta: ChatDelta | None = None
    message: ChatDelta | None = None
    """In place of a delta: a server that makes the whole answer before it says any of it."""
    text: str | None = None
    """In place of a delta: what one event of /completions adds."""
    finish_reason: str | None = None
    error: Any = None


class ChatChunk(msgspec.Struct, gc=False):
    """One event of the stream."""

    choices: list[ChatChoice] | None = None
    usage: ChatUsage | None = None
    error: Any = None


class _PlainDelta(msgspec.Struct, gc=False):
    content: str
    reasoning: None = None
    reasoning_content: None = None
    reasoning_text: None = None
    thinking: None = None
    reasoning_details: None = None
    refusal: None = None
    tool_calls: None = None
    function_call: None = None


class _PlainChoice(msgspec.Struct, gc=False):
    delta: _PlainDelta
    index: Literal[0] = 0
    text: None = None
    finish_reason: None = None
    error: None = None


class _PlainUsage(msgspec.Struct, gc=False):
    completion_tokens: _Count


class _PlainChunk(msgspec.Struct, gc=False):
    """A chunk with a text of the answer and nothing else that matters: most are."""

    choices: tuple[_PlainChoice]
    usage: _PlainUsage | None = None
    error: None = None


NOTHING = ChatChunk()
"""Some servers keep a connection awake with an empty `data:`."""
NO_CHOICE = ChatChoice()
NO_DELTA = ChatDelta()

_decoder = msgspec.json.Decoder(ChatChunk)
_plain_decoder = msgspec.json.Decoder(list[_PlainChunk])
_NO_CHUNK = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_END_MARK = re.compile(rb"(data:|[\s\"'])*\[?DONE\]?[\s\"']*", re.I)
COMMENT = re.compile(rb"\s*(:|(ping|pong|heart-?beat|keep-?alive)\s*$)", re.I)


def undoubled(data: bytes) -> bytes:
    """The data of an event without a second `data:` in front and spaces around.

    Some servers write `data: data: {...}`: they give whole events to a library that frames them once more.
    """
    while data.startswith(b"data:"):
        data = data[5:].strip()
    return data


def end_of(events: list[bytes]) -> int:
    """The place of the end mark; else the number of events. Of the last ones it may be one in other letters,
    or with something around it."""
    if DONE in events:
        return events.index(DONE)
    first = max(len(events) - _LAST_EVENTS, 0)
    return next((n for n in range(first, len(events)) if _END_MARK.fullmatch(events[n])), len(events))


def plain_texts(events: list[bytes]) -> tuple[list[str], list[int] | None] | None:
    """(text, the server's count so far) of each event; no counts where no event has one.

    None where an event has anything else to say, or some have counts and some have none.
    """
    array = b",".join(events)
    if len(array) > EVENT_BYTES and max(map(len, events)) > EVENT_BYTES:
        return None
    try:
        chunks = _plain_decoder.decode(b"[%b]" % array)
    except _NO_CHUNK:
        return None
    if len(chunks) != len(events):  # an event that is no JSON by itself
        return None
    texts = [chunk.choices[0].delta.content for chunk in chunks]
    counts = [chunk.usage.completion_tokens for chunk in chunks if chunk.usage is not None]
    return (texts, counts or None) if len(counts) in (0, len(chunks)) else None


def chunks_of(events: list[bytes], oddities: set[str]) -> tuple[list[ChatChunk], Problem | None]:
    """A chunk for each event's data, up to the first that is none, and what was wrong with that one."""
    if max(map(len, events), default=0) <= EVENT_BYTES:
        with contextlib.suppress(*_NO_CHUNK):
            return list(map(_decoder.decode, events)), None
    odd = _LenientReader(oddities)
    chunks: list[ChatChunk] = []
    for data in events:
        if len(data) > EVENT_BYTES:
            return odd.closed(chunks), ("oversized", f"one event of {len(data)} bytes: {sample(data)}")
        try:
            chunks.append(odd.chunk(data))
        except (ValueError, RecursionError) as error:  # msgspec's are ValueErrors too
            return odd.closed(chunks), ("bad_json", f"{error}: {sample(data)}")
    return odd.closed(chunks), None


def has_one_choice(chunks: list[ChatChunk]) -> bool:
    """Whether all of them are of one answer, the first."""
    return not any(each.choices and (len(each.choices) > 1 or each.choices[0].index) for each in chunks)


def choice_of_answer(chunks: list[ChatChunk], oddities: set[str]) -> int:
    """The lowest index of all choices: that one is the answer; others, where there are any, are odd."""
    indices = {choice.index for chunk in chunks for choice in chunk.choices or ()}
    if len(indices) > 1:
        oddities.add("choices")
    return min(indices, default=0)


def usage_elsewhere(events: list[bytes], oddities: set[str]) -> ChatUsage | None:
    """Counts in the last events, under names of the server's own; None where there are none."""
    for data in reversed(events[-_LAST_EVENTS:]):
        try:
            value = json.loads(data)
        except (ValueError, RecursionError):
            continue
        for place in _places_of_usage(value):
            if (usage := usage_of(place, oddities)) is not None and usage.completion_tokens is not None:
                oddities.add("renamed")
                return usage
    return None


_OUTPUT_NAMES = (
    "completion_tokens",
    "output_tokens",
    "generated_tokens",
    "predicted_n",
    "candidatesTokenCount",
)
_PROMPT_NAMES = ("prompt_tokens", "input_tokens", "prompt_n", "promptTokenCount", "prefill_tokens")
_DETAILED = (("prompt_tokens", "input_tokens"), ("completion_tokens", "output_tokens"))
_USAGE_NAMES = (
    "usage",
    "token_usage",
    "usage_metadata",
    "usageMetadata",
    "timings",
    "x_groq",
    "details",
    "metrics",
)


def _places_of_usage(value: Any) -> list[Any]:
    if not isinstance(value, dict):
        return []
    choices = value.get("choices")
    around = [value, *(choices[:1] if isinstance(choices, list) else [])]
    found = [
        each[name] for each in around if isinstance(each, dict) for name in _USAGE_NAMES if each.get(name)
    ]
    return [*found, *(each["usage"] for each in found if isinstance(each, dict) and "usage" in each)]


def usage_of(value: Any, oddities: set[str]) -> ChatUsage | None:
    """The counts of any JSON value under any server's names; None where it is no object."""
    if not isinstance(value, dict):
        return None

    def count(held: Any, *names: str) -> int | None:
        given = next((held[name] for name in names if held.get(name) is not None), None)
        found = _count(given)
        if given is not None and (found is None or not isinstance(given, int)):
            oddities.add("counts")
        return found

    details = [(value.get(f"{names[0]}_details"), value.get(f"{names[1]}_details")) for names in _DETAILED]
    cached, reasoning = (next((each for each in pair if isinstance(each, dict)), {}) for pair in details)
    prompt = count(value, *_PROMPT_NAMES)
    kept = count(value, "cache_n")  # llama.cpp's, whose prompt_n is without them
    return ChatUsage(
        prompt_tokens=prompt if kept is None or prompt is None else prompt + kept,
        completion_tokens=count(value, *_OUTPUT_NAMES),
        total_tokens=count(value, "total_tokens", "totalTokenCount"),
        prompt_tokens_details=ChatUsageDetails(cached_tokens=count(cached, "cached_tokens")),
        completion_tokens_details=ChatUsageDetails(reasoning_tokens=count(reasoning, "reasoning_tokens")),
        reasoning_tokens=count(value, "reasoning_tokens", "thoughtsTokenCount"),
        cached_tokens=count(value, "cached_tokens", "cachedContentTokenCount", "cache_n"),
        prompt_cache_hit_tokens=count(value, "prompt_cache_hit_tokens"),
        cache_read_input_tokens=count(value, "cache_read_input_tokens"),
        cache_creation_input_tokens=count(value, "cache_creation_input_tokens"),
    )


def _count(value: Any) -> int | None:
    """A count that can be one: whole, not negative, of a size that can be computed with."""
    if isinstance(value, str) and value.strip().isascii() and value.strip().isdigit():
        value = int(value.strip()[:20])
    if isinstance(value, float) and math.isfinite(value) and value == int(value):
        value = int(value)
    whole = isinstance(value, int) and not isinstance(value, bool)
    return value if whole and 0 <= value <= _MOST else None


class CharacterJoiner:
    """Joins characters that a stream has split over its events, as bytes of UTF-8 or as surrogate halves."""

    def __init__(self, oddities: set[str], errors: Literal["strict", "replace"] = "strict") -> None:
        """`errors`: what becomes of bytes that can be no character's: ValueError, or an unknown character."""
        self._oddities = oddities
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors)
        self._high = ""
        """The first half of a surrogate pair, whose second half must follow."""

    @property
    def is_open(self) -> bool:
        """Whether the last text ended inside a character."""
        return bool(self._high or self._utf8.getstate()[0])

    def whole(self, text: str) -> str:
        """The text with the characters that it completes, and without one that it leaves open.

        Bytes that were no UTF-8 stand in it as lone surrogates (PEP 383).
        """
        if text.isascii() and not self.is_open:
            return text
        text, self._high = self._high + text, ""
        # Joins the halves of pairs that came in two events.
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
        if "\ud800" <= text[-1] <= "\udbff":
            self._high, text = text[-1], text[:-1]
        if self.is_open or _LONE.search(text):
            self._oddities.add("split")
        # Surrogates that are no bytes are halves of nothing.
        return self._utf8.decode(_HALF.sub("\ufffd", text).encode("utf-8", "surrogateescape"))


class _LenientReader:
    """Reads the events of one stream that has some that the structs refuse.

    Every method raises ValueError, or RecursionError, for what can't be read.
    """

    def __init__(self, oddities: set[str]) -> None:
        self._oddities = oddities
        self._characters = CharacterJoiner(oddities)
        self._open: ChatDelta | None = None
        """The last text, where it ends inside a character."""

    def chunk(self, data: bytes) -> ChatChunk:
        if not data or data.isspace():
            return NOTHING
        if data.startswith(b"data:"):
            self._oddities.add("doubled")
            data = undoubled(data)
        with contextlib.suppress(*_NO_CHUNK):
            return _decoder.decode(data)
        if COMMENT.match(data):
            self._oddities.add("comments")
            return NOTHING
        value = json.loads(data.decode("utf-8", "surrogateescape"), parse_constant=lambda _: None)
        if failure := failure_in(value):
            return ChatChunk(error=_well_formed(failure))
        if value is None or value == "":
            return NOTHING
        if not isinstance(value, dict):
            raise ValueError("an event is no JSON object")
        self._oddities.add("types")
        choices = value.get("choices")
        return ChatChunk(
            choices=None if choices is None else [self._choice(each) for each in _listed(choices) if each],
            usage=usage_of(value.get("usage"), self._oddities),
        )

    def closed(self, chunks: list[ChatChunk]) -> list[ChatChunk]:
        """After the last event: what never became a whole character is shown as one that is unknown."""
        if self._open is not None and self._characters.is_open:
            self._open.content = (self._open.content or "") + "\ufffd"
        return chunks

    def _choice(self, value: Any) -> ChatChoice:
        if not isinstance(value, dict):
            raise ValueError("a choice is no object")
        delta = value.get("delta")
        if delta is None:  # the form of answers that are not streamed, or of completions
            delta = value.get("message") or {"content": value.get("text")}
        finish = value.get("finish_reason")
        finish = finish.get("type") if isinstance(finish, dict) else finish
        return ChatChoice(
            index=_count(value.get("index")) or 0,
            delta=self._delta(delta) if isinstance(delta, dict) else ChatDelta(content=self._text(delta)[0]),
            finish_reason=_well_formed(str(finish)) if finish else None,
            error=error if (error := error_words(value.get("error"))) is None else _well_formed(error),
        )

    def _delta(self, value: dict[str, Any]) -> ChatDelta:
        content, thought = self._text(value.get("content"))
        for name in ("reasoning", "reasoning_content", "reasoning_text", "thinking", "reasoning_details"):
            if value.get(name) and not thought:
                thought = "".join(self._text(value[name]))
        refusal = self._text(value.get("refusal"))[0]
        calls = value.get("tool_calls")
        delta = ChatDelta(
            content=content or refusal or None,
            reasoning=thought or None,
            tool_calls=calls if isinstance(calls, list) else [calls] if calls else None,
            function_call=value.get("function_call"),
        )
        if content or thought:
            self._open = delta
        return delta

    def _text(self, value: Any) -> tuple[str, str]:
        """(text, thinking) of a content: a text, or parts of either kind."""
        if value is None or value == "":
            return "", ""
        if isinstance(value, str):
            return self._characters.whole(value), ""
        if not isinstance(value, list | dict):
            raise ValueError(f"content is neither text nor parts but {type(value).__name__}")
        self._oddities.add("parts")
        texts, thoughts = [], []
        for part in _listed(value):
            if isinstance(part, dict):
                kind = str(part.get("type", ""))
                inner = next((part[name] for name in _PART_TEXTS if part.get(name)), None)
                text, thought = self._text(inner)
                if "think" in kind or "reason" in kind:
                    text, thought = "", thought + text
            else:
                text, thought = self._text(part)
            texts.append(text)
            thoughts.append(thought)
        return "".join(texts), "".join(thoughts)


_PART_TEXTS = ("text", "thinking", "reasoning", "content", "refusal", "summary")
_LONE = re.compile("[\ud800-\udfff]")
_HALF = re.compile("[\ud800-\udc7f\udd00-\udfff]")


def _texts_of(parts: Any) -> str:
    """The texts of a list of parts, as far as it is one."""
    held = [part for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []
    texts = [
        next((part[name] for name in _PART_TEXTS if isinstance(part.get(name), str)), "") for part in held
    ]
    return "".join(texts)


def _well_formed(text: str) -> str:
    return _LONE.sub("\ufffd", text)


def _listed(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [value]
    if not isinstance(value, list):
        raise ValueError(f"a list was expected, not {type(value).__name__}")
    return value


def sample(data: bytes) -> str:
    """The start of what could not be read, for a message."""
    return data[:200].decode("utf-8", "replace")

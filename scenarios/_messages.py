"""The messages of a request: what of a conversation the server gets, with every turn and reply so far.

The first message starts with a short tag, so that no server can answer a run's prompts from its prefix cache.
"""

from __future__ import annotations

import json
from base64 import b32encode
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from hashlib import sha256

import msgspec

from scenarios._scenario import Conversation, Scenario, Turn
from scenarios._texts import pages
from scenarios.data import Message, text_of

_MEASURED_CHARACTERS, _MEASURED_WORDS = 20_000, 800
NO_TAGS = "none"
"""The salt with which prompts are sent as they are."""
_COMMON = tuple("the house keeps its rules in a book that every guest may read before it asks".split())  # noqa: SIM905


def dialogue(conversation: Conversation, salt: str, level: int, replies: Sequence[str]) -> list[Message]:
    """The messages of the request of turn len(replies), from 0, after these replies.

    Follows the conversation's `history`: with `real` it has the replies as they came, with `canned` those of
    the plan, with `none` no earlier turn. The reply before a tool's result becomes the call of that tool,
    whatever the model said, since servers refuse a result without a call.
    """
    turns, now = conversation.turns, len(replies)
    if now == 0 or conversation.history == "none":
        return _start(conversation, turns[now], turns[now].user, salt, level)
    first = turns[0].user if turns[0].remembered is None else turns[0].remembered
    messages = _start(conversation, turns[0], first, salt, level)
    for n, reply in enumerate(replies, start=1):
        canned = turns[n - 1].canned if conversation.history == "canned" else None
        turn = turns[n]
        text = turn.user if n == now or turn.remembered is None else turn.remembered
        if turn.call is not None:
            arguments = json.dumps(turn.call["arguments"], ensure_ascii=False)
            function = {"name": turn.call["name"], "arguments": arguments}
            call = {"id": turn.call["id"], "type": "function", "function": function}
            messages.append({"role": "assistant", "content": None, "tool_calls": [call]})
            messages.append({"role": "tool", "tool_call_id": turn.call["id"], "content": text})
            continue
        messages += turn.given or ({"role": "assistant", "content": reply if canned is None else canned},)
        messages += turn.added or ({"role": "user", "content": text},)
    return messages


def drop_oldest(messages: Sequence[Message]) -> list[Message]:
    """The messages without the oldest turn: its user message and all up to the next one. A system message
    stays. Unchanged where only one user message is left."""
    users = [place for place, message in enumerate(messages) if message["role"] == "user"]
    return [*messages[: users[0]], *messages[users[1] :]] if len(users) > 1 else list(messages)


def without_system(messages: Sequence[Message]) -> list[Message]:
    """The messages with the system's text in front of the first user message, for models that refuse it."""
    if messages[0]["role"] != "system":
        return list(messages)
    system, *rest = messages
    place = next((n for n, message in enumerate(rest) if message["role"] == "user"), None)
    if place is None:
        return list(messages)
    rest[place] = _after(f"{text_of(system)}\n\n", rest[place])
    return rest


def characters_of(messages: Sequence[Message]) -> int:
    """The length of all texts and calls of tools."""
    return sum(len(text_of(message)) + len(str(message.get("tool_calls", ""))) for message in messages)


def opening(conversation: Conversation, salt: str, level: int) -> list[Message]:
    """The messages of the first request: the system message, if there is one, and those of the first turn.

    The first of them starts with a tag of (salt, level, conversation), so that no server can answer it
    from the prefix cache of an earlier one. A shared system message has a tag of (salt, level) only: it
    is meant to be found in the cache, but not from an earlier run or level.
    """
    return _start(conversation, conversation.turns[0], conversation.turns[0].user, salt, level)


def _start(conversation: Conversation, turn: Turn, text: str, salt: str, level: int) -> list[Message]:
    """The system message and those of a turn, of which `text` is said, with their tags."""
    own = _tag(salt, level, "shared" if conversation.shared_start else conversation.index)
    added = list(turn.added) or [{"role": "user", "content": text}]
    if conversation.system is None:
        return [_after(own, added[0]), *added[1:]]
    if not conversation.shared_system:
        return [{"role": "system", "content": own + conversation.system}, *added]
    shared = {"role": "system", "content": _tag(salt, level, "shared") + conversation.system}
    return [shared, _after(own, added[0]), *added[1:]]


def _after(text: str, message: Message) -> Message:
    """The message with this text in front of its own."""
    if not text:
        return message
    content = message.get("content")
    if not isinstance(content, list):
        return message | {"content": text + (content or "")}
    first = content[0] if content else {}
    if first.get("type") == "text":
        return message | {"content": [first | {"text": text + first["text"]}, *content[1:]]}
    return message | {"content": [{"type": "text", "text": text}, *content]}


class MeasuredTexts(msgspec.Struct, frozen=True):
    """How the served model's tokenizer counts the texts that are made to a length."""

    characters_per_token: float
    """Of our own pages."""
    tokens_per_common_word: float
    """Of the common start of `with_common_start`, with the numbers in it."""

    @classmethod
    def of_counts(cls, page_tokens: int, common_tokens: int) -> MeasuredTexts:
        """From the tokens of both texts of `texts_to_measure`."""
        return cls(_MEASURED_CHARACTERS / page_tokens, common_tokens / _MEASURED_WORDS)


def texts_to_measure() -> tuple[str, str]:
    """A piece of our own pages, and of the common start: what MeasuredTexts is about."""
    return pages()[:_MEASURED_CHARACTERS], common_start(_MEASURED_WORDS)


def fit_to_tokenizer(scenario: Scenario, measured: MeasuredTexts) -> None:
    """Have the texts of a trace made to their lengths in tokens of the served model."""
    if scenario.own is not None:
        scenario.own.rows.characters_per_token = measured.characters_per_token


def with_common_start(
    conversation: Conversation, share: float, measured: MeasuredTexts | None = None
) -> Conversation:
    """The conversation with so much of its first request the same for everybody, as a shared system message.

    Counted in tokens as they were measured, else in words. The text is the start of one that has no end, so
    that requests of different lengths share all that the shorter one has of it.
    """
    own = f"{conversation.system or ''} {conversation.turns[0].user}".strip()
    words = float(len(own.split()))
    if measured is not None:
        words = len(own) / measured.characters_per_token / measured.tokens_per_common_word
    count = round(words * share / (1 - share))
    if count == 0:
        return conversation
    system = common_start(count) + (f"\n\n{conversation.system}" if conversation.system else "")
    return replace(conversation, system=system, shared_system=True)


def common_start(words: int) -> str:
    """So many words that are the same for everybody."""
    return " ".join(
        f"{_COMMON[n % len(_COMMON)]}{'' if (n + 1) % len(_COMMON) else f' {n}.'}" for n in range(words)
    )


@lru_cache(maxsize=4096)
def _tag(salt: str, level: int, which: int | str) -> str:
    """`[8 letters] `: 40 bits, so that a million conversations hardly ever share one."""
    if salt == NO_TAGS:
        return ""
    digest = sha256(f"{level}/{which}/{salt}".encode()).digest()
    return f"[{b32encode(digest[:5]).decode().lower()}] "

"""The messages of a request: what of a conversation the server gets, with every turn and reply so far.

The first message starts with a short tag, so that no server can answer a run's prompts from its prefix cache.
"""

from __future__ import annotations

import json
from base64 import b32encode
from collections.abc import Sequence
from hashlib import sha256
from typing import Any

from scenarios._scenario import Conversation

Message = dict[str, Any]


def dialogue(conversation: Conversation, salt: str, level: int, replies: Sequence[str]) -> list[Message]:
    """The messages of the request of turn len(replies), from 0, after these replies.

    Follows the conversation's `history`: with `real` it has the replies as they came, with `canned` those of
    the plan, with `none` no earlier turn. The reply before a tool's result becomes the call of that tool,
    whatever the model said, since servers refuse a result without a call.
    """
    messages: list[Message] = list(opening(conversation, salt, level))
    turns, now = conversation.turns, len(replies)
    if now == 0:
        return messages
    tag = messages[-1]["content"][: len(messages[-1]["content"]) - len(turns[0].user)]
    if conversation.history == "none":
        return [*messages[:-1], {"role": "user", "content": tag + turns[now].user}]
    if turns[0].remembered is not None:
        messages[-1] = {"role": "user", "content": tag + turns[0].remembered}
    for n, reply in enumerate(replies, start=1):
        canned = turns[n - 1].canned if conversation.history == "canned" else None
        turn = turns[n]
        text = turn.user if n == now or turn.remembered is None else turn.remembered
        if turn.call is None:
            messages.append({"role": "assistant", "content": reply if canned is None else canned})
            messages.append({"role": "user", "content": text})
            continue
        arguments = json.dumps(turn.call["arguments"], ensure_ascii=False)
        function = {"name": turn.call["name"], "arguments": arguments}
        call = {"id": turn.call["id"], "type": "function", "function": function}
        messages.append({"role": "assistant", "content": None, "tool_calls": [call]})
        messages.append({"role": "tool", "tool_call_id": turn.call["id"], "content": text})
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
    system, user, *rest = messages
    return [user | {"content": f"{system['content']}\n\n{user['content']}"}, *rest]


def opening(conversation: Conversation, salt: str, level: int) -> list[dict[str, str]]:
    """The messages of the first request: the system message, if there is one, and the first user message.

    The first of them starts with a tag of (salt, level, conversation), so that no server can answer it
    from the prefix cache of an earlier one. A shared system message has a tag of (salt, level) only: it
    is meant to be found in the cache, but not from an earlier run or level.
    """
    own = _tag(salt, level, "shared" if conversation.shared_start else conversation.index)
    user = {"role": "user", "content": conversation.turns[0].user}
    if conversation.system is None:
        return [user | {"content": own + user["content"]}]
    if not conversation.shared_system:
        return [{"role": "system", "content": own + conversation.system}, user]
    return [
        {"role": "system", "content": _tag(salt, level, "shared") + conversation.system},
        user | {"content": own + user["content"]},
    ]


def _tag(salt: str, level: int, which: int | str) -> str:
    """`[8 letters] `: 40 bits, so that a million conversations hardly ever share one."""
    digest = sha256(f"{level}/{which}/{salt}".encode()).digest()
    return f"[{b32encode(digest[:5]).decode().lower()}] "

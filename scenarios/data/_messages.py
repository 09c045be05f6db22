"""Messages as files have them, made into messages as the chat completions API takes them, and into turns.

Content stays what it is, lists of parts and unknown fields too. Exports give every part and message every
key: a null stands for an absent one. Parts that are only places for a picture (`{"type": "image"}` of
training sets) cannot be sent and are counted.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec

from scenarios.data._data_file import Message, RowTurn, what_it_is
from scenarios.data._other_apis import PICTURES, address_of_picture, messages_of_chat, tool_of_chat
from scenarios.data._records import Record
from turnbench.findings import note
from turnbench.formats import Finding
from turnbench.problems import listed

ROLES: dict[str, str] = {
    **dict.fromkeys(("human", "user", "prompter"), "user"),
    **dict.fromkeys(("gpt", "assistant", "chatgpt", "bing", "bard", "model", "bot", "ai"), "assistant"),
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("tool", "function", "observation", "function_call"), "tool"),
}
"""The roles that occur in files, and what each is."""
_TALKERS = {name: role for name, role in ROLES.items() if role != "tool"}
_COMMON_ROLES = ("user", "human", "assistant", "gpt", "system", "tool")
ROLE_KEYS = ("role", "from", "speaker")
_TEXT_KEYS = ("content", "value", "text")
_FIELDS = {
    "role", "content", "name", "tool_calls", "tool_call_id", "function_call", "reasoning_content", "refusal",
}  # fmt: skip
"""What the API knows of a message."""
_PLACES = {**dict.fromkeys((*PICTURES, "image_url"), "picture"), "video": "video", "audio": "sound"}
"""Types of parts that hold nothing the API takes, or may."""
_SPEAKER = re.compile(r"\n\n(Human|Assistant):\s?")

# fmt: off
PARTS_NOT_SENT = note("parts_not_sent",
    "{:,} {}{} of {:,} {} {are} not sent: the file has only a place or a path for it",
    'give it as {{"type": "image_url", "image_url": {{"url": ...}}}}',
    {"are": ["are", "is"]})
EARLY_REPLIES = note("early_replies",
    "{:,} {begin} with a reply to nothing, which is not sent",
    "none needed; a conversation starts with its first person",
    {"begin": ["rows begin", "row begins"]})
# fmt: on


@dataclass(slots=True)
class SeenInRows:
    """What the rows of a file have that is to be reported, or that a dialect must be able to carry."""

    parts: Counter[str] = field(default_factory=Counter)
    """Parts that are not sent, by what they were."""
    rows: int = 0
    """Rows that had such parts."""
    early_replies: int = 0
    """Rows that begin with a reply."""
    needs: set[str] = field(default_factory=set)

    @contextmanager
    def of_a_row(self) -> Iterator[None]:
        """Around the reading of a row: it counts once, however many parts of it are not sent."""
        before = self.parts.total()
        yield
        self.rows += self.parts.total() > before

    def notes(self) -> Iterator[Finding]:
        for what, number in self.parts.items():
            are, rows = "are" if number > 1 else "is", "rows" if self.rows > 1 else "row"
            yield PARTS_NOT_SENT.finding(number, what, "s" * (number > 1), self.rows, rows, are=are)
        if self.early_replies:
            begin = "rows begin" if self.early_replies > 1 else "row begins"
            yield EARLY_REPLIES.finding(self.early_replies, begin=begin)


def listed_messages(value: Any, column: str) -> list[Any]:
    """The messages of a cell: a list, or a list written as JSON. Raises ValueError."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = msgspec.json.decode(value)
        except msgspec.DecodeError:
            what = f"{column!a} is no JSON but a program's text of a list; export it as JSON lines or Parquet"
            raise ValueError(what) from None
    if not isinstance(value, list):
        what = f"{column!a} is {what_it_is(value)}; write a list of " + '{"role": ..., "content": ...}'
        raise ValueError(what)
    return messages_of_chat(value)


def message_of(part: Any, number: int, seen: SeenInRows, every_field: bool) -> Message:
    """A message as the API takes it; with `every_field` also fields that the API does not know. Raises
    ValueError."""
    if isinstance(part, dict) and len(part) == 2:  # nearly all of them, and there are many
        text, role = part.get("content", part.get("value")), part.get("role", part.get("from"))
        if isinstance(text, str) and isinstance(role, str) and role in _TALKERS:
            return {"role": _TALKERS[role], "content": text}
    if isinstance(part, str):
        raise ValueError(f"message {number} is a text; write " + '{"role": "user", "content": "..."}')
    if not isinstance(part, dict):
        raise ValueError(f"message {number} is {what_it_is(part)}, which is no message")
    role_key = next((key for key in ROLE_KEYS if isinstance(part.get(key), str)), None)
    if role_key is None:
        raise ValueError(f"message {number} has no role; write one of {listed(_COMMON_ROLES)}")
    role = part[role_key].strip().lower()
    if role not in ROLES:
        what = f"role {part[role_key][:30]!a} is unknown; write one of {listed(_COMMON_ROLES)}"
        raise ValueError(what)
    text_key = next((key for key in _TEXT_KEYS if part.get(key) is not None), None)
    content = None if text_key is None else _content(part[text_key], number, seen)
    if role == "function_call":
        return {"role": "assistant", "content": None, "tool_calls": [_call_of(content, number)]}
    message: Message = {"role": role if role in ("tool", "function") else ROLES[role], "content": content}
    spent = {role_key, text_key, "weight", *_TEXT_KEYS[:1]}
    for key, value in part.items():
        if key not in spent and value is not None and (every_field or key in _FIELDS):
            message[key] = value
    if calls := message.get("tool_calls"):
        if not isinstance(calls, list):
            raise ValueError(f"message {number} has tool_calls that are {what_it_is(calls)}; write a list")
    else:
        message.pop("tool_calls", None)
    return message


def plainly_asks(parts: Any) -> bool | None:
    """Whether somebody says something in these messages, where all are nothing but a role and a text and a
    person begins; None: they are to be looked at closely. Nearly all rows are so plain, and this is quick."""
    if type(parts) is not list:
        return None
    asks = False
    for part in parts:
        if type(part) is not dict or len(part) != 2:
            return None
        text = part.get("content", part.get("value"))
        role = part.get("role", part.get("from"))
        if type(text) is not str or type(role) is not str:
            return None
        role = _TALKERS.get(role)
        if role == "user":
            asks = asks or bool(text and not text.isspace())
        elif role is None or (role == "assistant" and not asks):
            return None
    return asks


def _content(content: Any, number: int, seen: SeenInRows) -> Any:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise ValueError(f"the content of message {number} is {what_it_is(content)}; write a text or parts")
    parts: list[Any] = []
    lost: Counter[str] = Counter()
    for part in content:
        if isinstance(part, str):
            parts.append({"type": "text", "text": part})
            continue
        if not isinstance(part, dict):
            raise ValueError(
                f"message {number} has a part that is {what_it_is(part)}; write a text or an object"
            )
        filled = {key: _without_nulls(value) for key, value in part.items() if value is not None}
        kind = filled.setdefault("type", "text" if "text" in filled else None)
        if not isinstance(kind, str):
            what = f"message {number} has a part of no type; write " + '{"type": "text", "text": ...}'
            raise ValueError(what)
        if kind in PICTURES and (url := address_of_picture(filled)):
            seen.needs.add("parts")
            parts.append({"type": "image_url", "image_url": {"url": url}})
        elif kind in _PLACES and (kind != "image_url" or "image_url" not in filled):
            lost[_PLACES[kind]] += 1
        elif kind in ("text", "input_text", "output_text"):
            if isinstance(text := filled.get("text"), str):
                parts.append((filled if kind == "text" else {}) | {"type": "text", "text": text})
        else:
            seen.needs.add("parts")
            parts.append(filled)
    if lost:
        seen.parts += lost
        if len(parts) == 1 and parts[0].keys() == {"type", "text"}:
            return parts[0]["text"]
    return parts


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(each) for key, each in value.items() if each is not None}
    return value


def _call_of(content: Any, number: int) -> dict[str, Any]:
    """A call of a tool, written by ShareGPT's tools as JSON of a name and arguments. Raises ValueError."""
    try:
        call: Any = msgspec.json.decode(content) if isinstance(content, str) else None
        name, arguments = call["name"], call["arguments"]
    except (msgspec.DecodeError, TypeError, KeyError):
        what = f"message {number} is no call of a tool; write " + '{"name": ..., "arguments": {...}} as JSON'
        raise ValueError(what) from None
    if not isinstance(arguments, str):
        arguments = json.dumps(arguments, ensure_ascii=False)
    return {"id": f"call_{number}", "type": "function", "function": {"name": name, "arguments": arguments}}


def tools_of(record: Record) -> list[dict[str, Any]]:
    """The functions that a row lets the model call. Raises ValueError."""
    tools = record.get("tools")
    if isinstance(tools, str):
        try:
            tools = msgspec.json.decode(tools) if tools.strip() else None
        except msgspec.DecodeError:
            raise ValueError("'tools' is no JSON; write a list of functions") from None
    if tools is None:
        return []
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise ValueError(f"'tools' is {what_it_is(tools)}; write a list of functions")
    return [tool_of_chat(tool) for tool in tools]


def system_beside(record: Record) -> str | None:
    """The system's text that stands beside a row's messages."""
    text = text_of({"content": record.get("system") or record.get("system_prompt")})
    return text if text.strip() else None


def text_of(message: Message) -> str:
    """The texts of a message's content; pictures and the like are none."""
    content = message.get("content")
    if isinstance(content, list):
        texts = [part for part in content if isinstance(part, dict) and part.get("type") == "text"]
        return "\n".join(str(part.get("text", "")) for part in texts)
    return content if isinstance(content, str) else ""


def turns_of(
    messages: list[Message], beside: str | None, seen: SeenInRows
) -> tuple[str | None, list[RowTurn]]:
    """The system's text, and the requests of a conversation with the replies that they had.

    Each group of messages between two replies is one request. Calls of tools stand in place of the reply to
    the request before: their results follow, whatever a model says this time.
    """
    systems = [beside] if beside is not None else []
    start, early = 0, False
    while start < len(messages) and messages[start]["role"] == "system":
        systems.append(text_of(messages[start]))
        start += 1
    turns: list[RowTurn] = []
    pending: list[Message] = []
    replies: list[Message] = []
    for message in [*messages[start:], None]:
        if message is not None and message["role"] == "assistant":
            if any(_asks(each) for each in pending):
                turns.append(_turn(pending, turns, replies))
                pending, replies = [], []
            if turns:
                replies.append(message)
            elif text_of(message).strip():
                early = True
                continue
        elif message is not None:
            pending.append(message)
    seen.early_replies += early
    if any(_asks(each) for each in pending):
        turns.append(_turn(pending, turns, replies))
    elif turns:
        turns[-1] = _answered(turns[-1], replies)
    if any(len(message) > 2 or message["role"] == "tool" for message in messages):
        sent = (each for turn in turns for each in (*turn.given, *turn.added))
        seen.needs |= needs_of([*messages[:start], *sent], [])
    return "\n\n".join(text for text in systems if text.strip()) or None, turns


def needs_of(messages: list[Message], tools: list[dict[str, Any]]) -> set[str]:
    """What of tools a dialect must carry: those of the API, or also others that it can only pass on."""
    needs = {"tools"} if tools else set()
    functions = [tool.get("function") for tool in tools]
    odd = not all(isinstance(each, dict) and isinstance(each.get("name"), str) for each in functions)
    for message in messages:
        odd |= "function_call" in message or message["role"] == "function"
        for call in message.get("tool_calls", ()):
            needs.add("tools")
            odd |= not _is_call(call)
        if message["role"] == "tool":
            needs.add("tools")
            odd |= not isinstance(message.get("tool_call_id"), str)
    return needs | {"odd_tools"} if odd else needs


def _is_call(call: Any) -> bool:
    try:
        arguments = msgspec.json.decode(call["function"]["arguments"])
        return isinstance(arguments, dict) and isinstance(call["function"]["name"], str) and bool(call["id"])
    except (msgspec.DecodeError, TypeError, KeyError):
        return False


def _asks(message: Message) -> bool:
    """Whether a message is one that a model answers: of a person, or a tool's result."""
    if message["role"] == "user":
        parts = message["content"] if isinstance(message["content"], list) else []
        return bool(text_of(message).strip()) or any(part["type"] != "text" for part in parts)
    return bool(message["role"] != "system")


def _turn(pending: list[Message], turns: list[RowTurn], replies: list[Message]) -> RowTurn:
    if turns:
        turns[-1] = _answered(turns[-1], replies)
    added: list[Message] = []
    for message in pending:
        if message["role"] == "user" and not _asks(message):
            continue
        if added and is_plain(added[-1]) and is_plain(message):
            added[-1] = {"role": "user", "content": f"{added[-1]['content']}\n\n{message['content']}"}
        else:
            added.append(message)
    calls = any("tool_calls" in each or "function_call" in each for each in replies)
    return RowTurn(_with_call_ids(added, replies), given=list(replies) if calls else [])


def _answered(turn: RowTurn, replies: list[Message]) -> RowTurn:
    texts = [text_of(each) for each in replies]
    texts += [json.dumps(each["tool_calls"], ensure_ascii=False) for each in replies if "tool_calls" in each]
    return RowTurn(turn.added, "\n\n".join(text for text in texts if text), turn.given)


def _with_call_ids(added: list[Message], replies: list[Message]) -> list[Message]:
    """Results of tools that name no call answer the calls before, in order."""
    calls = [call for each in replies for call in each.get("tool_calls", ())]
    ids = [call["id"] for call in calls if isinstance(call, dict) and isinstance(call.get("id"), str)]
    given = []
    for message in added:
        if message["role"] == "tool" and "tool_call_id" not in message and ids:
            message = message | {"tool_call_id": ids.pop(0)}
        given.append(message)
    return given


def is_plain(message: Message) -> bool:
    """Whether it is one text of a person and nothing else."""
    return message["role"] == "user" and len(message) == 2 and isinstance(message["content"], str)


def transcript(text: str) -> list[Message] | None:
    """The messages of a text such as "\\n\\nHuman: ...\\n\\nAssistant: ..."; None: it is no such text."""
    pieces = _SPEAKER.split(text if text.startswith("\n\n") else f"\n\n{text}")
    if len(pieces) < 3 or pieces[0].strip() or pieces[1] != "Human":
        return None
    roles = {"Human": "user", "Assistant": "assistant"}
    return [
        {"role": roles[who], "content": said.strip()}
        for who, said in zip(pieces[1::2], pieces[2::2], strict=True)
    ]

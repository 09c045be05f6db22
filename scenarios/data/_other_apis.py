"""Messages, tools and pictures in the form of other APIs, as chat completions has them: OpenAI's responses,
Anthropic's messages, and the parts of chat templates."""

from __future__ import annotations

import json
import re
from typing import Any

PICTURES = ("image", "input_image")
"""Types of a picture in other APIs' messages and in training sets."""
_BLOCKS = ("tool_use", "tool_result")
"""Parts of Anthropic's messages that chat completions has as fields and messages of their own."""
_ITEMS = ("message", "function_call", "function_call_output")
"""Types of items of OpenAI's responses."""
_ADDRESS = re.compile(r"https?://|data:")


def messages_of_chat(parts: list[Any]) -> list[Any]:
    """The messages; what is in no other API's form, and what is no message, stays what it is."""
    if not any(map(_has_other_form, parts)):
        return parts
    found: list[Any] = []
    for part in parts:
        for each in _as_chat_has_it(part):
            before = found[-1] if found and isinstance(found[-1], dict) else {}
            # An item of its own there; here it belongs to what was said before it.
            if _type_of(part) == "function_call" and before.get("role") == "assistant":
                found[-1] = before | {"tool_calls": [*(before.get("tool_calls") or []), *each["tool_calls"]]}
            else:
                found.append(each)
    return found


def _has_other_form(part: Any) -> bool:
    content = part.get("content") if isinstance(part, dict) else None
    blocks = content if isinstance(content, list) else []
    return _type_of(part) in _ITEMS or any(_type_of(block) in _BLOCKS for block in blocks)


def _as_chat_has_it(part: Any) -> list[Any]:
    """A message with its calls of tools; their results are messages of their own, before it."""
    kind, content = _type_of(part), part.get("content") if isinstance(part, dict) else None
    if kind == "function_call":
        called = {"name": part.get("name"), "arguments": part.get("arguments")}
        call = {"id": part.get("call_id"), "type": "function", "function": called}
        return [{"role": "assistant", "content": None, "tool_calls": [call]}]
    if kind == "function_call_output":
        return [{"role": "tool", "tool_call_id": part.get("call_id"), "content": part.get("output")}]
    if kind == "message":
        part = {key: value for key, value in part.items() if key not in ("type", "id", "status")}
    if not isinstance(content, list):
        return [part]
    results = [
        {"role": "tool", "tool_call_id": block.get("tool_use_id"), "content": block.get("content") or ""}
        for block in content
        if _type_of(block) == "tool_result"
    ]
    calls = [
        {"id": block.get("id"), "type": "function",
         "function": {"name": block.get("name"), "arguments": json.dumps(block.get("input") or {})}}
        for block in content if _type_of(block) == "tool_use"
    ]  # fmt: skip
    rest = [block for block in content if _type_of(block) not in _BLOCKS]
    said = part | {"content": rest or None} | ({"tool_calls": calls} if calls else {})
    return [*results, said] if rest or calls or not results else results


def _type_of(part: Any) -> Any:
    return part.get("type") if isinstance(part, dict) else None


def tool_of_chat(tool: dict[str, Any]) -> dict[str, Any]:
    """A tool as chat completions takes it. Functions also come bare, with their type beside their name (the
    responses API) and with an `input_schema` (Anthropic's); any other tool stays what it is."""
    own = tool.get("type", "function") == "function" or "input_schema" in tool
    if not own or "name" not in tool or "function" in tool:
        return tool
    function = {key: value for key, value in tool.items() if key not in ("type", "input_schema")}
    if "input_schema" in tool:
        function["parameters"] = tool["input_schema"]
    return {"type": "function", "function": function}


def address_of_picture(part: dict[str, Any]) -> str | None:
    """The URL of a picture; None where the part is only a place for one.

    Anthropic's `source`, the responses API's `image_url`, `url`, `image` or `base64` of chat templates, and
    `data` with its type (LangChain). A path is no address: no server here can read it.
    """
    source = part.get("source")
    inner = source if isinstance(source, dict) else part
    for name in ("image_url", "url", "image"):
        held = inner.get(name)
        text = held.get("url") if isinstance(held, dict) else held
        if isinstance(text, str) and _ADDRESS.match(text):
            return text
    data = inner.get("data", inner.get("base64"))
    kind = inner.get("media_type", inner.get("mime_type", "image/png"))
    return f"data:{kind};base64,{data}" if isinstance(data, str) and data else None

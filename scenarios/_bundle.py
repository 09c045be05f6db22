"""Long contexts out of short documents, and tools in the form that servers take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scenarios._schema import Item, Tool
from turnbench.draws import shuffled

CHARACTERS_PER_TOKEN = 4.5
"""About right for English prose and the vocabularies of today's models."""


def bundle(
    documents: tuple[Item, ...], own: Mapping[str, str], tokens: float, name: tuple[int | str, ...]
) -> str:
    """Documents in an order decided by `name`, until there are about so many tokens; `own` is one of them."""
    mine = _page(own) if "text" in own else ""
    pages, left = [mine] * bool(mine), tokens * CHARACTERS_PER_TOKEN - len(mine)
    for index in shuffled(len(documents), *name):
        page = _page(documents[index].fields())
        if page != mine and len(page) < left:
            pages.append(page)
            left -= len(page)
    return "\n\n".join(pages[i] for i in shuffled(len(pages), *name, "order"))


def _page(texts: Mapping[str, str]) -> str:
    return f"## {texts['title']}\n\n{texts['text']}" if "title" in texts else texts.get("text", "")


def as_tool(tool: Tool) -> dict[str, Any]:
    """A tool as an entry of `tools` in a chat completions request."""
    properties = {name: {"type": "string", "description": text} for name, text in tool.arguments.items()}
    parameters = {"type": "object", "properties": properties, "required": list(properties)}
    function = {"name": tool.name, "description": tool.description, "parameters": parameters}
    return {"type": "function", "function": function}

"""The official clients of OpenAI and Anthropic. Importing both takes 2 s: only who uses them pays for it."""

from __future__ import annotations

from importlib import import_module
from typing import Any


class Late:
    """A module that is imported when something of it is first asked for."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, what: str) -> Any:
        if what.startswith("_"):  # pytest asks everything that it sees whether it wraps a fixture
            raise AttributeError(what)
        return getattr(import_module(self._name), what)


anthropic = Late("anthropic")
openai = Late("openai")

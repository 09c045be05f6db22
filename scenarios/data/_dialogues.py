"""Files of dialogues: conversations with the replies that they had, whose turns are played again."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import msgspec

from scenarios.data._rows import DataFile, FirstRow, Index, Messages, json_rows
from turnbench.problems import listed

_ROLES: dict[str, str | None] = {
    **dict.fromkeys(("human", "user"), "user"),
    **dict.fromkeys(("gpt", "assistant", "chatgpt", "bing", "bard", "model"), "assistant"),
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("tool", "function")),
}
"""The roles that occur in such files, and what each is in a request (None: it is not played)."""


class Dialogues(DataFile):
    """A row is one conversation; one in which no person says anything is passed over."""

    suffixes = (".json", ".jsonl")
    key: ClassVar[bytes]
    """The key of a row that holds its messages."""

    @classmethod
    def recognises(cls, first: FirstRow) -> bool:
        return b'"%b"' % cls.key in first.json

    def __init__(self, path: str, prompt: str | None) -> None:
        self._index = Index(path, json_rows(path), self._keep)
        self.passed_over = self._index.passed_over

    def __len__(self) -> int:
        return len(self._index)

    def messages(self, i: int) -> Messages:
        known = ((_ROLES[role], text) for role, text in self._said(self._index[i]))
        return [(role, text) for role, text in known if role is not None]

    def _keep(self, row: bytes) -> bool:
        said = self._said(row)
        for role, _ in said:
            if role not in _ROLES:
                raise ValueError(f"role {role[:30]!a} is unknown; roles: {listed(_ROLES)}")
        return any(_ROLES[role] == "user" and text.strip() for role, text in said)

    @abstractmethod
    def _said(self, row: bytes) -> Messages:
        """Roles as the file names them, and texts. Raises ValueError."""


class _ShareGptPart(msgspec.Struct):
    value: str | None
    sender: str = msgspec.field(name="from")


class _ShareGptRow(msgspec.Struct):
    conversations: list[_ShareGptPart]


class ShareGptFile(Dialogues):
    """ShareGPT: {"conversations": [{"from": "human", "value": "..."}, ...]}."""

    kind = "sharegpt"
    key = b"conversations"
    sign = "'conversations'"
    _decode = msgspec.json.Decoder(_ShareGptRow).decode

    def _said(self, row: bytes) -> Messages:
        return [(part.sender, part.value or "") for part in self._decode(row).conversations]


class _MessagesPart(msgspec.Struct):
    role: str
    content: str | list[dict[str, Any]] | None = None

    def text(self) -> str:
        """The content, of which only the texts are played."""
        if isinstance(self.content, list):
            return "\n".join(str(part["text"]) for part in self.content if "text" in part)
        return self.content or ""


class _MessagesRow(msgspec.Struct):
    messages: list[_MessagesPart]


class MessagesFile(Dialogues):
    """Messages as the chat completions API takes them: {"messages": [{"role": "user", "content": ...}]}."""

    kind = "messages"
    key = b"messages"
    sign = "'messages'"
    _decode = msgspec.json.Decoder(_MessagesRow).decode

    def _said(self, row: bytes) -> Messages:
        return [(part.role, part.text()) for part in self._decode(row).messages]

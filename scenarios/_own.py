"""Files of one's own as scenarios: which form a file has, and a row of it as a conversation.

Forms: `sharegpt` (JSON or JSONL), `messages` (JSONL of chat completions messages), `csv` and `parquet` (a
prompt out of columns), `mmlu` (its CSV files: question, four choices, letter), and the timed traces `azure`
(CSV: TIMESTAMP, ContextTokens, GeneratedTokens) and `mooncake` (JSONL: timestamp in ms, input_length,
output_length, hash_ids of blocks of 512 tokens).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Protocol

import msgspec

from scenarios._errors import ScenarioError
from scenarios._rows import Index, csv_records, fields_of, first_row, json_elements, lines
from scenarios._trace import Trace
from turnbench.problems import Problem, listed

_PEOPLE = {"human", "user"}
_MODELS = {"gpt", "assistant", "chatgpt", "bing", "bard", "model"}
_ROLES = _PEOPLE | _MODELS | {"system", "developer", "tool", "function"}
_GUESSES = ("prompt", "question", "instruction", "text", "input")
_CHOOSE = "Answer this question with the letter only: a, b, c or d.\n\n{}\na) {}\nb) {}\nc) {}\nd) {}"

Said = list[tuple[str, str]]
"""Roles (system, user, assistant) and texts."""


class Rows(Protocol):
    """What is known of an own file: how many rows, what each says and, of a trace, when."""

    passed_over: int

    def __len__(self) -> int: ...
    def said(self, i: int) -> Said: ...


class _Shared(msgspec.Struct):
    value: str | None
    sender: str = msgspec.field(name="from")


class _ShareGpt(msgspec.Struct):
    conversations: list[_Shared]


class _Message(msgspec.Struct):
    role: str
    content: str | list[dict[str, Any]] | None = None


class _Messages(msgspec.Struct):
    messages: list[_Message]


class Dialogues:
    """ShareGPT or messages: conversations with the replies they had."""

    def __init__(self, path: str, kind: str) -> None:
        form: Any = _ShareGpt if kind == "sharegpt" else _Messages
        self._decode = msgspec.json.Decoder(form).decode
        self._index = Index(path, json_elements(path) if _is_array(path) else lines(path), self._keep)
        self.passed_over = self._index.passed_over

    def __len__(self) -> int:
        return len(self._index)

    def _pairs(self, row: bytes) -> Said:
        found: _ShareGpt | _Messages = self._decode(row)
        if isinstance(found, _ShareGpt):
            return [(part.sender, part.value or "") for part in found.conversations]
        return [(part.role, _plain(part.content)) for part in found.messages]

    def _keep(self, row: bytes) -> bool:
        pairs = self._pairs(row)
        for role, _ in pairs:
            if role not in _ROLES:
                raise ValueError(f"role {role[:30]!a} is unknown; roles: {listed(_ROLES)}")
        return any(role in _PEOPLE and text.strip() for role, text in pairs)

    def said(self, i: int) -> Said:
        names = dict.fromkeys(_PEOPLE, "user") | dict.fromkeys(_MODELS, "assistant")
        names |= {"system": "system", "developer": "system"}
        return [(names[role], text) for role, text in self._pairs(self._index[i]) if role in names]


def _plain(content: str | list[dict[str, Any]] | None) -> str:
    if isinstance(content, list):
        return "\n".join(str(part["text"]) for part in content if "text" in part)
    return content or ""


class Prompts:
    """A CSV or Parquet file whose columns fill a prompt, or an MMLU file."""

    passed_over = 0

    def __init__(self, path: str, kind: str, prompt: str | None) -> None:
        self._mmlu, self._table = kind == "mmlu", None
        if kind == "parquet":
            self._table, self._names = _table(path)
        else:
            rows = csv_records(path)
            self._names = [] if self._mmlu else [_slug(name) for name in fields_of(first_row(path, rows))]
            self._index = Index(path, rows, self._keep)
        self._prompt = prompt or self._guess(path)
        for name in re.findall(r"\{([a-z][a-z0-9_]*)\}", "" if self._mmlu else self._prompt):
            if name not in self._names:
                what = f"the prompt asks for column {name!a}; columns: {listed(self._names)}"
                raise ScenarioError([Problem(path, 1, what)])

    def _guess(self, path: str) -> str:
        found = [name for name in _GUESSES if name in self._names] or self._names[:1] * (
            len(self._names) == 1
        )
        if not found and not self._mmlu:
            what = (
                f"no column is named prompt; write 'prompt: \"{{name}}\"' with one of {listed(self._names)}"
            )
            raise ScenarioError([Problem(path, 1, what)])
        return _CHOOSE if self._mmlu else "{" + found[0] + "}"

    def __len__(self) -> int:
        return len(self._index) if self._table is None else int(self._table.num_rows)

    def _keep(self, row: bytes) -> bool:
        fields, wanted = fields_of(row), 6 if self._mmlu else len(self._names)
        if len(fields) != wanted:
            raise ValueError(f"{len(fields)} fields where {wanted} belong")
        if self._mmlu and fields[5] not in ("A", "B", "C", "D"):
            raise ValueError(f"the last field is {fields[5][:20]!a}, which must be A, B, C or D")
        if not any(field.strip() for field in fields):
            raise ValueError("nothing in this row")
        return True

    def said(self, i: int) -> Said:
        if self._table is not None:
            fields = [str(self._table.column(n)[i].as_py() or "") for n in range(len(self._names))]
        else:
            fields = fields_of(self._index[i])
        if self._mmlu:
            return [("user", _CHOOSE.format(*fields[:5]))]
        texts = dict(zip(self._names, fields, strict=True))
        return [("user", re.sub(r"\{([a-z][a-z0-9_]*)\}", lambda m: texts[m[1]], self._prompt))]


def _table(path: str) -> tuple[Any, list[str]]:
    import pyarrow
    import pyarrow.parquet as parquet

    try:
        table = parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
        what = f"not readable as Parquet ({str(error).splitlines()[0][:80]!a}); write the file again"
        raise ScenarioError([Problem(path, 0, what)]) from None
    return table, [_slug(name) for name in table.column_names]


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.strip().lower()).strip("_")


def kind_of(path: str) -> str:
    """The form of a file, from its ending and its first row. Raises ScenarioError."""
    if path.endswith(".parquet"):
        return "parquet"
    if path.endswith(".csv"):
        fields = fields_of(first_row(path, csv_records(path)))
        if {"ContextTokens", "GeneratedTokens"} <= set(fields):
            return "azure"
        return "mmlu" if len(fields) == 6 and fields[5] in ("A", "B", "C", "D") else "csv"
    row = first_row(path, json_elements(path) if _is_array(path) else lines(path))
    for word, kind in (
        (b'"conversations"', "sharegpt"),
        (b'"messages"', "messages"),
        (b'"input_length"', "mooncake"),
    ):
        if word in row:
            return kind
    what = "no 'conversations', 'messages' or 'input_length' in the first row; the README tells the forms"
    raise ScenarioError([Problem(path, 1, what)])


def _is_array(path: str) -> bool:
    """Whether a JSON file is one array, not a row a line (an array may be one line of gigabytes)."""
    with Path(path).open("rb") as file:
        return file.read(1024).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"[")


def open_rows(path: str, kind: str | None, prompt: str | None) -> tuple[str, Dialogues | Prompts | Trace]:
    """The form of a file and its rows, all of them checked. Raises ScenarioError with every mistake."""
    try:
        kind = kind or kind_of(path)
        if kind in ("sharegpt", "messages"):
            return kind, Dialogues(path, kind)
        return kind, Trace(path, kind) if kind in ("azure", "mooncake") else Prompts(path, kind, prompt)
    except OSError as error:
        raise ScenarioError([Problem(path, 0, f"not readable ({error.strerror}); check the path")]) from None
    except UnicodeDecodeError:
        raise ScenarioError([Problem(path, 0, "not UTF-8 text; save it as UTF-8")]) from None
    except ValueError as error:
        raise ScenarioError([Problem(path, 1, f"{error}; look at the first row")]) from None

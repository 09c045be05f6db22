"""Files of dialogues: conversations with the replies that they had, whose turns are played again, and logs of
single requests."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, ClassVar

from scenarios.data._data_file import (
    DataRow,
    DataSource,
    Message,
    RecordFile,
    RowTurn,
    media_not_sent,
    shown,
    tokens_of,
    what_it_is,
)
from scenarios.data._messages import (
    SeenInRows,
    listed_messages,
    message_of,
    needs_of,
    plainly_asks,
    system_beside,
    text_of,
    tools_of,
    transcript,
    turns_of,
)
from scenarios.data._records import Record
from turnbench.formats import Finding

ANSWER_TOKENS = (
    "output_tokens", "output_tokens_count", "output_length", "output_len", "max_completion_tokens",
    "max_output_tokens", "max_tokens", "max_new_tokens", "expected_output_len",
)  # fmt: skip
"""What a row calls the length of its answer: of a recorded one first, then the limit of one."""
_REQUEST_KEYS = {
    "tool_choice", "parallel_tool_calls", "response_format", "functions", "function_call", "temperature",
    "top_p", "top_k", "min_p", "frequency_penalty", "presence_penalty", "repetition_penalty", "seed",
    "logit_bias", "reasoning_effort", "chat_template_kwargs", "guided_json", "guided_regex", "guided_choice",
    "guided_grammar", "structured_outputs", "modalities",
}  # fmt: skip
"""What beside a row's messages belongs into its request."""
OWN_KEYS = {
    "model", "messages", "stream", "stream_options", "stop", "stop_sequences", "n", "tools", "system",
    "input", "instructions", "prompt", *ANSWER_TOKENS,
}  # fmt: skip
"""Keys of a request that are ours to set, or are read by name."""
_BESIDE_MESSAGES = {"tools", "functions", "n", *ANSWER_TOKENS}
"""What is to be looked at in a row whose messages are plain."""
_ENDPOINTS = ("/chat/completions", "/completions", "/responses", "/messages")


class Dialogues(RecordFile):
    """A row is one conversation; one in which no person says anything is passed over."""

    def __init__(self, source: DataSource) -> None:
        source.refuse_template(self.kind)
        self._seen = SeenInRows()
        self._columns = source.columns
        super().__init__(source)
        self.needs = frozenset(self._seen.needs)

    def row(self, i: int) -> DataRow:
        return self._row(self._index[i], SeenInRows())

    def notes(self) -> Iterator[Finding]:
        yield from self._seen.notes()
        if not self._seen.parts:
            yield from media_not_sent(self._columns)

    def _keep(self, record: Record) -> bool:
        with self._seen.of_a_row():
            row = self._row(record, self._seen)
        self._seen.needs |= needs_of([], row.tools)
        if "functions" in row.body:
            self._seen.needs.add("odd_tools")
        return bool(row.turns)

    @abstractmethod
    def _row(self, record: Record, seen: SeenInRows) -> DataRow:
        """What a record says; no turns: nothing to play. Raises ValueError, with words for a person."""


class ColumnOfMessages(Dialogues):
    """A column of each row holds the messages."""

    columns: ClassVar[tuple[str, ...]]
    every_field: ClassVar[bool] = False
    """Fields of messages that the API does not know are sent too."""

    @classmethod
    def recognises(cls, source: DataSource) -> bool:
        return any(name in source.first for name in cls.columns)

    def _keep(self, record: Record) -> bool:
        if record.keys().isdisjoint(_BESIDE_MESSAGES):
            asks = plainly_asks(record.get(self._column(record) or ""))
            if asks is not None:
                return asks
        return super()._keep(record)

    def _column(self, record: Record) -> str | None:
        """The column that holds a row's messages."""
        return next((name for name in self.columns if record.get(name) is not None), None)

    def _row(self, record: Record, seen: SeenInRows) -> DataRow:
        column = self._column(record)
        if column is None:
            raise ValueError(
                f"{self.columns[0]!a} is missing; write a list of " + '{"role": ..., "content": ...}'
            )
        parts = listed_messages(record[column], column)
        messages = [message_of(part, n, seen, self.every_field) for n, part in enumerate(parts, start=1)]
        system, turns = turns_of(messages, system_beside(record), seen)
        return DataRow(turns, system, tools_of(record))


class ShareGptFile(ColumnOfMessages):
    """ShareGPT: {"conversations": [{"from": "human", "value": "..."}, ...]}, or with role and content."""

    kind = "sharegpt"
    columns = ("conversations",)
    sign = "'conversations'"


class MessagesFile(ColumnOfMessages):
    """Messages as the chat completions API takes them: {"messages": [{"role": "user", "content": ...}]}, with
    the tools and the parameters of their requests beside them."""

    kind = "messages"
    columns = ("messages",)
    every_field = True
    sign = "'messages'"

    def _row(self, record: Record, seen: SeenInRows) -> DataRow:
        row = super()._row(record, seen)
        body = {key: record[key] for key in _REQUEST_KEYS & record.keys() if record[key] is not None}
        tokens = _limit_of(record)
        turns = [replace(each, answer_tokens=tokens) for each in row.turns] if tokens else row.turns
        return DataRow(turns, row.system, row.tools, body, stops_of(record))


class ChatLogFile(ColumnOfMessages):
    """Logs of chats, such as LMSYS-chat-1m and WildChat ({"conversation": [{"role", "content"}, ...]}), and
    any column of messages; "turns" may be a list of what a person says (MT-Bench)."""

    kind = "chat-log"
    columns = (
        "conversation", "conversation_a", "dialogue", "dialog", "chat", "history", "turns", "prompt", "input",
        "question",
    )  # fmt: skip
    sign = "'conversation'"

    @classmethod
    def recognises(cls, source: DataSource) -> bool:
        return any(_holds_messages(source.first.get(name), name) for name in cls.columns)

    def _column(self, record: Record) -> str | None:
        holding = (name for name in self.columns if _holds_messages(record.get(name), name))
        return next(holding, None) or super()._column(record)

    def _row(self, record: Record, seen: SeenInRows) -> DataRow:
        column = self._column(record)
        said = record["turns"] if column == "turns" else None
        if isinstance(said, list) and said and all(isinstance(each, str) for each in said):
            people = [{"role": "user", "content": each} for each in said if each.strip()]
            return DataRow([RowTurn([each]) for each in people], system_beside(record))
        return super()._row(record, seen)


def _holds_messages(value: Any, name: str) -> bool:
    if isinstance(value, str):
        return value.lstrip().startswith(('[{"role"', '[{"from"', "[{'role'", "[{'from'"))
    if not isinstance(value, list) or not value:
        return False
    if isinstance(value[0], str):
        return name == "turns"
    return isinstance(value[0], dict) and bool({"role", "from"} & value[0].keys())


class PreferenceFile(Dialogues):
    """Preference pairs: a prompt (a text or messages), a `chosen` and a `rejected` answer. The prompt is
    played; the chosen answer is the one that it had."""

    kind = "preference"
    sign = "'chosen' and 'rejected'"

    @classmethod
    def recognises(cls, source: DataSource) -> bool:
        return "chosen" in source.first and bool({"rejected", "prompt"} & source.first.keys())

    def _row(self, record: Record, seen: SeenInRows) -> DataRow:
        chosen = record.get("chosen")
        begun = next(
            (
                record[name]
                for name in ("prompt", "conversations", "messages", "question", "instruction", "input")
                if record.get(name)
            ),
            None,
        )
        answer = self._messages(chosen, "chosen", "assistant", seen)
        if begun is None:
            messages = answer
        else:
            messages = self._messages(begun, "prompt", "user", seen)
            # Whole conversations repeat what they answer.
            messages = answer if answer and answer[0]["role"] in ("user", "system") else [*messages, *answer]
        system, turns = turns_of(messages, system_beside(record), seen)
        if not turns:
            raise ValueError("neither 'prompt' nor 'chosen' has a person's message; add a 'prompt'")
        return DataRow(turns, system, tools_of(record))

    @staticmethod
    def _messages(value: Any, column: str, role: str, seen: SeenInRows) -> list[Message]:
        if isinstance(value, str) and not value.lstrip().startswith('[{"'):
            return transcript(value) or [{"role": role, "content": value}]
        if isinstance(value, dict):
            value = [value]
        parts = listed_messages(value, column)
        return [message_of(part, n, seen, every_field=False) for n, part in enumerate(parts, start=1)]


class RequestsFile(Dialogues):
    """OpenAI's batch files: {"custom_id", "method", "url", "body"} a line. A row is one request, whole."""

    kind = "batch"
    sign = "'custom_id' and 'body'"

    @classmethod
    def recognises(cls, source: DataSource) -> bool:
        return isinstance(source.first.get("body"), dict) or (
            "custom_id" in source.first and isinstance(source.first.get("params"), dict)
        )

    def _row(self, record: Record, seen: SeenInRows) -> DataRow:
        url = record.get("url")
        if isinstance(url, str) and not url.partition("?")[0].rstrip("/").endswith(_ENDPOINTS):
            raise ValueError(f"url {shown(url)} asks for no chat answer; write /v1/chat/completions")
        body = record.get("body") or record.get("params")
        if not isinstance(body, dict):
            raise ValueError(f"'body' is {what_it_is(body)}; write the request's body")
        column = next((name for name in ("messages", "input", "prompt") if body.get(name)), "messages")
        said = body.get(column)
        parts = (
            [{"role": "user", "content": said}] if isinstance(said, str) else listed_messages(said, column)
        )
        messages = [message_of(part, n, seen, every_field=True) for n, part in enumerate(parts, start=1)]
        for name in ("instructions", "system"):
            if text := text_of({"content": body.get(name)}):
                messages.insert(0, {"role": "system", "content": text})
        if not any(message["role"] in ("user", "tool", "function") for message in messages):
            raise ValueError("the body has no message of a user; add one")
        seen.needs |= needs_of(messages, [])
        rest = {key: value for key, value in body.items() if key not in OWN_KEYS and value is not None}
        turn = RowTurn(messages, answer_tokens=_limit_of(body))
        return DataRow([turn], None, tools_of(body), rest, stops_of(body))


def _limit_of(body: Record) -> int | None:
    """The longest answer that a request asks for. Raises ValueError."""
    tokens = tokens_of(body, *ANSWER_TOKENS)
    if tokens is not None and tokens < 1:
        raise ValueError(f"an answer of {tokens} tokens; write 1 at least, or drop it")
    number = body.get("n")
    if isinstance(number, int) and number > 1:
        raise ValueError(f"'n' asks for {number} answers at once; write 1, or drop it")
    return tokens


def stops_of(body: Record) -> tuple[str, ...]:
    """The texts at which a request wants its answer to end."""
    stop = body.get("stop") or body.get("stop_sequences") or ()
    stops = (stop,) if isinstance(stop, str) else tuple(stop) if isinstance(stop, list) else ()
    return tuple(text for text in stops if isinstance(text, str) and text)

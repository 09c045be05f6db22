"""Files of questions: one prompt a row, filled from the row's columns."""

from __future__ import annotations

import re
from collections.abc import Iterator
from string import ascii_lowercase
from typing import Any

from scenarios.data._data_file import (
    DataRow,
    DataSource,
    RecordFile,
    RowTurn,
    media_not_sent,
    shown,
    tokens_of,
    what_it_is,
)
from scenarios.data._dialogues import ANSWER_TOKENS, ChatLogFile, MessagesFile, ShareGptFile
from scenarios.data._messages import system_beside
from scenarios.data._records import PROMPT_NAMES, CsvRecords, Record, TextRecords, slug
from turnbench.answers import AnswerKey
from turnbench.formats import Finding
from turnbench.problems import FileProblems, Problem, listed

_COLUMN = re.compile(r"\{([a-z][a-z0-9_]*)\}")


def asked(text: str, reply: str = "", answer_tokens: int | None = None) -> RowTurn:
    """A turn in which a person says this."""
    return RowTurn([{"role": "user", "content": text}], reply, answer_tokens=answer_tokens)


def is_text(value: Any) -> bool:
    """Whether a template can be filled with it."""
    return isinstance(value, str | int | float)


class PromptTemplate:
    """A prompt with `{column}` in it; column names are in small letters, with `_` for all but letters and
    digits. Raises FileProblems for a column that the file lacks or that holds no text, and where none can be
    guessed."""

    def __init__(self, source: DataSource) -> None:
        first = {slug(name): value for name, value in source.first.items()}
        texts = [name for name, value in first.items() if is_text(value) or value is None]
        found = [name for name in PROMPT_NAMES if name in texts]
        if len(first) == 1 and texts:
            found = texts
        if source.prompt is None and not found:
            what = f"no column is named prompt; write 'prompt: \"{{name}}\"' with one of {listed(texts)}"
            raise FileProblems([Problem(source.path, 1, what)])
        self.prompt = source.prompt or f"{{{found[0]}}}"
        self.names = tuple(dict.fromkeys(_COLUMN.findall(self.prompt)))
        self._path = source.path
        for name in self.names:
            if name not in first:
                what = f"the prompt uses column {name!a}; columns: {listed(first)}"
                raise FileProblems([Problem(source.path, 1, what)])
            if name not in texts:
                what = f"the prompt uses column {name!a}, which holds {what_it_is(first[name])} and no text; "
                dialogue = any(kind.recognises(source) for kind in (ShareGptFile, MessagesFile, ChatLogFile))
                played = "drop 'prompt', and its conversations are played turn by turn"
                what += played if dialogue else f"columns of text: {listed(texts)}"
                raise FileProblems([Problem(source.path, 1, what)])

    def filled(self, record: Record) -> str:
        """The prompt of a row. Raises ValueError."""
        fields = {slug(name): value for name, value in record.items()}
        texts = {}
        for name in self.names:
            if name not in fields:
                raise ValueError(f"no {name!a} in this row, which the prompt uses")
            value = fields[name]
            if not is_text(value) and value is not None:
                raise ValueError(f"{name!a} holds {what_it_is(value)} where the prompt needs a text")
            if isinstance(value, bool):
                value = "true" if value else "false"
            texts[name] = "" if value is None else str(value)
        prompt = _COLUMN.sub(lambda match: texts[match[1]], self.prompt)
        if not prompt.strip():
            raise ValueError(f"no text in {listed(self.names)}")
        return prompt


class PromptsFile(RecordFile):
    """A prompt a row: of a column named prompt, question, instruction, text or input, of the only column, or
    a template filled from columns; a line of a .txt file. A column such as `output_tokens` says how long the
    answer is (vLLM's and GuideLLM's custom sets)."""

    kind = "prompts"
    also_kinds = ("csv", "parquet")
    sign = "'prompt' or names of columns"

    @classmethod
    def recognises(cls, source: DataSource) -> bool:
        texts = {slug(name) for name, value in source.first.items() if is_text(value)}
        return source.is_table or source.prompt is not None or bool(texts & set(PROMPT_NAMES))

    def __init__(self, source: DataSource) -> None:
        if isinstance(source.records, CsvRecords):
            self._read_names(source.records)
            if not source.records.names:
                source.records.first  # noqa: B018 - says that the file is empty
        self._template = PromptTemplate(source)
        self._own_prompt = source.prompt is not None
        self._columns = source.columns - set(self._template.names)
        super().__init__(source)

    def notes(self) -> Iterator[Finding]:
        return media_not_sent(self._columns)

    def _keep(self, record: Record) -> bool:
        self._row(record)
        return True

    def row(self, i: int) -> DataRow:
        return self._row(self._index[i])

    def _row(self, record: Record) -> DataRow:
        tokens = None
        if not isinstance(self._records, TextRecords):
            tokens = tokens_of(record, *(name for name in ANSWER_TOKENS if name not in self._template.names))
            if tokens is not None and tokens < 1:
                raise ValueError(f"an answer of {tokens} tokens; write 1 at least, or nothing")
        system = None if self._own_prompt else system_beside(record)
        return DataRow([asked(self._template.filled(record), answer_tokens=tokens)], system)


_ALPACA = ("input", "output", "context", "response")


class AlpacaFile(RecordFile):
    """Stanford's Alpaca: instruction, input (perhaps empty), output; perhaps a system text and a history of
    pairs. Dolly calls the second and third context and response."""

    kind = "alpaca"
    sign = "'instruction' and 'output'"

    @classmethod
    def recognises(cls, source: DataSource) -> bool:
        return "instruction" in source.columns and not source.columns.isdisjoint(_ALPACA)

    def __init__(self, source: DataSource) -> None:
        source.refuse_template(self.kind)
        super().__init__(source)

    def _keep(self, record: Record) -> bool:
        return bool(self._row(record).turns)

    def row(self, i: int) -> DataRow:
        return self._row(self._index[i])

    def _row(self, record: Record) -> DataRow:
        fields = {slug(name): value for name, value in record.items()}
        texts = {}
        for name, other in (("instruction", ""), *zip(_ALPACA[:2], _ALPACA[2:], strict=True)):
            value = fields.get(name) if name in fields else fields.get(other)
            if value is not None and not isinstance(value, str):
                raise ValueError(f"{name!a} is {what_it_is(value)}; write a text")
            texts[name] = value or ""
        asks = [text for text in (texts["instruction"], texts["input"]) if text.strip()]
        if not asks:
            raise ValueError("neither 'instruction' nor 'input' has a text")
        history = fields.get("history") or []
        if not isinstance(history, list) or not all(
            isinstance(pair, list) and len(pair) == 2 and all(isinstance(text, str) for text in pair)
            for pair in history
        ):
            raise ValueError("'history' must be a list of pairs of texts; mend or drop it")
        turns = [asked(question, answer) for question, answer in history]
        return DataRow([*turns, asked("\n\n".join(asks), texts["output"])], system_beside(fields))


_ANSWERS = ("answer_idx", "answer", "answerkey", "label")


class MmluFile(RecordFile):
    """Questions of MMLU: its CSV of question, four choices and letter, without or with names of columns, and
    the hub's form with `choices` (or `options`) and the answer as a number or a letter."""

    kind = "mmlu"
    sign = "question, four choices, letter"

    @classmethod
    def recognises(cls, source: DataSource) -> bool:
        records = source.records
        if isinstance(records, CsvRecords) and not records.has_names:
            return len(records.names) == 6
        has = source.columns
        return "question" in has and ({"a", "b", "c", "d"} <= has or bool(_choices_of(source.first)))

    def __init__(self, source: DataSource) -> None:
        source.refuse_template(self.kind)
        super().__init__(source)

    def _keep(self, record: Record) -> bool:
        self._row(record)
        return True

    def row(self, i: int) -> DataRow:
        return self._row(self._index[i])

    def _row(self, record: Record) -> DataRow:
        fields = {slug(name): value for name, value in record.items()}
        if "column_6" in fields:
            question, *choices, answer = fields.values()
        else:
            question = fields.get("question")
            answer = next((fields[name] for name in _ANSWERS if name in fields), None)
            choices = _choices_of(record) or [fields[each] for each in ascii_lowercase if each in fields]
        if not isinstance(question, str) or not question.strip():
            raise ValueError("no text in 'question'")
        if not 2 <= len(choices) <= 10 or not all(is_text(choice) for choice in choices):
            raise ValueError(f"the choices are {len(choices)} texts; write 2 to 10")
        letters = ascii_lowercase[: len(choices)]
        # In a table in which one answer is missing the others have become 2.0.
        if isinstance(answer, float) and answer.is_integer():
            answer = int(answer)
        elif isinstance(answer, str):
            answer = answer.strip().removesuffix(".0")
        if answer not in (None, ""):
            known = [*letters.upper(), *letters, *range(len(choices)), *map(str, range(len(choices) + 1))]
            if isinstance(answer, bool | float) or answer not in known:
                which = ", ".join(letters[:-1].upper()) + f" or {letters[-1].upper()}"
                raise ValueError(f"the answer is {shown(answer)}, which must be {which}")
        listing = "".join(f"\n{letter}) {choice}" for letter, choice in zip(letters, choices, strict=True))
        which = ", ".join(letters[:-1]) + f" or {letters[-1]}"
        prompt = f"Answer this question with the letter only: {which}.\n\n{question}{listing}"
        right = None if answer in (None, "") else _letter_of(answer, letters, _labels_of(record))
        texts = {letter: str(choice) for letter, choice in zip(letters, choices, strict=True)}
        key = None if right is None else AnswerKey(letter=right, choices=texts)
        return DataRow([RowTurn([{"role": "user", "content": prompt}], key=key)])


def _letter_of(answer: str | int, letters: str, labels: list[Any]) -> str | None:
    """The letter that a file's answer means: one of its labels, a letter, or a number from 0.

    A number as text may count from 0 or from 1, which a row without labels cannot tell: then nobody knows.
    """
    if answer in labels and len(labels) == len(letters):
        return letters[labels.index(answer)]
    if isinstance(answer, int):
        return letters[answer]
    return answer.lower() if answer.lower() in letters else None


def _labels_of(record: Record) -> list[Any]:
    """What the choices are called in the file, where it says (ARC)."""
    choices = record.get("choices")
    labels = choices.get("label") if isinstance(choices, dict) else None
    return labels if isinstance(labels, list) else []


def _choices_of(record: Record) -> list[Any]:
    """The list of choices, where a record has one."""
    for name in ("choices", "options", "endings"):
        value = record.get(name)
        if isinstance(value, dict) and isinstance(value.get("text"), list):
            value = value["text"]  # ARC has texts and labels side by side
        elif isinstance(value, dict) and all(len(key) == 1 for key in value):
            value = [value[key] for key in sorted(value)]  # MedQA: {"A": ..., "B": ...}
        if isinstance(value, list):
            return value
    return []

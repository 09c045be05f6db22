"""What every kind of data file is made of: what a row says, and the class that each kind derives from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import file_digest
from pathlib import Path
from typing import Any, ClassVar

from scenarios._texts import CHARACTERS_PER_TOKEN
from scenarios.data._records import (
    HUB,
    SUFFIXES,
    CsvRecords,
    Record,
    Records,
    open_records,
    plain_name,
    sentence,
    slug,
)
from turnbench.answers import AnswerKey
from turnbench.files import open_file
from turnbench.findings import note
from turnbench.formats import Finding
from turnbench.problems import FOUND_MAX, FileProblems, Problem, listed, quoted

_TOKENS_MAX = 100_000_000
Message = dict[str, Any]
"""One message as the chat completions API takes it."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a turn stands in a conversation with branches. Turns are named by their numbers, from 0; each has
    a higher one than those that it waits for."""

    after: tuple[int, ...]
    """The turns that it waits for; none: it begins with the conversation."""
    continues: int | None
    """The turn whose history it goes on with; None: with an empty one."""
    branch: str
    """The agent that it is of, or the branch."""
    system: str | None = None
    """The system's text of a history that begins here."""


@dataclass(frozen=True, slots=True)
class RowTurn:
    """One request of a row: what it adds to the conversation, and the reply that it had in the file."""

    added: list[Message]
    reply: str = ""
    given: list[Message] = field(default_factory=list)
    """Messages of the model that stand before, in place of its real reply: calls of tools."""
    answer_tokens: int | None = None
    prompt_tokens: int | None = None
    """Tokens of the whole request, where a trace says."""
    think_s: float | None = None
    """Seconds before this turn, where the file says so."""
    key: AnswerKey | None = None
    """What a right answer says, where the file has it."""
    place: Place | None = None
    """Of a conversation with branches; None: it follows the turn before it."""
    tools: list[dict[str, Any]] | None = None
    """Those of this request, where it has its own."""
    body: dict[str, Any] = field(default_factory=dict)
    """What else goes into this request."""
    stop: tuple[str, ...] = ()
    """Texts that end its answer, where it has its own."""


@dataclass(frozen=True, slots=True)
class DataRow:
    """What one row says. Raises nothing: it was checked."""

    turns: list[RowTurn]
    system: str | None = None
    tools: list[dict[str, Any]] = field(default_factory=list)
    body: dict[str, Any] = field(default_factory=dict)
    """What else goes into each of its requests."""
    stop: tuple[str, ...] = ()


class DataSource:
    """A file to be read, and what is asked of it. `first` and `columns` tell what kind it is."""

    def __init__(
        self,
        path: str,
        prompt: str | None = None,
        time_unit: str | None = None,
        block_tokens: int | None = None,
    ) -> None:
        self.path = path
        self.prompt = prompt
        self.time_unit = time_unit
        self.block_tokens = block_tokens
        self.suffix = "" if path.startswith(HUB) else Path(plain_name(path)).suffix

    @cached_property
    def records(self) -> Records:
        return open_records(self.path)

    @cached_property
    def first(self) -> Record:
        """The first record. Raises FileProblems for a file without any, OSError, and ValueError."""
        return self.records.first

    @cached_property
    def columns(self) -> set[str]:
        """The names in the first record, as templates write them."""
        return {slug(name) for name in self.first}

    @property
    def is_table(self) -> bool:
        """Whether each row has the same columns, as in CSV and Parquet."""
        return self.suffix in (".csv", ".tsv", ".tab", ".parquet") or self.path.startswith(HUB)

    def close(self) -> None:
        """Nothing is to be read: the file had mistakes."""
        if "records" in self.__dict__:
            self.records.close()

    def refuse_template(self, kind: str) -> None:
        """For kinds that fill none. Raises FileProblems where there is one."""
        if self.prompt is not None:
            what = f"a file of kind {kind} is played as it is and fills no 'prompt'; drop it"
            raise FileProblems([Problem(self.path, 0, what)])


class DataFile(ABC):
    """The rows of one file, each of them a conversation. A kind of file is a subclass that says how it is
    recognised, what a row means and which rows it refuses; it is played once it stands in `KINDS`."""

    kind: ClassVar[str]
    """Its name in a scenario's `source: {kind: ...}`."""
    also_kinds: ClassVar[tuple[str, ...]] = ()
    """Other names for it there."""
    suffixes: ClassVar[tuple[str, ...]] = SUFFIXES
    """Endings of its files' names."""
    sign: ClassVar[str]
    """How a person recognises it, for messages: what the first row has."""
    timed: bool = False
    """Each row has a time at which it is due (see arrival_s), and they are played in this order."""
    shares_prefixes: bool = False
    """Rows begin alike, and a server is meant to find that in its prefix cache."""
    characters_per_token: float = CHARACTERS_PER_TOKEN
    """Of texts that are made to a length; the served model's, where its tokenizer was asked."""
    passed_over: int = 0
    """Rows that are sound but hold nothing to play."""
    problems: list[Problem] = []  # noqa: RUF012 - never changed, only replaced
    """Rows that cannot be played, at most FOUND_MAX of them."""
    refused: int = 0
    """How many those are."""
    needs: frozenset[str] = frozenset()
    """What a dialect must be able to carry: `tools`, `odd_tools` (calls and results that do not follow the
    API's form of today), `parts` (pictures and the like)."""

    @classmethod
    @abstractmethod
    def recognises(cls, source: DataSource) -> bool:
        """Whether a file that begins so is of this kind. Raises ValueError for a row that cannot be read."""

    @abstractmethod
    def __init__(self, source: DataSource) -> None:
        """Look at every row once. Rows that cannot be played are `problems`. Raises FileProblems for a file
        of which no row can be played, ValueError, and what opening a file raises."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def row(self, i: int) -> DataRow:
        """What row i says, from 0."""

    def context_tokens(self, i: int) -> int | None:
        """Tokens of context that row i needs with its answer, where the file says so; quick to say."""
        return None

    def arrival_s(self, i: int) -> float:
        """When row i is due, in seconds after the first. Only for kinds that are `timed`."""
        raise NotImplementedError

    def notes(self) -> Iterator[Finding]:
        """What is not played as the file says, and what was guessed."""
        yield from ()

    def sha256(self, path: str) -> str:
        """Of the file."""
        with open_file(path) as file:
            return file_digest(file, "sha256").hexdigest()


class Index:
    """The records that `keep` has taken; `keep` gives False for one to pass over and raises ValueError, with
    words for a person, for one that is wrong."""

    def __init__(self, records: Records, keep: Callable[[Record], bool]) -> None:
        self._records = records
        self._starts, self._ends = array("Q"), array("Q")
        self.lines = array("Q")
        """Where each record begins, for messages about a whole file."""
        self.problems: list[Problem] = []
        self.refused = 0
        self.passed_over = 0
        for start, end, line, row in records.spans():
            try:
                record = records.decode(row)
                taken = record is not None and keep(record)
            # What json, csv and msgspec raise, too; OverflowError: a number beyond all that floats hold.
            except (ValueError, RecursionError, OverflowError) as error:
                self.refused += 1
                if self.refused <= FOUND_MAX:
                    what = f"{sentence(error)}; mend or remove this row"
                    self.problems.append(Problem(records.path, line, what))
                continue
            self.passed_over += not taken
            if taken:
                self._starts.append(start)
                self._ends.append(end)
                self.lines.append(line)
        if not self._starts:
            nothing = Problem(records.path, 0, "no row that could be played; look at the form of the file")
            raise FileProblems(self.problems or [nothing])

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, i: int) -> Record:
        return self._records.decode(self._records.read(self._starts[i], self._ends[i])) or {}


class RecordFile(DataFile):
    """A kind whose rows are records: of JSON, CSV, Parquet, lines or the hub alike."""

    def __init__(self, source: DataSource) -> None:
        if isinstance(source.records, CsvRecords):
            self._read_names(source.records)
        self._records = source.records
        self._index = Index(source.records, self._keep)
        self.problems, self.refused = self._index.problems, self._index.refused
        self.passed_over = self._index.passed_over

    def __len__(self) -> int:
        return len(self._index)

    @abstractmethod
    def _keep(self, record: Record) -> bool:
        """Whether there is something to play in it. Raises ValueError, with words for a person."""

    def sha256(self, path: str) -> str:
        return self._records.sha256() if path.startswith(HUB) else super().sha256(path)

    @staticmethod
    def _read_names(records: CsvRecords) -> None:
        """Raises FileProblems for names that are not told apart."""
        names = records.names
        if twice := {name for name in names if names.count(name) > 1}:
            what = f"two columns are named {listed(twice)}; give one another name"
            raise FileProblems([Problem(records.path, 1, what)])


_MEDIA = {"image", "images", "audio", "audios", "video", "videos"}
"""Columns that a person would be asked about, and that no text holds."""
COLUMNS_NOT_SENT = note("columns_not_sent",
    "texts alone are sent, and nothing of the columns {}",
    'write rows of "messages", with a picture as {{"type": "image_url", ...}}')  # fmt: skip


def media_not_sent(columns: set[str]) -> Iterator[Finding]:
    """A note where columns hold pictures and the like beside the texts that are sent."""
    if found := sorted(columns & _MEDIA):
        yield COLUMNS_NOT_SENT.finding(listed(found))


def tokens_of(record: Record, *names: str) -> int | None:
    """The number of tokens under the first of these names that has one; None: none of them has. Raises
    ValueError for what is no number."""
    if record.keys().isdisjoint(names):
        return None
    for name in names:
        value = record.get(name)
        if isinstance(value, str):
            value = value.strip()
        if value is None or value == "":
            continue
        number = float(value) if isinstance(value, str) and value.replace(".", "", 1).isdecimal() else value
        if isinstance(number, bool) or not isinstance(number, int | float) or number != int(number):
            raise ValueError(f"{shown(value)} is no number of tokens")
        if abs(number) > _TOKENS_MAX:
            raise ValueError(f"{shown(value)} tokens; no context has more than {_TOKENS_MAX:,}")
        return int(number)
    return None


def shown(value: Any) -> str:
    """A value of a file, for a message."""
    if isinstance(value, str):
        return quoted(value, 40)
    return "null" if value is None else quoted(str(value), 40)


def what_it_is(value: Any) -> str:
    """What kind of value it is, for a message."""
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, dict):
        return "an object"
    return "a text" if isinstance(value, str) else "nothing" if value is None else "a number"

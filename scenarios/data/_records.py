"""The records of a file, read where they lie: JSON, lines of JSON, CSV with any delimiter, plain lines,
Parquet, and sets of the Hugging Face hub.

What a file is follows from its bytes and not from its name alone: a byte order mark, UTF-16 as spreadsheets
write it, gzip, the delimiter, whether the first row holds names. What cannot be read in place (UTF-16, gzip,
Parquet, a set of the hub) is written once, as UTF-8, into a file without a name that goes when it is closed.

An index holds sixteen bytes a row, never its text; each row is looked at once for mistakes and forgotten.

The elements of a JSON array are found here and not by ijson: its C backend reads the same array in 1.1 s,
but gives no byte offsets, and without them a row can only be had by reading all rows before it. Its
Python backend knows them and takes 11 s.
"""

from __future__ import annotations

import codecs
import contextlib
import csv
import gzip
import importlib
import json
import os
import re
import tempfile
import weakref
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from functools import cached_property, lru_cache
from hashlib import file_digest
from itertools import islice
from typing import IO, Any

import msgspec

from turnbench.files import open_file
from turnbench.problems import FileProblems, Problem

HUB = "hf:"
SUFFIXES = (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".tab", ".txt", ".parquet")
"""Endings of the names of data files; `.gz` may follow."""
Span = tuple[int, int, int, bytes]
"""Start and end in the file, line, and the bytes."""
Record = dict[str, Any]

_BLOCK_CHARACTERS = 1024 * 1024
_RECORD_BYTES_MAX = 4 * 1024 * 1024
"""A CSV record that goes on for longer has lost its closing quote."""
_ROW_BYTES_MAX = 64 * 1024 * 1024
"""More than any row has, pictures included. What is longer is read no further: it would fill the memory."""
_BATCH_ROWS = 1000
_BOM = codecs.BOM_UTF8
_TOO_DEEP = "nested too deep to be read"
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_GZIP = b"\x1f\x8b"
_ZIP = b"PK\x03\x04"
"""Archives, and what spreadsheets save of themselves (.xlsx, .ods)."""
_DECODER = json.JSONDecoder()
csv.field_size_limit(_RECORD_BYTES_MAX)
_GAP = re.compile(r"[\ufeff \t\r\n,\[]*")
_CUT_CHARACTERS = 16
"""A mistake so close to the end of what is read may be one only because the rest is not read yet."""
PROMPT_NAMES = (
    "prompt", "question", "instruction", "text", "input", "text_input", "input_text", "query", "content",
    "message", "user", "request",
)  # fmt: skip
"""Columns that are the prompt where the scenario names none, the likeliest first."""
_NAME = re.compile(r"[^\W\d][\w-]*( [\w-]+)?")
"""What the name of a file's only column looks like: a word or two."""


def plain_name(path: str) -> str:
    """A file's name in small letters, without the ending of a packed one: what it is follows from the
    rest."""
    return path.lower().removesuffix(".gz")


def slug(name: str) -> str:
    """A column's name as a template writes it: small letters, with `_` for all but letters and digits."""
    return _slug(name.strip())


@lru_cache(maxsize=4096)
def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


class Records(ABC):
    """The records of one file. `spans` finds them, `decode` says what one of them holds."""

    def __init__(self, path: str, file: IO[bytes]) -> None:
        self.path = path
        self._file = file
        weakref.finalize(self, file.close)

    @abstractmethod
    def spans(self) -> Iterator[Span]:
        """Each record as it lies in the file."""

    @abstractmethod
    def decode(self, row: bytes) -> Record | None:
        """What a record holds; None: nothing at all. Raises ValueError with words for a person."""

    def read(self, start: int, end: int) -> bytes:
        """The bytes of a record that `spans` found."""
        row = os.pread(self._file.fileno(), end - start, start)
        return row if start else row.removeprefix(_BOM)

    @cached_property
    def first(self) -> Record:
        """The first record that holds something and can be read. Raises FileProblems where there is none."""
        error: ValueError | None = None
        empty = True
        for _, _, line, row in islice(self.spans(), 1000):
            empty = False
            try:
                if record := self.decode(row):
                    return record
            except ValueError as wrong:
                if line == 1 and isinstance(wrong, UnicodeDecodeError):
                    raise  # no text at all, or all of it in another encoding
                if error is None:
                    error, at = wrong, line
        if error is not None:
            raise FileProblems([Problem(self.path, at, f"{sentence(error)}; mend or remove this row")])
        what = "the file is empty; it needs at least one row"
        if not empty:
            what = "no row that could be played; look at the form of the file"
        raise FileProblems([Problem(self.path, 0, what)])

    def close(self) -> None:
        """Rows can no longer be read."""
        self._file.close()

    def sha256(self) -> str:
        """Of the whole file, as it is read here."""
        self._file.seek(0)
        return file_digest(self._file, "sha256").hexdigest()  # type: ignore[arg-type]  # any binary file does

    def _lines(self) -> Iterator[Span]:
        """Each line, without a byte order mark."""
        self._file.seek(0)
        start = number = 0
        while line := self._file.readline(_ROW_BYTES_MAX + 1):
            number += 1
            if len(line) > _ROW_BYTES_MAX:
                raise _endless_row(self.path, number)
            end = start + len(line)
            yield start, end, number, line if start else line.removeprefix(_BOM)
            start = end


def sentence(error: ValueError | RecursionError | OverflowError) -> str:
    """A mistake as one line for a person."""
    if isinstance(error, RecursionError):
        return _TOO_DEEP
    if isinstance(error, OverflowError):
        return "a number too large to compute with"
    if isinstance(error, UnicodeDecodeError):
        return "not UTF-8 text; save the file as UTF-8"
    return " ".join(str(error).split())


def open_records(path: str) -> Records:
    """The records of a file, or of a set of the hub (`hf:REPO`). Raises OSError and FileProblems."""
    if path.startswith(HUB):
        return JsonRecords(path, _spooled(_json_lines(_hub_rows(path))))
    plain = plain_name(path)
    if plain.endswith(".parquet"):
        return JsonRecords(path, _spooled(_json_lines(_parquet_rows(path))))
    file: IO[bytes] = open_file(path)
    if file.read(4) == _ZIP:
        file.close()
        what = "a zip archive, or a spreadsheet in its own format; unpack it, or export it as CSV"
        raise FileProblems([Problem(path, 0, what)])
    for starts, readable in ((_GZIP, _unpacked), (_UTF16, _as_utf8)):
        file.seek(0)
        if file.read(4).startswith(starts):
            file.seek(0)
            with file:
                file = _spooled(readable(path, file))
    if plain.endswith(".txt"):
        return TextRecords(path, file)
    if plain.endswith((".csv", ".tsv", ".tab")):
        return CsvRecords(path, file)
    return JsonRecords(path, file)


def _spooled(pieces: Iterable[bytes]) -> IO[bytes]:
    with contextlib.ExitStack() as closing:
        file = closing.enter_context(tempfile.TemporaryFile())
        file.writelines(pieces)
        file.seek(0)
        closing.pop_all()  # its reader closes it
    return file


def _unpacked(path: str, file: IO[bytes]) -> Iterator[bytes]:
    try:
        with gzip.open(file) as unpacked:
            while block := unpacked.read(_BLOCK_CHARACTERS):
                yield block
    except (EOFError, zlib.error, OSError) as error:
        raise FileProblems([Problem(path, 0, f"not readable as gzip ({error}); pack it again")]) from None


def _as_utf8(path: str, file: IO[bytes]) -> Iterator[bytes]:
    """UTF-16 text, such as spreadsheets save as "Unicode text"."""
    decoder = codecs.getincrementaldecoder("utf-16")()
    try:
        while block := file.read(_BLOCK_CHARACTERS):
            yield decoder.decode(block).encode()
        yield decoder.decode(b"", final=True).encode()
    except UnicodeError:
        raise FileProblems([Problem(path, 0, "not UTF-8 text; save it as UTF-8")]) from None


def _json_lines(rows: Iterable[Record]) -> Iterator[bytes]:
    encode = msgspec.json.Encoder(enc_hook=str).encode
    for row in rows:
        yield encode(row) + b"\n"


def _endless_row(path: str, line: int) -> FileProblems:
    what = f"a row that goes on for more than {_ROW_BYTES_MAX:,} bytes; look for what should end it"
    return FileProblems([Problem(path, line, what)])


def _parquet_rows(path: str) -> Iterator[Record]:
    """The rows of a Parquet file, some at a time; columns of bytes that are no text are not read."""
    import pyarrow  # here, since it is large and few need it
    import pyarrow.parquet

    try:
        with open_file(path) as file:
            for batch in pyarrow.parquet.ParquetFile(file).iter_batches(_BATCH_ROWS):
                table = pyarrow.Table.from_batches([batch])
                for place, column in reversed(list(enumerate(table.schema))):
                    if not (
                        pyarrow.types.is_binary(column.type) or pyarrow.types.is_large_binary(column.type)
                    ):
                        continue
                    try:
                        text = table.column(place).cast(pyarrow.large_string())
                        table = table.set_column(place, column.name, text)
                    except pyarrow.ArrowInvalid:
                        table = table.remove_column(place)
                yield from table.to_pylist()
    except pyarrow.ArrowException as error:
        raise _not_parquet(path, error) from None
    except OSError as error:
        if error.errno is not None:
            raise
        raise _not_parquet(path, error) from None


def _not_parquet(path: str, error: Exception) -> FileProblems:
    reason = str(error).splitlines()[0][:80]
    return FileProblems([Problem(path, 0, f"not readable as Parquet ({reason!a}); write the file again")])


def _hub_rows(path: str) -> Iterator[Record]:
    """The rows of `hf:REPO[/CONFIG][:SPLIT]`, through the library `datasets`."""
    try:
        datasets: Any = importlib.import_module("datasets")  # of the extra `hub`; large, and few need it
    except ImportError:
        what = "this needs the library datasets, which is not installed; pip install 'turnbench[hub]'"
        raise FileProblems([Problem(path, 0, what)]) from None
    name, _, split = path.removeprefix(HUB).partition(":")
    owner, *rest = name.split("/", 2)
    if not owner or "" in rest:
        what = "write hf:OWNER/NAME, hf:OWNER/NAME/CONFIG, each perhaps with :SPLIT"
        raise FileProblems([Problem(path, 0, what)])
    repo, config = "/".join([owner, *rest[:1]]), rest[1] if len(rest) > 1 else None
    try:
        rows = datasets.load_dataset(repo, config, split=split or "train")
        for column, feature in (getattr(rows, "features", None) or {}).items():
            if getattr(feature, "decode", False) is True:  # pictures and sounds stay the files that they are
                rows = rows.cast_column(column, type(feature)(decode=False))
        yield from rows
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        what = f"the hub's library could not load it ({reason!a}); check repository, configuration and split"
        raise FileProblems([Problem(path, 0, what)]) from None


class JsonRecords(Records):
    """The elements of one array (which may be one line of gigabytes), objects one after the other over any
    number of lines, or each line that is not blank. A text is a prompt; null is nothing."""

    _decode = staticmethod(msgspec.json.Decoder().decode)

    def spans(self) -> Iterator[Span]:
        return self._elements() if self._is_array or not self._is_lines else self._filled_lines()

    def decode(self, row: bytes) -> Record | None:
        try:
            found = self._decode(row)
        except RecursionError:
            raise ValueError(_TOO_DEEP) from None
        if isinstance(found, str):
            return {"prompt": found} if found.strip() else None
        if found is None or found == {}:
            return None
        if not isinstance(found, dict):
            raise ValueError('a row must be an object such as {"prompt": "..."}, one a line')
        return found

    @cached_property
    def _is_array(self) -> bool:
        self._file.seek(0)
        return self._file.read(1024).removeprefix(_BOM).lstrip().startswith(b"[")

    @cached_property
    def _is_lines(self) -> bool:
        """Whether the first line holds a whole value, or something else than the start of one."""
        for _, _, _, line in self._filled_lines():
            try:
                self._decode(line)
            except msgspec.DecodeError as error:
                return not ("truncated" in str(error) and line.lstrip().startswith(b"{"))
            except RecursionError:
                return True
            return True
        return True

    def _filled_lines(self) -> Iterator[Span]:
        return (span for span in self._lines() if not span[3].isspace())

    def _elements(self) -> Iterator[Span]:
        """Each element, read in blocks. A broken one is one wrong row, and the rows after it begin where an
        object begins with the first row's first key; a cut file ends in one wrong row."""
        at, line, here, text, ended = 0, 1, 0, "", False
        again: re.Pattern[str] | None = None
        self._file.seek(0)
        decoder = codecs.getincrementaldecoder("utf-8")()
        while True:
            gap = _GAP.match(text, here)
            skipped = gap[0] if gap else ""
            at, line, here = at + len(skipped.encode()), line + skipped.count("\n"), here + len(skipped)
            end, broken_at = None, None
            if here < len(text) and text[here] != "]":
                try:
                    end = _DECODER.raw_decode(text, here)[1]
                except json.JSONDecodeError as error:
                    cut = error.msg.startswith("Unterminated") or error.pos > len(text) - _CUT_CHARACTERS
                    broken_at = None if cut else error.pos
                except RecursionError:
                    broken_at = here
            if end is None and broken_at is not None:
                begins = again.search(text, max(broken_at, here + 1)) if again is not None else None
                if begins is None and again is not None and not ended:
                    broken_at = None  # where the next row begins is not read yet
                elif begins is not None:
                    end = begins.start()
            if end is not None:
                raw = text[here:end].encode()
                if again is None and (key := re.match(r'\{\s*("(?:[^"\\]|\\.)*"\s*:)', text[here:end])):
                    again = re.compile(r"\{\s*" + re.escape(key[1]))
                yield at, at + len(raw), line, raw
                at, line, here = at + len(raw), line + raw.count(b"\n"), end
            elif ended or broken_at is not None:
                break
            elif len(text) - here > _ROW_BYTES_MAX:
                raise _endless_row(self.path, line)
            else:
                block = self._file.read(max(_BLOCK_CHARACTERS, len(text) - here))
                text, here, ended = text[here:] + decoder.decode(block, not block), 0, not block
        if text[here:].strip() not in ("", "]"):
            yield at, at, line, text[here : here + 200].encode()


class TextRecords(Records):
    """Each line that is not blank is a prompt."""

    def spans(self) -> Iterator[Span]:
        return (span for span in self._lines() if not span[3].isspace())

    def decode(self, row: bytes) -> Record | None:
        return {"prompt": row.decode().strip()}


class CsvRecords(Records):
    """Rows of fields. Comma, semicolon, tab and bar are told apart by the first rows; names stand in the
    first row, unless that holds a question of MMLU or, in a file of one column, a sentence."""

    def __init__(self, path: str, file: IO[bytes]) -> None:
        super().__init__(path, file)
        tabs = plain_name(path).endswith((".tsv", ".tab"))
        self._delimiters = "\t,;|" if tabs else ",;\t|"
        self.has_names = True

    def spans(self) -> Iterator[Span]:
        names = self.names  # also finds out where the rows begin
        if names:
            yield from self._rows(self._delimiter, after=self._begin)

    def decode(self, row: bytes) -> Record | None:
        fields = fields_of(row, self._delimiter)
        if not any(field.strip() for field in fields):
            return None
        if len(fields) != len(self.names):
            hint = ""
            if len(fields) > len(self.names):
                mark = {"\t": "a tab", ",": "a comma", ";": "a semicolon"}.get(self._delimiter, "a bar")
                hint = f" (a field with {mark} in it needs quotes around it)"
            raise ValueError(f"{len(fields)} fields where {len(self.names)} belong{hint}")
        return dict(zip(self.names, fields, strict=True))

    @cached_property
    def names(self) -> list[str]:
        """The columns, as templates name them; empty for an empty file. Raises ValueError."""
        self._begin, self._delimiter = 0, self._delimiters[0]
        rows = list(islice(self._rows(self._delimiter, after=0), 1))
        if rows and (hint := re.fullmatch(rb"sep=(.)\s*", rows[0][3])):  # for spreadsheets
            self._begin, self._delimiter = rows[0][1], hint[1].decode()
        else:
            self._delimiter = self._most_likely()
        rows = list(islice(self._rows(self._delimiter, after=self._begin), 1))
        if not rows:
            return []
        fields = [field.strip() for field in fields_of(rows[0][3], self._delimiter)]
        mmlu = len(fields) == 6 and fields[5] in ("A", "B", "C", "D")
        only = fields[0] if len(fields) == 1 else None
        if mmlu or (only is not None and slug(only) not in PROMPT_NAMES and not _NAME.fullmatch(only)):
            self.has_names = False
            return ["prompt"] if only is not None else [f"column_{n}" for n in range(1, len(fields) + 1)]
        self._begin = rows[0][1]
        return [slug(name) or f"column_{n}" for n, name in enumerate(fields, start=1)]

    def _most_likely(self) -> str:
        """The delimiter by which the first row has several fields, and as many as the rows after it; in a
        file of one column the likeliest by its name."""
        best, found = self._delimiters[0], (0.0, 0)
        for delimiter in self._delimiters:
            counts = []
            for _, _, _, row in islice(self._rows(delimiter, after=0), 20):
                try:
                    counts.append(len(fields_of(row, delimiter)))
                except ValueError:
                    counts.append(0)
            if counts and counts[0] > 1:
                score = (counts.count(counts[0]) / len(counts), counts[0])
                if score > found:
                    best, found = delimiter, score
        return best

    def _rows(self, delimiter: str, after: int) -> Iterator[Span]:
        """Each record, which may go over several lines where it has quotes."""
        start, begun, pending = 0, 1, b""
        for at, end, number, line in self._lines():
            if end <= after:
                start, begun = end, number + 1
                continue
            if not pending:
                start, begun = at, number
            pending += line
            if len(pending) > _RECORD_BYTES_MAX or not _is_open(pending, delimiter):
                if not pending.isspace():
                    yield start, end, begun, pending
                pending = b""
        if pending:
            yield start, start + len(pending), begun, pending


def _is_open(record: bytes, delimiter: str) -> bool:
    """Whether a quoted field goes on in the next line. A quote within an unquoted field is a letter."""
    if record.count(b'"') % 2 == 0:
        return False
    mark, at = delimiter.encode(), 0
    while True:
        if record[at : at + 1] == b'"':
            at = record.find(b'"', at + 1)
            while at >= 0 and record[at + 1 : at + 2] == b'"':
                at = record.find(b'"', at + 2)
            if at < 0:
                return True
        at = record.find(mark, at) + 1
        if at == 0:
            return False


def fields_of(row: bytes, delimiter: str = ",") -> list[str]:
    """The fields of one CSV record. Raises ValueError."""
    text = row.removeprefix(_BOM).decode().rstrip("\r\n")
    try:
        (fields,) = csv.reader([text], strict=True, delimiter=delimiter)
    except csv.Error as error:
        raise ValueError(f"not readable as CSV ({error})") from None
    return fields

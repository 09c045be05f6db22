"""Files of data as scenarios: every row is a conversation.

To add a kind of file: a subclass of DataFile that says how it is recognised, what a row means and which rows
it refuses, and its entry in KINDS.
"""

from __future__ import annotations

from scenarios.data._dialogues import MessagesFile, ShareGptFile
from scenarios.data._prompts import CsvFile, MmluFile, ParquetFile
from scenarios.data._rows import DataFile, FirstRow, Messages
from scenarios.data._traces import AzureTrace, MooncakeTrace
from turnbench.problems import FileProblems, Problem

__all__ = ["KINDS", "DataFile", "FirstRow", "Messages", "is_data", "open_data"]

KINDS: list[type[DataFile]] = [
    ShareGptFile,
    MessagesFile,
    MooncakeTrace,
    AzureTrace,
    MmluFile,
    CsvFile,
    ParquetFile,
]
"""Every kind of data file. The first that recognises a file has it, so general kinds stand last."""


def is_data(path: str) -> bool:
    """Whether a file's name ends as one of data does."""
    return any(path.endswith(kind.suffixes) for kind in KINDS)


def open_data(path: str, kind: str | None, prompt: str | None) -> DataFile:
    """The rows of a file, all of them checked; `kind` None: as it is recognised by its ending and first row.

    Raises FileProblems with every mistake.
    """
    try:
        reader = next((each for each in KINDS if each.kind == kind), None) or _recognised(path)
        return reader(path, prompt)
    except OSError as error:
        raise FileProblems([Problem(path, 0, f"not readable ({error.strerror}); check the path")]) from None
    except UnicodeDecodeError:
        raise FileProblems([Problem(path, 0, "not UTF-8 text; save it as UTF-8")]) from None
    except ValueError as error:
        raise FileProblems([Problem(path, 1, f"{error}; look at the first row")]) from None


def _recognised(path: str) -> type[DataFile]:
    first = FirstRow(path)
    likely = [kind for kind in KINDS if first.suffix in kind.suffixes]
    likely = likely or [kind for kind in KINDS if ".jsonl" in kind.suffixes]  # under any other name
    for kind in likely:
        if kind.recognises(first):
            return kind
    signs = ", ".join(f"{kind.kind} has {kind.sign}" for kind in likely)
    raise FileProblems([Problem(path, 1, f"the first row is of no known kind ({signs})")])

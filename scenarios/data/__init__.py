"""Files of data as scenarios: every row is a conversation.

To add a kind of file: a subclass of DataFile that says how it is recognised, what a row means and which rows
it refuses, and its entry in KINDS.
"""

from __future__ import annotations

from scenarios.data._agent_traces import AgentTrace
from scenarios.data._agents import AgentFile
from scenarios.data._data_file import DataFile, DataRow, DataSource, Message, Place, RowTurn
from scenarios.data._dialogues import ChatLogFile, MessagesFile, PreferenceFile, RequestsFile, ShareGptFile
from scenarios.data._messages import is_plain, text_of
from scenarios.data._prompts import AlpacaFile, MmluFile, PromptsFile
from scenarios.data._records import HUB, plain_name
from scenarios.data._spans import GenAiSpans
from scenarios.data._traces import AzureTrace, BailianTrace, BurstGptTrace, MooncakeTrace
from turnbench.problems import FileProblems, Problem, listed

__all__ = [
    "HUB",
    "KINDS",
    "DataFile",
    "DataRow",
    "DataSource",
    "Message",
    "Place",
    "RowTurn",
    "is_data",
    "is_plain",
    "kind_named",
    "open_data",
    "text_of",
]

KINDS: list[type[DataFile]] = [
    RequestsFile,
    PreferenceFile,
    ShareGptFile,
    MessagesFile,
    AgentFile,
    AgentTrace,
    ChatLogFile,
    GenAiSpans,
    BailianTrace,
    MooncakeTrace,
    AzureTrace,
    BurstGptTrace,
    MmluFile,
    AlpacaFile,
    PromptsFile,
]
"""Every kind of data file. The first that recognises a file has it, so general kinds stand last."""


def is_data(path: str) -> bool:
    """Whether a file's name ends as one of data does, or it is a set of the hub."""
    return path.startswith(HUB) or any(plain_name(path).endswith(kind.suffixes) for kind in KINDS)


def kind_named(name: str | None) -> type[DataFile] | None:
    """The kind of this name."""
    return next((kind for kind in KINDS if name in (kind.kind, *kind.also_kinds)), None)


def open_data(source: DataSource, kind: str | None, *, skip_bad_rows: bool = False) -> DataFile:
    """The rows of a file, all of them checked; `kind` None: as it is recognised by its first row.

    Raises FileProblems with every mistake; with `skip_bad_rows` only where no row can be played.
    """
    path, file = source.path, None
    try:
        file = (kind_named(kind) or _recognised(source))(source)
    except OSError as error:
        raise FileProblems([Problem(path, 0, f"not readable ({error.strerror}); check the path")]) from None
    except UnicodeDecodeError:
        raise FileProblems([Problem(path, 0, "not UTF-8 text; save it as UTF-8")]) from None
    except ValueError as error:
        raise FileProblems([Problem(path, 1, f"{error}; look at the first row")]) from None
    finally:
        if file is None or (file.problems and not skip_bad_rows):
            source.close()
    if file.problems and not skip_bad_rows:
        raise FileProblems(file.problems)
    return file


def _recognised(source: DataSource) -> type[DataFile]:
    likely = [kind for kind in KINDS if source.suffix in kind.suffixes]
    likely = likely or [kind for kind in KINDS if ".jsonl" in kind.suffixes]  # under any other name
    if source.prompt is not None and any(issubclass(kind, PromptsFile) for kind in likely):
        return PromptsFile  # a template is of columns, whatever they are
    for kind in likely:
        if kind.recognises(source):
            return kind
    signs = ", ".join(f"{kind.kind} has {kind.sign}" for kind in likely)
    what = f"the first row is of no known kind: it has {listed(map(str, source.first))} ({signs}); "
    what += "or write 'prompt: \"{name}\"' with one of its columns"
    raise FileProblems([Problem(source.path, 1, what)])

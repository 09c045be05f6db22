"""Scenarios whose conversations lie in a file: opened, planned, and when their turn comes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import yaml

from scenarios._bundle import CHARACTERS_PER_TOKEN
from scenarios._errors import ScenarioError
from scenarios._own import open_rows
from scenarios._rows import digest
from scenarios._scenario import Conversation, Own, Scenario, Script, Turn
from scenarios._schema import OwnDocument, Source
from scenarios._trace import Trace
from scenarios._turns import turn_pause
from turnbench.draws import shuffled, stream
from turnbench.problems import Problem

FORMS = (".json", ".jsonl", ".csv", ".parquet")


def open_file(path: str) -> Scenario:
    """A scenario of a file as it is, without a YAML file about it."""
    name = "".join(c if c.isalnum() and c.isascii() else "-" for c in Path(path).stem.lower()).strip("-")[:40]
    source = Source(path=path)
    return open_own(OwnDocument(format="turnbench-scenario/1", name=name or "own", source=source), path, "")


def open_own(document: OwnDocument, source: str, folder: str) -> Scenario:
    """The scenario of a document about a file; a relative path starts at `folder`. Raises ScenarioError."""
    path = str(Path(folder, document.source.path))
    kind, rows = open_rows(path, document.source.kind, document.source.prompt)
    sha256 = digest(path)
    if document.source.sha256 not in (None, sha256):
        what = f"{path!a} has changed since this scenario was written; restore it, or drop 'sha256'"
        raise ScenarioError([Problem(source, 0, what)])
    found = {"path": str(Path(path).resolve()), "kind": kind, "sha256": sha256}
    content = document.model_dump(mode="json", exclude_defaults=True)
    content["source"] |= found
    passed_over = f", {rows.passed_over:,} passed over" if rows.passed_over else ""
    return Scenario(
        name=document.name,
        text=str(yaml.safe_dump(content, sort_keys=False, allow_unicode=True)),
        size=len(rows),
        tasks=(kind,),
        slo={kind: document.source.slo.model_dump(exclude_none=True)},
        description=document.description or f"{len(rows):,} rows of {Path(path).name}{passed_over}.",
        script=Script((), (), (), ()),
        own=Own(document.source.model_copy(update=found), rows),
        timed=isinstance(rows, Trace),
    )


def conversation_of(scenario: Scenario, own: Own, seed: int, k: int) -> Conversation:
    """Conversation k: a trace in its own order, other files in a seeded one."""
    rounds, place = divmod(k, len(own.rows))
    row = place if scenario.timed else shuffled(len(own.rows), seed, rounds, "rows")[place]
    said = own.rows.said(row)
    system = "\n\n".join(text for role, text in said if role == "system") or own.source.system
    turns = tuple(_turns(own, said, row, seed, k))
    return Conversation(
        index=k,
        task=scenario.tasks[0],
        system=system,
        shared_system=False,
        turns=turns,
        sampling=own.source.sampling.model_dump(exclude_none=True),
        history=own.source.history,
        at_context_end=own.source.at_context_end,
        needs_context=own.rows.inputs[row] + own.rows.outputs[row] if isinstance(own.rows, Trace) else None,
        shared_start=own.source.kind == "mooncake",
    )


def _turns(own: Own, said: list[tuple[str, str]], row: int, seed: int, k: int) -> Iterator[Turn]:
    thinks, words = stream(seed, k, "think_s"), 0
    for n, (user, reply) in enumerate(_exchanges(said)):
        tokens = max(1, round(len(reply) / CHARACTERS_PER_TOKEN)) if reply else own.source.max_tokens
        if isinstance(own.rows, Trace):
            tokens = max(1, own.rows.outputs[row])
        think_s, read_wpm, type_wpm = turn_pause(own.source.think_s, thinks, words, user, first=n == 0)
        words = len(reply.split())
        yield Turn(user, think_s, tokens, read_wpm=read_wpm, type_wpm=type_wpm, canned=reply or None)


def _exchanges(said: list[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """What the person said, and the reply it had in the file (or nothing); messages in a row are joined."""
    user, reply = "", ""
    for role, text in said:
        if role == "user" and reply:
            yield user, reply
            user, reply = text, ""
        elif role == "user":
            user = f"{user}\n\n{text}" if user else text
        elif role == "assistant" and user:
            reply += text
    if user:
        yield user, reply


def arrivals(scenario: Scenario) -> Iterator[float]:
    """When each conversation of a trace starts, in seconds from the first. Raises ValueError for a scenario
    that has no times of its own."""
    if scenario.own is None or not isinstance(scenario.own.rows, Trace):
        raise ValueError(f"scenario {scenario.name} has no times of its own; use a trace or an arrival rate")
    trace = scenario.own.rows
    return (trace.arrival_s(i) for i in range(len(trace)))

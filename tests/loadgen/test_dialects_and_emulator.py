"""Every dialect between load generator and emulator, which share no code: replies whole and bent."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from loadgen.dialects import DIALECTS
from tests.emulators import emulator

FAULTS = {
    "{fault: error_event, after_events: 2}": "server_error",
    "{fault: bad_json, after_events: 2}": "bad_json",
    "{fault: eof, after_events: 2, end: chunk}": "truncated",
    "{fault: reset, after_events: 2}": "disconnected",
    "{fault: usage_absent}": "ok",
    "{fault: usage_wrong, by: 3}": "ok",
    "{fault: reasoning_only, key: reasoning}": "ok",  # its limit cut it: an answered turn
    "{fault: empty}": "empty",
    "{fault: multi_line}": "ok",
    "{fault: crlf}": "ok",
    "{fault: cr}": "ok",
    "{fault: bom}": "ok",
    "{fault: comments}": "ok",
    "{fault: event_lines}": "ok",
    "{fault: gzip}": "ok",
    "{fault: split, bytes: 7, gap: 0ms}": "ok",
    "{fault: coalesce, events: 3}": "ok",
    "{fault: oversized, after_events: 2, bytes: 2000000}": "oversized",
    "{fault: status, status: 429}": "http_429",
}
TOKENS = 9


@pytest.fixture
def faulty(tmp_path: Path) -> Iterator[Any]:
    """Starts an emulator whose request n has fault n."""
    with ExitStack() as running:

        def start(*faults: str) -> str:
            lines = [each[:-1] + f", requests: {number}}}" for number, each in enumerate(faults, start=1)]
            plan = tmp_path / "faults.yaml"
            plan.write_text("format: turnbench-faults/1\nfaults: [" + ", ".join(lines) + "]\n")
            quick = ("--schedule", "fixed", "--ttft", "2ms", "--itl", "1ms")
            return running.enter_context(emulator("--faults", str(plan), *quick))

        yield start


async def played(client: Any, url: str, dialect: str, turns: int = 1, count: int = 1) -> list[Any]:
    person = client(
        url, turns=turns, dialect=dialect, body={"model": "yi-6b"}, max_tokens=TOKENS, keep_text=True
    )
    for _ in range(count):
        await person.ended(person.start())
    return list(person.records)


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_two_turns_are_read_with_the_emulator_s_counts(faulty: Any, client: Any, dialect: str) -> None:
    first, second = await played(client, faulty("{fault: crlf}"), dialect, turns=2)
    assert (first.outcome, second.outcome) == ("ok", "ok")
    assert [record.output_tokens for record in (first, second)] == [TOKENS, TOKENS]
    assert first.finish_reason == "length"
    assert second.prompt_tokens > first.prompt_tokens + TOKENS, "the history is in the second prompt"


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_bent_reply_ends_with_the_outcome_of_its_fault(
    faulty: Any, client: Any, dialect: str
) -> None:
    records = await played(client, faulty(*FAULTS), dialect, count=len(FAULTS) + 1)
    found = dict(zip([*FAULTS, "none"], [record.outcome for record in records], strict=True))
    wanted = FAULTS | {"none": "ok"}
    assert found == wanted
    texts = {record.text for record in records if record.outcome == "ok"}
    assert len(texts) == len([record for record in records if record.outcome == "ok"]), (
        "each of its own prompt"
    )
    assert {len(record.event_us) for record in records if record.outcome == "ok"} == {TOKENS}
    counts = {name: record.output_tokens for name, record in zip(FAULTS, records, strict=False)}
    assert (counts["{fault: usage_wrong, by: 3}"], counts["{fault: crlf}"]) == (TOKENS + 3, TOKENS)
    sources = {name: record.token_source for name, record in zip(FAULTS, records, strict=False)}
    assert (sources["{fault: usage_absent}"], sources["{fault: crlf}"]) == ("events", "usage")

"""turns-W.jsonl: TurnRecord, the one thing that crosses from the load generator to the analysis.

The hot path never raises: what went wrong in a turn is its `outcome` and `error`.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from turnbench.outcomes import Outcome

TokenSource = Literal["usage", "continuous_usage", "events"]


class TurnRecord(msgspec.Struct, kw_only=True):
    """One attempt at one turn of one conversation.

    `*_ns` are integer nanoseconds since the Unix epoch on the clock of the worker that sent it, and null
    where the turn never came to that. `event_us` are microseconds after `sent_ns`, one per content event
    (text, reasoning or a tool call; an event with only a role or nothing in it is not content).
    """

    run: str
    conversation: int
    """Number of the conversation in the plan, from 0."""
    turn: int
    """Number of the turn in the conversation, from 1."""
    last: bool = False
    """Whether the plan has no turn of a higher number in this conversation."""
    depth: int | None = None
    """In a conversation with branches: its place in the line of turns whose history it has, from 1. Null: as
    its number, in a conversation that is one line; then the next three are null as well."""
    continues: int | None = None
    """The turn whose history it goes on with; 0: it begins with an empty one."""
    after: list[int] | None = None
    """The turns that it waited for; it was due when the last of them had ended, and a pause was over."""
    branch: str | None = None
    """The agent or branch that it is of."""
    at_context_end: Literal["stop", "drop_oldest"] | None = None
    """What the end of the model's context did: the conversation stops after this turn, since the next would
    not fit; or this request omits the oldest turns. (Its refusal is the outcome context_full.)"""
    attempt: int = 1
    """From 1; a turn counts once, by its highest attempt."""
    task: str
    model: str
    worker: int = 0
    due_ns: int
    """When the turn should start: its arrival, or the end of the person's conversation before it; for a
    follow-up, the end of what it waits for plus think time."""
    sent_ns: int | None = None
    """Last byte of the request transmitted."""
    sent_clock: Literal["tx", "bound"] | None = None
    """Who says so: the kernel's transmit stamp, or a moment before the call that handed the byte over."""
    write_ns: int | None = None
    """When that call had returned."""
    head_ns: int | None = None
    """Arrival of the response headers."""
    end_ns: int | None = None
    connect_us: int | None = None
    """Time to open the connection; 0: a reused one."""
    event_us: list[int] = []
    """Arrival of each content event, microseconds after sent_ns."""
    event_tokens: list[int] | None = None
    """Tokens in each content event; null: one each."""
    event_words: list[int] = []
    """Words that begin in each content event."""
    answer_event: int | None = None
    """Index of the first event that is not reasoning, or null."""
    clock: Literal["wire", "kernel", "user"] = "kernel"
    """Who says when bytes arrived: the packets, the kernel's stamp of each read, or this process."""
    read_after_us: int | None = None
    """With the wire clock: how much later than its packet the first content event was read, by the kernel's
    stamp of that read. The kernel clock would have added so much to the TTFT. Null where much came and
    sockets were read seldom on purpose."""
    lag_us_max: int = 0
    """The longest time between the kernel receiving a read of this turn and the client seeing it."""
    coalesced: int = 0
    """Content events that shared a read with an earlier content event, so carry a later arrival."""
    max_tokens: int | None = None
    """Tokens of the longest answer that the request allowed."""
    asked_prompt_tokens: int | None = None
    """Tokens that the prompt should have had, where a trace says."""
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    output_tokens: int | None = None
    reasoning_tokens: int | None = None
    token_source: TokenSource = "events"
    chars: int = 0
    words: int = 0
    finish_reason: str | None = None
    status: int | None = None
    """HTTP status, or null."""
    outcome: Outcome = "ok"
    error: str | None = None
    expected: str | None = None
    """Of a scored task: what a right answer says, a letter or texts (docs/accuracy.md); else null."""
    answered: str | None = None
    """What was read out of the answer; null where nothing could be, or there was none."""
    right: bool | None = None
    """Whether it is right; null where nothing is expected, or no whole answer came."""
    text: str | None = None
    """The reply, only with --keep-text."""


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(TurnRecord)


def encode(record: TurnRecord) -> bytes:
    """One line of turns-W.jsonl, without its line end."""
    return _encoder.encode(record)


def decode(line: bytes) -> TurnRecord:
    """The record of one line; raises ValueError for a torn or foreign one."""
    return _decoder.decode(line)

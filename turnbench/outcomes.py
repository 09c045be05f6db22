"""Every way a turn can end, and the class of each: the one table that live views, capacity search, goodput,
verdict and analysis read.

The hot path never raises: what went wrong in a turn is its `outcome`.
"""

from __future__ import annotations

from typing import Literal, get_args

Outcome = Literal[
    "ok",
    "dns",
    "connect",
    "connect_timeout",
    "tls",
    "http_4xx",
    "http_429",
    "http_5xx",
    "redirect",
    "bad_content_type",
    "bad_json",
    "server_error",
    "truncated",
    "disconnected",
    "stale_connection",
    "stalled",
    "deadline",
    "oversized",
    "empty",
    "reasoning_only",
    "context_full",
    "client_ports",
    "client_files",
    "abandoned",
    "cut",
    "unfinished",
    "lost",
    "dropped",
]
OUTCOMES: tuple[str, ...] = get_args(Outcome)
"""The closed list of outcomes."""

MEANINGS: dict[Outcome, str] = {
    "ok": "The whole answer came.",
    "dns": "The server's name has no address.",
    "connect": "No connection: refused, reset or unreachable.",
    "connect_timeout": "No connection within --connect-timeout.",
    "tls": "No secure connection: its certificate, or ours, was refused, or the port speaks no TLS.",
    "http_4xx": "Refused with a status from 400 to 499, other than 429.",
    "http_429": "Refused for coming too fast.",
    "http_5xx": "Answered with a status of a server's fault, or one that stands in no list.",
    "redirect": "Sent elsewhere; a redirect is not followed, so that no key goes with it.",
    "bad_content_type": "A status of success, but no stream of events: a page of HTML, say.",
    "bad_json": "An event, or the framing of the reply, cannot be read.",
    "server_error": "The server reported an error inside its stream.",
    "truncated": "The stream ended without its end: no `[DONE]`, no finish reason.",
    "disconnected": "The connection was lost inside the answer.",
    "stale_connection": "A connection kept open had been closed by the server; the turn is sent once more.",
    "stalled": "Nothing came for --idle-timeout.",
    "deadline": "The answer was not whole within --deadline.",
    "oversized": "An event of over 1 MiB, a reply of over 64 MiB (also decompressed), or of a million lines.",
    "empty": "A whole stream without any content.",
    "reasoning_only": "A whole stream of reasoning without an answer, not cut by its limit of tokens.",
    "context_full": "The conversation does not fit the model's context.",
    "client_ports": "This machine had no local port left.",
    "client_files": "This process had no file descriptor left.",
    "abandoned": "The person lost patience, as the scenario says.",
    "cut": "The run ended the conversation: the level was over, and the turn was not measured.",
    "unfinished": "A measured turn that still ran at the end of --drain.",
    "lost": "Its engine ended while it was in flight.",
    "dropped": "It became due and was never sent.",
}
"""What each says, in a sentence."""

OutcomeClass = Literal["answered", "censored", "failed", "client_fault", "not_measured"]
"""What an outcome says of the server:

answered: the whole answer came, so all its times count.
censored: the turn still ran when it was last seen, so it would have taken longer than what was seen.
failed: the server, or the way to it, failed.
client_fault: this machine could not send it.
not_measured: the run itself cut it short, lost it or never sent it.
"""

_CLASSES: dict[OutcomeClass, tuple[Outcome, ...]] = {
    "answered": ("ok",),
    "censored": ("stalled", "deadline", "abandoned", "unfinished"),
    "client_fault": ("client_ports", "client_files"),
    "not_measured": ("cut", "lost", "dropped"),
}

CLASS_OF: dict[str, OutcomeClass] = {
    **dict.fromkeys(OUTCOMES, "failed"),
    **{outcome: name for name, outcomes in _CLASSES.items() for outcome in outcomes},
}
"""The class of each outcome."""


def of_class(*names: OutcomeClass) -> tuple[str, ...]:
    """The outcomes of these classes, in the order of the closed list."""
    return tuple(outcome for outcome in OUTCOMES if CLASS_OF[outcome] in names)


ANSWERED = of_class("answered")
"""Turns that give all their values to a distribution, and that may meet limits."""

CENSORED = of_class("censored")
"""Turns whose wait is known only to have been longer: they stand in a distribution above all that ended."""

BROKEN_OFF: tuple[Outcome, ...] = ("truncated", "disconnected")
"""Failed turns that, after their first content, are censored in the waits as well: the answer was on
its way."""

FAILED = of_class("failed", "client_fault")
"""Turns that count as failed: in a cell's failed share, which stands beside its waits, in live views, in
findings and in comparisons."""

STILL_RUNNING: tuple[Outcome, ...] = ("unfinished",)
"""Turns that the run stopped watching when its drain was over: a conversation that ended so was cut."""

UNANSWERED = tuple(o for o in OUTCOMES if o in (*FAILED, *CENSORED) and o not in STILL_RUNNING)
"""Turns that were watched to their end and got no whole answer: they end a conversation, and enough of them
the run (--abort-errors). A server that stands still fails no turn, and yet is no use."""

NOT_MEASURED = of_class("not_measured")
"""Turns in no share and no distribution. A conversation that ended with one was cut, not failed."""

NOT_BEGUN: tuple[Outcome, ...] = ("dropped",)
"""Turns that became due and were never sent; in the ledger, not among the begun."""

CLIENT_FAULTS = of_class("client_fault")
"""Turns that this machine could not send; any of them makes a run INVALID."""

TROUBLE = (*UNANSWERED, "lost", "dropped")
"""What a timeline marks as going wrong: unanswered turns, those lost with their engine, those never sent."""


def is_cut_reasoning(outcome: str, finish_reason: str | None) -> bool:
    """Whether a reply of reasoning alone was ended by its limit of tokens: that is an answered turn.

    The server did all that was asked of it; the limit left no token for an answer. Such a turn is `ok` with
    no answer event. Runs before 0.2.0 recorded it as `reasoning_only`, and are read as if they had not.
    """
    return outcome == "reasoning_only" and finish_reason is not None and finish_reason.lower() in CUT_BY_LIMIT


CUT_BY_LIMIT = (
    *("length", "max_tokens", "max_output_tokens", "max_new_tokens", "max_completion_tokens"),
    *("max_length", "model_length", "token_limit", "model_context_window_exceeded"),
)
"""Reasons for an answer's end, in small letters, that servers give for a limit of tokens."""

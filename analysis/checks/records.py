"""What can be wrong with the records of a run: how it ended, what is missing, how tokens were counted."""

from __future__ import annotations

from collections.abc import Iterator

from analysis.checks.evidence import RunEvidence
from analysis.turns.levels import NO_LEVEL
from turnbench.findings import invalid, note, suspect
from turnbench.formats import Finding
from turnbench.outcomes import ANSWERED

# fmt: off
PARTIAL = suspect("partial", "the run was interrupted: this report is partial", "run again for whole levels")
INCOMPLETE = invalid("incomplete",
    "the run is incomplete: it still runs, or was killed before it could end",
    "analyse it again once it has ended, or run again")
STATUS = invalid("status",
    "the run did not end well: its status is {!r}",
    "see the other findings and the run's messages, then run again")
NO_HEALTH = suspect("ledger",
    "there are no health lines, so it isn't known whether every turn has its record",
    "keep health-*.jsonl beside the turns; if they were never written, run again")
MISSING = invalid("records",
    "{} of {} turns ended but have no record here",
    "copy every turns-*.jsonl of every worker into the run directory, or run again")
LOST = invalid("lost",
    "{} of {} turns were still open when their engine ended",
    "see why the engine or worker ended (its messages, memory, signals), then run again")
OPEN_LEDGER = invalid("ledger",
    "the ledger does not close: {}",
    "the run's books are wrong: don't use its rates; please report this with the run directory")
MANIFEST = note("manifest",
    "run.json holds what can't be used, first of all {}: defaults stand for it",
    "see what wrote to run.json after the run")
TORN = note("torn",
    "{} line(s) could not be read, as after a crash in mid-write, and were discarded",
    "nothing to do if the ledger closes")
TOKEN_SPLIT = note("token_split",
    "in {} turns the server's token count does not fit its events: TPOT and token arrivals assume tokens "
    "spread evenly over events",
    "use a server that offers continuous_usage_stats, which gives the tokens of each event")
TOKEN_SOURCE = note("token_source",
    "in {} turns the server gave no token count: events were counted as tokens",
    "have the server send usage (stream_options.include_usage) before comparing tokens per second")
OUTSIDE = note("outside",
    "{} turns lie outside every level and are not measured",
    "nothing to do if the run was cut short; else check the workers' clock offsets in run.json")
# fmt: on


def recorded(run: RunEvidence) -> Iterator[Finding]:
    """What the load generator itself saw go wrong."""
    yield from run.study.manifest.findings


def not_finished(run: RunEvidence) -> Iterator[Finding]:
    match run.study.manifest.status:
        case "finished":
            return
        case "interrupted":
            yield PARTIAL.finding()
        case "running":
            yield INCOMPLETE.finding()
        case status:
            yield STATUS.finding(status)


def no_health(run: RunEvidence) -> Iterator[Finding]:
    if run.study.health.empty and len(run.study.frame):
        yield NO_HEALTH.finding()


def missing(run: RunEvidence) -> Iterator[Finding]:
    if run.ledger.missing:
        yield MISSING.finding(run.ledger.missing, run.ledger.begun)


def lost(run: RunEvidence) -> Iterator[Finding]:
    if run.ledger.lost:
        yield LOST.finding(run.ledger.lost, run.ledger.begun)


def does_not_close(run: RunEvidence) -> Iterator[Finding]:
    """planned = begun + dropped; begun = recorded + missing + lost."""
    ledger, sums = run.ledger, []
    if ledger.planned != ledger.begun + ledger.dropped:
        sums.append(f"planned {ledger.planned} is not begun {ledger.begun} + dropped {ledger.dropped}")
    if ledger.begun != ledger.recorded + ledger.missing + ledger.lost:
        parts = f"recorded {ledger.recorded} + missing {ledger.missing} + lost {ledger.lost}"
        sums.append(f"begun {ledger.begun} is not {parts}")
    for text in sums:
        yield OPEN_LEDGER.finding(text)


def unusable(run: RunEvidence) -> Iterator[Finding]:
    if notes := run.study.run.notes:
        yield MANIFEST.finding(notes[0])


def torn(run: RunEvidence) -> Iterator[Finding]:
    if run.study.torn:
        yield TORN.finding(run.study.torn)


def token_split(run: RunEvidence) -> Iterator[Finding]:
    """Totals that the events can't explain: several tokens came in one event.

    One token more is no sign of that: it may be a stop token that nobody knows to be counted.
    """
    measured = run.study.measured
    events = measured["shown_tokens"] / measured["even_tokens"]
    unlike = (measured["shown_tokens"] > events + 1.5) | (measured["shown_tokens"] < events - 0.5)
    if odd := int((unlike & measured["outcome"].isin(ANSWERED)).sum()):
        yield TOKEN_SPLIT.finding(odd)


def token_source(run: RunEvidence) -> Iterator[Finding]:
    measured = run.study.measured
    guessed = (measured["token_source"] == "events") & measured["outcome"].isin(ANSWERED)
    if guessed.any():
        yield TOKEN_SOURCE.finding(int(guessed.sum()))


def outside(run: RunEvidence) -> Iterator[Finding]:
    frame = run.study.frame
    if turns := int((frame["counts"] & (frame["level"] == NO_LEVEL)).sum()):
        yield OUTSIDE.finding(turns)

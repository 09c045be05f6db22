"""What can be wrong with the records of a run: how it ended, what is missing, how tokens were counted."""

from __future__ import annotations

from collections.abc import Iterator

from analysis.checks.evidence import RunEvidence
from analysis.turns.levels import NO_LEVEL
from turnbench.formats import Finding
from turnbench.outcomes import ANSWERED


def recorded(run: RunEvidence) -> Iterator[Finding]:
    """What the load generator itself saw go wrong."""
    yield from run.study.manifest.findings


def not_finished(run: RunEvidence) -> Iterator[Finding]:
    match run.study.manifest.status:
        case "finished":
            return
        case "interrupted":
            what, remedy = "the run was interrupted: this report is partial", "run again for whole levels"
            yield Finding("suspect", "partial", what, remedy)
        case "running":
            what = "the run is incomplete: it still runs, or was killed before it could end"
            yield Finding("invalid", "incomplete", what, "analyse it again once it has ended, or run again")
        case status:
            what = f"the run did not end well: its status is {status!r}"
            remedy = "see the other findings and the run's messages, then run again"
            yield Finding("invalid", "status", what, remedy)


def no_health(run: RunEvidence) -> Iterator[Finding]:
    if run.study.health.empty and len(run.study.frame):
        what = "there are no health lines, so it isn't known whether every turn has its record"
        remedy = "keep health-*.jsonl beside the turns; if they were never written, run again"
        yield Finding("suspect", "ledger", what, remedy)


def missing(run: RunEvidence) -> Iterator[Finding]:
    if run.ledger.missing:
        what = f"{run.ledger.missing} of {run.ledger.begun} turns ended but have no record here"
        remedy = "copy every turns-*.jsonl of every worker into the run directory, or run again"
        yield Finding("invalid", "records", what, remedy)


def lost(run: RunEvidence) -> Iterator[Finding]:
    if run.ledger.lost:
        what = f"{run.ledger.lost} of {run.ledger.begun} turns were still open when their engine ended"
        remedy = "see why the engine or worker ended (its messages, memory, signals), then run again"
        yield Finding("invalid", "lost", what, remedy)


def does_not_close(run: RunEvidence) -> Iterator[Finding]:
    """planned = begun + dropped; begun = recorded + missing + lost."""
    ledger, sums = run.ledger, []
    if ledger.planned != ledger.begun + ledger.dropped:
        sums.append(f"planned {ledger.planned} is not begun {ledger.begun} + dropped {ledger.dropped}")
    if ledger.begun != ledger.recorded + ledger.missing + ledger.lost:
        parts = f"recorded {ledger.recorded} + missing {ledger.missing} + lost {ledger.lost}"
        sums.append(f"begun {ledger.begun} is not {parts}")
    remedy = "the run's books are wrong: don't use its rates; please report this with the run directory"
    for text in sums:
        yield Finding("invalid", "ledger", f"the ledger does not close: {text}", remedy)


def unusable(run: RunEvidence) -> Iterator[Finding]:
    if notes := run.study.run.notes:
        what = f"run.json holds what can't be used, first of all {notes[0]}: defaults stand for it"
        yield Finding("note", "manifest", what, "see what wrote to run.json after the run")


def torn(run: RunEvidence) -> Iterator[Finding]:
    if run.study.torn:
        what = (
            f"{run.study.torn} line(s) could not be read, as after a crash in mid-write, and were discarded"
        )
        yield Finding("note", "torn", what, "nothing to do if the ledger closes")


def token_split(run: RunEvidence) -> Iterator[Finding]:
    """Totals that the events can't explain: several tokens came in one event.

    One token more is no sign of that: it may be a stop token that nobody knows to be counted.
    """
    measured = run.study.measured
    events = measured["shown_tokens"] / measured["even_tokens"]
    unlike = (measured["shown_tokens"] > events + 1.5) | (measured["shown_tokens"] < events - 0.5)
    odd = measured[unlike & measured["outcome"].isin(ANSWERED)]
    if len(odd):
        what = (
            f"in {len(odd)} turns the server's token count does not fit its events: "
            "TPOT and token arrivals assume tokens spread evenly over events"
        )
        remedy = "use a server that offers continuous_usage_stats, which gives the tokens of each event"
        yield Finding("note", "token_split", what, remedy)


def token_source(run: RunEvidence) -> Iterator[Finding]:
    measured = run.study.measured
    guessed = measured[(measured["token_source"] == "events") & measured["outcome"].isin(ANSWERED)]
    if len(guessed):
        what = f"in {len(guessed)} turns the server gave no token count: events were counted as tokens"
        remedy = (
            "have the server send usage (stream_options.include_usage) before comparing tokens per second"
        )
        yield Finding("note", "token_source", what, remedy)


def outside(run: RunEvidence) -> Iterator[Finding]:
    frame = run.study.frame
    turns = frame[frame["counts"] & (frame["level"] == NO_LEVEL)]
    if len(turns):
        what = f"{len(turns)} turns lie outside every level and are not measured"
        remedy = "nothing to do if the run was cut short; else check the workers' clock offsets in run.json"
        yield Finding("note", "outside", what, remedy)

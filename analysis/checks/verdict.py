"""The verdict: is this a measurement of the server, and what to do if it isn't."""

from __future__ import annotations

from analysis.checks.ledger import Ledger, ledger_findings
from analysis.checks.level import finished, level_findings, nothing_finished
from analysis.checks.steadiness import lengths, restarts, warm_cache
from analysis.turns.levels import NO_LEVEL
from analysis.turns.study import Study
from turnbench.formats import Finding


def findings_of(study: Study, ledger: Ledger) -> list[Finding]:
    """Everything wrong with a run: the load generator's own findings first, then ours, level by level."""
    found = _own(study) + _status(study) + ledger_findings(study, ledger) + _reading(study)
    if not finished(study.frame[study.frame["counts"]]):
        found.append(nothing_finished(study, None))
    else:
        for level in study.levels:
            found += level_findings(study, level)
        found += lengths(study) + restarts(study, study.server) + warm_cache(study)
    return list(dict.fromkeys(found))


def _own(study: Study) -> list[Finding]:
    return list(study.manifest.findings)


def _status(study: Study) -> list[Finding]:
    status = study.manifest.status
    if status == "finished":
        return []
    if status == "interrupted":
        what, remedy = "the run was interrupted: this report is partial", "run again for whole levels"
        return [Finding("suspect", "partial", what, remedy)]
    if status == "running":
        what = "the run is incomplete: it still runs, or was killed before it could end"
        return [Finding("invalid", "incomplete", what, "analyse it again once it has ended, or run again")]
    what = f"the run did not end well: its status is {status!r}"
    return [
        Finding("invalid", "status", what, "see the other findings and the run's messages, then run again")
    ]


def _reading(study: Study) -> list[Finding]:
    found = []
    if study.run.notes:
        what = f"run.json holds what can't be used, first of all {study.run.notes[0]}: defaults stand for it"
        found.append(Finding("note", "manifest", what, "see who wrote to run.json after the run"))
    if study.torn:
        what = f"{study.torn} line(s) could not be read, as after a crash in mid-write; they are left out"
        found.append(Finding("note", "torn", what, "nothing to do if the ledger closes"))
    odd = study.measured[(study.measured["token_scale"] != 1) & (study.measured["outcome"] == "ok")]
    if len(odd):
        what = (
            f"in {len(odd)} turns the server's token count does not fit its events: "
            "TPOT and token arrivals assume tokens spread evenly over events"
        )
        remedy = "use a server that offers continuous_usage_stats, which tells the tokens of each event"
        found.append(Finding("note", "token_split", what, remedy))
    guessed = study.measured[
        (study.measured["token_source"] == "events") & (study.measured["outcome"] == "ok")
    ]
    if len(guessed):
        what = f"in {len(guessed)} turns the server gave no token count: events were counted as tokens"
        remedy = (
            "have the server send usage (stream_options.include_usage) before comparing tokens per second"
        )
        found.append(Finding("note", "token_source", what, remedy))
    outside = study.frame[study.frame["counts"] & (study.frame["level"] == NO_LEVEL)]
    if len(outside):
        what = f"{len(outside)} turns lie outside every level and are not measured"
        remedy = "nothing to do if the run was cut short; else check the workers' clock offsets in run.json"
        found.append(Finding("note", "outside", what, remedy))
    return found

"""The page of findings is read out of the code that makes them."""

from __future__ import annotations

from turnbench.cli.known_findings import KnownFinding, findings_in, known_findings

SOURCE = '''
_LONGER = {"a": "--drain", "b": "--deadline"}

def odd(at) -> Iterator[Finding]:
    """Turns that are odd."""
    remedy = "wait"
    if at.busy:
        remedy = f"use fewer than {at.people} people"
    yield at.finding("suspect" if at.many else "note", "odd", f"{at.count} turns are odd", remedy)
    yield Finding("note", "silent", at.words, _LONGER[at.end])

def take(message):
    match message:
        case "one":
            what = "the first arm"
            report(Finding("invalid", "one", what, _advice(message)))
        case "two":
            what, remedy = "the second arm", "see it"
            report(Finding("note", "two", what, remedy))

def _advice(message):
    if message:
        return "stop"
    return "go on"
'''


def test_a_finding_has_the_texts_that_stand_beside_its_call() -> None:
    assert findings_in(SOURCE) == [
        KnownFinding(["suspect", "note"], "odd", ["… turns are odd"], ["wait", "use fewer than … people"]),
        KnownFinding(["note"], "silent", ["Turns that are odd"], ["--drain", "--deadline"]),
        KnownFinding(["invalid"], "one", ["the first arm"], ["stop", "go on"]),
        KnownFinding(["note"], "two", ["the second arm"], ["see it"]),
    ]


def test_every_finding_of_the_code_says_what_to_do() -> None:
    known = known_findings()
    assert {"drift", "warmup", "worker_lost", "bad_rows_skipped"} <= {one.check for one in known}
    assert [one.check for one in known if not any(c.isalpha() for text in one.remedies for c in text)] == []

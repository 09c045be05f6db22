"""Kinds of findings are values: a run fills in their texts, the page of findings shows them."""

from __future__ import annotations

import re
from pathlib import Path

from turnbench.cli.reference import finding_kinds
from turnbench.findings import FindingKind, suspect
from turnbench.formats import Finding

ROOT = Path(__file__).parents[2]


def test_a_run_fills_in_what_the_page_leaves_open() -> None:
    remedy = "use {more}, as in {{}}"
    kind = FindingKind(("suspect", "note"), "odd", "{:.0%} of {} are odd", remedy, {"more": ["a", "b"]})
    assert kind.finding(0.5, "{1}", severity="note", at=2, more="b") == Finding(
        "note", "odd", "50% of {1} are odd", "use b, as in {}", 2
    )
    assert [kind.shown(text) for text in (kind.what, kind.remedy)] == [
        "… of … are odd",
        "use a / b, as in {}",
    ]
    assert suspect("odd", "{why}", "", {"why": ["one", "two"]}).shown("{why}") == "one; or: two"


def test_every_finding_is_of_a_kind_that_says_what_to_do() -> None:
    kinds = {kind.check: kind for kind in finding_kinds()}
    assert {"drift", "warmup", "worker_lost", "bad_rows_skipped", "cell"} <= kinds.keys()
    assert [name for name, kind in kinds.items() if not re.search("[a-z]", kind.shown(kind.remedy))] == []
    rooms = (path for room in ("analysis", "loadgen", "scenarios") for path in (ROOT / room).rglob("*.py"))
    assert [path for path in rooms if re.search(r"\bFinding\(", path.read_text(encoding="utf-8"))] == []

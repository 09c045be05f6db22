"""Whatever stands in run.json or a record, analysis tells what there is and never breaks."""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec
from hypothesis import HealthCheck, example, given
from hypothesis import strategies as st

from analysis.report.facts import facts_of
from analysis.report.plots import figures
from analysis.summary import summarise
from analysis.tables.writing import for_script_tag
from analysis.turns.study import study_run
from tests.analysis.conftest import START_NS, MadeRun, level, turn
from tests.tries import tries
from turnbench.formats import summary_json
from turnbench.run_directory import read_run

JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**19), 10**19)
    | st.floats(allow_nan=True)
    | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
SMALL = tries(40, suppress_health_check=[HealthCheck.too_slow])


def whole_way(made: MadeRun) -> dict[str, Any]:
    """Write, read, summarise; the summary is strict JSON."""
    study = study_run(read_run(made.write()))
    summary = summarise(study)
    for_script_tag([asdict(one) for one in figures(summary, [facts_of(study)])])
    plain = summary_json(summary)
    json.dumps(plain, allow_nan=False)
    return plain


@SMALL
@given(
    st.dictionaries(st.sampled_from(["levels", "workers", "slo", "findings", "settings", "ended_at"]), JUNK)
)
def test_junk_in_the_manifest_is_survived(manifest: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        made = MadeRun(Path(folder), [turn(n) for n in range(3)], manifest=manifest)
        assert whole_way(made)["verdict"]["status"] in ("valid", "suspect", "invalid")


@SMALL
@given(st.dictionaries(st.sampled_from(list(level())), JUNK))
def test_junk_in_a_level_is_survived(keys: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        whole_way(MadeRun(Path(folder), [turn(n) for n in range(3)], [level(), level(1) | keys]))


@SMALL
@given(
    st.dictionaries(
        st.sampled_from(["t_ns", "worker", "loop_lag_ms", "cpu_share", "planned", "begun", "finished"]), JUNK
    )
)
def test_junk_in_a_health_line_is_survived(line: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        made = MadeRun(Path(folder), [turn(n) for n in range(3)])
        path = made.write()
        with (path / "health-0.jsonl").open("a") as file:
            file.write(json.dumps({"t_ns": START_NS, "worker": 0} | line) + "\n")
        summarise(study_run(read_run(path)))


@SMALL
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "sent_ns": st.none() | st.integers(-(2**63), 2**63 - 1),
            "due_ns": st.integers(-(2**63), 2**63 - 1),
            "end_ns": st.none() | st.integers(-(2**63), 2**63 - 1),
            "event_us": st.lists(st.integers(-(2**62), 2**62), max_size=4),
            "event_tokens": st.none() | st.lists(st.integers(-3, 2**33), max_size=4),
            "event_words": st.lists(st.integers(-3, 2**33), max_size=4),
            "answer_event": st.none() | st.integers(-3, 9),
            "output_tokens": st.none() | st.integers(-3, 2**40),
            "coalesced": st.integers(-3, 2**40),
            "conversation": st.integers(-(2**63), 2**63 - 1),
            "turn": st.integers(-(2**63), 2**63 - 1),
            "attempt": st.integers(-(2**63), 2**63 - 1),
            "worker": st.integers(-(2**63), 2**63 - 1),
            "lag_us_max": st.integers(-(2**63), 2**63 - 1),
            "task": st.text(max_size=5),
            "outcome": st.sampled_from(["ok", "unfinished", "lost", "dropped", "cut", "stalled"]),
        },
    )
)
@example({"event_us": []})  # "ok" without an event has no TTG
def test_any_record_that_can_be_decoded_is_survived(fields: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        made = MadeRun(Path(folder), [turn(0), msgspec.structs.replace(turn(1), **fields), turn(2)])
        made.health = made._health_of(0, made.turns[:1])
        whole_way(made)

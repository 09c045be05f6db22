"""A metric is one function: registered, it appears in summaries, glossary, docs and limits by itself."""

from __future__ import annotations

import json

import numpy as np
import pytest

from analysis.__main__ import main
from analysis.tables.glossary import glossary
from tests.analysis.conftest import MadeRun, cell_of, summary_of, turn
from turnbench.limits import limit_keys, limits_by_task, meets
from turnbench.metrics import METRICS, metric, metrics_page, tpot_ms
from turnbench.turns import Floats, Turns, turns_of


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(METRICS, "last_gap_ms", METRICS["ttft_ms"])  # so that it is gone after the test

    @metric(label="last gap", unit="ms", source="this test", limit=True)
    def last_gap_ms(turns: Turns) -> Floats:
        """Time between the last two events."""
        events = turns.events
        return np.where(events.counts > 1, events.gaps_ms(events.offsets[1:] - 1), np.nan)

    return "last_gap_ms"


def test_a_toy_metric_is_a_distribution_of_every_cell_and_a_table_of_the_report(
    toy: str, made: MadeRun
) -> None:
    made.turns = [turn(n, gap_ms=20 + n) for n in range(11)]
    path = made.write()
    main([str(path)])
    found = cell_of(json.loads((path / "summary.json").read_text()))[toy]
    assert (found["n"], found["mean"], found["p50"]) == (11, 25, 25)
    assert found["ci95"].keys() == {"mean", "p50", "p90", "p95", "p99", "p999"}
    assert "last_gap_ms_p50" in (path / "summary.csv").read_text().splitlines()[0]
    assert "<summary>last gap ms</summary>" in (path / "report.html").read_text()


def test_turns_that_still_wait_for_an_early_toy_metric_count_as_long_as_they_were_watched(
    monkeypatch: pytest.MonkeyPatch, made: MadeRun
) -> None:
    monkeypatch.setitem(METRICS, "third_token_ms", METRICS["ttft_ms"])

    @metric(label="third token", unit="ms", source="this test", early=True)
    def third_token_ms(turns: Turns) -> Floats:
        """Wait for the third token."""
        return turns.events.reaching(turns.events.tokens, 3) / 1e3

    made.turns = [turn(n, ttft_ms=100, gap_ms=20) for n in range(4)]
    made.turns += [turn(4 + n, events=1, ttft_ms=100, gap_ms=20, outcome="unfinished") for n in range(12)]
    found = cell_of(summary_of(made))["third_token_ms"]
    assert found["p50"] is None
    assert found["bound"]["p50"] >= 100


def test_a_toy_metric_has_its_place_in_glossary_and_docs(toy: str) -> None:
    assert glossary()["last gap"] == "Time between the last two events."
    assert "| `last_gap_ms` | last gap | ms | Time between the last two events. | this test | yes |" in (
        metrics_page()
    )


def test_a_toy_metric_can_be_limited(toy: str, made: MadeRun) -> None:
    assert toy in limit_keys()
    limits = limits_by_task({"chat": {toy: 25.0}})
    met, limited = meets(turns_of([turn(0, gap_ms=20), turn(1, gap_ms=30)]), limits)
    assert (met.tolist(), limited.tolist()) == ([True, False], [True, True])
    made.turns = [turn(0, gap_ms=20), turn(1, gap_ms=30)]
    made.manifest["slo"] = {"chat": {toy: 25.0, "share": 0.4}}
    assert summary_of(made)["levels"][0]["holds_limits"] is True


def test_a_turn_of_200_tokens_in_100_events_has_one_tpot_wherever_it_is_asked_for() -> None:
    turns = turns_of([turn(events=100, gap_ms=20, output_tokens=200)])
    assert tpot_ms(turns).tolist() == [pytest.approx(10.0)]
    assert [meets(turns, limits_by_task({"chat": {"tpot_ms": ms}}))[0].item() for ms in (10.0, 9.9)] == [
        True,
        False,
    ]


def test_limits_are_met_by_answered_turns_alone_and_a_missing_tpot_keeps_its_limit() -> None:
    limits = limits_by_task({"chat": {"ttft_ms": 100.0, "tpot_ms": 20.0}})
    one = [
        turn(0),
        turn(1, events=1),
        turn(2, ttft_ms=100.1),
        turn(3, outcome="unfinished"),
        turn(4, task="free"),
        turn(5, task="free", outcome="http_5xx", events=0),
    ]
    met, limited = meets(turns_of(one), limits)
    assert met.tolist() == [True, True, False, False, True, False]
    assert limited.tolist() == [True, True, True, True, False, False]


def test_every_metric_says_what_it_is_in_what_unit_and_after_whom() -> None:
    for key, one in METRICS.items():
        assert one.key == key
        assert all((one.label, one.unit, one.definition.endswith("."), one.source)), key

"""The server's own times of a level beside the client's, from the histograms of its /metrics."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from analysis.pipeline import analyse
from analysis.report.facts import facts_of
from analysis.summary import summarise
from analysis.tables.rows import server_waits_table
from analysis.turns.study import study_run
from tests.analysis.conftest import START_NS, MadeRun, S, summary_of, turn
from tests.tries import tries
from turnbench.formats import summary_json
from turnbench.run_directory import read_run

UPPERS = ("0.05", "0.1", "0.25", "+Inf")


def histogram(name: str, counts: tuple[int, ...], total_s: float) -> dict[str, float]:
    """A server's histogram: values at or under each bound, and their sum."""
    found: dict[str, float] = {
        f'{name}_bucket{{le="{upper}"}}': count for upper, count in zip(UPPERS, counts, strict=True)
    }
    return found | {f"{name}_count": counts[-1], f"{name}_sum": total_s}


def looks(made: MadeRun, *samples: tuple[float, dict[str, float]]) -> None:
    """What the server's page said, at these seconds of the run."""
    made.path.mkdir(parents=True, exist_ok=True)
    lines = [{"t_ns": START_NS + round(at_s * S)} | values for at_s, values in samples]
    (made.path / "server.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def server(made: MadeRun) -> dict[str, Any]:
    found: dict[str, Any] = summary_of(made)["levels"][0]["server"]
    return found


TTFT = "vllm:time_to_first_token_seconds"


def test_the_server_s_histogram_stands_beside_the_client_s_own_values(made: MadeRun) -> None:
    made.turns = [turn(n, sent_s=6 + n, ttft_ms=100, gap_ms=20, events=10) for n in range(40)]
    before, after = histogram(TTFT, (1, 7, 7, 7), 0.5), histogram(TTFT, (1, 47, 47, 47), 0.5 + 40 * 0.09)
    later = histogram(TTFT, (9, 99, 99, 99), 99)
    looks(made, (2, before), (4, before), (30, before), (66, after), (69, later))
    found = server(made)
    wait = found["ttft"]
    assert (wait["n"], wait["client_n"]) == (40, 40)
    assert (wait["mean_ms"], wait["client_mean_ms"]) == pytest.approx((90, 100))
    assert wait["difference_ms"] == pytest.approx(10)
    assert (wait["p50"], wait["client_p50"]) == ([50, 100], 100)
    assert (wait["p90"], wait["client_p90"]) == (None, None), "40 values are too few"
    assert (found["seconds"], found["itl"], found["queue"]) == (62, None, None)


def test_turns_outside_the_two_looks_are_on_neither_side(made: MadeRun) -> None:
    made.turns = [turn(n, sent_s=3 + n, ttft_ms=100) for n in range(20)]
    looks(made, (4.05, histogram(TTFT, (0, 2, 2, 2), 0.2)), (66, histogram(TTFT, (0, 20, 20, 20), 2.0)))
    assert (server(made)["ttft"]["n"], server(made)["ttft"]["client_n"]) == (18, 19)


def test_gaps_whole_answers_and_the_queue(made: MadeRun) -> None:
    made.turns = [turn(n, sent_s=6 + n, ttft_ms=100, gap_ms=20, events=10) for n in range(40)]
    names = {
        "vllm:inter_token_latency_seconds": (360, 360 * 0.02),
        "vllm:request_queue_time_seconds": (40, 0.4),
        "vllm:e2e_request_latency_seconds": (40, 40 * 0.27),
    }
    empty = [histogram(name, (0, 0, 0, 0), 0) for name in names]
    full = [histogram(name, (0, 0, n, n), total_s) for name, (n, total_s) in names.items()]
    looks(made, (4, empty[0] | empty[1] | empty[2]), (66, full[0] | full[1] | full[2]))
    found = server(made)
    assert (found["itl"]["n"], found["itl"]["client_n"]) == (360, 360)
    assert found["itl"]["difference_ms"] == pytest.approx(0)
    assert found["e2e"]["difference_ms"] == pytest.approx(10)
    assert (found["queue"]["mean_ms"], found["queue"]["client_n"]) == (pytest.approx(10), None)
    assert found["itl"]["p90"] == [100, 250]


def test_answers_that_a_gateway_held_back_have_no_gaps_to_compare(made: MadeRun) -> None:
    made.turns = [turn(n, sent_s=6 + n, ttft_ms=2000, gap_ms=0, events=10, coalesced=9) for n in range(40)]
    name = "vllm:inter_token_latency_seconds"
    looks(made, (4, histogram(name, (0, 0, 0, 0), 0)), (66, histogram(name, (360, 360, 360, 360), 7)))
    assert (server(made)["itl"]["n"], server(made)["itl"]["client_n"]) == (360, 0)
    assert server(made)["itl"]["difference_ms"] is None


def test_counts_and_shares_are_those_of_the_level(made: MadeRun) -> None:
    made.turns = [turn(n, sent_s=6 + n) for n in range(40)]
    drafted, accepted = (f"vllm:spec_decode_num_{what}_tokens_total" for what in ("draft", "accepted"))
    hits, queries = "vllm:prefix_cache_hits_total", "vllm:prefix_cache_queries_total"
    preempted = "vllm:num_preemptions_total"
    first = {drafted: 100, accepted: 90, hits: 5, queries: 50, preempted: 3}
    last = {drafted: 300, accepted: 140, hits: 5, queries: 90, preempted: 5}
    looks(made, (4, first), (66, last))
    found = server(made)
    assert (found["acceptance_share"], found["cache_hit_share"]) == (0.25, 0)
    assert (found["preemptions"], found["output_tokens"]) == (2, None)


def test_a_share_that_the_server_computes_itself_is_averaged(made: MadeRun) -> None:
    made.turns = [turn(n, sent_s=6 + n) for n in range(40)]
    looks(made, *((4 + n, {"sglang:cache_hit_rate": share}) for n, share in enumerate([0.9, 0.2, 0.4])))
    assert server(made)["cache_hit_share"] == pytest.approx(0.3)


NAMES = [
    *(f'{TTFT}_bucket{{le="{upper}"}}' for upper in ("0.1", "nan", "-1", "1e999", "+Inf", "x")),
    *(f"{TTFT}_sum", "vllm:num_preemptions_total", "vllm:prefix_cache_hits_total", "sglang:cache_hit_rate"),
    *("vllm:prefix_cache_queries_total", "vllm:kv_cache_usage_perc", "vllm:num_requests_running"),
]
"""Of everything that is looked at, and of histograms that are none."""


@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(NAMES), st.floats(allow_nan=False, allow_infinity=False) | st.integers(0, 99)
        ),
        min_size=2,
        max_size=4,
    )
)
@tries(40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_a_server_counts_the_summary_and_the_plots_are_finite(
    tmp_path_factory: pytest.TempPathFactory, samples: list[dict[str, float]]
) -> None:
    made = MadeRun(tmp_path_factory.mktemp("run"), [turn(n, sent_s=6 + n) for n in range(20)])
    looks(made, *((4 + 62 * n / (len(samples) - 1), each) for n, each in enumerate(samples)))
    study = study_run(read_run(made.write()))
    summary = summarise(study)
    json.dumps(summary_json(summary)["levels"], allow_nan=False)
    json.dumps([asdict(one) for one in facts_of(study).timelines], allow_nan=False)
    server_waits_table(summary)


@pytest.mark.parametrize("restarted", [True, False])
def test_a_server_that_was_restarted_or_looked_at_once_says_nothing(made: MadeRun, restarted: bool) -> None:
    made.turns = [turn(n, sent_s=6 + n) for n in range(40)]
    one = histogram(TTFT, (9, 9, 9, 9), 0.5)
    looks(made, (4, one), *([(66, histogram(TTFT, (1, 2, 2, 2), 0.1))] if restarted else []))
    assert server(made) is None


def test_the_report_shows_both_sides(made: MadeRun) -> None:
    made.turns = [turn(n, sent_s=6 + n, ttft_ms=100) for n in range(40)]
    looks(
        made,
        (4, histogram(TTFT, (0, 0, 0, 0), 0) | {"vllm:num_preemptions_total": 0}),
        (40, histogram(TTFT, (0, 40, 40, 40), 3.6) | {"vllm:num_preemptions_total": 7}),
        (66, histogram(TTFT, (0, 40, 40, 40), 3.6) | {"vllm:num_preemptions_total": 7}),
    )
    page = analyse(made.write()).report.read_text()
    assert "The server&#39;s own times beside the client&#39;s" in page
    assert "50.0 to 100" in page
    assert "preemptions (server)" in page

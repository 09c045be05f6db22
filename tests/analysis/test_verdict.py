"""Each rule of the verdict, just under and just over its limit."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from tests.analysis.conftest import START_NS, MadeRun, S, checks, exit_code_of, level, summary_of, turn
from turnbench.formats import TurnRecord


def turns(count: int = 40, **fields: Any) -> list[TurnRecord]:
    """Turns spread over the window, alike in all else."""
    return [turn(n, sent_s=6 + 50 * n / count, **fields) for n in range(count)]


def _with(count: int, bad: int, **fields: Any) -> list[TurnRecord]:
    """`count` turns of which the last `bad` have other fields."""
    good = turns(count)
    return good[: count - bad] + [turn(1000 + n, sent_s=30, **fields) for n in range(bad)]


def test_a_clean_run_is_valid_and_has_no_findings(made: MadeRun) -> None:
    made.turns = turns()
    summary = summary_of(made)
    assert summary["verdict"] == {"status": "valid", "findings": []}
    assert summary["levels"][0]["status"] == "valid"
    assert exit_code_of(made.path) == 0


@pytest.mark.parametrize(
    ("late_ms", "expected"), [(9, None), (11, "suspect"), (99, "suspect"), (101, "invalid")]
)
@pytest.mark.parametrize("count", [60, 700])
def test_turns_sent_late_by_the_client_in_open_loop(
    made: MadeRun, count: int, late_ms: float, expected: str | None
) -> None:
    made.levels = [level(users=None, arrival_rate_per_s=count / 60)]
    made.turns = turns(count, late_ms=late_ms)
    assert checks(summary_of(made)).get("late") == expected


@pytest.mark.parametrize(("late", "expected"), [(1, None), (2, None), (3, "suspect")])
def test_few_late_turns_of_few_are_no_p99(made: MadeRun, late: int, expected: str | None) -> None:
    made.levels = [level(users=None, arrival_rate_per_s=1.0)]
    made.turns = _with(60, late, late_ms=50)
    assert checks(summary_of(made)).get("late") == expected


@pytest.mark.parametrize(
    ("late_ms", "expected"), [(2.7, None), (2.9, "suspect"), (31, "suspect"), (31.2, "invalid")]
)
def test_lateness_in_closed_loop_is_the_load_that_was_not_made(
    made: MadeRun, late_ms: float, expected: str | None
) -> None:
    made.turns = turns(late_ms=late_ms)  # 280 ms to generate
    assert checks(summary_of(made)).get("late") == expected


@pytest.mark.parametrize(
    ("late_ms", "answer_ms", "expected"),
    [
        (0.3, 40, None), (0.5, 40, "note"), (1.9, 40, "note"),  # as long as a client takes
        (2.2, 40, "suspect"), (2.2, 100, "suspect"), (1.0, 15, "suspect"), (1.0, 8, "invalid"),
    ],
)  # fmt: skip
def test_what_a_client_takes_to_ask_again_is_noted_while_little_load_is_missing(
    made: MadeRun, late_ms: float, answer_ms: int, expected: str | None
) -> None:
    made.turns = turns(late_ms=late_ms, ttft_ms=answer_ms / 10, gap_ms=answer_ms / 10)
    summary = summary_of(made)
    assert checks(summary).get("late") == expected
    assert summary["verdict"]["status"] == {None: "valid", "note": "valid"}.get(expected, expected)


def test_one_late_turn_of_24_in_closed_loop_is_nothing(made: MadeRun) -> None:
    made.turns = _with(24, 1, late_ms=50)
    assert "late" not in checks(summary_of(made))


def test_a_retry_is_not_the_clients_lateness(made: MadeRun) -> None:
    due_ns = START_NS + 10 * S
    first = turn(0, events=0, output_tokens=None, outcome="http_5xx", due_ns=due_ns)
    made.turns = [first, turn(0, attempt=2, sent_s=11, due_ns=due_ns)]
    assert "late" not in checks(summary_of(made))


def test_lateness_from_opening_connections_says_so(made: MadeRun) -> None:
    made.turns = turns(late_ms=50, connect_us=49_000)
    (finding,) = summary_of(made)["verdict"]["findings"]
    assert finding["check"] == "late"
    assert "opening connections" in finding["remedy"]


@pytest.mark.parametrize(("lag_ms", "expected"), [(19, None), (21, "invalid")])
def test_a_user_clock_with_lag_spoils_the_run(made: MadeRun, lag_ms: float, expected: str | None) -> None:
    made.turns = turns(clock="user")
    made.loop_lag_ms = lag_ms
    assert checks(summary_of(made)).get("lag") == expected


@pytest.mark.parametrize(
    ("unstamped", "expected"), [(0, {}), (1, {"unstamped": "note"}), (2, {"lag": "invalid"})]
)
def test_a_few_turns_without_the_kernels_stamps_spoil_no_level(
    made: MadeRun, unstamped: int, expected: dict[str, str]
) -> None:
    made.turns = turns(100, lag_us_max=25_000)
    for n in range(unstamped):
        made.turns[n] = turn(n, sent_s=6, clock="user", lag_us_max=25_000)
    assert checks(summary_of(made)) == expected


def test_a_kernel_clock_with_lag_does_not(made: MadeRun) -> None:
    made.turns = turns(lag_us_max=500_000)
    made.loop_lag_ms = 500
    assert summary_of(made)["verdict"]["status"] == "valid"


def test_event_loop_lag_is_told_and_kept_out_of_ttft(made: MadeRun) -> None:
    made.turns = turns(ttft_ms=100, lag_us_max=80_000)
    summary = summary_of(made)
    assert summary["client"]["lag_ms"] == 80
    assert summary["cells"][0]["ttft_ms"]["p50"] == 100


@pytest.mark.parametrize(("first_us", "expected"), [(-20, "suspect"), (0, "suspect"), (1, None)])
def test_an_answer_from_before_its_request_shows(made: MadeRun, first_us: int, expected: str | None) -> None:
    """One of the same microsecond too: an older version took the answer's head for the request's end."""
    made.turns = turns()
    made.turns[3] = turn(3, sent_s=6, event_us=[first_us, 50_000, 60_000], events=3)
    assert checks(summary_of(made)).get("before_sent") == expected


@pytest.mark.parametrize(("coalesced", "expected"), [(1, None), (2, "suspect")])
def test_coalesced_events(made: MadeRun, coalesced: int, expected: str | None) -> None:
    made.turns = turns(events=100, coalesced=coalesced)
    assert checks(summary_of(made)).get("coalesced") == expected


@pytest.mark.parametrize(("bad", "expected"), [(1, None), (2, "suspect")])
def test_failed_turns(made: MadeRun, bad: int, expected: str | None) -> None:
    made.turns = _with(100, bad, outcome="http_5xx", events=0, output_tokens=None)
    assert checks(summary_of(made)).get("failed") == expected


def test_server_errors_alone_never_make_a_run_invalid(made: MadeRun) -> None:
    made.turns = _with(100, 99, outcome="server_error", events=2)
    assert summary_of(made)["verdict"]["status"] == "suspect"


def test_a_200_with_an_error_event_is_no_success(made: MadeRun) -> None:
    made.turns = _with(40, 10, outcome="server_error", events=3, status=200)
    summary = summary_of(made)
    assert summary["outcomes"] == {"ok": 30, "server_error": 10}
    assert summary["cells"][0]["ttg_ms"]["n"] == 30


@pytest.mark.parametrize(
    ("outcome", "remedy"), [("client_ports", "ip_local_port_range"), ("client_files", "ulimit -n")]
)
def test_one_client_fault_spoils_the_run(made: MadeRun, outcome: str, remedy: str) -> None:
    fault = turn(999, events=0, output_tokens=None, sent_ns=None, due_ns=START_NS + 30 * S, outcome=outcome)
    made.turns = [*turns(200), fault]
    summary = summary_of(made)
    (finding,) = summary["verdict"]["findings"]
    assert (finding["check"], finding["level"]) == ("client_fault", "invalid")
    assert remedy in finding["remedy"]
    assert exit_code_of(made.path) == 3


@pytest.mark.parametrize(("busy_seconds", "expected"), [(6, None), (7, "suspect")])
def test_a_busy_engine(made: MadeRun, busy_seconds: int, expected: str | None) -> None:
    made.turns = turns()
    made.health = made._health_of(0, made.turns)
    for line in made.health[10 : 10 + busy_seconds]:
        line["cpu_share"] = 0.95
    assert checks(summary_of(made)).get("cpu") == expected


@pytest.mark.parametrize(
    ("stolen", "expected"), [(0.005, None), (0.02, "note"), (0.06, "suspect"), (None, None)]
)
def test_a_host_that_took_cpu_time_is_told_with_its_worst_second(
    made: MadeRun, stolen: float | None, expected: str | None
) -> None:
    made.turns = turns()
    made.health = [line | {"stolen_share": stolen} for line in made._health_of(0, made.turns)]
    if stolen is not None:
        made.health[30]["stolen_share"] = 0.25
    summary = summary_of(made)
    assert checks(summary).get("stolen") == expected
    assert (summary["client"]["stolen_share"] is None) == (stolen is None)
    if expected:
        (finding,) = (f for f in summary["verdict"]["findings"] if f["check"] == "stolen")
        assert "25% in one second" in finding["what"]


def test_a_warm_up_that_was_too_short(made: MadeRun) -> None:
    rng = random.Random(5)
    made.turns = [
        turn(n, sent_s=5 + n * 0.1, ttft_ms=(900 if n < 60 else 100) + rng.uniform(0, 30)) for n in range(400)
    ]
    summary = summary_of(made)
    assert checks(summary) == {"warmup": "suspect"}
    assert "--warmup by 6 s" in summary["verdict"]["findings"][0]["remedy"]


def _open_loop(made: MadeRun, due: int, sent: int, planned: int | None = 600) -> dict[str, str]:
    plan = {} if planned is None else {"planned_arrivals": planned}
    made.levels = [level(users=None, arrival_rate_per_s=10.0, **plan)]
    rng = random.Random(1)
    made.turns = [turn(n, sent_s=rng.uniform(5, 64.9)) for n in range(sent)]
    made.turns += [
        turn(9000 + n, events=0, sent_ns=None, end_ns=None, due_ns=START_NS + 30 * S, outcome="dropped")
        for n in range(due - sent)
    ]
    return checks(summary_of(made))


@pytest.mark.parametrize(("sent", "expected"), [(600, None), (595, None), (590, "suspect"), (560, "invalid")])
def test_the_arrival_rate_that_was_reached(made: MadeRun, sent: int, expected: str | None) -> None:
    assert _open_loop(made, 600, sent).get("rate") == expected


def test_chance_in_few_arrivals_is_not_a_missed_rate(made: MadeRun) -> None:
    made.levels = [level(users=None, arrival_rate_per_s=1.0)]
    made.turns = [turn(n, sent_s=6 + n) for n in range(50)]  # of 60
    assert "rate" not in checks(summary_of(made))


def test_from_a_hundred_arrivals_on_their_count_is_fixed(made: MadeRun) -> None:
    assert _open_loop(made, 560, 560)["rate"] == "invalid"


@pytest.mark.parametrize(("sent", "expected"), [(560, None), (450, "invalid")])
def test_a_run_whose_plan_did_not_fix_the_count_is_not_invalid_by_chance(
    made: MadeRun, sent: int, expected: str | None
) -> None:
    assert _open_loop(made, sent, sent, planned=None).get("rate") == expected


def test_a_window_that_was_ended_early_is_not_held_to_its_whole_plan(made: MadeRun) -> None:
    assert "rate" not in _open_loop(made, 600, 600, planned=6000)


def test_a_generator_far_below_its_rate_is_caught_even_if_it_dropped_nothing(made: MadeRun) -> None:
    assert _open_loop(made, 450, 450)["rate"] == "invalid"


def test_drops_that_only_the_health_lines_know_count_as_well(made: MadeRun) -> None:
    made.levels = [level(users=None, arrival_rate_per_s=10.0)]
    made.turns = [turn(n, sent_s=5 + n * 0.1) for n in range(540)]
    made.health = made._health_of(0, made.turns)
    for second, line in enumerate(made.health):
        line["dropped"] = min(second, 60)
        line["planned"] = line["begun"] + line["dropped"]
    summary = summary_of(made)
    assert checks(summary) == {"rate": "invalid"}
    assert summary["outcomes"] == {"ok": 540, "dropped": 60}


def _last(change: Callable[[dict[str, Any]], None]) -> Callable[[MadeRun], None]:
    def apply(made: MadeRun) -> None:
        made.turns = turns()
        made.health = made._health_of(0, made.turns)
        change(made.health[-1])

    return apply


@pytest.mark.parametrize(
    ("change", "check"),
    [
        (_last(lambda line: line.update(planned=43, begun=43, finished=43)), "records"),
        (_last(lambda line: line.update(planned=43, begun=43)), "lost"),
        (_last(lambda line: line.update(planned=50)), "ledger"),
        (_last(lambda line: line.update(planned=30, begun=30, finished=30)), "ledger"),
    ],
)
def test_a_ledger_with_a_hole_spoils_the_run(
    made: MadeRun, change: Callable[[MadeRun], None], check: str
) -> None:
    change(made)
    assert checks(summary_of(made)) == {check: "invalid"}


def test_lost_turns_stand_among_the_outcomes(made: MadeRun) -> None:
    made.turns = turns()
    made.health = made._health_of(0, made.turns)
    made.health[-1].update(planned=44, begun=44)
    summary = summary_of(made)
    assert summary["outcomes"] == {"ok": 40, "lost": 4}
    assert sum(summary["outcomes"].values()) == summary["ledger"]["planned"]


def test_a_killed_run_may_have_turns_younger_than_its_last_health_line(made: MadeRun) -> None:
    made.manifest |= {"status": "running", "ended_at": None}
    made.turns = turns()
    made.health = made._health_of(0, made.turns)[:20]
    made.health[-1].update(planned=38, begun=38, finished=35)
    summary = summary_of(made)
    assert checks(summary) == {"incomplete": "invalid"}
    assert summary["outcomes"] == {"ok": 40}


def test_a_run_without_health_lines_is_not_trusted_blindly(made: MadeRun) -> None:
    made.turns = turns()
    made.health = []
    assert checks(summary_of(made)) == {"ledger": "suspect"}


def test_an_interrupted_run_is_partial_and_still_measured(made: MadeRun) -> None:
    made.manifest["status"] = "interrupted"
    made.levels = [level(), level(1, start_s=70, window_s=(75, 76), end_s=77)]
    made.levels[1] |= {"window_end_ns": None, "end_ns": None}
    made.turns = [*turns(), turn(900, sent_s=75.5)]
    summary = summary_of(made)
    assert summary["partial"] is True
    assert checks(summary) == {"partial": "suspect", "window": "suspect"}
    assert [item["status"] for item in summary["levels"]] == ["valid", "suspect"]
    assert exit_code_of(made.path) == 0


def test_a_failed_run_is_invalid(made: MadeRun) -> None:
    made.manifest["status"] = "failed"
    made.turns = turns()
    summary = summary_of(made)
    assert checks(summary) == {"status": "invalid"}
    assert [item["status"] for item in summary["levels"]] == ["invalid"]


def test_findings_of_the_load_generator_are_merged_into_the_verdict(made: MadeRun) -> None:
    own = {"level": "invalid", "check": "engine", "what": "engine 0 ended", "remedy": "see its messages"}
    made.manifest["findings"] = [own, own]
    made.turns = turns()
    summary = summary_of(made)
    assert summary["verdict"] == {"status": "invalid", "findings": [own]}


def test_an_unknown_level_of_a_finding_changes_no_status(made: MadeRun) -> None:
    made.manifest["findings"] = [{"level": "note", "check": "gzip", "what": "w", "remedy": "r"}]
    made.turns = turns()
    assert summary_of(made)["verdict"]["status"] == "valid"


def test_a_level_without_an_answer_is_invalid_and_the_others_are_not(made: MadeRun) -> None:
    made.levels = [level(), level(1, start_s=70, window_s=(75, 135), end_s=140)]
    dead = [turn(500 + n, sent_s=80 + n, events=0, output_tokens=None, outcome="connect") for n in range(5)]
    made.turns = turns() + dead
    summary = summary_of(made)
    assert [item["status"] for item in summary["levels"]] == ["valid", "invalid"]
    assert summary["verdict"]["status"] == "invalid"


@pytest.mark.parametrize(("slow", "holds", "code"), [(2, True, 0), (3, False, 1)])
def test_a_level_holds_if_enough_of_its_turns_keep_their_limits(
    made: MadeRun, slow: int, holds: bool, code: int
) -> None:
    made.manifest["slo"] = {"chat": {"ttft_ms": 200, "share": 0.95}}
    made.turns = _with(40, slow, ttft_ms=500)
    summary = summary_of(made)
    assert summary["levels"][0]["holds_limits"] is holds
    assert exit_code_of(made.path) == code


def test_turns_at_their_limit_keep_it(made: MadeRun) -> None:
    made.manifest["slo"] = {"chat": {"ttft_ms": 100, "ttg_ms": 280, "tpot_ms": 20, "share": 1.0}}
    made.turns = turns(ttft_ms=100, gap_ms=20, events=10)
    assert summary_of(made)["levels"][0]["holds_limits"] is True


def test_invalid_comes_before_a_missed_limit(made: MadeRun) -> None:
    made.manifest["slo"] = {"chat": {"ttft_ms": 1}}
    made.turns = turns(late_ms=200)
    assert exit_code_of(made.write()) == 3


def test_a_guessed_token_count_is_never_silent(made: MadeRun) -> None:
    made.turns = turns(token_source="events")
    assert checks(summary_of(made)) == {"token_source": "note"}


def test_a_token_count_at_odds_with_the_events_is_told(made: MadeRun) -> None:
    made.turns = turns(events=10, output_tokens=40)
    assert checks(summary_of(made)) == {"token_split": "note"}


def test_every_finding_says_what_to_do(made: MadeRun) -> None:
    made.manifest["status"] = "running"
    made.turns = _with(200, 50, outcome="unfinished", late_ms=500, coalesced=5, token_source="events")
    made.health = []
    findings = summary_of(made)["verdict"]["findings"]
    assert len(findings) >= 5
    assert all(len(finding["remedy"]) > 15 for finding in findings)


def test_conversations_that_outgrew_the_context_are_told_and_change_no_status(made: MadeRun) -> None:
    made.turns = turns()
    for at, fields in ((3, {"at_context_end": "stop"}), (4, {"at_context_end": "drop_oldest"})):
        made.turns[at] = turn(at, sent_s=20, **fields)
    made.turns.append(turn(4, 2, sent_s=22, at_context_end="drop_oldest"))  # the same conversation
    (finding,) = summary_of(made)["verdict"]["findings"]
    assert (finding["level"], finding["check"]) == ("note", "full_context")
    assert "2 of 40 conversations" in finding["what"]
    assert finding["what"].endswith("1 ended there, 1 went on without their oldest turns")

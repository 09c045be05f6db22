"""What a person is advised to do about a slow client fits what was asked for."""

from __future__ import annotations

from typing import Any

import pytest

from tests.analysis.conftest import MadeRun, level, summary_of, turn


def remedy(made: MadeRun, check: str) -> str:
    (found,) = [f for f in summary_of(made)["verdict"]["findings"] if f["check"] == check]
    return str(found["remedy"])


def workers(count: int) -> dict[str, Any]:
    return {
        "workers": [
            {"index": n, "host": "here", "clock_offset_ns": 0, "clock_error_ns": 0} for n in range(count)
        ]
    }


SLOW = {
    "late": {"late_ms": 50.0},
    "lag": {"clock": "user", "lag_us_max": 50_000},
    "coalesced": {"coalesced": 5, "lag_us_max": 30_000},
}
"""Turns of a client that was too slow, by what is found of them."""


@pytest.mark.parametrize("check", SLOW)
@pytest.mark.parametrize(("users", "count"), [(1, 1), (2, 2), (3, 4)])
def test_nobody_who_has_a_worker_of_their_own_is_told_to_share_it(
    made: MadeRun, check: str, users: int, count: int
) -> None:
    made.manifest = workers(count)
    made.levels = [level(users=users)]
    made.turns = [turn(n, sent_s=6 + n, worker=n % count, **SLOW[check]) for n in range(40)]
    said = remedy(made, check)
    assert "fewer people" not in said
    assert "more machines" not in said
    assert "end what else runs on the client's machine" in said


@pytest.mark.parametrize("check", SLOW)
def test_many_people_of_one_worker_are_shared(made: MadeRun, check: str) -> None:
    made.levels = [level(users=64)]
    made.turns = [turn(n, sent_s=6 + n, **SLOW[check]) for n in range(40)]
    assert "use fewer people a worker (--processes, more machines)" in remedy(made, check)


def test_where_each_core_has_a_worker_another_machine_is_needed(made: MadeRun) -> None:
    made.manifest = workers(2) | {"host": {"cores": 2}}
    made.levels, made.cpu_share = [level(users=64)], 0.97
    made.turns = [turn(n, sent_s=6 + n, worker=n % 2) for n in range(40)]
    findings = [f for f in summary_of(made)["verdict"]["findings"] if f["check"] == "cpu"]
    assert {f["remedy"] for f in findings} == {
        "use more machines: this one has a worker for each of its cores already"
    }


def test_a_client_in_time_is_not_told_to_be_quicker(made: MadeRun) -> None:
    made.levels = [level(users=64)]
    made.turns = [turn(n, sent_s=6 + n, coalesced=5, lag_us_max=200) for n in range(40)]
    assert remedy(made, "coalesced").startswith("the client was in time, so the server sends in bursts")

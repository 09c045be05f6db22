"""What can't work is said at once, in one line each, with exit 2 and no request sent."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            ["--levels", "4", "-u", "3", "--hold", "5 parsecs", "--slo", "ttf_ms=3", "--retry", "many"],
            [
                "--levels and -u exclude each other",
                "--levels and -t exclude each other",
                "'5 parsecs' is not a time",
                "KEY one of ttft_ms",
                "--retry: 'many' is not a whole number",
                "not typed, but set: LOCUST_RUN_TIME in the environment",
            ],
        ),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                (["--model", "yi-7b"], ["did you mean yi-6b?"]),
                (["--header", "X-A: $NOT_SET_ANYWHERE"], ["NOT_SET_ANYWHERE is not set"]),
                (["-u", "50", "-r", "1", "-t", "20s"], ["leaves nothing to measure"]),
            )
        ),
    ],
    ids=lambda value: " ".join(value) if value[0].startswith("-") else "",
)
def test_contradictions_and_mistakes_are_all_reported_at_once_with_exit_2(
    server: Any, headless: Any, options: list[str], says: list[str]
) -> None:
    at = server()
    load = headless(at, *options, env={"LOCUST_RUN_TIME": "9s"})
    assert load.end() == 2, load.said
    assert [words for words in says if words not in load.said] == []
    assert "Traceback" not in load.said
    assert not load.where.exists()
    assert at.truth() == {}


@pytest.mark.slow
def test_an_unknown_scenario_names_the_nearest(server: Any, locust: Any) -> None:
    load = locust("--headless", "-H", server().url, "--scenario", "chooze", "--levels", "1")
    assert load.end() == 2
    assert "choose" in load.said


@pytest.mark.slow
def test_a_run_directory_that_exists_is_refused(server: Any, headless: Any, tmp_path: Any) -> None:
    (tmp_path / "mine").mkdir()
    load = headless(server(), "--levels", "1", where=tmp_path / "mine")
    assert load.end() == 2
    assert "exists already" in load.said


def test_no_server_and_no_model_is_said_in_one_line(locust: Any, tools: Any) -> None:
    load = locust("--headless", "-H", f"http://127.0.0.1:{tools.free_port()}", "--levels", "1")
    assert load.end() == 2
    assert "no model to ask" in load.said
    assert "Traceback" not in load.said


def test_a_dead_server_counts_its_refused_connections_and_exits_3(locust: Any) -> None:
    load = locust("--headless", "-H", "http://127.0.0.1:1", "--model", "m",
                  "--scenario", "choose", "--levels", "2", "--hold", "300ms", "--warmup", "0")  # fmt: skip
    assert load.end() == 3, load.said
    outcomes = {turn.outcome for turn in load.run().turns()}
    assert outcomes - {"cut"} == {"connect"}, "one may be connecting when the level ends"

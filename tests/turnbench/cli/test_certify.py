"""`turnbench certify`: what it prints of a load, and what it refuses."""

from __future__ import annotations

import json

import numpy as np
import pytest

from analysis.checks.client import late_share
from tests.commands import called
from turnbench.cli.certify import Certificate, _conclude, main


@pytest.mark.parametrize(
    "words", [["--streams", "ten"], ["--streams", "1,"], ["--streams", "0"], ["--seconds", "0"]], ids=" ".join
)
def test_a_load_that_is_none_is_refused_in_a_line(words: list[str]) -> None:
    said = called(main, *words)
    assert (said.returncode, said.stderr.count("\n")) == (2, 1)
    assert "--streams" in said.stderr


def level(streams: int, ttft_added_ms: float = 0.0, late_share: float = 0.0) -> Certificate:
    return Certificate(streams, 5000.0, "wire", 300, 0.0, ttft_added_ms, 0.0, 50.0, late_share, 0.0, 0.1)


@pytest.mark.parametrize(
    ("last", "why"),
    [
        (
            level(200, late_share=0.023),
            "next turns were late for 2.30% of the time (at most 1%), so the load",
        ),
        (level(200, ttft_added_ms=-1.5), "TTFT off by 1.50 ms at p99 (at most 1)\n"),
        (level(200, 2.0, 0.5), "TTFT off by 2.00 ms at p99 (at most 1); next turns were late for 50.00%"),
    ],
    ids=["late", "off", "both"],
)
def test_of_the_first_load_that_is_too_much_it_says_what_was(
    capsys: pytest.CaptureFixture[str], last: Certificate, why: str
) -> None:
    _conclude([level(100)], last)
    said = capsys.readouterr().out
    assert said.startswith("certified up to 100 streams (5,000 tokens/s) an engine")
    assert f"not at 200: {why}" in said
    assert "use more engines" in said


def test_late_turns_count_by_their_share_of_the_time_and_cut_answers_take_none() -> None:
    assert late_share(np.array([10.0, 30.0]), np.array([160.0, np.nan])) == 0.2
    assert late_share(np.array([0.0]), np.array([np.nan])) == 0.0


def test_where_every_load_is_certified_nothing_is_said_against_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    _conclude([level(100), level(200)], level(200))
    assert capsys.readouterr().out.splitlines() == [
        "certified up to 200 streams (5,000 tokens/s) an engine: at most 1 ms added at p99"
    ]


@pytest.mark.slow
def test_one_stream_is_held_against_the_times_at_which_the_server_sent() -> None:
    said = called(main, "--streams", "1", "--seconds", "4", "--json")
    found = json.loads(said.stdout)
    (level,) = found["levels"]
    assert level["turns"] >= 1
    assert level["tokens_per_s"] * 4 == pytest.approx(100 * level["turns"], rel=0.1)
    assert abs(level["ttft_added_p50_ms"]) < 50
    assert said.returncode == (0 if found["certified_streams"] == 1 else 3)

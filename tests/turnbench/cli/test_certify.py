"""`turnbench certify`: what it prints of a load, and what it refuses."""

from __future__ import annotations

import json

import pytest

from tests.commands import called
from turnbench.cli.certify import main


@pytest.mark.parametrize(
    "words", [["--streams", "ten"], ["--streams", "1,"], ["--streams", "0"], ["--seconds", "0"]], ids=" ".join
)
def test_a_load_that_is_none_is_refused_in_a_line(words: list[str]) -> None:
    said = called(main, *words)
    assert (said.returncode, said.stderr.count("\n")) == (2, 1)
    assert "--streams" in said.stderr


@pytest.mark.slow
def test_one_stream_is_held_against_the_times_at_which_the_server_sent() -> None:
    said = called(main, "--streams", "1", "--seconds", "4", "--json")
    found = json.loads(said.stdout)
    (level,) = found["levels"]
    assert level["turns"] >= 1
    assert level["tokens_per_s"] * 4 == pytest.approx(100 * level["turns"], rel=0.1)
    assert abs(level["ttft_added_p50_ms"]) < 50
    assert said.returncode == (0 if found["certified_streams"] == 1 else 3)

"""--abort-errors: turns that failed end the run, attempts that another one mended don't."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

FAULTS = """\
format: turnbench-faults/1
faults:
  - {fault: status, status: 500, every: 2}
"""
RUN = (
    "--scenario",
    "choose",
    "--levels",
    "8",
    "--hold",
    "4s",
    "--warmup",
    "0",
    "--abort-errors",
    "0.3",
    "--no-analysis",
)


def faulty(own_server: Any, tmp_path: Path) -> Any:
    """A server that answers every second request with 500."""
    faults = tmp_path / "faults.yaml"
    faults.write_text(FAULTS)
    return own_server("--ttft", "20ms", "--itl", "5ms", "--tokens", "4", "--faults", str(faults))


def test_too_many_failed_turns_end_the_run_with_one_finding_that_is_no_verdict_of_invalid(
    locust: Any, own_server: Any, tmp_path: Path
) -> None:
    load = locust("--headless", "-H", faulty(own_server, tmp_path).url, *RUN)
    load.end()
    manifest = load.run().manifest
    found = [f for f in manifest.findings if f.check == "abort_errors"]
    assert [f.level for f in found] == ["suspect"]
    assert manifest.status == "finished"


@pytest.mark.slow
def test_an_attempt_that_was_mended_by_the_next_is_no_failed_turn(
    locust: Any, own_server: Any, tmp_path: Path
) -> None:
    load = locust("--headless", "-H", faulty(own_server, tmp_path).url, *RUN, "--retry", "9")
    load.end()
    outcomes = [turn.outcome for turn in load.run().turns()]
    assert outcomes.count("http_5xx") >= 20, "enough failed attempts to end the run, if they counted"
    assert [f for f in load.run().manifest.findings if f.check == "abort_errors"] == []

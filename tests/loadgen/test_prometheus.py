"""The page for Prometheus: counters of all turns, seconds, few labels, and one run after the other."""

from __future__ import annotations

import socket
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from loadgen.control import _prometheus
from loadgen.control._live import LevelView, LiveClient, LiveNumbers, LiveSnapshot
from loadgen.options._shape import Load
from tests.loadgen.test_live import LEVEL, turn
from turnbench.formats import Finding, TurnRecord
from turnbench.formats.turn import encode


def samples(records: list[TurnRecord], **seen: Any) -> dict[tuple[str, ...], float]:
    """The page of a run with these turns: by name, and the values of its labels."""
    live = LiveNumbers()
    live.level = LevelView(1, "of 1", Load(users=2), 0.0)
    for record in records:
        live.take_turn(encode(record), 0)
    findings = [Finding("suspect", "late", "late", "x"), Finding("note", "clock", "n", "x")]
    run: Any = SimpleNamespace(live=live, manifest=SimpleNamespace(findings=findings))

    def look() -> LiveSnapshot:
        live.digest(LEVEL)
        return LiveSnapshot(run="r", scenario="chat", model="m", emulated=True, **seen)

    page = generate_latest(_prometheus.RunExposition(run, look).registry).decode()
    return {
        (each.name, *(value for _, value in sorted(each.labels.items()))): each.value
        for family in text_string_to_metric_families(page)
        for each in family.samples
    }


def test_every_turn_counts_by_its_outcome_in_the_window_or_not() -> None:
    failed = turn(3, 120, 0, 0, outcome="http_5xx", event_us=[], output_tokens=None)
    odd = turn(4, 120, 100, 1000, outcome="empty", output_tokens=-5)
    found = samples([turn(1, 101, 100, 1000), turn(2, 120, 100, 1000), failed, odd])
    assert found[("turnbench_turns_total", "ok", "chat")] == 2
    assert found[("turnbench_turns_total", "http_5xx", "chat")] == 1
    assert found[("turnbench_output_tokens_total", "chat")] == 20


def test_times_are_in_seconds_and_only_whole_answers_have_a_time_to_generate() -> None:
    cut_off = turn(2, 120, 300, 0, outcome="stalled", event_us=[300_000])
    found = samples([turn(1, 120, 60, 1500), cut_off])
    assert found[("turnbench_time_to_first_token_seconds_sum", "chat")] == pytest.approx(0.36)
    assert found[("turnbench_time_to_first_token_seconds_bucket", "0.06", "chat")] == 1
    assert found[("turnbench_time_to_generate_seconds_sum", "chat")] == pytest.approx(1.5)
    assert found[("turnbench_time_to_generate_seconds_count", "chat")] == 1


def test_gauges_say_how_the_run_stands() -> None:
    found = samples(
        [], people=2, in_flight=1, measured=True, client=LiveClient(clock="wire", lag_ms=4, workers=1)
    )
    assert found[("turnbench_client_lag_seconds",)] == 0.004
    assert found[("turnbench_client_clock_info", "wire")] == 1
    assert found[("turnbench_measuring",)] == 1
    assert found[("turnbench_level_people",)] == 2
    assert found[("turnbench_findings", "suspect")] == 1
    assert found[("turnbench_run_info", "true", "m", "r", "chat")] == 1
    assert ("turnbench_client_cpu_ratio",) not in found


def test_tasks_without_end_make_no_series_without_end() -> None:
    found = samples([turn(k, 120, 100, 1000, task=f"t{k}") for k in range(_prometheus.TASKS_MAX + 7)])
    counted = {key: value for key, value in found.items() if key[0] == "turnbench_turns_total"}
    assert len(counted) == _prometheus.TASKS_MAX + 1
    assert counted[("turnbench_turns_total", "ok", _prometheus.OTHER_TASKS)] == 7


@pytest.mark.slow
def test_a_port_that_is_taken_ends_with_exit_2_before_anything_is_asked() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        asked = ["run", "-H", "http://127.0.0.1:9", "--model", "m", "--metrics-port", port]
        said = subprocess.run([sys.executable, "-m", "turnbench", *asked], capture_output=True, text=True)
    assert said.returncode == 2
    assert said.stderr.splitlines()[-1].startswith(f"turnbench: --metrics-port 127.0.0.1:{port}: ")

"""The file of faults: what it means, and every mistake in it told at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.emulator.fault_plan import FAULTS, FaultFileProblems, FaultPlan, read_faults


def plan_of(tmp_path: Path, text: str) -> FaultPlan:
    file = tmp_path / "faults.yaml"
    file.write_text("format: turnbench-faults/1\n" + text)
    return read_faults(file)


def mistakes(tmp_path: Path, text: str) -> list[str]:
    with pytest.raises(FaultFileProblems) as caught:
        plan_of(tmp_path, text)
    return str(caught.value).splitlines()


def test_requests_are_chosen_by_number_range_list_and_step(tmp_path: Path) -> None:
    plan = plan_of(
        tmp_path,
        "faults:\n- {fault: html, requests: [2, 5-6]}\n"
        "- {fault: empty, every: 4}\n- {fault: cr, requests: 8}\n",
    )
    kinds = [fault.fault if (fault := plan.fault(number)) else None for number in range(1, 9)]
    assert kinds == [None, "html", None, "empty", "html", "html", None, "empty"]


@given(st.integers(0, 2**32), st.floats(0.05, 0.95))
def test_a_rate_is_met_and_the_same_every_time(seed: int, rate: float) -> None:
    faults = [{"fault": "html", "rate": rate}]
    plan = FaultPlan.model_validate({"format": "turnbench-faults/1", "seed": seed, "faults": faults})
    chosen = [number for number in range(2000) if plan.fault(number)]
    assert chosen == [number for number in range(2000) if plan.fault(number)]
    assert abs(len(chosen) / 2000 - rate) < 0.07


def test_settings_are_read_with_their_units(tmp_path: Path) -> None:
    plan = plan_of(
        tmp_path,
        "close_idle: 5s\nfaults:\n"
        "- {fault: freeze, rate: 1, for: 250ms}\n- {fault: drip, every: 1, gap: 2}\n",
    )
    assert plan.close_idle_ns == 5_000_000_000
    assert plan.faults[0].for_ns == 250_000_000
    assert plan.faults[1].gap_ns == 2_000_000_000


@pytest.mark.parametrize("kind", FAULTS)
def test_every_fault_can_be_asked_for_by_its_name_alone(tmp_path: Path, kind: str) -> None:
    plan = plan_of(tmp_path, f"faults: [{{fault: {kind}, rate: 1}}]\n")
    fault = plan.fault(1)
    assert fault is not None
    assert fault.fault == kind


def test_all_mistakes_are_told_with_their_lines(tmp_path: Path) -> None:
    told = mistakes(
        tmp_path,
        "closeidle: 5s\n"
        "faults:\n"
        "- {fault: rezet, requests: 1}\n"
        "- {fault: status, status: 777, rate: 2}\n"
        "- {fault: hang}\n"
        "- {fault: cr, requests: 9-3, bytes: 4}\n",
    )
    assert [line.split(":")[1] for line in told] == ["2", "4", "5", "5", "6", "7", "7"]
    text = "\n".join(told)
    assert "did you mean 'close_idle'?" in text
    assert "did you mean 'reset'?" in text
    assert "'status' is '777'; it must be at most 599" in text
    assert "'rate' is '2'; it must be at most 1" in text
    assert "hang: say when, by one of requests, every, rate" in text


@pytest.mark.parametrize("text", ["", "[]", "format: other/1", "a: &x 1\nb: *x", "a: 1\na: 2", "\t"])
def test_what_is_no_file_of_faults_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "faults.yaml"
    file.write_text(text)
    with pytest.raises(FaultFileProblems, match=r"faults\.yaml"):
        read_faults(file)


@given(st.text(max_size=200))
def test_any_text_gives_a_plan_or_mistakes(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    file = tmp_path_factory.getbasetemp() / "any.yaml"
    file.write_text(f"format: turnbench-faults/1\n{text}", encoding="utf-8", errors="replace")
    try:
        plan: object = read_faults(file)
    except FaultFileProblems as error:
        plan = str(error)
    assert plan


def test_the_emulator_refuses_a_bad_file_with_exit_2(tmp_path: Path) -> None:
    file = tmp_path / "faults.yaml"
    file.write_text("format: turnbench-faults/1\nfaults: [{fault: rezet, requests: 1}]\n")
    command = [sys.executable, "-m", "serve.emulator", "--port", "0", "--faults", str(file)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == 2
    assert "faults.yaml:2: unknown fault 'rezet'; did you mean 'reset'?" in ended.stderr
    assert "Traceback" not in ended.stderr

"""`serve check`: how far the emulator, as it is, is off from runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from serve.__main__ import main
from serve.calibrate.check import EmulatedGpuServer, gpu_of
from serve.calibrate.recorded import RecordedLevel
from serve.calibrate.replay import replay_people
from serve.catalogue import load_catalogue
from serve.emulator.machines import RooflineMachine
from tests.serve.test_calibrate import asked, run_of

CATALOGUE = load_catalogue()
H100 = {"backend": "vllm", "version": "vllm 0.32.0", "precision": "fp16", "gpu": "NVIDIA H100 80GB HBM3"}


def answered_by(model: str, gpu: str, users: int, stretch: float = 1.0) -> RecordedLevel:
    """A level as the emulator has it, all times stretched."""
    machine = RooflineMachine(CATALOGUE.models[model], CATALOGUE.gpus[gpu])
    level = replay_people(asked(users, users), EmulatedGpuServer(machine))
    turns = [
        replace(
            turn, event_ns=tuple(round(turn.sent_ns + (at - turn.sent_ns) * stretch) for at in turn.event_ns)
        )
        for turn in level.turns
    ]
    return replace(level, turns=tuple(turns))


@pytest.mark.parametrize("stretch", [1.0, 1.25])
def test_a_server_slower_than_the_emulator_by_a_quarter_shows_as_one_fifth_too_fast(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], stretch: float
) -> None:
    levels = [answered_by("yi-6b", "h100-80gb", users, stretch) for users in (1, 8)]
    run = run_of(tmp_path / "run", levels, endpoint={"model": "yi-6b"}, server=H100)
    assert main(["check", str(run)]) == 0
    said = capsys.readouterr().out
    rows = [line.split() for line in said.splitlines() if line.lstrip()[:1].isdigit()]
    assert [row[0] for row in rows] == ["1", "8"]
    for row in rows:
        off = [float(cell.rstrip("%")) / 100 for cell in row if cell.endswith("%")]
        assert off[:2] == pytest.approx([1 / stretch - 1] * 2, abs=0.02)
    assert "the emulator has it on h100-80gb" in said
    assert "median error of the emulator: TTFT" in said


@pytest.mark.parametrize(
    ("said", "gpu"),
    [
        ("NVIDIA A100-SXM4-80GB", "a100-80gb"),
        ("NVIDIA A100-PCIE-40GB", "a100-40gb"),
        ("NVIDIA H200", "h200-141gb"),
        ("NVIDIA H100 80GB HBM3, NVIDIA H100 80GB HBM3", "h100-80gb"),
        ("NVIDIA GeForce RTX 4090", "rtx4090-24gb"),
        ("NVIDIA L40S", "l40s-48gb"),
        ("NVIDIA A100", None),
        ("Tesla T4", None),
        ("", None),
    ],
)
def test_a_gpu_is_known_by_what_its_driver_calls_it(said: str, gpu: str | None) -> None:
    found = gpu_of({"gpu": said or None}, CATALOGUE)
    assert (found.name if found else None) == gpu


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"endpoint": {"model": "mine"}, "server": H100}, "of which the catalogue has no facts"),
        ({"endpoint": {"model": "yi-6b"}, "server": {"gpu": "Tesla T4"}}, "say which with --hardware"),
        ({"endpoint": {"model": "yi-6b"}, "server": H100 | {"layers": 2}}, "has 2 layers only"),
    ],
)
def test_a_run_that_no_emulator_is_like_is_refused_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: dict[str, object], words: str
) -> None:
    run = run_of(tmp_path / "run", [answered_by("yi-6b", "h100-80gb", 1)], **more)
    assert main(["check", str(run)]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1


def test_a_level_of_too_few_turns_is_said_and_the_others_are_judged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few, level = (answered_by("yi-6b", "h100-80gb", users) for users in (1, 8))
    levels = [replace(few, turns=few.turns[:3]), level]
    run = run_of(tmp_path / "run", levels, endpoint={"model": "yi-6b"}, server=H100)
    assert main(["check", str(run)]) == 0
    said = capsys.readouterr()
    assert said.err.startswith("serve: run: level 1 has ")
    assert [line.split()[0] for line in said.out.splitlines() if line.lstrip()[:1].isdigit()] == ["8"]

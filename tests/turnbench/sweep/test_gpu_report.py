"""`make gpu-report`, from its command to its file, against emulators."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.verdicts import exit_code_of
from turnbench import exits


def gpu_report(where: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "turnbench.sweep.gpu_report", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=where, timeout=120)


@pytest.mark.slow
def test_one_command_leaves_a_file_with_what_ran_what_was_measured_and_how_far_the_emulator_is_off(
    tmp_path: Path,
) -> None:
    out = tmp_path / "results" / "it.md"
    emulated = ["--backend", "emulator", "--hardware", "h100-80gb", "--model", "yi-6b"]
    done = gpu_report(tmp_path, *emulated, "--levels", "2,8", "--hold", "8s", "--out", str(out))
    sweeps = [next(tmp_path.glob(f"runs/*-{name}/summary.json")) for name in ("gpu-report", "gpu-prefill")]
    # A limit that a machine misses is a result; a run that is not to be trusted is not.
    judged = [code for code in map(exit_code_of, sweeps) if code not in (exits.OK, exits.MISSED)]
    assert done.returncode == (judged[0] if judged else exits.OK), done.stdout + done.stderr
    page = out.read_text()
    assert "# emulated h100-80gb" in page
    assert "EMULATED" in page
    assert "| yi-6b |" in page
    assert "prefill-0100" in page
    assert "prefill-1600" in page
    # The emulator is off from itself by what HTTP and the machine add only.
    checked = page.partition("## How far")[2].splitlines()
    rows = [line.split() for line in checked if line.lstrip()[:1].isdigit()]
    assert {row[0] for row in rows} == {"1", "2", "8"}  # the prompts are asked one at a time
    assert len(rows) == 2 + 4
    tpot_off = [float([cell for cell in row if cell.endswith("%")][1].rstrip("%")) for row in rows]
    assert all(abs(off) < 15 for off in tpot_off), page


def test_what_cannot_be_measured_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    done = gpu_report(tmp_path, "--backend", "emulator", "--model", "no-such-model")
    assert done.returncode == 2
    assert "no-such-model" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []

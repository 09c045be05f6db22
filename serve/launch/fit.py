"""Does it fit? Weights and one whole context against the memory there is, before anything is started."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from serve.catalogue import Model
from serve.launch.command import GIB, GPU_MEMORY_SHARE, Refusal, Request, cpu_cache_gib

WORKING_BYTES = 1e9
"""Activations and buffers beside weights and cache, on each GPU (an ordinary figure, not a measured one)."""
CPU_WORKING_BYTES = 3e9
"""What vLLM, its compiler and its libraries take on a CPU."""
MEMINFO = Path("/proc/meminfo")


def weight_bytes(request: Request, model: Model) -> int:
    """Bytes of the weights that will be loaded, or made up."""
    whole = model.weight_bytes(request.kept_precision)
    if request.layers is None:
        return whole
    tables = 2 * (1 if model.tied_embeddings else 2) * model.vocab * model.hidden
    return tables + (whole - tables) * request.layers // model.layers


def require_fit(request: Request, memories_bytes: list[int]) -> str:
    """What is left for keys and values, as a sentence; raises Refusal when it can't work.

    Says nothing of a model without known facts or a GPU that does not tell its memory.
    """
    model = request.target.model
    wanted = int(_option(request.extra, "--tensor-parallel-size", "-tp") or 1)
    if wanted > len(memories_bytes):
        raise Refusal(
            f"--tensor-parallel-size {wanted} needs {wanted} GPUs, and {len(memories_bytes)} are here"
        )
    memory = min(sorted(memories_bytes)[-wanted:]) * wanted
    if model is None or not memory:
        return ""
    share = float(_option(request.extra, "--gpu-memory-utilization") or GPU_MEMORY_SHARE)
    weights, per_token = weight_bytes(request, model), _kv_bytes(request, model)
    room = int((share * memory - weights - WORKING_BYTES * wanted) // per_token)
    context = _context(request, model)
    needs = f"{weights / 1e9:.1f} GB for its {request.kept_precision.upper()} weights"
    if room <= 0:
        raise Refusal(
            f"{request.target.name} needs {needs}, the GPU has {memory / 1e9:.1f} GB: a smaller model, "
            "PRECISION=int8, or spread it (ARGS='--tensor-parallel-size 2')"
        )
    if room < context:
        raise Refusal(
            f"{request.target.name} leaves room for {room:,} tokens of keys and values beside {needs}, and a "
            f"context of {context:,} is asked for: ARGS='--max-model-len {room // 256 * 256 or room}', "
            "PRECISION=int8, or a larger GPU"
        )
    return f"fits: {needs}, room for {room:,} tokens of keys and values ({room / context:.1f} whole contexts)"


def require_memory(request: Request, environment: Mapping[str, str]) -> None:
    """Raises Refusal if weights and cache do not fit into this machine's free memory (BACKEND=vllm-cpu)."""
    model, free = request.target.model, free_memory_bytes()
    if model is None or free is None:
        return
    own = environment.get("VLLM_CPU_KVCACHE_SPACE", "")
    cache = int(own) if own.isdigit() else cpu_cache_gib(request)
    needed = weight_bytes(request, model) + cache * GIB + CPU_WORKING_BYTES
    if needed > free:
        raise Refusal(
            f"{request.target.name} needs about {needed / 1e9:.1f} GB of memory and {free / 1e9:.1f} GB are "
            "free: end something else, or take a smaller model, or WEIGHTS=dummy LAYERS=2"
        )


def free_memory_bytes() -> int | None:
    """Memory that can be had without swapping; None where the system does not say."""
    try:
        lines = MEMINFO.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return int(found[0]) * 1024 if found else None


def _kv_bytes(request: Request, model: Model) -> int:
    return max(1, model.kv_bytes_per_token * (request.layers or model.layers) // model.layers)


def _context(request: Request, model: Model) -> int:
    return int(_option(request.extra, "--max-model-len") or model.max_positions)


def _option(extra: tuple[str, ...], *names: str) -> str | None:
    """The last value given for an option, if it is a plain number."""
    found = None
    for index, each in enumerate(extra):
        name, _, value = each.partition("=")
        if name in names:
            found = value or (extra[index + 1] if index + 1 < len(extra) else "")
    return found if found and found.replace(".", "", 1).isdigit() else None

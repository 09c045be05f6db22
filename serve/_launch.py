"""What is asked for, and the exact command that gives it: pure, nothing is started here."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from serve.catalogue import Catalogue, Model, nearest

ROOT = Path(__file__).resolve().parent.parent
VENV_PYTHON = ROOT / ".venv-vllm" / "bin" / "python"
TINY_FOLDER = ROOT / "build" / "models" / "tiny"

Backend = Literal["vllm", "vllm-cpu", "emulator"]
BACKENDS: tuple[Backend, ...] = ("vllm", "vllm-cpu", "emulator")

GIB = 2**30
GPU_MEMORY_SHARE = 0.90
"""Share of the GPU's memory that vLLM may fill with weights and the cache of keys and values."""
CPU_CACHE_GIB = 4
"""Cache of keys and values on a CPU for a model that the catalogue does not know."""

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


class Refusal(Exception):
    """What was asked for cannot be done; the text is one line and says what to do instead."""


@dataclass(frozen=True)
class Target:
    """A model to serve: its name in requests, where it is, and what the catalogue knows of it."""

    name: str
    source: str
    """Hugging Face id or folder."""
    model: Model | None


@dataclass(frozen=True)
class Request:
    """What a person asked `python -m serve up` for."""

    target: Target
    backend: Backend
    host: str
    port: int
    hardware: str
    extra: tuple[str, ...] = ()
    """Options handed on to the server; they come last, so they win."""


@dataclass(frozen=True)
class Launch:
    """A command ready to run, with the environment variables it adds."""

    command: tuple[str, ...]
    environment: dict[str, str]

    def as_shell(self) -> str:
        """The same as one line for a shell."""
        assignments = [f"{key}={shlex.quote(value)}" for key, value in self.environment.items()]
        return " ".join([*assignments, shlex.join(self.command)])


def find_target(name: str, catalogue: Catalogue) -> Target:
    """The model of this name; raises Refusal with the nearest names for an unknown one."""
    if model := catalogue.models.get(name):
        return Target(name, model.repo or str(TINY_FOLDER), model)
    folder = Path(name).expanduser()
    if (folder / "config.json").is_file():
        return Target(folder.resolve().name, str(folder.resolve()), None)
    if HUB_ID.fullmatch(name):
        return Target(name, name, None)
    close = nearest(name, catalogue.models) or list(catalogue.models)
    raise Refusal(
        f"unknown model {_printable(name)!r}: did you mean {' or '.join(close)}? "
        "Also accepted: a Hugging Face id (OWNER/NAME) or a folder with a config.json"
    )


def check_hardware(name: str, catalogue: Catalogue) -> str:
    """The GPU's name if it is known; raises Refusal."""
    if name in catalogue.gpus:
        return name
    close = nearest(name, catalogue.gpus) or list(catalogue.gpus)
    raise Refusal(f"unknown hardware {_printable(name)!r}: did you mean {' or '.join(close)}?")


def emulator_launch(request: Request, python: str) -> Launch:
    """The emulator answers for a model of the catalogue; raises Refusal for any other."""
    if request.target.model is None:
        raise Refusal(
            f"the emulator has no facts of {request.target.name!r}: name a model of the catalogue "
            "(python -m serve list)"
        )
    command = [python, "-m", "serve.emulator", "--model", request.target.name, "--host", request.host]
    command += ["--port", str(request.port), "--hardware", request.hardware, *request.extra]
    return Launch(tuple(command), {})


def vllm_launch(request: Request, python: str, environment: Mapping[str, str]) -> Launch:
    """vLLM in FP16 with the whole model in the device's memory, on exactly the address asked for."""
    target, cpu = request.target, request.backend == "vllm-cpu"
    # As a module: the `vllm` command of the CPU package looks for a package of another name.
    command = [python, "-m", "vllm.entrypoints.openai.api_server", "--model", target.source]
    command += ["--served-model-name", target.name, "--host", request.host, "--port", str(request.port)]
    command += ["--dtype", "float16", "--enable-prefix-caching", "--enable-prompt-tokens-details"]
    command += ["--disable-uvicorn-access-log"]
    if target.model is not None:
        command += ["--max-model-len", str(target.model.max_positions)]
    command += _cpu_options() if cpu else _gpu_options()
    if is_tiny(target):
        command += ["--load-format", "dummy"]
    return Launch((*command, *request.extra), _vllm_environment(target, cpu, environment))


def is_tiny(target: Target) -> bool:
    """The project makes this model itself, without weights."""
    return target.model is not None and target.model.repo is None


def _gpu_options() -> list[str]:
    return ["--cpu-offload-gb", "0", "--gpu-memory-utilization", f"{GPU_MEMORY_SHARE:.2f}"]


def _cpu_options() -> list[str]:
    # Compiling doubles the start. The prefix cache shares whole blocks only: the CPU's usual 128 tokens would
    # hide the prefixes of short conversations, and 32 is the smallest that its attention accepts.
    return ["--enforce-eager", "--block-size", "32"]


def _vllm_environment(target: Target, cpu: bool, given: Mapping[str, str]) -> dict[str, str]:
    added = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    if is_tiny(target):
        added["HF_HUB_OFFLINE"] = "1"
    if cpu:
        added["VLLM_CPU_KVCACHE_SPACE"] = given.get("VLLM_CPU_KVCACHE_SPACE") or str(_cpu_cache_gib(target))
    return added


def _cpu_cache_gib(target: Target) -> int:
    """At least one conversation of the longest context must fit."""
    if target.model is None:
        return CPU_CACHE_GIB
    return max(1, -(-target.model.kv_bytes_per_token * target.model.max_positions // GIB))


def split_extra(text: str) -> tuple[str, ...]:
    """Options as a shell would split them; raises Refusal for an open quote or an address of their own."""
    try:
        extra = tuple(shlex.split(text))
    except ValueError as error:
        raise Refusal(f"--args cannot be read ({error}): {_printable(text)}") from None
    if address := next((each for each in extra if each.split("=")[0] in ("--host", "--port")), None):
        raise Refusal(
            f"{_printable(address)} does not belong into --args: give --host and --port (HOST=, PORT=)"
        )
    return extra


def _printable(text: str) -> str:
    return "".join(each if each.isprintable() else "?" for each in text)[:80]


def local_url(request: Request) -> str:
    """Where a client on this machine reaches the server."""
    host = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}.get(request.host, request.host)
    secure = any(each.startswith(("--ssl-certfile", "--tls-cert")) for each in request.extra)
    return f"{'https' if secure else 'http'}://{f'[{host}]' if ':' in host else host}:{request.port}"

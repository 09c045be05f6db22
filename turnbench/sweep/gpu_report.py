"""`python -m turnbench.sweep.gpu_report`: from nothing to a file of results for a machine with a GPU.

Two sweeps, `gpu-report` (exact answers at growing loads) and `gpu-prefill` (growing prompts, one at a time),
then one Markdown file: what ran, what was measured, and how far the emulator would have been off. Power is
recorded where NVML says it.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from turnbench import exits
from turnbench.command_line import CommandParser
from turnbench.formats import BACKENDS, PRECISIONS
from turnbench.formats.server import RecordedServer
from turnbench.names import slug
from turnbench.places import CHECKOUT
from turnbench.run_directory import RunError, read_run
from turnbench.sweep.plan import Overrides, PlanError, SweepPlan, overridden, read_plan
from turnbench.sweep.play import run_sweep

LEVELS, PREFILL = "gpu-report", "gpu-prefill"
TITLES = {
    LEVELS: "Loads: every answer has the same number of tokens",
    PREFILL: "Prompts: one at a time, by their length",
}


def command_parser(prog: str) -> CommandParser:
    """What is served, on what, and where the result goes."""
    parser = CommandParser(
        prog=prog,
        description="Measure models on this machine's GPU and write one file of results.",
        example=f"{prog} --model yi-6b --weights real",
    )
    add = parser.add_argument
    add("--model", action="append", dest="models", metavar="NAME",
        help="may be given again (default: the study's five)")  # fmt: skip
    add("--backend", choices=BACKENDS, metavar="NAME", help="default vllm")
    add("--hardware", metavar="GPU", help="of the catalogue (default: as the driver calls it)")
    add("--precision", choices=PRECISIONS, default="fp16", metavar="NAME", help="default fp16")
    add("--weights", choices=("real", "dummy"), help="default dummy: random ones, nothing is downloaded")
    add("--levels", metavar="LIST", help="default 1,8,32,128,256")
    add("--hold", metavar="TIME", help="how long each level is measured (default 30s)")
    add("--out", type=Path, metavar="FILE", help="default: docs/results/GPU-DATE.md")
    return parser


def main(arguments: list[str] | None = None, prog: str = "python -m turnbench.sweep.gpu_report") -> int:
    """Play both sweeps, write the file; 2 for what cannot be done as asked, else as the sweeps ended."""
    given = command_parser(prog).parse_args(arguments)
    try:
        plans = [_plan(name, given) for name in (LEVELS, PREFILL)]
        with _gpu_metrics(plans[0].backend) as metrics:
            more = {} if metrics is None else {"gpu-metrics": metrics}
            began, codes = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}", []
            folders = {plan.name: Path("runs") / f"{began}-{plan.name}" for plan in plans}
            for plan in plans:
                asked = plan.model_copy(update={"run": plan.run | more})
                codes.append(run_sweep(asked, str(folders[plan.name])))
                if codes[-1] in exits.OF_SIGNAL.values():
                    return codes[-1]
    except PlanError as error:
        print("\n".join(f"turnbench: {problem}" for problem in error.problems), file=sys.stderr)
        return exits.BAD_CONFIGURATION
    servers = [facts for folder in folders.values() for facts in _servers(folder)]
    out = given.out or _default_file(servers)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(_page(folders, servers, given.hardware), encoding="utf-8")
    print(f"Result file: {out}")
    # A limit of the scenario's that this machine misses is a result, not a failure.
    return next((code for code in codes if code not in (exits.OK, exits.MISSED)), exits.OK)


def _plan(name: str, given: argparse.Namespace) -> SweepPlan:
    changes = Overrides(
        models=given.models,
        backend=given.backend,
        hardware=given.hardware,
        precisions=[given.precision],
        weights="real" if given.backend == "emulator" else given.weights,
    )
    plan, _ = overridden(read_plan(name), changes)
    options = {
        key: getattr(given, key) for key in ("levels", "hold") if name == LEVELS and getattr(given, key)
    }
    return plan.model_copy(update={"run": plan.run | options})


@contextmanager
def _gpu_metrics(backend: str) -> Iterator[str | None]:
    """The URL of what this machine's GPUs draw; None where nobody says it."""
    if backend != "vllm":
        yield None
        return
    command = [sys.executable, "-P", "-m", "serve", "gpu-metrics", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as exporter:
        try:
            assert exporter.stdout is not None
            line = exporter.stdout.readline()
            yield line.split()[1] if line.startswith("ready: ") else None
        finally:
            exporter.terminate()


def _runs(folder: Path) -> list[Path]:
    return sorted(each.parent for each in folder.glob("*/run.json"))


def _servers(folder: Path) -> list[RecordedServer]:
    """What each run says of its server; a run that cannot be read says nothing."""
    found = []
    for run in _runs(folder):
        try:
            found.append(read_run(run).manifest.server)
        except RunError:
            continue
    return found


def _machine_of(server: RecordedServer) -> str:
    """`NVIDIA H200`, `emulated a100-40gb`, or the backend where no GPU is named."""
    if server.get("emulated") or server.get("backend") == "emulator":
        return f"emulated {server.get('hardware')}"
    return str(server.get("gpu") or server.get("backend") or "unknown server")


def _default_file(servers: list[RecordedServer]) -> Path:
    machine = _machine_of(servers[0]) if servers else "nothing"
    folder = CHECKOUT / "docs" / "results" if CHECKOUT else Path()
    return folder / f"{slug(machine)}-{datetime.now(UTC):%Y-%m-%d}.md"


def _page(folders: dict[str, Path], servers: list[RecordedServer], hardware: str | None) -> str:
    machines = ", ".join(dict.fromkeys(map(_machine_of, servers))) or "no server"
    lines = [f"# {machines}, {datetime.now(UTC):%Y-%m-%d}", ""]
    lines += ["Written by `make gpu-report`; docs/serve.md says what it plays.", ""]
    lines += ["| model | server | precision | weights | GPU | driver |", "|---|---|---|---|---|---|"]
    columns = ("model", "version", "precision", "weights", "gpu", "driver")
    lines += dict.fromkeys(
        f"| {' | '.join(_cell(server.get(key)) for key in columns)} |" for server in servers
    )
    for name, folder in folders.items():
        lines += ["", f"## {TITLES[name]}", "", _measured(folder)]
    lines += ["", "## How far the emulator is off", ""]
    lines += [_checked([run for folder in folders.values() for run in _runs(folder)], hardware)]
    return "\n".join(lines).rstrip() + "\n"


def _cell(value: object) -> str:
    return " ".join(str(value if value is not None else "-").replace("|", "/").split())


def _measured(folder: Path) -> str:
    """The sweep's tables, as its analysis writes them for a pull request."""
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "tables.md"
        command = [sys.executable, "-P", "-m", "analysis", str(folder), "--markdown", str(file)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if file.is_file():
            return file.read_text(encoding="utf-8").rstrip()
    last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
    return f"No tables: {last}"


def _checked(runs: list[Path], hardware: str | None) -> str:
    """Measured beside emulated, run by run, or why they cannot be compared."""
    command = [sys.executable, "-P", "-m", "serve", "check", *map(str, runs)]
    command += ["--hardware", hardware] if hardware else []
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    refused = dict.fromkeys(f"- {line.removeprefix('serve: ')}" for line in done.stderr.splitlines())
    return "\n".join([*(["```", done.stdout.rstrip(), "```"] if done.stdout else []), *refused])


if __name__ == "__main__":
    sys.exit(main())

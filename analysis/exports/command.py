"""`turnbench export RUN --to FORM`: a run's results for another tool."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from analysis.exports.guidellm import write_guidellm
from analysis.exports.otlp import DEFAULT_ENDPOINT, send
from analysis.exports.result import ExportError, RunResult
from analysis.exports.trackers import send_to_mlflow, send_to_wandb
from analysis.exports.turns_csv import write_turns_csv
from analysis.exports.vllm_bench import write_vllm
from turnbench import exits
from turnbench.cleaning import printable
from turnbench.command_line import CommandParser, collector_url
from turnbench.run_directory import RunError

FILES: dict[str, Callable[[RunResult, Path], list[Path]]] = {
    "vllm": write_vllm,
    "guidellm": write_guidellm,
    "csv": write_turns_csv,
}
SERVICES: dict[str, Callable[[RunResult], list[str]]] = {"mlflow": send_to_mlflow, "wandb": send_to_wandb}


def command_parser(prog: str) -> CommandParser:
    """The options of this command."""
    what = (
        "Write a run's results as another tool has them, or send them there:\n"
        "  vllm      JSON of vllm bench serve --save-detailed, a file a load\n"
        "  guidellm  benchmarks.json of GuideLLM\n"
        "  csv       one row a turn\n"
        "  otlp      spans and histograms to an OpenTelemetry collector, turnbench[otlp]\n"
        "  mlflow    an MLflow run, turnbench[mlflow]\n"
        "  wandb     a run of Weights & Biases, turnbench[wandb]"
    )
    example = f"{prog} runs/LATEST --to vllm\n  {prog} runs/LATEST --to otlp --endpoint http://collector:4318"
    parser = CommandParser(prog=prog, description=what, example=example)
    parser.add_argument(
        "run", type=Path, metavar="RUN", nargs="+", help="a run directory, such as runs/LATEST"
    )
    parser.add_argument(
        "--to", required=True, choices=(*FILES, "otlp", *SERVICES), metavar="FORM", help="which of these"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="where files go (into the run directory)")
    parser.add_argument("--endpoint", metavar="URL", help=f"of the collector, for otlp ({DEFAULT_ENDPOINT})")
    return parser


def main(arguments: list[str], prog: str = "turnbench export") -> int:
    """Export each run; the exit code is one of `turnbench.exits`."""
    parser = command_parser(prog)
    given = parser.parse_args(arguments)
    if given.out and given.to not in FILES:
        parser.error(f"--out is for files; --to {given.to} writes none")
    if given.out and len(given.run) > 1:
        parser.error("--out takes one RUN: the files of several would have the same names")
    if given.endpoint and given.to != "otlp":
        parser.error(f"--endpoint is for --to otlp, not for {given.to}")
    try:
        endpoint = collector_url(given.endpoint or DEFAULT_ENDPOINT)
    except ValueError as error:
        parser.error(f"--endpoint: {error}")
    try:
        for path in given.run:
            for line in _export(RunResult(path), given.to, given.out, endpoint):
                print(printable(line))
    except (RunError, ExportError) as error:
        print(printable(error), file=sys.stderr)
        return exits.BAD_CONFIGURATION
    except OSError as error:
        where = error.filename or given.out or given.run[0]
        print(printable(f"{where}: {error.strerror or error}; check that it can be written"), file=sys.stderr)
        return exits.BAD_CONFIGURATION
    return exits.OK


def _export(run: RunResult, to: str, out: Path | None, endpoint: str) -> Iterable[str]:
    if to == "otlp":
        return send(run, endpoint)
    if to in SERVICES:
        return SERVICES[to](run)
    folder = out or run.study.run.path  # a name that was mistyped must not become a folder
    folder.mkdir(parents=True, exist_ok=True)
    return [str(path) for path in FILES[to](run, folder)]

"""`--to mlflow` and `--to wandb`: a run's settings, its numbers and its files in a tracker of experiments.

A level is a step, so a sweep of loads is a curve there. `ttft_ms/p50` is of all tasks, `TASK/ttft_ms/p50` of
one; of several models `MODEL/ttft_ms/p50` and `MODEL/TASK/ttft_ms/p50` are of one of them. Both trackers are
asked where they are by their own environment variables (MLFLOW_TRACKING_URI, WANDB_MODE, ...).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from analysis.exports.result import ExportError, RunResult, needs
from analysis.measures.cells import ALL
from analysis.tables.export import flat
from turnbench.formats import summary_json

FILES = ("summary.json", "summary.csv", "report.html", "run.json", "turns.parquet")
_PROJECT = "turnbench"
_SHOWN_CHARACTERS = 500


def send_to_mlflow(run: RunResult) -> list[str]:
    """One MLflow run. Raises ExportError."""
    needs("mlflow")
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        mlflow.set_experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME", _PROJECT))
        with mlflow.start_run(run_name=run.name) as there:
            mlflow.log_params(_settings(run))
            mlflow.set_tags(run.facts())
            for level, numbers in numbers_by_level(run):
                mlflow.log_metrics(numbers, step=level)
            for path in _files(run):
                mlflow.log_artifact(str(path))
        return [f"run {there.info.run_id} at {mlflow.get_tracking_uri()}"]
    except MlflowException as error:
        raise ExportError(
            f"MLflow at {mlflow.get_tracking_uri()}: {_one_line(error)}; see MLFLOW_TRACKING_URI"
        ) from None


def send_to_wandb(run: RunResult) -> list[str]:
    """One run of Weights & Biases. Raises ExportError."""
    needs("wandb")
    import wandb

    try:
        with wandb.init(
            project=os.environ.get("WANDB_PROJECT", _PROJECT),
            name=run.name,
            config=_settings(run) | run.facts(),
            settings=wandb.Settings(console="off", silent=True),
        ) as there:
            for level, numbers in numbers_by_level(run):
                there.log(numbers | {"level": level}, step=level)
            kept = wandb.Artifact(re.sub(r"[^\w.-]", "-", run.name), type="turnbench-run")
            for path in _files(run):
                kept.add_file(str(path))
            there.log_artifact(kept)
            where = there.url or there.dir
        return [f"run {there.id} at {where}"]
    except wandb.Error as error:
        raise ExportError(
            f"Weights & Biases: {_one_line(error)}; `wandb login`, or WANDB_MODE=offline"
        ) from None


def _settings(run: RunResult) -> dict[str, str]:
    """What was asked for, as run.json has it: without secrets. Unset options are left out."""
    manifest = run.study.manifest
    known = flat(manifest.settings) | {
        "server_" + key: value for key, value in flat(dict(manifest.server)).items()
    }
    return {
        _name(key): str(value)[:_SHOWN_CHARACTERS]
        for key, value in known.items()
        if value not in (None, "", [], {})
    }


def numbers_by_level(run: RunResult) -> Iterator[tuple[int, dict[str, float]]]:
    """The numbers of every level, each known one by its name."""
    summary = summary_json(run.summary)
    rates = {level["index"]: level for level in summary["levels"]}
    several = any(cell["model"] == ALL for cell in summary["cells"])
    for level in sorted(rates):
        numbers: dict[str, float] = {}
        for cell in summary["cells"]:
            if cell["level"] == level:
                names = [cell["model"]] * several + [cell["task"]]
                before = "".join(f"{_name(name)}/" for name in names if name != ALL)
                numbers |= {before + key: value for key, value in _numbers(cell)}
        for key in ("users", "arrival_rate_per_s", "streams_mean", "window_s"):
            if rates[level][key] is not None:
                numbers[key] = float(rates[level][key])
        yield level, numbers


def _numbers(cell: dict[str, Any]) -> Iterator[tuple[str, float]]:
    for key, value in cell.items():
        if isinstance(value, dict) and "p50" in value:
            shown = ("mean", "p50", "p90", "p95", "p99", "max")
            yield from ((f"{key}/{each}", float(value[each])) for each in shown if value[each] is not None)
        elif isinstance(value, int | float) and not isinstance(value, bool) and key != "level":
            yield key, float(value)


def _files(run: RunResult) -> list[Path]:
    return [path for name in FILES if (path := run.path / name).is_file()]


def _name(text: str) -> str:
    """As trackers take names: anything but letters, digits, `_`, `-` and `.` becomes `_`."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", text)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]

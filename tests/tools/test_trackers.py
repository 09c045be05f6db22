"""A run in MLflow's own server, and in a file of Weights & Biases."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.analysis.conftest import MadeRun, level, turn

pytestmark = pytest.mark.tools


@pytest.fixture
def run(tmp_path: Path) -> Path:
    made = MadeRun(tmp_path / "made-run")
    made.levels = [level(0), level(1, start_s=80, window_s=(85, 145), end_s=150)]
    made.turns = [
        turn(n, sent_s=6 + n / 2, ttft_ms=100, task="ask/me" if n % 2 else "chat") for n in range(60)
    ]
    made.turns += [turn(100 + n, sent_s=86 + n / 2, ttft_ms=200) for n in range(60)]
    made.manifest = {"labels": {"gpu": "a100"}, "emulated": True}
    return made.write()


def export(run: Path, to: str, *more: str, **environment: str) -> subprocess.CompletedProcess[str]:
    subprocess.run([sys.executable, "-m", "analysis", str(run)], check=True, capture_output=True)
    command = [sys.executable, "-m", "turnbench", "export", str(run), "--to", to, *more]
    return subprocess.run(
        command, capture_output=True, text=True, env=os.environ | environment, cwd=run.parent
    )


def asked(url: str, **words: Any) -> Any:
    request = urllib.request.Request(url, json.dumps(words).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


def test_mlflow_keeps_settings_numbers_by_level_and_files(run: Path, mlflow_server: str) -> None:
    said = export(run, "mlflow", MLFLOW_TRACKING_URI=mlflow_server)
    assert said.returncode == 0, said.stderr
    api = f"{mlflow_server}/api/2.0/mlflow"
    found = asked(f"{api}/experiments/search", max_results=10, filter="name = 'turnbench'")["experiments"]
    (kept,) = asked(f"{api}/runs/search", experiment_ids=[found[0]["experiment_id"]])["runs"]
    data = kept["data"]
    tags = {each["key"]: each["value"] for each in data["tags"]}
    assert (tags["turnbench_emulated"], tags["label_gpu"]) == ("true", "a100")
    assert {"key": "scenario", "value": "chat"} in data["params"]
    numbers = {each["key"]: (each["value"], each["step"]) for each in data["metrics"]}
    assert numbers["ttft_ms/p50"] == (200.0, 1)
    assert numbers["ask_me/ttft_ms/p50"] == (100.0, 0)
    url = f"{api}/artifacts/list?run_id={kept['info']['run_id']}"
    with urllib.request.urlopen(url, timeout=10) as answer:
        files = {each["path"] for each in json.load(answer)["files"]}
    assert {"summary.json", "report.html", "turns.parquet", "run.json"} <= files


def test_mlflows_server_takes_the_spans(run: Path, mlflow_server: str) -> None:
    """It speaks OTLP for spans, and no metrics."""
    experiment = asked(f"{mlflow_server}/api/2.0/mlflow/experiments/create", name="spans")["experiment_id"]
    said = export(
        run,
        "otlp",
        "--endpoint",
        mlflow_server,
        OTEL_EXPORTER_OTLP_TIMEOUT="60",
        OTEL_EXPORTER_OTLP_HEADERS=f"x-mlflow-experiment-id={experiment}",
    )
    assert "240 spans" in said.stdout
    assert "/v1/metrics: the collector took no metrics" in said.stderr
    found = asked(
        f"{mlflow_server}/api/3.0/mlflow/traces/search",
        locations=[{"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": experiment}}],
        max_results=500,
    )
    assert len(found["traces"]) == 120


def test_wandb_offline_keeps_a_run(run: Path) -> None:
    said = export(run, "wandb", WANDB_MODE="offline")
    assert said.returncode == 0, said.stderr
    (kept,) = (run.parent / "wandb").glob("offline-run-*/run-*.wandb")
    written = kept.read_bytes()
    for expected in (b"ttft_ms/p50", b"turnbench_emulated", b"made-run", b"label_gpu"):
        assert expected in written


def test_a_tracker_that_is_not_there_is_one_line(run: Path) -> None:
    said = export(
        run, "mlflow", MLFLOW_TRACKING_URI="http://127.0.0.1:9", MLFLOW_HTTP_REQUEST_MAX_RETRIES="0"
    )
    assert said.returncode == 2
    assert said.stderr.splitlines()[-1].startswith("MLflow at http://127.0.0.1:9: ")
    assert "Traceback" not in said.stderr

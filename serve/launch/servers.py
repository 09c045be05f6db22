"""The servers of this machine: how a launcher describes its own, which ones run, and how to stop them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

import psutil

from serve.emulator import VERSION
from serve.emulator.answers import read_lengths
from serve.emulator.calibration import read_calibration
from serve.launch.checks import vllm_versions
from serve.launch.command import LaunchRequest, ServerCommand
from serve.launch.run import GRACE_S, is_healthy
from turnbench.formats.server import ServerFacts
from turnbench.server_facts import running_servers

SECRET_OPTIONS = ("--api-key", "--hf-token")

Say = Callable[[str], None]


def describe_server(
    request: LaunchRequest, command: ServerCommand, environment: Mapping[str, str]
) -> ServerFacts:
    """Everything that a report should say of the server, free of secrets."""
    emulated = request.backend == "emulator"
    version, hardware, lengths = VERSION, None, None
    if emulated:
        # It plays a GPU's data sheet, or a server that was measured.
        measured = request.calibration
        hardware = request.hardware if measured is None else f"as measured: {measured}"
        lengths = read_lengths().source
        if measured is not None and (facts := read_calibration(Path(measured))).answer_lengths:
            lengths = f"as in the run {facts.run}"
    else:
        package = "transformers" if request.backend == "transformers" else "vllm"
        found = vllm_versions(command.command[0]).items()
        version = " ".join(f"{name} {number}" for name, number in found if name.startswith(package))
    gpu, driver = ("", "") if request.backend != "vllm" else gpu_and_driver(environment)
    return ServerFacts(
        url=request.url,
        model=request.target.name,
        served_name=request.source if request.backend == "transformers" else request.target.name,
        source=None if emulated else request.source,
        backend=request.backend,
        version=version,
        arguments=_without_secrets(command.arguments),
        precision=request.kept_precision,
        weights="none" if emulated else ("dummy" if request.dummy else "real"),
        layers=request.layers,
        hardware=hardware,
        gpu=gpu or None,
        driver=driver or None,
        emulated=emulated,
        answer_lengths=lengths,
        port=request.port,
        pid=os.getpid(),
        pid_started_s=psutil.Process().create_time(),
        started_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def gpu_and_driver(environment: Mapping[str, str]) -> tuple[str, str]:
    """Names of the GPUs and the driver's version; empty where nvidia-smi doesn't say."""
    tool = shutil.which("nvidia-smi", path=environment.get("PATH"))
    if tool is None:
        return "", ""
    query = [tool, "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return "", ""
    rows = [line.rsplit(",", 1) for line in answer.stdout.splitlines() if "," in line]
    if answer.returncode != 0 or not rows:
        return "", ""
    return ", ".join(row[0].strip() for row in rows), rows[0][1].strip()


def _without_secrets(command: tuple[str, ...]) -> list[str]:
    kept: list[str] = []
    for each in command:
        name, has_value, _ = each.partition("=")
        if kept and kept[-1] in SECRET_OPTIONS:
            kept.append("***")
        elif name in SECRET_OPTIONS and has_value:
            kept.append(f"{name}=***")
        else:
            kept.append(each)
    return kept


def show_status(say: Say) -> int:
    """Print one line a server; the exit code."""
    running = running_servers()
    for facts in running:
        health = "healthy" if is_healthy(facts.url) else "does not answer"
        what = f"EMULATED {facts.hardware}" if facts.emulated else facts.gpu or facts.backend
        weights = ", random weights" if facts.weights == "dummy" else ""
        print(f"{facts.url}  {facts.model}  {facts.precision}{weights}  {what}  {health}")
    if not running:
        say("no server runs here")
    return 0


def stop_servers(port: int | None, say: Say) -> int:
    """Stop all of them, or the one on a port, and wait for their ends; the exit code."""
    running = [each for each in running_servers() if port in (None, each.port)]
    if not running:
        say("no server runs here" + (f" on port {port}" if port else ""))
        return 0
    for facts in running:
        os.kill(facts.pid, signal.SIGTERM)
    ports, ends_at = {facts.port for facts in running}, time.monotonic() + GRACE_S + 10
    while left := [each for each in running_servers() if each.port in ports]:
        if time.monotonic() > ends_at:
            say(f"still there: {', '.join(each.url for each in left)}")
            return 1
        time.sleep(0.05)
    say(f"stopped {', '.join(facts.model + ' at ' + facts.url for facts in running)}")
    return 0

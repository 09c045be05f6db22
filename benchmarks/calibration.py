"""Does the emulator, fitted to two levels of a real server, predict the others?

    python -m benchmarks.calibration [--hold 30] [--keep DIR]
    python -m benchmarks.calibration --model tiny --precision fp16 --scenario chat --levels 1,2,4,8,16,32

A real vLLM serves a small trained model on one core, Locust and its engine play the study's tasks and chat
from the other at 1 to 16 people, and `python -m serve calibrate` fits the emulator to levels 1 and 8, takes
the lengths of the answers and predicts the rest. Four minutes; the first time it also installs vLLM for CPUs
(3.5 GB) and fetches the model. Exit 1 if a median error is above the aim.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

FITTED = "1,8"
MOST_ERROR = 0.15
SERVER_CORE, CLIENT_CORE = "0", "1"


@contextmanager
def real_vllm(model: str, precision: str) -> Iterator[str]:
    """The URL of a real vLLM on the server's core."""
    command = ["taskset", "-c", SERVER_CORE, sys.executable, "-m", "serve", "up", model]
    command += ["--precision", precision]
    with subprocess.Popen(
        [*command, "--backend", "vllm-cpu", "--port", "0"], stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stdout is not None
            line = server.stdout.readline()
            if not line.startswith("ready: "):
                raise SystemExit("vLLM did not start; its launcher said why")
            yield line.split()[1]
        finally:
            server.send_signal(signal.SIGTERM)


def play(url: str, options: argparse.Namespace, where: Path) -> None:
    """One run of all levels, on the client's core."""
    done = subprocess.run(
        ["taskset", "-c", CLIENT_CORE, sys.executable, "-m", "locust", "-f", "loadgen/", "--headless"]
        + ["-H", url, "--scenario", options.scenario, "--levels", options.levels]
        + ["--hold", f"{options.hold:g}s"]
        + ["--run-dir", str(where)],
        check=False,
        capture_output=True,
        text=True,
    )
    # 1 and 3 are about limits and about how late a busy machine's client was; the table tells either.
    if done.returncode not in (0, 1, 3) or not (where / "turns-0.jsonl").exists():
        raise SystemExit(f"the run failed (exit code {done.returncode}):\n{done.stdout}{done.stderr}")


def missed(calibration: Path) -> list[str]:
    """The figures whose median error is above the aim."""
    told = yaml.safe_load(calibration.read_text(encoding="utf-8"))
    names = {"ttft_error": "TTFT", "tpot_error": "TPOT", "tps_error": "aggregate TPS"}
    return [
        f"{name} is off by {told[key]:.1%}, and at most {MOST_ERROR:.0%} was aimed at"
        for key, name in names.items()
        if told[key] > MOST_ERROR
    ]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="smollm2-135m", help="default smollm2-135m")
    parser.add_argument("--precision", default="bf16", help="default bf16")
    parser.add_argument("--scenario", default="demo-real", help="default demo-real")
    parser.add_argument("--levels", default="1,2,4,8,16", help="default 1,2,4,8,16; 1 and 8 are fitted")
    parser.add_argument("--hold", type=float, default=30.0, help="seconds that each level is measured")
    parser.add_argument("--keep", type=Path, help="keep the run and its calibration in this new directory")
    options = parser.parse_args()
    # Told to end, it ends what it started first.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with tempfile.TemporaryDirectory() as scratch:
        run = options.keep or Path(scratch) / "run"
        with real_vllm(options.model, options.precision) as url:
            play(url, options, run)
        command = [sys.executable, "-m", "serve", "calibrate", str(run), "--levels", FITTED, "--lengths"]
        subprocess.run(command, check=True)
        broken = missed(run / "calibration.yaml")
    print("\n".join(broken) or f"every median error is within {MOST_ERROR:.0%}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())

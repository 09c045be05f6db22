"""An emulator that takes its times from a calibration, really started, and what it refuses."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from serve.emulator.calibration import Calibration, write_calibration
from tests.official import openai

SLOW = Calibration(
    model="tiny",
    server="made",
    run="made",
    levels=[1],
    step_ms=30.0,
    sequence_ms=0.0,
    prompt_token_ms=0.0,
    context_token_us=0.0,
    frontend_ms=100.0,
    kv_tokens=4096,
    max_num_seqs=8,
    max_batched_tokens=512,
)


def written(folder: Path, **changed: object) -> str:
    file = folder / "calibration.yaml"
    write_calibration(SLOW.model_copy(update=changed), file)
    return str(file)


@contextmanager
def emulator(model: str, file: str) -> Iterator[str]:
    up = [sys.executable, "-m", "serve", "up", model, "--backend", "emulator", "--port", "0"]
    with subprocess.Popen([*up, "--calibration", file], stdout=subprocess.PIPE, text=True) as launcher:
        assert launcher.stdout is not None
        try:
            yield launcher.stdout.readline().removeprefix("ready: ").strip()
        finally:
            launcher.send_signal(signal.SIGTERM)


def refusal(*arguments: str) -> str:
    up = [sys.executable, "-m", "serve", "up", *arguments, "--port", "0"]
    done = subprocess.run(up, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 2
    assert done.stdout == ""
    return done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("model", ["tiny", "someone/else"])
def test_a_calibrated_emulator_is_never_faster_than_its_file(tmp_path: Path, model: str) -> None:
    with (
        emulator(model, written(tmp_path, model=model)) as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client,
    ):
        begun = time.monotonic()
        stream = client.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": "Why?"}],
            max_tokens=11,
            extra_body={"ignore_eos": True},
            stream=True,
        )
        came_s = [time.monotonic() - begun for chunk in stream if chunk.choices[0].delta.content]
    assert len(came_s) == 11
    # The front end's 100 ms and a step of 30 ms, then ten steps more; a busy machine only adds to them.
    assert came_s[0] >= 0.130
    assert came_s[-1] >= 0.430


def test_the_description_and_the_status_say_what_was_measured(tmp_path: Path) -> None:
    file = written(tmp_path)
    with emulator("tiny", file) as url:
        status = [sys.executable, "-m", "serve", "status"]
        told = subprocess.run(status, capture_output=True, text=True, check=True, timeout=30).stdout
        root = Path(__file__).parents[2]
        facts = json.loads((root / ".serve" / f"{url.rsplit(':', 1)[1]}.json").read_text())
    assert f"{url}  tiny  fp16  EMULATED as measured: {file}  healthy" in told
    assert (facts["emulated"], facts["hardware"]) == (True, f"as measured: {file}")
    assert facts["answer_lengths"] == "assumed"


def test_the_description_says_from_which_run_lengths_are(tmp_path: Path) -> None:
    with emulator("tiny", written(tmp_path, answer_lengths={"chat": [20.0, 0.5]})) as url:
        root = Path(__file__).parents[2]
        facts = json.loads((root / ".serve" / f"{url.rsplit(':', 1)[1]}.json").read_text())
    assert facts["answer_lengths"] == "as in the run made"


def test_a_file_of_another_model_is_refused(tmp_path: Path) -> None:
    said = refusal("yi-6b", "--backend", "emulator", "--calibration", written(tmp_path))
    assert "is of tiny, not of yi-6b" in said


def test_a_file_that_is_no_calibration_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("step_ms: fast\n")
    said = refusal("tiny", "--backend", "emulator", "--calibration", str(tmp_path / "x.yaml"))
    assert f"{tmp_path / 'x.yaml'}:1: " in said
    assert "Traceback" not in said


def test_a_real_server_takes_no_calibration(tmp_path: Path) -> None:
    said = refusal("tiny", "--backend", "vllm-cpu", "--calibration", written(tmp_path))
    assert "a real server takes its own time" in said
    assert said.count("\n") == 1

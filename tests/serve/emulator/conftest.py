"""A real emulator process on a free port, and a client that knows nothing of it but HTTP."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest


@dataclass
class Answered:
    """What came back: `events` are the data lines of a stream, `arrived_ns` their arrival (epoch)."""

    status: int
    headers: dict[str, str]
    body: bytes
    events: list[str] = field(default_factory=list)
    arrived_ns: list[int] = field(default_factory=list)

    def json(self) -> Any:
        return json.loads(self.body)

    def chunks(self) -> list[Any]:
        return [json.loads(event) for event in self.events if event != "[DONE]"]

    def content_arrivals_ns(self) -> list[int]:
        pairs = zip(self.events, self.arrived_ns, strict=True)
        return [at for event, at in pairs if event != "[DONE]" and content_of(json.loads(event))]


def content_of(chunk: Any) -> str:
    if not chunk["choices"]:
        return ""
    choice = chunk["choices"][0]
    return str(choice["delta"]["content"] if "delta" in choice else choice["text"])


@dataclass
class Emulator:
    process: subprocess.Popen[str]
    port: int
    url: str
    truth_file: Path

    def ask(
        self, path: str = "/v1/chat/completions", body: Any = None, method: str = "POST", **headers: str
    ) -> Answered:
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)) as connection:
            payload = body if isinstance(body, bytes | None) else json.dumps(body).encode()
            connection.request(method, path, payload, {k.replace("_", "-"): v for k, v in headers.items()})
            return read(connection.getresponse())

    def get(self, path: str, **headers: str) -> Answered:
        return self.ask(path, method="GET", **headers)

    def metric(self, name: str) -> float:
        lines = self.get("/metrics").body.decode().splitlines()
        return next(float(line.split()[-1]) for line in lines if line.startswith(f"vllm:{name}{{"))

    def wait_for_metric(self, name: str, value: float) -> None:
        deadline = time.monotonic() + 10
        while self.metric(name) != value:
            assert time.monotonic() < deadline, f"{name} never became {value}"

    def stop(self) -> tuple[int, str, str]:
        """Exit code, standard output (after the ready line) and standard error."""
        self.process.terminate()
        out, err = self.process.communicate(timeout=10)
        return self.process.returncode, out, err

    def truth(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.truth_file.read_text().splitlines()]


def read(response: http.client.HTTPResponse) -> Answered:
    headers = {name.lower(): value for name, value in response.getheaders()}
    answered = Answered(response.status, headers, b"")
    for line in response:
        answered.body += line
        if line.startswith(b"data: "):
            answered.events.append(line[6:].decode().rstrip())
            answered.arrived_ns.append(time.time_ns())
    return answered


Start = Callable[..., Emulator]


@pytest.fixture(scope="session")
def start_emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Starts emulators with the given options; all are killed at the end."""
    started: list[subprocess.Popen[str]] = []

    def start(*options: str) -> Emulator:
        truth_file = tmp_path_factory.mktemp("truth") / "truth.jsonl"
        command = [sys.executable, "-W", "error", "-m", "serve.emulator", "--port", "0"]
        process = subprocess.Popen(
            [*command, "--truth", str(truth_file), *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("ready: "), process.communicate(timeout=10)
        url = line.removeprefix("ready: ").strip()
        return Emulator(process, int(url.rsplit(":", 1)[1]), url, truth_file)

    yield start
    for process in started:
        process.kill()
        process.communicate(timeout=10)


@pytest.fixture(scope="session")
def fixed(start_emulator: Start) -> Emulator:
    """A fixed schedule quick enough for tests of what is said rather than when."""
    return start_emulator("--schedule", "fixed", "--ttft", "5ms", "--itl", "1ms")


@pytest.fixture(scope="session")
def roofline(start_emulator: Start) -> Emulator:
    return start_emulator("--model", "yi-6b", "--hardware", "h200-141gb")


def chat(text: str = "hello", **more: Any) -> dict[str, Any]:
    return {"model": "yi-6b", "messages": [{"role": "user", "content": text}], **more}


@pytest.fixture(scope="session")
def make_chat() -> Callable[..., dict[str, Any]]:
    """The body of a chat request with one user message."""
    return chat


@pytest.fixture(scope="session")
def chunk_text() -> Callable[[Any], str]:
    """The text in one chunk of a stream."""
    return content_of

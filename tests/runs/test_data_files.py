"""Files of people's own on real processes: what is on the wire, what is noted, and what is refused before."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}
CALL = {"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
EVENTS = [
    {"choices": [{"index": 0, "delta": {"content": "Yes."}}]},
    {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
    {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 1}},
]


class Listener(ThreadingHTTPServer):
    """Answers everything alike and keeps the bodies."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.bodies: list[dict[str, Any]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        found = self.path == "/v1/models"
        self._say(200 if found else 404, "application/json", json.dumps({"data": [{"id": "m"}]}))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert isinstance(self.server, Listener)
        if body.get("stream") and "messages" in body:
            self.server.bodies.append(body)
        said = "".join(f"data: {json.dumps(event)}\n\n" for event in EVENTS) + "data: [DONE]\n\n"
        self._say(200, "text/event-stream", said)

    def _say(self, status: int, kind: str, text: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def listener() -> Iterator[Listener]:
    with Listener() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def chats(tmp_path: Path) -> str:
    """Three conversations and a row that is none."""
    rows: list[Any] = [
        {
            "messages": [
                {"role": "user", "content": "Weather?"},
                {"role": "assistant", "content": None, "tool_calls": [CALL]},
                {"role": "tool", "tool_call_id": "c1", "content": "21"},
            ],
            "tools": [TOOL],
            "parallel_tool_calls": False,
        },
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "What is this?"}, PICTURE]}]},
        {
            "messages": [
                {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "And this?"}]}
            ]
        },
        {"messages": "no list"},
    ]
    path = tmp_path / "chats.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return str(path)


def test_a_file_is_on_the_wire_as_it_says_and_what_is_not_is_noted(
    listener: Listener, locust: Any, chats: str
) -> None:
    load = locust("--headless", "-H", listener.url, "--scenario", chats, "--once", "--skip-bad-rows",
                  "--no-analysis")  # fmt: skip
    assert load.end() == 0, load.said
    weather = [body for body in listener.bodies if "tools" in body]
    assert [body["tools"] for body in weather] == [[TOOL]] * 2
    assert [body["parallel_tool_calls"] for body in weather] == [False] * 2
    assert [message.get("tool_calls") for message in weather[1]["messages"]] == [None, [CALL], None]
    assert weather[1]["messages"][2] == {"role": "tool", "tool_call_id": "c1", "content": "21"}
    contents = [body["messages"][0]["content"] for body in listener.bodies]
    (parts,) = (content for content in contents if isinstance(content, list))
    assert parts[1] == PICTURE
    assert parts[0]["text"].endswith("] What is this?")
    assert any(isinstance(content, str) and content.endswith("] And this?") for content in contents)
    notes = {finding.check: finding.what for finding in load.run().manifest.findings}
    assert notes["bad_rows_skipped"].startswith("1 row of chats.jsonl cannot be played and was skipped: ")
    assert notes["parts_not_sent"].startswith("1 picture of 1 row is not sent")


@pytest.mark.slow
def test_what_a_dialect_cannot_carry_is_refused_before_any_request(
    listener: Listener, locust: Any, chats: str
) -> None:
    load = locust("--headless", "-H", listener.url, "--scenario", chats, "--once", "--skip-bad-rows",
                  "--dialect", "completions")  # fmt: skip
    assert load.end() == 2, load.said
    what = "--dialect completions cannot carry pictures and other parts and tools and their calls; use chat"
    assert what in load.said
    assert listener.bodies == []

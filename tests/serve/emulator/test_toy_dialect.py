"""A dialect is one module: a toy one, made here and registered, is served, streamed and bent by faults."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing

import pytest

TOY = """
import json, sys
from serve.emulator import dialects
from serve.emulator.request import GenerationRequest, bad_value, count_tokens

def event(data):
    body = b"data: " + json.dumps(data).encode() + b"\\n\\n"
    return b"%x\\r\\n%b\\r\\n" % (len(body), body)

class ToyEvents:
    def __init__(self, request, answer):
        self.request, self.answer = request, answer
    def opening(self):
        return event({"kind": "hello"})
    def contents(self, pieces, number):
        return [event({"kind": "word", "word": piece}) for piece in pieces]
    def last(self, piece, tokens):
        return event({"kind": "word", "word": piece}) if piece else b""
    def tail(self, cached_tokens):
        return event({"kind": "bye", "tokens": self.answer.tokens}) + b"0\\r\\n\\r\\n"
    def whole(self, cached_tokens):
        return json.dumps({"words": "".join(self.answer.pieces)}).encode()

class ToyDialect:
    path = "/v1/toy"
    def read(self, body, model):
        asked = json.loads(body)
        if asked["words"] < 1:
            raise bad_value("words must be at least 1.", "words", asked["words"])
        return GenerationRequest(
            prompt=asked["say"], first_message=asked["say"], prompt_tokens=count_tokens(asked["say"]),
            stream=asked["stream"], usage=True, every_usage=False, max_tokens=asked["words"], min_tokens=0,
            ignore_eos=True, stop=(),
        )
    def events(self, request, answer, model, number):
        return ToyEvents(request, answer)
    def text_of(self, event):
        return event.get("word", "")
    def text_event(self, text):
        return {"kind": "word", "word": text}
    def without_text(self, event):
        return None
    def as_reasoning(self, event, key):
        return event
    def error_event(self, error):
        return {"kind": "error", **error}
    def counts_of(self, event):
        return None
    def is_end(self, event):
        return event["kind"] == "bye"

dialects.DIALECTS.append(ToyDialect())
from serve.emulator.__main__ import main
sys.exit(main(sys.argv[1:]))
"""
FAULTS = "format: turnbench-faults/1\nfaults: [{fault: eof, requests: 4, after_events: 2}]\n"


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    folder = tmp_path_factory.mktemp("toy")
    (folder / "toy.py").write_text(TOY)
    (folder / "faults.yaml").write_text(FAULTS)
    quick = ["--port", "0", "--schedule", "fixed", "--ttft", "1ms", "--itl", "1ms"]
    command = [sys.executable, str(folder / "toy.py"), *quick, "--faults", str(folder / "faults.yaml")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline().rsplit(":", 1)[1])
        finally:
            process.terminate()


def ask(port: int, path: str = "/v1/toy", **body: object) -> tuple[int, bytes]:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        connection.request("POST", path, json.dumps(body))
        response = connection.getresponse()
        return response.status, response.read()


def test_a_toy_dialect_is_served_streamed_refused_and_bent(port: int) -> None:
    status, body = ask(port, say="x", words=3, stream=True)
    events = [json.loads(line[6:]) for line in body.split(b"\n\n") if line]
    assert status == 200
    assert [each["kind"] for each in events] == ["hello", "word", "word", "word", "bye"]
    assert json.loads(ask(port, say="x", words=3, stream=False)[1])["words"].strip()
    status, body = ask(port, say="x", words=0, stream=True)
    assert (status, json.loads(body)["error"]["param"]) == (400, "words")
    _, bent = ask(port, say="x", words=9, stream=True)
    assert bent.count(b'"word":') == 2, "the fault counts the toy's own events"
    messages = [{"role": "user", "content": "x"}]
    assert ask(port, "/v1/chat/completions", messages=messages, max_tokens=2)[0] == 200

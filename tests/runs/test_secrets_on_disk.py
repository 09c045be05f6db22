"""A server repeats a key, a password and a token wherever it may say anything: they are found nowhere."""

from __future__ import annotations

import json
import re
import threading
from base64 import b64decode, b64encode, urlsafe_b64encode
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

KEY = "sk_live_9fQz7Lw2Xk"
TOKEN = "tok/en+4711=Grün%hier"
PASSWORD = "hunter2&<correct horse>"
_BASE64_WORD = re.compile(r"[A-Za-z0-9+/_-]{8,}")


class Echo(BaseHTTPRequestHandler):
    """Answers each request in the next of its ways, and repeats the credentials in every one."""

    protocol_version = "HTTP/1.1"
    said: str
    """Every secret in every form."""
    number: Iterator[int]
    ways: set[str]

    def do_GET(self) -> None:
        if self.path.endswith("/models"):
            models = [{"id": f"m-{self.said}", "owned_by": self.said, "max_model_len": 8192}]
            self._answer(json.dumps({"data": models}))
        elif self.path == "/version":
            self._answer(json.dumps({"version": self.said}))
        elif self.path == "/metrics":
            self._answer(f'vllm:{KEY}_total{{who="{KEY}"}} 3\nvllm:num_requests_running 1\n', "text/plain")
        else:
            self._answer("no", status=404)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        ways = [getattr(self, name) for name in dir(self) if name.startswith("way_")]
        way = ways[next(self.number) % len(ways)]
        self.ways.add(way.__name__)
        way()

    def log_message(self, *_: Any) -> None:
        pass

    def _answer(self, body: str, kind: str = "application/json", status: int = 200, **headers: str) -> None:
        data = body.encode()
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), value.encode().decode("latin-1"))
        self.end_headers()
        self.wfile.write(data)

    def _events(self, *events: Any, end: str = "data: [DONE]\n\n", **headers: str) -> None:
        parts = [each if isinstance(each, str) else f"data: {json.dumps(each)}\n\n" for each in events]
        self._answer("".join(parts) + end, "text/event-stream", **headers)

    def _chunk(self, text: str | None = None, finish: str | None = None, **more: Any) -> dict[str, Any]:
        delta = {} if text is None else {"content": text}
        return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **more}

    def way_01_body_of_a_401(self) -> None:
        self._answer(f"Incorrect API key provided: {self.said}", status=401)

    def way_02_location(self) -> None:
        self._answer("", status=302, Location=f"https://else.where/?key={self.said}")

    def way_03_retry_after(self) -> None:
        self._answer(self.said, status=429, Retry_After=self.said)

    def way_04_finish_reason(self) -> None:
        self._events(self._chunk("Hi"), self._chunk(finish=self.said))

    def way_05_ids_names_and_models(self) -> None:
        more = {"id": self.said, "model": self.said, "system_fingerprint": self.said, self.said: 1}
        self._events(self._chunk("Hi", **more), self._chunk(finish="stop", **more), X_Request_Id=self.said)

    def way_06_error_event(self) -> None:
        self._events({"error": {"message": self.said, "type": self.said, "code": self.said}})

    def way_07_content_type(self) -> None:
        self._answer("<html>", f"text/{self.said}")

    def way_08_content_encoding(self) -> None:
        self._events(self._chunk("Hi"), self._chunk(finish="stop"), Content_Encoding=self.said[:400])

    def way_09_malformed_json(self) -> None:
        self._events(f"data: {{not json {self.said}\n\n")

    def way_10_text(self) -> None:
        self._events(self._chunk("You sent "), self._chunk(self.said), self._chunk(finish="stop"))

    def way_11_status_line(self) -> None:
        self.wfile.write(f"HTTP/1.1 {self.said}\r\n{self.said}\r\n\r\n".encode())
        self.close_connection = True

    def way_12_cut_off_where_errors_are_cut(self) -> None:
        secret = (KEY, TOKEN, PASSWORD, b64encode(KEY.encode()).decode())[next(self.number) % 4]
        self._answer("x" * (488 - len("application/json: ")) + secret, status=500)

    def way_13_chunk_size(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(f"{self.said}\r\n".encode())
        self.close_connection = True


def forms(secret: str) -> list[str]:
    """A secret as servers repeat it."""
    pairs = [secret, f"Bearer {secret}", f"me:{secret}", f"ab {secret} yz"]
    found = [
        secret,
        quote(secret, safe=""),
        re.sub("%..", lambda hit: hit[0].lower(), quote(secret)),
        "".join(f"%{b:02X}" for b in secret.encode()),
    ]
    found += [b64encode(each.encode()).decode() for each in pairs]
    found += [urlsafe_b64encode(each.encode()).decode() for each in pairs]
    found += [quote(b64encode(secret.encode()), safe=""), json.dumps(secret)[1:-1], secret.encode().hex()]
    return list(dict.fromkeys(found))


@pytest.fixture
def echoing() -> Iterator[Callable[[str], Any]]:
    servers = []

    def start(said: str) -> Any:
        kind = type("EchoOnce", (Echo,), {"said": said, "number": count(), "ways": set()})
        server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    "way_in", ["key and token", pytest.param("password and token", marks=pytest.mark.slow)]
)
def test_a_key_a_password_and_a_token_are_found_nowhere(
    echoing: Callable[[str], Any], locust: Any, tools: Any, tmp_path: Path, way_in: str
) -> None:
    first = KEY if way_in.startswith("key") else PASSWORD
    secrets = [first, TOKEN]
    server = echoing(" ".join(form for secret in secrets for form in forms(secret)))
    address = f"127.0.0.1:{server.server_address[1]}"
    environment = {"TENANT": f"Bearer {TOKEN}", "OPENAI_API_KEY": KEY if first == KEY else ""}
    url = f"http://{address}" if first == KEY else f"http://me:{quote(PASSWORD, safe='')}@{address}"
    load = locust("--headless", "-H", url, "--scenario", "choose", "-u", "5", "-t", "6s", "--warmup", "0",
                  "--keep-text", "--label", f"key={first}", "--header", "X-Tenant: $TENANT",
                  "--logfile", str(tmp_path / "log"),
                  env=environment)  # fmt: skip
    (engine,) = tools.wait_until(load.engines, "the engine")
    listed = " ".join(engine.cmdline())
    assert not [form for secret in secrets for form in forms(secret) if form in listed], "a list of processes"
    load.end_as_judged()
    ways = server.RequestHandlerClass.ways
    assert len(ways) >= 12, ways
    files = {path.name: path.read_text(errors="replace") for path in load.where.rglob("*") if path.is_file()}
    assert {"run.json", "turns-0.jsonl", "report.html", "summary.json", "server.jsonl"} <= set(files)
    assert "***" in files["turns-0.jsonl"]
    log = (tmp_path / "log").read_text(errors="replace")
    for name, text in {**files, "screen": load.said, "log": log}.items():
        found = [form for secret in secrets for form in forms(secret) if form in text]
        assert not found, f"{name} has {found}"
        for word in _BASE64_WORD.findall(text):
            assert not any(secret.encode()[:8] in _decoded(word) for secret in secrets), f"{name}: {word}"


def _decoded(word: str) -> bytes:
    word = word.replace("-", "+").replace("_", "/")
    found = b""
    for at in range(4):
        part = word[at:]
        with suppress(ValueError):
            found += b64decode(part[: len(part) // 4 * 4]) + b"\0"
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("url", "options", "environment", "says"),
    [
        ("http://me:pw12@127.0.0.1:9", [], {"OPENAI_API_KEY": KEY}, "unset OPENAI_API_KEY"),
        ("http://me@127.0.0.1:9", ["--header", "authorization: Bearer abcd"], {}, "drop the header"),
        ("http://127.0.0.1:9", ["--trust-env"], {"OPENAI_API_KEY": KEY, "NETRC": "netrc"}, "NETRC=/dev/null"),
    ],
    ids=["a password in the URL and a key", "a user in the URL and a header", ".netrc and a key"],
)
def test_two_credentials_at_once_exit_2_with_what_to_write(
    locust: Any, tmp_path: Path, url: str, options: list[str], environment: dict[str, str], says: str
) -> None:
    if "NETRC" in environment:
        netrc = tmp_path / "netrc"
        netrc.write_text("machine 127.0.0.1 login me password hunter22\n")
        netrc.chmod(0o600)
        environment = environment | {"NETRC": str(netrc)}
    load = locust("--headless", "-H", url, "--scenario", "choose", "-t", "9s", *options, env=environment)
    assert load.end() == 2, load.said
    assert "exclude each other" in load.said
    assert says in load.said
    assert "Traceback" not in load.said
    assert not load.where.exists()
    assert not [word for word in (KEY, "pw12", "abcd", "hunter22") if word in load.said]

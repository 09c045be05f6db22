"""The emulator's paths: what each answers, and who may ask."""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

import msgspec

from serve.emulator.answer import Answer
from serve.emulator.clock import Lateness
from serve.emulator.connection import Connection
from serve.emulator.events import VERSION, Events
from serve.emulator.faults import Mischief
from serve.emulator.metrics import prometheus_text
from serve.emulator.parse import Request
from serve.emulator.refusal import Refusal, check_content_type
from serve.emulator.reply import Books, Reply
from serve.emulator.request import Ask, Limits, read_chat, read_completion
from serve.emulator.tokenize import tokenize

OWNER = "turnbench-emulator"
JSON = "application/json"
PERMISSION = {
    "id": "modelperm-emulated",
    "object": "model_permission",
    "created": 0,
    "allow_create_engine": False,
    "allow_sampling": True,
    "allow_logprobs": True,
    "allow_search_indices": False,
    "allow_view": True,
    "allow_fine_tuning": False,
    "organization": "*",
    "group": None,
    "is_blocking": False,
}
METRICS = "text/plain; version=1.0.0; charset=utf-8"


class Schedule(Protocol):
    """Who decides what is said and when."""

    def answer(self, ask: Ask) -> Answer: ...

    def start(self, reply: Reply) -> None: ...

    def count(self) -> None:
        """Bring the counters up to date, for whoever wants to read them."""

    def forget_prefixes(self) -> bool:
        """Empty the prefix cache; whether it was done."""
        ...


Page = tuple[str, bytes]
"""Content type and body."""


class App:
    """Serves one model to any number of connections. `dev_mode` opens the paths that vLLM keeps for it."""

    def __init__(
        self,
        limits: Limits,
        schedule: Schedule,
        books: Books,
        api_key: str | None,
        mischief: Mischief | None = None,
        dev_mode: bool = False,
    ) -> None:
        self._limits = limits
        self._schedule = schedule
        self._books = books
        self._api_key = api_key
        self._mischief = mischief
        # What is late on purpose says nothing of this process: its lateness is kept apart.
        self._bent_books = books if mischief is None else replace(books, lateness=Lateness())
        self._started_s = int(time.time())
        self._answered = 0
        self._readers = {"/v1/chat/completions": read_chat, "/v1/completions": read_completion}
        self._pages: dict[str, tuple[str, Callable[[Request], Page]]] = {
            "/health": ("GET", lambda _: ("", b"")),
            "/ping": ("GET", lambda _: ("", b"")),
            "/version": ("GET", lambda _: (JSON, msgspec.json.encode({"version": VERSION}))),
            "/v1/models": ("GET", lambda _: (JSON, self._models())),
            "/metrics": ("GET", lambda _: (METRICS, self._metrics())),
            "/tokenize": ("POST", lambda request: (JSON, tokenize(request.body, self._limits))),
        }
        if dev_mode:
            self._pages["/reset_prefix_cache"] = ("POST", lambda _: (JSON, self._reset()))

    def serve(self, connection: Connection, request: Request) -> None:
        """Answer one request, at once or by the schedule."""
        method, page = self._pages.get(request.path, ("POST", None))
        if request.path.startswith("/v1/") and not self._may(request):
            self._say(connection, 401, b'{"error":"Unauthorized"}')
        elif page is None and request.path not in self._readers:
            self._say(connection, 404, b'{"detail":"Not Found"}')
        elif request.method != method:
            self._say(connection, 405, b'{"detail":"Method Not Allowed"}', more=f"Allow: {method}\r\n")
        else:
            self._answer(connection, request, page)

    def _answer(
        self, connection: Connection, request: Request, page: Callable[[Request], Page] | None
    ) -> None:
        try:
            if page is None:
                self._complete(connection, request)
            else:
                content_type, body = page(request)
                self._say(connection, 200, body, content_type)
        except Refusal as refusal:
            self._say(connection, refusal.status, refusal.body())

    def _say(
        self, connection: Connection, status: int, body: bytes, content_type: str = JSON, more: str = ""
    ) -> None:
        connection.respond(status, body, content_type, more=more)
        connection.done()

    def _may(self, request: Request) -> bool:
        if self._api_key is None:
            return True
        given = request.headers.get("authorization", "")
        return hmac.compare_digest(given.encode(), f"Bearer {self._api_key}".encode())

    def _complete(self, connection: Connection, request: Request) -> None:
        wire = connection if self._mischief is None else self._mischief.meet(connection)
        if wire is None:
            return
        check_content_type(request.headers.get("content-type"))
        request_id = request.headers.get("x-request-id")
        ask = self._readers[request.path](request.body, self._limits, request_id, request.received_ns)
        answer = self._schedule.answer(ask)
        events = Events(ask, answer, self._new_id(ask), int(time.time()), self._limits.model)
        books = self._books if wire is connection else self._bent_books
        self._schedule.start(Reply(wire, ask, answer, events, books))

    def _new_id(self, ask: Ask) -> str:
        self._answered += 1
        return f"{'chatcmpl' if ask.chat else 'cmpl'}-emulated-{self._answered:08x}"

    def _models(self) -> bytes:
        model = {
            "id": self._limits.model,
            "object": "model",
            "created": self._started_s,
            "owned_by": OWNER,
            "root": self._limits.model,
            "parent": None,
            "max_model_len": self._limits.max_model_len,
            "permission": [{**PERMISSION, "created": self._started_s}],
        }
        return msgspec.json.encode({"object": "list", "data": [model]})

    def _metrics(self) -> bytes:
        self._schedule.count()
        return prometheus_text(self._limits.model, self._books.counters)

    def _reset(self) -> bytes:
        return msgspec.json.encode({"success": self._schedule.forget_prefixes()})

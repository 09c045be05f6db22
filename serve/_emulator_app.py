"""The emulator's paths: what each answers, and who may ask."""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

import msgspec

from serve._emulator_answer import Answer
from serve._emulator_clock import Lateness
from serve._emulator_events import Events
from serve._emulator_faults import Mischief
from serve._emulator_http import Connection
from serve._emulator_metrics import prometheus_text
from serve._emulator_parse import Request
from serve._emulator_reply import Books, Reply
from serve._emulator_request import Ask, Limits, Refusal, read_chat, read_completion

VERSION = "turnbench-emulator/0.1.0"
OWNER = "turnbench-emulator"
JSON = "application/json"


class Schedule(Protocol):
    """Who decides what is said and when."""

    def answer(self, ask: Ask) -> Answer: ...

    def start(self, reply: Reply) -> None: ...


class App:
    """Serves one model to any number of connections."""

    def __init__(
        self,
        limits: Limits,
        schedule: Schedule,
        books: Books,
        api_key: str | None,
        mischief: Mischief | None = None,
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
        self._pages: dict[str, Callable[[], tuple[str, bytes]]] = {
            "/health": lambda: (JSON, b""),
            "/version": lambda: (JSON, msgspec.json.encode({"version": VERSION})),
            "/v1/models": lambda: (JSON, self._models()),
            "/metrics": lambda: ("text/plain; version=0.0.4; charset=utf-8", self._metrics()),
        }
        self._readers = {"/v1/chat/completions": read_chat, "/v1/completions": read_completion}

    def serve(self, connection: Connection, request: Request) -> None:
        """Answer one request, at once or by the schedule."""
        if request.path.startswith("/v1/") and not self._may(request):
            self._say(connection, 401, b'{"error":"Unauthorized"}')
        elif request.path in self._readers:
            if request.method == "POST":
                self._complete(connection, request)
            else:
                self._say(connection, 405, b'{"detail":"Method Not Allowed"}')
        elif request.path in self._pages:
            if request.method == "GET":
                content_type, body = self._pages[request.path]()
                self._say(connection, 200, body, content_type)
            else:
                self._say(connection, 405, b'{"detail":"Method Not Allowed"}')
        else:
            self._say(connection, 404, b'{"detail":"Not Found"}')

    def _say(self, connection: Connection, status: int, body: bytes, content_type: str = JSON) -> None:
        connection.respond(status, body, content_type)
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
        request_id = request.headers.get("x-request-id")
        try:
            ask = self._readers[request.path](request.body, self._limits, request_id, request.received_ns)
        except Refusal as refusal:
            self._say(connection, refusal.status, refusal.body())
            return
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
        }
        return msgspec.json.encode({"object": "list", "data": [model]})

    def _metrics(self) -> bytes:
        return prometheus_text(self._limits.model, self._books.counters)

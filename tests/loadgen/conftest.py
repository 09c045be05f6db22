"""A scripted server on raw asyncio streams, and one person of the engine who talks to it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from loadgen._messages import EngineMessage, Job, TurnEnded, UserDone
from loadgen.engine._driver import LoadDriver
from loadgen.engine._run import EngineRun, watch
from loadgen.options._endpoint import address_of
from loadgen.options._settings import Settings
from loadgen.options._shape import EngineLoad
from loadgen.transport._http import open_session
from loadgen.transport._reader import StampedReader, open_reader
from scenarios import parse
from turnbench.clock import Timeline
from turnbench.formats import TurnRecord
from turnbench.formats.turn import decode

ONE_TURN = """
format: turnbench-scenario/1
name: test
tasks: [{name: ask, texts: t, prompt: "{q}", max_tokens: 16}]
sets: {t: [{q: Hello}]}
"""
TWO_TURNS = ONE_TURN.replace("max_tokens: 16", 'turns: 2, then: ["And then?"], max_tokens: 16')


def chunk_of(**delta: Any) -> dict[str, Any]:
    finish = delta.pop("finish", None)
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def event(data: dict[str, Any] | str) -> bytes:
    return b"data: " + (data if isinstance(data, str) else json.dumps(data)).encode() + b"\n\n"


def words(*texts: str) -> bytes:
    """The events of these texts, each in one of its own."""
    return b"".join(event(chunk_of(content=text)) for text in texts)


STOP = event(chunk_of(finish="stop"))
USAGE = event({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 3}})
DONE = event("[DONE]")
END = STOP + USAGE + DONE
"""What ends a good reply."""


@dataclass
class Peer:
    """The server's side of one connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    requests: list[bytes]
    number: int
    """Which connection this is, from 0."""

    event = staticmethod(event)
    words = staticmethod(words)
    chunk_of = staticmethod(chunk_of)
    END = END

    async def request(self) -> bytes:
        """The next request, head and body; ConnectionError when the client has closed."""
        try:
            head = await self.reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            raise ConnectionResetError("the client has closed") from None
        lengths = [line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
        body = await self.reader.readexactly(int(lengths[0].partition(b":")[2])) if lengths else b""
        self.requests.append(head + body)
        return head + body

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def head(self, status: str = "200 OK", *headers: str) -> None:
        """A response's head; without headers, that of a chunked event stream."""
        lines = headers or ("Content-Type: text/event-stream", "Transfer-Encoding: chunked")
        await self.send("\r\n".join([f"HTTP/1.1 {status}", *lines, "", ""]).encode())

    async def chunk(self, data: bytes) -> None:
        await self.send(b"%x\r\n" % len(data) + data + b"\r\n")

    async def finish(self, data: bytes = END) -> None:
        await self.send((b"%x\r\n" % len(data) + data + b"\r\n" if data else b"") + b"0\r\n\r\n")

    async def answer(self, *texts: str) -> None:
        """A whole good reply to the next request."""
        await self.request()
        await self.head()
        for text in texts or ("Hi", " there"):
            await self.chunk(words(text))
        await self.finish()

    async def until_closed(self) -> None:
        """Wait for the client to go away."""
        while await self.reader.read(1 << 16):
            pass

    def reset(self) -> None:
        """Break the connection, with a RST instead of a FIN."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Script = Callable[[Peer], Awaitable[None]]


@dataclass
class ScriptedServer:
    """Runs a script for each connection and keeps every request."""

    script: Script
    url: str = ""
    requests: list[bytes] = field(default_factory=list)
    connections: int = 0
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(reader, writer, self.requests, self.connections)
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self.tasks.append(task)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                await self.script(peer)
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                await writer.wait_closed()


Serve = Callable[..., Awaitable[ScriptedServer]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Start a scripted server on a free port."""
    started: list[tuple[ScriptedServer, asyncio.Server]] = []

    async def start(script: Script, tls: ssl.SSLContext | None = None) -> ScriptedServer:
        scripted = ScriptedServer(script)
        listener = await asyncio.start_server(scripted.serve, "127.0.0.1", 0, ssl=tls)
        port = listener.sockets[0].getsockname()[1]
        scripted.url = f"{'https' if tls else 'http'}://127.0.0.1:{port}"
        started.append((scripted, listener))
        return scripted

    yield start
    for scripted, listener in started:
        listener.close()
        for task in scripted.tasks:
            task.cancel()
        ended = await asyncio.gather(*scripted.tasks, return_exceptions=True)
        assert [error for error in ended if isinstance(error, Exception)] == []


@dataclass
class Client:
    """A driver wired as the engine wires it, in the test's own loop."""

    reader: StampedReader
    session: Any
    driver: LoadDriver = None  # type: ignore[assignment]  # from `wired` on
    messages: list[EngineMessage] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)
    tasks: set[asyncio.Task[Any]] = field(default_factory=set)
    users: int = 0

    def wired(self, job: Job, timeline: Timeline) -> Client:
        run = EngineRun(job, self.session, timeline, self.emit)
        self.driver = LoadDriver(run, parse(job.scenario), self.spawn)
        self.spawn(watch(run, every_s=0.02))
        self.spawn(run.keep_reporting())
        self.spawn(self.driver.keep_ready())
        self.driver.begin_level(0)
        return self

    def emit(self, message: EngineMessage) -> None:
        self.messages.append(message)
        self.news.set()

    def spawn(self, work: Any) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        return task

    async def close(self) -> None:
        """End it; fails if the ledger is open or a task of the engine failed."""
        await self.driver.cut()
        self.driver.run.close()
        self.check_ledger()
        for task in self.tasks:
            task.cancel()
        ended = await asyncio.gather(*self.tasks, return_exceptions=True)
        assert [error for error in ended if isinstance(error, Exception)] == []
        await self.session.close()
        self.reader.close()
        await asyncio.sleep(0)

    def start(self) -> int:
        """One more person begins a conversation, and leaves after it."""
        self.users += 1
        self.driver.play(self.users, most=1)
        return self.users

    async def ended(self, user: int, limit_s: float = 60.0) -> None:
        """Until that person's conversation has ended; fails if that takes too long."""
        async with asyncio.timeout(limit_s):
            while UserDone(user) not in self.messages:
                self.news.clear()
                await self.news.wait()

    @property
    def lines(self) -> list[bytes]:
        self.driver.run.report_all()
        return [message.line for message in self.messages if isinstance(message, TurnEnded)]

    @property
    def records(self) -> list[TurnRecord]:
        return [decode(line) for line in self.lines]

    def check_ledger(self) -> None:
        """Every turn that became due was begun or dropped, and every one begun has ended once."""
        ledger = self.driver.run.ledger
        assert ledger.planned == ledger.begun + ledger.dropped
        assert ledger.begun == ledger.finished
        turns = {(r.conversation, r.turn): r.outcome for r in self.records}
        assert ledger.finished == sum(outcome != "dropped" for outcome in turns.values())
        assert ledger.dropped == sum(outcome == "dropped" for outcome in turns.values())
        assert not self.driver.run.open


Connect = Callable[..., Client]


@pytest.fixture
async def client(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Connect]:
    """Make a client of a URL; keyword arguments are settings. Its ledger is checked at the test's end."""
    monkeypatch.setattr(EngineRun, "failure_pause_s", 0.02)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    made: list[Client] = []

    def connect(
        url: str,
        turns: int = 1,
        tls: Any = None,
        scenario: str = "",
        context: int | None = None,
        dialect: str = "chat",
        models: dict[str, float] | None = None,
        load: EngineLoad = EngineLoad(),  # noqa: B008 (frozen)
        counts_path: str = "",
        **settings: Any,
    ) -> Client:
        asked = Settings(**{"host": url, "think_time": "none", "connect_timeout_s": 2.0} | settings)
        scenario = scenario or (ONE_TURN if turns == 1 else TWO_TURNS)
        job = Job(
            run="run", worker=0, workers=1, settings=asked, scenario=scenario, salt="ab", model="m",
            usage_in_events=False, context=context, dialect=dialect, load=load, models=models or {},
            counts_path=counts_path,
        )  # fmt: skip
        timeline = Timeline()
        reader, _ = open_reader(asyncio.get_running_loop(), timeline, asked.clock, connections=1024)
        session = open_session(
            reader,
            connect_timeout_s=asked.connect_timeout_s,
            ssl=tls if tls is not None else not asked.insecure,
            trust_env=asked.trust_env,
            unix_socket=address_of(asked.host).socket,
        )
        made.append(Client(reader, session).wired(job, timeline))
        return made[-1]

    yield connect
    for one in made:
        await one.close()


@dataclass
class Played:
    """What one conversation against a script left behind."""

    server: ScriptedServer
    client: Client

    @property
    def records(self) -> list[TurnRecord]:
        return self.client.records

    @property
    def record(self) -> TurnRecord:
        """The one attempt that there was."""
        (record,) = self.client.records
        return record


@pytest.fixture
async def play(serve: Serve, client: Connect) -> Callable[..., Awaitable[Played]]:
    """Play one conversation against a script, to its end; keyword arguments are settings."""

    async def one(script: Script, server_tls: ssl.SSLContext | None = None, **settings: Any) -> Played:
        server = await serve(script, server_tls)
        person = client(server.url, **settings)
        await person.ended(person.start())
        return Played(server, person)

    return one

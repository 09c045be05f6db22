"""One attempt at one turn: send the request, keep the log, say what came of it. Never raises.

What went wrong is an outcome and a sentence. The dialect says what events and refusals mean; the rest, from
connections to status codes and the framing of bodies, is the same for all dialects and is here.
"""

from __future__ import annotations

import asyncio
import errno
import math
import re
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import aiohttp

from loadgen.dialects import Dialect, ReadAhead, Refused, StreamedReply, failure_of_data, is_json, problem_of
from loadgen.transport._http import current_log
from loadgen.transport._read_log import Body, PlainBody, ReadLog, body_of, head_end, plain_body
from loadgen.transport._sse import MOST_LINES, event_stream
from loadgen.transport._work import WorkScheduler, WorkStage
from turnbench.cleaning import ERROR_CHARS, clean
from turnbench.outcomes import Outcome, is_cut_reasoning

Post = Callable[[], AbstractAsyncContextManager[aiohttp.ClientResponse]]
"""Begins a request when it is called."""

_ERROR_BYTES = 2048
_TAIL_BYTES = 4096
_LONG_BYTES = 1 << 20
"""A reply as sent: such a one takes 10 ms to read, or a flood of lines 2 s; a compressed one may hold any."""
_AHEAD_BYTES = 16 << 10
"""So much of an answer is read at once while the rest still comes: some fifty tokens. No less than waits in
a socket that is read seldom."""
_EVENT_STREAM = "text/event-stream"
_FIRST_FIELD = re.compile(rb"(\xef\xbb\xbf)?\s*(data|event|id|retry|):")
_LONGEST_FIELD_BYTES = 16
_FIRST_DATA = re.compile(rb"data: ?([^\r\n]{1,200})")
_LOCAL_ERRORS: dict[int, Outcome] = {
    errno.EADDRNOTAVAIL: "client_ports",
    errno.EMFILE: "client_files",
    errno.ENFILE: "client_files",
}


@dataclass(slots=True, eq=False)
class Exchange:
    """A request under way. After `run`, `outcome` is set and `reply` holds what came."""

    dialect: Dialect
    log: ReadLog = field(default_factory=ReadLog)
    reply: StreamedReply = field(default_factory=StreamedReply)
    status: int | None = None
    retry_after_s: float | None = None
    outcome: Outcome = "ok"
    error: str | None = None
    refused: Refused | None = None
    """What the server refused, where the dialect knows it."""
    asks_again: bool = False
    """The server refused something that the next attempt does without."""
    chunked: bool = False
    encoding: str = "identity"
    is_stream: bool = False
    """Whether the response is a stream of events, with a status of success."""
    _other_type: bool = False
    """Whether a stream came as what is no stream by its type."""
    _looked_at_bytes: int = 0
    _ahead: ReadAhead | None = None
    """What the dialect read of the events while more still came: of those in `log.ahead`."""
    _is_read: bool = False
    """Whether `reply` holds what the stream said: a plain one is read with its end."""
    _task: asyncio.Task[Any] | None = None
    """The task in which the request is under way."""
    _ending: tuple[Outcome, str | None] | None = None

    def cut(self, outcome: Outcome, why: str | None) -> None:
        """End this request now, with this outcome; what has come so far is kept. `ok`: that is judged."""
        if self._ending is None and self._task is not None:
            self.catch_up()
            self._ending = (outcome, why)
            self._task.cancel()

    def catch_up(self) -> None:
        """Read what has come: where thousands of tokens come each second, sockets are read seldom."""
        if self.log.connection is not None:
            self.log.connection.catch_up()

    async def run(self, post: Post, scheduler: WorkScheduler) -> None:
        """Send the request that `post` makes and wait for its end."""
        self._task = task = asyncio.current_task()
        assert task is not None
        before = current_log.set(self.log)
        try:
            await self._request(post, scheduler)
        except asyncio.CancelledError:
            if self._ending is None:
                raise
            if self.outcome == "ok":  # else the response's head has said what it is
                self.outcome, self.error = self._ending
        except Exception as exception:  # noqa: BLE001 (whatever aiohttp makes of what a server sends)
            if self.status is None:  # after the head, it and the body say what came of the request
                self.outcome, self.error = connection_failure(exception, self.log)
        self._task = None
        self.log.stop_reading_ahead()
        current_log.reset(before)
        if self._ending is not None and task.uncancel():
            raise asyncio.CancelledError  # by somebody else too, who ends the whole conversation
        if self.log.connection is not None:
            self.log.connection.finish(self.log)
        if self.is_stream and not self._is_read:
            await self._read(scheduler)
        if self.is_stream:
            if self._other_type:
                self.reply.oddities.add("content_type")
            self._judge()
        if self.error is not None:
            self.error = clean(self.error.encode("utf-8", "replace"))

    async def _read(self, scheduler: WorkScheduler) -> None:
        """Make sense of what came; what may take long, in a thread, so that others are read meanwhile."""
        log = self.log
        if len(log.raw) > _LONG_BYTES or not self._is_as_sent:
            log.settle()
            self.reply = await asyncio.to_thread(self.reply_so_far)
            return
        async with scheduler.turn_for(WorkStage.DECODE):
            log.settle()
            self.reply = self.reply_so_far()

    async def _request(self, post: Post, scheduler: WorkScheduler) -> None:
        async with post() as response:
            self.status = response.status
            self.encoding = response.headers.get("Content-Encoding", "identity")
            start = bytearray()
            try:
                self.is_stream = self.is_success and await _is_stream(response, start)
                if not self.is_stream:
                    await _read_start(response, start)
            finally:  # however that ended, the head has said what this is
                if not self.is_stream:
                    self._take_refusal(response, bytes(start))
            if self.is_stream:
                self._other_type = response.content_type != _EVENT_STREAM
                self.chunked = "chunked" in response.headers.get("Transfer-Encoding", "").lower()
                if self.chunked:
                    await self._wait_for_whole(response.content, scheduler)
                else:
                    await response.content.wait_eof()

    async def _wait_for_whole(self, content: aiohttp.StreamReader, scheduler: WorkScheduler) -> None:
        """Keep the chunks back from aiohttp until all are here.

        It works on each, and many streams end at once: that work is for the scheduler to spread, and must not
        be done while sockets are read.
        """
        self.log.deferred_from = len(self.log.raw)
        self.log.connection.stream_begins()
        self._begin_ahead(scheduler)
        while not content.is_eof() and content.exception() is None:
            await self.log.wake.wait()
            self.log.wake.clear()
            try:
                async with scheduler.turn_for(WorkStage.END):
                    self.log.connection.flush()
                    if self.log.plain is not None and self._is_as_sent:
                        self._read_plain(self.log.plain)
            except asyncio.CancelledError:  # while it waited for its turn; all may have come by then
                self.log.connection.flush()
                if not content.is_eof():
                    raise

    def _begin_ahead(self, scheduler: WorkScheduler) -> None:
        """Have the answer read while it comes, so that little of it is left at its end."""
        start = head_end(self.log.raw)
        if self.dialect.ahead is not None and self._is_as_sent and start is not None:
            read_on = partial(self._read_on, PlainBody(start), self.dialect.ahead(), scheduler)
            self.log.on_more = partial(scheduler.later, read_on)
            self.log.ask_for_more(start + self._bytes_ahead(scheduler.has_time_for(1)))

    def _bytes_ahead(self, one_by_one: bool) -> int:
        """How much shall come before more is read ahead."""
        return 0 if one_by_one else self.log.connection.look_bytes or _AHEAD_BYTES

    def _read_on(self, body: PlainBody, ahead: ReadAhead, scheduler: WorkScheduler) -> None:
        log = self.log
        if log.on_more is None or log.plain is not None:  # it is over
            return
        log.ahead = self._ahead = None  # should this fail, all is read anew at the end
        read_to, read = body.read_to, len(body.events)
        goes_on = body.grow(log.raw)
        new = len(body.events) - read
        one_by_one = scheduler.has_time_for(max(new, 1))
        if new:
            goes_on = goes_on and ahead.take(body.events, one_by_one)
        else:
            goes_on = goes_on and len(log.raw) - read_to <= _AHEAD_BYTES
        if goes_on:
            log.ahead, self._ahead = body, ahead
            log.ask_for_more(len(log.raw) + self._bytes_ahead(one_by_one))
        else:
            log.stop_reading_ahead()

    def _read_plain(self, plain: PlainBody) -> None:
        reply = None if self._ahead is None else self._ahead.read(plain.events)
        if reply is None:
            if self._ahead is not None and (whole := plain_body(self.log.raw)) is not None:
                plain = self.log.plain = whole  # with the events that had been read
            reply = self.dialect.read(plain.events)
        self.reply, self._is_read = reply, True

    @property
    def _is_as_sent(self) -> bool:
        """Whether the body is not compressed."""
        return self.encoding.strip().lower() in ("", "identity")

    def _take_refusal(self, response: aiohttp.ClientResponse, start: bytes) -> None:
        text = clean(start)
        failure = failure_of_data(start) if self.is_success else None
        self.refused = self.dialect.refusal(response.status, text)
        self.outcome, self.error = outcome_of_status(response.status), text
        if self.refused == "context_full":
            self.outcome = "context_full"
        elif failure is not None:  # a success by its status alone
            self.outcome, self.error = problem_of(failure)
        elif self.outcome == "redirect":
            self.error = f"redirected to {response.headers.get('Location', '?')}; not followed"
        elif self.outcome == "bad_content_type":
            is_one = response.status < 600
            kind = response.content_type if is_one else f"status {response.status} is none of HTTP's"
            self.error = f"{kind}: {text}"
        if (asked := response.headers.get("Retry-After")) is not None:
            self.retry_after_s = retry_after_s(asked)
            known = (
                f"{self.retry_after_s:g} s" if self.retry_after_s is not None else f"{asked[:40]}, ignored"
            )
            self.error = f"{self.error[: ERROR_CHARS - 80]} (Retry-After: {known})"

    def _judge(self) -> None:
        # What a server reported before it fell silent says more than the silence.
        if self.outcome == "ok" or (self.outcome in ("stalled", "deadline") and self.reply.problem):
            self.outcome, self.error = outcome_of(self.reply, self.log)
            if self.outcome == "context_full":
                self.refused = "context_full"

    @property
    def is_success(self) -> bool:
        """Whether the head promises an answer; some frameworks give 201 to every POST."""
        return self.status is not None and 200 <= self.status < 300

    def settle(self) -> None:
        """For the record, after the turn's end: when each event came."""
        plain = self.log.plain
        self.log.settle()
        if plain is not None and not self.reply.event_reads:
            self.reply.event_reads = self.log.reads_of(plain.ends_of(self.reply.events))

    def end_ns(self, now_ns: int) -> int:
        """When the answer was whole, or, for one that is not, now."""
        at_ns = self.log.at_ns
        return at_ns[-1] if at_ns and self.outcome == "ok" else now_ns

    def reply_so_far(self) -> StreamedReply:
        """What the events say that have been read; a stream that still runs is not judged."""
        if not self.is_success:
            return StreamedReply()
        return read_reply(body_of(self.log, self.chunked, self.encoding), self.dialect)

    def first_word_ns(self) -> int | None:
        """When the first content came, as far as the stream is here; None: not yet."""
        reply = self.reply_so_far()
        return self.log.at_ns[reply.event_reads[0]] if reply.event_reads else None

    def is_complete(self) -> bool:
        """Whether the reply is whole, whatever its framing still owes."""
        if self._looked_at_bytes == len(self.log.raw):  # it was not when this much had come
            return False
        self._looked_at_bytes = len(self.log.raw)
        with memoryview(self.log.raw) as view:
            return self.dialect.is_complete(bytes(view[-_TAIL_BYTES:]))

    @property
    def head_ns(self) -> int | None:
        """When the response's head was complete."""
        if self.status is None:
            return None
        end = head_end(self.log.raw)
        return None if end is None else self.log.at_ns[self.log.read_of(end)]


async def _is_stream(response: aiohttp.ClientResponse, start: bytearray) -> bool:
    """Whether the body is a stream of events: by its type, or, of another type, by its first bytes.

    Those go into `start`.
    """
    if response.content_type == _EVENT_STREAM:
        return True
    while len(start) < _LONGEST_FIELD_BYTES and (part := await response.content.readany()):
        start += part
    return _FIRST_FIELD.match(start) is not None


async def _read_start(response: aiohttp.ClientResponse, start: bytearray) -> None:
    """Into `start`, the start of a body that is not a stream; closes the connection if there is more."""
    while len(start) < _ERROR_BYTES:
        part = await response.content.read(_ERROR_BYTES - len(start))
        if not part:
            return
        start += part
    response.close()


def read_reply(body: Body, dialect: Dialect) -> StreamedReply:
    """What the events of a body say, each content event with the read that completed it."""
    stream = event_stream(body.data)
    found, failed = stream.events, stream.failed
    last = stream.unfinished
    unclosed = bool(last) and (is_json(last) or dialect.is_complete(body.data[-_TAIL_BYTES:]))
    if unclosed or failed == len(found):
        found.append((last, len(body.data)))
    reply = dialect.read([data for data, _ in found[:failed]])
    reply.event_reads = body.reads_of([found[place][1] for place in reply.events])
    if unclosed:
        reply.oddities.add("unclosed")
    if stream.unclosed_lines:
        reply.oddities.add("lines")
    if failed is not None:
        reply.fail(problem_of(failure_of_data(found[failed][0], called_an_error=True) or ""))
    elif stream.stray and (failure := failure_of_data(stream.stray)):
        reply.fail(problem_of(failure))
    elif stream.cut and not reply.done:
        reply.fail(("oversized", f"over {MOST_LINES:,} lines in one reply"))
    elif stream.stray and not reply.done and reply.finish_reason is None:
        what = "the stream ended in what is no event" if found else "no event in the body"
        reply.fail(("truncated", f"{what}: {clean(stream.stray[:_ERROR_BYTES])}"))
    if body.problem is not None and not reply.done:
        reply.fail(body.problem)
    return reply


def outcome_of(reply: StreamedReply, log: ReadLog) -> tuple[Outcome, str | None]:
    """How a stream with a status of success ended, and a sentence where it was not well."""
    if reply.problem is not None:
        return reply.problem
    if not reply.done and reply.finish_reason is None:
        if log.reset is not None:
            return "disconnected", f"connection broke mid-stream: {log.reset}"
        begin = None if reply.events else _FIRST_DATA.search(log.raw)
        said = (
            "" if begin is None else f", and with nothing of this dialect; it begins with {clean(begin[1])}"
        )
        return "truncated", f"the stream ended without a finish reason or an end mark{said}"
    if not reply.events:
        why = reply.finish_reason not in (None, "stop")
        return "empty", f"the reply had no content{f' and ended as {reply.finish_reason}' if why else ''}"
    if reply.answer_event is None and not is_cut_reasoning("reasoning_only", reply.finish_reason):
        return "reasoning_only", "the reply had reasoning but no answer"
    return "ok", None


def outcome_of_status(status: int) -> Outcome:
    """The outcome of a response that is no event stream with a status of success."""
    if status == 429:
        return "http_429"
    if 300 <= status < 400:
        return "redirect"
    if status < 300:
        return "bad_content_type"  # a success of some sort, but no stream
    if not 400 <= status < 600:
        return "bad_content_type"  # no status of HTTP's
    return "http_4xx" if status < 500 else "http_5xx"


def retry_after_s(value: str) -> float | None:
    """Seconds of a Retry-After header; None for a date, or what is no time."""
    try:
        seconds = float(value)
    except ValueError:
        return None
    return max(seconds, 0.0) if math.isfinite(seconds) else None


def connection_failure(exception: BaseException, log: ReadLog) -> tuple[Outcome, str]:
    """The outcome of a request that got no response head."""
    text = str(exception) or type(exception).__name__
    number = getattr(getattr(exception, "os_error", exception), "errno", None)
    if number in _LOCAL_ERRORS:
        return _LOCAL_ERRORS[number], text
    match exception:
        case aiohttp.ClientConnectorDNSError():
            return "dns", text
        case aiohttp.ClientSSLError() | aiohttp.ServerFingerprintMismatch():
            return "tls", text
        case TimeoutError():
            return "connect_timeout", text
        case aiohttp.ClientConnectorError():
            return "connect", text
        case aiohttp.ClientConnectionError() if log.reused and not log.raw:
            return "stale_connection", f"the server had closed this idle connection: {text}"
        case aiohttp.ClientConnectionError():
            return "disconnected", text
        case aiohttp.ClientResponseError() if "chunk size" in text and head_end(log.raw) is not None:
            return "bad_json", f"the body came with its head, and not in chunks: {text}"
        case aiohttp.ClientResponseError():
            return "bad_content_type", f"not an HTTP response: {text}"
    return "connect", text

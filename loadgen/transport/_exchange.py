"""One attempt at one turn: send the request, keep the log, say what came of it. Never raises."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field

import aiohttp

from loadgen.transport._failure import connection_failure, refusal, retry_after
from loadgen.transport._http import current_log
from loadgen.transport._read_log import Broken, ReadLog, body_of, head_end
from loadgen.transport._reply import StreamedReply, outcome_of, read_reply
from loadgen.transport._scheduler import WorkScheduler
from turnbench.cleaning import clean
from turnbench.outcomes import Outcome

Post = Callable[[], AbstractAsyncContextManager[aiohttp.ClientResponse]]
"""Begins a request when it is called."""

_ERROR_BYTES = 2048
_NO_SYSTEM = re.compile(r"system (role|message)|roles must alternate|only user and assistant roles", re.I)


@dataclass(slots=True, eq=False)
class Exchange:
    """A request under way. After `run`, `outcome` is set and `reply` holds what came."""

    started_ns: int
    log: ReadLog = field(default_factory=ReadLog)
    reply: StreamedReply = field(default_factory=StreamedReply)
    status: int | None = None
    retry_after_s: float | None = None
    outcome: Outcome = "ok"
    error: str | None = None
    chunked: bool = False
    encoding: str = "identity"
    _task: asyncio.Task[None] | None = None
    _ending: tuple[Outcome, str | None] | None = None

    def cut(self, outcome: Outcome, why: str | None) -> None:
        """End this request now, with this outcome; what has come so far is kept. `ok`: that is judged."""
        if self._ending is None and self._task is not None and not self._task.done():
            self._ending = (outcome, why)
            self._task.cancel()

    async def run(self, post: Post, scheduler: WorkScheduler) -> None:
        """Send the request that `post` makes and wait for its end."""
        self._task = asyncio.get_running_loop().create_task(self._request(post, scheduler))
        await asyncio.wait({self._task})
        if self.log.connection is not None:
            self.log.connection.finish(self.log)
        if self._task.cancelled():
            self._was_cut(*(self._ending or ("cut", "cancelled")))
        else:
            self._classify(self._task.exception())
        async with scheduler:
            self._read_reply()
        if self.error is not None:
            self.error = clean(self.error.encode("utf-8", "replace"))

    async def _request(self, post: Post, scheduler: WorkScheduler) -> None:
        current_log.set(self.log)
        async with post() as response:
            self.status = response.status
            self.encoding = response.headers.get("Content-Encoding", "identity")
            if response.status != 200 or response.content_type != "text/event-stream":
                start = bytearray()
                try:
                    await _read_start(response, start)
                finally:  # however that ended, the head has said what this is
                    self._refused(response, clean(bytes(start)))
            else:
                self.chunked = "chunked" in response.headers.get("Transfer-Encoding", "").lower()
                if self.chunked:
                    await self._whole(response.content, scheduler)
                else:
                    await response.content.wait_eof()

    async def _whole(self, content: aiohttp.StreamReader, scheduler: WorkScheduler) -> None:
        """Keep the chunks back from aiohttp until all are here.

        It works on each, and many streams end at once: that is for the scheduler, not for who reads sockets.
        """
        self.log.deferred_from = len(self.log.raw)
        while not content.is_eof() and content.exception() is None:
            await self.log.wake.wait()
            self.log.wake.clear()
            try:
                async with scheduler:
                    self.log.connection.flush()
            except asyncio.CancelledError:  # while it waited for its turn; all may have come by then
                self.log.connection.flush()
                if not content.is_eof():
                    raise

    def _refused(self, response: aiohttp.ClientResponse, text: str) -> None:
        self.outcome, self.error = refusal(response.status, text), text
        if self.outcome == "redirect":
            self.error = f"redirected to {response.headers.get('Location', '?')}; not followed"
        elif self.outcome == "bad_content_type":
            self.error = f"{response.content_type}: {text}"
        self.retry_after_s = retry_after(response.headers.get("Retry-After"))
        if self.retry_after_s is not None:
            self.error += f" (Retry-After: {self.retry_after_s:g} s)"

    def _was_cut(self, outcome: Outcome, why: str | None) -> None:
        if self.outcome == "ok":  # else the response's head has said what it is
            self.outcome, self.error = outcome, why

    def _classify(self, exception: BaseException | None) -> None:
        """Name a failure before the response's head; after it, head and body say what came of it."""
        if exception is not None and self.status is None:
            self.outcome, self.error = connection_failure(exception, self.log)

    def _read_reply(self) -> None:
        if self.status != 200 or self.outcome == "bad_content_type":
            return
        try:
            self.reply = read_reply(body_of(self.log, self.chunked, self.encoding))
        except Broken as error:
            self.outcome, self.error = "bad_json", str(error)
        if self.outcome == "ok":
            self.outcome, self.error = outcome_of(self.reply, self.log)

    @property
    def refuses_system(self) -> bool:
        """Whether the model's chat template takes no system message."""
        return self.status == 400 and _NO_SYSTEM.search(self.error or "") is not None

    def first_word_ns(self) -> int | None:
        """When the first content came, as far as the stream is here; None: not yet."""
        if self.status != 200:
            return None
        try:
            reply = read_reply(body_of(self.log, self.chunked, self.encoding))
        except Broken:
            return None
        return self.log.at_ns[reply.event_reads[0]] if reply.event_reads else None

    @property
    def head_ns(self) -> int | None:
        if self.status is None:
            return None
        end = head_end(self.log.raw)
        return None if end is None else self.log.at_ns[self.log.read_of(end)]


async def _read_start(response: aiohttp.ClientResponse, start: bytearray) -> None:
    """Into `start`, the start of a body that is not a stream; closes the connection if there is more."""
    while len(start) < _ERROR_BYTES:
        part = await response.content.read(_ERROR_BYTES - len(start))
        if not part:
            return
        start += part
    response.close()

"""One attempt at one turn: send the request, keep the log, say what came of it. Never raises."""

from __future__ import annotations

import asyncio
import errno
import re
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from loadgen._arrivals import Arrivals, Broken, body_of, head_end, read_of_raw
from loadgen._http import current_log
from loadgen._records import Outcome
from loadgen._reply import ERROR_CHARS, Reply, outcome_of, read_reply

_ERROR_BYTES = 2048
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]+")
_CONTEXT_FULL = re.compile(r"maximum context length|max_model_len|maximum model length|context window", re.I)
_LOCAL_ERRORS: dict[int, Outcome] = {
    errno.EADDRNOTAVAIL: "client_ports",
    errno.EMFILE: "client_files",
    errno.ENFILE: "client_files",
}


@dataclass(slots=True, eq=False)
class Exchange:
    """A request under way. After `run`, `outcome` is set and `reply` holds what came."""

    started_ns: int
    log: Arrivals = field(default_factory=Arrivals)
    reply: Reply = field(default_factory=Reply)
    status: int | None = None
    retry_after_s: float | None = None
    outcome: Outcome = "ok"
    error: str | None = None
    chunked: bool = False
    encoding: str = "identity"
    _task: asyncio.Task[None] | None = None
    _ending: tuple[Outcome, str] | None = None

    def cut(self, outcome: Outcome, why: str) -> None:
        """End this request now, with this outcome; what has come so far is kept."""
        if self._ending is None and self._task is not None and not self._task.done():
            self._ending = (outcome, why)
            self._task.cancel()

    async def run(
        self, session: aiohttp.ClientSession, url: str, body: bytes, headers: dict[str, str]
    ) -> None:
        self._task = asyncio.get_running_loop().create_task(self._request(session, url, body, headers))
        await asyncio.wait({self._task})
        if self.log.connection is not None:
            self.log.connection.finish(self.log)
        if self._task.cancelled():
            self.outcome, self.error = self._ending or ("cut", "cancelled")
        else:
            self._classify(self._task.exception())
        self._read_reply()

    async def _request(
        self, session: aiohttp.ClientSession, url: str, body: bytes, headers: dict[str, str]
    ) -> None:
        current_log.set(self.log)
        async with session.post(url, data=body, headers=headers, allow_redirects=False) as response:
            self.status = response.status
            self.encoding = response.headers.get("Content-Encoding", "identity")
            if response.status != 200:
                await self._refused(response)
            elif response.content_type != "text/event-stream":
                sample = clean((await _first_bytes(response))[:ERROR_CHARS])
                self.outcome, self.error = "bad_content_type", f"{response.content_type}: {sample}"
            else:
                self.chunked = "chunked" in response.headers.get("Transfer-Encoding", "").lower()
                if self.chunked:
                    self.log.deferred_from = len(self.log.reads)
                await response.content.wait_eof()

    async def _refused(self, response: aiohttp.ClientResponse) -> None:
        text = clean((await _first_bytes(response))[:ERROR_CHARS])
        self.outcome, self.error = _refusal(response.status, text), text
        if self.outcome == "redirect":
            target = clean(response.headers.get("Location", "?").encode())
            self.error = f"redirected to {target}; not followed"
        self.retry_after_s = _retry_after(response.headers.get("Retry-After"))
        if self.retry_after_s is not None:
            self.error = f"{text} (Retry-After: {self.retry_after_s:g} s)"

    def _classify(self, exception: BaseException | None) -> None:
        """Name a failure before or during the stream; one in the body is judged by what the body says."""
        if exception is None or (self.status == 200 and self.outcome == "ok"):
            return
        if self.status is None:
            self.outcome, self.error = _connection_failure(exception, self.log)

    def _read_reply(self) -> None:
        if self.status != 200 or self.outcome == "bad_content_type":
            return
        try:
            self.reply = read_reply(body_of(self.log, self.chunked, self.encoding))
        except Broken as error:
            self.outcome, self.error = "bad_json", str(error)
        if self.outcome == "ok":
            self.outcome, self.error = outcome_of(self.reply, self.log)
        if self.error is not None:
            self.error = clean(self.error.encode())

    @property
    def head_ns(self) -> int | None:
        end = head_end(b"".join(self.log.reads[:4])) if self.status is not None else None
        return None if end is None else self.log.at_ns[read_of_raw(self.log, end)]


def clean(raw: bytes) -> str:
    """Server text as one line without control characters, at most ERROR_CHARS long."""
    return _CONTROL.sub(" ", raw.decode("utf-8", "replace")).strip()[:ERROR_CHARS]


async def _first_bytes(response: aiohttp.ClientResponse) -> bytes:
    """The start of a body that is not a stream; the connection is closed if there is more of it."""
    data = b""
    while len(data) < _ERROR_BYTES:
        part = await response.content.read(_ERROR_BYTES - len(data))
        if not part:
            return data
        data += part
    response.close()
    return data


def _refusal(status: int, text: str) -> Outcome:
    if status == 429:
        return "http_429"
    if 300 <= status < 400:
        return "redirect"
    if status == 400 and _CONTEXT_FULL.search(text):
        return "context_full"
    return "http_4xx" if 400 <= status < 500 else "http_5xx"


def _retry_after(value: str | None) -> float | None:
    """Seconds of a Retry-After header; its date form is not used by model servers and is ignored."""
    try:
        return None if value is None else max(float(value), 0.0)
    except ValueError:
        return None


def _connection_failure(exception: BaseException, log: Arrivals) -> tuple[Outcome, str]:
    """The outcome of a request that got no response head."""
    text = str(exception) or type(exception).__name__
    number = _errno(exception)
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
        case aiohttp.ClientConnectionError() if log.reused and not log.reads:
            return "stale_connection", f"the server had closed this idle connection: {text}"
        case aiohttp.ClientConnectionError():
            return "disconnected", text
        case aiohttp.ClientResponseError():
            return "bad_content_type", f"not an HTTP response: {text}"
    return "connect", text


def _errno(exception: BaseException) -> Any:
    cause = getattr(exception, "os_error", exception)
    return getattr(cause, "errno", None)

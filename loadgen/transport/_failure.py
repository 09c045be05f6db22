"""What a request without a reply came to: the name of its failure, from a status or an exception."""

from __future__ import annotations

import errno
import re
from typing import Any

import aiohttp

from loadgen.transport._read_log import ReadLog
from turnbench.outcomes import Outcome

_CONTEXT_FULL = re.compile(r"maximum context length|max_model_len|maximum model length|context window", re.I)
_LOCAL_ERRORS: dict[int, Outcome] = {
    errno.EADDRNOTAVAIL: "client_ports",
    errno.EMFILE: "client_files",
    errno.ENFILE: "client_files",
}


def refusal(status: int, text: str) -> Outcome:
    """The outcome of a response that is no event stream of status 200."""
    if status == 429:
        return "http_429"
    if 300 <= status < 400:
        return "redirect"
    if status < 300:
        return "bad_content_type"  # a success of some sort, but no stream
    if status == 400 and _CONTEXT_FULL.search(text):
        return "context_full"
    return "http_4xx" if 400 <= status < 500 else "http_5xx"


def retry_after(value: str | None) -> float | None:
    """Seconds of a Retry-After header; its date form is not used by model servers and is ignored."""
    try:
        return None if value is None else max(float(value), 0.0)
    except ValueError:
        return None


def connection_failure(exception: BaseException, log: ReadLog) -> tuple[Outcome, str]:
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
        case aiohttp.ClientConnectionError() if log.reused and not log.raw:
            return "stale_connection", f"the server had closed this idle connection: {text}"
        case aiohttp.ClientConnectionError():
            return "disconnected", text
        case aiohttp.ClientResponseError():
            return "bad_content_type", f"not an HTTP response: {text}"
    return "connect", text


def _errno(exception: BaseException) -> Any:
    cause = getattr(exception, "os_error", exception)
    return getattr(cause, "errno", None)

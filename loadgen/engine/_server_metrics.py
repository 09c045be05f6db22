"""The server's own metrics, once a second, where it has a Prometheus page at /metrics."""

from __future__ import annotations

import asyncio
import math
import re
from collections import defaultdict
from collections.abc import Callable

import aiohttp
import msgspec

from loadgen._messages import ServerSampled
from loadgen._settings import Settings, base_url
from turnbench.clock import Timeline

# Labels end at a brace outside of quotes; a time after the value is ignored.
_SAMPLE = re.compile(r'([a-zA-Z_:][\w:]*)(?:\{(?:[^"}]|"(?:[^"\\]|\\.)*")*\})?[ \t]+(\S+)')
_SERVER_PREFIXES = ("vllm:", "sglang:", "tgi_")
_LEFT_OUT = ("_bucket", "_created")
_EVERY_S = 1.0
_PAGE_BYTES = 4 << 20


def samples(text: str) -> dict[str, float]:
    """The model server's samples by name, summed over their labels; histograms keep their sum and count."""
    found: dict[str, float] = defaultdict(float)
    for line in text.splitlines():
        if not line.startswith(_SERVER_PREFIXES):
            continue
        match = _SAMPLE.match(line)
        if match and not match.group(1).endswith(_LEFT_OUT):
            value = _number(match.group(2))
            if math.isfinite(value):
                found[match.group(1)] += value
    return dict(found)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


async def watch_server(
    settings: Settings, headers: dict[str, str], timeline: Timeline, emit: Callable[[ServerSampled], None]
) -> None:
    """Emit a sample a second until cancelled; ends by itself if the server has no such page."""
    url = base_url(settings.host).removesuffix("/v1") + "/metrics"
    sent = {name: value for name, value in headers.items() if name not in ("Content-Type", "Accept")}
    timeout = aiohttp.ClientTimeout(total=settings.connect_timeout_s)
    async with aiohttp.ClientSession(
        timeout=timeout, headers=sent, trust_env=settings.trust_env, cookie_jar=aiohttp.DummyCookieJar()
    ) as session:
        while True:
            try:
                async with session.get(url, ssl=not settings.insecure, allow_redirects=False) as response:
                    if response.status < 500 and response.status != 200:
                        return
                    found = samples(await _page(response)) if response.status == 200 else {}
            except (aiohttp.ClientError, TimeoutError, OSError):
                found = {}  # a server that is down for a while is asked again
            if found:
                emit(ServerSampled(msgspec.json.encode({"t_ns": timeline.now_ns()} | found)))
            await asyncio.sleep(_EVERY_S)


async def _page(response: aiohttp.ClientResponse) -> str:
    """The page's text, as far as a page of this sort goes."""
    page = bytearray()
    while len(page) < _PAGE_BYTES and (part := await response.content.read(_PAGE_BYTES - len(page))):
        page += part
    return page.decode("utf-8", "replace")

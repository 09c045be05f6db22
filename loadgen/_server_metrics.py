"""The server's own metrics, once a second, where it has a Prometheus page at /metrics."""

from __future__ import annotations

import asyncio
import json
import re
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import aiohttp

from loadgen._clock import Timeline
from loadgen._settings import Settings, base_url

_SAMPLE = re.compile(r"^([a-zA-Z_:][\w:]*)(?:\{[^}]*\})?\s+([-+0-9.eEnNaAiIfF]+)")
_SERVER_PREFIXES = ("vllm:", "sglang:", "tgi_")
_LEFT_OUT = ("_bucket", "_created")


def samples(text: str) -> dict[str, float]:
    """The model server's samples by name, summed over their labels; histograms keep their sum and count."""
    found: dict[str, float] = defaultdict(float)
    for line in text.splitlines():
        if not line.startswith(_SERVER_PREFIXES):
            continue
        match = _SAMPLE.match(line)
        if match and not match.group(1).endswith(_LEFT_OUT):
            found[match.group(1)] += float(match.group(2))
    return dict(found)


async def watch_server(
    settings: Settings, headers: dict[str, str], timeline: Timeline, emit: Callable[[dict[str, Any]], None]
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
                    if response.status != 200:
                        return
                    found = samples(await response.text(errors="replace"))
            except (aiohttp.ClientError, TimeoutError, OSError):
                found = {}  # a server that is down for a while is asked again
            if found:
                emit({"op": "server", "line": json.dumps({"t_ns": timeline.now_ns()} | found).encode()})
            await asyncio.sleep(1.0)

"""What is sampled once a second: the engine itself, and the server's own metrics.

The engine's line says whether it is the client that is slow. The server's metrics are those of its Prometheus
page at /metrics, where it has one.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import aiohttp
import msgspec
import psutil

from loadgen._messages import HealthSampled, ServerSampled
from loadgen._settings import Settings, base_url
from loadgen.engine._run import EngineRun
from turnbench.clock import Timeline
from turnbench.formats import HealthLine

_TICK_S = 0.02


class LoopLag:
    """How late the event loop wakes a sleeper; the worst since the last look."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._worst_ns = 0

    async def run(self) -> None:
        while True:
            due_ns = self._timeline.now_ns() + int(_TICK_S * 1e9)
            await asyncio.sleep(_TICK_S)
            self._worst_ns = max(self._worst_ns, self._timeline.now_ns() - due_ns)

    def take_ms(self) -> float:
        worst, self._worst_ns = self._worst_ns, 0
        return round(worst / 1e6, 3)


class Stolen:
    """What the host of a virtual machine took of its CPU time since the last look (`steal` in proc(5)).

    A stopped CPU stamps nothing, so what came meanwhile looks late by either clock.
    """

    def __init__(self) -> None:
        self._before = psutil.cpu_times(percpu=True)

    def take_share(self) -> float | None:
        """Of the time of the CPU that lost the most; None where the system does not say."""
        before, self._before = self._before, psutil.cpu_times(percpu=True)
        shares = [_stolen_share(*pair) for pair in zip(before, self._before, strict=False)]
        return max((share for share in shares if share is not None), default=None)


def _stolen_share(before: Any, after: Any) -> float | None:
    passed = {name: value - getattr(before, name) for name, value in after._asdict().items()}
    if "steal" not in passed:
        return None
    total_s = sum(passed.values()) - passed["guest"] - passed["guest_nice"]  # they are in user and nice
    return round(min(max(passed["steal"] / total_s, 0.0), 1.0), 4) if total_s > 0 else None


class Health:
    """Makes the health lines of one worker."""

    def __init__(self, run: EngineRun) -> None:
        self._run = run
        self._process = psutil.Process()
        self._process.cpu_percent()
        self._stolen = Stolen()
        self.lag = LoopLag(run.timeline)

    def line(self) -> bytes:
        """The next line of health-W.jsonl; lag, CPU and stolen time are those since the line before."""
        ledger = self._run.ledger
        return msgspec.json.encode(
            HealthLine(
                t_ns=self._run.timeline.now_ns(),
                worker=self._run.job.worker,
                loop_lag_ms=self.lag.take_ms(),
                cpu_share=round(self._process.cpu_percent() / 100, 4),
                stolen_share=self._stolen.take_share(),
                rss_mb=round(self._process.memory_info().rss / 1e6, 1),
                files=self._process.num_fds(),
                in_flight=len(self._run.in_flight),
                planned=ledger.planned,
                dropped=ledger.dropped,
                begun=ledger.begun,
                finished=ledger.finished,
            )
        )

    async def run(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            self._run.emit(HealthSampled(self.line()))


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

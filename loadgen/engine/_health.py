"""What is sampled once a second: the engine itself, and the server's own metrics.

The engine's line says whether it is the client that is slow. The server's metrics are those of its Prometheus
page at /metrics, where it has one.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, TypeVar

import aiohttp
import msgspec
import psutil
from prometheus_client.parser import text_string_to_metric_families

from loadgen._messages import GpuSampled, HealthSampled, ServerSampled
from loadgen.engine._run import EngineRun
from loadgen.options._endpoint import address_of
from loadgen.options._headers import headers_of, secrets_of
from loadgen.options._settings import Settings
from loadgen.options._tls import ssl_of
from turnbench.clock import Timeline
from turnbench.formats import HealthLine
from turnbench.gpu_metrics import gpu_samples
from turnbench.server_metrics import HISTOGRAMS, PREFIXES, TELLING_LABELS, bucket_name, is_share

_TICK_S = 0.02
_RESET_S = 3.0
_OF_A_TURN = ("Content-Type", "Accept")
T = TypeVar("T")


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
                cpu_share=_sampled(lambda: round(self._process.cpu_percent() / 100, 4)),
                stolen_share=_sampled(self._stolen.take_share),
                rss_mb=_sampled(lambda: round(self._process.memory_info().rss / 1e6, 1)),
                files=_sampled(self._process.num_fds),
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


def _sampled(read: Callable[[], T]) -> T | None:
    """What the system says; None where no descriptor is left to ask it with."""
    try:
        return read()
    except (OSError, psutil.Error):
        return None


_CREATED = "_created"
"""The end of the names of samples that say when a counter was made; they are not kept."""
_LABEL = re.compile(r"[\w .-]{1,60}")
_BUCKET_LINE = re.compile(r'([\w:]+)_bucket\{(?:[^}]*,)?le="([^"]{1,30})"[^}]*\} +([^ ]{1,40})')
_METRICS_PAGES = ("/metrics", "/metrics/", "/prometheus/metrics/")
"""Where servers have their metrics: LiteLLM redirects to the second; TensorRT-LLM's first is JSON, its own
names are in the third."""
_EVERY_S = 1.0
_PAGE_BYTES = 4 << 20
_LINE_CHARS = 4096
_LINES_A_ROUND = 10
"""Lines that are parsed before the event loop looks at its sockets again: a page takes milliseconds."""


async def reset_prefix_cache(settings: Settings) -> bool:
    """Ask the server to empty its prefix cache, as vLLM's development mode can; False if it can't."""
    address = address_of(settings.host)
    sent = {name: value for name, value in headers_of(settings).items() if name not in _OF_A_TURN}
    connector: aiohttp.BaseConnector = (
        aiohttp.TCPConnector(ssl=ssl_of(settings))
        if address.socket is None
        else aiohttp.UnixConnector(address.socket)
    )
    timeout = aiohttp.ClientTimeout(total=min(settings.connect_timeout_s, _RESET_S))
    try:
        async with (
            aiohttp.ClientSession(
                timeout=timeout, headers=sent, trust_env=settings.trust_env, connector=connector
            ) as session,
            session.post(address.of_server("/reset_prefix_cache"), allow_redirects=False) as response,
        ):
            return response.status == 200
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
        return False


async def watch_server(
    settings: Settings, headers: dict[str, str], timeline: Timeline, emit: Callable[[ServerSampled], None]
) -> None:
    """Emit the server's own metrics once a second until cancelled; ends by itself if it has no such page."""
    address = address_of(settings.host)
    sent = {name: value for name, value in headers.items() if name not in ("Content-Type", "Accept")}
    timeout = aiohttp.ClientTimeout(total=settings.connect_timeout_s)
    secrets = secrets_of(settings, headers)
    connector: aiohttp.BaseConnector = (
        aiohttp.TCPConnector(ssl=ssl_of(settings))
        if address.socket is None
        else aiohttp.UnixConnector(address.socket)
    )
    async with aiohttp.ClientSession(
        timeout=timeout,
        headers=sent,
        trust_env=settings.trust_env,
        cookie_jar=aiohttp.DummyCookieJar(),
        connector=connector,
    ) as session:
        pages = [*_METRICS_PAGES]
        while pages:
            text, asked_ns = "", timeline.now_ns()
            try:
                async with session.get(address.of_server(pages[0]), allow_redirects=False) as response:
                    text = await _page(response) if response.status == 200 else ""
                    if (response.status < 500 and response.status != 200) or text.startswith(("[", "{")):
                        del pages[0]  # it is no such page: the next one may be
                        continue
            except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
                pass  # a server that is down for a while is asked again
            at_ns = (asked_ns + timeline.now_ns()) // 2
            if found := await samples(text):
                emit(ServerSampled(msgspec.json.encode({"t_ns": at_ns} | secrets.scrubbed_json(found))))
            await asyncio.sleep(_EVERY_S)


async def watch_gpus(url: str, timeline: Timeline, emit: Callable[[GpuSampled], None]) -> None:
    """Emit what the GPUs draw once a second until cancelled, from a DCGM exporter's page."""
    timeout = aiohttp.ClientTimeout(total=_EVERY_S)
    async with aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as session:
        while True:
            text, asked_ns = "", timeline.now_ns()
            try:
                async with session.get(url, allow_redirects=False) as response:
                    text = await _page(response) if response.status == 200 else ""
            except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
                pass  # an exporter that is down for a while is asked again
            for sample in gpu_samples(text, (asked_ns + timeline.now_ns()) // 2):
                emit(GpuSampled(msgspec.json.encode(sample)))
            await asyncio.sleep(_EVERY_S)


async def _page(response: aiohttp.ClientResponse) -> str:
    """The page's text, as far as a page of this sort goes."""
    page = bytearray()
    while len(page) < _PAGE_BYTES and (part := await response.content.read(_PAGE_BYTES - len(page))):
        page += part
    return page.decode("utf-8", "replace")


async def samples(text: str) -> dict[str, float]:
    """The model server's finite samples by name: counts summed over their labels, shares averaged.

    Histograms keep their sum and count, and the known ones of waits their buckets. Lines are parsed one by
    one: what is broken in one discards that one alone, and a counter without `_total` keeps the name that the
    server gave it.
    """
    lines = [line for line in text.splitlines() if line.startswith(PREFIXES)]
    found: dict[str, list[float]] = defaultdict(list)
    for number, line in enumerate(lines, start=1):
        if len(line) <= _LINE_CHARS:
            # The parser raises IndexError for some broken labels; a count may be too large for a float.
            with suppress(ValueError, IndexError, OverflowError):
                for name, value in _samples_of(line):
                    if math.isfinite(value):
                        found[name].append(value)
        if number % _LINES_A_ROUND == 0:
            await asyncio.sleep(0)
    totals = {name: sum(each) / (len(each) if is_share(name) else 1) for name, each in found.items()}
    return {name: value for name, value in totals.items() if math.isfinite(value)}


def _samples_of(line: str) -> Iterator[tuple[str, float]]:
    if "_bucket{" in line:  # most lines of a page; a full parse of each would take too long
        match = _BUCKET_LINE.match(line)
        if match is not None and match[1] in HISTOGRAMS:
            float(match[2])  # a bound that is no number is none
            yield bucket_name(match[1], match[2]), float(match[3])
        return
    for family in text_string_to_metric_families(line):
        for sample in family.samples:
            name = str(sample.name)
            if not name.endswith(_CREATED):
                label = TELLING_LABELS.get(name)
                if label is not None and _LABEL.fullmatch(sample.labels.get(label, "")):
                    name += f'{{{label}="{sample.labels[label]}"}}'
                yield name, float(sample.value)

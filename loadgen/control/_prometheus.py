"""`--metrics-port`: the numbers of the run under way as Prometheus scrapes them.

Names and units follow Prometheus' conventions: base units, `_total` for counters. Counters and histograms are
of all turns of the run, its warm-ups too, and begin at 0 with each run. Times are those of
`turnbench.metrics`, and the buckets of TTFT are vLLM's own, so that the server's histogram can be laid over
the client's. Nothing that a server says becomes a label, and beyond `TASKS_MAX` tasks the rest count as one.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import gevent.pywsgi
from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics, make_wsgi_app
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from loadgen.control._live import DRAINING, LiveSnapshot
from loadgen.control._state import RunState
from loadgen.options._values import ListenAt
from turnbench.formats import TurnRecord
from turnbench.outcomes import ANSWERED

logger = logging.getLogger(__name__)

TASKS_MAX = 50
OTHER_TASKS = "(other tasks)"
TTFT_BUCKETS_S = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160,
    640,
)  # fmt: skip
TTG_BUCKETS_S = (
    0.05, 0.1, 0.2, 0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960,
)  # fmt: skip


class RunExposition(Collector):
    """What Prometheus sees of one run."""

    def __init__(self, run: RunState, look: Callable[[], LiveSnapshot]) -> None:
        self._run = run
        self._look = look
        self.registry = CollectorRegistry()
        self.registry.register(self)  # first: a look brings the counters up to now
        self._turns = Counter(
            "turnbench_turns", "Turns that ended, by outcome; with --retry each attempt counts.",
            ["task", "outcome"], registry=self.registry,
        )  # fmt: skip
        self._tokens = Counter(
            "turnbench_output_tokens", "Tokens of turns that ended.", ["task"], registry=self.registry
        )
        self._ttft = Histogram(
            "turnbench_time_to_first_token_seconds", "TTFT: last byte of the request to first content.",
            ["task"], registry=self.registry, buckets=TTFT_BUCKETS_S,
        )  # fmt: skip
        self._ttg = Histogram(
            "turnbench_time_to_generate_seconds",
            "TTG: last byte of the request to last content; whole answers.",
            ["task"], registry=self.registry, buckets=TTG_BUCKETS_S,
        )  # fmt: skip
        self._tasks: set[str] = set()
        run.live.on_turns = self._take

    def _take(
        self, records: Sequence[TurnRecord], ttft_ms: list[float], ttg_ms: list[float], tokens: list[float]
    ) -> None:
        for record, ttft, ttg, count in zip(records, ttft_ms, ttg_ms, tokens, strict=True):
            task = self._task(record.task)
            self._turns.labels(task, record.outcome).inc()
            if count > 0:  # a server may say anything
                self._tokens.labels(task).inc(count)
            if not math.isnan(ttft):
                self._ttft.labels(task).observe(ttft / 1e3)
            if record.outcome in ANSWERED and not math.isnan(ttg):
                self._ttg.labels(task).observe(ttg / 1e3)

    def _task(self, name: str) -> str:
        if name not in self._tasks and len(self._tasks) >= TASKS_MAX:
            return OTHER_TASKS
        self._tasks.add(name)
        return name

    def collect(self) -> Iterator[Metric]:
        """The gauges, as the run stands now."""
        seen = self._look()
        view, client = self._run.live.level, seen.client
        gauges: list[tuple[str, str, float | None]] = [
            ("people", "Simulated people that are there.", seen.people),
            ("streams_in_flight", "Requests under way.", seen.in_flight),
            ("level", "Level under way, from 1; 0: none.", 0 if view is None else view.number),
            ("level_people", "People that the level asks for.", None if view is None else view.load.users),
            ("level_arrivals_per_second", "Conversations a second that the level asks for.",
             None if view is None else view.load.rate_per_s),
            ("measuring", "1 while turns that are sent count: the level's window is open.",
             seen.measured and seen.phase != DRAINING),
            ("client_lag_seconds", "The latest wake-up of an engine's event loop in the last 10 s.",
             None if client.lag_ms is None else client.lag_ms / 1e3),
            ("client_cpu_ratio", "Share of one core that the busiest engine takes.", client.cpu_share),
            ("workers", "Engines that said something in the last 3 s.", client.workers),
        ]  # fmt: skip
        for name, what, value in gauges:
            if value is not None:
                yield GaugeMetricFamily(f"turnbench_{name}", what, value=value)
        findings = GaugeMetricFamily(
            "turnbench_findings", "What is wrong with the run, by how bad.", labels=["level"]
        )
        for level in ("invalid", "suspect"):
            count = sum(finding.level == level for finding in self._run.manifest.findings)
            findings.add_metric([level], count)
        yield findings
        clock = GaugeMetricFamily(
            "turnbench_client_clock_info", "The clock of the newest turn.", labels=["clock"]
        )
        if client.clock is not None:
            clock.add_metric([client.clock], 1)
        yield clock
        run = GaugeMetricFamily(
            "turnbench_run_info", "The run under way, or the last one.",
            labels=["run", "scenario", "model", "emulated"],
        )  # fmt: skip
        run.add_metric([seen.run or "", seen.scenario, seen.model, str(seen.emulated).lower()], 1)
        yield run


class PrometheusPage:
    """Serves /metrics of the newest run, for the life of the process."""

    def __init__(self, at: ListenAt) -> None:
        """Raises OSError if nobody can listen there."""
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a series more for each, which nobody asks for
        self._of_run = _no_run_yet
        self._server = gevent.pywsgi.WSGIServer((at.address, at.port), self._answer, log=None)
        self._server.start()
        logger.info("metrics for Prometheus at http://%s/metrics", at)

    def show(self, run: RunState, look: Callable[[], LiveSnapshot]) -> None:
        """From now on this run's; `look` gives its numbers now."""
        self._of_run = make_wsgi_app(RunExposition(run, look).registry)

    def _answer(self, environ: dict[str, Any], start_response: Any) -> Any:
        if environ.get("PATH_INFO") != "/metrics":
            start_response("404 Not Found", [("Content-Type", "text/plain")])
            return [b"/metrics is the only page here\n"]
        return self._of_run(environ, start_response)


_no_run_yet = make_wsgi_app(CollectorRegistry())

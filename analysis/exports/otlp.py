"""`--to otlp`, and a run's `--otlp`: a span a conversation and a span a turn, and histograms, to a collector.

Made of the records after the run has ended, so nothing of it is in the way of a measurement. Names are those
of OpenTelemetry's semantic conventions for generative AI, version 0.1.0 (a repository of their own since
2026). Spans of warm-ups are sent too, marked by `turnbench.measured`; histograms are of measured turns. Ids
of traces and spans follow from the run and the plan, so a run that is sent twice is the same trace twice.
OTLP over HTTP, to port 4318 of a collector; its headers come from OTEL_EXPORTER_OTLP_HEADERS, as the SDK
reads them.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import groupby, pairwise
from operator import itemgetter
from typing import Any
from urllib.parse import urlsplit

import pandas as pd

from analysis.exports.result import ExportError, RunResult, needs
from turnbench import __version__
from turnbench.cleaning import clean
from turnbench.outcomes import ANSWERED, NOT_BEGUN

DEFAULT_ENDPOINT = "http://127.0.0.1:4318"
_BATCH = 512
"""Spans a request: about 0.3 MB."""
_SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
_PER_CHUNK = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
_TOKENS = tuple(4**power for power in range(14))
_TAKES_NONE = "{url}: the collector took no {what}{why}; see that it listens there for OTLP"
_HISTOGRAMS = {
    "gen_ai.client.inference.duration": ("s", _SECONDS),
    "gen_ai.client.inference.time_to_first_chunk": ("s", _SECONDS),
    "gen_ai.client.inference.time_per_output_chunk": ("s", _PER_CHUNK),
    "gen_ai.client.inference.operation.input_tokens": ("{token}", _TOKENS),
    "gen_ai.client.inference.operation.output_tokens": ("{token}", _TOKENS),
}
"""Units and buckets as the conventions give them."""


_COLUMNS = (
    "conversation", "turn", "attempt", "task", "model", "level", "measured", "outcome", "error", "sent_ns",
    "end_ns", "ttft_ms", "ttg_ms", "response_delay_ms", "max_tokens", "prompt_tokens", "output_tokens",
    "cached_tokens", "reasoning_tokens", "status", "clock", "finish_reason",
)  # fmt: skip
"""Of a turn, what a span says."""


def send(run: RunResult, endpoint: str) -> Iterator[str]:
    """Send a run's spans, then its histograms; what was sent, a line each. Raises ExportError."""
    needs("otlp")
    base = endpoint.rstrip("/")
    yield f"{_send_spans(run, f'{base}/v1/traces'):,} spans to {base}/v1/traces"
    yield f"{_send_histograms(run, f'{base}/v1/metrics'):,} histograms to {base}/v1/metrics"


def _resource(run: RunResult) -> Any:
    from opentelemetry.sdk.resources import Resource

    own = {key.replace("_", ".", 1): value for key, value in run.facts().items()}
    scenario = str(run.study.manifest.settings.get("scenario", ""))
    return Resource(
        {"service.name": "turnbench", "service.version": __version__, "turnbench.scenario": scenario} | own
    )


def _common(run: RunResult, model: str) -> dict[str, Any]:
    """Attributes that spans and histograms share."""
    manifest = run.study.manifest
    dialect, server = str(manifest.settings.get("dialect", "chat")), urlsplit(manifest.endpoint.url)
    found: dict[str, Any] = {
        "gen_ai.operation.name": "text_completion" if dialect == "completions" else "chat",
        "gen_ai.provider.name": "anthropic" if dialect == "messages" else "openai",
        "gen_ai.request.model": model,
    }  # the provider says which API is spoken, whoever serves it
    if server.hostname:
        found["server.address"] = server.hostname
        found["server.port"] = server.port or (443 if server.scheme == "https" else 80)
    return found


@contextmanager
def _refusal() -> Iterator[Callable[[], str]]:
    """What the SDK says of a failed export, which it writes to its log and nowhere else."""
    said: list[str] = []

    class Keep(logging.Handler):
        """Keeps each line of the log."""

        def emit(self, record: logging.LogRecord) -> None:
            said.append(" ".join(record.getMessage().split()))

    log, keep = logging.getLogger("opentelemetry"), Keep()
    log.addHandler(keep)
    log.propagate = False
    try:
        yield lambda: f" ({clean(said[-1].encode())[:200]})" if said else ""
    finally:
        log.removeHandler(keep)
        log.propagate = True


# --- spans ---


class _IdsOfThePlan:
    """Ids that follow from the run and from which conversation and turn it is. Two runs may have a name in
    common, but not the second in which they began."""

    def __init__(self, run: RunResult) -> None:
        self._run = f"{run.study.manifest.started_at}/{run.name}"
        self.conversation, self.turn = 0, ""

    def generate_trace_id(self) -> int:
        return int.from_bytes(self._digest(f"{self.conversation}")[:16])

    def generate_span_id(self) -> int:
        return int.from_bytes(self._digest(f"{self.conversation}/{self.turn}")[:8])

    def _digest(self, which: str) -> bytes:
        return hashlib.sha256(f"{self._run}/{which}".encode()).digest()

    def is_trace_id_random(self) -> bool:
        return False


def _send_spans(run: RunResult, url: str) -> int:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
    from opentelemetry.sdk.trace.export import SpanExportResult
    from opentelemetry.sdk.trace.sampling import ALWAYS_ON

    exporter = OTLPSpanExporter(endpoint=url)
    waiting: list[ReadableSpan] = []
    sent = 0

    def flush() -> None:
        nonlocal sent
        with _refusal() as why:
            if waiting and exporter.export(waiting) is not SpanExportResult.SUCCESS:
                raise ExportError(_TAKES_NONE.format(url=url, what="spans", why=why()))
        sent += len(waiting)
        waiting.clear()

    class Collect(SpanProcessor):  # type: ignore[misc]
        """The SDK's batch processor drops what a slow collector leaves; nothing may be dropped here."""

        def on_end(self, span: ReadableSpan) -> None:
            waiting.append(span)
            if len(waiting) >= _BATCH:
                flush()

    ids: Any = _IdsOfThePlan(run)
    # Whatever OTEL_TRACES_SAMPLER says of other programs here: a sample of the turns is not the run.
    provider = TracerProvider(
        sampler=ALWAYS_ON, resource=_resource(run), id_generator=ids, shutdown_on_exit=False
    )
    provider.add_span_processor(Collect())
    tracer = provider.get_tracer("turnbench", __version__)
    frame = run.study.frame
    begun = frame[frame["sent_ns"].notna() & ~frame["outcome"].isin(NOT_BEGUN)]
    begun = begun.drop_duplicates(["conversation", "turn", "attempt", "due_ns"])  # a batch that came twice
    rows = begun.sort_values(["conversation", "turn", "attempt"])[list(_COLUMNS)].to_dict("records")
    for conversation, turns in groupby(rows, key=itemgetter("conversation")):
        ids.conversation = conversation
        _send_conversation(run, tracer, ids, list(turns))
    flush()
    if rows and not sent:
        raise ExportError("OpenTelemetry's library makes no spans: unset OTEL_SDK_DISABLED")
    return sent


def _send_conversation(run: RunResult, tracer: Any, ids: _IdsOfThePlan, turns: list[dict[Any, Any]]) -> None:
    from opentelemetry import trace

    first, ids.turn = turns[0], ""
    named = {"gen_ai.conversation.id": f"{run.name}/{first['conversation']}"}  # as X-Request-Id has it
    begin_ns, ends_ns = int(first["sent_ns"]), [_end_ns(row) for row in turns]
    parent = tracer.start_span(
        f"conversation {first['task']}",
        start_time=begin_ns,
        attributes=named | {"turnbench.task": first["task"], "turnbench.turns": len(turns)},
    )
    context = trace.set_span_in_context(parent)
    for row, end_ns in zip(turns, ends_ns, strict=True):
        ids.turn = f"{row['turn']}.{row['attempt']}"
        common = _common(run, row["model"])
        span = tracer.start_span(
            f"{common['gen_ai.operation.name']} {row['model']}",
            context=context,
            kind=trace.SpanKind.CLIENT,
            start_time=int(row["sent_ns"]),
            attributes=common | _of_turn(row) | named,
        )
        if row["outcome"] not in ANSWERED:
            span.set_status(trace.StatusCode.ERROR, str(row["error"] or row["outcome"])[:500])
        span.end(end_time=end_ns)
    parent.end(end_time=max(ends_ns))


def _end_ns(row: dict[Any, Any]) -> int:
    """When its last content came; of a turn that ended otherwise, when that was seen."""
    sent_ns = int(row["sent_ns"])
    if row["outcome"] in ANSWERED and not math.isnan(row["ttg_ms"]):
        return sent_ns + int(row["ttg_ms"] * 1e6)
    return sent_ns if pd.isna(row["end_ns"]) else max(int(row["end_ns"]), sent_ns)


def _of_turn(row: dict[Any, Any]) -> dict[str, Any]:
    """Attributes of one turn; those that are not known are left out."""
    found = {
        "gen_ai.request.stream": True,
        "gen_ai.request.max_tokens": row["max_tokens"],
        "gen_ai.response.time_to_first_chunk": row["ttft_ms"] / 1e3,
        "gen_ai.usage.input_tokens": row["prompt_tokens"],
        "gen_ai.usage.output_tokens": row["output_tokens"],
        "gen_ai.usage.cache_read.input_tokens": row["cached_tokens"],
        "gen_ai.usage.reasoning.output_tokens": row["reasoning_tokens"],
        "http.response.status_code": row["status"],
        "turnbench.task": row["task"],
        "turnbench.turn": row["turn"],
        "turnbench.attempt": row["attempt"],
        "turnbench.level": row["level"],
        "turnbench.measured": bool(row["measured"]),
        "turnbench.outcome": row["outcome"],
        "turnbench.clock": row["clock"],
        "turnbench.time_to_generate": row["ttg_ms"] / 1e3,
        "turnbench.late": row["response_delay_ms"] / 1e3 - row["ttft_ms"] / 1e3,
    }
    found = {key: _plain(value) for key, value in found.items() if not pd.isna(value)}
    if row["finish_reason"]:
        found["gen_ai.response.finish_reasons"] = [row["finish_reason"]]
    if row["outcome"] not in ANSWERED:
        found["error.type"] = row["outcome"]
    return found


def _plain(value: Any) -> Any:
    """numpy's numbers as Python's, which the SDK takes."""
    return value.item() if hasattr(value, "item") else value


# --- histograms ---


def _send_histograms(run: RunResult, url: str) -> int:
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader, MetricExportResult

    reader = InMemoryMetricReader()
    provider = MeterProvider(metric_readers=[reader], resource=_resource(run), shutdown_on_exit=False)
    meter = provider.get_meter("turnbench", __version__)
    histograms = {
        name: meter.create_histogram(name, unit, explicit_bucket_boundaries_advisory=list(buckets))
        for name, (unit, buckets) in _HISTOGRAMS.items()
    }
    for part in run.parts():
        common = _common(run, part.model) | {"turnbench.level": part.level.index}
        rows = part.rows
        for row, arrivals_us in zip(rows.to_dict("records"), run.arrivals_us(rows), strict=True):
            wrong = {} if row["outcome"] in ANSWERED else {"error.type": row["outcome"]}
            attributes = common | {"turnbench.task": row["task"]} | wrong
            seconds = (_end_ns(row) - int(row["sent_ns"])) / 1e9 if not pd.isna(row["sent_ns"]) else None
            gaps_s = [(b - a) / 1e6 for a, b in pairwise(arrivals_us.tolist())]
            values = {
                "duration": [seconds], "time_to_first_chunk": [row["ttft_ms"] / 1e3],
                "time_per_output_chunk": gaps_s,
                "operation.input_tokens": [row["prompt_tokens"]],
                "operation.output_tokens": [row["output_tokens"]],
            }  # fmt: skip
            for name, found in values.items():
                for value in found:
                    if not pd.isna(value):
                        histograms[f"gen_ai.client.inference.{name}"].record(value, attributes)
    data = reader.get_metrics_data()
    if data is None:
        return 0
    with _refusal() as why:
        if OTLPMetricExporter(endpoint=url).export(data) is not MetricExportResult.SUCCESS:
            raise ExportError(_TAKES_NONE.format(url=url, what="metrics", why=why()))
    scopes = [scope for resource in data.resource_metrics for scope in resource.scope_metrics]
    counts = [len(metric.data.data_points) for scope in scopes for metric in scope.metrics]
    return sum(counts)

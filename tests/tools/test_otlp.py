"""A run's spans and histograms, received: by a receiver made of OpenTelemetry's own messages, and by MLflow's
server, which speaks OTLP.
"""

from __future__ import annotations

import gzip
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from analysis.exports.command import main
from tests.analysis.conftest import MadeRun, turn
from tests.emulators import emulator
from turnbench.run_directory import read_run

pytestmark = pytest.mark.tools


@dataclass
class Receiver:
    """What came to a collector, decoded by the protocol's own messages; they refuse what isn't OTLP."""

    url: str = ""
    spans: list[Any] = field(default_factory=list)
    resources: list[dict[str, str]] = field(default_factory=list)
    metrics: list[Any] = field(default_factory=list)
    headers: list[str | None] = field(default_factory=list)

    def take(self, path: str, body: bytes) -> None:
        from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        if path == "/v1/traces":
            for of in ExportTraceServiceRequest.FromString(body).resource_spans:
                self.resources.append({each.key: each.value.string_value for each in of.resource.attributes})
                self.spans += [span for scope in of.scope_spans for span in scope.spans]
        else:
            for of in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                self.metrics += [metric for scope in of.scope_metrics for metric in scope.metrics]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    seen = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            seen.headers.append(self.headers["authorization"])
            seen.take(
                self.path, gzip.decompress(body) if self.headers["content-encoding"] == "gzip" else body
            )
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        seen.url = f"http://127.0.0.1:{server.server_address[1]}"
        Thread(target=server.serve_forever, daemon=True).start()
        yield seen
        server.shutdown()


def attributes(span: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in span.attributes}


def test_a_run_with_otlp_sends_a_span_for_each_turn_with_its_own_times(
    receiver: Receiver, tmp_path: Path
) -> None:
    with emulator("--schedule", "fixed", "--ttft", "50ms", "--itl", "5ms", "--tokens", "20") as server:
        said = subprocess.run(
            [sys.executable, "-m", "turnbench", "run", "-H", server, "--levels", "2", "--hold", "3s",
             "--warmup", "0.5s", "--otlp", receiver.url, "--run-dir", str(tmp_path / "run")],
            capture_output=True, text=True,
            env={"PATH": "/usr/bin:/bin", "OTEL_EXPORTER_OTLP_HEADERS": "authorization=k"},
        )  # fmt: skip
    assert f"to {receiver.url}/v1/traces" in said.stdout, said.stdout + said.stderr
    records = {(r.conversation, r.turn): r for r in read_run(tmp_path / "run").turns() if r.sent_ns}
    spans = {attributes(span).get("turnbench.turn"): span for span in receiver.spans}
    turns = [span for span in receiver.spans if "turnbench.turn" in attributes(span)]
    assert len(spans) >= 1
    assert len(turns) == len(records)
    parents = {span.span_id: span for span in receiver.spans if not span.parent_span_id}
    for span in turns:
        told = attributes(span)
        record = records[int(told["gen_ai.conversation.id"].rpartition("/")[2]), told["turnbench.turn"]]
        assert span.start_time_unix_nano == record.sent_ns
        assert span.name == "chat yi-6b"
        assert told["turnbench.outcome"] == record.outcome
        if record.outcome == "ok":
            assert span.end_time_unix_nano - span.start_time_unix_nano == pytest.approx(
                record.event_us[-1] * 1000, abs=1000
            )
            assert told["gen_ai.response.time_to_first_chunk"] == pytest.approx(record.event_us[0] / 1e6)
            assert told["gen_ai.usage.output_tokens"] == record.output_tokens
        parent = parents[span.parent_span_id]
        assert parent.trace_id == span.trace_id
        assert parent.start_time_unix_nano <= span.start_time_unix_nano
        assert parent.end_time_unix_nano >= span.end_time_unix_nano
    assert receiver.resources[0]["turnbench.emulated"] == "true"
    assert receiver.resources[0]["service.name"] == "turnbench"
    assert set(receiver.headers) == {"k"}
    counts = {
        metric.name: sum(point.count for point in metric.histogram.data_points) for metric in receiver.metrics
    }
    measured = sum(attributes(span)["turnbench.measured"] for span in turns)
    assert counts["gen_ai.client.inference.duration"] == measured
    assert all(point.explicit_bounds for metric in receiver.metrics for point in metric.histogram.data_points)
    assert main([str(tmp_path / "run"), "--to", "otlp", "--endpoint", receiver.url]) == 0
    again = receiver.spans[len(receiver.spans) // 2 :]
    assert {span.span_id for span in again} == {span.span_id for span in receiver.spans[: len(again)]}


def test_every_turn_is_sent_under_its_own_number_whatever_other_programs_sample(
    receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    turns = [turn(7, sent_s=6), turn(3, 2, sent_s=9), turn(3, 1, sent_s=7)]  # in the order of their ends
    runs = [MadeRun(tmp_path / where / "made", [*turns, turns[0]]) for where in ("one", "two")]
    runs[1].manifest = {"started_at": "2023-11-15T22:13:20Z"}
    for run in runs:
        assert main([str(run.write()), "--to", "otlp", "--endpoint", receiver.url]) == 0
    first, second = receiver.spans[: len(receiver.spans) // 2], receiver.spans[len(receiver.spans) // 2 :]
    told = [attributes(span) for span in first]
    assert [(each["gen_ai.conversation.id"], each.get("turnbench.turn")) for each in told] == [
        ("made/3", 1), ("made/3", 2), ("made/3", None), ("made/7", 1), ("made/7", None),
    ]  # fmt: skip
    assert len(second) == len(first)
    assert not {span.trace_id for span in first} & {span.trace_id for span in second}


def test_a_library_that_is_switched_off_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    run = MadeRun(tmp_path / "made", [turn(1, sent_s=6)]).write()
    assert main([str(run), "--to", "otlp", "--endpoint", "http://127.0.0.1:9"]) == 2
    assert "unset OTEL_SDK_DISABLED" in capsys.readouterr().err


def test_a_collector_that_is_not_there_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = MadeRun(tmp_path / "made", [turn(n, sent_s=6 + n) for n in range(3)]).write()
    assert main([str(run), "--to", "otlp", "--endpoint", "http://127.0.0.1:9"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith("http://127.0.0.1:9/v1/traces: the collector took no spans")

"""What the emulator records of its own work: the truth log, its lateness, and the counters of /metrics.

Everything runs on the monotonic clock; one reading of the real-time clock at import places it on the Unix
epoch, so that a stepped wall clock bends no interval. This is the reference that a client's times are
compared with, so none of it is shared with the client.
"""

from __future__ import annotations

import time
from array import array
from collections import Counter
from dataclasses import dataclass, field
from itertools import repeat
from operator import floordiv, sub
from typing import BinaryIO

import msgspec

_EPOCH_OFFSET_NS = time.time_ns() - time.monotonic_ns()

BUCKET_NS = 10_000
FOLD_EVENTS = 1_000
SECOND_NS = 1_000_000_000


class TruthRecord(msgspec.Struct, kw_only=True):
    """One line of the truth log. All times are integer nanoseconds since the Unix epoch.

    A moment is taken right after the kernel accepted the last byte of what it stands for. `head_ns` and
    `end_ns` are null where the response never came to that.
    """

    request_id: str | None
    received_ns: int
    head_ns: int | None
    event_ns: list[int]
    """One for each content event of a stream; empty for an answer sent in one piece."""
    event_begun_ns: list[int] = []
    """For each content event a moment from before it was handed to the kernel: nobody can have it earlier."""
    end_ns: int | None
    output_tokens: int
    aborted: bool


class TruthLogFailed(Exception):
    """The truth log cannot be written any more; the text says why."""


class TruthLog:
    """Appends one JSON line a request; does nothing without a file."""

    def __init__(self, file: BinaryIO | None) -> None:
        self._file = file
        self._encode = msgspec.json.Encoder().encode

    @property
    def is_kept(self) -> bool:
        """Whether there is a file to write to."""
        return self._file is not None

    def write(self, record: TruthRecord) -> None:
        """Write and flush one request, its times given on the monotonic clock; raises TruthLogFailed."""
        if self._file is None:
            return
        offset_ns = _EPOCH_OFFSET_NS
        record.received_ns += offset_ns
        record.event_ns = [moment_ns + offset_ns for moment_ns in record.event_ns]
        record.event_begun_ns = [moment_ns + offset_ns for moment_ns in record.event_begun_ns]
        record.head_ns = None if record.head_ns is None else record.head_ns + offset_ns
        record.end_ns = None if record.end_ns is None else record.end_ns + offset_ns
        try:
            self._file.write(self._encode(record) + b"\n")
            self._file.flush()
        except OSError as error:
            raise TruthLogFailed(f"the truth log cannot be written any more ({error.strerror})") from None


class Lateness:
    """How far behind its own schedule the emulator sent: actual minus due, for each content event.

    All streams' events go into the same two columns: a place for each stream would be out of the processor's
    cache whenever its turn comes, with thousands of them.
    """

    def __init__(self) -> None:
        self._due_ns = array("q")
        self._sent_ns = array("q")
        self._buckets: Counter[int] = Counter()
        self._seconds: Counter[int] = Counter()
        self._max_ns = 0

    def note(self, due_ns: int, sent_ns: int) -> None:
        """One event, due and sent at these moments."""
        self._due_ns.append(due_ns)
        self._sent_ns.append(sent_ns)
        if len(self._sent_ns) >= FOLD_EVENTS:
            self.fold()

    def fold(self) -> None:
        """Count what was noted: many at once, since counting each of tens of thousands a second is slow."""
        if not self._sent_ns:
            return
        late_ns = list(map(sub, self._sent_ns, self._due_ns))
        self._max_ns = max(self._max_ns, max(late_ns))
        self._buckets.update(map(floordiv, late_ns, repeat(BUCKET_NS)))
        self._seconds.update(map(floordiv, self._sent_ns, repeat(SECOND_NS)))
        del self._due_ns[:], self._sent_ns[:]

    def percentile_ms(self, share: float) -> float:
        """Upper edge of the bucket that holds this share of the events; 0 when none was sent."""
        below, wanted = 0, share * self._seconds.total()
        for bucket, count in sorted(self._buckets.items()):
            below += count
            if below >= wanted:
                return min((bucket + 1) * BUCKET_NS, self._max_ns) / 1e6
        return 0.0

    def line(self) -> str:
        """The sentence that the emulator prints when it stops."""
        self.fold()
        return (
            f"lateness: {self._seconds.total()} events sent, p50 {self.percentile_ms(0.5):.2f} ms, "
            f"p99 {self.percentile_ms(0.99):.2f} ms, max {self._max_ns / 1e6:.2f} ms, "
            f"peak {max(self._seconds.values(), default=0)} events/s"
        )


@dataclass(slots=True)
class ServerCounters:
    """What /metrics says; totals since the start."""

    running: int = 0
    waiting: int = 0
    kv_usage: float = 0.0
    prompt_tokens: int = 0
    generation_tokens: int = 0
    cache_queries: int = 0
    cache_hits: int = 0
    preemptions: int = 0
    power_w: float | None = None
    """Of the emulated GPU, the mean since the page was last asked for; None where nothing says it."""
    finished: dict[str, int] = field(default_factory=lambda: {"stop": 0, "length": 0, "abort": 0})

    def as_prometheus(self, model: str) -> bytes:
        """The counters in Prometheus' text format, under vLLM's names."""
        name = model.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        labels = f'model_name="{name}",engine="0"'
        lines: list[str] = []

        def add(name: str, kind: str, help_text: str, values: dict[str, float]) -> None:
            lines.extend([f"# HELP vllm:{name} {help_text}.", f"# TYPE vllm:{name} {kind}"])
            lines.extend(f"vllm:{name}{{{labels}{more}}} {float(value)}" for more, value in values.items())

        add("num_requests_running", "gauge", "Requests being answered", {"": self.running})
        add("num_requests_waiting", "gauge", "Requests in the queue", {"": self.waiting})
        usage = "Share of the key-value cache in use; 1 is full"
        add("kv_cache_usage_perc", "gauge", usage, {"": self.kv_usage})
        add("prompt_tokens_total", "counter", "Prompt tokens taken in", {"": self.prompt_tokens})
        add("generation_tokens_total", "counter", "Tokens generated", {"": self.generation_tokens})
        add("prefix_cache_queries_total", "counter", "Prompt tokens looked up", {"": self.cache_queries})
        add("prefix_cache_hits_total", "counter", "Prompt tokens found cached", {"": self.cache_hits})
        add("num_preemptions_total", "counter", "Requests computed again", {"": self.preemptions})
        by_reason = {f',finished_reason="{reason}"': count for reason, count in self.finished.items()}
        add("request_success_total", "counter", "Requests finished, by reason", {**by_reason})
        if self.power_w is not None:
            lines += ["# HELP DCGM_FI_DEV_POWER_USAGE EMULATED power draw (in W)."]
            lines += ["# TYPE DCGM_FI_DEV_POWER_USAGE gauge"]
            lines += [f'DCGM_FI_DEV_POWER_USAGE{{gpu="0"}} {self.power_w:.3f}']
        return ("\n".join(lines) + "\n").encode()


@dataclass(slots=True)
class ServerRecords:
    """Everything that a reply is recorded in."""

    truth: TruthLog
    lateness: Lateness = field(default_factory=Lateness)
    counters: ServerCounters = field(default_factory=ServerCounters)

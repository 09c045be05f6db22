"""The file of faults: what goes wrong, and in which requests. All its mistakes are reported at once.

    format: turnbench-faults/1
    seed: 7                  # of the rates (default 0)
    close_idle: 5s           # close connections that were idle this long
    faults:                  # the first that applies to a request happens
      - {fault: reset, requests: [3, 10-12], after_events: 5}
      - {fault: status, status: 429, retry_after_s: 2, rate: 0.05}
      - {fault: freeze, every: 50, for: 2s}

Requests are numbered from 1 in the order in which they come; only requests to generate text count. The
classes below are the faults, each with the settings that it takes.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator

from turnbench.checked_yaml import checked
from turnbench.problems import FileProblems
from turnbench.units import seconds

FORMAT = "turnbench-faults/1"
MOST_BYTES = 256 * 2**20


class FaultFileProblems(FileProblems):
    """The file of faults can't be used."""


def _request_numbers(value: Any) -> tuple[tuple[int, int], ...]:
    """(first, last) of each: 3, 10-12, or a list of these."""
    spans = []
    for each in value if isinstance(value, list) else [value]:
        match = re.fullmatch(r"([1-9]\d{0,11})(?:-([1-9]\d{0,11}))?", str(each))
        if match is None or type(each) not in (int, str) or int(match[2] or match[1]) < int(match[1]):
            raise ValueError("'requests' must be request numbers from 1 on: 3, 10-12, or a list of these")
        spans.append((int(match[1]), int(match[2] or match[1])))
    if not spans:
        raise ValueError("'requests' names no request")
    return tuple(spans)


def _time_ns(value: Any) -> Any:
    if type(value) in (str, int, float):
        return round(seconds(str(value)) * 1e9)
    raise ValueError("a time is needed, such as 100ms or 2s")


TimeNs = Annotated[int, BeforeValidator(_time_ns)]
ByteCount = Annotated[int, Field(ge=1, le=MOST_BYTES)]
AfterEvents = Annotated[int, Field(ge=0, le=10**9)]


class Fault(BaseModel):
    """One fault, and when it happens: in these requests, in every so many, or in this share of them."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    fault: str
    requests: Annotated[tuple[tuple[int, int], ...] | None, BeforeValidator(_request_numbers)] = None
    every: Annotated[int, Field(ge=1, le=10**12)] | None = None
    rate: Annotated[float, Field(gt=0, le=1)] | None = Field(default=None, validate_default=True)

    @field_validator("rate")
    @classmethod
    def _said_when(cls, rate: float | None, info: ValidationInfo) -> float | None:
        # A key that has a mistake is not in the data; it was given, all the same.
        given = [key for key in ("requests", "every") if info.data.get(key, "a mistake") is not None]
        if len(given) + (rate is not None) != 1:
            raise ValueError(f"{info.data.get('fault')}: say when, by one of requests, every, rate")
        return rate

    def applies(self, number: int, chance: float) -> bool:
        """Whether it happens to the request with this number and this uniform draw."""
        if any(first <= number <= last for first, last in self.requests or ()):
            return True
        return bool(self.every and number % self.every == 0) or chance < (self.rate or 0.0)


class StatusFault(Fault):
    """An error status instead of an answer."""

    fault: Literal["status"]
    status: Annotated[int, Field(ge=300, le=599)] = 503
    retry_after_s: Annotated[int, Field(ge=0, le=10**6)] | None = None
    body_bytes: Annotated[int, Field(ge=0, le=MOST_BYTES)] = 0
    """The error object is padded to this size."""


class HtmlFault(Fault):
    """A proxy's page instead of an answer, with status 200."""

    fault: Literal["html"]


class RedirectFault(Fault):
    """A redirect instead of an answer."""

    fault: Literal["redirect"]
    status: Annotated[int, Field(ge=300, le=599)] = 307
    location: Annotated[str, Field(pattern=r"^[!-~]{1,2000}$")] = "https://example.com/v1/chat/completions"


class DieFault(Fault):
    """The emulator's process ends at once."""

    fault: Literal["die"]


class FreezeFault(Fault):
    """The emulator does nothing at all for this long, for anyone."""

    fault: Literal["freeze"]
    for_ns: TimeNs = Field(default=1_000_000_000, alias="for")


class LaterFault(Fault):
    """A fault that happens after so many events with text; 0: before the first byte of the head."""

    after_events: AfterEvents = 3


class ResetFault(LaterFault):
    """The connection is reset."""

    fault: Literal["reset"]


class EofFault(LaterFault):
    """The answer ends too early."""

    fault: Literal["eof"]
    end: Literal["chunk", "connection"] = "chunk"
    """chunk: the body ends as it should; connection: the connection is closed in the middle of it."""


class HangFault(LaterFault):
    """Nothing more is sent, and the connection stays open."""

    fault: Literal["hang"]


class DripFault(LaterFault):
    """What is left comes slowly: so many bytes (0: one write) after each gap."""

    fault: Literal["drip"]
    bytes: ByteCount | Literal[0] = 0
    gap_ns: TimeNs = Field(default=1_000_000_000, alias="gap")


class EndlessFault(Fault):
    """The stream goes on for ever, one event after each gap."""

    fault: Literal["endless"]
    gap_ns: TimeNs = Field(default=1_000_000, alias="gap")


class SplitFault(Fault):
    """The stream comes in pieces of so many bytes, one after each gap."""

    fault: Literal["split"]
    bytes: ByteCount = 1
    gap_ns: TimeNs = Field(default=1_000_000, alias="gap")


class CoalesceFault(Fault):
    """So many events are sent in one write."""

    fault: Literal["coalesce"]
    events: Annotated[int, Field(ge=2, le=10**6)] = 8


class GrammarFault(Fault):
    """Events in another form of the grammar, or compressed; what they say stays."""

    fault: Literal["crlf", "cr", "bom", "comments", "event_lines", "multi_line", "gzip"]


class InsertedFault(LaterFault):
    """An event that is no JSON, or an error object that ends the stream."""

    fault: Literal["bad_json", "error_event"]


class OversizedFault(LaterFault):
    """An event with so many bytes of text."""

    fault: Literal["oversized"]
    bytes: ByteCount = 2 * 2**20


class ContentFault(Fault):
    """No text, or no usage."""

    fault: Literal["empty", "usage_absent"]


class ReasoningFault(Fault):
    """All text is reasoning."""

    fault: Literal["reasoning_only"]
    key: Literal["reasoning", "reasoning_content"] = "reasoning"


class UsageFault(Fault):
    """The final usage has this many output tokens more (or, negative, fewer) than there were."""

    fault: Literal["usage_wrong"]
    by: Annotated[int, Field(ge=-(10**6), le=10**6)] = 5


AnyFault = Annotated[
    StatusFault
    | HtmlFault
    | RedirectFault
    | DieFault
    | FreezeFault
    | ResetFault
    | EofFault
    | HangFault
    | DripFault
    | EndlessFault
    | SplitFault
    | CoalesceFault
    | GrammarFault
    | InsertedFault
    | OversizedFault
    | ContentFault
    | ReasoningFault
    | UsageFault,
    Field(discriminator="fault"),
]

FAULTS: tuple[str, ...] = tuple(
    word
    for kind in get_args(get_args(AnyFault)[0])
    for word in get_args(kind.model_fields["fault"].annotation)
)
"""The name of every fault."""


class FaultPlan(BaseModel):
    """All that shall go wrong; the same file gives the same faults for the same request numbers."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    format: Literal["turnbench-faults/1"]
    seed: Annotated[int, Field(ge=0, le=2**63)] = 0
    close_idle_ns: TimeNs | None = Field(default=None, alias="close_idle")
    faults: list[AnyFault] = []

    def fault(self, number: int) -> Fault | None:
        """What happens to the request with this number, if anything."""
        for index, fault in enumerate(self.faults):
            digest = hashlib.blake2b(f"{self.seed} {index} {number}".encode(), digest_size=6).digest()
            if fault.applies(number, int.from_bytes(digest, "big") / 2**48):
                return fault
        return None


def read_faults(path: Path) -> FaultPlan:
    """The checked plan; raises FaultFileProblems with every mistake."""
    start = f"format: {FORMAT}"
    return checked(FaultPlan, path, "file of faults", start=start, error=FaultFileProblems)

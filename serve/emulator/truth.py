"""The truth log: when each event of each request really went out, by the server's own clock."""

from __future__ import annotations

from typing import BinaryIO

import msgspec

from serve.emulator.clock import epoch_ns


class Truth(msgspec.Struct, kw_only=True):
    """One line of the truth log. All times are integer nanoseconds since the Unix epoch.

    A moment is taken right after the kernel accepted the last byte of what it stands for. `head_ns` and
    `end_ns` are null where the response never came to that.
    """

    request_id: str | None
    received_ns: int
    head_ns: int | None
    event_ns: list[int]
    """One for each content event of a stream; empty for an answer sent in one piece."""
    end_ns: int | None
    output_tokens: int
    aborted: bool


class TruthLost(Exception):
    """The truth log cannot be written any more; the text says why."""


class TruthLog:
    """Appends one JSON line a request; does nothing without a file."""

    def __init__(self, file: BinaryIO | None) -> None:
        self._file = file
        self._encode = msgspec.json.Encoder().encode

    @property
    def is_kept(self) -> bool:
        return self._file is not None

    def write(self, truth: Truth) -> None:
        """Write and flush one request, its times given on the monotonic clock; raises TruthLost."""
        if self._file is None:
            return
        truth.received_ns = epoch_ns(truth.received_ns)
        truth.event_ns = [epoch_ns(moment) for moment in truth.event_ns]
        truth.head_ns = None if truth.head_ns is None else epoch_ns(truth.head_ns)
        truth.end_ns = None if truth.end_ns is None else epoch_ns(truth.end_ns)
        try:
            self._file.write(self._encode(truth) + b"\n")
            self._file.flush()
        except OSError as error:
            raise TruthLost(f"the truth log cannot be written any more ({error.strerror})") from None

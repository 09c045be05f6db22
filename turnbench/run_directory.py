"""Reads a run directory, or a sweep of them, whatever state a crash left it in.

Everything in it may be foreign or broken: what can be used is used, field by field, and the rest is noted.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from turnbench.files import open_file, regular_file
from turnbench.formats import (
    RUN_FORMAT,
    SWEEP_FORMAT,
    GpuSample,
    HealthLine,
    RunManifest,
    ServerSample,
    SweepManifest,
    TurnRecord,
)
from turnbench.formats.reading import read_leniently
from turnbench.formats.turn import decode
from turnbench.outcomes import ANSWERED, is_cut_reasoning

Manifest = TypeVar("Manifest", RunManifest, SweepManifest)

_health_decoder = msgspec.json.Decoder(HealthLine)
_gpu_decoder = msgspec.json.Decoder(GpuSample)
_MOST = 2**62


class RunError(Exception):
    """A run directory that can't be read; the message is one line for a person."""


@dataclass
class RunDirectory:
    """A run directory; turns and samples are read from disk on demand."""

    path: Path
    manifest: RunManifest
    """run.json; what could not be used of it has its default."""
    notes: list[str] = field(default_factory=list)
    """What in run.json could not be used, a line each."""
    torn: int = 0
    """Lines that could not be read, known once `turns()`, `health()` or `server()` ended."""

    def turns(self) -> Iterator[TurnRecord]:
        """Every whole TurnRecord of every worker, in no particular order."""
        for line in self._lines("turns-*.jsonl"):
            try:
                record = decode(line)
            except (ValueError, RecursionError):
                self.torn += 1
                continue
            if is_cut_reasoning(record.outcome, record.finish_reason):  # as older versions wrote it
                record.outcome, record.error = "ok", None
            if record.outcome in ANSWERED and (record.sent_ns is None or record.end_ns is None):
                self.torn += 1  # no answer without a request: nothing of it could be a time
                continue
            yield record

    def health(self) -> Iterator[HealthLine]:
        """One line a second and worker, about the engines themselves.

        Of a worker that was killed one more, of counts alone: as they were when its last turn began.
        """
        for line in self._lines("health-*.jsonl", "counts-*.json"):
            try:
                yield _health_decoder.decode(line)
            except (ValueError, RecursionError):
                found = read_leniently(HealthLine, self._value(line), [])
                if found is not None:
                    yield found

    def server(self) -> Iterator[ServerSample]:
        """The server's own metrics, a sample a second; values that are no numbers are discarded."""
        for line in self._lines("server.jsonl"):
            found = self._value(line)
            numbers = {k: v for k, v in found.items() if _is_number(v)} if isinstance(found, dict) else {}
            if isinstance(t_ns := numbers.pop("t_ns", None), int):
                yield ServerSample(t_ns, numbers)

    def gpus(self) -> Iterator[GpuSample]:
        """What the GPUs drew, a sample a second and GPU."""
        for line in self._lines("gpu.jsonl"):
            try:
                yield _gpu_decoder.decode(line)
            except (ValueError, RecursionError):
                self.torn += 1

    def scenario_text(self) -> str | None:
        """The scenario exactly as played, or None where the file is missing."""
        path = self.path / "scenario.yaml"
        return regular_file(path).read_text(encoding="utf-8", errors="replace") if path.exists() else None

    def _value(self, line: bytes) -> Any:
        """The JSON value of a line; None, and counted as torn, where it holds none."""
        try:
            return json.loads(line)
        except (ValueError, RecursionError):
            self.torn += 1
            return None

    def _lines(self, *patterns: str) -> Iterator[bytes]:
        for path in (path for pattern in patterns for path in sorted(self.path.glob(pattern))):
            with open_file(path) as file:
                yield from (line for line in file if line.strip())


def read_run(path: str | Path) -> RunDirectory:
    """Open a run directory; raises RunError if it holds no readable run.json of this format."""
    folder, notes = Path(path), list[str]()
    manifest = _manifest(RunManifest, folder / "run.json", RUN_FORMAT, notes)
    if manifest is None:
        runs = sorted(each.parent.name for each in folder.glob("*/run.json"))
        such = folder / runs[0] if runs else "runs/LATEST"
        raise RunError(f"{folder}: no run.json here; name the directory of one run, such as {such}")
    return RunDirectory(folder, manifest, notes)


def read_sweep(path: str | Path) -> SweepManifest | None:
    """The sweep.json of a directory, None where there is none; raises RunError if it is not of its format."""
    return _manifest(SweepManifest, Path(path) / "sweep.json", SWEEP_FORMAT, [])


def _manifest(kind: type[Manifest], path: Path, expected: str, notes: list[str]) -> Manifest | None:
    try:
        written = json.loads(regular_file(path).read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path}: not readable as JSON ({error})") from None
    found = written.get("format") if isinstance(written, dict) else None
    if found != expected:
        raise RunError(
            f"{path}: format {found!r}; this version reads {expected!r} only: "
            "analyse it with the turnbench that wrote it"
        )
    return read_leniently(kind, written, notes)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _MOST

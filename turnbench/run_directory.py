"""Reads a run directory back, whatever state a crash left it in."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from turnbench.formats import TurnRecord
from turnbench.formats.turn import decode

RUN_FORMAT = "turnbench-run/1"


class RunError(Exception):
    """A run directory that can't be read; the message is one line for a person."""


@dataclass
class RunDirectory:
    """A run directory: `manifest` is run.json; turns and samples are read from disk on demand.

    `torn` counts lines that could not be decoded, known once `turns()`, `health()` or `server()` ended.
    """

    path: Path
    manifest: dict[str, Any]
    torn: int = 0

    def turns(self) -> Iterator[TurnRecord]:
        """Every whole TurnRecord of every worker, in no particular order."""
        for line in self._lines("turns-*.jsonl"):
            try:
                yield decode(line)
            except (msgspec.DecodeError, RecursionError):
                self.torn += 1

    def health(self) -> Iterator[dict[str, Any]]:
        """One dict a second and worker: `t_ns worker loop_lag_ms cpu_share rss_mb files in_flight`
        and the cumulative `planned dropped begun finished`."""
        return self._dicts("health-*.jsonl")

    def server(self) -> Iterator[dict[str, Any]]:
        """The server's own metrics: `t_ns` and the Prometheus samples under their own names."""
        return self._dicts("server.jsonl")

    def scenario_text(self) -> str | None:
        """The scenario exactly as played, or None where the file is missing."""
        path = self.path / "scenario.yaml"
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else None

    def _dicts(self, pattern: str) -> Iterator[dict[str, Any]]:
        for line in self._lines(pattern):
            try:
                yield json.loads(line)
            except (ValueError, RecursionError):
                self.torn += 1

    def _lines(self, pattern: str) -> Iterator[bytes]:
        for path in sorted(self.path.glob(pattern)):
            with path.open("rb") as file:
                yield from (line for line in file if line.strip())


def read_run(path: str | Path) -> RunDirectory:
    """Open a run directory; raises RunError if it holds no readable run.json of this format."""
    folder = Path(path)
    try:
        manifest = json.loads((folder / "run.json").read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise RunError(f"{folder}: no run.json here; name a run directory such as runs/LATEST") from None
    except (ValueError, RecursionError) as error:
        raise RunError(f"{folder}/run.json: not readable as JSON ({error})") from None
    found = manifest.get("format") if isinstance(manifest, dict) else None
    if found != RUN_FORMAT:
        raise RunError(
            f"{folder}/run.json: format {found!r}; this version reads {RUN_FORMAT!r} only: "
            "analyse it with the turnbench that wrote it"
        )
    return RunDirectory(folder, manifest)

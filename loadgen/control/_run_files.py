"""Writes a run directory, on the one machine that directs the run: its name, run.json, records, LATEST.

Errors of the disk are raised as OSError; the run's state decides what they mean.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

import msgspec

from loadgen.options._endpoint import without_secrets
from loadgen.options._headers import recorded, secrets_here
from loadgen.options._prepare import Prepared, machine, versions
from turnbench.formats import EndpointEntry, HealthLine, RunManifest, counts_line
from turnbench.names import slug


def new_run_dir(asked: str | None, scenario: str, started: datetime, again: bool = False) -> Path:
    """Make the directory of a run that starts now.

    Without `asked`: runs/TIME-SCENARIO, with -2, -3 on a clash. An asked-for directory that exists raises
    FileExistsError, unless `again` (a second start in the web UI): then DIR-2, DIR-3, ...
    """
    stem = Path(asked) if asked else Path("runs") / f"{started:%Y%m%dT%H%M%SZ}-{slug(scenario)}"
    stem.parent.mkdir(parents=True, exist_ok=True)
    number = 1
    while True:
        path = stem if number == 1 else stem.with_name(f"{stem.name}-{number}")
        try:
            path.mkdir()
            return path
        except FileExistsError:
            if asked and not again:
                raise
            number += 1


def new_manifest(prepared: Prepared, salt: str, started: datetime) -> RunManifest:
    """run.json as it is when the run begins."""
    settings, endpoint = prepared.settings, prepared.endpoint
    shown, secrets = recorded(settings, prepared.shape), secrets_here(settings)
    return RunManifest(
        started_at=started.isoformat(timespec="milliseconds"),
        settings=shown,
        seed=settings.seed,
        salt=salt,
        versions=versions(),
        host=machine(),
        endpoint=EndpointEntry(url=without_secrets(endpoint.url), model=secrets.scrubbed(prepared.model)),
        server=secrets.scrubbed_json(endpoint.server | prepared.facts),
        emulated=endpoint.emulated or bool(prepared.facts.get("emulated")),
        labels=shown["labels"],
        slo=prepared.slo,
        skipped=prepared.skipped,
    )


class RunWriter:
    """Append-only record files and run.json. Lines reach the disk when `flush` is called, once a second."""

    def __init__(self, path: Path, manifest: RunManifest, scenario_text: str) -> None:
        self.path = path
        self.manifest = manifest
        self._files: dict[str, IO[bytes]] = {}
        self._counts: dict[int, IO[bytes]] = {}
        (path / "scenario.yaml").write_text(scenario_text, encoding="utf-8")
        self.write_manifest()
        point_latest(path)

    def append(self, kind: str, worker: int, line: bytes) -> None:
        """Add a line to turns-W.jsonl, health-W.jsonl, server.jsonl or gpu.jsonl."""
        name = f"{kind}.jsonl" if kind in ("server", "gpu") else f"{kind}-{worker}.jsonl"
        file = self._files.get(name)
        if file is None:
            file = self._files[name] = (self.path / name).open("ab")
        file.write(line + b"\n")

    def count(self, line: HealthLine) -> None:
        """Replace counts-W.json, a worker's newest counts, at once: nothing of it waits for `flush`.

        For workers on other machines; on this one the engine does it, just before a request is sent.
        """
        file = self._counts.get(line.worker)
        if file is None:
            file = self._counts[line.worker] = self.counts_path(line.worker).open("wb", buffering=0)
        os.pwrite(file.fileno(), counts_line(line), 0)

    def counts_path(self, worker: int) -> Path:
        """Where a worker's newest counts are."""
        return self.path / f"counts-{worker}.json"

    def flush(self) -> None:
        """Write every line so far to the disk."""
        for file in self._files.values():
            file.flush()

    def close(self, lost: Iterable[int] = ()) -> None:
        """Close every file; the first OSError is raised after all were tried.

        Of a worker that was not lost the last health line has the same counts.
        """
        files, self._files = self._files, {}
        counts, self._counts = self._counts, {}
        with ExitStack() as closing:
            for file in counts.values():
                file.close()
            kept = {self.counts_path(worker) for worker in lost}
            for path in {*self.path.glob("counts-*.json")} - kept:
                path.unlink(missing_ok=True)
            for file in files.values():
                closing.callback(file.close)

    def write_manifest(self) -> None:
        """Replace run.json whole, so that a kill leaves the old one or the new one."""
        temporary = self.path / "run.json.new"
        temporary.write_bytes(msgspec.json.format(msgspec.json.encode(self.manifest), indent=2) + b"\n")
        os.replace(temporary, self.path / "run.json")


def point_latest(path: Path) -> None:
    """Make LATEST beside this run or sweep a link to it; the runs of a sweep leave that to the sweep."""
    link = path.parent / "LATEST"
    if (path.parent / "sweep.json").exists() or (link.exists() and not link.is_symlink()):
        return  # or somebody's own file of that name
    temporary = path.parent / f".LATEST-{os.getpid()}"
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(path.name)
    os.replace(temporary, link)


def iso_now() -> str:
    """This moment for run.json: ISO 8601, UTC, milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")

"""What a run writes: manifest and records. A directory that is gone or full ends it, with a finding."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from loadgen._headers import recorded
from loadgen._settings import without_userinfo
from loadgen.control._state import Run, WorkerState
from loadgen.control._writer import iso_now
from loadgen.options._prepare import Prepared, machine, versions
from turnbench.formats import RUN_FORMAT

_ABORT_LEAST_TURNS = 20
_STATUS = {None: "finished", "stopped": "finished", "errors": "finished", "interrupted": "interrupted"}
"""What `status` says of each way to end; an end that was asked for beforehand is one."""


def new_manifest(prepared: Prepared, salt: str, started: datetime) -> dict[str, Any]:
    """run.json as it is when the run begins."""
    settings, endpoint = prepared.settings, prepared.endpoint
    shown = recorded(settings)
    return {
        "format": RUN_FORMAT,
        "status": "running",
        "started_at": started.isoformat(timespec="milliseconds"),
        "ended_at": None,
        "exit_code": None,
        "settings": shown,
        "seed": settings.seed,
        "salt": salt,
        "versions": versions(),
        "host": machine(),
        "endpoint": {"url": without_userinfo(endpoint.url), "model": prepared.model},
        "server": endpoint.server | prepared.facts,
        "emulated": endpoint.emulated or bool(prepared.facts.get("emulated")),
        "workers": [],
        "levels": [],
        "labels": shown["labels"],
        "slo": prepared.slo,
        "skipped": prepared.skipped,
        "findings": [],
    }


def take_batch(run: Run, worker: WorkerState, message: dict[str, Any]) -> None:
    """Write a worker's records down and count them; too many failures end the run, if that was asked for."""
    worker.batches += 1
    try:
        for kind, line in message["lines"]:
            run.writer.append(kind, worker.index, line)
            if kind == "turns":
                worker.records += 1
                if run.lookout is not None:
                    run.lookout(worker, line)
    except OSError as error:
        disk_failed(run, error)
    run.turns += message["turns"]
    run.failed += message["failed"]
    share = run.failed / run.turns if run.turns else 0.0
    too_many = run.turns >= _ABORT_LEAST_TURNS and share > run.prepared.settings.abort_errors
    if too_many and run.ending is None:
        run.finding("suspect", "abort_errors", f"{share:.0%} of {run.turns} turns failed",
                    "the run was ended as --abort-errors asks; look at the outcomes")  # fmt: skip
        run.end("errors")


def write_manifest(run: Run) -> None:
    """Write run.json; a failure ends the run, it never stops the ending."""
    try:
        run.writer.write_manifest()
    except OSError as error:
        disk_failed(run, error)


def flush(run: Run) -> None:
    """Bring the records so far to the disk."""
    try:
        run.writer.flush()
    except OSError as error:
        disk_failed(run, error)


def close_files(run: Run) -> None:
    """Close the records, and write down how the run ended."""
    try:
        run.writer.close()
    except OSError as error:
        disk_failed(run, error)
    run.manifest["status"] = _STATUS.get(run.ending, "failed")
    run.manifest["ended_at"] = iso_now()
    write_manifest(run)


def disk_failed(run: Run, error: OSError) -> None:
    run.unwritable = True
    run.finding("invalid", "not_writable", f"{run.writer.path}: {error.strerror or error}",
                "free space or choose another --run-dir; what was written is kept")  # fmt: skip
    run.end("failed")

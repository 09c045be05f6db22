"""Is every worker still there? One that is lost, late or short of records makes the run INVALID."""

from __future__ import annotations

from typing import Any

from gevent.event import Event
from locust.runners import MasterRunner

from loadgen.control._files import flush
from loadgen.control._state import Run, WorkerState


def watch(runner: Any, run: Run, ended: Event) -> None:
    """Once a second until the end: records to the disk, and a look at whether every worker is still there."""
    while not ended.wait(1.0):
        flush(run)
        if not run.locust_stopped:  # after its own stop Locust forgets the workers for a moment
            look_for_lost(runner, run)


def look_for_lost(runner: Any, run: Run) -> None:
    """End the run if Locust no longer knows one of its workers."""
    for worker in run.alive() if isinstance(runner, MasterRunner) else []:
        node = runner.clients.get(worker.client_id)
        if node is None or node.state == "missing":
            lose(run, worker)


def lose(run: Run, worker: WorkerState) -> None:
    worker.lost = True
    share = f"{1 / len(run.workers):.0%} of the load"
    run.finding(
        "invalid", "worker_lost", f"worker {worker.index} ({worker.client_id}) was lost: {share}",
        "its last records are missing; look at that machine and run again",
    )  # fmt: skip
    run.end("failed")


def late_worker(run: Run, client_id: str) -> None:
    """A worker that joins during a run gets no job: who plays what was fixed at the start."""
    if client_id not in run.workers:
        # Locust moves some of the people to it all the same, so fewer make load than the level says.
        what = f"worker {client_id} joined during the run and stayed idle, with the people Locust gave it"
        run.finding("invalid", "late_worker", what, "start all workers first (--expect-workers N)")


def count_records(run: Run) -> None:
    """Compare what each worker says it sent with what came; for the end, after they were told to finish."""
    for worker in run.alive():
        done = worker.answers.get("done")
        if done is None:
            lose(run, worker)
        elif not run.unwritable and (worker.batches, worker.records) != (done["batches"], done["records"]):
            missing = f"{done['records'] - worker.records} of {done['records']}"
            what = f"{missing} records of worker {worker.index} never came"
            run.finding("invalid", "records_missing", what, "the network to the master lost them; run again")

"""How far each engine's time line is from the conductor's: best of twenty round trips, as NTP does it.

Time lines and not wall clocks are compared, since records and windows are on time lines: a wall clock that
is stepped before or during a run moves neither.

Offset = worker's time - the middle of the round trip; error = half the round trip (Mills, RFC 5905).
"""

from __future__ import annotations

from loadgen.control._conductor import Conductor
from loadgen.control._state import Run, WorkerState

_ROUND_TRIPS = 20
_ANSWER_S = 1.0


def measure_offsets(conductor: Conductor, run: Run) -> None:
    """Keep for every worker the best pair so far, and write `workers` of the manifest."""
    for worker in run.alive():
        for trip in range(_ROUND_TRIPS):
            if not _round_trip(conductor, run, worker, trip):
                break
    run.manifest["workers"] = [
        {
            "index": worker.index,
            "host": worker.client_id.rpartition("_")[0] or "local",
            "clock_offset_ns": worker.offset_ns,
            "clock_error_ns": worker.error_ns,
        }
        for worker in run.workers.values()
    ]


def _round_trip(conductor: Conductor, run: Run, worker: WorkerState, trip: int) -> bool:
    worker.answers.pop("pong", None)
    sent_ns = run.timeline.now_ns()
    conductor.tell(worker, "ping", n=trip)
    conductor.wait_for_one(run, worker, "pong", _ANSWER_S)
    pong = worker.answers.get("pong")
    if pong is None:
        return False
    back_ns = worker.answers["pong"]["received_ns"]
    error_ns = (back_ns - sent_ns) // 2
    offset_ns = pong["here_ns"] - (sent_ns + error_ns)
    if worker.error_ns is None or error_ns < worker.error_ns:
        # An offset within its own error can't be told from none, and on one machine it is none.
        worker.error_ns = error_ns
        worker.offset_ns = offset_ns if abs(offset_ns) > error_ns else 0
    return True

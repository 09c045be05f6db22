"""What Locust's side finds during a run. No Locust is imported here: docs/findings.md is made of it, too."""

from __future__ import annotations

from turnbench.findings import invalid, note, suspect

# fmt: off
LATE_WORKER = invalid("late_worker",
    "worker {} joined during the run and stayed idle, with the people Locust gave it",
    "start all workers first (--expect-workers N)")
ENGINE_LOST = invalid("engine_lost",
    "worker {}: {}",
    "its open turns are lost; see the message, mend the cause and run again")
WORKER_REFUSED = invalid("worker_refused", "worker {}: {}", "mend this on that machine and run again")
COMPRESSED = note("compressed",
    "the server compresses its streams ({}), though asked not to",
    "switch that off for event streams: a token waits until its block is full")
REQUEST_CHANGED = note("request_changed",
    "{}",
    "nothing to mend: answers follow the server's own default there; --body has the last word")
ODD_ANSWERS = note("odd_answers", "{}", "nothing to do; docs/servers.md says how it is read")
CLOCK = note("clock",
    "arrivals are those of the client's reads, not of packets: {}",
    "see docs/clocks.md for the one capability that packets take; or --clock kernel")
PEOPLE_MISSING = invalid("people_missing",
    "{} of {} people came within {:g} s",
    "start fewer people, a higher -r, or more workers")
CUT_LATE = invalid("cut_late",
    "worker {} had not ended level {} in {:g} s",
    "its old streams load the level after it; use more workers")
TURNBENCH_FAILED = invalid("turnbench_failed",
    "{}",
    "a fault of turnbench itself: report it with what was printed, and run again")
WORKER_LOST = invalid("worker_lost",
    "worker {} ({}) was lost: {:.0%} of the load",
    "its last records are missing; look at that machine and run again")
ABORT_ERRORS = suspect("abort_errors",
    "{:.0%} of {} turns got no whole answer",
    "the run was ended as --abort-errors asks; look at the outcomes")
RECORDS_MISSING = invalid("records_missing",
    "{} of {} records of worker {} never came",
    "the network to the master lost them; run again")
NOT_WRITABLE = invalid("not_writable",
    "{}: {}",
    "free space or choose another --run-dir; what was written is kept")
NOTHING_ANSWERED = invalid("no_turns",
    "no turn finished",
    "see that the server answers and the run is longer than an answer takes (turnbench report RUN says more)")
# fmt: on

"""One run from four machines: nothing is lost, nothing is played twice, and a machine that goes is named."""

from __future__ import annotations

import json
import signal
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from tests.net.fleet import WORKERS, Fleet, wait_until
from tests.verdicts import exit_code_of

pytestmark = [pytest.mark.net, pytest.mark.timeout(180)]


def places(fleet: Fleet) -> list[tuple[int, int, int]]:
    """Conversation, turn and worker of every record, by its highest attempt."""
    last = {(t.conversation, t.turn): t.worker for t in fleet.run().turns()}
    return [(conversation, turn, worker) for (conversation, turn), worker in last.items()]


def requests_sent(fleet: Fleet) -> Counter[str]:
    turns = [t for t in fleet.run().turns() if t.sent_ns is not None]
    return Counter(f"{t.run}/{t.conversation}/{t.turn}/{t.attempt}" for t in turns)


def verdict(fleet: Fleet) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((fleet.where / "summary.json").read_bytes())["verdict"]
    return found


def test_the_run_directory_holds_exactly_what_the_server_saw(fleet: Callable[..., Fleet]) -> None:
    one = fleet("--levels", "8,40", "--hold", "4s", "--warmup", "1s", "--drain", "5s")
    assert one.end() == 0, one.said
    truth = Counter(entry["request_id"] for entry in one.truth())
    assert requests_sent(one) == truth
    assert max(truth.values()) == 1
    assert len(truth) > 100
    # Through a bridge and pairs of veth, the wire clock sees every stream.
    assert {turn.clock for turn in one.run().turns() if turn.outcome == "ok"} == {"wire"}
    assert {worker for _, _, worker in places(one)} == set(range(WORKERS))
    assert all(conversation % WORKERS == worker for conversation, _, worker in places(one))
    workers = one.run().manifest.workers
    assert [worker.index for worker in workers] == list(range(WORKERS))
    assert all(isinstance(worker.clock_offset_ns, int) for worker in workers)
    assert all(worker.clock_error_ns > 0 for worker in workers)
    for worker in one.workers:
        worker.wait(timeout=10)


def test_an_arrival_rate_is_split_exactly(fleet: Callable[..., Fleet]) -> None:
    one = fleet("--arrival-rate", "30", "-t", "8s", "--warmup", "1s", "--drain", "5s")
    assert one.end() == exit_code_of(one.where / "summary.json") < 3, one.said
    found = sorted(places(one))
    assert [(conversation, turn) for conversation, turn, _ in found] == [(k, 1) for k in range(len(found))]
    assert [worker for _, _, worker in found] == [k % WORKERS for k in range(len(found))]
    assert requests_sent(one) == Counter(entry["request_id"] for entry in one.truth())


def test_a_killed_worker_is_named_and_the_run_invalid(
    fleet: Callable[..., Fleet], running_requests: Callable[[Fleet], float]
) -> None:
    one = fleet("--levels", "8", "--hold", "60s", "--warmup", "1s", "--drain", "5s")
    wait_until(lambda: all(one.turns(worker) for worker in range(WORKERS)), "turns of every worker")
    one.workers[2].send_signal(signal.SIGKILL)
    assert one.end() == 3, one.said
    (finding,) = [f for f in verdict(one)["findings"] if f["check"] == "worker_lost"]
    assert verdict(one)["status"] == "invalid"
    names = {w.index: w for w in one.run().manifest.workers}
    lost = [index for index in names if finding["what"].startswith(f"worker {index} ")]
    assert len(lost) == 1
    assert "25% of the load" in finding["what"]
    assert finding["what"] in " ".join(one.said.split())
    wait_until(lambda: running_requests(one) == 0, "the server to be left alone")
    # What is on disk is whole: no more than the server saw, each once.
    truth = Counter(entry["request_id"] for entry in one.truth())
    assert requests_sent(one) <= truth


def test_a_worker_behind_a_cut_cable_is_named_and_stops_its_load(fleet: Callable[..., Fleet]) -> None:
    one = fleet("--levels", "8", "--hold", "60s", "--warmup", "1s", "--drain", "5s")
    wait_until(lambda: all(one.turns(worker) for worker in range(WORKERS)), "turns of every worker")
    one.machines["worker1"].unplug()
    assert one.end() == 3, one.said
    assert "worker_lost" in [finding["check"] for finding in verdict(one)["findings"]]
    assert one.workers[1].wait(timeout=20) == 3

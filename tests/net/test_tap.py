"""The packet tap where packets are lost, doubled, delayed and out of order: right times, or none."""

from __future__ import annotations

import socket
import subprocess
import time
from contextlib import ExitStack

import pytest

from loadgen.transport._segments import SegmentLog
from loadgen.transport._tap import Tap
from tests.net.bad_network import CLIENT, SERVER, BadNetwork, Faults, start_in
from tests.net.namespaces import network
from turnbench.clock import Timeline

pytestmark = pytest.mark.net

PORT = 9000
PIECES = 300
PIECE = b"data: a token of the answer\n\n"
NEAR_NS = 3_000_000
"""Between the forwarder's note and the kernel's stamp the forwarder may lose its core."""


def serve(address: str = SERVER) -> None:
    with socket.create_server((address, PORT)) as server:
        connection, _ = server.accept()
        with connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.recv(100)
            for _ in range(PIECES):
                connection.sendall(PIECE)
                time.sleep(0.001)


def ask(timeline: Timeline, frames: int = 1 << 12, address: str = SERVER) -> tuple[SegmentLog, int, int]:
    """Play the client; the tap's log, our port, and how many bytes came."""
    tap, log = Tap(range(20_000, 60_999), timeline, frames), SegmentLog()
    with socket.create_connection((address, PORT), timeout=20) as connection:
        port = connection.getsockname()[1]
        connection.sendall(b"question")
        received = 0
        while part := connection.recv(65536):
            received += len(part)
            if frames == 1 << 12:  # a tap that is never drained fills up
                for segments in tap.drain():
                    log.add(segments)
    time.sleep(0.05)
    for segments in tap.drain():
        log.add(segments)
    tap.close()
    return log, port, received


def whole_at(passed: list[tuple[int, int, int]], wanted: int) -> dict[int, int]:
    """For each byte offset, when it and all before it had been let through: the plain way."""
    seen: dict[int, int] = {}
    for at_ns, offset, size in passed:
        for byte in range(offset, offset + size):
            seen.setdefault(byte, at_ns)
    latest, found = 0, {}
    for byte in range(wanted):
        latest = max(latest, seen[byte])
        found[byte] = latest
    return found


@pytest.mark.parametrize(
    "faults",
    [
        Faults(),
        Faults(loss=0.05),
        Faults(duplication=0.2),
        Faults(reordering=0.2),
        Faults(delay_s=0.02),
        Faults(loss=0.03, duplication=0.1, reordering=0.1, delay_s=0.005),
    ],
    ids=["clean", "loss", "duplication", "reordering", "delay", "all"],
)
def test_each_byte_has_the_time_at_which_it_and_all_before_it_had_come(faults: Faults) -> None:
    timeline = Timeline()
    with BadNetwork(timeline, faults) as network:
        serving = network.at(SERVER, serve)
        time.sleep(0.2)
        log, port, received = network.at(CLIENT, lambda: ask(timeline))()
        serving()
        passed = [each for each in network.passed if each.port == port]
    assert received == PIECES * len(PIECE)
    found = log.arrivals(port, 0, 0, received)
    assert found is not None
    first = next(each.seq for each in passed) + 1  # after the SYN
    told = [(each.at_ns, (each.seq - first) % 2**32, each.payload_bytes) for each in passed[1:]]
    truth = whole_at([each for each in told if each[1] < 2**31], received)
    byte = 0
    errors = []
    for end, at_ns in zip(*(column.tolist() for column in found), strict=True):
        errors += [at_ns - truth[each] for each in range(byte, min(end, received))]
        byte = min(end, received)
    assert byte == received
    assert min(errors) >= -NEAR_NS
    assert sorted(errors)[int(0.99 * len(errors))] <= NEAR_NS


def test_a_ring_that_is_full_loses_frames_and_says_so_and_gives_no_times_for_the_hole() -> None:
    timeline = Timeline()
    with BadNetwork(timeline, Faults()) as network:
        serving = network.at(SERVER, serve)
        time.sleep(0.2)
        log, port, received = network.at(CLIENT, lambda: ask(timeline, frames=1 << 7))()
        serving()
    assert received == PIECES * len(PIECE)
    assert log.arrivals(port, 0, 0, received) is None


def test_a_machine_whose_address_is_its_bridges_sees_each_packet_once() -> None:
    with network("server") as machines, ExitStack() as files:
        server = machines["server"]
        subprocess.run(["ip", "-n", server.hub, "addr", "add", "10.99.0.200/24", "dev", "br0"], check=True)
        hub, there = (
            files.enter_context(open(f"/run/netns/{name}", "rb")).fileno()
            for name in (server.hub, server.namespace)
        )
        serving = start_in(there, lambda: serve(server.address))
        time.sleep(0.5)
        log, port, received = start_in(hub, lambda: ask(Timeline(), address=server.address))()
        serving()
    assert received == PIECES * len(PIECE)
    found = log.arrivals(port, 0, 0, received)
    assert found is not None
    assert len(log) == len(found[0]) + 2, "and the first and the last packet of the connection"

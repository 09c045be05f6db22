"""The wire clock: arrivals of packets, whenever the client reads them; read seldom where many come."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import struct
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trustme

from loadgen.dialects._chat import _Reading
from loadgen.transport import _reader, _wire, _work
from loadgen.transport._read_log import ReadLog
from loadgen.transport._reader import StampedReader
from loadgen.transport._tap import Tap, payload_bytes
from loadgen.transport._wire import PortRange
from turnbench.clock import Timeline

ROOT = Path(__file__).parents[2]


def _may_tap() -> bool:
    try:
        Tap(range(1, 2), Timeline(), frames=128).close()
    except OSError:
        return False
    return True


pytestmark = [
    pytest.mark.skipif(not _may_tap(), reason="needs Linux and CAP_NET_RAW"),
    pytest.mark.timing,
]

add = ReadLog.add
GAP_S = 0.01
NEAR_US = 5_000
"""For two busy cores; what is compared is when the server's call that sends began."""


async def stream(peer: Any, events: int, sent_ns: list[int]) -> None:
    """One answer, an event a chunk, a gap between two."""
    await peer.request()
    await peer.head()
    for _ in range(events):
        await asyncio.sleep(GAP_S)
        sent_ns.append(time.monotonic_ns())
        await peer.chunk(peer.words("word "))
    await peer.finish()


def error_us(record: Any, sent_ns: list[int]) -> float:
    """How far times since the first event are from the server's: nine in ten at most.

    A server that loses its core between its note and its call sends later than it says.
    """
    off = [
        abs((at - record.event_us[0]) - (sent - sent_ns[0]) / 1e3)
        for at, sent in zip(record.event_us, sent_ns, strict=True)
    ]
    return sorted(off)[len(off) * 9 // 10]


def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's, and that of a client which trusts it."""
    authority, trusting = trustme.CA(), ssl.create_default_context()
    authority.configure_trust(trusting)
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(serving)
    return serving, trusting


@pytest.fixture
def busy(monkeypatch: pytest.MonkeyPatch) -> None:
    """As though thousands of tokens came each second."""
    monkeypatch.setattr(_wire, "_BUSY_PER_S", -1)
    monkeypatch.setattr(_wire, "_CALM_PER_S", -1)
    monkeypatch.setattr(_wire, "DRAIN_EVERY_S", 0.001)


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_a_client_that_reads_everything_at_the_end_still_knows_when_each_event_came(
    play: Any, monkeypatch: pytest.MonkeyPatch, tls: bool
) -> None:
    serving, trusting = contexts()
    sent_ns: list[int] = []

    def drain_seldom(reader: StampedReader) -> None:
        if len(sent_ns) in (0, 20):  # the answer's head, and all that follows when the last event was sent
            drain(reader)

    drain = StampedReader._drain
    monkeypatch.setattr(StampedReader, "_drain", drain_seldom)
    played = await play(
        lambda peer: stream(peer, 20, sent_ns),
        serving if tls else None,
        tls=trusting if tls else None,
        clock="wire",
    )
    assert (played.record.outcome, played.record.clock) == ("ok", "wire")
    assert error_us(played.record, sent_ns) < NEAR_US
    assert played.record.coalesced == 0
    assert played.record.read_after_us > 10 * GAP_S * 1e6


@pytest.mark.usefixtures("busy")
async def test_where_much_comes_a_stream_is_read_a_few_times_and_its_end_at_once(
    play: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = 0
    read = StampedReader._read

    def counted(reader: StampedReader, fd: int) -> int:
        nonlocal reads
        reads += 1
        return read(reader, fd)

    monkeypatch.setattr(StampedReader, "_read", counted)
    sent_ns: list[int] = []

    async def script(peer: Any) -> None:
        monkeypatch.setattr(_wire, "DRAIN_EVERY_S", 60.0)  # its end is to wake us by itself
        for _ in range(2):
            await stream(peer, 60, sent_ns)

    played = await play(script, clock="wire", turns=2, idle_timeout_s=0.5)
    first, second = played.records
    assert [record.outcome for record in played.records] == ["ok", "ok"]
    assert {record.clock for record in played.records} == {"wire"}
    assert error_us(first, sent_ns[:60]) < NEAR_US
    assert reads < 20, "not once an event"
    assert first.read_after_us is None, "that they were read late says nothing"
    assert second.sent_ns - second.due_ns < 100e6, "the first one's end was seen at once"


@pytest.mark.usefixtures("busy")
async def test_a_read_that_fails_at_a_drain_does_not_end_the_drains(
    play: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_port, failed = StampedReader._read_port, 0

    def fails_at_first(reader: StampedReader, port: int) -> None:
        nonlocal failed
        failed += 1
        if failed == 2:  # the first was as its stream began
            raise OSError("once")
        read_port(reader, port)

    monkeypatch.setattr(_wire, "_PENDING_S", 0.02)
    monkeypatch.setattr(_wire.EndsTap, "take", lambda tap: [])  # no end wakes us: drains alone read
    monkeypatch.setattr(StampedReader, "_read_port", fails_at_first)
    asyncio.get_running_loop().set_exception_handler(lambda _, context: None)

    async def script(peer: Any) -> None:
        await peer.request()
        await peer.head()
        await peer.chunk(peer.words("Hi"))
        await asyncio.sleep(0.1)
        await peer.finish()

    record = (await play(script, clock="wire", idle_timeout_s=2.0)).record
    assert failed > 2
    assert record.outcome == "ok"


@pytest.mark.usefixtures("busy")
@pytest.mark.parametrize(("much_per_s", "waits_for"), [(1 << 30, 4 * 1024), (-1, 16 * 1024)])
async def test_the_more_comes_the_more_waits_for_a_read(
    play: Any, monkeypatch: pytest.MonkeyPatch, much_per_s: int, waits_for: int
) -> None:
    monkeypatch.setattr(_wire, "_MUCH_PER_S", much_per_s)
    monkeypatch.setattr(_wire, "_MODERATE_PER_S", much_per_s)
    monkeypatch.setattr(_wire, "_PENDING_S", 60.0)
    read: list[int] = []
    monkeypatch.setattr(ReadLog, "add", lambda *given: read.append(len(given[1])) or add(*given))

    monkeypatch.setattr(_work, "_MOST_EVENTS", 0)
    ahead: list[bool] = []
    take = _Reading.take
    monkeypatch.setattr(
        _Reading, "take", lambda *given: take(*given) and ahead.append(bool(given[0]._texts)) is None
    )

    async def script(peer: Any) -> None:
        await peer.request()
        await peer.head()
        event = peer.words("word " * 40)
        for sent in range(0, waits_for * 3, len(event)):
            await peer.chunk(event)
            await asyncio.sleep(0.005)
            if sent < waits_for // 2:
                read.clear()
        await peer.finish()

    assert (await play(script, clock="wire", idle_timeout_s=5.0)).record.outcome == "ok"
    assert waits_for <= read[0] < 1.5 * waits_for
    assert any(ahead), "what had come was made sense of at once"


@pytest.fixture
def never_looked_at(busy: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """As though the next look at streams that wake nobody were far off."""
    monkeypatch.setattr(_reader, "_LOOK_EVERY_S", 60.0)


async def asked_again_at_once(
    play: Any, answer: Callable[[Any], Awaitable[None]], *how: Any, **more: Any
) -> Any:
    """Two turns, answered so: the second's request leaves when the first answer is there."""

    async def script(peer: Any) -> None:
        await answer(peer)
        await answer(peer)

    played = await play(script, *how, clock="wire", turns=2, idle_timeout_s=1.0, **more)
    first, second = played.records
    assert [first.outcome, second.outcome] == ["ok", "ok"]
    assert second.sent_ns - second.due_ns < 100e6
    return first


@pytest.mark.usefixtures("never_looked_at")
@pytest.mark.parametrize("pause_s", [0.0, 0.05])
async def test_a_short_answers_end_is_seen_at_once(play: Any, pause_s: float) -> None:
    async def answer(peer: Any) -> None:
        await peer.request()
        await peer.head()
        await peer.chunk(peer.words("Hi"))
        await asyncio.sleep(pause_s)
        await peer.finish()

    assert (await asked_again_at_once(play, answer)).clock == "wire"


@pytest.mark.usefixtures("never_looked_at")
async def test_an_end_that_comes_just_before_its_stream_is_read_seldom_is_seen_at_once(
    play: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tap shows it while nobody waits for it, and shows it once."""
    peers: list[Any] = []
    hold, sent = StampedReader.hold, asyncio.Event()

    def held(reader: StampedReader, connection: Any) -> None:
        assert reader._wire is not None
        reader._wire._timer.cancel()  # no drain looks for it
        rest = peers[-1].words("Hi") + peers[-1].END
        peers[-1].writer.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(rest), rest))  # asyncio tries that at once
        sent.set()
        reader._wire._take_ends()
        hold(reader, connection)

    async def answer(peer: Any) -> None:
        peers.append(peer)
        sent.clear()
        await peer.request()
        await peer.head()
        await sent.wait()

    monkeypatch.setattr(StampedReader, "hold", held)
    assert (await asked_again_at_once(play, answer)).outcome == "ok"


@pytest.mark.usefixtures("never_looked_at")
async def test_what_is_encrypted_is_read_as_it_comes_since_no_packet_shows_its_end(play: Any) -> None:
    serving, trusting = contexts()
    await asked_again_at_once(play, lambda peer: stream(peer, 5, []), serving, tls=trusting)


@pytest.mark.usefixtures("never_looked_at")
async def test_what_comes_to_a_port_that_the_tap_does_not_see_is_read_as_it_comes(
    play: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_wire, "_MOST_USED", 0.0)
    without_bounds = PortRange.socket

    def elsewhere(ports: PortRange, address: Any) -> socket.socket:
        """The kernel may choose one that the tap sees, now and then: here it must not."""
        made = without_bounds(ports, address)
        assert made.getsockopt(socket.IPPROTO_IP, _wire._IP_LOCAL_PORT_RANGE) == 0
        low, high = _wire._ephemeral_ports()
        first, last = (low, ports.ports.start - 1) if low < ports.ports.start else (ports.ports.stop, high)
        made.setsockopt(socket.IPPROTO_IP, _wire._IP_LOCAL_PORT_RANGE, struct.pack("I", last << 16 | first))
        return made

    monkeypatch.setattr(PortRange, "socket", elsewhere)
    first = await asked_again_at_once(play, lambda peer: stream(peer, 10, []))
    assert (first.clock, first.coalesced) == ("kernel", 0)


@pytest.mark.usefixtures("never_looked_at")
async def test_where_little_comes_again_sockets_wake_us_again(
    play: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def answer(peer: Any) -> None:
        await peer.request()
        await peer.head()
        await peer.chunk(peer.words("Hi"))
        await asyncio.sleep(0.1)
        monkeypatch.setattr(_wire, "_CALM_PER_S", 1_000_000)
        monkeypatch.setattr(_wire, "_BUSY_PER_S", 1_000_000)
        await asyncio.sleep(0.1)  # many looks at how much comes
        await peer.finish()

    await asked_again_at_once(play, answer)


@pytest.mark.usefixtures("busy")
async def test_a_look_that_fails_is_not_the_last(play: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    read_all, failed = StampedReader._read_all, False

    def fails_once(reader: StampedReader, ready: list[tuple[int, int]]) -> None:
        nonlocal failed
        if reader._seldom and not failed:
            failed = True
            raise OSError("once")
        read_all(reader, ready)

    monkeypatch.setattr(StampedReader, "_read_all", fails_once)
    monkeypatch.setattr(_wire, "_LITTLE_WATER_BYTES", 1)
    monkeypatch.setattr(_wire, "_PENDING_S", 60.0)
    arrived: list[int] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: None)

    async def script(peer: Any) -> None:
        await peer.request()
        await peer.head()
        for _ in range(2):
            await asyncio.sleep(0.1)
            await peer.chunk(peer.words("Hi"))
        await asyncio.sleep(0.1)
        await peer.finish()

    monkeypatch.setattr(ReadLog, "add", lambda *given: arrived.append(len(given[1])) or add(*given))
    record = (await play(script, clock="wire", idle_timeout_s=5.0)).record
    assert failed
    assert record.outcome == "ok"
    assert len(arrived) >= 3, "the events were read before the end"


@pytest.mark.usefixtures("busy")
async def test_a_silent_stream_still_stalls_and_an_impatient_person_still_leaves(play: Any) -> None:
    async def hang(peer: Any) -> None:
        await peer.request()
        await peer.head()
        await peer.chunk(peer.words("Hi"))
        await peer.until_closed()

    record = (await play(hang, clock="wire", idle_timeout_s=0.3)).record
    assert (record.outcome, len(record.event_us)) == ("stalled", 1)


@pytest.mark.usefixtures("busy")
async def test_a_broken_stream_ends_at_once_below_the_low_water_mark(
    play: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(peer: Any) -> None:
        monkeypatch.setattr(_wire, "DRAIN_EVERY_S", 60.0)
        await peer.request()
        await peer.head()
        await peer.chunk(peer.words("Hi"))
        await asyncio.sleep(0.05)
        peer.reset()

    record = (await play(broken, clock="wire", idle_timeout_s=5.0)).record
    assert (record.outcome, len(record.event_us)) == ("disconnected", 1)


async def test_a_packet_that_the_tap_missed_leaves_its_turn_the_times_of_its_reads(
    play: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    drain = Tap.drain

    def with_a_hole(tap: Tap) -> Any:
        return [one for one in drain(tap) if not (payload_bytes(one.heads) == 77).any()]

    monkeypatch.setattr(Tap, "drain", with_a_hole)

    async def script(peer: Any) -> None:
        await peer.request()
        await peer.head()
        await peer.chunk(peer.words("Hi"))
        await asyncio.sleep(0.1)
        await peer.send(b"47\r\n" + b": " + b"x" * 67 + b"\n\n" + b"\r\n")
        await asyncio.sleep(0.1)
        await peer.finish(peer.words("there") + peer.END)

    record = (await play(script, clock="wire")).record
    assert (record.outcome, record.clock, len(record.event_us)) == ("ok", "kernel", 2)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_the_tap_shows_which_segments_may_end_a_response(address: str) -> None:
    long = b"data: " + b"x" * 100
    ends = [
        (b"\r\n20\r\n" + long + b"\n\n\r\n", False),
        (b"\r\n20\r\n" + long + b"\r\n\r\n\r\n", False),  # events that end in CRLF, as some servers' do
        (long + b"\n\n\r\n0\r\n\r\n", True),
        (b"0\r\n\r\n", True),
        (b"\n", True),
        (b"x" * 1000, False),
        (b"x" * 2000 + b"\r\n0\r\n\r\n", True),
    ]
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with (
        socket.create_server((address, 0), family=family) as listener,
        socket.create_connection(listener.getsockname()[:2]) as client,
        listener.accept()[0] as server,
    ):
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        port = client.getsockname()[1]
        tap = Tap(range(port, port + 1), Timeline(), frames=128)
        found = []
        for data, _ in ends:
            server.send(data)
            client.recv(4096)
            (segments,) = tap.drain()
            found.append((payload_bytes(segments.heads).tolist(), len(segments.unsure)))
        tap.close()
    assert found == [([len(data)], int(may_end)) for data, may_end in ends]


def test_two_engines_of_a_machine_have_ports_of_their_own_and_free_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_wire, "_CLAIM", f"\0turnbench-test-{os.getpid()}-{{}}")  # no other engine's
    first, second = PortRange(1500), PortRange(1500)
    assert len(first.ports) >= 1500
    assert not set(first.ports) & set(second.ports)
    was = first.ports
    first.close()
    third = PortRange(1500)
    assert third.ports == was
    second.close()
    third.close()


def test_where_too_few_ports_are_free_nothing_is_claimed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_wire, "_CLAIM", f"\0turnbench-test-{os.getpid()}-{{}}")
    first = PortRange(20_000)
    with pytest.raises(OSError, match="local ports"):
        PortRange(20_000)
    first.close()
    PortRange(20_000).close()


def test_a_range_that_is_nearly_used_up_gives_sockets_without_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Closed connections keep their port for a minute: too few ports must not fail a turn."""
    monkeypatch.setattr(_wire, "_CLAIM", f"\0turnbench-test-{os.getpid()}-{{}}")
    ports = PortRange(1024)
    address = (socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", 1))
    with socket.create_server(("127.0.0.1", 0)) as server:
        inside = []
        for _ in range(1024):
            with ports.socket(address) as made:
                if len(inside) in (0, 1023):
                    made.setblocking(True)
                    made.connect(server.getsockname())
                    assert inside or made.getsockname()[1] in ports.ports
                bounds = made.getsockopt(socket.IPPROTO_IP, _wire._IP_LOCAL_PORT_RANGE, 4)
                inside.append(bounds != bytes(4))
    ports.close()
    assert (inside[0], inside[-1]) == (True, False)


def test_without_the_right_to_tap_auto_takes_the_kernel_and_says_why_and_wire_is_refused() -> None:
    code = (
        "import asyncio\n"
        "from loadgen.options._command_line import OptionErrors\n"
        "from loadgen.options._prepare import prepare\n"
        "from loadgen.transport._reader import open_reader\n"
        "from turnbench.clock import Timeline\n"
        "async def main():\n"
        "    loop = asyncio.get_running_loop()\n"
        "    reader, why = open_reader(loop, Timeline(), 'auto', 100)\n"
        "    print(reader.wire_ports, '|', why)\n"
        "    reader.close()\n"
        "    try:\n"
        "        open_reader(loop, Timeline(), 'wire', 100)\n"
        "    except ValueError as error:\n"
        "        print(error)\n"
        "asyncio.run(main())\n"
        "for host in 'http://127.0.0.1:9', 'unix:/nowhere.sock':\n"
        "    try:\n"
        "        prepare({'host': host, 'clock': 'wire'})\n"
        "    except OptionErrors as error:\n"
        "        print(*error.problems)\n"
    )
    without = ["setpriv", "--bounding-set=-net_raw", "--inh-caps=-net_raw"]
    ran = subprocess.run(
        [*without, sys.executable, "-X", "dev", "-c", code],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    assert ran.stderr == ""  # nothing is left open
    auto, wire, *at_the_start = ran.stdout.splitlines()
    assert auto == "None | it needs CAP_NET_RAW"
    assert wire.startswith("--clock wire: it needs CAP_NET_RAW")
    assert [line.partition(";")[0] for line in at_the_start] == [
        "--clock wire: it needs CAP_NET_RAW",
        "--clock wire: a Unix socket has no packets",
    ]

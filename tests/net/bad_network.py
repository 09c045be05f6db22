"""A network that loses, doubles, delays and reorders packets: two namespaces of threads of this process,
and a forwarder between their TUN devices that logs each segment it lets through.

Not every kernel has netem. `unshare` and `setns` are per thread, so server, client and forwarder are threads.
"""

from __future__ import annotations

import ctypes
import fcntl
import heapq
import os
import random
import select
import struct
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from turnbench.clock import Timeline

SERVER, CLIENT = "10.98.0.1", "10.98.0.2"
_CLONE_NEWNET = 0x40000000
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x1, 0x1000
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Faults:
    """What happens to a packet on its way to the client; shares of packets, and seconds."""

    loss: float = 0.0
    duplication: float = 0.0
    reordering: float = 0.0
    delay_s: float = 0.0


@dataclass
class Passed:
    """A TCP segment that was let through to the client."""

    at_ns: int
    port: int
    seq: int
    payload_bytes: int


@dataclass
class BadNetwork:
    """`at_server` and `at_client` run work in their namespaces; `passed` is the forwarder's log."""

    timeline: Timeline
    faults: Faults
    seed: int = 0
    passed: list[Passed] = field(default_factory=list)
    _tun: dict[str, int] = field(default_factory=dict)
    _namespace: dict[str, int] = field(default_factory=dict)
    _ended: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> BadNetwork:
        for here, there in ((SERVER, CLIENT), (CLIENT, SERVER)):
            _in_thread(lambda here=here, there=there: self._make(here, there))
        self._forwarder = threading.Thread(target=self._forward)
        self._forwarder.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._forwarder.join()
        for fd in (*self._tun.values(), *self._namespace.values()):
            os.close(fd)

    def at(self, address: str, work: Callable[[], Any]) -> Callable[[], Any]:
        """Start work in the namespace of this address; call what it returns to have its result."""
        return start_in(self._namespace[address], work)

    def _make(self, here: str, there: str) -> None:
        if _libc.unshare(_CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "unshare")
        self._namespace[here] = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        self._tun[here] = tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(tun, _TUNSETIFF, struct.pack("16sH", b"tun0", _IFF_TUN | _IFF_NO_PI))
        for step in (
            f"addr add {here} peer {there} dev tun0",
            "link set lo up",
            "link set tun0 up",
        ):
            subprocess.run(["ip", *step.split()], check=True)

    def _forward(self) -> None:
        """Pass packets on until the end; only those to the client meet faults."""
        chance = random.Random(self.seed)
        waiting: list[tuple[int, int, bytes]] = []
        count = 0
        while not self._ended.is_set():
            now_ns = self.timeline.now_ns()
            while waiting and waiting[0][0] <= now_ns:
                self._pass_on(heapq.heappop(waiting)[2])
            wait_s = min(0.05, (waiting[0][0] - now_ns) / 1e9) if waiting else 0.05
            ready, _, _ = select.select([*self._tun.values()], [], [], max(wait_s, 0))
            for tun in ready:
                packet = os.read(tun, 65536)
                if tun == self._tun[CLIENT]:
                    os.write(self._tun[SERVER], packet)
                    continue
                if chance.random() < self.faults.loss:
                    continue
                copies = 2 if chance.random() < self.faults.duplication else 1
                for _ in range(copies):
                    late_s = self.faults.delay_s
                    if chance.random() < self.faults.reordering:
                        late_s += chance.uniform(0.001, 0.01)
                    count += 1
                    heapq.heappush(waiting, (self.timeline.now_ns() + int(late_s * 1e9), count, packet))

    def _pass_on(self, packet: bytes) -> None:
        if packet[0] >> 4 == 4 and packet[9] == 6:
            ip_bytes = (packet[0] & 15) * 4
            _, port, seq = struct.unpack_from("!HHI", packet, ip_bytes)
            payload_bytes = len(packet) - ip_bytes - (packet[ip_bytes + 12] >> 4) * 4
            self.passed.append(Passed(self.timeline.now_ns(), port, seq, payload_bytes))
        os.write(self._tun[CLIENT], packet)


def start_in(namespace: int, work: Callable[[], Any]) -> Callable[[], Any]:
    """Start work in a network namespace, given as an open file; call what it returns to have its result."""

    def inside() -> Any:
        if _libc.setns(namespace, _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
        return work()

    return _start(inside)


def _start(work: Callable[[], Any]) -> Callable[[], Any]:
    """Start work in a thread of its own, since a namespace is a thread's."""
    pool = ThreadPoolExecutor(1)
    future = pool.submit(work)
    pool.shutdown(wait=False)
    return partial(future.result, 60)


def _in_thread(work: Callable[[], Any]) -> Any:
    return _start(work)()

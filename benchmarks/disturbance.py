"""How much of two cores went to others while a benchmark ran: what a shared machine took from it.

From the kernel's own accounts (`proc(5)`): `steal` is time that the host of a virtual machine gave to others,
`foreign` is CPU time of these cores that none of our own processes used.
"""

from __future__ import annotations

import os
import resource
from dataclasses import dataclass
from pathlib import Path

from turnbench.run_directory import RunDirectory

DISTURBED = 0.01
"""Share of a core's time lost to others from which on a run is played again."""

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_BUSY = (0, 1, 2)  # user, nice, system; interrupts belong to the traffic, which is ours
_STEAL = 7


@dataclass(frozen=True)
class Account:
    """CPU seconds so far: of the cores together, stolen from them, and of our own processes."""

    busy_s: float
    steal_s: float
    own_s: float


def account(server_pid: int) -> Account:
    """The account now; our processes are this one, its ended children, and the server that still runs."""
    cores = [line.split()[1:] for line in Path("/proc/stat").read_text().splitlines() if line[:4] in _NAMES]
    busy = sum(int(core[column]) for core in cores for column in _BUSY)
    steal = sum(int(core[_STEAL]) for core in cores)
    own = sum(
        usage.ru_utime + usage.ru_stime
        for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )
    return Account(busy * _TICK_S, steal * _TICK_S, own + process_cpu_s(server_pid))


def stolen_s() -> float:
    """CPU seconds that the host of a virtual machine has given to others so far."""
    return account(os.getpid()).steal_s


def lost_s(before: Account, after: Account, run: RunDirectory) -> float:
    """Seconds of CPU between the two that went to others, while this run was played."""
    # The engine outlives who started it by a moment, so that no account of ours has its CPU time.
    own_s = after.own_s - before.own_s + engine_cpu_s(run)
    return max(after.busy_s - before.busy_s - own_s, 0.0) + after.steal_s - before.steal_s


def engine_cpu_s(run: RunDirectory) -> float:
    """CPU seconds of a run's engines, as its health lines have them."""
    last_ns: dict[int, int] = {}
    cpu_s = 0.0
    for line in run.health():
        since_ns = last_ns.get(line.worker, run.manifest.levels[0].start_ns or line.t_ns)
        cpu_s += (line.cpu_share or 0.0) * (line.t_ns - since_ns) / 1e9
        last_ns[line.worker] = line.t_ns
    return cpu_s


_NAMES = {f"cpu{core}" for core in range(2)}


def process_cpu_s(pid: int) -> float:
    """CPU seconds of a process so far."""
    after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(after_name[11]) + int(after_name[12])) * _TICK_S

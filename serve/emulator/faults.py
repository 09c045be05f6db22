"""What goes wrong on purpose: gives each request that comes the fault of its number."""

from __future__ import annotations

import os
import time
from http import HTTPStatus

from serve.emulator.connection import Connection
from serve.emulator.fault_file import Fault, FaultPlan
from serve.emulator.fault_wire import FaultyWire
from serve.emulator.reactor import Reactor

DIED = 70
"""Exit code of an emulator that was told to die."""
PAGE = b"<!doctype html><html><head><title>Welcome</title></head><body><h1>It works!</h1></body></html>\n"


class Mischief:
    """Counts the requests and meets each with its fault, if it has one."""

    def __init__(self, plan: FaultPlan, reactor: Reactor) -> None:
        self._plan = plan
        self._reactor = reactor
        self._asked = 0

    def meet(self, connection: Connection) -> Connection | FaultyWire | None:
        """Where the answer to the next request goes; None if the fault has taken care of the request."""
        self._asked += 1
        fault = self._plan.fault(self._asked)
        if fault is None:
            return connection
        if fault.kind == "freeze":
            time.sleep(fault.for_ns / 1e9)
            return connection
        if fault.kind == "die":
            os._exit(DIED)
        if fault.kind in ("status", "html", "redirect"):
            _answer(connection, fault)
            return None
        if fault.after_events == 0 and fault.kind in ("hang", "reset", "eof"):
            _nothing(connection, fault)
            return None
        return FaultyWire(connection, self._reactor, fault)


def _nothing(connection: Connection, fault: Fault) -> None:
    """Not one byte: a hung request waits until the client goes."""
    if fault.kind == "reset":
        connection.reset()
    elif fault.kind == "eof":
        connection.close()


def _answer(connection: Connection, fault: Fault) -> None:
    lines = [f"HTTP/1.1 {_status(fault)}", "Server: turnbench-emulator", "X-Turnbench-Emulated: 1"]
    body, kind = _error(fault)
    if fault.kind == "html":
        body, kind = PAGE, "text/html; charset=utf-8"
    elif fault.kind == "redirect":
        lines.append(f"Location: {fault.location}")
    elif fault.retry_after_s is not None:
        lines.append(f"Retry-After: {fault.retry_after_s}")
    lines += [f"Content-Type: {kind}", f"Content-Length: {len(body)}"]
    connection.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
    connection.done()


def _status(fault: Fault) -> str:
    if fault.kind == "html":
        return "200 OK"
    known = {each.value: each.phrase for each in HTTPStatus}
    return f"{fault.status} {known.get(fault.status, 'Odd')}"


def _error(fault: Fault) -> tuple[bytes, str]:
    """An error object, padded to the size that was asked for."""
    text = '{"error":{"message":"%s","type":"FaultInjected","param":null,"code":%d}}'
    bare = text % ("asked for by --faults ", fault.status)
    padding = "x" * max(0, fault.body_bytes - len(bare))
    return (text % ("asked for by --faults " + padding, fault.status)).encode(), "application/json"

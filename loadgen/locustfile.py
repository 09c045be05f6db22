"""turnbench's locustfile: `locust -f loadgen/`.

The only file here without a leading underscore, because Locust loads every other one as a locustfile.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

# Ctrl-C in the middle of an import is quiet too; from `init` on there is an end in good order.
if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))

from locust import User, constant, task

# Locust puts the current folder first on the path, and it may have packages of the same names as ours.
_OURS = str(Path(__file__).resolve().parents[1])
sys.path.insert(0, _OURS)
try:
    from loadgen.adapter._adapter import DEFAULT_HOST, adapter_of, register
finally:
    sys.path.remove(_OURS)


class Person(User):  # type: ignore[misc]
    """One simulated person, always in one conversation; the engine plays them, this user waits."""

    host = DEFAULT_HOST
    wait_time = constant(0)

    @task  # type: ignore[untyped-decorator]
    def converse(self) -> Any:
        worker = adapter_of(self.environment).worker
        assert worker is not None
        worker.converse()


register()

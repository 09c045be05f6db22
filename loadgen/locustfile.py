"""turnbench's locustfile: `locust -f loadgen/`.

The only file here without a leading underscore, because Locust loads every other one as a locustfile.
"""

from __future__ import annotations

from typing import Any

from locust import User, constant, task

from loadgen.adapter._adapter import DEFAULT_HOST, adapter_of, register


class Person(User):  # type: ignore[misc]
    """One simulated person, always in one conversation; the engine plays it, this user waits for its end."""

    host = DEFAULT_HOST
    wait_time = constant(0)

    @task  # type: ignore[untyped-decorator]
    def converse(self) -> Any:
        worker = adapter_of(self.environment).worker
        assert worker is not None
        worker.converse()


register()

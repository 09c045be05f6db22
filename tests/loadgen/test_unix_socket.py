"""A server on a Unix socket."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from loadgen.engine._run import EngineRun


@pytest.fixture
async def socket_file(serve: Any, tmp_path: Path, request: pytest.FixtureRequest) -> Any:
    """A scripted server, also listening at this file."""
    scripted = await serve(lambda peer: peer.answer("From", " a socket"))
    file = tmp_path / "server.sock"
    async with await asyncio.start_unix_server(scripted.serve, file):
        yield file


async def test_a_turn_goes_over_a_unix_socket(socket_file: Path, client: Any) -> None:
    person = client(f"unix:{socket_file}", clock="user", keep_text=True)
    await person.ended(person.start())
    (record,) = person.records
    assert (record.outcome, record.text, record.clock) == ("ok", "From a socket", "user")
    assert record.connect_us is not None
    assert isinstance(person.driver.run, EngineRun)


async def test_a_socket_that_is_not_there_is_no_connection(client: Any, tmp_path: Path) -> None:
    person = client(f"unix:{tmp_path}/nobody.sock", clock="user")
    await person.ended(person.start())
    (record,) = person.records
    assert (record.outcome, "nobody.sock" in (record.error or "")) == ("connect", True)

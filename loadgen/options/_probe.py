"""Asks an endpoint who it is: `python -m loadgen.options._probe`, Settings in, Endpoint out, as JSON.

A process of its own, because aiohttp can't run under gevent and Locust's process can't do without it.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import aiohttp
import msgspec

from loadgen.options._endpoint import Endpoint, address_of
from loadgen.options._headers import headers_of
from loadgen.options._settings import Settings
from turnbench.cleaning import clean
from turnbench.server_facts import described_server


async def _get(session: aiohttp.ClientSession, url: str, insecure: bool) -> tuple[Any, Any]:
    """(JSON or None, response headers) of a GET; raises ProblemError's cause as aiohttp does."""
    async with session.get(url, ssl=not insecure, allow_redirects=False) as response:
        body = await response.content.read(1 << 20)
        if response.status != 200:
            return {"status": response.status, "text": clean(body[:300])}, response.headers
        try:
            return json.loads(body), response.headers
        except ValueError:
            return {"status": 200, "text": clean(body[:300])}, response.headers


async def probe(settings: Settings) -> Endpoint:
    """Models, version and kind of the endpoint; one or two small requests."""
    address = address_of(settings.host)
    endpoint = Endpoint(url=address.root)
    headers = {k: v for k, v in headers_of(settings).items() if k not in ("Content-Type", "Accept")}
    timeout = aiohttp.ClientTimeout(total=max(settings.connect_timeout_s, 1.0))
    try:
        connector = None if address.socket is None else aiohttp.UnixConnector(address.socket)
        async with aiohttp.ClientSession(
            headers=headers, timeout=timeout, trust_env=settings.trust_env, connector=connector
        ) as session:
            models, answered = await _get(session, address.of("/models"), settings.insecure)
            version, _ = await _get(session, address.of_server("/version"), settings.insecure)
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
        endpoint.problem = clean((str(error) or type(error).__name__).encode())
        return endpoint
    endpoint.emulated = "X-Turnbench-Emulated" in answered
    listed = models.get("data") if isinstance(models, dict) else None
    if not isinstance(listed, list):
        status = models.get("status") if isinstance(models, dict) else None
        endpoint.problem = f"/v1/models answered {status}: {clean(str(models).encode())}"
        return endpoint
    entries = [entry for entry in listed if isinstance(entry, dict) and entry.get("id")]
    endpoint.models = [str(entry["id"]) for entry in entries]
    asked = [entry for entry in entries if entry["id"] == settings.model] or entries
    if asked:
        length = asked[0].get("max_model_len")
        endpoint.max_model_len = length if isinstance(length, int) and length > 0 else None
    if isinstance(version, dict) and isinstance(version.get("version"), str):
        endpoint.version = version["version"]
        endpoint.usage_in_events = True
    owner = entries[0].get("owned_by") if entries else None
    endpoint.server = {"owned_by": owner, "version": endpoint.version}
    endpoint.server["max_model_len"] = endpoint.max_model_len
    known = described_server(address.root, endpoint.models)
    endpoint.server |= known
    endpoint.emulated |= bool(known.get("emulated"))
    return endpoint


def main() -> int:
    settings = msgspec.json.decode(sys.stdin.buffer.read(), type=Settings)
    try:
        found = asyncio.run(probe(settings))
    except ValueError as error:  # a header's variable that is not set here
        print(error, file=sys.stderr)
        return 2
    sys.stdout.buffer.write(msgspec.json.encode(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())

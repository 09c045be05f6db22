"""Asks a server a probe and keeps what came back, byte for byte but for what differs each time."""

from __future__ import annotations

import http.client
import json
from contextlib import closing
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from tests.conformance.probes import Probe

PATIENCE_S = 120


@dataclass(frozen=True)
class Answered:
    """One answer: headers with their names in small letters, in the order in which they came."""

    status: int
    headers: list[tuple[str, str]]
    body: str


def ask(url: str, probe: Probe, model: str, without: tuple[str, ...] = ()) -> Answered:
    """Send the probe, `without` these fields, to the server at `url`, which knows its model by this name."""
    where = urlsplit(url)
    headers = {"Content-Type": "application/json", **probe.headers}
    with closing(http.client.HTTPConnection(where.hostname or "", where.port, timeout=PATIENCE_S)) as sent:
        sent.request(probe.method, probe.path, _payload(probe.body, model, without), headers)
        answer = sent.getresponse()
        body = answer.read().decode()
        return Answered(answer.status, [(k.lower(), v) for k, v in answer.getheaders()], body)


def _payload(body: Any, model: str, without: tuple[str, ...]) -> bytes | None:
    if body is None or isinstance(body, bytes):
        return body
    if isinstance(body, dict):
        body = {name: value for name, value in body.items() if name not in without}
    return json.dumps(body).replace('"MODEL"', json.dumps(model)).encode()

"""What an answer looks like: every field with its type and, where it must not vary, its value.

Two answers to the same probe differ in words, times and identifiers; their shapes should not. Events of a
stream are named by what they carry, and a run of equal ones counts as one: two models say different amounts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import groupby
from typing import Any

from tests.conformance.asking import Answered

FREE = {"id", "created", "model", "system_fingerprint", "root", "owned_by", "version"} | {
    *("item_id", "created_at", "completed_at", "sequence_number")
}
"""Each server's own; only their type is compared."""
TEXTS = {"content", "text", "token", "token_strs", "prompt", "delta"}
"""The model's words: told apart by whether there are any."""

Shape = list[tuple[str, str]]
"""Where, and what is there, in the order of the answer."""


def shape(answered: Answered) -> Shape:
    """The whole answer: status, headers, body."""
    found = [("status", str(answered.status))]
    found += [(f"header {name}", _header(name, value)) for name, value in sorted(answered.headers)]
    return found + body_shape(answered)


def body_shape(answered: Answered) -> Shape:
    kind = dict(answered.headers).get("content-type", "")
    if kind.startswith("text/event-stream"):
        return stream_shape(answered.body)
    if kind.startswith("application/json"):
        return list(leaves("body", json.loads(answered.body)))
    if answered.body.startswith("# "):
        return sorted(("metric", f"{name} {what}") for name, what in _metrics(answered.body))
    return [("body", "some" if answered.body else "nothing")]


def stream_shape(body: str) -> Shape:
    """The order of the kinds of events, then each kind's fields as they first came."""
    events = [re.sub(r"\A(event: .*\n)?data: ", "", event) for event in body.split("\n\n") if event]
    parsed = [(_kind(event), event) for event in events]
    order = " ".join(kind for kind, _ in groupby(kind for kind, _ in parsed))
    found = [("events", order)]
    for kind in dict.fromkeys(kind for kind, _ in parsed if kind != "done"):
        shapes = [list(leaves(kind, json.loads(event))) for each, event in parsed if each == kind]
        found += shapes[0]
        odd = [other for other in shapes if other != shapes[0]]
        found += [(f"{kind}, another", str(other)) for other in odd[:1]]
    return found


def _kind(event: str) -> str:
    if event == "[DONE]":
        return "done"
    data = json.loads(event)
    if isinstance(data.get("type"), str):
        return str(data["type"])
    if not data.get("choices"):
        return "usage" if "usage" in data else "other"
    choice = data["choices"][0]
    if choice.get("finish_reason"):
        return "last"
    return "role" if choice.get("delta", {}).get("role") else "content"


def leaves(where: str, value: Any) -> Iterator[tuple[str, str]]:
    """Every field below, in order; of a list of equal shapes the first item stands for all."""
    if isinstance(value, dict):
        yield (where, "{" + " ".join(value) + "}")
        for key, each in value.items():
            yield from leaves(f"{where}.{key}", each)
    elif isinstance(value, list):
        yield (where, f"[{len(value)}]" if where.endswith("choices") else "[]" if not value else "[...]")
        for number, each in enumerate(value if where.endswith("choices") else value[:1]):
            yield from leaves(f"{where}[{number}]", each)
    else:
        yield (where, _leaf(where, value))


def _leaf(where: str, value: Any) -> str:
    name = re.sub(r"\[\d+\]$", "", where).rsplit(".", 1)[-1]
    if isinstance(value, str) and name in TEXTS:
        return "words" if value else "no words"
    if isinstance(value, str) and name == "stop_reason":
        return "a stop string"
    if isinstance(value, str) and name == "message":
        return re.sub(r"\d+", "N", value)
    if name in FREE or name.endswith(("_tokens", "logprob")) or name in ("count", "tokens", "bytes"):
        return type(value).__name__
    return json.dumps(value)


def _header(name: str, value: str) -> str:
    return "some" if name in ("date", "content-length") else value


def _metrics(body: str) -> Iterator[tuple[str, str]]:
    """The names and types of vLLM's own metrics; the rest are the libraries'."""
    for line in body.splitlines():
        if line.startswith("# TYPE vllm:") and not line.split()[2].endswith("_created"):
            yield line.split()[2], line.split()[3]

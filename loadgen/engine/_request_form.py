"""How one server wants to be asked, learnt from what it refuses: fields it does not know, the form of an id.

Servers that speak the same dialect do not take the same fields: newer models want `max_completion_tokens` in
place of `max_tokens`, strict ones refuse whatever they do not know, and one wants a UUID in X-Request-Id. A
refusal that names such a field is believed: the field is left out, or replaced, for the rest of the run, and
the turn is attempted again. What a person put into --body is sent as it is.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Collection, Iterator
from typing import Any

import msgspec

from loadgen.dialects import Dialect

REQUEST_ID = "X-Request-Id"

_STATUSES = (400, 422)
_ABOUT_ID = re.compile(r"x[-_]request[-_]id", re.I)
_UNKNOWN = re.compile(
    r"unsupported|n.t support|not support|unrecogni[sz]ed|unknown|unexpected|extra|forbidden|deprecated"
    r"|not (permitted|allowed|available|implemented|accepted|recogni[sz]ed)|instead|no such|cannot find"
    r"|(can.?t|cannot|can not) (be )?(use|set)|(not a valid|invalid) (param|field|arg|key)"
    r"|only (the )?default|may only",
    re.I,
)
"""A sentence about a field as such, whatever its value."""
_ABOUT_VALUE = re.compile(
    r"at least|at most|less than|greater|between|too (large|small|high|low|long|many)|non-negative|positive"
    r"|exceed|range|maximum|minimum|must be|should be|expected",
    re.I,
)
"""A sentence about a value, which another field would not mend."""
_WORD = re.compile(r"(['\"`]?)\b([A-Za-z_]+(?:\.[A-Za-z_]+)*)\b")
"""With the quote before it; of a.b the field is b."""
_WITHOUT_A_WORD = "refuses a request without a word"
_ENGLISH = ("stop", "store", "seed", "user", "n")
"""Fields whose names are words too: taken for fields only in quotes, or as the parameter that is named."""


class RequestForm:
    """What is different in this run's requests from what the dialect would send."""

    def __init__(self, dialect: Dialect, own_fields: Collection[str]) -> None:
        """`own_fields` are those of --body, which a person answers for."""
        self._kept = {*dialect.required, *own_fields}
        self._substitutes = {
            name: other for name, other in dialect.substitutes.items() if name not in own_fields
        }
        self._own = own_fields
        self._left_out: dict[str, str | None] = {}
        """What takes the place of each field that is not sent; None: nothing."""
        self._id_form = 0
        self._notes: list[str] = []

    @property
    def learnt(self) -> int:
        """How many fields the server is not sent any more."""
        return len(self._left_out)

    def fit(self, body: dict[str, Any]) -> dict[str, Any]:
        """The body as this server takes it."""
        for name, other in self._left_out.items():
            value = body.get(name)
            body = _without(body, name)
            if other is not None and value is not None and other not in body:
                body[other] = value
        return body

    def headers(self, request_id: str) -> dict[str, str]:
        """The header with the request's id, in the form that this server takes."""
        if self._id_form == 0:
            return {REQUEST_ID: request_id}
        return {REQUEST_ID: str(uuid.uuid5(uuid.NAMESPACE_OID, request_id))} if self._id_form == 1 else {}

    def learn(self, status: int | None, text: str | None, body: bytes, headers: Collection[str]) -> bool:
        """Whether this refusal of this request says how to ask otherwise, now that it is heeded.

        `headers` are those that `headers` above gave for it.
        """
        if status not in _STATUSES:
            return False
        if not text:  # llama.cpp's Python server says nothing where an id is no UUID
            return any("/" in value for value in headers) and self._change_id(headers, _WITHOUT_A_WORD)
        if headers and _ABOUT_ID.search(text):
            return self._change_id(headers, f"refuses the form of {REQUEST_ID}")
        sent = msgspec.json.decode(body)
        found = refused_fields(text, {name for name in _names(sent) if self._can_leave_out(name)})
        for name in found:
            if name not in self._left_out:
                self._leave_out(name)
        return bool(found)

    def take_notes(self) -> list[str]:
        """What was learnt since the last call, a sentence each."""
        notes, self._notes = self._notes, []
        return notes

    def _can_leave_out(self, name: str) -> bool:
        return name in self._substitutes or name not in self._kept

    def _leave_out(self, name: str) -> None:
        other = self._left_out[name] = self._substitutes.get(name)
        if other is None:
            self._notes.append(f"the server refuses {name}; requests go without it")
            return
        self._kept.add(other)  # an answer without any limit is not what was asked for
        how = "that of --body" if other in self._own else other
        self._notes.append(f"the server refuses {name}; requests have {how} instead")

    def _change_id(self, sent: Collection[str], why: str) -> bool:
        form = 1 if any("/" in value for value in sent) else 2
        if form > self._id_form:
            self._id_form = form
            how = f"requests have a UUID in {REQUEST_ID}" if form == 1 else "requests go without it"
            self._notes.append(f"the server {why}; {how}")
        return True


def refused_fields(text: str, sent: Collection[str]) -> list[str]:
    """Which of the fields that were sent a refusal names as such, in the order of the text."""
    found: dict[str, None] = {}
    for param, sentence in _sentences(text):
        if _ABOUT_VALUE.search(sentence) and not _UNKNOWN.search(sentence):
            continue
        if param in sent:
            named = [param]
        else:
            words = [(quote, path.rpartition(".")[2]) for quote, path in _WORD.findall(sentence)]
            named = [name for quote, name in words if name in sent and (quote or name not in _ENGLISH)]
        if re.search(r"\bboth\b", sentence, re.I):
            named = named[-1:]  # either of two would do
        found |= dict.fromkeys(named)
    return list(found)


def _sentences(text: str) -> Iterator[tuple[str, str]]:
    """(the parameter that is named, what is said) of each mistake that an error's body reports.

    Bodies often repeat the whole request, whose fields are not what they are about.
    """
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        yield "", re.split(r"[\"']?(?:input|body|received)[\"']?\s*[:=]\s*[{\[]", text)[0]
        return
    waiting = [said]
    while waiting:
        each = waiting.pop(0)
        if isinstance(each, str):
            yield "", each
        elif isinstance(each, list):
            waiting += each
        elif isinstance(each, dict):
            where = each.get("loc")
            param = each.get("param") or (where[-1] if isinstance(where, list) and where else "")
            said = [each[key] for key in ("message", "msg", "code", "type") if isinstance(each.get(key), str)]
            if said:
                yield str(param).rpartition(".")[2], " ".join([*said, str(param)])
            waiting += [each[key] for key in ("error", "errors", "detail", "details") if key in each]


def _names(body: dict[str, Any]) -> Iterator[str]:
    """The fields of a body, and those one level below."""
    for name, value in body.items():
        yield name
        if isinstance(value, dict):
            yield from value


def _without(body: dict[str, Any], name: str) -> dict[str, Any]:
    """The body without this field, wherever it stands."""
    below = {key: value for key, value in body.items() if isinstance(value, dict) and name in value}
    inner = {key: {k: v for k, v in value.items() if k != name} for key, value in below.items()}
    return {key: value for key, value in (body | inner).items() if key != name}

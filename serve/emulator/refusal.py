"""What the emulator refuses, in the words in which vLLM 0.32 does (see tests/conformance)."""

from __future__ import annotations

import re
from typing import TypeVar

import msgspec


class Refusal(Exception):
    """A request that gets an error object for an answer."""

    def __init__(self, status: int, kind: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.message = message
        self.param = param

    def body(self) -> bytes:
        error = {"message": self.message, "type": self.kind, "param": self.param, "code": self.status}
        return msgspec.json.encode({"error": error})


def bad_request(message: str, param: str | None = None) -> Refusal:
    """A request that can be read but not answered."""
    return Refusal(400, "BadRequestError", message, param)


def bad_value(message: str, param: str, value: object = None) -> Refusal:
    """A field with a value that it may not have; vLLM says both again at the end."""
    said = f"parameter={param}" if value is None else f"parameter={param}, value={value}"
    return bad_request(f"{message} ({said})", param)


def unknown_model(asked: str, served: str) -> Refusal:
    message = f"The model `{asked}` does not exist. Valid aliases: {served}."
    return Refusal(404, "NotFoundError", message, "model")


def _invalid(problem: str, param: str | None) -> Refusal:
    return Refusal(400, "Bad Request", f"1 validation error:\n  {problem}", param)


def check_content_type(given: str | None) -> None:
    """Raise Refusal for anything that calls itself something else than JSON."""
    if given is not None and given.partition(";")[0].strip().lower() != "application/json":
        raise _invalid("Unsupported Media Type: Only 'application/json' is allowed", None)


_Body = TypeVar("_Body")
_AT = re.compile(r" - at `\$\.?(.*)`$")
_MISSING = re.compile(r"missing required field `(\w+)`")
_BYTE = re.compile(r"\(byte (\d+)\)$")


def decode(decoder: msgspec.json.Decoder[_Body], body: bytes) -> _Body:
    """The body as it should be; raises Refusal that names the field."""
    if not body:
        raise _invalid("{'type': 'missing', 'loc': 'body', 'msg': 'Field required', 'input': 'None'}", "body")
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        place = _place(str(error))
        raise _invalid(f"{{'loc': '{place}', 'msg': {str(error)!r}}}", place) from None


def _place(said: str) -> str:
    """Where the decoder stumbled, as vLLM writes it: body.messages.0.role."""
    at, missing, byte = _AT.search(said), _MISSING.search(said), _BYTE.search(said)
    steps = ["body"]
    if at:
        steps += [step.strip("]") for step in re.split(r"[.\[]", at[1]) if step]
    if missing:
        steps.append(missing[1])
    elif byte:
        steps.append(byte[1])
    return ".".join(steps)

"""What servers write when they fail or refuse, in whichever field and words; for every dialect.

OpenAI's own form is `{"error": {"message": ...}}`. vLLM's, SGLang's, TGI's, llama.cpp's, FastAPI's and the
gateways' forms differ from it and from each other, also in an answer that began well. Functions here take any
JSON value, of any type and size, and never raise.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from loadgen.dialects._dialect import Problem, Refused
from turnbench.cleaning import ERROR_CHARS

_ERROR_FIELDS = ("error", "errors", "detail", "errormessage", "errormsg", "errmsg", "exception", "fault")
"""Any of these that says something is a failure, whatever else stands beside it. Fields are compared in small
letters and without underscores: error_msg, errorMsg and ErrorMsg are one."""
_NAMED_FAILURE = ("exception", "error", "fault")
"""Bedrock names a failure by its field, as in `{"throttlingException": {"message": ...}}`."""
_MESSAGE_FIELDS = (
    *("message", "msg", "detail", "description", "reason", "statusmsg", "title", "text"),
    *("errormessage", "errormsg", "errmsg", "faultstring"),
)
_CODE_FIELDS = ("code", "status", "statuscode", "errorcode", "errcode")
_CONTENT_FIELDS = ("choices", "content", "delta", "output", "candidates", "payload")
_ENVELOPES = ("baseresp", "header", "response")
"""What some servers put around a failure's code and words."""
_NO_FAILURE = (
    *("", "ok", "success", "succeeded", "none", "null", "no error", "no_error"),
    *("queued", "pending", "created", "started", "in_progress", "processing", "running", "streaming"),
    *("completed", "complete", "incomplete", "done", "finished"),
)
"""What a code or an error says that is none."""
_DEPTH = 6

# vLLM, SGLang, llama.cpp, TGI, TensorRT-LLM, LMDeploy, MLC, LM Studio; OpenAI, Anthropic, Gemini, Bedrock.
_CONTEXT_FULL = re.compile(
    r"context[ _-]?(length|size|window|limit)|max_(model_len|seq_len|num_tokens|input_len)|session[_ ]len"
    r"|max(imum)?[ _]((allowed|supported|model|input|sequence|prompt|total)[ _])+(len\w*|tokens|token count)"
    r"|(prompt|inputs?|messages?|sequence|conversation|requested tokens?|tokens? count|number of tokens)"
    r"\b(?!\"\s*:)"  # a field's name is not what it is about
    r"[^.!?]{0,120}?\b(exceeds?|exceeded|exceeding|is too (long|large)|longer than|larger than|greater than"
    r"|must have less than|must be (<=?|less than|at most)|cannot exceed|can't exceed|should not exceed)\b"
    r"|tokens \+ `max_new_tokens` must be|length (of \w+ )?(is )?\d+(, but `max_length`| > \d+)"
    r"|range of input length|reduce the length of the (messages|prompt|input)"
    r"|too many tokens|context is full|out of context|context overflow",
    re.I,
)
_BAD_KIND = re.compile(
    r"err|exception|fail|fault|invalid|denied|exceed|limit|throttl|overload|unavailable|time-?_?out|abort|not_?found"
    r"|exhaust|internal",
    re.I,
)
_RATE = re.compile(r"per (second|minute|hour|day)|rate[ _-]?limit|quota|\b[TR]PM\b", re.I)
"""A limit on tokens a minute is worded much like one on the tokens of a prompt."""
_NO_SYSTEM = re.compile(r"system (role|message)|roles must alternate|only user and assistant roles", re.I)
_NOT_ABOUT_THE_PROMPT = (401, 403, 404, 407, 429)


def failure_in(value: Any) -> str | None:
    """What went wrong, by one event or body of any shape; None where it says nothing of the sort."""
    if isinstance(value, list):  # of objects; lists in lists may go on without end
        reported = (failure_in(each) for each in value[:8] if isinstance(each, dict))
        return next((words for words in reported if words), None)
    if not isinstance(value, dict):
        return None
    fields = _folded(value)
    for name in _ERROR_FIELDS:
        if name in fields and (found := error_words(fields[name], value)):
            return found
    if "error" in (value.get("object"), value.get("type"), value.get("event"), value.get("status")):
        return message_of(value)
    for name in _ENVELOPES:
        if isinstance(inner := fields.get(name), dict) and (found := _failure_inside(inner)):
            return found
    if any(fields.get(name) for name in _CONTENT_FIELDS):
        return None
    if _has_bad_code(value, fields):
        return message_of(value)
    for name, held in fields.items():
        if name.endswith(_NAMED_FAILURE) and name not in _ERROR_FIELDS and isinstance(held, dict) and held:
            return message_of(held)
    # A message and nothing that an answer's event has, nor one that reports progress.
    plain = any(isinstance(fields.get(name), str) and fields[name] for name in ("message", "msg"))
    kind = next(
        (fields[name] for name in ("type", "event", "name") if isinstance(fields.get(name), str)), None
    )
    other = {"id", "object", "usage", "tool", "progress"} & fields.keys() or (
        kind and not _BAD_KIND.search(kind)
    )
    return message_of(value) if plain and not other else None


def error_words(error: Any, around: Any = None) -> str | None:
    """What a field that is called an error says; None where it says that there is none.

    `around`: the object that holds it, whose words stand for an error that has none, such as `true`.
    """
    if not error:
        return None
    if isinstance(error, str):
        return None if error.strip().lower() in _NO_FAILURE else message_of(error)
    if not isinstance(error, dict | list):
        return message_of(error if around is None else around)
    if isinstance(error, dict):
        fields = _folded(error)
        codes = [fields[name] for name in _CODE_FIELDS if name in fields]
        words = _words(error, _DEPTH) or ""
        says_so = bool(words) or any(code not in (None, "") for code in codes)
        fine = all(str(code).lower() in (*_NO_FAILURE, "0", "200") for code in codes)
        if words.lower() in _NO_FAILURE and fine and (says_so or not any(fields.values())):
            return None
    return message_of(error)


def _failure_inside(envelope: dict[str, Any]) -> str | None:
    fields = _folded(envelope)
    for name in _ERROR_FIELDS:
        if name in fields and (found := error_words(fields[name], envelope)):
            return found
    return message_of(envelope) if _has_bad_code(envelope, fields) else None


def _folded(value: dict[str, Any]) -> dict[str, Any]:
    return {name.lower().replace("_", ""): each for name, each in value.items()}


def message_of(value: Any) -> str:
    """The words of a failure for a person, at most ERROR_CHARS of them."""
    found = _words(value, _DEPTH)
    if found is None:
        try:
            found = value if isinstance(value, str) else msgspec.json.encode(value).decode()
        except (TypeError, ValueError, RecursionError, OverflowError):
            found = type(value).__name__
    return found[:ERROR_CHARS].encode("utf-8", "replace").decode()  # half a character can't be written down


def failure_of_data(data: bytes, called_an_error: bool = False) -> str | None:
    """As `failure_in`, of the text of an event or a body, also where it is no JSON.

    `called_an_error`: the stream names it so; then whatever it says is the failure's message.
    """
    value = json_value(data)
    found = failure_in(value)
    if found is None and called_an_error:
        found = data.decode("utf-8", "replace").strip() if value is None else message_of(value)
        found = found or "an error event without a word"
    return found and found[:ERROR_CHARS]


def is_json(data: bytes) -> bool:
    """Whether this is one whole JSON object or list."""
    return isinstance(json_value(data), dict | list)


def json_value(data: bytes) -> Any:
    """The JSON value of a text; None where it is none."""
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def problem_of(message: str) -> Problem:
    """What a failure that the server reported ends its turn as."""
    return ("context_full" if is_context_full(message) else "server_error"), message


def is_context_full(text: str) -> bool:
    """Whether these words say that prompt and answer do not fit into the model's context."""
    return _CONTEXT_FULL.search(text) is not None and not _RATE.search(text)


def refusal_of(status: int, text: str) -> Refused | None:
    """What a response that is no stream refuses, where asking otherwise can mend it."""
    if status < 400 or status in _NOT_ABOUT_THE_PROMPT:
        return None
    if is_context_full(text):
        return "context_full"
    return "system_role" if status < 500 and _NO_SYSTEM.search(text) else None


def _has_bad_code(value: dict[str, Any], fields: dict[str, Any]) -> bool:
    """Whether a code or a status says that it failed. A word that nobody knows, such as `thinking`, is one of
    progress where it stands alone, and a failure's beside a message."""
    codes = [fields[name] for name in _CODE_FIELDS if name in fields]
    for code in codes:
        if isinstance(code, int | float) and not isinstance(code, bool) and (code >= 400 or code < 0):
            return True
        if isinstance(code, str) and code.isdecimal() and int(code[:6]) >= 400:
            return True
    texts = {code.lower() for code in codes if isinstance(code, str) and not code.isdecimal()}
    unknown = texts - {*_NO_FAILURE}
    return any(map(_BAD_KIND.search, unknown)) or (bool(unknown) and _words(value, _DEPTH) is not None)


def _words(value: Any, depth: int) -> str | None:
    """The first text under a name for messages, wherever it stands."""
    if isinstance(value, str):
        return value.strip() or None
    if depth == 0:
        return None
    if isinstance(value, dict):
        # TGI says what failed in `error` and of which kind in `error_type`; FastAPI nests it in lists.
        fields = _folded(value)
        names: Sequence[str] = (*_MESSAGE_FIELDS, *_ERROR_FIELDS)
        said = (_words(fields[name], depth - 1) for name in names if fields.get(name))
    elif isinstance(value, list):
        said = (_words(each, depth - 1) for each in value[:8])
    else:
        return None
    return next((each for each in said if each), None)

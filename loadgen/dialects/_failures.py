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

_ERROR_FIELDS = ("error", "errors", "detail", "error_message", "errorMessage", "exception")
"""Any of these that says something is a failure, whatever else stands beside it."""
_MESSAGE_FIELDS = ("message", "msg", "detail", "description", "reason", "status_msg", "title", "text")
_CODE_FIELDS = ("code", "status", "status_code", "statusCode", "error_code")
_CONTENT_FIELDS = ("choices", "content", "delta", "output", "candidates")
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
_RATE = re.compile(r"per (second|minute|hour|day)|rate[ _-]?limit|quota|\b[TR]PM\b", re.I)
"""A limit on tokens a minute is worded much like one on the tokens of a prompt."""
_NO_SYSTEM = re.compile(r"system (role|message)|roles must alternate|only user and assistant roles", re.I)
_NOT_ABOUT_THE_PROMPT = (401, 403, 404, 407, 429)


def failure_in(value: Any) -> str | None:
    """What went wrong, by one event or body of any shape; None where it says nothing of the sort."""
    if isinstance(value, list):
        return next((found for each in value[:8] if (found := failure_in(each))), None)
    if not isinstance(value, dict):
        return None
    for name in _ERROR_FIELDS:
        if value.get(name):
            return (
                message_of(value[name]) if isinstance(value[name], str | dict | list) else message_of(value)
            )
    if "error" in (value.get("object"), value.get("type"), value.get("event"), value.get("status")):
        return message_of(value)
    if isinstance(inner := value.get("base_resp"), dict) and inner.get("status_code"):
        return message_of(inner)
    if any(value.get(name) for name in _CONTENT_FIELDS):
        return None
    codes = [value[name] for name in _CODE_FIELDS if name in value]
    if any(_is_bad(code) for code in codes):
        return message_of(value)
    # A message and nothing that an answer's event has.
    plain = any(isinstance(value.get(name), str) and value[name] for name in ("message", "msg"))
    return message_of(value) if plain and not {"id", "object", "usage"} & value.keys() else None


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


def _is_bad(code: Any) -> bool:
    if isinstance(code, bool):
        return False
    if isinstance(code, int | float):
        return code >= 400 or code < 0
    if not isinstance(code, str) or not code:
        return False
    if code.isdigit():
        return int(code[:6]) >= 400
    return code.lower() not in ("ok", "success", "succeeded", "in_progress", "processing", "running", "none")


def _words(value: Any, depth: int) -> str | None:
    """The first text under a name for messages, wherever it stands."""
    if isinstance(value, str):
        return value.strip() or None
    if depth == 0:
        return None
    if isinstance(value, dict):
        # TGI says what failed in `error` and of which kind in `error_type`; FastAPI nests it in lists.
        names: Sequence[str] = (*_MESSAGE_FIELDS, *_ERROR_FIELDS)
        said = (_words(value[name], depth - 1) for name in names if value.get(name))
    elif isinstance(value, list):
        said = (_words(each, depth - 1) for each in value[:8])
    else:
        return None
    return next((each for each in said if each), None)

"""The dialects in which a server can be asked; each is one module here.

To add one, write a module whose class follows the protocol `Dialect`, and enter it in DIALECTS. Nothing else
in the load generator knows what a request or an event carries. Events are server-sent ones: loadgen/transport
tells them apart for every dialect.
"""

from __future__ import annotations

from loadgen.dialects._chat import ChatCompletions
from loadgen.dialects._completions import Completions
from loadgen.dialects._dialect import (
    ODDITIES,
    Dialect,
    Problem,
    Prompt,
    ReadAhead,
    Refused,
    StreamedReply,
    TurnRequest,
)
from loadgen.dialects._failures import failure_of_data, is_json, problem_of
from loadgen.dialects._messages_api import AnthropicMessages
from loadgen.dialects._responses import Responses

DIALECTS: dict[str, Dialect] = {
    "chat": ChatCompletions(),
    "completions": Completions(),
    "responses": Responses(),
    "messages": AnthropicMessages(),
}
"""By the name that `--dialect` takes."""

__all__ = [
    "DIALECTS",
    "ODDITIES",
    "Dialect",
    "Problem",
    "Prompt",
    "ReadAhead",
    "Refused",
    "StreamedReply",
    "TurnRequest",
    "failure_of_data",
    "is_json",
    "problem_of",
]

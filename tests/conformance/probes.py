"""What every server is asked, word for word, so that the answers can be laid side by side.

A probe is one HTTP request. There are two kinds of server: `plain` is started as anyone would; `guarded`
demands a key and is in its developer's mode.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

KEY = "let-me-in"
"""The key of a guarded server."""

Kind = Literal["plain", "guarded"]
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
RESPONSES, MESSAGES = "/v1/responses", "/v1/messages"

STORY = {"role": "user", "content": "Tell me a story about the old harbour and the people who built it."}
LONG = {"role": "user", "content": "The merchants of the city came to the harbour every morning. " * 900}
STOPS = ["ath", "er", "me"]
"""What the tiny model says soon, in a chat and in a plain completion, and any English before long."""
USAGE = {"include_usage": True}
EVERY_USAGE = {"include_usage": True, "continuous_usage_stats": True}
END_TOKEN = {"2": 100}
"""`</s>` of the tiny model, made certain; a server without such a bias ends by itself after a few tokens."""


@dataclass(frozen=True)
class Probe:
    """One request; `MODEL` in a body stands for the name under which the server knows its model."""

    name: str
    path: str
    body: Any = None
    method: str = "POST"
    kind: Kind = "plain"
    headers: dict[str, str] = field(default_factory=dict)


def chat(name: str, messages: list[Any] | None = None, **more: Any) -> Probe:
    """A chat of 8 exact tokens unless told otherwise; a value of None leaves a field out."""
    body = {"model": "MODEL", "messages": messages or [STORY], "temperature": 0, "max_tokens": 8, **more}
    return Probe(f"chat {name}", CHAT, {key: value for key, value in body.items() if value is not None})


def completion(name: str, **more: Any) -> Probe:
    body = {"model": "MODEL", "prompt": "Once upon a time", "temperature": 0, "max_tokens": 8, **more}
    return Probe(f"completion {name}", COMPLETIONS, {k: v for k, v in body.items() if v is not None})


def response(name: str, **more: Any) -> Probe:
    body = {"model": "MODEL", "input": STORY["content"], "temperature": 0, "max_output_tokens": 8, **more}
    return Probe(f"response {name}", RESPONSES, {k: v for k, v in body.items() if v is not None})


def message(name: str, messages: list[Any] | None = None, **more: Any) -> Probe:
    body = {"model": "MODEL", "messages": messages or [STORY], "temperature": 0, "max_tokens": 8, **more}
    return Probe(f"message {name}", MESSAGES, {k: v for k, v in body.items() if v is not None})


def page(path: str, method: str = "GET", **more: Any) -> Probe:
    return Probe(f"{method} {path}", path, method=method, **more)


def guarded(name: str, path: str, method: str = "GET", key: str | None = KEY) -> Probe:
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    body = {"model": "MODEL", "messages": [STORY], "max_tokens": 4} if method == "POST" else None
    return Probe(f"guarded {name}", path, body, method, "guarded", headers)


ANSWERS = (
    chat("whole", ignore_eos=True),
    chat("stream", stream=True, ignore_eos=True),
    chat("stream with usage", stream=True, ignore_eos=True, stream_options=USAGE),
    chat("stream with usage in every event", stream=True, ignore_eos=True, stream_options=EVERY_USAGE),
    chat("one token", stream=True, max_tokens=1, ignore_eos=True, stream_options=USAGE),
    chat("usage declined", stream=True, ignore_eos=True, stream_options={"include_usage": False}),
    chat("max_completion_tokens", max_tokens=None, max_completion_tokens=5, ignore_eos=True),
    chat("both limits", max_tokens=9, max_completion_tokens=5, ignore_eos=True),
    chat("stop string", max_tokens=400, ignore_eos=True, stop=STOPS),
    chat("stop string in a stream", stream=True, max_tokens=400, ignore_eos=True, stop=STOPS,
         stream_options=USAGE),
    chat("end by itself", max_tokens=400, min_tokens=3, logit_bias=END_TOKEN),
    chat("end by itself in a stream", stream=True, max_tokens=400, min_tokens=3, logit_bias=END_TOKEN,
         stream_options=EVERY_USAGE),
    chat("system message", [{"role": "system", "content": "Be brief."}, STORY], ignore_eos=True),
    chat("content in parts", [{"role": "user", "content": [{"type": "text", "text": "Tell me more."}]}],
         ignore_eos=True),
    chat("unknown fields", ignore_eos=True, colour="blue"),
    chat("no model named", model=None, ignore_eos=True),
    chat("two choices", n=2, temperature=1, ignore_eos=True),
    chat("prompt and answer too long", max_tokens=4096, min_tokens=3, logit_bias=END_TOKEN),
    chat("logprobs", logprobs=True, top_logprobs=1, max_tokens=2, ignore_eos=True),
    completion("whole", ignore_eos=True),
    completion("stream", stream=True, ignore_eos=True),
    completion("stream with usage", stream=True, ignore_eos=True, stream_options=USAGE),
    completion("stream with usage in every event", stream=True, ignore_eos=True, stream_options=EVERY_USAGE),
    completion("stop string", max_tokens=400, ignore_eos=True, stop=STOPS),
    completion("default length", max_tokens=None, ignore_eos=True),
    completion("end by itself in a stream", stream=True, max_tokens=400, min_tokens=3, logit_bias=END_TOKEN),
    completion("list of one prompt", prompt=["Once"], ignore_eos=True),
    completion("prompt of token numbers", prompt=[300, 301, 302], ignore_eos=True),
    completion("two prompts", prompt=["Once", "Twice"], ignore_eos=True),
)  # fmt: skip

SPOKEN = [STORY, {"role": "assistant", "content": "Cold."}, {"role": "user", "content": "And then?"}]
TYPED = (
    response("whole", ignore_eos=True),
    response("stream", stream=True, ignore_eos=True),
    response("of a conversation", input=SPOKEN, ignore_eos=True),
    response("with instructions", instructions="Be brief.", ignore_eos=True),
    response("of parts", ignore_eos=True,
             input=[{"role": "user", "content": [{"type": "input_text", "text": "Tell me more."}]}]),
    response("unknown fields", ignore_eos=True, colour="blue"),
    response("of an unknown model", model="gpt-9"),
    response("without input", input=None),
    response("of an empty input", input=[]),
    response("too long", input=LONG["content"]),
    response("max_output_tokens in words", max_output_tokens="many"),
    response("max_output_tokens of zero", max_output_tokens=0),
    Probe("response broken JSON", RESPONSES, b"{not json"),
    message("whole"),
    message("stream", stream=True),
    message("with a system text", system="Be brief."),
    message("of a conversation", SPOKEN),
    message("in parts", [{"role": "user", "content": [{"type": "text", "text": "Tell me more."}]}]),
    message("of an unknown model", model="gpt-9"),
    message("without a limit", max_tokens=None),
    message("with a limit of zero", max_tokens=0),
    message("too long", [LONG]),
    message("of an unknown role", [{"role": "king", "content": "x"}]),
    Probe("message without messages", MESSAGES, {"model": "MODEL", "max_tokens": 4}),
    Probe("message broken JSON", MESSAGES, b"{not json"),
)  # fmt: skip
"""Of the two dialects whose events have types."""

REFUSALS = (
    chat("unknown model", model="gpt-9"),
    completion("unknown model", model="gpt-9"),
    chat("prompt too long", [LONG]),
    chat("prompt of too many tokens", [{**LONG, "content": LONG["content"][:40_000]}]),
    chat("two choices of the likeliest", n=2),
    chat("more tokens than the context", max_tokens=50_000),
    completion("prompt too long", prompt=LONG["content"]),
    chat("role that the template refuses", [{"role": "tool", "content": "x", "tool_call_id": "1"}]),
    chat("unknown role", [{"role": "king", "content": "x"}]),
    Probe("chat no messages", CHAT, {"model": "MODEL"}),
    Probe("chat empty messages", CHAT, {"model": "MODEL", "messages": []}),
    chat("content that is a number", [{"role": "user", "content": 3}]),
    chat("max_tokens in words", max_tokens="many"),
    chat("max_tokens of zero", max_tokens=0),
    chat("max_tokens below zero", max_tokens=-1),
    chat("min_tokens over max_tokens", max_tokens=2, min_tokens=3),
    chat("temperature below zero", temperature=-1),
    chat("top_p over one", top_p=2),
    chat("no choices", n=0),
    chat("stream_options without stream", stream_options=USAGE),
    chat("empty stop string", stop=""),
    completion("no prompt", prompt=None),
    completion("empty prompt", prompt=""),
    completion("max_tokens of zero", max_tokens=0),
    Probe("chat broken JSON", CHAT, b"{not json"),
    Probe("chat list for a body", CHAT, []),
    Probe("chat no body", CHAT),
    Probe("chat text for JSON", CHAT, b'{"messages": []}', headers={"Content-Type": "text/plain"}),
)

PAGES = (
    page("/v1/models"),
    page("/health"),
    page("/version"),
    page("/metrics"),
    page("/ping"),
    page("/nothing"),
    page("/v1/nothing"),
    page(CHAT),
    page("/v1/models", "POST"),
    page("/tokenize"),
    page("/reset_prefix_cache", "POST"),
    Probe("tokenize prompt", "/tokenize", {"model": "MODEL", "prompt": "Once upon a time"}),
    Probe("tokenize prompt in words", "/tokenize", {"prompt": "Once upon a time", "return_token_strs": True}),
    Probe("tokenize messages", "/tokenize", {"model": "MODEL", "messages": [STORY]}),
    Probe("tokenize unknown model", "/tokenize", {"model": "gpt-9", "prompt": "Once"}),
    Probe("tokenize nothing", "/tokenize", {"model": "MODEL"}),
    Probe("detokenize", "/detokenize", {"model": "MODEL", "tokens": [300, 301, 302]}),
    Probe("detokenize unknown model", "/detokenize", {"model": "gpt-9", "tokens": [300]}),
    Probe("detokenize words", "/detokenize", {"model": "MODEL", "tokens": "Once"}),
)

GUARDED = (
    guarded("right key", "/v1/models"),
    guarded("no key", "/v1/models", key=None),
    guarded("wrong key", "/v1/models", key="let-them-in"),
    guarded("chat without a key", CHAT, "POST", key=None),
    guarded("health without a key", "/health", key=None),
    guarded("metrics without a key", "/metrics", key=None),
    guarded("tokenize without a key", "/tokenize", "POST", key=None),
    guarded("unknown path without a key", "/v1/nothing", key=None),
    guarded("reset of the prefix cache", "/reset_prefix_cache", "POST"),
    guarded("reset of the prefix cache without a key", "/reset_prefix_cache", "POST", key=None),
)

PROBES = (*ANSWERS, *TYPED, *REFUSALS, *PAGES, *GUARDED)

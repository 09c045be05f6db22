"""What a scenario file may say. Every key is checked; an unknown one is a mistake, never ignored.

The docstrings below are the reference of the format.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    create_model,
    model_validator,
)

from scenarios.data import KINDS, kind_named
from turnbench.answers import AnswerKey
from turnbench.limits import limit_keys
from turnbench.problems import quoted

FORMAT: Literal["turnbench-scenario/1"] = "turnbench-scenario/1"
LETTERS = "abcdefgh"

Slug = Annotated[str, StringConstraints(pattern=r"\A[a-z0-9][a-z0-9_-]{0,39}\z")]
Words = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100_000)]
Positive = Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)]
Tokens = Annotated[int, Field(ge=1, le=1_000_000)]
Seconds = Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Spread(_Strict):
    """A log-normal draw, given by its median and its 90th percentile, clipped to [min, max]."""

    median: Positive
    p90: Positive
    min: Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)] = 0.0
    max: Positive | None = None

    @model_validator(mode="after")
    def _in_order(self) -> Spread:
        if self.p90 < self.median:
            raise ValueError("p90 is below median; nine tenths of the draws lie under p90, so raise it")
        if self.max is not None and not self.min <= self.median <= self.max:
            raise ValueError("median is outside min to max; move one of the three")
        return self


class TurnCount(_Strict):
    """Turns of a conversation: geometric with this mean (people leave with equal chance after each
    reply), cut at max. The cut takes a little off the mean."""

    mean: Annotated[float, Field(ge=1, le=100, allow_inf_nan=False)]
    max: Annotated[int, Field(ge=1, le=100)]


class Pace(_Strict):
    """A pause that follows from what is read and typed: the reply at `read_wpm` words a minute (238:
    Brysbaert 2019), then the person's next message at `type_wpm`."""

    read_wpm: Annotated[float, Field(ge=10, le=10_000)]
    type_wpm: Annotated[float, Field(ge=1, le=10_000)]


class Patience(_Strict):
    """When a person gives up: after `first_s` seconds without a word, or, a `share` of the turns, when the
    answer has been coming for `after_s` seconds."""

    first_s: Positive | None = None
    share: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.0
    after_s: Positive = 5.0


class Tool(_Strict):
    """A function that a model may call; `arguments` names each and says what it is (all are texts)."""

    name: Slug
    description: Words
    arguments: Annotated[dict[Slug, Words], Field(max_length=20)] = {}

    def as_function(self) -> dict[str, Any]:
        """An entry of `tools` in a chat completions request."""
        properties = {name: {"type": "string", "description": text} for name, text in self.arguments.items()}
        parameters = {"type": "object", "properties": properties, "required": list(properties)}
        function = {"name": self.name, "description": self.description, "parameters": parameters}
        return {"type": "function", "function": function}


class Call(_Strict):
    """One call of a tool and what it gave back."""

    tool: Slug
    arguments: Annotated[dict[Slug, Words], Field(max_length=20)] = {}
    result: Words


def _shape(value: Any) -> str:
    if isinstance(value, Pace) or (isinstance(value, dict) and {"read_wpm", "type_wpm"} & set(value)):
        return "a pace"
    return "a mapping" if isinstance(value, dict | BaseModel) else "a number"


_Number, _Mapping, _Shape = Tag("a number"), Tag("a mapping"), Discriminator(_shape)
Turns = Annotated[
    Annotated[int, Field(ge=1, le=100), _Number] | Annotated[TurnCount, _Mapping],
    _Shape,
]
Think = Annotated[
    Annotated[Seconds, _Number] | Annotated[Spread, _Mapping] | Annotated[Pace, Tag("a pace")], _Shape
]
Length = Annotated[Annotated[Tokens, _Number] | Annotated[Spread, _Mapping], _Shape]


class Bundle(_Strict):
    """Documents of some sets, in a seeded order, until there are about `tokens` of them (4.5 characters
    each). The item's own `text` is among them. A prompt uses it as `{bundle}`."""

    texts: Annotated[tuple[Slug, ...], Field(min_length=1, max_length=10)]
    tokens: Length


class Sampling(_Strict):
    """How the server picks tokens; sent in each request as it is."""

    temperature: Annotated[float, Field(ge=0, le=10, allow_inf_nan=False)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] | None = None
    top_k: Annotated[int, Field(ge=-1, le=1_000_000)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2, allow_inf_nan=False)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2, allow_inf_nan=False)] | None = None
    repetition_penalty: Positive | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None


class _WithShare(_Strict):
    share: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] | None = None


if TYPE_CHECKING:
    Slo = _WithShare
else:
    Slo = create_model(
        "Slo",
        __base__=_WithShare,
        __doc__="Limits of a turn, by metric. `share` of a task's turns must meet all of them (0.95).",
        **dict.fromkeys(limit_keys(), (Positive | None, None)),
    )


class Item(BaseModel):
    """One text of a set: any named texts, which a prompt uses as `{name}`; two names are special.

    `choices` (letters to texts) needs `answer`, one of its letters; a prompt may then use `{choices}`,
    `{answer}` and `{answer_text}`. `then` lists follow-ups that fit whatever the model replied.
    `calls` are the tool calls that follow the first message, with their results. `key` lists what an answer
    must say to be right, each with its forms: `"1380 | 1,380 orders"`; see `score` of a task.
    """

    model_config = ConfigDict(extra="allow", frozen=True)
    __pydantic_extra__: dict[str, Words]

    choices: Annotated[dict[str, Words], Field(min_length=2, max_length=8)] | None = None
    answer: Words | None = None
    then: tuple[Words, ...] = ()
    calls: Annotated[tuple[Call, ...], Field(max_length=20)] = ()
    key: Annotated[tuple[Words, ...], Field(max_length=20)] = ()

    @model_validator(mode="after")
    def _one_right_choice(self) -> Item:
        if self.choices is None:
            return self
        letters = ", ".join(self.choices)
        if self.answer is None:
            raise ValueError("choices without an answer; add 'answer: ' and the letter of the right one")
        if list(self.choices) != list(LETTERS[: len(self.choices)]):
            raise ValueError(f"choices are named {letters!a}; name them a, b, c ... in order")
        if self.answer not in self.choices:
            raise ValueError(f"answer {self.answer!a} is none of the choices; use one of {letters}")
        if len({text.casefold() for text in self.choices.values()}) < len(self.choices):
            raise ValueError("two choices are the same; a question needs different ones")
        return self

    def answer_key(self, score: Literal["choice", "key"]) -> AnswerKey | None:
        """What is right, where the item says it."""
        if score == "choice":
            return (
                AnswerKey(letter=self.answer, choices=self.choices) if self.choices and self.answer else None
            )
        return AnswerKey(parts=self.key) if self.key else None

    def fields(self) -> dict[str, str]:
        """The texts a prompt can use, by name."""
        texts = dict(self.__pydantic_extra__ or {})
        if self.answer is not None:
            texts["answer"] = self.answer
        if self.choices is not None and self.answer is not None:
            texts["choices"] = "\n".join(f"{letter}) {text}" for letter, text in self.choices.items())
            texts["answer_text"] = self.choices[self.answer]
        return texts


class Task(_Strict):
    """One thing people do: what is said, how long the answer may be, how fast it must come.

    `texts` names a set, of this file or built in; each of its items can open a conversation through
    `prompt`. `once`: a plan plays each item once before any comes again, and `--once` ends after that.
    `then` are follow-ups for any item, used when the item's own are spent. `think_s` is the time a
    person takes before each follow-up. `limit` keeps that many of the set's items, the same ones for every
    task and seed. `shared`: all conversations start with the same system message,
    which a server may answer from its prefix cache. `fresh`: every turn fills the prompt from another item;
    of each such message only `remember` stays in the history. `history`: which replies the next request
    contains: the real ones, the canned ones written in `replies`, or none, and no earlier turn.
    `score`: answers to the prompt are right or wrong, by the item's `choice` or `key` (see docs/accuracy.md).
    `needs_context`: the tokens of context without which the task can't be played. `at_context_end`: what a
    person does when it is full.
    """

    name: Slug
    weight: Positive = 1.0
    texts: Slug
    limit: Annotated[int, Field(ge=1, le=20_000)] | None = None
    once: bool = False
    system: Words | None = None
    shared: bool = False
    prompt: Words
    then: tuple[Words, ...] = ()
    turns: Turns = 1
    think_s: Think = 0.0
    max_tokens: Length
    stop: Annotated[tuple[Annotated[str, Field(min_length=1, max_length=200)], ...], Field(max_length=4)] = ()
    sampling: Sampling = Sampling()
    slo: Slo = Slo()
    bundle: Bundle | None = None
    fresh: bool = False
    remember: Words | None = None
    score: Literal["choice", "key"] | None = None
    needs_context: Tokens | None = None
    patience: Patience = Patience()
    history: Literal["real", "canned", "none"] = "real"
    replies: tuple[Words, ...] = ()
    at_context_end: Literal["stop", "drop_oldest", "fail"] = "stop"
    tools: Annotated[tuple[Tool, ...], Field(max_length=20)] = ()


def _known_kind(kind: str) -> str:
    names = [f"'{each.kind}'" for each in KINDS]
    if kind_named(kind) is None:
        raise ValueError(f"'kind' is {quoted(kind)}; write one of {', '.join(names[:-1])} or {names[-1]}")
    return kind


class Source(_Strict):
    """A file of data (see scenarios.data for the kinds), or a set of the hub (`hf:REPO[/CONFIG][:SPLIT]`).
    `prompt` is filled from the columns of a table. `max_tokens` is the length of the answers where the file
    does not say it. `sha256` refuses a changed file. `skip_bad_rows`: rows that cannot be played are skipped
    and counted. `time_unit` and `block_tokens` are those of a trace that does not show them."""

    path: Annotated[str, StringConstraints(min_length=1, max_length=4_000)]
    kind: Annotated[str, AfterValidator(_known_kind)] | None = None
    sha256: Annotated[str, StringConstraints(pattern=r"\A[0-9a-f]{64}\z")] | None = None
    prompt: Words | None = None
    system: Words | None = None
    skip_bad_rows: bool = False
    time_unit: Literal["s", "ms"] | None = None
    block_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    max_tokens: Tokens = 256
    think_s: Think = 0.0
    history: Literal["real", "canned", "none"] = "real"
    at_context_end: Literal["stop", "drop_oldest", "fail"] = "stop"
    sampling: Sampling = Sampling()
    slo: Slo = Slo()


class DataDocument(_Strict):
    """A scenario file whose conversations lie in another file, each row one of them."""

    format: Literal["turnbench-scenario/1"]
    name: Slug
    description: Words | None = None
    source: Source


class Document(_Strict):
    """A scenario file: one task or a mix of several, taken with chances in proportion to their weights."""

    format: Literal["turnbench-scenario/1"]
    name: Slug
    description: Words | None = None
    tasks: Annotated[tuple[Task, ...], Field(min_length=1, max_length=50)]
    sets: dict[Slug, Annotated[tuple[Item, ...], Field(min_length=1, max_length=20_000)]] = {}

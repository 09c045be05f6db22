"""What a request says of a conversation so far, and whether that still fits into the model's context."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from typing import Any

import msgspec

from loadgen._messages import Job
from loadgen.dialects import Dialect, Prompt, StreamedReply, TurnRequest
from loadgen.engine._request_form import RequestForm
from scenarios import Conversation, Turn, with_common_start

EXACT_TOKENS = 256
"""Length of an answer under --exact-tokens without --max-tokens."""

_encode = msgspec.json.Encoder().encode


class History:
    """One conversation under way: the replies it had, and the turn that is at hand.

    Of a conversation with branches it is one line of turns, each of which knows what was said in those
    before it. Lines part with `line_to`."""

    def __init__(
        self,
        conversation: Conversation,
        job: Job,
        dialect: Dialect,
        level: int,
        form: RequestForm | None = None,
    ) -> None:
        self.plan = conversation
        self.conversation = _sharing(conversation, job)
        """What is said in this line."""
        self._line: Sequence[int] = range(len(conversation.turns))
        self.stopped = False
        """The conversation ends before its plan does: the turn at hand would not fit."""
        self.system_role = True
        """Whether a system message is sent as one, or in front of the first user message."""
        self._job = job
        self._dialect = dialect
        self._level = level
        self._form = form or RequestForm(dialect, job.settings.body)
        self._replies: list[str] = []
        self._turns_dropped = 0
        self._tokens_per_character: float | None = None
        self._prepared: tuple[bytes, object] | None = None
        """The request of the turn at hand, and how one was to be asked when it was made."""
        self._sent_characters = 0

    @property
    def index(self) -> int:
        """Place in the line of the turn at hand, from 0."""
        return len(self._replies)

    @property
    def number(self) -> int:
        """Its number in the plan, from 0: the same where there are no branches."""
        return self._line[len(self._replies)]

    @property
    def turn(self) -> Turn:
        return self.conversation.turns[self.index]

    @property
    def over(self) -> bool:
        """Whether no turn is left."""
        return self.stopped or self.index == len(self.conversation.turns)

    @property
    def shortened(self) -> bool:
        """Whether requests no longer mention the oldest turns."""
        return self._turns_dropped > 0

    @property
    def words(self) -> int:
        """Words of the newest reply, as somebody reads them."""
        return len(self._replies[-1].split())

    def line_to(self, number: int, *, begins: bool) -> History:
        """Another line, which goes on from here with this turn of the plan, or begins with it."""
        other, turn = copy(self), self.plan.turns[number]
        other._prepared = None
        if begins:
            system = None if turn.place is None else turn.place.system
            start = replace(self.plan, turns=(turn,), system=system)
            other.conversation, other._line = _sharing(start, self._job), (number,)
            other._replies, other._turns_dropped, other._tokens_per_character = [], 0, None
            return other
        said = self.conversation.turns[: self.index]
        other.conversation = replace(self.conversation, turns=(*said, turn))
        other._line, other._replies = (*self._line[: self.index], number), list(self._replies)
        other._see_that_it_fits()
        return other

    def prepare(self) -> int:
        """Make the first request beforehand, as its moment does not have the time; how many bytes it has."""
        body = self.body()
        self._prepared = body, self._way_to_ask
        return len(body)

    @property
    def _way_to_ask(self) -> object:
        return self.system_role, self._form.learnt

    def body(self) -> bytes:
        """The request of the turn at hand."""
        prepared, self._prepared = self._prepared, None
        if prepared is not None and prepared[1] == self._way_to_ask:
            return prepared[0]
        prompt = self._prompt()
        self._sent_characters = prompt.characters
        body = body_of_turn(self._job, self._dialect, self.conversation, self.turn, prompt)
        return _encode(self._form.fit(body))

    def add_reply(self, reply: StreamedReply) -> None:
        """Keep the reply to the turn at hand, and see that the next turn fits, as the scenario asks."""
        if self._job.context is not None and reply.prompt_tokens:
            self._tokens_per_character = reply.prompt_tokens / max(self._sent_characters, 1)
        self._replies.append("".join(reply.answer))
        if not self.over and not self.plan.branches:
            self._see_that_it_fits()

    def _see_that_it_fits(self) -> None:
        """Drop the oldest turns, or stop, where the turn at hand would not fit, as the scenario asks."""
        at_end = self.conversation.at_context_end
        if at_end == "fail":
            return
        while not self._fits() and not self.stopped:
            self.stopped = at_end == "stop" or not self.drop_oldest()

    def drop_oldest(self) -> bool:
        """Mention one more of the oldest turns no longer; False where only the one at hand is left."""
        if self._prompt().turns <= 1:
            return False
        self._turns_dropped += 1
        return True

    def _prompt(self) -> Prompt:
        """Of the turn at hand. It is not kept: thousands of people who think would hold a long one each."""
        return self._dialect.prompt(
            self.conversation,
            self._replies,
            salt=self._job.salt,
            level=self._level,
            turns_dropped=self._turns_dropped,
            system_role=self.system_role,
        )

    def _fits(self) -> bool:
        """Whether the turn at hand and its longest answer fit; yes where the server did not say enough."""
        if self._job.context is None or self._tokens_per_character is None:
            return True
        prompt_tokens = self._tokens_per_character * self._prompt().characters
        return prompt_tokens + max_tokens_of(self._job, self.turn) <= self._job.context


def _sharing(conversation: Conversation, job: Job) -> Conversation:
    """The conversation with the common start that --cache shared:SHARE asks for."""
    kind, _, share = job.settings.cache.partition(":")
    return with_common_start(conversation, float(share), job.measured) if kind == "shared" else conversation


def body_of_turn(
    job: Job, dialect: Dialect, conversation: Conversation, turn: Turn, prompt: Prompt
) -> dict[str, Any]:
    """The request of a turn; --body is merged last, so that a person can override all."""
    settings = job.settings
    sampling = conversation.sampling | turn.body
    if settings.temperature is not None:
        sampling["temperature"] = settings.temperature
    if settings.top_p is not None:
        sampling["top_p"] = settings.top_p
    request = TurnRequest(
        model=job.model_of(conversation.index),
        prompt=prompt,
        max_tokens=max_tokens_of(job, turn),
        exact_tokens=settings.exact_tokens,
        stop=turn.stop,
        sampling=sampling,
        tools=conversation.tools if turn.tools is None else turn.tools,
        usage_in_events=job.usage_in_events,
    )
    return dialect.body(request) | settings.body


_LIMITS_IN_BODY = ("max_tokens", "max_completion_tokens", "max_output_tokens")


def max_tokens_of(job: Job, turn: Turn) -> int:
    """Tokens of the longest answer that is asked for; a replay keeps to the trace's lengths, --body wins."""
    for name in _LIMITS_IN_BODY:
        if type(typed := job.settings.body.get(name)) is int:
            return typed
    one_length = job.settings.exact_tokens and not job.load.scenario_lengths
    return job.settings.max_tokens or (EXACT_TOKENS if one_length else turn.max_tokens)

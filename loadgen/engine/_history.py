"""What a request tells of a conversation so far, and whether that still fits into the model's context."""

from __future__ import annotations

from typing import Any

from loadgen._settings import Job
from loadgen.engine._request import body_of_turn, encode_body, length_of
from loadgen.transport._chat_chunk import Usage
from loadgen.transport._reply import StreamedReply
from scenarios import Conversation, Turn, dialogue, drop_oldest, without_system


class History:
    """One conversation under way: the replies it had, and the turn that is at hand."""

    def __init__(self, conversation: Conversation, job: Job, level: int) -> None:
        self.conversation = conversation
        self.stopped = False
        """The conversation ends before its plan does: the turn at hand would not fit."""
        self.system_role = True
        """Whether a system message is sent as one, or in front of the first user message."""
        self._job = job
        self._level = level
        self._replies: list[str] = []
        self._left_out = 0
        self._tokens_per_character: float | None = None
        self._ready: bytes | None = None

    @property
    def index(self) -> int:
        """Number of the turn at hand, from 0."""
        return len(self._replies)

    @property
    def turn(self) -> Turn:
        return self.conversation.turns[self.index]

    @property
    def over(self) -> bool:
        """Whether no turn is left."""
        return self.stopped or self.index == len(self.conversation.turns)

    @property
    def shortened(self) -> bool:
        """Whether the oldest turns are no longer told."""
        return self._left_out > 0

    @property
    def words(self) -> int:
        """Words of the newest reply, as somebody reads them."""
        return len(self._replies[-1].split())

    def make_ready(self) -> None:
        """Make the first request beforehand: a long one takes time, which its moment does not have."""
        self._ready = self.body()

    def body(self) -> bytes:
        """The request of the turn at hand."""
        if self._ready is not None:
            ready, self._ready = self._ready, None
            return ready
        return encode_body(body_of_turn(self._job, self.conversation, self.turn, self._messages()))

    def took(self, reply: StreamedReply) -> None:
        """Keep the reply to the turn at hand, and see that the next turn fits, as the scenario asks."""
        self._weigh(reply.usage)
        self._replies.append("".join(reply.answer))
        at_end = self.conversation.at_context_end
        if self.over or at_end == "fail":
            return
        while not self._fits() and not self.stopped:
            self.stopped = at_end == "stop" or not self.leave_out()

    def leave_out(self) -> bool:
        """Tell one more of the oldest turns no longer; False where only the one at hand is left."""
        before = self._messages()
        if len(drop_oldest(before)) == len(before):
            return False
        self._left_out += 1
        return True

    def _messages(self) -> list[dict[str, Any]]:
        told = dialogue(self.conversation, self._job.salt, self._level, self._replies)
        for _ in range(self._left_out):
            told = drop_oldest(told)
        return told if self.system_role else without_system(told)

    def _weigh(self, usage: Usage | None) -> None:
        """Learn from what the server counted how many tokens a character is, in this conversation."""
        if self._job.context is not None and usage is not None and usage.prompt_tokens:
            self._tokens_per_character = usage.prompt_tokens / max(_characters(self._messages()), 1)

    def _fits(self) -> bool:
        """Whether the turn at hand and its longest answer fit; yes where nobody told enough to know."""
        if self._job.context is None or self._tokens_per_character is None:
            return True
        prompt = self._tokens_per_character * _characters(self._messages())
        return prompt + length_of(self._job.settings, self.turn) <= self._job.context


def _characters(messages: list[dict[str, Any]]) -> int:
    return sum(len(message["content"] or str(message.get("tool_calls", ""))) for message in messages)

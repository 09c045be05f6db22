"""OpenAI's chat completions, streamed: what is asked, what the events of an answer say, how it ends."""

from __future__ import annotations

import re
from array import array
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import msgspec

from loadgen.dialects._chunks import (
    DONE,
    NO_CHOICE,
    NO_DELTA,
    ChatChunk,
    ChatUsage,
    ChatUsageDetails,
    choice_of_answer,
    chunks_of,
    end_of,
    has_one_choice,
    plain_texts,
    undoubled,
    usage_elsewhere,
)
from loadgen.dialects._dialect import (
    NOT_ENDED,
    Problem,
    Prompt,
    ReadAhead,
    Refused,
    StreamedReply,
    TurnRequest,
    bearer,
)
from loadgen.dialects._failures import error_words, failure_of_data, problem_of, refusal_of
from scenarios import Conversation, characters_of, dialogue, drop_oldest, without_system

_FIRST_EVENTS, _LEAST_EVENTS, _LAST_EVENTS = 6, 8, 3
"""Of a long answer the first and the last events are read one by one, those between them all at once."""
FAILED_FINISH = re.compile(r"error|abort|fail|cancel", re.I)
_END_BYTES = 64
_decode_texts = msgspec.json.Decoder(list[str]).decode
_COMPLETE = re.compile(rb"data: *\"?\[DONE\]\"?\s*$", re.I)


class ChatCompletions:
    """The dialect of /chat/completions."""

    path = "/chat/completions"
    required: Collection[str] = ("model", "messages", "stream", "max_tokens", "tools")
    carries: Collection[str] = ("tools", "odd_tools", "parts")
    substitutes: Mapping[str, str] = MappingProxyType({"max_tokens": "max_completion_tokens"})

    def headers(self, key: str) -> dict[str, str]:
        return bearer(key)

    def prompt(
        self,
        conversation: Conversation,
        replies: Sequence[str],
        *,
        salt: str,
        level: int,
        turns_dropped: int,
        system_role: bool,
    ) -> Prompt:
        """A list of messages."""
        messages = dialogue(conversation, salt, level, replies)
        for _ in range(turns_dropped):
            messages = drop_oldest(messages)
        if not system_role:
            messages = without_system(messages)
        return Prompt(messages, characters_of(messages), sum(m["role"] == "user" for m in messages))

    def body(self, request: TurnRequest) -> dict[str, Any]:
        stream_options = {"include_usage": True}
        if request.usage_in_events:
            stream_options["continuous_usage_stats"] = True
        body: dict[str, Any] = {
            "model": request.model,
            "messages": request.prompt.content,
            "stream": True,
            "stream_options": stream_options,
            **request.sampling,
            "max_tokens": request.max_tokens,
        }
        if request.exact_tokens:
            body |= {"min_tokens": request.max_tokens, "ignore_eos": True}
        elif request.stop:
            body["stop"] = list(request.stop)
        if request.tools:
            body["tools"] = list(request.tools)
        return body

    def ahead(self) -> ReadAhead:
        return _Reading()

    def read(self, events: list[bytes]) -> StreamedReply:
        """Decode every chunk up to [DONE] or the first problem."""
        return _Reading().read(events) or _Reading().read_one_by_one(events)

    def is_complete(self, tail: bytes) -> bool:
        return _COMPLETE.search(tail[-_END_BYTES:]) is not None

    def refusal(self, status: int, text: str) -> Refused | None:
        return refusal_of(status, text)


class _Reading:
    """What the events of one stream say. While many streams come each of these holds few objects, however
    many events it had: all would be looked through, together, whenever garbage is collected."""

    def __init__(self) -> None:
        self._reply = StreamedReply()
        self._usage: ChatUsage | None = None
        self._counted_at = 0
        self._ours: int | None = None
        """The index of the choice that is the answer, once another than 0 was seen."""
        self._added = 0
        """So many events are in the reply."""
        self._read_to = 0
        """So many were read."""
        self._texts: list[bytes] = []
        """Those of the events between: of each look a list, as JSON."""
        self._counts = array("q")
        """The server's count so far in each of those events, or in none."""

    def take(self, events: list[bytes], one_by_one: bool) -> bool:
        begin = self._read_to
        if one_by_one and not self._texts and len(events) - begin < _FIRST_EVENTS + _LEAST_EVENTS:
            return self._add_to(events.index(DONE) if DONE in events[begin:] else len(events), events)
        last = len(events) - _LAST_EVENTS - 1  # the mark of the end may be among them
        if last - max(begin, _FIRST_EVENTS) < _LEAST_EVENTS:
            return True
        if (middle := self._middle(events, last)) is None:
            return False
        texts, counts = middle
        if self._texts and bool(self._counts) != (counts is not None):
            return False
        self._texts.append(msgspec.json.encode(texts))
        self._counts.extend(counts or ())
        self._read_to = last
        events[begin:last] = [b""] * (last - begin)
        return True

    def read(self, events: list[bytes]) -> StreamedReply | None:
        """None for a stream that is not plain."""
        end = end_of(events)
        last = end - _LAST_EVENTS
        if self._read_to > (last if self._texts else end):
            return None
        if not self._texts and last - max(self._read_to, _FIRST_EVENTS) < _LEAST_EVENTS:
            return self._ended(events, end, None) if self._add_to(end, events) else None
        if (middle := self._middle(events, last)) is None:
            return None
        texts = [text for each in self._texts for text in _decode_texts(each)] + middle[0]
        counts = self._counts.tolist() + (middle[1] or [])
        odd: set[str] = set()
        chunks, problem = chunks_of(events[last:end], odd)
        if problem is not None or odd or not has_one_choice(chunks) or len(counts) not in (0, len(texts)):
            return None
        if counts and (chunks[0].usage is None or chunks[0].error):  # no newer counts
            return None
        self._reply.add_answers(self._added, texts, counts or None)
        self._add_all(last, chunks, events)
        return self._ended(events, end, None)

    def read_one_by_one(self, events: list[bytes]) -> StreamedReply:
        end = end_of(events)
        chunks, problem = chunks_of(events[:end], self._reply.oddities)
        self._add_all(0, chunks, events)
        return self._ended(events, end, problem)

    def _middle(self, events: list[bytes], last: int) -> tuple[list[str], list[int] | None] | None:
        """The texts and counts of what is not read up to that event, but for the first ones, which are added;
        None: some of them are not plain."""
        return plain_texts(events[self._read_to : last]) if self._add_to(_FIRST_EVENTS, events) else None

    def _add_to(self, to: int, events: list[bytes]) -> bool:
        """Those up to that one. False: they are not plain, or nothing after them counts."""
        begin = self._read_to
        if begin >= to:
            return True
        odd: set[str] = set()
        chunks, problem = chunks_of(events[begin:to], odd)
        if problem is not None or odd or not has_one_choice(chunks):
            return False
        self._added = self._read_to = to
        return self._add_all(begin, chunks, events)

    def _add_all(self, first: int, chunks: list[ChatChunk], events: list[bytes]) -> bool:
        """Events in a row from that number on; whether what follows them counts."""
        return all(self._add(number, chunk, chunks, events) for number, chunk in enumerate(chunks, first))

    def _add(self, number: int, chunk: ChatChunk, chunks: list[ChatChunk], events: list[bytes]) -> bool:
        """One event; whether the next ones count, too."""
        reply = self._reply
        if chunk.error and (failure := error_words(chunk.error)):
            reply.problem = problem_of(failure)
            return False
        if chunk.usage is not None:
            self._usage, self._counted_at = chunk.usage, number
        if not chunk.choices:
            if chunk.usage is None and (failure := failure_of_data(undoubled(events[number]))):
                reply.problem = problem_of(failure)
                return False
            return True
        choice = chunk.choices[0]
        if choice.index != (self._ours or 0) or len(chunk.choices) > 1:
            if self._ours is None:
                self._ours = choice_of_answer(chunks, reply.oddities)
            choice = next((each for each in chunk.choices if each.index == self._ours), NO_CHOICE)
        if choice.finish_reason and choice.finish_reason.lower() not in NOT_ENDED:
            reply.finish_reason = choice.finish_reason
        if choice.error and (failure := error_words(choice.error)):
            reply.problem = problem_of(failure)
            return False
        delta = choice.delta or choice.message or NO_DELTA
        answer = delta.content or choice.text or delta.refusal or ""
        reasoning = delta.thought
        tool_call = bool(delta.tool_calls or delta.function_call)
        if answer or reasoning or tool_call:
            count = None if chunk.usage is None else chunk.usage.completion_tokens
            reply.add(number, answer, reasoning, count, tool_call)
        return True

    def _ended(self, events: list[bytes], end: int, problem: Problem | None) -> StreamedReply:
        """After the last event: `end` is the place of the mark, `problem` what was wrong with the next."""
        reply, usage = self._reply, self._usage
        if reply.finish_reason is not None and FAILED_FINISH.search(reply.finish_reason):
            problem = problem or ("server_error", f"the server ended the answer as {reply.finish_reason}")
        for data in events[end + 1 :]:
            if failure := failure_of_data(data):
                problem = problem or problem_of(failure)
        if usage is not None and _is_of_the_start(usage, self._counted_at, reply):
            usage = ChatUsage(usage.prompt_tokens, prompt_tokens_details=ChatUsageDetails(usage.cached))
            reply.oddities.add("counts")
        _take_usage(reply, usage, events[:end])
        reply.end(end < len(events), problem)
        return reply


def _take_usage(reply: StreamedReply, usage: ChatUsage | None, events: list[bytes]) -> None:
    if usage is None or usage.completion_tokens is None:
        usage = usage_elsewhere(events, reply.oddities) or usage
    if usage is None:
        return
    reply.prompt_tokens = usage.prompt_tokens or None  # no prompt is of no token
    reply.completion_tokens = usage.output(reply.oddities)
    reply.cached_tokens, reply.reasoning_tokens = usage.cached, usage.reasoning
    if "choices" in reply.oddities:  # it counts those of all
        reply.completion_tokens = reply.reasoning_tokens = None


def _is_of_the_start(usage: ChatUsage, counted_at: int, reply: StreamedReply) -> bool:
    """Whether these counts, fewer than the events, came before the last of them: so far and no total."""
    counted = usage.completion_tokens
    early = bool(reply.events) and counted_at < reply.events[-1]
    return early and counted is not None and counted < len(reply.events)

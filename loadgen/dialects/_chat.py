"""OpenAI's chat completions, streamed: what is asked, what the events of an answer say, how it ends."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from loadgen.dialects._chunks import (
    NO_CHOICE,
    NO_DELTA,
    ChatChunk,
    ChatUsage,
    ChatUsageDetails,
    choice_of_answer,
    chunks_of,
    end_of,
    plain_texts,
    undoubled,
    usage_elsewhere,
)
from loadgen.dialects._dialect import (
    NOT_ENDED,
    Problem,
    Prompt,
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

    def read(self, events: list[bytes]) -> StreamedReply:
        """Decode every chunk up to [DONE] or the first problem."""
        end = end_of(events)
        reply = StreamedReply()
        middle, places, chunks, problem = _decoded(events[:end], reply.oddities)
        ours: int | None = None  # the index of the choice that is the answer, once another than 0 was seen
        usage: ChatUsage | None = None
        counted_at = 0
        for number, chunk in zip(places, chunks, strict=False):
            if middle is not None and number == end - _LAST_EVENTS:
                reply.add_answers(_FIRST_EVENTS, *middle)
            if chunk.error and (failure := error_words(chunk.error)):
                reply.problem = problem_of(failure)
                break
            if chunk.usage is not None:
                usage, counted_at = chunk.usage, number
            if not chunk.choices:
                if chunk.usage is None and (failure := failure_of_data(undoubled(events[number]))):
                    reply.problem = problem_of(failure)
                    break
                continue
            choice = chunk.choices[0]
            if choice.index != (ours or 0) or len(chunk.choices) > 1:
                ours = choice_of_answer(chunks, reply.oddities) if ours is None else ours
                choice = next((each for each in chunk.choices if each.index == ours), NO_CHOICE)
            if choice.finish_reason and choice.finish_reason.lower() not in NOT_ENDED:
                reply.finish_reason = choice.finish_reason
            if choice.error and (failure := error_words(choice.error)):
                reply.problem = problem_of(failure)
                break
            delta = choice.delta or choice.message or NO_DELTA
            answer = delta.content or choice.text or delta.refusal or ""
            reasoning = delta.thought
            tool_call = bool(delta.tool_calls or delta.function_call)
            if answer or reasoning or tool_call:
                count = None if chunk.usage is None else chunk.usage.completion_tokens
                reply.add(number, answer, reasoning, count, tool_call)
        if reply.finish_reason is not None and FAILED_FINISH.search(reply.finish_reason):
            problem = problem or ("server_error", f"the server ended the answer as {reply.finish_reason}")
        for data in events[end + 1 :]:
            if failure := failure_of_data(data):
                problem = problem or problem_of(failure)
        if usage is not None and _is_of_the_start(usage, counted_at, reply):
            usage = ChatUsage(usage.prompt_tokens, prompt_tokens_details=ChatUsageDetails(usage.cached))
            reply.oddities.add("counts")
        self._take_usage(reply, usage, events[:end])
        reply.end(end < len(events), problem)
        return reply

    def _take_usage(self, reply: StreamedReply, usage: ChatUsage | None, events: list[bytes]) -> None:
        if usage is None or usage.completion_tokens is None:
            usage = usage_elsewhere(events, reply.oddities) or usage
        if usage is None:
            return
        reply.prompt_tokens = usage.prompt_tokens or None  # no prompt is of no token
        reply.completion_tokens = usage.output(reply.oddities)
        reply.cached_tokens, reply.reasoning_tokens = usage.cached, usage.reasoning
        if "choices" in reply.oddities:  # it counts those of all
            reply.completion_tokens = reply.reasoning_tokens = None

    def is_complete(self, tail: bytes) -> bool:
        return _COMPLETE.search(tail[-_END_BYTES:]) is not None

    def refusal(self, status: int, text: str) -> Refused | None:
        return refusal_of(status, text)


def _decoded(
    events: list[bytes], oddities: set[str]
) -> tuple[tuple[list[str], list[int] | None] | None, Sequence[int], list[ChatChunk], Problem | None]:
    """The texts and counts of a plain middle, if there is one, and places and chunks of the other events.

    The last element is what was wrong with the event after these chunks.
    """
    last = len(events) - _LAST_EVENTS
    if last - _FIRST_EVENTS >= _LEAST_EVENTS:
        middle = plain_texts(events[_FIRST_EVENTS:last])
        if middle is not None:
            odd: set[str] = set()
            chunks, problem = chunks_of(events[:_FIRST_EVENTS] + events[last:], odd)
            one_choice = not any(c.choices and (len(c.choices) > 1 or c.choices[0].index) for c in chunks)
            if problem is None and not odd and one_choice:
                after = chunks[_FIRST_EVENTS]
                if middle[1] is None or (after.usage is not None and not after.error):  # newer counts
                    return middle, [*range(_FIRST_EVENTS), *range(last, len(events))], chunks, None
    chunks, problem = chunks_of(events, oddities)
    return None, range(len(events)), chunks, problem


def _is_of_the_start(usage: ChatUsage, counted_at: int, reply: StreamedReply) -> bool:
    """Whether these counts, fewer than the events, came before the last of them: so far and no total."""
    counted = usage.completion_tokens
    early = bool(reply.events) and counted_at < reply.events[-1]
    return early and counted is not None and counted < len(reply.events)

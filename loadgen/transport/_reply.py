"""Makes sense of a finished stream: OpenAI chat chunks to tokens, words and what went wrong."""

from __future__ import annotations

from dataclasses import dataclass, field

from loadgen.transport._chat_chunk import Chunk, Problem, Usage, chunks_of, message_of
from loadgen.transport._read_log import Body, ReadLog
from loadgen.transport._sse import events
from turnbench.formats import TokenSource
from turnbench.outcomes import Outcome

_DONE = b"[DONE]"


@dataclass(slots=True)
class StreamedReply:
    """What one stream said. Event lists are aligned: one entry per content event."""

    event_reads: list[int] = field(default_factory=list)
    """Index of the read that completed each content event."""
    event_tokens: list[int] = field(default_factory=list)
    event_words: list[int] = field(default_factory=list)
    answer_event: int | None = None
    parts: list[str] = field(default_factory=list)
    answer: list[str] = field(default_factory=list)
    """The text of the answer alone, without reasoning: what a history keeps."""
    usage: Usage | None = None
    counted_events: int = 0
    """Content events that carried the server's running count of tokens."""
    finish_reason: str | None = None
    done: bool = False
    tool_calls: bool = False
    problem: Problem | None = None

    @property
    def text(self) -> str:
        return "".join(self.parts)

    @property
    def token_source(self) -> TokenSource:
        if self.usage is None or self.usage.completion_tokens is None:
            return "events"
        return "continuous_usage" if 0 < len(self.event_reads) == self.counted_events else "usage"

    @property
    def output_tokens(self) -> int:
        """The server's own count where it gave one, else the number of content events."""
        if self.usage is not None and self.usage.completion_tokens is not None:
            return self.usage.completion_tokens
        return len(self.event_reads)


def read_reply(body: Body) -> StreamedReply:
    """Decode every event of a streamed chat completion; stops at [DONE] or the first problem."""
    found = events(body.data)
    datas = [data for data, _ in found]
    said_done = _DONE in datas
    if said_done:
        datas = datas[: datas.index(_DONE)]
    chunks, problem = chunks_of(datas)
    reply = StreamedReply()
    _take(reply, chunks, body.reads_of([end for _, end in found[: len(chunks)]]))
    reply.problem = reply.problem or problem
    reply.done = said_done and reply.problem is None
    if reply.counted_events < len(reply.event_reads):
        # A count that came with some events only can't be split over them.
        reply.event_tokens = [1] * len(reply.event_reads)
    return reply


def _take(reply: StreamedReply, chunks: list[Chunk], reads: list[int]) -> None:
    """Add to the reply what each chunk says, up to the first that tells of an error."""
    counted = 0  # tokens the server has reported up to the last content event
    in_word = False
    for chunk, read in zip(chunks, reads, strict=True):
        if chunk.error is not None:
            reply.problem = ("server_error", message_of(chunk.error))
            return
        if chunk.usage is not None:
            reply.usage = chunk.usage
        if not chunk.choices:
            continue
        choice = chunk.choices[0]
        if choice.finish_reason is not None:
            reply.finish_reason = choice.finish_reason
        delta = choice.delta
        if delta is None:
            continue
        text = delta.content or ""
        if text or delta.tool_calls:
            reply.answer.append(text)
            reply.tool_calls = reply.tool_calls or bool(delta.tool_calls)
            if reply.answer_event is None:
                reply.answer_event = len(reply.event_reads)
        # Servers that renamed reasoning_content send the same text under both names.
        thought = delta.reasoning or delta.reasoning_content
        if thought:
            text = thought + text
        if not text and not delta.tool_calls:
            continue
        reply.event_reads.append(read)
        reply.parts.append(text)
        counted = _count_tokens(reply, chunk.usage, counted)
        reply.event_words.append(_words_begun(text, in_word))
        in_word = not text[-1].isspace() if text else in_word


def _count_tokens(reply: StreamedReply, usage: Usage | None, counted: int) -> int:
    """Tokens of the event at hand: what the server's running count grew by since the last content event."""
    total = usage.completion_tokens if usage is not None else None
    if total is None:
        reply.event_tokens.append(1)
        return counted + 1
    reply.counted_events += 1
    reply.event_tokens.append(max(total - counted, 0))
    return max(total, counted)


def _words_begun(text: str, in_word: bool) -> int:
    """Words that begin in `text`, which may go on with the last one of the text before it."""
    count = len(text.split())
    return count - 1 if count and in_word and not text[0].isspace() else count


def outcome_of(reply: StreamedReply, log: ReadLog) -> tuple[Outcome, str | None]:
    """How a stream with status 200 ended, and a sentence where it was not well."""
    if reply.problem is not None:
        return reply.problem
    if not reply.done and reply.finish_reason is None:
        if log.reset is not None:
            return "disconnected", f"connection broke mid-stream: {log.reset}"
        return "truncated", "the stream ended without a finish_reason or [DONE]"
    if not reply.event_reads:
        return "empty", "the reply had no content"
    if reply.answer_event is None:
        return "reasoning_only", "the reply had reasoning but no answer"
    return "ok", None

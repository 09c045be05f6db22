"""The roofline schedule: drives the scheduler's virtual steps on the real clock."""

from __future__ import annotations

from functools import partial

from serve.emulator.answer import Answer, make_answer, wanted_tokens
from serve.emulator.outbox import At, Entry, Outbox
from serve.emulator.prefix_cache import block_hashes
from serve.emulator.reply import Counters, Reply
from serve.emulator.request import Ask
from serve.emulator.scheduler import Scheduler, Sequence
from serve.emulator.talk import Talk
from serve.emulator.text import make_ring, take


class RooflineSchedule:
    """Answers as the emulated model would, when the emulated GPU could."""

    def __init__(
        self,
        scheduler: Scheduler,
        talk: Talk,
        at: At,
        counters: Counters,
        room: int,
        frontend_ns: int,
        token_ns: int,
    ) -> None:
        self._scheduler = scheduler
        self._talk = talk
        self._at = at
        self._counters = counters
        self._room = room
        self._frontend_ns = frontend_ns
        self._token_ns = token_ns
        self._outbox = Outbox(at)
        self._frontend_free_ns = 0
        self._ring = make_ring(0)
        self._replies: dict[Sequence, Reply] = {}
        self._stepping = False

    def answer(self, ask: Ask) -> Answer:
        said = self._talk.say(ask.prompt, ask.first_message)
        count, stop_event = wanted_tokens(ask, said.tokens, self._room - ask.prompt_tokens)
        pieces = take(self._ring, said.start, count)
        if said.letter is not None:
            pieces[0] = said.letter
        return make_answer(ask, pieces, stop_event)

    def start(self, reply: Reply) -> None:
        """The head goes out at once, the request into the queue when the front end is done with it."""
        reply.begin(with_role=False)
        self._at(reply.ask.received_ns + self._frontend_ns, partial(self._arrive, reply))

    def _arrive(self, reply: Reply, due_ns: int) -> None:
        if reply.ended:
            return
        ask = reply.ask
        sequence = Sequence(
            prompt_tokens=ask.prompt_tokens,
            output_tokens=reply.answer.tokens,
            blocks=block_hashes(ask.prompt),
            blocks_after=block_hashes(ask.prompt + "".join(reply.answer.pieces)),
        )
        self._replies[sequence] = reply
        reply.on_end = partial(self._leave, sequence)
        self._scheduler.add(sequence)
        if not self._stepping:
            self._begin(due_ns)

    def _begin(self, now_ns: int) -> None:
        took_ns = self._scheduler.begin_step()
        self._stepping = took_ns is not None
        if took_ns is not None:
            self._at(now_ns + took_ns, self._end)

    def _end(self, due_ns: int) -> None:
        """Hand what the step made to the front end, which sends token by token; begin the next step."""
        moment_ns = max(due_ns, self._frontend_free_ns)
        grown = self._scheduler.end_step()
        self._counters.generation_tokens += len(grown)
        entries: list[Entry] = []
        for sequence in grown:
            reply = self._replies.get(sequence)
            if reply is None:
                continue
            if sequence.made == 1:
                self._admitted(sequence, reply)
            moment_ns += self._token_ns
            entries.append((moment_ns, reply))
        self._outbox.put_all(entries)
        self._frontend_free_ns = moment_ns
        self._begin(due_ns)

    def _admitted(self, sequence: Sequence, reply: Reply) -> None:
        reply.cached_tokens = sequence.cached_tokens
        self._counters.prompt_tokens += sequence.prompt_tokens
        self._counters.cache_queries += sequence.prompt_tokens
        self._counters.cache_hits += sequence.cached_tokens

    def _leave(self, sequence: Sequence) -> None:
        self._replies.pop(sequence, None)
        self._scheduler.abort(sequence)

    def count(self) -> None:
        self._counters.running = len(self._scheduler.running)
        self._counters.waiting = len(self._scheduler.waiting)
        self._counters.kv_usage = self._scheduler.kv_usage
        self._counters.preemptions = self._scheduler.preemptions

    def forget_prefixes(self) -> bool:
        """Empty the prefix cache, unless running sequences hold parts of it; whether it was done."""
        if self._scheduler.running:
            return False
        self._scheduler.cache.clear()
        return True

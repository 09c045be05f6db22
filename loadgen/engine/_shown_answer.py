"""One conversation's answer as it comes, for people who look on; nothing is done while nobody does."""

from __future__ import annotations

from loadgen._messages import AnswerShown
from loadgen.engine._run import EngineRun
from loadgen.transport._work import WorkStage
from turnbench.cleaning import printable

_SHOWN_CHARS = 1500
_SCRUBBED_CHARS = 3000
"""So much more is looked through for secrets, since one may stand across the start of what is shown."""
_MOST_BYTES = 1 << 20
"""Reading a longer stream anew each second would take time from others."""


class ShownAnswer:
    """Follows one conversation for as long as it has a turn under way, then another."""

    def __init__(self, run: EngineRun) -> None:
        self._run = run
        self._followed: int | None = None

    async def show(self) -> None:
        """Emit how the answer stands; nothing if no turn is under way."""
        async with self._run.scheduler.turn_for(WorkStage.RECORD):
            shown = self._look()
        if shown is not None:
            self._run.emit(shown)

    def _look(self) -> AnswerShown | None:
        turns = [turn for turn in self._run.open if turn.exchange is not None]
        if not turns:
            return None
        # The oldest, so that what is shown has begun to come.
        turn = min(turns, key=lambda each: (each.place[1] != self._followed, each.begun_ns))
        task, self._followed, number = turn.place
        exchange, text = turn.exchange, ""
        if exchange is not None and len(exchange.log.raw) <= _MOST_BYTES:
            text = "".join(exchange.reply_so_far().parts)[-_SCRUBBED_CHARS:]
        shown = printable(self._run.secrets.scrubbed(text))[-_SHOWN_CHARS:]
        return AnswerShown(task, self._followed, number, shown)

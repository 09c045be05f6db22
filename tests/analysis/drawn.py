"""A run whose times are drawn from stated laws: what was drawn, turn by turn, and the records of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tests.analysis.conftest import MS, START_NS
from turnbench.formats import TurnRecord

WINDOWS_S = ((5.0, 65.0), (105.0, 165.0))
BLOCK = 16


@dataclass(frozen=True)
class Drawn:
    """One turn as it was drawn. Times in ms after it was sent, one a token; `start_ms` of the run's clock."""

    talk: int
    number: int
    last: bool
    task: str
    level: int
    start_ms: float
    late_ms: float
    at_ms: list[float]
    event_tokens: list[int]
    event_words: list[int]
    reasoning_events: int
    prompt_tokens: int
    cached_tokens: int
    expected_cached: int

    @property
    def event_ms(self) -> list[float]:
        """Arrival of each event: that of its tokens."""
        ends = np.cumsum(self.event_tokens)
        return [self.at_ms[end - 1] for end in ends]

    @property
    def tokens(self) -> int:
        """All output tokens: those of the events and the stop token."""
        return len(self.at_ms) + 1


def _stream(rng: np.random.Generator, prompt_tokens: int) -> tuple[list[float], list[int]]:
    """(arrival of each token, tokens of each event): TTFT grows with the prompt, steps are log-normal."""
    sizes = rng.choice([1, 1, 1, 2, 4], size=int(rng.integers(1, 220))).tolist()
    ttft = 80 + prompt_tokens * 0.1 * np.exp(rng.normal(0, 0.3))
    steps = 20 * np.exp(rng.normal(0, 0.4, len(sizes))) * rng.choice([1, 12], p=[0.97, 0.03], size=len(sizes))
    at = np.round(np.concatenate(([ttft], ttft + np.cumsum(steps[1:]))), 3)
    return [float(a) for a, n in zip(at, sizes, strict=True) for _ in range(n)], sizes


def _conversation(rng: np.random.Generator, talk: int, at_level: int) -> list[Drawn]:
    """One to four turns; each prompt holds what was said before, and whole blocks of it come from a cache."""
    turns = int(rng.integers(1, 5))
    start_ms = float(rng.uniform(WINDOWS_S[at_level][0] * 1e3, WINDOWS_S[at_level][1] * 1e3 - 1))
    context, found = 0, []
    for number in range(1, turns + 1):
        prompt = context + int(rng.integers(30, 400))
        at_ms, sizes = _stream(rng, prompt)
        one = Drawn(
            talk=talk,
            number=number,
            last=number == turns,
            task=("qa", "chat")[talk // 2 % 2],
            level=at_level,
            start_ms=round(start_ms, 3),
            late_ms=round(float(rng.exponential(0.5)), 3),
            at_ms=at_ms,
            event_tokens=sizes,
            event_words=rng.integers(0, 3, len(sizes)).tolist(),
            reasoning_events=int(rng.integers(0, max(len(sizes) // 4, 1))),
            prompt_tokens=prompt,
            cached_tokens=context // BLOCK * BLOCK,
            expected_cached=context,
        )
        found.append(one)
        context = prompt + one.tokens
        start_ms += at_ms[-1] + float(rng.exponential(300))
    return found


def drawn_run() -> list[Drawn]:
    rng = np.random.default_rng(11)
    talks = [_conversation(rng, k, k % len(WINDOWS_S)) for k in range(240)]
    return [one for talk in talks for one in talk]


def record_of(one: Drawn) -> TurnRecord:
    sent_ns = START_NS + round(one.start_ms * MS)
    answers = one.reasoning_events < len(one.event_tokens)
    return TurnRecord(
        run="made",
        conversation=one.talk,
        turn=one.number,
        last=one.last,
        task=one.task,
        model="tiny",
        due_ns=sent_ns - round(one.late_ms * MS),
        sent_ns=sent_ns,
        head_ns=sent_ns + MS,
        end_ns=sent_ns + round(one.at_ms[-1] * MS),
        connect_us=0,
        event_us=[round(at * 1000) for at in one.event_ms],
        event_tokens=one.event_tokens,
        event_words=one.event_words,
        answer_event=one.reasoning_events if answers else None,
        prompt_tokens=one.prompt_tokens,
        cached_tokens=one.cached_tokens,
        output_tokens=one.tokens,
        token_source="continuous_usage",
        chars=6 * sum(one.event_words),
        words=sum(one.event_words),
        finish_reason="stop",
        status=200,
        outcome="ok",
    )

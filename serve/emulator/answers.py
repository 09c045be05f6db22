"""What an emulated model answers: how much, in which words, and how and after how many tokens it ends.

The length and the place in the text are drawn from a hash of model, seed and prompt: the same prompt gets the
same answer. Text comes out of a long ring of token pieces. About a quarter of the words are two tokens long,
as with real tokenizers; a piece that begins a word starts with a space. No piece needs escaping in JSON, so
its bytes are its text.
"""

from __future__ import annotations

import hashlib
import math
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist

import msgspec
import yaml

from serve.emulator.request import GenerationRequest

REPLIES_FILE = Path(__file__).resolve().with_name("replies.yaml")
INSTRUCTION_CHARS = 300
"""Instructions stand at the beginning of a message; what follows is the text they are about."""
CHAT = "chat"
LETTERS = "abcd"

RING_PIECES = 16_384
TWO_TOKEN_LETTERS = 7
"""Words from this length on are split in two."""

LengthOfAnswers = tuple[float, float]
"""Median in tokens, and sigma of the logarithm."""


class AnswerLengths(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """replies.yaml: how long the models' answers are."""

    source: str
    """Where the lengths are from, in a word or two."""
    tasks: dict[str, str]
    """Task to the words (a regular expression) by which it is recognised."""
    default: dict[str, LengthOfAnswers]
    models: dict[str, dict[str, LengthOfAnswers]]


@dataclass(frozen=True, slots=True)
class DrawnAnswer:
    """What a model would say if nothing stopped it."""

    task: str
    tokens: int
    """Content tokens."""
    start: int
    """Where in the ring of text its words begin."""
    letter: str | None
    """The letter that it chooses, if one was asked for."""


def read_lengths() -> AnswerLengths:
    """replies.yaml."""
    return msgspec.convert(yaml.safe_load(REPLIES_FILE.read_text(encoding="utf-8")), AnswerLengths)


def known_tasks() -> set[str]:
    """The tasks that the emulator tells apart."""
    return {*read_lengths().tasks, CHAT}


class AnswerDraws:
    """One model's way of answering; `measured`: its lengths by task, before those of replies.yaml."""

    def __init__(self, model: str, seed: int, measured: Mapping[str, Sequence[float]] | None = None) -> None:
        lengths = read_lengths()
        self._tasks = [(task, re.compile(words, re.IGNORECASE)) for task, words in lengths.tasks.items()]
        self._lengths = lengths.models.get(model, lengths.default) | {
            task: (median, sigma) for task, (median, sigma) in (measured or {}).items()
        }
        self._key = f"{model}\0{seed}\0"

    def task(self, first_message: str) -> str:
        """The task that the first user message asks for."""
        opening = first_message[:INSTRUCTION_CHARS]
        return next((task for task, words in self._tasks if words.search(opening)), CHAT)

    def draw(self, prompt: str, first_message: str) -> DrawnAnswer:
        """Log-normal length and place in the text, drawn from a hash of model, seed and prompt."""
        digest = hashlib.blake2b((self._key + prompt).encode(errors="replace"), digest_size=16).digest()
        share = (int.from_bytes(digest[:6], "big") + 0.5) / 2**48
        task = self.task(first_message)
        median, sigma = self._lengths[task]
        tokens = max(1, round(median * math.exp(sigma * NormalDist().inv_cdf(share))))
        letter = LETTERS[digest[6] % len(LETTERS)] if task == "choose" else None
        return DrawnAnswer(task, tokens, int.from_bytes(digest[8:12], "big"), letter)


@dataclass(frozen=True, slots=True)
class Answer:
    """`pieces` are the content events' texts, one token each.

    `stop_event`: the stop token, which counts in usage and goes out as an event without text. A stop string
    ends an answer with such an event too, where nothing is left of its last token's text.
    """

    pieces: list[str]
    stop_event: bool
    finish_reason: str
    stop_string: str | None = None

    @property
    def tokens(self) -> int:
        return len(self.pieces) + self.stop_event


def wanted_tokens(request: GenerationRequest, natural: int, room: int) -> tuple[int, bool]:
    """Content tokens of an answer that would naturally have `natural`, and whether a stop token follows.

    `room` is what the context length leaves. The limit wins over the stop token.
    """
    limit = min(room, request.max_tokens if request.max_tokens is not None else room)
    if request.ignore_eos:
        return limit, False
    natural = max(natural, request.min_tokens)
    return (natural, True) if natural + 1 <= limit else (limit, False)


def make_answer(request: GenerationRequest, pieces: list[str], stop_event: bool) -> Answer:
    """The answer with these pieces, cut at the first stop string after min_tokens."""
    text = "".join(pieces) if request.stop else ""
    least = sum(map(len, pieces[: request.min_tokens]))
    found = [(text.find(stop, least), stop) for stop in request.stop if stop]
    cut = min((place for place in found if place[0] >= 0), default=None)
    if cut is None:
        return Answer(pieces, stop_event, "stop" if stop_event else "length")
    at, stop_string = cut
    kept: list[str] = []
    used, needed = 0, at + len(stop_string)
    for piece in pieces:
        kept.append(piece[: max(0, at - used)])
        used += len(piece)
        if used >= needed:
            break
    # Tokens that hold only the stop string's text merge into the one empty event at the end.
    whole = [piece for piece in kept if piece]
    return Answer(whole, len(whole) < len(kept), "stop", stop_string)


_WORDS = """
the a this that each every some many few most our their its your one two three several both all of in on at
by for from with over under between near after before until during without against about toward is was has
had can will may must should could would does makes keeps takes gives holds needs brings turns moves shows
leads begins ends grows falls rises stays means lets helps asks answers carries follows reaches opens closes
changes small large early late quiet bright heavy light narrow broad steady sudden common rare simple
careful warm cold fresh ancient modern local distant gentle rough smooth clear hidden useful river valley
harbour mountain island forest meadow garden orchard village market bridge tower window kitchen workshop
library station railway engine lantern compass blanket basket ladder hammer thread needle pocket letter
ribbon bottle candle mirror table chair teacher farmer sailor baker painter doctor neighbour traveller
student engineer gardener merchant musician captain child sister brother winter summer autumn spring morning
evening midnight minute hour season decade weather thunder sunlight shadow breeze horizon question reason
method measure pattern balance pressure surface volume distance current signal memory language sentence
meaning example evidence argument opinion decision agreement promise journey because although while whenever
however therefore perhaps almost already again always never often seldom slowly quickly nearly mostly
together apart inside outside forward café naïve
"""
WORDS = tuple(_WORDS.split())


class TextRing:
    """Token pieces of running text, without an end; the same seed makes the same text."""

    def __init__(self, seed: int, pieces: int = RING_PIECES) -> None:
        chance = random.Random(f"text {seed}")
        ring: list[str] = []
        while len(ring) < pieces:
            word = chance.choice(WORDS)
            if len(word) >= TWO_TOKEN_LETTERS:
                half = len(word) // 2
                ring += [" " + word[:half], word[half:]]
            else:
                ring.append(" " + word)
            if chance.random() < 0.08:
                ring.append(chance.choice(",.;"))
        self._pieces = ring[:pieces]

    def take(self, start: int, count: int) -> list[str]:
        """`count` pieces from `start` on, round the ring as often as needed."""
        ring = self._pieces
        start %= len(ring)
        taken = ring[start : start + count]
        while len(taken) < count:
            taken += ring[: count - len(taken)]
        return taken

"""How much a model says: recognises the task and draws the answer's length, the same for the same prompt."""

from __future__ import annotations

import hashlib
import math
import re
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist

import msgspec
import yaml

REPLIES_FILE = Path(__file__).resolve().with_name("replies.yaml")
INSTRUCTION_CHARS = 300
"""Instructions stand at the beginning of a message; what follows is the text they are about."""

CHAT = "chat"
LETTERS = "abcd"

Length = tuple[float, float]
"""Median in tokens, and sigma of the logarithm."""


class Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """replies.yaml as it is written."""

    tasks: dict[str, str]
    default: dict[str, Length]
    models: dict[str, dict[str, Length]]


@dataclass(frozen=True, slots=True)
class Said:
    """What a model will say: content tokens, where its words begin, the letter if one was asked for."""

    task: str
    tokens: int
    start: int
    letter: str | None


class Talk:
    """One model's way of answering."""

    def __init__(self, model: str, seed: int, table: Table | None = None) -> None:
        table = table or read_table()
        self._tasks = [(task, re.compile(words, re.IGNORECASE)) for task, words in table.tasks.items()]
        self._lengths = table.models.get(model, table.default)
        self._key = f"{model}\0{seed}\0"

    def task(self, first_message: str) -> str:
        """The task that the first user message asks for."""
        opening = first_message[:INSTRUCTION_CHARS]
        return next((task for task, words in self._tasks if words.search(opening)), CHAT)

    def say(self, prompt: str, first_message: str) -> Said:
        """Log-normal length and place in the text, drawn from a hash of model, seed and prompt."""
        digest = hashlib.blake2b((self._key + prompt).encode(errors="replace"), digest_size=16).digest()
        share = (int.from_bytes(digest[:6], "big") + 0.5) / 2**48
        task = self.task(first_message)
        median, sigma = self._lengths[task]
        tokens = max(1, round(median * math.exp(sigma * NormalDist().inv_cdf(share))))
        letter = LETTERS[digest[6] % len(LETTERS)] if task == "choose" else None
        return Said(task, tokens, int.from_bytes(digest[8:12], "big"), letter)


def read_table(path: Path = REPLIES_FILE) -> Table:
    """The shipped table of answer lengths."""
    return msgspec.convert(yaml.safe_load(path.read_text(encoding="utf-8")), Table)

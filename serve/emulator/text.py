"""Text to answer with: real words in a long ring of token pieces, cut from a seeded place.

About a quarter of the words are two tokens long, as with real tokenizers; a piece that begins a word starts
with a space. No piece needs escaping in JSON, so its bytes are its text.
"""

from __future__ import annotations

import random

RING_PIECES = 16_384
TWO_TOKEN_LETTERS = 7
"""Words from this length on are split in two."""

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


def make_ring(seed: int, pieces: int = RING_PIECES) -> list[str]:
    """Token pieces of running text; the same seed makes the same text."""
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
    return ring[:pieces]


def take(ring: list[str], start: int, count: int) -> list[str]:
    """`count` pieces from `start` on, round the ring as often as needed."""
    start %= len(ring)
    taken = ring[start : start + count]
    while len(taken) < count:
        taken += ring[: count - len(taken)]
    return taken

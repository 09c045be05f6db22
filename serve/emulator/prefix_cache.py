"""A prefix cache: which blocks of a prompt were computed before, least recently used forgotten first."""

from __future__ import annotations

from collections import OrderedDict

BLOCK_TOKENS = 16
BLOCK_CHARS = 64
"""A block of 16 tokens at four characters each."""


def block_hashes(text: str) -> list[int]:
    """One number for each full block, standing for it and all before it."""
    hashes: list[int] = []
    chain = 0
    for start in range(0, len(text) - BLOCK_CHARS + 1, BLOCK_CHARS):
        chain = hash((chain, text[start : start + BLOCK_CHARS]))
        hashes.append(chain)
    return hashes


class PrefixCache:
    """Block hashes in the order of their last use."""

    def __init__(self) -> None:
        self._blocks: OrderedDict[int, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._blocks)

    def lookup(self, blocks: list[int], prompt_tokens: int) -> int:
        """Tokens of the prompt that need no computing; at least its last token always does."""
        found = 0
        for block in blocks[: max(0, prompt_tokens - 1) // BLOCK_TOKENS]:
            if block not in self._blocks:
                break
            self._blocks.move_to_end(block)
            found += 1
        return found * BLOCK_TOKENS

    def insert(self, blocks: list[int]) -> None:
        # Last block first: of one prompt, the end is forgotten before the beginning.
        for block in reversed(blocks):
            self._blocks[block] = None
            self._blocks.move_to_end(block)

    def shrink(self, most: int) -> None:
        """Forget the least recently used blocks until `most` are left."""
        while len(self._blocks) > max(0, most):
            self._blocks.popitem(last=False)

    def clear(self) -> None:
        self._blocks.clear()

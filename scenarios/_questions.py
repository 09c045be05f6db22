"""The built-in questions, varied up to the 660 of the study: changed quantities and permuted choices.

Nothing here depends on a plan's seed: the set is the same for everyone.
"""

from __future__ import annotations

from collections import Counter
from itertools import count
from typing import Any, TypeVar

from scenarios import _numbers, _sciences
from scenarios._dice import Dice
from turnbench.draws import shuffled, stream
from turnbench.strict_yaml import Map, Seq, Text

TOTAL = 660
_KINDS = (*_sciences.KINDS, *_numbers.KINDS)
_OF_EACH_KIND = 8
_LETTERS = "abcd"
_Marked = TypeVar("_Marked", Map, Seq, Text)


def varied(written: Seq) -> Seq:
    """The written questions, then eight of each kind of quantity, then written ones with their choices in
    another order until there are TOTAL."""
    whole = _like(Seq(written), written)
    right = Counter(item["answer"] for item in written)
    for kind in range(len(_KINDS)):
        whole.extend(_with_quantities(kind, right, written))
    whole.extend(
        _permuted(written[i], right) for i in shuffled(len(written), "permuted")[: TOTAL - len(whole)]
    )
    return whole


def _with_quantities(kind: int, right: Counter[str], like: Any) -> list[Map]:
    found: dict[str, Map] = {}
    for attempt in count():
        subject, question, key, others = _KINDS[kind](Dice(stream("quantities", kind, attempt)))
        wrong = list(dict.fromkeys(text for text in others if text != key and not text.startswith("-0")))[:3]
        if question in found or len(wrong) < 3:
            continue
        letter = _rarest(right)
        wrong.insert(_LETTERS.index(letter), key)
        found[question] = _item(subject, question, wrong, letter, like)
        if len(found) == _OF_EACH_KIND:
            return list(found.values())
    raise AssertionError("the attempts never end")


def _permuted(item: Map, right: Counter[str]) -> Map:
    """The same question with its key under another letter and the other choices turned around."""
    texts = dict(item["choices"])
    key = texts.pop(item["answer"])
    others = list(texts.values())[::-1]
    letter = _rarest(right, but=item["answer"])
    others.insert(_LETTERS.index(letter), key)
    return _item(item["subject"], item["question"], others, letter, item)


def _rarest(right: Counter[str], but: str = "") -> str:
    letter = min((letter for letter in _LETTERS if letter != but), key=right.__getitem__)
    right[letter] += 1
    return letter


def _item(subject: str, question: str, choices: list[str], answer: str, like: Any) -> Map:
    item = _like(Map(), like)
    lettered = _like(Map(), like)
    for letter, text in zip(_LETTERS, choices, strict=True):
        lettered[_like(Text(letter), like)] = _like(Text(text), like)
    values = {"subject": subject, "question": question, "choices": lettered, "answer": answer}
    for name, value in values.items():
        item[_like(Text(name), like)] = value if isinstance(value, Map) else _like(Text(value), like)
    return item


def _like(node: _Marked, like: Any) -> _Marked:
    """The node, marked with the place of another."""
    node.source, node.line = like.source, like.line
    return node

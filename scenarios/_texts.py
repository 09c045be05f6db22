"""The built-in texts: mixes, tasks and sets of texts, each a YAML file of this folder.

The set `questions` is grown to the 660 of the study: to the ones written by hand come questions with changing
quantities (`_quantities`) and written ones with their choices in another order. Nothing here depends on a
plan's seed: the texts are the same for everyone.
"""

from __future__ import annotations

from collections import Counter
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import Any, cast

from scenarios._quantities import KINDS, Dice
from turnbench.draws import shuffled, stream
from turnbench.strict_yaml import Map, Seq, Text, marked, read

CHARACTERS_PER_TOKEN = 4.5
"""About right for English prose and the vocabularies of today's models."""
QUESTIONS = 660
_OF_EACH_KIND = 8
_LETTERS = "abcd"
_HERE = Path(__file__).parent


def names() -> list[str]:
    """The built-in scenarios: mixes first, then single tasks."""
    return [*sorted(built_in("mixes")), *sorted(built_in("tasks"))]


@lru_cache
def built_in(folder: str) -> dict[str, Path]:
    """The files of `mixes`, `tasks` or `texts` by name."""
    return {path.stem: path for path in (_HERE / folder).glob("*.yaml")}


@lru_cache
def tree(path: Path) -> Map:
    """The tree of a built-in file; never changed, since it is shared."""
    return cast(Map, read(path.read_text(encoding="utf-8"), path.name, "scenario")[0])


@lru_cache
def texts(name: str) -> Seq:
    """The items of a built-in set."""
    items = cast(Seq, tree(built_in("texts")[name])["items"])
    return _grown(items) if name == "questions" else items


@lru_cache
def pages() -> str:
    """All our own pages as one text without line breaks, from which prompts of any length can be cut."""
    items = (item for name in ("documents", "passages") for item in texts(name))
    return " ".join("\n\n".join(str(item["text"]) for item in items).split())


def _grown(written: Seq) -> Seq:
    """The written questions, then eight of each kind of quantity, then written ones with their choices in
    another order until there are QUESTIONS."""
    whole = marked(Seq(written), written)
    right = Counter(item["answer"] for item in written)
    for kind in range(len(KINDS)):
        whole.extend(_with_quantities(kind, right, written))
    for i in shuffled(len(written), "permuted")[: QUESTIONS - len(whole)]:
        item = written[i]
        others = dict(item["choices"])
        key = others.pop(item["answer"])
        letter = _rarest(right, but=item["answer"])
        whole.append(
            _question(item["subject"], item["question"], key, list(others.values())[::-1], letter, item)
        )
    return whole


def _with_quantities(kind: int, right: Counter[str], like: Any) -> list[Map]:
    """So many different questions of one kind; a draw with too few different choices is passed over."""
    subject, draw = KINDS[kind]
    found: dict[str, Map] = {}
    for attempt in count():
        question, key, others = draw(Dice(stream("quantities", kind, attempt)))
        wrong = list(dict.fromkeys(text for text in others if text != key and not text.startswith("-0")))[:3]
        if question in found or len(wrong) < 3:
            continue
        found[question] = _question(subject, question, key, wrong, _rarest(right), like)
        if len(found) == _OF_EACH_KIND:
            break
    return list(found.values())


def _rarest(right: Counter[str], but: str = "") -> str:
    """The letter that is right least often so far, which is now right once more."""
    letter = min((letter for letter in _LETTERS if letter != but), key=right.__getitem__)
    right[letter] += 1
    return letter


def _question(subject: str, question: str, key: str, wrong: list[str], letter: str, like: Any) -> Map:
    """An item as it would stand in the file, with the right choice under this letter."""
    choices = list(wrong)
    choices.insert(_LETTERS.index(letter), key)
    item, lettered = marked(Map(), like), marked(Map(), like)
    for each, text in zip(_LETTERS, choices, strict=True):
        lettered[marked(Text(each), like)] = marked(Text(text), like)
    values = {"subject": subject, "question": question, "choices": lettered, "answer": letter}
    for name, value in values.items():
        item[marked(Text(name), like)] = value if isinstance(value, Map) else marked(Text(value), like)
    return item

"""Is an answer right? How the answer to a question with a key is read out of what a model said.

A choice is read in this order, in the answer without its reasoning:

1. the last "answer is X", "answer: X", "option X" or "choice X", where X is one of the letters;
2. the letter that is all of the first line, or with which it begins: `b)`, `b.`, `(b)`, `b: `;
3. the only letter that is marked so anywhere in it, or stands as a capital by itself;
4. the only choice whose whole text, without its article, occurs in it.

Where two lines begin with different letters the choices are only repeated, and that is no answer. A text key
is right where every part of it occurs, in one of its forms, as words of their own; case, thousands separators
and kinds of dashes don't matter. What can't be read is wrong: whoever asked for a letter can't use it.
"""

from __future__ import annotations

import re
import unicodedata

import msgspec

_DECORATION = re.compile(r"</?\w+>|[*_`~#>\"“”]|\\(?:boxed|text|mathbf|textbf)|[{}$]")
_STATED = (
    r"(?:answer|choice|option|solution)\b(?:\s+(?:is|would\s+be|must\s+be|should\s+be|letter))*\s*[:=]?\s*"
    r"(?:letter\s+|option\s+|choice\s+)?[(\[]?"
)
_ARTICLE = re.compile(r"^(the|an?) ")
_WORD = re.compile(r"[^\W\d_]{3}")
_THOUSANDS = re.compile(r"(?<=\d)[,  ](?=\d{3}(?!\d))")
_DASHES = str.maketrans(dict.fromkeys("‐‑‒–—−", "-") | {"’": "'", " ": " "})


class AnswerKey(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is right: the letter of a choice, or texts that must all occur."""

    letter: str = ""
    choices: dict[str, str] = {}
    """Letters to texts, of a question of choice."""
    parts: tuple[str, ...] = ()
    """Texts that must occur; ` | ` stands between forms of one."""

    @property
    def expected(self) -> str:
        """As it is recorded."""
        return self.letter or " + ".join(self.parts)


def read_answer(key: AnswerKey, answer: str) -> tuple[str | None, bool]:
    """(what was read out of the answer or None, whether it is right)."""
    if key.letter:
        letter = _letter(answer, key.choices)
        return letter, letter == key.letter
    found = [_form_in(answer, part) for part in key.parts]
    said = [form for form in found if form is not None]
    return " + ".join(said) or None, len(said) == len(found)


def _letter(answer: str, choices: dict[str, str]) -> str | None:
    lines = [" ".join(_DECORATION.sub(" ", line).split()) for line in answer.splitlines()]
    lines = [line for line in lines if line]
    plain, letters = " ".join(lines), "".join(choices)
    any_of = f"[{letters}{letters.upper()}]"
    stated = re.findall(
        rf"\b{_STATED}({any_of})(?=\s*(?:[)\].,:;!?-]|$)|\s+(?:because|since|as)\b)", plain, re.I
    )
    if stated:
        return str(stated[-1]).lower()
    begun = [
        found[1].lower()
        for line in lines
        if (found := re.match(rf"[(\[]?({any_of})(?:\s*[)\].:,]|\s*$|\s+-\s)", line))
    ]
    if len(set(begun)) > 1:
        return None
    if begun and re.match(rf"[(\[]?{any_of}\b", lines[0]):
        return begun[0]
    marked = re.findall(rf"(?<![\w'])[(\[]?({any_of})[)\]]", plain)
    capitals = re.findall(rf"(?<![\w'])([{letters.upper()}])(?![\w'])", plain)
    standing = {each.lower() for each in marked} | {each.lower() for each in capitals if each != "A"}
    if standing:
        return standing.pop() if len(standing) == 1 else None
    text = _normal(answer)
    texts = {letter: _ARTICLE.sub("", _normal(choice)) for letter, choice in choices.items()}
    # A bare number may as well be one of the question's own, so it must be all that is said.
    said = [
        letter
        for letter, choice in texts.items()
        if (_occurs(text, choice) if _WORD.search(choice) else text.rstrip(".") == choice)
    ]
    # "Zero" within "zero or one" is a part of another choice, not a second one.
    said = [one for one in said if not any(one != other and texts[one] in texts[other] for other in said)]
    return said[0] if len(said) == 1 else None


def _form_in(answer: str, part: str) -> str | None:
    """The first form of a part that occurs in the answer."""
    text = _normal(answer)
    return next((form.strip() for form in part.split("|") if _occurs(text, _normal(form))), None)


def _occurs(text: str, form: str) -> bool:
    """As words of its own: 37 is neither in 137 nor in 37.5."""
    return bool(form) and bool(re.search(rf"(?<!\w)(?<!\d[.:]){re.escape(form)}(?!\w)(?![.:]\d)", text))


def _normal(text: str) -> str:
    plain = unicodedata.normalize("NFKC", _DECORATION.sub("", text)).translate(_DASHES).casefold()
    return " ".join(_THOUSANDS.sub("", plain).split())

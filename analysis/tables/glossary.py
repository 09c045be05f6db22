"""What each word of a table or figure means, in a sentence or two: one click away in the report."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

import yaml

from turnbench.metrics import METRICS

_LAST_BEFORE_METRICS = "n"
_ENDINGS = (" p50", " p90", " p99", " at 256", ", mean", " by time", " by tps")


def glossary() -> dict[str, str]:
    """Term to its meaning, in the order of the page's glossary; metrics have their own definitions."""
    terms: dict[str, str] = {}
    for term, meaning in _written().items():
        terms[term] = meaning
        if term == _LAST_BEFORE_METRICS:
            terms |= {metric.label: metric.definition for metric in METRICS.values()}
    return terms


@cache
def _written() -> dict[str, str]:
    text = (files("analysis.tables") / "glossary.yaml").read_text(encoding="utf-8")
    return {str(term): str(meaning) for term, meaning in yaml.safe_load(text).items()}


def term_of(head: str) -> str | None:
    """The glossary's term for a column's head, with or without unit or percentile; None if there is none."""
    terms = glossary()
    endings = (*_ENDINGS, *(f" {unit}" for unit in {metric.unit for metric in METRICS.values()}))
    while head not in terms:
        short = next((head.removesuffix(end) for end in endings if head.endswith(end)), None)
        if short is None:
            return None
        head = short
    return head


def anchor_of(term: str) -> str:
    """The id of a term's definition in the page."""
    return f"def-{list(glossary()).index(term)}"

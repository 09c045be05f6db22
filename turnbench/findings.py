"""Kinds of findings: name, severity, words and remedy of each stand once, as values, where it is found."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from string import Formatter

from turnbench.formats import Finding, Severity


@dataclass(frozen=True, eq=False)
class FindingKind:
    """One thing that can be wrong, or worth knowing. Its texts are templates as `str.format` takes them."""

    severity: Severity | tuple[Severity, ...]
    """Several where each finding says which it is, the worst first."""
    check: str
    """Its name, one word."""
    what: str
    """What is seen, one sentence."""
    remedy: str
    """What to do about it."""
    known: Mapping[str, Iterable[str]] = field(default_factory=dict)
    """What the named fields can stand for; what the others stand for, only a run knows."""

    def finding(
        self, *values: object, severity: Severity | None = None, at: int | None = None, **words: object
    ) -> Finding:
        """One that was found, at a level or in the run as a whole.

        `values` fill the fields of `what` in their order, `words` the named ones of both texts.
        """
        level = severity or (self.severity if isinstance(self.severity, str) else self.severity[0])
        what, remedy = self.what.format(*values, **words), self.remedy.format(**words)
        return Finding(level, self.check, what, remedy, at)

    def shown(self, template: str) -> str:
        """One of its texts for readers of no run: with all that fields can stand for, else with `…`."""
        parts = []
        for text, name, _, _ in Formatter().parse(template):
            between = "; or: " if template == f"{{{name}}}" else " / "
            parts += [text, "" if name is None else between.join(self.known.get(name, "…"))]
        return "".join(parts)


invalid, suspect = partial(FindingKind, "invalid"), partial(FindingKind, "suspect")
note = partial(FindingKind, "note")

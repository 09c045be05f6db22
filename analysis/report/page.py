"""report.html: one file that answers "how long does a person wait", offline and safe to open."""

from __future__ import annotations

import base64
import gzip
import hashlib
from collections.abc import Iterable
from dataclasses import asdict
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import msgspec
from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from analysis.measures.cells import ALL
from analysis.report.facts import RunFacts
from analysis.report.first_screen import glance_of
from analysis.report.plots import GROUPS, NOTES, figures
from analysis.report.plots_style import Figure
from analysis.tables import comparisons, rows
from analysis.tables.export import flat
from analysis.tables.glossary import anchor_of, glossary, term_of
from analysis.tables.sentences import (
    accuracy_in_words,
    answer,
    emulated_in_words,
    ratios_in_words,
    said_once,
)
from analysis.tables.writing import for_script_tag, for_terminal, number, stamp, task
from turnbench.formats import RunManifest, Summary
from turnbench.limits import DOUBT
from turnbench.metrics import METRICS

_SETUP = ("settings", "endpoint", "server", "host", "versions", "workers", "slo", "labels")
_MOST_ROWS = 400
_MOST_FIGURE_CHARS = 1_500_000
_MOST_SETUP_CHARS = 600_000
_MOST_VALUE_CHARS = 2000
_MOST_LOADS = 8
_MOST_NAMED = 3


def write_report(summary: Summary, facts: list[RunFacts], path: Path) -> None:
    """Write the page; everything it needs is inside it."""
    plotly = (files("plotly") / "package_data" / "plotly.min.js").read_text(encoding="utf-8")
    script = _own("report.js")
    drawn, omitted = _within(figures(summary, facts))
    page = (
        _environment()
        .get_template("report.jinja")
        .render(
            summary=summary,
            title=stamp(summary.emulated) + summary.run,
            emulated=emulated_in_words(summary),
            policy=_policy(plotly, script),
            glossary=glossary(),
            groups=GROUPS,
            findings=said_once(summary.verdict.findings),
            figures=drawn,
            figures_omitted=omitted,
            notes=NOTES,
            setups=_setups(facts),
            measured=_measured(summary, facts),
            origin=_origin(summary, facts),
            insecure=any(run.manifest.settings.get("insecure") for run in facts),
            style=Markup(_own("report.css")),
            data=Markup(for_script_tag([asdict(one) for one in drawn])),
            plotly=Markup(_packed(plotly)),
            script=Markup(script),
            **_tables(summary),
        )
    )
    path.write_text(page, encoding="utf-8")


@cache
def _environment() -> Environment:
    """What reads the templates; one for all reports, since it compiles each template once."""
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=FunctionLoader(_own),
    )
    environment.filters |= {
        "clean": for_terminal,
        "number": number,
        "term": term_of,
        "anchor": anchor_of,
        "task": task,
    }
    return environment


def _tables(summary: Summary) -> dict[str, Any]:
    """What the tables of the page hold, at most so many rows as a page can."""
    comparison, study, glance = summary.comparison or None, summary.study or None, glance_of(summary)
    loads: dict[tuple[str, int | str], str] = {
        (rows.run_of(level), level.index): level.load for level in summary.levels
    }
    # Each run's load curve with its name, which a single run needn't say.
    curves = [(run.run, run.curve) for run in summary.runs or [] if run.curve]
    tables = {
        "waits": rows.waits_table(summary),
        "levels": rows.levels_table(summary),
        "accuracy": rows.accuracy_table(summary),
        "energy": rows.energy_table(summary),
        "server_waits": rows.server_waits_table(summary),
        "server_counts": rows.server_counts_table(summary),
        "rankings": comparisons.rankings_table(comparison),
        "effects": comparisons.effects_table(comparison),
        "ratios": comparisons.ratios_table(study),
        "precisions": comparisons.precisions_table(study),
    }
    for table in tables.values():
        del table.rows[_MOST_ROWS:]
    return tables | {
        "glance": glance,
        "sentences": [] if glance and glance.ends else answer(summary),
        "accuracy_words": accuracy_in_words(summary),
        "comparison": comparison,
        "ranks": comparisons.rank_tables(comparison),
        "swaps": comparisons.swap_tables(comparison),
        "ratio_words": ratios_in_words(study),
        "doubt": DOUBT,
        "curves": [("", summary.curve)] if summary.curve else curves,
        "metrics": list(METRICS.values()),
        "cells": [
            (rows.name_of(cell), loads.get((rows.run_of(cell), cell.level), ALL), cell)
            for cell in summary.cells[: _MOST_ROWS // 2]
        ],
    }


def _within(made: list[Figure]) -> tuple[list[Figure], int]:
    """As many figures as there is room for, and how many are omitted; the first of each group go first."""
    order = sorted(range(len(made)), key=lambda i: sum(one.group == made[i].group for one in made[:i]))
    kept, room = set(), _MOST_FIGURE_CHARS
    for i in order:
        room -= len(for_script_tag(asdict(made[i])))
        if room >= 0:
            kept.add(i)
    return [one for i, one in enumerate(made) if i in kept], len(made) - len(kept)


def _setups(facts: list[RunFacts]) -> list[tuple[str, Any, str | None]]:
    """(name, sections, scenario) of each run; a scenario that several played is shown once."""
    found, seen, room = [], set(), _MOST_SETUP_CHARS
    for run in facts:
        sections = _setup(run.manifest) if room > 0 else []
        scenario = run.scenario if run.scenario not in seen and room > 0 else None
        seen.add(run.scenario)
        found.append((run.name, sections, scenario))
        room -= len(str(sections)) + len(scenario or "")
    return found


def _setup(manifest: RunManifest) -> list[tuple[str, list[tuple[str, str]]]]:
    """Sections of the manifest as rows of text, without what is empty."""
    plain = msgspec.to_builtins(manifest)
    first = ("status", "started_at", "ended_at", "seed", "salt", "emulated")
    sections = [("run", [(key, str(plain.get(key))) for key in first])]
    for name in _SETUP:
        value = plain.get(name)
        items = flat(value) if isinstance(value, dict) else {name: value}
        known = [(k, str(v)[:_MOST_VALUE_CHARS]) for k, v in items.items() if v not in (None, {}, [], "")]
        if known:
            sections.append((name, known))
    return sections


def _measured(summary: Summary, facts: list[RunFacts]) -> str:
    """What was measured, and when, in one line: for somebody who reads no further."""
    cells = [cell for cell in summary.cells if ALL not in (cell.model, cell.task)]
    counts = {
        "model": len({cell.model for cell in cells}),
        "task": len({cell.task for cell in cells}),
    }
    parts = [f"{count} {name}{'s' * (count > 1)}" for name, count in counts.items() if count]
    loads = list(dict.fromkeys(level.load for level in summary.levels))
    if loads:
        named = f"load{'s' * (len(loads) > 1)} {', '.join(loads)}"
        parts.append(named if len(loads) <= _MOST_LOADS else f"{len(loads)} loads")
    turns = sum(cell.turns for cell in cells if cell.level != ALL)
    begins = sorted(run.manifest.started_at for run in facts if run.manifest.started_at)
    ends = sorted(run.manifest.ended_at for run in facts if run.manifest.ended_at)
    when = f"; {_minute(begins[0])} to {_minute((ends or begins)[-1])} UTC" if begins else ""
    return f"{', '.join(parts)}: {turns:,} turns measured{when}" if parts else ""


def _minute(iso: str) -> str:
    return iso[:16].replace("T", " ")


def _origin(summary: Summary, facts: list[RunFacts]) -> list[tuple[str, str]]:
    """What a reviewer asks of the numbers, each with its answer."""
    manifests = [run.manifest for run in facts]

    def each(values: Iterable[object]) -> str:
        known = list(dict.fromkeys(str(value) for value in values if value not in (None, "")))
        return ", ".join(known[:_MOST_NAMED]) + (
            f" and {len(known) - _MOST_NAMED} more" * (len(known) > _MOST_NAMED)
        )

    ledger = summary.ledger or None
    books = (
        f"{ledger.planned:,} turns came due = {ledger.begun:,} begun + {ledger.dropped:,} never sent; "
        f"of those begun {ledger.recorded:,} recorded, {ledger.missing:,} not recorded, {ledger.lost:,} lost"
        if ledger
        else f"{sum(summary.outcomes.values()):,} records; each run's own report has its books"
    )
    rows = [
        ("measured by", each(f"turnbench {m.versions.get('turnbench', '?')}" for m in manifests)),
        (
            "on",
            each(
                f"{m.host.get('name')} ({m.host.get('system')}, {m.host.get('cores')} cores)"
                for m in manifests
            ),
        ),
        ("server", each(m.server.get("version") or m.endpoint.url for m in manifests)),
        ("seed", each(m.seed for m in manifests)),
        ("books", books),
        ("clock of arrivals", (summary.client.clock or "") if summary.client else ""),
    ]
    return [(name, text) for name, text in rows if text]


def _policy(*scripts: str) -> str:
    """Content security policy: these scripts alone, no network at all."""
    digests = (base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )


@cache
def _packed(script: str) -> str:
    """Compressed, so that most of the file is the run's own; the page unpacks it and its policy checks it."""
    return base64.b64encode(gzip.compress(script.encode(), mtime=0)).decode()


@cache
def _own(name: str) -> str:
    return (files("analysis.report") / name).read_text(encoding="utf-8")

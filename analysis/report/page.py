"""report.html: one file that answers "how long does a person wait", offline and safe to open."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from analysis.measures.cells import ALL
from analysis.report.facts import RunFacts
from analysis.report.plots import GROUPS, NOTES, figures
from analysis.tables import study_tables
from analysis.tables.export import flat
from analysis.tables.glance import glance_of
from analysis.tables.glossary import anchor_of, glossary, term_of
from analysis.tables.headline import FOOTNOTE, HEADERS, clean, headline_rows, name_of, number
from analysis.tables.ranking import ORDER_HEADS, effect_rows, order_rows, swap_tables
from analysis.tables.sentences import answer

_SETUP = ("settings", "endpoint", "server", "host", "versions", "workers", "slo", "labels")
_MOST_ROWS = 400
_MOST_FIGURE_CHARS = 1_500_000
_MOST_SETUP_CHARS = 600_000
_DETAILED = {
    "ttft_ms": "TTFT ms",
    "response_delay_ms": "response delay ms",
    "ttg_ms": "TTG ms",
    "ttg256_ms": "TTG@256 ms",
    "tpot_ms": "TPOT ms",
    "itl_ms": "inter-event ms",
    "stall_ms": "stall ms",
    "output_tokens": "output tokens",
}


def write_report(summary: dict[str, Any], facts: list[RunFacts], path: Path) -> None:
    """Write the page; everything it needs is inside it."""
    path.write_text(_page(summary, facts), encoding="utf-8")


def _page(summary: dict[str, Any], facts: list[RunFacts]) -> str:
    plotly, script = _plotly(), _own("report.js")
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=FunctionLoader(_own),
    )
    environment.filters |= {"clean": clean, "number": number, "term": term_of, "anchor": anchor_of}
    made, dropped = _within(figures(summary, facts))
    return environment.get_template("report.jinja").render(
        summary=summary,
        title=("EMULATED · " if summary["emulated"] else "") + clean(summary["run"]),
        policy=_policy(plotly, script),
        glossary=glossary(),
        groups=GROUPS,
        figures=made,
        dropped=dropped,
        notes=NOTES,
        setups=_setups(facts),
        insecure=any(_insecure(run.manifest) for run in facts),
        style=Markup(_own("report.css")),
        data=Markup(script_json(made)),
        plotly=Markup(_packed(plotly)),
        script=Markup(script),
        **_numbers(summary),
    )


def _numbers(summary: dict[str, Any]) -> dict[str, Any]:
    """What the tables of the page hold."""
    comparison, study = summary.get("comparison"), summary.get("study") or {"ratios": [], "precisions": []}
    glance = glance_of(summary)
    return {
        "glance": glance,
        "sentences": [] if glance and glance.first else answer(summary),
        "comparison": comparison,
        "order_heads": ORDER_HEADS,
        "orders": order_rows(comparison)[:_MOST_ROWS],
        "swaps": swap_tables(comparison),
        "effects": effect_rows(comparison),
        "study": study_tables,
        "ratios": study_tables.ratio_rows(study)[:_MOST_ROWS],
        "ratio_words": study_tables.in_words(study),
        "precisions": study_tables.precision_rows(study)[:_MOST_ROWS],
        "curves": _curves(summary),
        "headers": HEADERS,
        "rows": headline_rows(summary)[:_MOST_ROWS],
        "footnote": FOOTNOTE,
        "detailed": _DETAILED,
        "levels": summary["levels"][:_MOST_ROWS],
        "cells": _named_cells(summary)[: _MOST_ROWS // 2],
        "cells_in_all": len(summary["cells"]),
    }


def _within(made: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], int]:
    """As many figures as there is room for, and how many were left out; the first of each group go first."""
    order = sorted(range(len(made)), key=lambda i: sum(one["group"] == made[i]["group"] for one in made[:i]))
    kept, room = set(), _MOST_FIGURE_CHARS
    for i in order:
        room -= len(script_json(made[i]))
        if room >= 0:
            kept.add(i)
    return [one for i, one in enumerate(made) if i in kept], len(made) - len(kept)


def _curves(summary: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Each run's load curve with its name, which a single run needn't say."""
    if summary.get("curve"):
        return [("", summary["curve"])]
    return [(run["run"], run["curve"]) for run in summary.get("runs", []) if run.get("curve")]


def _named_cells(summary: dict[str, Any]) -> list[dict[str, Any]]:
    loads = {(level.get("run"), level["index"]): level["load"] for level in summary["levels"]}
    return [
        cell | {"name": name_of(cell), "load": loads.get((cell.get("run"), cell["level"]), ALL)}
        for cell in summary["cells"]
    ]


def _setups(facts: list[RunFacts]) -> list[tuple[str, Any, str | None]]:
    """(name, sections, scenario) of each run; a scenario that several played stands once."""
    found, seen, room = [], set(), _MOST_SETUP_CHARS
    for run in facts:
        sections = _setup(run.manifest) if room > 0 else []
        scenario = run.scenario if run.scenario not in seen and room > 0 else None
        seen.add(run.scenario)
        found.append((run.name, sections, scenario))
        room -= len(str(sections)) + len(scenario or "")
    return found


def _setup(manifest: dict[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Sections of the manifest as rows of text, nulls left out."""
    sections = []
    for name in _SETUP:
        value = manifest.get(name)
        rows = flat(value) if isinstance(value, dict) else {name: value}
        told = [(key, str(item)[:2000]) for key, item in rows.items() if item not in (None, {}, [], "")]
        if told:
            sections.append((name, told))
    plain = ("status", "started_at", "ended_at", "seed", "salt", "emulated")
    return [("run", [(key, str(manifest.get(key))) for key in plain]), *sections]


def _insecure(manifest: dict[str, Any]) -> bool:
    settings = manifest.get("settings")
    return isinstance(settings, dict) and bool(settings.get("insecure"))


def script_json(value: object) -> str:
    """JSON that can stand inside a script tag: nothing in it can end the tag or open a comment."""
    text = json.dumps(value, allow_nan=False, ensure_ascii=True, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _policy(*scripts: str) -> str:
    """Content security policy: these scripts alone, no network at all."""
    digests = (base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )


@cache
def _plotly() -> str:
    return (files("plotly") / "package_data" / "plotly.min.js").read_text(encoding="utf-8")


@cache
def _packed(script: str) -> str:
    """Compressed, so that most of the file is the run's own; the page unpacks it and its policy checks it."""
    return base64.b64encode(gzip.compress(script.encode(), mtime=0)).decode()


def _own(name: str) -> str:
    return (files("analysis.report") / name).read_text(encoding="utf-8")

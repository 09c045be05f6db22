"""report.html: one file that answers "how long does a person wait", offline and safe to open."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from analysis.cells import ALL
from analysis.export import flat
from analysis.plots import MEANS, figures
from analysis.ranking_tables import effect_rows, order_rows, swap_tables
from analysis.sentences import answer
from analysis.study import Study
from analysis.tables import FOOTNOTE, HEADERS, clean, headline_rows, name_of, number

_SETUP = ("settings", "endpoint", "server", "host", "versions", "workers", "slo", "labels")
_MOST_POINTS = 600
_MOST_SCENARIO_CHARS = 50_000
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


@dataclass(frozen=True)
class RunFacts:
    """What the report tells of one run besides its summary."""

    name: str
    manifest: dict[str, Any]
    scenario: str | None
    lags: list[dict[str, Any]]
    """Loop lag of each worker: `{name, x: seconds, y: ms}`."""


def facts_of(study: Study) -> RunFacts:
    """Gather them while the run's tables are in memory."""
    name = study.run.path.resolve().name
    scenario = study.run.scenario_text()
    origin_ns = study.levels[0].start_ns
    lags = []
    for worker, lines in study.health.dropna(subset=["loop_lag_ms"]).groupby(
        study.health["worker"].astype(int)
    ):
        kept = lines.iloc[:: -(-len(lines) // _MOST_POINTS)]
        seconds = (kept["t_ns"].astype("float64") - origin_ns) / 1e9
        point = {"name": f"{name} worker {worker}"}
        lags.append(point | {"x": seconds.round(1).tolist(), "y": kept["loop_lag_ms"].tolist()})
    return RunFacts(name, study.manifest, scenario and scenario[:_MOST_SCENARIO_CHARS], lags)


def write_report(summary: dict[str, Any], facts: list[RunFacts], path: Path) -> None:
    """Write the page; everything it needs is inside it."""
    path.write_text(_page(summary, facts), encoding="utf-8")


def _page(summary: dict[str, Any], facts: list[RunFacts]) -> str:
    plotly, script = _plotly(), _own("report.js")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["clean"] = clean
    environment.filters["number"] = number
    made = figures(summary, [lag for run in facts for lag in run.lags])
    comparison = summary.get("comparison")
    levels = [level | {"name": level.get("run", "")} for level in summary["levels"]]
    return environment.from_string(_own("report.jinja")).render(
        summary=summary | {"levels": levels},
        title=("EMULATED · " if summary["emulated"] else "") + clean(summary["run"]),
        policy=_policy(plotly, script),
        sentences=answer(summary),
        comparison=comparison,
        orders=order_rows(comparison),
        swaps=swap_tables(comparison),
        effects=effect_rows(comparison),
        curves=_curves(summary),
        headers=HEADERS,
        rows=headline_rows(summary),
        footnote=FOOTNOTE,
        detailed=_DETAILED,
        cells=_named_cells(summary),
        figures=made,
        means=MEANS,
        setups=[(run.name, _setup(run.manifest), run.scenario) for run in facts],
        insecure=any(_insecure(run.manifest) for run in facts),
        style=Markup(_own("report.css")),
        data=Markup(script_json(made)),
        plotly=Markup(plotly),
        script=Markup(script),
    )


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


def _setup(manifest: dict[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Sections of the manifest as rows of text, nulls left out."""
    sections = []
    for name in _SETUP:
        value = manifest.get(name)
        rows = flat(value) if isinstance(value, dict) else {name: value}
        told = [(key, str(item)) for key, item in rows.items() if item not in (None, {}, [], "")]
        if told:
            sections.append((name, told))
    plain = ("status", "started_at", "ended_at", "seed", "salt", "emulated")
    return [("run", [(key, str(manifest.get(key))) for key in plain]), *sections]


def _insecure(manifest: dict[str, Any]) -> bool:
    settings = manifest.get("settings")
    return isinstance(settings, dict) and bool(settings.get("insecure"))


def script_json(value: object) -> str:
    """JSON that can stand inside a script tag: nothing in it can end the tag or open a comment."""
    text = json.dumps(value, allow_nan=False, ensure_ascii=True)
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


def _own(name: str) -> str:
    return (files("analysis") / name).read_text(encoding="utf-8")

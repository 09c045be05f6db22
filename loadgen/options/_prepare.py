"""From options to a run that may begin: settings, scenario and endpoint checked before any turn is sent."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib import metadata
from typing import Any

import msgspec
import psutil

from loadgen.dialects import DIALECTS
from loadgen.options._command_line import OptionErrors, settings_from
from loadgen.options._endpoint import Endpoint, address_of, without_secrets
from loadgen.options._headers import dialect_of, headers_of, secrets_here
from loadgen.options._settings import Settings
from loadgen.options._shape import Shape
from loadgen.options._shapes import shape_of
from loadgen.options._values import model_shares
from scenarios import Scenario, ScenarioError, fitting, load, rows_too_long
from turnbench.cleaning import clean
from turnbench.clock import why_no_packets
from turnbench.extras import missing_for_analysis
from turnbench.findings import note
from turnbench.formats import Finding
from turnbench.server_facts import read_facts_file

# fmt: off
ENDPOINT = note("endpoint", "{}", "nothing to do: it was not used")
UNTYPED_OPTIONS = note("untyped_options",
    "this run is not only what was typed: {}",
    "unset what is not meant")
SHARE_IN_TOKENS = note("cache_share",
    "the share that prompts have in common is one of the served model's tokens, by its tokenizer",
    "nothing to do")
SHARE_IN_WORDS = note("cache_share",
    "the share that prompts have in common was counted in words: the server has no /tokenize",
    "see cached_tokens beside prompt_tokens for the true share")
_LONGER_CONTEXT = "serve the model with a longer context (--max-model-len), or leave it out of the comparison"
SKIPPED_TASK = note("skipped_task",
    "task {} was skipped: it needs a context of {} tokens, the model has {}",
    _LONGER_CONTEXT)
SKIPPED_ROWS = note("skipped_rows",
    "{} of {} rows were skipped: a context of {} is too short",
    _LONGER_CONTEXT)
UNLISTED_MODEL = note("unlisted_model",
    "the server takes --model {}, which its list does not show; it shows {}",
    "see that it is the model you mean: a gateway may choose another")
# fmt: on

_PROBE_LIMIT_S = 60.0
_IN_WORDS = {
    "tools": "tools and their calls",
    "odd_tools": "calls of tools in another form than the API's",
    "parts": "pictures and other parts",
}
"""What a dialect may carry, as people call it."""
_LIBRARIES = ("turnbench", "locust", "aiohttp", "gevent", "msgspec")


@dataclass(frozen=True)
class Prepared:
    """Everything a run needs to begin."""

    settings: Settings
    shape: Shape
    """How the load comes."""
    scenario: Scenario
    endpoint: Endpoint
    model: str
    facts: dict[str, Any]
    slo: dict[str, dict[str, float]]
    skipped: dict[str, int] = field(default_factory=dict)
    """Tasks that need more context than the model has, and how much."""
    findings: list[Finding] = field(default_factory=list)

    @property
    def models(self) -> dict[str, float]:
        """The shares of several models; empty where there is one."""
        shares = model_shares(self.model)
        return shares if len(shares) > 1 else {}


def prepare(options: Mapping[str, Any]) -> Prepared:
    """Check everything; raises OptionErrors with every mistake that can be seen."""
    problems: list[str] = []
    settings = None
    try:
        settings = settings_from(options)
    except OptionErrors as error:
        problems += error.problems
    try:
        skip_bad_rows = settings is not None and settings.skip_bad_rows
        scenario = load(str(options.get("scenario") or "chat"), skip_bad_rows=skip_bad_rows)
    except ScenarioError as error:
        problems += error.problems
    if problems or settings is None:
        raise OptionErrors(problems)
    shape = shape_of(settings)
    people_given = bool(options.get("turnbench_users_given"))
    try:
        shape = shape.for_scenario(scenario, settings, people_given)
    except ValueError as error:
        raise OptionErrors([str(error)]) from None
    problems += shape.impossible(scenario, settings.slo)
    if settings.run_dir and os.path.exists(settings.run_dir) and not options.get("turnbench_again"):
        problems.append(f"--run-dir {settings.run_dir}: exists already; name a new directory")
    if not settings.no_analysis and (why := missing_for_analysis()) is not None:
        problems.append(
            f"the run could not be analysed: {why}, or give --no-analysis and analyse it elsewhere"
        )
    facts, mistakes = read_facts_file(settings.server_facts) if settings.server_facts else ({}, [])
    problems += mistakes
    problems += _not_carried(scenario, dialect_of(settings))
    if settings.clock == "wire" and (options.get("processes") or not options.get("master")):
        problems += _not_on_the_wire(settings)
    try:
        headers_of(settings)
    except ValueError as error:
        problems.append(str(error))
    if problems:
        raise OptionErrors(problems)
    endpoint = _ask(settings)
    model = model_to_ask(settings, endpoint)
    try:
        scenario, skipped, findings = _fit(scenario, endpoint.max_model_len)
        without = rows_too_long(scenario, endpoint.max_model_len)
        shape = shape.for_scenario(scenario, settings, people_given, without)
    except ScenarioError as error:
        raise OptionErrors(error.problems) from None
    except ValueError as error:
        raise OptionErrors([str(error)]) from None
    findings += [*scenario.notes, *map(ENDPOINT.finding, endpoint.notes)]
    if settings.cache.startswith("shared"):
        counted = SHARE_IN_WORDS if endpoint.measured is None else SHARE_IN_TOKENS
        findings.append(counted.finding())
    if untyped := str(options.get("turnbench_untyped") or ""):
        findings.append(UNTYPED_OPTIONS.finding(untyped))
    if endpoint.models:
        listed = ", ".join(endpoint.models[:5]) + (", ..." if len(endpoint.models) > 5 else "")
        unlisted = [name for name in model_shares(model) if name not in endpoint.models]
        findings += [UNLISTED_MODEL.finding(name, listed) for name in unlisted]
    slo = {task: scenario.slo.get(task, {}) | settings.slo for task in scenario.tasks}
    return Prepared(settings, shape, scenario, endpoint, model, facts, slo, skipped, findings)


def _not_on_the_wire(settings: Settings) -> list[str]:
    """Why no process here can take arrivals from packets; other machines say so themselves."""
    why = why_no_packets() if address_of(settings.host).socket is None else "a Unix socket has no packets"
    return [] if why is None else [f"--clock wire: {why}; see docs/clocks.md, or use --clock auto"]


def _not_carried(scenario: Scenario, dialect: str) -> list[str]:
    """What of a file of data could not be said in this dialect: nothing is dropped without a word."""
    missing = sorted(scenario.needs - set(DIALECTS[dialect].carries))
    if not missing:
        return []
    what = " and ".join(_IN_WORDS[need] for need in missing)
    able = [name for name, each in DIALECTS.items() if scenario.needs <= set(each.carries)]
    return [f"--scenario {scenario.name}: --dialect {dialect} cannot carry {what}; use {' or '.join(able)}"]


def _fit(scenario: Scenario, context: int | None) -> tuple[Scenario, dict[str, int], list[Finding]]:
    """The scenario as it can be played, the tasks skipped with the context that they need, and notes on that.

    Raises ScenarioError where nothing can be played. A server that does not say its context is believed when
    it refuses a request.
    """
    if context is None:
        return scenario, {}, []
    playable, skipped = fitting(scenario, context)
    notes = [SKIPPED_TASK.finding(task, needed, context) for task, needed in skipped.items()]
    if rows := rows_too_long(scenario, context):
        notes.append(SKIPPED_ROWS.finding(len(rows), scenario.size, context))
    return playable, skipped, notes


def _ask(settings: Settings) -> Endpoint:
    """Ask the endpoint in a clean process (aiohttp can't live under gevent)."""
    host = without_secrets(settings.host)
    try:
        asked = subprocess.run(
            [sys.executable, "-P", "-m", "loadgen.options._probe"],
            input=msgspec.json.encode(settings),
            capture_output=True,
            timeout=_PROBE_LIMIT_S,
            start_new_session=True,  # Ctrl-C is for the run, whose end kills this too
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise OptionErrors([f"-H {host}: no answer in {_PROBE_LIMIT_S:g} s"]) from None
    if asked.returncode:
        lines = asked.stderr.decode("utf-8", "replace").strip().splitlines()
        why = secrets_here(settings).scrubbed(lines[-1]) if lines else "no answer"
        raise OptionErrors([f"-H {host}: {why}"])
    return msgspec.json.decode(asked.stdout, type=Endpoint)


def served_models(settings: Settings) -> list[str]:
    """The models that the endpoint lists; raises OptionErrors where it can't be asked."""
    endpoint = _ask(settings)
    if endpoint.problem is not None:
        raise OptionErrors([endpoint.problem])
    return endpoint.models


def model_to_ask(settings: Settings, endpoint: Endpoint) -> str:
    """The model to ask for: one that the list does not show was tried, as lists have other names for it."""
    host = without_secrets(settings.host)
    if settings.model is None:
        if not endpoint.models:
            why = endpoint.problem or "it lists no model"
            raise OptionErrors([f"-H {host}: no model to ask ({why}); start a server there or give --model"])
        return endpoint.models[0]
    if endpoint.refused_model is not None:
        secrets = secrets_here(settings)
        near = get_close_matches(endpoint.refused_name, endpoint.models, 1)
        served = near or endpoint.models[:5]
        names = ", ".join(secrets.scrubbed(clean(name.encode("utf-8", "replace"))) for name in served)
        hint = f"did you mean {names}?" if near else f"it serves {names}"
        why = f"not served at {host} ({endpoint.refused_model}); {hint}"
        raise OptionErrors([f"--model {endpoint.refused_name}: {why}"])
    shares = model_shares(settings.model)
    return settings.model if len(shares) > 1 else next(iter(shares))


def versions() -> dict[str, str]:
    """Versions of Python and of what matters here; what is there without being installed has none."""
    found = {"python": platform.python_version()}
    for name in _LIBRARIES:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def machine() -> dict[str, Any]:
    """The client's machine, for the record."""
    return {
        "name": platform.node(),
        "system": platform.system(),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
    }

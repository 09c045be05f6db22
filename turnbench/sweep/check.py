"""What can be wrong with a sweep's plan: every problem in words, none by a traceback."""

from __future__ import annotations

import re
from typing import Any

from loadgen.options._command_line import OPTIONS
from turnbench.formats import BACKENDS, PRECISIONS
from turnbench.names import slug

PLAN_FORMAT = "turnbench-sweep-plan/1"


WEIGHTS = ("real", "dummy")
_KEYS = ("format", "name", "models", "backend", "hardware", "parallel", "run", "scenarios", "repeats", "seed",
         "endpoints", "precisions", "levels", "variants", "weights", "args")  # fmt: skip
_OURS = ("run-dir", "model")
_ENDPOINTS_ARE_SERVED = ("backend", "precisions", "weights", "args")
_MOST_PEOPLE = 1_000_000


def problems_of(raw: dict[str, Any]) -> list[str]:
    """All that is wrong with a plan as it is written, every value a text, a list or a mapping."""
    found = [f"unknown key {key!r}; keys are {', '.join(_KEYS)}" for key in raw if key not in _KEYS]
    if raw.get("format") != PLAN_FORMAT:
        found.append(f"format is {raw.get('format')!r}, must be {PLAN_FORMAT!r}")
    if not isinstance(raw.get("name"), str) or not raw.get("name"):
        found.append("name is missing: a word for the sweep's directory")
    found += _endpoint_problems(raw) if "endpoints" in raw else _model_problems(raw)
    for key, known in (("backend", BACKENDS), ("weights", WEIGHTS)):
        if raw.get(key, known[0]) not in known:
            found.append(f"{key} {raw[key]!r}: one of {', '.join(known)}")
    if not isinstance(raw.get("hardware", ""), str):
        found.append("hardware is not a word, such as a100-40gb")
    if not isinstance(raw.get("args", ""), str):
        found.append("args is not one text of options for the server")
    found += _parallel_problems(raw) + _axis_problems(raw) + _scenario_problems(raw)
    return found + _option_problems("run", raw.get("run", {})) + _variant_problems(raw)


def _model_problems(raw: dict[str, Any]) -> list[str]:
    models = raw.get("models")
    if not isinstance(models, list) or not models or not all(isinstance(m, str) for m in models):
        return ["models is missing: a list of names that `python -m serve list` shows"]
    if len({slug(model) for model in models}) < len(models):  # each has a directory of its own
        return ["models names one model twice"]
    return []


def _endpoint_problems(raw: dict[str, Any]) -> list[str]:
    endpoints = raw["endpoints"]
    if "models" in raw:
        return ["models and endpoints exclude each other: models are served, endpoints run already"]
    if not isinstance(endpoints, dict) or not endpoints:
        return ["endpoints is not a mapping of a name to a URL, such as `mine: http://127.0.0.1:8000`"]
    bad = [name for name, url in endpoints.items() if not re.match(r"https?://[^/\s]", str(url))]
    found = [f"endpoints: {name}: not an http:// or https:// URL" for name in bad]
    if len({slug(str(name)) for name in endpoints}) < len(endpoints):
        found.append("endpoints names one server twice")
    return found


def _axis_problems(raw: dict[str, Any]) -> list[str]:
    found = []
    precisions, levels = raw.get("precisions", []), raw.get("levels", [])
    if not isinstance(precisions, list) or any(each not in PRECISIONS for each in precisions):
        found.append(f"precisions is not a list of {', '.join(PRECISIONS)}")
    elif len(set(precisions)) < len(precisions):
        found.append("precisions names one twice")
    elif precisions and "endpoints" in raw:
        found.append("precisions and endpoints exclude each other: those servers run already")
    if not isinstance(levels, list) or not all(_whole(each, 1, _MOST_PEOPLE) for each in levels):
        found.append("levels is not a list of numbers of people, such as [1, 4, 16]")
    elif len({int(each) for each in levels}) < len(levels):
        found.append("levels names one twice")
    elif levels and isinstance(raw.get("run"), dict) and raw["run"].keys() & {"levels", "users"}:
        found.append("levels and run: levels or users exclude each other; keep one")
    for name, least, most in (("repeats", 1, 9999), ("seed", 0, 10**18)):
        if not _whole(raw.get(name, "1"), least, most):
            found.append(f"{name} is {str(raw[name])[:40]!r}: a whole number from {least} up")
    return found


def _scenario_problems(raw: dict[str, Any]) -> list[str]:
    scenarios = raw.get("scenarios", [])
    if not isinstance(scenarios, list) or not all(isinstance(name, str) and name for name in scenarios):
        return ["scenarios is not a list of names or files"]
    if len({slug(name) for name in scenarios}) < len(scenarios):
        return ["scenarios names one scenario twice"]
    if scenarios and isinstance(raw.get("run"), dict) and "scenario" in raw["run"]:
        return ["scenarios and run: scenario exclude each other; keep one"]
    return []


def _variant_problems(raw: dict[str, Any]) -> list[str]:
    variants = raw.get("variants", {})
    if not isinstance(variants, dict):
        return ["variants is not a mapping of a name to options, such as `exact: {exact-tokens: on}`"]
    found = [problem for name, each in variants.items() for problem in _option_problems(name, each or {})]
    if len({slug(str(name)) for name in variants}) < len(variants):
        found.append("variants names one twice")
    fixed = {"scenario", "levels", "users"}
    if any(isinstance(each, dict) and each.keys() & fixed for each in variants.values()):
        found.append("variants: scenarios and levels have lists of their own, `scenarios` and `levels`")
    return found


def _option_problems(where: str, options: Any) -> list[str]:
    if not isinstance(options, dict):
        return [f"{where} is not a mapping of options, such as `levels: 1,4`"]
    known = {option.name for option in OPTIONS if not option.repeats} - set(_OURS)
    known |= {"users", "spawn-rate", "run-time"}
    found = [f"{where}: unknown option {name!r}" for name in options if name not in known]
    odd = [name for name in known & options.keys() if not isinstance(options[name], str)]
    return found + [f"{where}: {name} is not one value; write it as on the command line" for name in odd]


def _parallel_problems(raw: dict[str, Any]) -> list[str]:
    parallel = raw.get("parallel", "1")
    if not _whole(parallel, 1, 9999):
        return [f"parallel is {str(parallel)[:40]!r}: a whole number from 1 up"]
    if int(parallel) > 1 and raw.get("backend", "emulator") != "emulator":
        return ["parallel is for emulators: real servers would slow each other down"]
    return []


def _whole(text: Any, least: int, most: int) -> bool:
    return re.fullmatch(r"[0-9]{1,18}", str(text)) is not None and least <= int(text) <= most

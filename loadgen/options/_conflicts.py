"""Options that can't go together, and headers that no request could carry."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from loadgen._settings import without_userinfo

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


def contradictions(fields: dict[str, Any], options: Mapping[str, Any]) -> list[str]:
    """Options that exclude each other; `turnbench_users_given` says whether -u was typed."""
    found = []
    host = fields["host"]
    if not _is_url(host):
        shown = without_userinfo(host)
        found.append(f"-H {shown!r}: not an http:// or https:// URL; write e.g. http://127.0.0.1:8000")
    if fields["levels"] and options.get("turnbench_users_given"):
        found.append("--levels and -u exclude each other: a level is a number of people; drop -u")
    if fields["levels"] and fields["run_time_s"]:
        found.append("--levels and -t exclude each other: say with --hold how long each level lasts; drop -t")
    if fields["arrival_rate_per_s"]:
        found += _of_open_loop(fields, options)
    if fields["replay_speed"]:
        found += _of_replay(fields, options)
    if fields["once"] and len(fields["levels"] or [1]) > 1:
        found.append("--once and several --levels exclude each other: one level plays everything; give one")
    if fields["once"] and fields["run_time_s"]:
        found.append("--once and -t exclude each other: the scenario's end ends the run; drop -t")
    if fields["find_capacity"]:
        others = {"--levels": fields["levels"], "--once": fields["once"], "-t": fields["run_time_s"]}
        why = "it chooses its loads and how long each lasts (about --hold)"
        found += [f"--find-capacity and {name} exclude each other: {why}; drop {name}"
                  for name, given in others.items() if given]  # fmt: skip
    if options.get("hold"):
        found += _of_hold(fields)
    return found + _of_people(fields, options)


def _of_hold(fields: dict[str, Any]) -> list[str]:
    if fields["once"]:
        return ["--once and --hold exclude each other: the scenario's end ends the run; drop --hold"]
    if fields["levels"] or fields["arrival_steps_per_s"] or fields["find_capacity"]:
        return []
    return ["--hold is about levels: add --levels (or several rates to --arrival-rate), or say -t instead"]


def _of_people(fields: dict[str, Any], options: Mapping[str, Any]) -> list[str]:
    found = []
    if options.get("turnbench_users_given") and options["num_users"] < 1:
        found.append(f"-u {options['num_users']}: there must be one person at least")
    if fields["spawn_rate"] is not None and not fields["spawn_rate"] > 0:
        found.append(f"-r {fields['spawn_rate']:g}: people per second, more than 0")
    return found


def _of_open_loop(fields: dict[str, Any], options: Mapping[str, Any]) -> list[str]:
    """With --arrival-rate nobody says how many people there are: they come at the rate."""
    others = {
        "-u": options.get("turnbench_users_given"),
        "--levels": fields["levels"],
        "--once": fields["once"],
    }
    why = "people come at the rate, however many are there"
    found = [
        f"--arrival-rate and {name} exclude each other: {why}; drop one"
        for name, given in others.items()
        if given
    ]
    steps, ramp = fields["arrival_steps_per_s"], fields["arrival_ramp_to_per_s"]
    if steps and fields["run_time_s"]:
        found.append("--arrival-rate A,B,C and -t exclude each other: say with --hold how long each lasts")
    if ramp is not None and not fields["run_time_s"]:
        found.append("--arrival-rate A..B: say with -t within what time")
    if (steps or ramp is not None) and fields["find_capacity"]:
        found.append("--find-capacity takes one --arrival-rate, the first to try; it chooses the others")
    return found


def _of_replay(fields: dict[str, Any], options: Mapping[str, Any]) -> list[str]:
    others = {
        "-u": options.get("turnbench_users_given"),
        "--levels": fields["levels"],
        "--arrival-rate": fields["arrival_rate_per_s"],
        "--once": fields["once"],
        "--find-capacity": fields["find_capacity"],
    }
    why = "a trace is replayed at its own times"
    return [
        f"--replay-speed and {n} exclude each other: {why}; drop one" for n, given in others.items() if given
    ]


def _is_url(host: str) -> bool:
    try:
        parts = urlsplit(host)
        named = bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port or an address that is none
        return False
    return named and host.isprintable() and parts.scheme in ("http", "https")


def header_problems(headers: dict[str, str]) -> list[str]:
    """What no request could carry; a value is never shown, it may be a key."""
    found = [f"--header {n!r}: not a header's name" for n in headers if not _HEADER_NAME.fullmatch(n)]
    bad = [name for name, value in headers.items() if _CONTROL.search(value)]
    return found + [f"--header {name}: its value has a control character; take it out" for name in bad]

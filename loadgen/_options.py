"""turnbench's options on Locust's command line, and how they become Settings.

Locust sends option values to workers as msgpack and shows them in its start form, so values are str, float,
bool or None and types do no work: everything is checked in `settings_from`, all mistakes at once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from loadgen import _option_values as values
from loadgen._settings import Settings, without_userinfo
from loadgen._times import seconds

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


@dataclass(frozen=True)
class Option:
    """One option; `metavar` None makes it a switch, `repeats` lets it be given many times."""

    name: str
    help: str
    default: str = ""
    metavar: str | None = None
    repeats: bool = False

    @property
    def dest(self) -> str:
        return self.name.replace("-", "_")


OPTIONS = (
    Option("scenario", "Mix, task or file to play.", "chat", "NAME|FILE"),
    Option("model", "Model named in requests; default: the endpoint's first.", metavar="NAME"),
    Option("levels", "Concurrency sweep, such as 1,4,16; -r is then the spawn rate.", metavar="LIST"),
    Option("hold", "How long each level is measured.", "60s", "TIME"),
    Option("warmup", "Time between everybody being there and the start of measuring.", "5s", "TIME"),
    Option("arrival-rate", "Open loop: conversations that begin per second; -t says how long.", metavar="R"),
    Option("burstiness", "Shape of the gamma gaps between arrivals: 1 Poisson, below 1 bursty.", "1", "K"),
    Option("once", "Play every conversation of a finite scenario exactly once, then end."),
    Option("find-capacity", "Find the highest load at which the limits hold: people, or conversations per "
           "second if --arrival-rate gives the first to try."),
    Option("think-time", "none, scenario, scenario*X or a TIME; default: none with --levels, --once and "
           "--find-capacity, else scenario.", metavar="HOW"),
    Option("max-tokens", "Longest answer in tokens; default: the scenario's.", metavar="N"),
    Option("exact-tokens", "Answers of exactly --max-tokens tokens (256 if not given)."),
    Option("temperature", "Sampling temperature; default: the scenario's.", metavar="T"),
    Option("top-p", "Nucleus sampling; default: the scenario's.", metavar="P"),
    Option("body", "JSON object merged into every request.", metavar="JSON"),
    Option("slo", "Limits a turn must meet: KEY=LIMIT,... of ttft_ms, response_delay_ms, ttg_ms, tpot_ms, "
           "and share=S (0.95) of turns that must.", metavar="LIMITS"),
    Option("connect-timeout", "Longest time to open a connection.", "5s", "TIME"),
    Option("idle-timeout", "Longest silence of a stream.", "30s", "TIME"),
    Option("deadline", "Longest time for one answer.", "600s", "TIME"),
    Option("drain", "Longest wait for measured turns after a level's window.", "60s", "TIME"),
    Option("retry", "Further attempts at a turn that failed; each is recorded.", "0", "N"),
    Option("abort-errors", "End the run when this share of turns failed (1: never).", "1", "SHARE"),
    Option("clock", "kernel or user: who says when bytes arrived.", "kernel", "CLOCK"),
    Option("seed", "Seed of the plan.", "0", "N"),
    Option("salt", "Keeps prompts of different runs apart in prefix caches; default: random.", metavar="HEX"),
    Option("run-dir", "Where the run goes; default: runs/TIME-SCENARIO.", metavar="DIR"),
    Option("label", "K=V kept in run.json; may be given again.", metavar="K=V", repeats=True),
    Option("no-analysis", "Leave the analysis for later: python -m analysis RUN."),
    Option("keep-text", "Keep the text of replies in the records."),
    Option("header", "K:V sent with every request; K:$VAR takes the value from the environment.",
           metavar="K:V", repeats=True),
    Option("insecure", "Do not check the server's certificate; stamped on the report."),
    Option("trust-env", "Use proxy settings of the environment."),
    Option("api-key-env", "Environment variable that holds the API key.", "OPENAI_API_KEY", "NAME"),
    Option("server-facts", "JSON or YAML file that describes a remote server.", metavar="FILE"),
)  # fmt: skip


def add_options(parser: Any) -> None:
    """Add ours to Locust's parser; every option also reads TURNBENCH_NAME from the environment."""
    for option in OPTIONS:
        flag = f"--{option.name}"
        env_var = "TURNBENCH_" + option.dest.upper()
        if option.repeats:
            parser.add_argument(
                flag, action="append", metavar=option.metavar, default=None, env_var=env_var,
                help=option.help, include_in_web_ui=False,
            )  # fmt: skip
        elif option.metavar is None:
            parser.add_argument(flag, action="store_true", default=False, env_var=env_var, help=option.help)
        else:
            parser.add_argument(
                flag, type=str, metavar=option.metavar, default=option.default, env_var=env_var,
                help=option.help,
            )  # fmt: skip


class OptionErrors(ValueError):
    """Every mistake in the options, one a line."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def settings_from(options: Mapping[str, Any]) -> Settings:
    """Settings of Locust's parsed options (a namespace's dict); raises OptionErrors with all mistakes."""
    problems: list[str] = []

    def read(name: str, convert: Callable[[str], Any], empty: Any = None) -> Any:
        text = str(options.get(name) if options.get(name) is not None else "").strip()
        if not text:
            return empty
        try:
            return convert(values.sound(text))
        except ValueError as error:
            problems.append(f"--{name.replace('_', '-')}: {error}")
            return empty

    levels = read("levels", values.levels)
    once = bool(options.get("once"))
    find_capacity = bool(options.get("find_capacity"))
    think_default = "none" if levels or once or find_capacity else "scenario"
    fields = {
        "host": str(options.get("host") or ""),
        "scenario": read("scenario", str, "chat"),
        "model": read("model", str),
        "levels": levels,
        "users": options.get("num_users") or 1,
        "spawn_rate": options.get("spawn_rate"),
        "run_time_s": read("turnbench_run_time_s", seconds),
        "hold_s": read("hold", values.positive_time, 60.0),
        "warmup_s": read("warmup", seconds, 5.0),
        "arrival_rate_per_s": read("arrival_rate", values.number(1e-6, 1e5)),
        "burstiness": read("burstiness", values.number(0.01, 1000), 1.0),
        "once": once,
        "find_capacity": find_capacity,
        "think_time": read("think_time", values.think_time, think_default),
        "max_tokens": read("max_tokens", values.positive_int),
        "exact_tokens": bool(options.get("exact_tokens")),
        "temperature": read("temperature", values.number(0, 100)),
        "top_p": read("top_p", values.number(0, 1)),
        "body": read("body", values.json_object, {}),
        "slo": read("slo", values.limits, {}),
        "connect_timeout_s": read("connect_timeout", values.positive_time, 5.0),
        "idle_timeout_s": read("idle_timeout", values.positive_time, 30.0),
        "deadline_s": read("deadline", values.positive_time, 600.0),
        "drain_s": read("drain", seconds, 60.0),
        "retry": read("retry", values.whole, 0),
        "abort_errors": read("abort_errors", values.number(0, 1), 1.0),
        "clock": read("clock", values.clock, "kernel"),
        "seed": read("seed", values.whole, 0),
        "salt": read("salt", values.hexadecimal),
        "run_dir": read("run_dir", str),
        "labels": values.pairs(options.get("label"), "=", "--label", problems),
        "keep_text": bool(options.get("keep_text")),
        "headers": values.pairs(options.get("header"), ":", "--header", problems),
        "insecure": bool(options.get("insecure")),
        "trust_env": bool(options.get("trust_env")),
        "api_key_env": read("api_key_env", values.variable, "OPENAI_API_KEY"),
        "server_facts": read("server_facts", str),
    }
    problems += _header_problems(fields["headers"]) + _contradictions(fields, options)
    if problems:
        raise OptionErrors(problems)
    return Settings(**fields)


def _contradictions(fields: dict[str, Any], options: Mapping[str, Any]) -> list[str]:
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
        found += _open_loop_contradictions(fields, options)
    if fields["once"] and len(fields["levels"] or [1]) > 1:
        found.append("--once and several --levels exclude each other: one level plays everything; give one")
    if fields["once"] and fields["run_time_s"]:
        found.append("--once and -t exclude each other: the scenario's end ends the run; drop -t")
    if fields["find_capacity"]:
        others = {"--levels": fields["levels"], "--once": fields["once"], "-t": fields["run_time_s"]}
        why = "it chooses its loads and how long each lasts (about --hold)"
        found += [f"--find-capacity and {name} exclude each other: {why}; drop {name}"
                  for name, given in others.items() if given]  # fmt: skip
    if fields["once"] and str(options.get("hold") or "60s") != "60s":
        found.append("--once and --hold exclude each other: the scenario's end ends the run; drop --hold")
    return found


def _open_loop_contradictions(fields: dict[str, Any], options: Mapping[str, Any]) -> list[str]:
    """With --arrival-rate nobody says how many people there are: they come at the rate."""
    others = {
        "-u": options.get("turnbench_users_given"),
        "--levels": fields["levels"],
        "--once": fields["once"],
    }
    why = "people come at the rate, however many are there"
    return [
        f"--arrival-rate and {name} exclude each other: {why}; drop one"
        for name, given in others.items()
        if given
    ]


def _is_url(host: str) -> bool:
    try:
        parts = urlsplit(host)
        named = bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port or an address that is none
        return False
    return named and host.isprintable() and parts.scheme in ("http", "https")


def _header_problems(headers: dict[str, str]) -> list[str]:
    """What no request could carry; a value is never shown, it may be a key."""
    found = [f"--header {n!r}: not a header's name" for n in headers if not _HEADER_NAME.fullmatch(n)]
    bad = [name for name, value in headers.items() if _CONTROL.search(value)]
    return found + [f"--header {name}: its value has a control character; take it out" for name in bad]

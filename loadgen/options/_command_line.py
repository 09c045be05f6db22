"""turnbench's options on Locust's command line, and how they become Settings.

Locust sends option values to workers as msgpack and shows them in its start form, so values are str, float,
bool or None and types do no work: everything is checked in `settings_from`, all mistakes at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from loadgen._settings import Settings
from loadgen.options import _values as values
from loadgen.options._conflicts import contradictions, header_problems
from turnbench.units import seconds


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
    Option("hold", "How long each level is measured; default: 60s.", metavar="TIME"),
    Option("warmup", "Time between everybody being there and the start of measuring.", "5s", "TIME"),
    Option("arrival-rate", "Open loop: conversations that begin per second, for -t. A..B: rising evenly from "
           "A to B within -t; A,B,C: one level of --hold each.", metavar="R"),
    Option("burstiness", "Shape of the gamma gaps between arrivals: 1 Poisson, below 1 bursty.", "1", "K"),
    Option("replay-speed", "Replay a trace at this multiple of its own times; default: 1.", metavar="X"),
    Option("once", "Play every conversation of a finite scenario exactly once, then end."),
    Option("find-capacity", "Find the highest load at which the limits hold: people, or conversations per "
           "second if --arrival-rate gives the first to try."),
    Option("think-time", "none, scenario, scenario*X (all human time, patience too) or a TIME. Default: "
           "scenario; with --levels, --once and --find-capacity none: nobody pauses or leaves.",
           metavar="HOW"),
    Option("max-tokens", "Longest answer in tokens; default: the scenario's.", metavar="N"),
    Option("exact-tokens", "Answers of exactly --max-tokens tokens (256; in a replay the trace's lengths)."),
    Option("temperature", "Sampling temperature; default: the scenario's.", metavar="T"),
    Option("top-p", "Nucleus sampling; default: the scenario's.", metavar="P"),
    Option("body", "JSON object merged into every request.", metavar="JSON"),
    Option("slo", "Limits a turn must meet: KEY=LIMIT,... of ttft_ms, response_delay_ms, ttg_ms, tpot_ms, "
           "and share=S (0.95) of turns that must.", metavar="LIMITS"),
    Option("connect-timeout", "Longest time to open a connection.", "5s", "TIME"),
    Option("idle-timeout", "Longest silence of a stream.", "30s", "TIME"),
    Option("deadline", "Longest time for one answer.", "600s", "TIME"),
    Option("drain", "Longest wait for measured turns after a level's window.", "60s", "TIME"),
    Option("retry", "Further attempts at a turn that got no connection, lost it before the answer, or was "
           "told 429 or 5xx; each is recorded.", "0", "N"),
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


Reading = tuple[str, Callable[[str], Any], Any]
"""An option's name, what makes a value of its text, and the value if it is empty."""

_READINGS: dict[str, Reading] = {
    "scenario": ("scenario", str, "chat"),
    "model": ("model", str, None),
    "levels": ("levels", values.levels, None),
    "run_time_s": ("turnbench_run_time_s", seconds, None),
    "hold_s": ("hold", values.positive_time, 60.0),
    "warmup_s": ("warmup", seconds, 5.0),
    "arrivals": ("arrival_rate", values.arrival_rates, values.ArrivalRates()),
    "burstiness": ("burstiness", values.number(0.01, 1000), 1.0),
    "replay_speed": ("replay_speed", values.number(1e-6, 1e6), None),
    "think_time": ("think_time", values.think_time, None),
    "max_tokens": ("max_tokens", values.positive_int, None),
    "temperature": ("temperature", values.number(0, 100), None),
    "top_p": ("top_p", values.number(0, 1), None),
    "body": ("body", values.json_object, {}),
    "slo": ("slo", values.limits, {}),
    "connect_timeout_s": ("connect_timeout", values.positive_time, 5.0),
    "idle_timeout_s": ("idle_timeout", values.positive_time, 30.0),
    "deadline_s": ("deadline", values.positive_time, 600.0),
    "drain_s": ("drain", seconds, 60.0),
    "retry": ("retry", values.whole, 0),
    "abort_errors": ("abort_errors", values.number(0, 1), 1.0),
    "clock": ("clock", values.clock, "kernel"),
    "seed": ("seed", values.whole, 0),
    "salt": ("salt", values.hexadecimal, None),
    "run_dir": ("run_dir", str, None),
    "api_key_env": ("api_key_env", values.variable, "OPENAI_API_KEY"),
    "server_facts": ("server_facts", str, None),
}
_SWITCHES = ("once", "find_capacity", "exact_tokens", "keep_text", "insecure", "trust_env")


def settings_from(options: Mapping[str, Any]) -> Settings:
    """Settings of Locust's parsed options (a namespace's dict); raises OptionErrors with all mistakes."""
    problems: list[str] = []
    fields = {name: _read(options, *reading, problems) for name, reading in _READINGS.items()}
    fields |= {name: bool(options.get(name)) for name in _SWITCHES}
    fields |= fields.pop("arrivals")._asdict()
    fields |= {
        "host": str(options.get("host") or ""),
        "users": options.get("num_users") or 1,
        "spawn_rate": options.get("spawn_rate"),
        "labels": values.pairs(options.get("label"), "=", "--label", problems),
        "headers": values.pairs(options.get("header"), ":", "--header", problems),
    }
    if fields["think_time"] is None:
        for_batch_sizes = fields["levels"] or fields["once"] or fields["find_capacity"]
        fields["think_time"] = "none" if for_batch_sizes else "scenario"
    problems += header_problems(fields["headers"]) + contradictions(fields, options)
    if problems:
        raise OptionErrors(problems)
    return Settings(**fields)


def _read(
    options: Mapping[str, Any], name: str, convert: Callable[[str], Any], empty: Any, problems: list[str]
) -> Any:
    """The value of one option, or `empty` where it was not given or is wrong."""
    text = str(options.get(name) if options.get(name) is not None else "").strip()
    if not text:
        return empty
    try:
        return convert(values.sound(text))
    except ValueError as error:
        problems.append(f"--{name.replace('_', '-')}: {error}")
        return empty

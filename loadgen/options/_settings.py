"""Everything that can be asked for: one field an option, and nothing about it anywhere else.

`recorded` in `_headers` is what run.json keeps of it. How the load comes (levels, arrivals, once, ...) is
parsed from here once, into a shape of `_shapes`, and asked there.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from loadgen.dialects import DIALECTS
from loadgen.options import _values as values
from loadgen.options._option import Option
from turnbench.units import seconds

_AT_A_RATE = dict.fromkeys(
    ("-u", "--levels", "--once"), "people come at the rate, however many are there; drop one"
)
_OWN_TIMES = dict.fromkeys(
    ("-u", "--levels", "--arrival-rate", "--once", "--find-capacity"),
    "a trace is replayed at its own times; drop one",
)
_OWN_END = {
    "--once": "the scenario's end ends the run; drop --until",
    "--find-capacity": "it ends each level once it is clear whether limits hold; drop --until",
    "--replay-speed": "a trace has its own end; drop --until",
}
_CHOOSES = {
    flag: f"it chooses its loads and how long each lasts (about --hold); drop {flag}"
    for flag in ("--levels", "--once", "-t")
}


class Settings(msgspec.Struct, kw_only=True, frozen=True):
    """One run's settings. Times are seconds; None means: not asked for."""

    host: Annotated[str, Option("The endpoint.", values.endpoint_url, "URL", locusts="-H", key="host")]
    """The endpoint as typed; `_endpoint.address_of` says what it means."""
    scenario: Annotated[str, Option("Mix, task or file to play.", str, "NAME|FILE", "chat")] = "chat"
    skip_bad_rows: Annotated[
        bool,
        Option(
            "Play a file of data without the rows that cannot be played; the run says how many those are."
        ),
    ] = False
    model: Annotated[
        str | None,
        Option(
            "Model named in requests; default: the endpoint's first. A=0.7,B=0.3: several of one server, "
            "each conversation with one of them, drawn by these shares.",
            values.model,
            "NAME",
        ),
    ] = None
    dialect: Annotated[
        str,
        Option(
            f"How the server is asked: {', '.join(DIALECTS)}. auto: by the path of -H, else chat.",
            values.dialect,
            "NAME",
            "auto",
        ),
    ] = "auto"
    """As typed; `_headers.dialect_of` says which it is."""
    levels: Annotated[
        list[int] | None,
        Option(
            "Concurrency sweep, such as 1,4,16; -r is then the spawn rate.",
            values.levels,
            "LIST",
            excludes={
                "-u": "a level is a number of people; drop -u",
                "-t": "say with --hold how long each level lasts; drop -t",
            },
        ),
    ] = None
    """Simulated people at each level of a sweep."""
    users: Annotated[int, Option("Simulated people.", values.people, "N", locusts="-u", key="num_users")] = 1
    """Simulated people of a run without levels."""
    spawn_rate: Annotated[
        float | None,
        Option("People that come per second.", values.spawn_rate, "R", locusts="-r", key="spawn_rate"),
    ] = None
    run_time_s: Annotated[
        float | None,
        Option("How long the run lasts.", seconds, "TIME", locusts="-t", key="turnbench_run_time_s"),
    ] = None
    hold_s: Annotated[
        float, Option("How long each level is measured; default: 60s.", values.positive_time, "TIME")
    ] = 60.0
    until: Annotated[
        values.Until | None,
        Option(
            "End a level once the interval of a number is within SHARE of it, such as ttg_p50=0.05, at the "
            "latest after --hold or -t. KEY: ttft_p50, ttft_p90, ttft_p99, ttg_p50, ttg_p90, ttg_p99 or tps.",
            values.until,
            "KEY=SHARE",
            excludes=_OWN_END,
        ),
    ] = None
    warmup_s: Annotated[
        float,
        Option("Time from when all people are there to the start of measuring.", seconds, "TIME", "5s"),
    ] = 5.0
    arrival_rate: Annotated[
        values.ArrivalRates | None,
        Option(
            "Open loop: conversations that begin per second, for -t. A..B: changing evenly from A to B "
            "within -t; A,B,C: one level of --hold each.",
            values.arrival_rates,
            "R",
            excludes=_AT_A_RATE,
        ),
    ] = None
    burstiness: Annotated[
        float,
        Option(
            "Shape of the gamma gaps between arrivals: 1 Poisson, below 1 bursty.",
            values.number(0.01, 1000),
            "K",
            "1",
        ),
    ] = 1.0
    replay_speed: Annotated[
        float | None,
        Option(
            "Replay a trace at this multiple of its own times; default: 1.",
            values.number(1e-6, 1e6),
            "X",
            excludes=_OWN_TIMES,
        ),
    ] = None
    once: Annotated[
        bool,
        Option(
            "Play every conversation of a finite scenario exactly once, then end.",
            excludes={
                "-t": "the scenario's end ends the run; drop -t",
                "--hold": "the scenario's end ends the run; drop --hold",
            },
        ),
    ] = False
    find_capacity: Annotated[
        bool,
        Option(
            "Find the highest load at which the limits hold: people, or conversations per second if "
            "--arrival-rate gives the first to try.",
            excludes=_CHOOSES,
        ),
    ] = False
    think_time: Annotated[
        str,
        Option(
            "none, scenario, scenario*X (all human time, patience too) or a TIME. Default: scenario; with "
            "--levels, --once and --find-capacity none: nobody pauses or leaves.",
            values.think_time,
            "HOW",
        ),
    ] = "scenario"
    """none | scenario | scenario*X | seconds as a number."""
    max_tokens: Annotated[
        int | None,
        Option("Longest answer in tokens; default: the scenario's.", values.positive_int, "N"),
    ] = None
    exact_tokens: Annotated[
        bool,
        Option("Answers of exactly --max-tokens tokens (256; in a replay the trace's lengths)."),
    ] = False
    temperature: Annotated[
        float | None, Option("Sampling temperature; default: the scenario's.", values.number(0, 100), "T")
    ] = None
    top_p: Annotated[
        float | None, Option("Nucleus sampling; default: the scenario's.", values.number(0, 1), "P")
    ] = None
    body: Annotated[
        dict[str, Any], Option("JSON object merged into every request.", values.json_object, "JSON")
    ] = {}
    slo: Annotated[
        dict[str, float],
        Option(
            "Limits a turn must meet: KEY=LIMIT,... such as ttft_ms=500,tpot_ms=50, and share=S (0.95) of "
            "turns that must.",
            values.limits,
            "LIMITS",
        ),
    ] = {}
    """Limits from the command line, by metric, and `share`."""
    connect_timeout_s: Annotated[
        float, Option("Longest time to open a connection.", values.positive_time, "TIME", "5s")
    ] = 5.0
    idle_timeout_s: Annotated[
        float, Option("Longest silence of a stream.", values.positive_time, "TIME", "30s")
    ] = 30.0
    deadline_s: Annotated[
        float, Option("Longest time for one answer.", values.positive_time, "TIME", "600s")
    ] = 600.0
    drain_s: Annotated[
        float, Option("Longest wait for measured turns after a level's window.", seconds, "TIME", "60s")
    ] = 60.0
    retry: Annotated[
        int,
        Option(
            "Further attempts at a turn that got no connection, lost it before the answer, or got 429 or "
            "5xx; each is recorded.",
            values.whole,
            "N",
            "0",
        ),
    ] = 0
    abort_errors: Annotated[
        float,
        Option(
            "End the run when this share of turns got no whole answer (1: never).",
            values.number(0, 1),
            "SHARE",
            "1",
        ),
    ] = 1.0
    clock: Annotated[
        Literal["auto", "wire", "kernel", "user"],
        Option(
            "Who says when bytes arrived: wire (packets), kernel (reads), user, or auto: the best there is.",
            values.clock,
            "CLOCK",
            "auto",
        ),
    ] = "auto"
    seed: Annotated[int, Option("Seed of the plan.", values.whole, "N", "0")] = 0
    salt: Annotated[
        str | None,
        Option(
            "Keeps prompts of different runs apart in prefix caches; default: random. none: as they are.",
            values.salt,
            "HEX|none",
        ),
    ] = None
    cache: Annotated[
        str,
        Option(
            "What of a prompt the server may know already: cold, nothing; warm, whatever was asked before, "
            "also in an earlier run or level; shared:SHARE, so much of each is the same for everybody.",
            values.cache,
            "HOW",
            "cold",
        ),
    ] = "cold"
    """cold | warm | shared:SHARE."""
    run_dir: Annotated[
        str | None, Option("Where the run goes; default: runs/TIME-SCENARIO.", values.new_folder, "DIR")
    ] = None
    labels: Annotated[
        dict[str, str],
        Option(
            "K=V kept in run.json; may be given again.", values.pair("="), "K=V", repeats=True, name="label"
        ),
    ] = {}
    no_analysis: Annotated[bool, Option("Leave the analysis for later: turnbench report RUN.")] = False
    keep_text: Annotated[bool, Option("Keep the text of replies in the records.")] = False
    headers: Annotated[
        dict[str, str],
        Option(
            "K:V sent with every request; K:$VAR takes the value from the environment.",
            values.header,
            "K:V",
            repeats=True,
            name="header",
        ),
    ] = {}
    """As typed: a value `$VAR` is taken from each worker's own environment."""
    insecure: Annotated[bool, Option("Do not check the server's certificate; stamped on the report.")] = False
    ca: Annotated[
        str | None,
        Option(
            "Certificates (PEM) of authorities to trust beside the system's.",
            values.authorities,
            "FILE",
            excludes={"--insecure": "checks no certificate at all; leave one of the two out"},
        ),
    ] = None
    cert: Annotated[
        str | None,
        Option("Client certificate with its key (PEM), if asked for.", values.own_certificate, "FILE"),
    ] = None
    trust_env: Annotated[bool, Option("Use proxy settings of the environment.")] = False
    api_key_env: Annotated[
        str,
        Option("Environment variable that holds the API key.", values.variable, "NAME", "OPENAI_API_KEY"),
    ] = "OPENAI_API_KEY"
    gpu_metrics: Annotated[
        str | None,
        Option("DCGM exporter (or serve gpu-metrics) beside the server.", values.page_url, "URL"),
    ] = None
    metrics_port: Annotated[
        values.ListenAt | None,
        Option(
            "Serve the run's live numbers at /metrics for Prometheus; to this machine alone, unless an "
            "address is given too.",
            values.listen_at,
            "[ADDRESS:]PORT",
            at_start=True,
        ),
    ] = None
    otlp: Annotated[
        str | None,
        Option(
            "When the run has ended, send a span a turn and histograms to this OpenTelemetry collector (OTLP "
            "over HTTP), such as http://127.0.0.1:4318.",
            values.otlp_collector,
            "URL",
        ),
    ] = None
    gpu_price: Annotated[
        float | None,
        Option(
            "Price of the server's GPUs for an hour, for the cost of answers.", values.number(0, 1e6), "N"
        ),
    ] = None
    server_facts: Annotated[
        str | None, Option("JSON or YAML file that describes a remote server.", str, "FILE")
    ] = None

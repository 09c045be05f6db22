"""A run that a real Prometheus scrapes: its page, the dashboard's queries, and that they say what the records
say.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.emulators import emulator
from tests.tools.conftest import free_port, page_of
from turnbench.run_directory import RunDirectory, read_run

pytestmark = pytest.mark.tools
ROOT = Path(__file__).parents[2]
DASHBOARD: dict[str, Any] = json.loads((ROOT / "deploy/grafana/turnbench.json").read_text())
QUERIES = [
    (panel["title"], target["expr"], target["instant"])
    for panel in DASHBOARD["panels"]
    for target in panel["targets"]
]
WITHOUT_ANSWER = ("turnbench_level_arrivals_per_second", 'emulated="false"', "vllm:time_to_first_token")
"""Of this run, which has people and an emulator that keeps no histogram."""


@dataclass
class Scraped:
    """A Prometheus that has seen a whole run."""

    url: str
    run: RunDirectory
    page: str
    from_s: float
    until_s: float

    def ask(self, path: str, **words: str) -> Any:
        asked = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(words)}"
        with urllib.request.urlopen(asked, timeout=10) as answer:
            said = json.load(answer)
        assert said["status"] == "success", said
        return said["data"]

    def series(self, expression: str, instant: bool = True) -> list[dict[str, Any]]:
        """What it answers at the end of the run, or over all of it."""
        if instant:
            return list(self.ask("query", query=expression, time=str(self.until_s))["result"])
        times = {"start": str(self.from_s), "end": str(self.until_s), "step": "1"}
        return list(self.ask("query_range", query=expression, **times)["result"])


@pytest.fixture(scope="session")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scraped]:
    program = shutil.which("prometheus")
    assert program, "Debian's package prometheus is needed: make test-tools installs it"
    home = tmp_path_factory.mktemp("prometheus")
    ours, theirs = free_port(), free_port()
    with emulator() as server:
        config = (ROOT / "deploy/prometheus.yml").read_text().replace("127.0.0.1:9650", f"127.0.0.1:{ours}")
        config = config.replace("127.0.0.1:8000", server.removeprefix("http://")).replace("2s", "1s")
        (home / "prometheus.yml").write_text(config)
        prometheus = subprocess.Popen(
            [program, f"--config.file={home / 'prometheus.yml'}", f"--storage.tsdb.path={home / 'data'}",
             f"--web.listen-address=127.0.0.1:{theirs}", "--log.level=error"]
        )  # fmt: skip
        began_s = time.time()
        run = subprocess.Popen(
            [sys.executable, "-m", "turnbench", "run", "-H", server, "--levels", "2,3", "--hold", "6s",
             "--warmup", "1s", "--max-tokens", "40", "--metrics-port", str(ours),
             "--run-dir", str(home / "run")],
            env={"PATH": "/usr/bin:/bin", "OPENAI_API_KEY": "sk-never-to-be-seen-4711"},
        )  # fmt: skip
        page = ""
        while run.poll() is None:
            page = page_of(f"http://127.0.0.1:{ours}/metrics") or page
            time.sleep(0.3)
        try:
            yield Scraped(
                f"http://127.0.0.1:{theirs}", read_run(home / "run"), page, began_s, time.time() - 1
            )
        finally:
            prometheus.terminate()
            prometheus.wait(timeout=20)


def test_the_page_keeps_to_prometheus_rules_and_shows_no_key(scraped: Scraped) -> None:
    promtool = shutil.which("promtool")
    assert promtool, "promtool comes with Debian's prometheus"
    said = subprocess.run([promtool, "check", "metrics"], input=scraped.page, text=True, capture_output=True)
    assert (said.returncode, said.stdout + said.stderr) == (0, "")
    assert "4711" not in scraped.page


def test_its_counters_are_the_records(scraped: Scraped) -> None:
    records = list(scraped.run.turns())
    for expression, count in {
        "sum(turnbench_turns_total)": len(records),
        'sum(turnbench_turns_total{outcome="ok"})': sum(r.outcome == "ok" for r in records),
        "sum(turnbench_output_tokens_total)": sum(r.output_tokens or len(r.event_us) for r in records),
        "sum(turnbench_time_to_first_token_seconds_count)": sum(bool(r.event_us) for r in records),
    }.items():
        (found,) = scraped.series(f"max_over_time({expression}[30s:1s])")
        assert float(found["value"][1]) == count, expression
    (ttft,) = scraped.series(
        'last_over_time(turnbench_time_to_first_token_seconds_sum{task="chat"}[30s]) / '
        'last_over_time(turnbench_time_to_first_token_seconds_count{task="chat"}[30s])'
    )
    first_us = [r.event_us[0] for r in records if r.event_us]
    assert float(ttft["value"][1]) == pytest.approx(sum(first_us) / len(first_us) / 1e6)


@pytest.mark.parametrize(
    ("title", "expression", "instant"), QUERIES, ids=[f"{t}: {e[:40]}" for t, e, _ in QUERIES]
)
def test_prometheus_answers_each_query_of_the_dashboard(
    scraped: Scraped, title: str, expression: str, instant: bool
) -> None:
    asked = expression.replace("$__rate_interval", "4s").replace("$job", ".*").replace("$task", ".*")
    assert "$" not in asked
    found = scraped.series(f"last_over_time({asked}[30s:1s])" if instant else asked, instant)
    if any(part in expression for part in WITHOUT_ANSWER):
        assert found == []
    else:
        values = [float(value) for each in found for _, value in each.get("values", [each.get("value")])]
        assert any(value == value for value in values), f"{title}: {found}"


def test_the_choices_of_the_dashboard_are_answered(scraped: Scraped) -> None:
    for variable in DASHBOARD["templating"]["list"][1:]:  # after the choice of a Prometheus
        if found := re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]["query"]):
            metric, label = found.groups()
            assert scraped.ask(f"label/{label}/values", **{"match[]": metric}), variable["name"]

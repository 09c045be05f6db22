"""The web UI over HTTP: what its start form sends starts a run, and what is wrong is shown in it."""

from __future__ import annotations

import json
import re
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from turnbench.outcomes import NOT_MEASURED


class Ui:
    """A browser's view of a running `locust -f loadgen/`."""

    def __init__(self, load: Any, url: str) -> None:
        self.load = load
        self.url = url

    def get(self, path: str) -> str:
        with urllib.request.urlopen(self.url + path, timeout=10) as page:
            return str(page.read().decode())

    def answers(self) -> bool:
        try:
            return bool(self.get("/"))
        except OSError:
            return False

    def start(self, **form: str) -> dict[str, Any]:
        data = urllib.parse.urlencode(form).encode()
        with urllib.request.urlopen(self.url + "/swarm", data, timeout=30) as page:
            return dict(json.loads(page.read()))

    def form_defaults(self) -> dict[str, str]:
        """What the start form sends if nobody changes a thing."""
        template = re.search(r"window\.templateArgs\s*=\s*(\{.*?\})\s*(?:;|</script>)", self.get("/"), re.S)
        assert template, "the page holds no template arguments"
        options = json.loads(template.group(1))["extra_options"]
        return {
            name: "true" if option["default_value"] is True else str(option["default_value"] or "")
            for name, option in options.items()
        }

    def stop(self) -> None:
        urllib.request.urlopen(self.url + "/stop", b"", timeout=30).close()


@pytest.fixture
def ui(locust: Any, tools: Any, tmp_path: Path) -> Callable[[str], Ui]:
    def start(host: str) -> Ui:
        port = tools.free_port()
        load = locust("--web-port", str(port), "-H", host, "--warmup", "200ms", where=tmp_path / "web")
        page = Ui(load, f"http://127.0.0.1:{port}")
        tools.wait_until(page.answers, "the web page")
        return page

    return start


def finished(folder: Path) -> Callable[[], bool]:
    def look() -> bool:
        path = folder / "summary.json"
        return path.exists() and json.loads((folder / "run.json").read_text())["exit_code"] is not None

    return look


@pytest.mark.slow
def test_two_starts_of_the_form_make_two_analysed_run_directories(
    ui: Any, server: Any, tools: Any, tmp_path: Path
) -> None:
    at = server()
    page = ui(at.url)
    defaults = page.form_defaults()
    assert defaults["scenario"] == "chat"
    first = page.start(user_count="2", spawn_rate="2", host=at.url, **defaults)
    assert first["success"] is True, first
    page.load.where = tmp_path / "web"
    page.load.wait_for_turns(3)
    page.stop()
    tools.wait_until(finished(tmp_path / "web"), "the first run's analysis")
    changed = defaults | {"scenario": "choose", "max_tokens": "5", "exact_tokens": "true", "seed": "9"}
    second = page.start(user_count="3", spawn_rate="3", host=at.url, **changed)
    assert second["success"] is True, second
    page.load.where = tmp_path / "web-2"
    page.load.wait_for_turns(3)
    page.stop()
    tools.wait_until(finished(tmp_path / "web-2"), "the second run's analysis")
    one, two = (json.loads((tmp_path / name / "run.json").read_text()) for name in ("web", "web-2"))
    assert (one["status"], two["status"]) == ("finished", "finished")
    assert (one["settings"]["scenario"], two["settings"]["scenario"]) == ("chat", "choose")
    assert (one["levels"][0]["users"], two["levels"][0]["users"]) == (2, 3)
    assert two["seed"] == 9
    turns = [turn for turn in page.load.run().turns() if turn.outcome == "ok"]
    assert turns
    assert all(turn.output_tokens == 5 for turn in turns)


@pytest.mark.slow
def test_levels_in_the_form_step_by_themselves_and_end_the_run(
    ui: Any, server: Any, tools: Any, tmp_path: Path
) -> None:
    at = server()
    page = ui(at.url)
    form = page.form_defaults() | {"levels": "1,3", "hold": "1s", "scenario": "choose"}
    assert page.start(user_count="1", spawn_rate="1", host=at.url, **form)["success"] is True
    tools.wait_until(finished(tmp_path / "web"), "the run's analysis", 40)
    manifest = json.loads((tmp_path / "web" / "run.json").read_text())
    assert [level["users"] for level in manifest["levels"]] == [1, 3]
    assert manifest["status"] == "finished"


@pytest.mark.slow
def test_the_page_shows_a_run_s_numbers_and_locust_s_table_has_each_turn_once(
    ui: Any, server: Any, tools: Any, tmp_path: Path
) -> None:
    at = server()
    page = ui(at.url)

    def seen() -> dict[str, Any]:
        return dict(json.loads(page.get("/turnbench/live")))

    assert seen()["run"] is None
    form = page.form_defaults() | {"scenario": "work", "think_time": "none"}
    page.start(user_count="3", spawn_rate="3", host=at.url, **form)
    tools.wait_until(lambda: seen().get("measured") and seen()["tasks"], "measured turns")
    tools.wait_until(lambda: (seen()["answer"] or {}).get("text"), "the text of an answer")
    now = seen()
    assert now["emulated"]
    assert {row["task"] for row in now["tasks"]} <= {"chat", "extract", "summarise"}
    assert all(50 <= row["ttft_p50_ms"] <= row["ttg_p50_ms"] for row in now["tasks"])
    assert now["outcomes"].keys() == {"ok"}
    page.stop()
    tools.wait_until(finished(tmp_path / "web"), "the analysis")
    page.load.where = tmp_path / "web"
    rows = json.loads(page.get("/stats/requests"))["stats"]
    assert {row["method"] for row in rows} == {"TTG"}
    ended = [turn for turn in page.load.run().turns() if turn.outcome not in NOT_MEASURED]
    assert sum(row["num_requests"] for row in rows) == len(ended)
    assert seen()["report"]
    assert "<title>" in page.get("/turnbench/report")


@pytest.mark.slow
def test_the_start_form_gets_scenarios_dialects_and_the_models_of_a_host(ui: Any, server: Any) -> None:
    at = server()
    page = ui(at.url)
    assert "./turnbench/start-form.js" in page.get("/")
    choices = json.loads(page.get("/turnbench/choices"))
    work = next(each for each in choices["scenarios"] if each["name"] == "work")
    assert work["tasks"] == ["chat", "extract", "summarise"]
    assert "messages" in choices["dialects"]
    known = json.loads(page.get("/turnbench/models?host=" + urllib.parse.quote(at.url)))
    assert len(known["models"]) == 1
    nobody = json.loads(page.get("/turnbench/models?host=http://127.0.0.1:1"))
    assert nobody["models"] == []
    assert "127.0.0.1" in nobody["problem"]


@pytest.mark.slow
def test_a_run_can_be_ended_after_the_level_under_way(
    ui: Any, server: Any, tools: Any, tmp_path: Path
) -> None:
    at = server()
    page = ui(at.url)
    form = page.form_defaults() | {"levels": "1,2,3", "hold": "1s", "scenario": "choose"}
    page.start(user_count="1", spawn_rate="1", host=at.url, **form)
    tools.wait_until(lambda: json.loads(page.get("/turnbench/live"))["level"], "the first level")
    with urllib.request.urlopen(page.url + "/turnbench/end-after-level", b"", timeout=10) as answer:
        assert json.loads(answer.read()) == {"accepted": True}
    tools.wait_until(finished(tmp_path / "web"), "the run's analysis", 40)
    manifest = json.loads((tmp_path / "web" / "run.json").read_text())
    assert [level["users"] for level in manifest["levels"]] == [1]
    assert manifest["status"] == "finished"


def test_a_form_with_mistakes_is_refused_with_all_of_them(ui: Any, server: Any, tmp_path: Path) -> None:
    at = server()
    page = ui(at.url)
    form = page.form_defaults() | {"hold": "soon", "scenario": "chooze", "top_p": "7"}
    answer = page.start(user_count="1", spawn_rate="1", host=at.url, **form)
    assert answer["success"] is False
    for part in ("--hold", "choose", "--top-p"):
        assert part in answer["message"]
    form = page.form_defaults() | {"user_count": "1", "spawn_rate": "1", "host": at.url}
    for name, wrong in (("user_count", "x"), ("user_count", "0"), ("spawn_rate", "abc")):
        answer = page.start(**form | {name: wrong})
        assert answer["success"] is False
        assert wrong in answer["message"]
    assert not (tmp_path / "web").exists()
    assert at.truth() == {}


@pytest.mark.slow
def test_ctrl_c_in_the_web_ui_ends_the_run_properly_and_the_process_with_0(
    ui: Any, server: Any, tmp_path: Path
) -> None:
    import signal

    at = server()
    page = ui(at.url)
    page.start(user_count="2", spawn_rate="2", host=at.url, **page.form_defaults())
    page.load.where = tmp_path / "web"
    page.load.wait_for_turns(2)
    page.load.process.send_signal(signal.SIGINT)
    assert page.load.end() == 0, page.load.said
    manifest = json.loads((tmp_path / "web" / "run.json").read_text())
    assert manifest["status"] == "interrupted"
    assert (tmp_path / "web" / "summary.json").exists()


def test_nobody_starts_a_run_without_the_password(
    locust: Any, server: Any, tools: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TURNBENCH_WEB_PASSWORD", "open sesame")
    at, port = server(), tools.free_port()
    load = locust("--web-login", "--web-port", str(port), "-H", at.url, where=tmp_path / "web")
    page = Ui(load, f"http://127.0.0.1:{port}")
    tools.wait_until(page.answers, "the login page")
    form = {"user_count": "1", "spawn_rate": "1", "host": at.url, "scenario": "choose"}

    def posted(path: str, opener: urllib.request.OpenerDirector, **fields: str) -> str:
        with opener.open(page.url + path, urllib.parse.urlencode(fields).encode(), timeout=30) as answer:
            return str(answer.geturl())

    stranger, friend = (urllib.request.build_opener(urllib.request.HTTPCookieProcessor()) for _ in range(2))
    assert "/login" in posted("/turnbench-login", stranger, password="guess")
    assert "/login" in posted("/swarm", stranger, **form)
    with stranger.open(page.url + "/turnbench/live", timeout=30) as answer:
        assert "/login" in answer.geturl()
    assert not (tmp_path / "web").exists()
    assert posted("/turnbench-login", friend, password="open sesame") == page.url + "/"
    assert posted("/swarm", friend, **form) == page.url + "/swarm"
    tools.wait_until((tmp_path / "web").exists, "the run directory")


@pytest.mark.slow
def test_a_web_login_without_a_password_is_refused(locust: Any, monkeypatch: Any) -> None:
    monkeypatch.delenv("TURNBENCH_WEB_PASSWORD", raising=False)
    load = locust("--web-login", "--web-port", "0")
    assert load.end() == 2
    assert "TURNBENCH_WEB_PASSWORD" in load.said

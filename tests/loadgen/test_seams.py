"""A new option is one field, a new shape of load one class: one of each is added here, and nothing else."""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
import pytest

from loadgen.options._command_line import (
    OptionErrors,
    add_options,
    options_page,
    options_text,
    settings_from,
)
from loadgen.options._headers import recorded
from loadgen.options._option import Option, declared
from loadgen.options._settings import Settings
from loadgen.options._shape import Shape
from loadgen.options._shapes import SHAPES, AnyShape, shape_of
from turnbench.units import seconds

ROOT = Path(__file__).parents[2]
HOST = "http://127.0.0.1:8000"


class ToySettings(Settings, kw_only=True, frozen=True):
    """Settings with two more options."""

    nap_s: Annotated[
        float,
        Option("How long all nap.", seconds, "TIME", "2s", excludes={"--once": "nobody naps; drop --nap"}),
    ] = 2.0
    dreamy: Annotated[bool, Option("Naps come with dreams.")] = False


class ToyParser(argparse.ArgumentParser):
    """argparse with the extra words that Locust's parser takes."""

    env_vars: dict[str, str]

    def add_argument(self, *flags: str, **words: Any) -> Any:  # type: ignore[override]
        words.pop("include_in_web_ui", None)
        self.env_vars = getattr(self, "env_vars", {}) | {flags[0]: words.pop("env_var", None)}
        return super().add_argument(*flags, **words)


def typed(*words: str) -> dict[str, Any]:
    parser = ToyParser()
    add_options(parser, ToySettings)
    return {"host": HOST} | vars(parser.parse_args(words))


def test_a_new_option_is_on_the_command_line_in_the_environment_and_in_the_form() -> None:
    parser = ToyParser()
    add_options(parser, ToySettings)
    assert parser.env_vars["--nap"] == "TURNBENCH_NAP"
    form_defaults = vars(parser.parse_args([]))  # Locust's form shows what was parsed
    assert (form_defaults["nap"], form_defaults["dreamy"]) == ("2s", False)


def test_a_new_option_becomes_a_setting_and_is_recorded() -> None:
    found = settings_from(typed("--nap", "250ms", "--dreamy"), ToySettings)
    assert isinstance(found, ToySettings)
    assert (found.nap_s, found.dreamy) == (0.25, True)
    assert (recorded(found)["nap_s"], recorded(found)["dreamy"]) == (0.25, True)


def test_a_new_option_is_checked_with_all_others() -> None:
    with pytest.raises(OptionErrors) as caught:
        settings_from(typed("--nap", "long", "--hold", "x", "--levels", "1", "--once"), ToySettings)
    assert [problem.partition(":")[0] for problem in caught.value.problems][:2] == ["--hold", "--nap"]
    assert "--nap and --once exclude each other: nobody naps; drop --nap" in caught.value.problems


def test_a_new_option_is_in_help_and_docs() -> None:
    assert "--nap TIME" in options_text("options:", ToySettings)
    assert "| `--nap TIME` | `2s` | How long all nap. | `--once` |" in options_page(ToySettings)
    assert "--nap" not in options_page()


def test_the_default_of_every_option_is_what_its_text_says() -> None:
    for each in declared(Settings):
        if each.option.default:
            assert each.read(each.option.default, []) == each.default, each.flag


# --- shapes ---


class Pulse(Shape, frozen=True, kw_only=True, tag="pulse"):
    """One person, then many, then one again."""

    many: int = 3

    @classmethod
    def is_asked(cls, settings: Settings) -> bool:
        return settings.model == "pulsing"

    @classmethod
    def of(cls, settings: Settings) -> Pulse:
        return cls(warmup_s=0.0, hold_s=0.05)

    def loads(self) -> list[Any]:
        from loadgen.options._shape import Load

        return [Load(1), Load(self.many), Load(1)]


def test_a_new_shape_is_parsed_from_the_options() -> None:
    asked = settings_from(typed("--model", "pulsing"), shapes=(Pulse, *SHAPES))
    assert isinstance(shape_of(asked, (Pulse, *SHAPES)), Pulse)
    assert shape_of(asked) != shape_of(asked, (Pulse, *SHAPES))


_PLAY = """
import locust, gevent, json, sys
from pathlib import Path
from types import SimpleNamespace as Some
import msgspec
from loadgen.control._controller import RunController
from loadgen.control._levels import play_run
from loadgen.options._prepare import Prepared
from loadgen.options._endpoint import Endpoint
from loadgen.options._settings import Settings
from tests.loadgen.test_seams import Pulse
import scenarios

class Runner:
    '''Locust's runner and an engine in one, which answers every message at once.'''
    state, user_count, target_user_count = "running", 0, 0
    def __init__(self):
        self.seen = []
    def register_message(self, kind, listener):
        self.listener = listener
    def start(self, users, rate):
        self.user_count = self.target_user_count = users
        self.seen.append(users)
    def send_message(self, kind, message, client_id):
        answers = {"job": {"op": "ready"}, "ping": {"op": "pong", "here_ns": 0}, "close": {"op": "closed"},
                   "cut": {"op": "was_cut", "next": 0}, "finish": {"op": "done", "batches": 0, "records": 0}}
        if message["op"] in answers:
            self.listener(None, Some(node_id="local", data=answers[message["op"]] | {"run": "pulse"}))

runner = Runner()
controller = RunController(Some(runner=runner))
settings = Settings(host="http://127.0.0.1:1", run_dir=sys.argv[1])
prepared = Prepared(settings, Pulse.of(settings), scenarios.load("choose"), Endpoint(url=""), "m", {}, {})
run = controller.open_run(prepared, again=False)
with gevent.Timeout(30):
    play_run(controller, run)
    controller.close_run(run)
print(json.dumps(runner.seen))
"""


def test_a_new_shape_is_played_through_the_control_room(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _PLAY, str(tmp_path / "pulse")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [1, 3, 1]
    manifest = json.loads((tmp_path / "pulse" / "run.json").read_text())
    assert (manifest["status"], manifest["findings"]) == ("finished", [])
    assert [level["users"] for level in manifest["levels"]] == [1, 3, 1]
    assert "level 2 of 3: 3 people" in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        {},
        {"levels": "1,4"},
        {"once": "on"},
        {"arrival_rate": "3"},
        {"arrival_rate": "3,4"},
        {"arrival_rate": "3..9", "turnbench_run_time_s": "60"},
        {"replay_speed": "2"},
        {"find_capacity": "yes"},
        {"find_capacity": "1", "arrival_rate": "3"},
    ],
    ids=str,
)
def test_every_shape_is_told_apart_and_survives_a_message(words: dict[str, str]) -> None:
    asked = settings_from({"host": HOST} | words)
    shape = shape_of(asked)
    again: Any = msgspec.msgpack.decode(msgspec.msgpack.encode(shape), type=AnyShape)
    assert again == shape
    assert asked.think_time == shape.default_think_time


def flags(found: Sequence[str]) -> list[str]:
    return [problem.split(":")[0] for problem in found]


@pytest.mark.parametrize("word", ["off", "false", "no", "0", "OFF", "", None, False])
def test_a_switch_that_is_off_is_off_however_it_is_said(word: Any) -> None:
    found = settings_from({"host": HOST, "once": word, "turnbench_run_time_s": "9s"})
    assert not found.once


@pytest.mark.parametrize("word", ["on", "true", "Yes", "1", True])
def test_a_switch_that_is_on_is_on_however_it_is_said(word: Any) -> None:
    assert settings_from({"host": HOST, "insecure": word}).insecure


def test_a_switch_that_is_neither_on_nor_off_is_an_error_that_names_it() -> None:
    with pytest.raises(OptionErrors) as caught:
        settings_from({"host": HOST, "insecure": "maybe", "once": "offf"})
    assert flags(caught.value.problems) == ["--once", "--insecure"]
    assert "'maybe' is neither on nor off" in caught.value.problems[1]


def test_the_page_of_options_is_what_the_fields_say() -> None:
    said = (ROOT / "docs" / "options.md").read_text(encoding="utf-8")
    assert said == options_page(), "write it again: turnbench schema --docs docs"


def test_only_shapes_and_the_record_ask_the_options_how_the_load_comes() -> None:
    asks = re.compile(
        r"settings\.(levels|users|once|find_capacity|arrival_rate|replay_speed|hold_s|run_time_s)\b"
    )
    may = {"_shapes.py", "_shape.py", "_headers.py"}
    files = [path for room in ("loadgen", "turnbench") for path in (ROOT / room).rglob("*.py")]
    assert files
    found = [path for path in files if path.name not in may and asks.search(path.read_text(encoding="utf-8"))]
    assert found == []

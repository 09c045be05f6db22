"""Plan files of a sweep: all mistakes at once, none by a traceback."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from turnbench.formats import BACKENDS, PRECISIONS
from turnbench.sweep.plan import (
    PLAN_FORMAT,
    Overrides,
    PlanError,
    SweepPlan,
    overridden,
    plan_of_sweep,
    read_plan,
)
from turnbench.sweep.runs import runs_of

ROOT = Path(__file__).parents[3]
GOOD: dict[str, Any] = {"format": PLAN_FORMAT, "name": "mine", "models": ["yi-6b", "llama-2-7b"]}
Problems = Callable[..., list[str]]


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str | bytes], str]:
    """Write a plan file; returns its path."""

    def written(text: str | bytes) -> str:
        path = tmp_path / "plan.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    return written


@pytest.fixture
def problems(write: Callable[[str], str]) -> Problems:
    """The problems of a good plan with these changes."""

    def found(**changes: Any) -> list[str]:
        with pytest.raises(PlanError) as caught:
            read_plan(write(yaml.safe_dump(GOOD | changes)))
        return caught.value.problems

    return found


@pytest.mark.parametrize("path", sorted((ROOT / "sweeps").glob("*.yaml")), ids=lambda path: path.name)
def test_the_projects_own_plans_are_sound(path: Path) -> None:
    assert read_plan(str(path)).models
    assert read_plan(path.stem) == read_plan(str(path)), "a bundled plan is found by its name"


def test_a_short_plan_gets_the_defaults(write: Callable[[str], str]) -> None:
    plan = read_plan(write(yaml.safe_dump(GOOD)))
    assert plan == SweepPlan(format=PLAN_FORMAT, name="mine", models=["yi-6b", "llama-2-7b"])
    assert (plan.backend, plan.hardware, plan.parallel, plan.run) == ("emulator", "a100-40gb", 1, {})


def test_options_of_the_runs_are_kept_as_typed(write: Callable[[str], str]) -> None:
    """No YAML surprise: `no` and 12:30 and 1,4 stay what was typed."""
    text = yaml.safe_dump(GOOD) + "parallel: 3\nrun:\n  levels: 1,4\n  hold: 1m\n  salt: 012\n  once: no\n"
    plan = read_plan(write(text))
    assert (plan.parallel, plan.run) == (3, {"levels": "1,4", "hold": "1m", "salt": "012", "once": "no"})


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        ({"modles": ["x"]}, "unknown key 'modles'"),
        ({"format": "other/1"}, PLAN_FORMAT),
        ({"name": ""}, "'name' has no value"),
        ({"name": ["x"]}, "'name' is a list"),
        ({"models": []}, "'models' has 0 entries; it must have at least 1"),
        ({"models": "yi-6b"}, "'models' is 'yi-6b'; write a list"),
        ({"models": [["yi-6b"]]}, "'model 1' is a list; write a text"),
        ({"models": ["a", "a"]}, "twice"),
        ({"models": ["a b", "a-b"]}, "twice"),
        ({"backend": "magic"}, BACKENDS[0]),
        ({"backend": ["emulator"]}, BACKENDS[0]),
        ({"precisions": "fp16"}, "write a list"),
        ({"precisions": ["fp16", ["int8"]]}, PRECISIONS[1]),
        ({"precisions": ["fp16", "fp16"]}, "one twice"),
        ({"levels": "1"}, "write a list"),
        ({"levels": ["0"]}, "at least 1"),
        ({"levels": ["1", "01"]}, "one twice"),
        ({"levels": ["1"], "run": {"levels": "4"}}, "keep one"),
        ({"levels": ["1"], "run": {"users": "4"}}, "keep one"),
        ({"variants": ["exact"]}, "'variants' is a list; write a mapping"),
        (
            {"variants": {"a": {"exat-tokens": "on"}}},
            "a: unknown option 'exat-tokens'; did you mean 'exact-",
        ),
        ({"variants": {"a": {"scenario": "chat"}}}, "lists of their own"),
        ({"variants": {"a b": {}, "a-b": {}}}, "one twice"),
        ({"weights": "heavy"}, "'real' or 'dummy'"),
        ({"args": ["--x"]}, "'args' is a list; write a text"),
        ({"repeats": "99999"}, "'repeats' is '99999'; it must be at most 9,999"),
        ({"hardware": ["a100"]}, "'hardware' is a list; write a text"),
        ({"parallel": "0"}, "at least 1"),
        ({"parallel": "²"}, "a whole number"),
        ({"parallel": "9" * 5000}, "a smaller number"),
        ({"parallel": "many"}, "a whole number"),
        ({"parallel": "2", "backend": "vllm"}, "for emulators"),
        ({"run": ["levels"]}, "'run' is a list; write a mapping"),
        ({"run": {"levles": "1"}}, "unknown option 'levles'"),
        ({"run": {"model": "x"}}, "unknown option 'model'"),
        ({"run": {"levels": [1, 4]}}, "'levels' is a list; write a text"),
        ({"run": {"body": {"top_k": 3}}}, "'body' is a mapping; write a text"),
        ({"run": {"once": "maybe"}}, "run: once is 'maybe'; write on or off"),
        ({"endpoints": {"a": "http://x"}}, "exclude each other"),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, dict) else "",
)
def test_a_mistake_is_told_with_the_file_and_a_hint(
    problems: Problems, change: dict[str, Any], hint: str
) -> None:
    (problem,) = problems(**change)
    assert re.search(r"plan\.yaml:\d+: ", problem)
    assert hint in problem
    assert "\n" not in problem


def test_all_mistakes_are_told_at_once(problems: Problems) -> None:
    assert (
        len(problems(format="x", name="", models=[], backend="y", parallel="z", run={"q": "1"}, huh="1")) == 7
    )


@pytest.mark.parametrize(
    "text", ["", "- a", "just words", "a: [", "a: b: c", b"\xff\xfe\x00", "[" * 2_000], ids=repr
)
def test_a_file_that_is_no_mapping_is_told_in_one_line(write: Callable[[str], str], text: str) -> None:
    with pytest.raises(PlanError) as caught:
        read_plan(write(text))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_a_key_that_is_a_list_is_reported_beside_what_is_missing(write: Callable[[str], str]) -> None:
    with pytest.raises(PlanError) as caught:
        read_plan(write("? [a]\n: b"))
    assert any("stands where a key should" in problem for problem in caught.value.problems)
    assert all("plan.yaml:1: " in problem and "\n" not in problem for problem in caught.value.problems)


def test_a_missing_file_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="No such file"):
        read_plan(str(tmp_path / "none.yaml"))


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
)


@given(
    st.dictionaries(
        st.sampled_from(
            [
                "name",
                "models",
                "backend",
                "hardware",
                "parallel",
                "run",
                "x",
                "precisions",
                "levels",
                "variants",
                "weights",
                "args",
                "scenarios",
                "repeats",
                "endpoints",
            ]
        ),
        values,
    )
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_any_plan_is_read_or_refused(write: Callable[[str], str], changes: dict[str, Any]) -> None:
    try:
        plan = read_plan(write(yaml.safe_dump(GOOD | changes)))
    except PlanError:
        return
    assert plan.parallel >= 1
    assert all(
        isinstance(value, str) for value in [plan.name, plan.hardware, *plan.names, *plan.run.values()]
    )
    assert plan_of_sweep(json.loads(json.dumps(plan.model_dump())), "sweep.json") == plan


def test_a_plan_comes_back_whole_from_its_sweep(write: Callable[[str], str]) -> None:
    axes = {"precisions": ["fp16", "int8"], "levels": ["1", "8"], "variants": {"a": {}, "b": {"once": "on"}}}
    plan = read_plan(write(yaml.safe_dump(GOOD | axes | {"seed": "7", "args": "--max-num-seqs 4"})))
    assert (plan.precisions, plan.levels, plan.variants["b"]) == (
        ["fp16", "int8"],
        [1, 8],
        {"once": "on"},
    )
    assert plan_of_sweep(json.loads(json.dumps(plan.model_dump())), "sweep.json") == plan


def test_the_plan_of_a_sweep_of_the_version_before_can_be_resumed() -> None:
    (file,) = (ROOT / "tests" / "fixtures").rglob("sweep.json")
    plan = plan_of_sweep(json.loads(file.read_bytes())["plan"], "sweep.json")
    written = {cell["dir"] for cell in json.loads(file.read_bytes())["cells"]}
    assert {run.dir for run in runs_of(plan)} == written


def test_a_sweep_whose_plan_was_spoilt_is_told(write: Callable[[str], str]) -> None:
    plan = read_plan(write(yaml.safe_dump(GOOD))).model_dump()
    with pytest.raises(PlanError, match="'backend' is 'magic'"):
        plan_of_sweep(plan | {"backend": "magic"}, "sweep.json")


PAPER = SweepPlan(
    format=PLAN_FORMAT, name="paper", models=["a", "b"], parallel=16, scenarios=["choose", "explain:100"],
    levels=[1, 16, 32], run={"once": "on"},
)  # fmt: skip


def test_few_questions_leave_out_what_they_cannot_fill_and_say_so() -> None:
    plan, (said,) = overridden(PAPER, Overrides(questions=24))
    assert (plan.scenarios, plan.levels) == (["choose:24", "explain:24"], [1, 16])
    assert said == "not played: levels 32, which 24 questions can't fill"


def test_a_real_backend_plays_one_run_at_a_time() -> None:
    plan, (said,) = overridden(PAPER, Overrides(models=["a"], backend="vllm", precisions=["int8"]))
    assert (plan.models, plan.backend, plan.parallel, plan.precisions) == (["a"], "vllm", 1, ["int8"])
    assert "one run at a time" in said
    with pytest.raises(PlanError, match="real servers would slow each other down"):
        overridden(PAPER, Overrides(backend="vllm", parallel=4))


def test_servers_that_run_already_can_only_be_chosen_among() -> None:
    remote = SweepPlan(
        format=PLAN_FORMAT, name="r", endpoints={"x": "http://127.0.0.1:1", "y": "http://127.0.0.1:2"}
    )
    assert overridden(remote, Overrides(models=["y"]))[0].endpoints == {"y": "http://127.0.0.1:2"}
    with pytest.raises(PlanError) as caught:
        overridden(remote, Overrides(models=["z"], backend="vllm", precisions=["int8"]))
    assert len(caught.value.problems) == 3

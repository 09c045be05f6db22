"""Each file in bad/ and bad_data/ has beside it, in a .txt, every line that must be reported."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import scenarios
from scenarios import ScenarioError

BAD = Path(__file__).parent / "bad"
BAD_DATA = Path(__file__).parent / "bad_data"
HEAD = "format: turnbench-scenario/1\nname: x\n"


FILES = sorted(path for folder in (BAD, BAD_DATA) for path in folder.iterdir() if path.suffix != ".txt")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_mistake_is_reported_at_once_with_its_file_and_line(path, monkeypatch):
    monkeypatch.chdir(path.parent)
    with pytest.raises(ScenarioError) as caught:
        scenarios.load(path.name)
    wanted = path.with_suffix(".txt").read_text(encoding="utf-8")
    assert str(caught.value) + "\n" == wanted
    assert caught.value.problems == wanted.splitlines()


def test_at_least_thirty_bad_files_are_kept():
    assert len(FILES) >= 30


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("papr", "did you mean 'paper'?"),
        ("missing/file.yaml", "no such built-in scenario, nor a readable file"),
        ("nul\0byte", "'nul\\x00byte'"),
        ("\x1b[31mred", "'\\x1b[31mred'"),
        (".", "not readable (a folder, not a file)"),
    ],
)
def test_a_name_that_is_neither_built_in_nor_a_file_is_reported_in_one_line(name, advice):
    with pytest.raises(ScenarioError) as caught:
        scenarios.load(name)
    assert advice in str(caught.value)
    assert len(caught.value.problems) == 1
    assert str(caught.value).isprintable()


def test_a_file_that_is_too_large_is_refused_unread(tmp_path):
    path = tmp_path / "large.yaml"
    path.write_bytes(b"# " + b"x" * 2**21)
    with pytest.raises(ScenarioError, match="a scenario may have 2,097,152"):
        scenarios.load(str(path))


def test_a_file_that_is_not_text_is_refused(tmp_path):
    path = tmp_path / "binary.yaml"
    path.write_bytes(b"\xff\xfe\x00name")
    with pytest.raises(ScenarioError, match="save it as UTF-8"):
        scenarios.load(str(path))


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(tmp_path):
    path = tmp_path / "windows.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + (HEAD + "tasks:\n  - from: chat\n").replace("\n", "\r\n").encode())
    assert scenarios.load(str(path)).tasks == ("chat",)


@pytest.mark.parametrize(
    "text",
    [
        "a: 1\n" * 100_000,
        "".join(f"a{i}: 1\n" for i in range(20_000)),
        HEAD + "tasks:\n" + "- x\n" * 20_000,
        "[" * 1_000_000,
        "? [\n" * 1_000,
    ],
    ids=["one key again and again", "unknown keys", "wrong tasks", "deep", "deep keys"],
)
def test_a_hopeless_file_is_reported_in_a_page_and_not_a_book(text):
    with pytest.raises(ScenarioError) as caught:
        scenarios.parse(text)
    assert len(caught.value.problems) <= 101


def test_reading_stops_where_nothing_more_is_to_be_learned():
    with pytest.raises(ScenarioError) as caught:
        scenarios.parse("a: 1\n" * 10_000)
    assert caught.value.problems[-1] == "... and 400 more; mend these first"


def test_a_problem_stays_on_one_line_whatever_the_file_holds():
    text = HEAD + 'tasks: [{from: chat, "\\n\\e[2J": 1}]\nsets: {"\\n": [{say: "\\e[2J"}]}\n'
    with pytest.raises(ScenarioError) as caught:
        scenarios.parse(text)
    assert all(line.isprintable() for line in caught.value.problems)


def _never_another_error(text):
    problems = None
    try:
        scenarios.parse(text)
    except ScenarioError as error:
        problems = error.problems
    assert problems is None or all(problem.startswith("scenario.yaml:") for problem in problems)


@given(st.text())
def test_any_text_is_a_scenario_or_a_scenario_error(text):
    _never_another_error(text)


_keys = st.sampled_from(
    [
        "format",
        "name",
        "tasks",
        "sets",
        "from",
        "texts",
        "prompt",
        "then",
        "turns",
        "max_tokens",
        "think_s",
        "sampling",
        "slo",
        "stop",
        "once",
        "shared",
        "system",
        "weight",
        "choices",
        "answer",
        "mean",
        "max",
        "median",
        "p90",
        "temperature",
        "ttft_ms",
        "mine",
    ]
)
_scalars = st.one_of(
    st.sampled_from(
        ["turnbench-scenario/1", "chat", "choose", "mine", "questions", "{question}", "nan", "-1"]
    ),
    st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=5),
    st.integers().map(str),
)
_trees = st.recursive(
    _scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_keys, inner, max_size=6),
    max_leaves=30,
)


@given(st.dictionaries(_keys, _trees, max_size=6))
def test_any_tree_of_known_keys_is_a_scenario_or_a_scenario_error(tree):
    _never_another_error(json.dumps(tree, ensure_ascii=False))


@given(st.integers(0, 500), st.text(max_size=3))
def test_a_damaged_scenario_is_a_scenario_or_a_scenario_error(place, patch):
    text = (BAD / "uneven_texts.yaml").read_text(encoding="utf-8")
    _never_another_error(text[:place] + patch + text[place + 1 :])

"""The reader of YAML that people write: typed data without guesses, and every mistake with its line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field

from turnbench.checked_yaml import checked, validated
from turnbench.problems import FileProblems
from turnbench.strict_yaml import DEPTH_MAX, plain, read


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class Lamp(_Strict):
    kind: Literal["lamp"]
    watts: Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Chair(_Strict):
    kind: Literal["chair"]
    legs: Annotated[int, Field(ge=1)]


class Room(_Strict):
    name: Annotated[str, Field(pattern=r"^[a-z]+$")]
    things: list[Annotated[Lamp | Chair, Field(discriminator="kind")]] = []
    light: bool = True


class House(_Strict):
    format: Literal["toy-house/1"]
    rooms: dict[str, Room]
    owners: dict[Annotated[str, Field(pattern=r"^[a-z]+$")], int] = {}


class HouseError(FileProblems):
    pass


def named(data: Any) -> Any:
    if not isinstance(data, dict) or not isinstance(data.get("rooms"), dict):
        return data
    rooms = {k: {"name": k, **v} if isinstance(v, dict) else v for k, v in data["rooms"].items()}
    return data | {"rooms": rooms}


def house(path: Path, text: str, **more: Any) -> House:
    path.write_text(text, encoding="utf-8")
    return checked(House, path, "house", start="format: toy-house/1", error=HouseError, **more)


def mistakes(path: Path, text: str, **more: Any) -> list[str]:
    with pytest.raises(HouseError) as caught:
        house(path, text, **more)
    return [line.removeprefix(str(path)) for line in caught.value.problems]


HALL = """\
format: toy-house/1
rooms:
  hall:
    light: false
    things:
    - {kind: lamp, watts: 40.5}
    - {kind: chair, legs: 4}
"""


def test_a_file_becomes_its_model(tmp_path: Path) -> None:
    hall = house(tmp_path / "h.yaml", HALL, prepare=named).rooms["hall"]
    assert hall == Room(
        name="hall", things=[Lamp(kind="lamp", watts=40.5), Chair(kind="chair", legs=4)], light=False
    )


def test_every_mistake_is_reported_at_once_at_its_line_with_what_to_do(tmp_path: Path) -> None:
    text = HALL.replace("light: false", "light: no").replace("watts: 40.5", "wats: 40.5")
    text = (
        text.replace("legs: 4", "legs: 4.0")
        + "    - {kind: stool}\n    - {legs: 1}\n  Attic: {light: true}\nowners: {Ann Lee: 1}\n"
    )
    assert mistakes(tmp_path / "h.yaml", text, prepare=named) == [
        ":4: 'light' is 'no'; write true or false",
        ":6: no 'watts' here; add 'watts: ...'",
        ":6: unknown key 'wats'; did you mean 'watts'?",
        ":7: 'legs' is '4.0'; write a whole number",
        ":8: unknown kind 'stool'; known: chair, lamp",
        ":9: no 'kind' here; add 'kind: ...'",
        ":10: 'name' is 'Attic'; write one that matches ^[a-z]+$",
        ":11: 'key of owners' is 'Ann Lee'; write one that matches ^[a-z]+$",
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", ":1: the file is empty; start it with 'format: toy-house/1'"),
        ("rooms: {}\n", ":1: no 'format' here; add 'format: toy-house/1' as the first line"),
        ("format: toy-house/2\nrooms: {}\n", ":1: format is 'toy-house/2'; this version reads 'toy-house/1'"),
        ("- 1\n", ":1: 'the house' is a list; write a mapping of keys to values"),
        ("format: [\n", ":2: not valid YAML"),
        ("format: a\nformat: b\n", ":2: key 'format' is given twice (first on line 1); keep one"),
        ("format: &a x\nrooms: *a\n", ":2: alias '*a'; aliases are not accepted, write the text out again"),
        ("format: &a x\n", ":1: anchor '&a'; leave it out, there are no aliases"),
        ("format: !!python/name:os.system x\n", ":1: tag 'tag:yaml.org,2002:python/name:os.system'"),
        ("rooms: {}\n---\nrooms: {}\n", ":2: a second document starts here; keep one house in one file"),
        ("? [a]\n: 1\n", ":1: a list or mapping stands where a key should"),
        ("a:\n\tb: 1\n", ":2: a tab or a character that YAML keeps for itself; use spaces, or quotes"),
        ("[" * 2000, f":1: nested too deep; no part of a house needs more than {DEPTH_MAX} levels"),
        ("#" + "x" * 2**21, ": 2,097,153 bytes; a house may have 2,097,152"),
        (f"rooms: {'9' * 5000}\n", ":1: '9999999999"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_line(tmp_path: Path, text: str, says: str) -> None:
    found = mistakes(tmp_path / "h.yaml", text)
    assert any(line.startswith(says) for line in found), found


def test_a_file_that_cannot_be_opened_or_is_not_utf8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe")
    cases = {
        "none.yaml": "cannot be read (No such file",
        "binary.yaml": "save it as UTF-8",
        "x\0": "not a usable",
    }
    for name, says in cases.items():
        with pytest.raises(FileProblems) as caught:
            checked(House, tmp_path / name, "house")
        assert says in str(caught.value)


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("12", 12), ("-3", -3), ("8_030_261", 8030261), ("0x10", 16), ("0o17", 15), ("1.5e3", 1500.0),
        (".5", 0.5), ("1e6", 1e6), ("true", True), ("False", False), ("~", None), ("null", None), ("", None),
        ("no", "no"), ("on", "on"), ("012", "012"), ("12:30", "12:30"), ("2026-11-29", "2026-11-29"),
        ("'12'", "12"), ('"true"', "true"), ("|\n 12", "12"), ("1_", "1_"), ("-.inf", float("-inf")),
    ],
)  # fmt: skip
def test_a_scalar_has_the_type_of_yamls_core_schema(written: str, value: object) -> None:
    root, problems = read(f"x: {written}", "f.yaml", "file")
    assert root is not None
    data, unreadable = plain(root)
    assert (data, problems, unreadable) == ({"x": value}, [], [])
    assert type(data["x"]) is type(value)


def test_every_scalar_stays_what_was_typed_where_a_model_is_made_of_the_tree() -> None:
    class Options(BaseModel):
        run: dict[str, str]

    root, _ = read("run: {once: no, at: 12:30, salt: 012, hold: 1m}\n", "plan.yaml", "plan")
    assert root is not None
    found, problems = validated(Options, root, root, "plan")
    assert (found, problems) == (Options(run={"once": "no", "at": "12:30", "salt": "012", "hold": "1m"}), [])


@given(st.text())
def test_any_text_is_data_or_mistakes_of_one_line(text: str) -> None:
    root, problems = read(text, "f.yaml", "file")
    assert root is not None or problems
    problems += plain(root)[1] if root is not None else []
    assert all(str(problem).startswith("f.yaml") and str(problem).isprintable() for problem in problems)


_words = st.sampled_from(
    ["format", "rooms", "owners", "things", "kind", "name", "light", "watts", "legs", "hall"]
)
_values = st.sampled_from(["toy-house/1", "lamp", "chair", "true", "4", "-1", ".nan", ""]) | st.text(
    max_size=4
)
_trees = st.recursive(
    _values,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_words, inner, max_size=5),
    max_leaves=20,
)


@given(st.dictionaries(_words, _trees, max_size=4))
def test_any_tree_of_known_keys_is_a_model_or_mistakes_of_one_line(tree: dict[str, Any]) -> None:
    root, problems = read(json.dumps(tree), "f.yaml", "house")
    if root is not None:
        for data in (named(plain(root)[0]), root):
            problems += validated(House, root, data, "house")[1]
    assert all(str(problem).startswith("f.yaml") and str(problem).isprintable() for problem in problems)

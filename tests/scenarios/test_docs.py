"""docs/scenarios.md and data.md say what the format is: examples are sound, no key or kind is missing."""

import re
from pathlib import Path

import pytest

import scenarios
from scenarios import _schema as schema
from scenarios.data import KINDS

DOCS = Path(__file__).parents[2] / "docs"
PAGE = "".join((DOCS / name).read_text(encoding="utf-8") for name in ("scenarios.md", "data.md"))
MAPPINGS = [
    schema.Document, schema.DataDocument, schema.Source, schema.Task, schema.Spread, schema.TurnCount,
    schema.Pace, schema.Patience, schema.Bundle, schema.Tool, schema.Call, schema.Sampling, schema.Item,
]  # fmt: skip


@pytest.mark.parametrize("text", re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL))
def test_the_examples_are_sound(text, tmp_path):
    (tmp_path / "questions.csv").write_text("question\nWhy?\n")
    (tmp_path / "mine.yaml").write_text(text)
    scenario = scenarios.load(str(tmp_path / "mine.yaml"))
    assert scenarios.plan(scenario, 0, 0).turns


def test_the_example_uses_three_of_four_conversations_for_its_own_task():
    scenario = scenarios.parse(re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)[0])
    tasks = [scenarios.plan(scenario, 0, k).task for k in range(1000)]
    assert tasks.count("to-german") / 1000 == pytest.approx(0.75, abs=0.05)


@pytest.mark.parametrize("mapping", MAPPINGS, ids=lambda mapping: mapping.__name__)
def test_every_key_is_named(mapping):
    assert [key for key in mapping.model_fields if f"`{key}`" not in PAGE] == []


def test_every_kind_of_data_file_is_named():
    assert [kind.kind for kind in KINDS if f"| `{kind.kind}` |" not in PAGE] == []

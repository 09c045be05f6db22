"""What is said: tasks and mixes of tasks as YAML, and the seeded plan of one conversation.

    scenario = load("paper")
    conversation = plan(scenario, seed=0, k=17)
    messages = opening(conversation, salt="9f3c", level=2)

A plan is a pure function of (scenario, seed, k): the same on every machine, in every version of Python
and whatever was planned before.
"""

from scenarios._load import fitting, load, parse
from scenarios._messages import (
    NO_TAGS,
    MeasuredTexts,
    characters_of,
    dialogue,
    drop_oldest,
    fit_to_tokenizer,
    opening,
    texts_to_measure,
    with_common_start,
    without_system,
)
from scenarios._plan import arrivals, plan, rows_too_long, think_after
from scenarios._scenario import Conversation, Scenario, ScenarioError, Turn
from scenarios._texts import names
from scenarios.data import Place, text_of

__all__ = [
    "NO_TAGS",
    "Conversation",
    "MeasuredTexts",
    "Place",
    "Scenario",
    "ScenarioError",
    "Turn",
    "arrivals",
    "characters_of",
    "dialogue",
    "drop_oldest",
    "fit_to_tokenizer",
    "fitting",
    "load",
    "names",
    "opening",
    "parse",
    "plan",
    "rows_too_long",
    "text_of",
    "texts_to_measure",
    "think_after",
    "with_common_start",
    "without_system",
]

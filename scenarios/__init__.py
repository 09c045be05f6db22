"""What is said: tasks and mixes of tasks as YAML, and the seeded plan of one conversation.

    scenario = load("paper")
    conversation = plan(scenario, seed=0, k=17)
    messages = opening(conversation, salt="9f3c", level=2)

A plan is a pure function of (scenario, seed, k): the same on every machine, in every version of Python
and whatever was planned before.
"""

from scenarios._builtin import names
from scenarios._context import fitting, rows_too_long
from scenarios._dialogue import dialogue, drop_oldest, opening, without_system
from scenarios._errors import ScenarioError
from scenarios._load import load, parse
from scenarios._plan import plan
from scenarios._replay import arrivals
from scenarios._scenario import Conversation, Scenario, Turn
from scenarios._turns import think_after

__all__ = [
    "Conversation",
    "Scenario",
    "ScenarioError",
    "Turn",
    "arrivals",
    "dialogue",
    "drop_oldest",
    "fitting",
    "load",
    "names",
    "opening",
    "parse",
    "plan",
    "rows_too_long",
    "think_after",
    "without_system",
]

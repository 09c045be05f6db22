"""What a scenario that cannot be played raises."""

from __future__ import annotations

from turnbench.problems import FileProblems


class ScenarioError(FileProblems):
    """A scenario that cannot be played; `problems` holds every mistake found, one line each."""

"""What of a scenario the served model can't be asked, since its context is too short for it."""

from __future__ import annotations

from loadgen._settings import Endpoint
from scenarios import Scenario, fitting, rows_too_long
from turnbench.formats import Finding

_REMEDY = "serve the model with a longer context (--max-model-len), or leave it out of the comparison"


def fit(scenario: Scenario, endpoint: Endpoint) -> tuple[Scenario, dict[str, int], list[Finding]]:
    """The scenario as it can be played, the tasks skipped with the context that they need, and notes on that.

    Raises ScenarioError where nothing can be played. A server that does not tell its context is taken at
    its word when it refuses a request.
    """
    context = endpoint.max_model_len
    if context is None:
        return scenario, {}, []
    playable, skipped = fitting(scenario, context)
    notes = [
        Finding("note", "skipped_task", f"task {task} was skipped: it needs a context of {needed} tokens, "
                f"the model has {context}", _REMEDY)
        for task, needed in skipped.items()
    ]  # fmt: skip
    if rows := rows_too_long(scenario, context):
        what = f"{len(rows)} of {scenario.size} rows were skipped: a context of {context} is too short"
        notes.append(Finding("note", "skipped_rows", what, _REMEDY))
    return playable, skipped, notes

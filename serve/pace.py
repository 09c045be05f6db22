"""How fast a model can answer on a GPU, before anything is started: `python -m serve.pace MODEL`.

Prints one JSON object of seconds, by the same roofline as the emulator: a decoding step takes `step_s`,
`step_answer_s` more for each answer in it and `step_context_s` for each token of their context; a prompt's
token takes `prefill_token_s`, a request `front_end_s` before it is queued. For the emulator this is its own
timing; for a real server it is a guess, with what others measured of one.
"""

from __future__ import annotations

import json
import sys

from serve.catalogue import CatalogueProblems, load_catalogue
from serve.emulator.machines import FrontEnd, RooflineMachine, StepWork
from turnbench import exits
from turnbench.command_line import CommandParser
from turnbench.formats.server import PRECISIONS

_MANY = 1000


def main(arguments: list[str] | None = None) -> int:
    """0, or 2 for a model or GPU that the catalogue does not have."""
    parser = CommandParser(
        prog="python -m serve.pace",
        description="How fast a model can answer on a GPU, as one JSON object of seconds.",
        example="python -m serve.pace yi-6b --hardware h100-80gb",
    )
    parser.add_argument("model", metavar="MODEL", help="name in the catalogue")
    parser.add_argument("--hardware", default="a100-40gb", metavar="GPU", help="default a100-40gb")
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="fp16",
        metavar="NAME",
        help=f"{', '.join(PRECISIONS)} (default fp16)",
    )
    options = parser.parse_args(arguments)
    try:
        catalogue = load_catalogue()
        machine = RooflineMachine(
            catalogue.models[options.model], catalogue.gpus[options.hardware], precision=options.precision
        )
    except CatalogueProblems as error:
        print(f"serve.pace: {error}", file=sys.stderr)
        return exits.BAD_CONFIGURATION
    except KeyError as error:
        print(f"serve.pace: {error} is not in the catalogue: python -m serve list", file=sys.stderr)
        return exits.BAD_CONFIGURATION
    print(json.dumps(pace(machine)))
    return exits.OK


def pace(machine: RooflineMachine) -> dict[str, float]:
    """The figures above, in seconds."""
    step = machine.efficiency.step
    return {
        "front_end_s": FrontEnd().request_ns / 1e9,
        "prefill_token_s": machine.compute_s(StepWork(_MANY, 0, 0, sampled=0)) / _MANY,
        "step_s": machine.memory_s(StepWork(1, 0, 0)) + step.overhead_us / 1e6,
        "step_answer_s": machine.compute_s(StepWork(1, 0, 0)) + step.sequence_us / 1e6,
        "step_context_s": (machine.memory_s(StepWork(1, _MANY, 0)) - machine.memory_s(StepWork(1, 0, 0)))
        / _MANY,
    }


if __name__ == "__main__":
    sys.exit(main())

"""`python -m loadgen run`, `python -m loadgen sweep`, and the options that `locust --help` can't show."""

from __future__ import annotations

import sys
from importlib import import_module


def main(arguments: list[str]) -> int:
    """Run one command; returns its exit code."""
    # Imported here, since Ctrl-C during an import is to be as quiet as after it.
    try:
        if arguments and arguments[0] in ("run", "sweep"):
            command = import_module(f"turnbench.cli.{arguments[0]}")
            return int(command.main(arguments[1:], f"python -m loadgen {arguments[0]}"))
        if arguments and arguments[0] not in ("-h", "--help"):
            print(f"python -m loadgen: unknown command {arguments[0]!r}; one of run, sweep", file=sys.stderr)
            return 2
        from turnbench.cli.run import options_text

        print("usage: python -m loadgen run|sweep [options]\n")
        print("Load: `python -m loadgen run -H URL ...` or `locust -f loadgen/ --headless -H URL ...`.\n")
        print(options_text("options of both (each also TURNBENCH_NAME in the environment):"))
        return 0
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

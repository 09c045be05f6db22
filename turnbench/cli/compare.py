"""`turnbench compare RUN... --to BASELINE...`: `python -m analysis RUN... --compare BASELINE...`."""

from __future__ import annotations

from turnbench.command_line import CommandParser


def command_parser(prog: str) -> CommandParser:
    """What a comparison takes; its values are checked by the analysis."""
    parser = CommandParser(
        prog=prog,
        description="Exit 0 if RUN is no worse than BASELINE, 1 if it is, 4 if that could not be judged.",
        example=f"{prog} runs/LATEST --to runs/20260101T120000Z-chat --markdown change.md",
    )
    parser.add_argument("run", metavar="RUN", nargs="+", help="run or sweep directories; several are repeats")
    parser.add_argument("--to", metavar="BASELINE", nargs="+", required=True, help="what they are held to")
    parser.add_argument("--threshold", metavar="SHARE", help="by which a median may be worse (0.05)")
    parser.add_argument(
        "--single", action="store_true", help="judge medians with one run a side, within these two runs"
    )
    parser.add_argument("--reading-speed", metavar="WORDS", help="words a minute of a reader (238)")
    parser.add_argument("--markdown", metavar="FILE", help="write the table for a pull request")
    return parser


def main(arguments: list[str], prog: str = "turnbench compare") -> int:
    """The exit code of the analysis."""
    given = command_parser(prog).parse_args(arguments)
    from analysis.__main__ import main as analyse

    extra = [
        f"--{name}={value}"
        for name in ("threshold", "reading-speed", "markdown")
        if (value := getattr(given, name.replace("-", "_"))) is not None
    ]
    extra += ["--single"] * given.single
    return analyse([*given.run, "--compare", *given.to, *extra], prog)

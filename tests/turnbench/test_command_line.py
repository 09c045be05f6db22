"""Every command's parser: what is typed wrong ends with one line that says what was meant."""

from __future__ import annotations

import pytest

from turnbench.command_line import CommandParser


@pytest.fixture
def parser() -> CommandParser:
    made = CommandParser(prog="tool", example="tool up yi-6b")
    made.add_argument("--verbose", action="store_true")
    commands = made.add_subparsers(required=True, metavar="COMMAND")
    up = commands.add_parser("up", help="start", example="tool up yi-6b")
    up.add_argument("model", metavar="MODEL")
    up.add_argument("--port", type=int)
    up.add_argument("--size", choices=("small", "large"))
    commands.add_parser("down", help="stop")
    return made


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("upp x", "tool: unknown command 'upp'; did you mean up?"),
        ("zzz", "tool: unknown command 'zzz'; one of up, down"),
        ("up x --prt 3", "tool up: unknown option --prt; did you mean --port?"),
        ("up x --prt=3", "tool up: unknown option --prt; did you mean --port?"),
        ("up x --quux", "tool up: unknown option --quux"),
        ("up x y", "tool up: unexpected argument 'y'"),
        ("up x --size larg", "tool up: argument --size: 'larg' is not known; did you mean large?"),
        ("up", "tool up: the following arguments are required: MODEL"),
        ("up x --port z", "tool up: argument --port: invalid int value: 'z'"),
        ("--verbos up x", None),  # an unambiguous beginning is enough
    ],
)
def test_a_mistake_is_one_line_and_exit_2(
    parser: CommandParser, capsys: pytest.CaptureFixture[str], typed: str, said: str | None
) -> None:
    if said is None:
        assert parser.parse_args(typed.split()).verbose
        return
    with pytest.raises(SystemExit) as ended:
        parser.parse_args(typed.split())
    assert ended.value.code == 2
    assert capsys.readouterr().err == said + "\n"


def test_help_shows_short_usage_and_an_example(
    parser: CommandParser, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parser.parse_args(["up", "--help"])
    said = capsys.readouterr().out
    assert said.startswith("usage: tool up MODEL [options]\n")
    assert said.endswith("example:\n  tool up yi-6b\n")

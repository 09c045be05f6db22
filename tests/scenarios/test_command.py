"""python -m scenarios."""

import json
from pathlib import Path

import pytest

import scenarios
from scenarios.__main__ import main

BAD = Path(__file__).parent / "bad"


def test_list_names_every_built_in_scenario_once(capsys):
    assert main(["list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == scenarios.names()


def test_show_prints_a_text_that_can_be_played_as_it_is(capsys):
    assert main(["show", "work"]) == 0
    assert scenarios.parse(capsys.readouterr().out) == scenarios.load("work")


def test_show_reads_well(capsys):
    main(["show", "choose"])
    out = capsys.readouterr().out
    assert "  prompt: |-\n    Answer this question with the letter only" in out
    assert "\n      a: Zero\n" in out


def test_check_says_good_in_one_line(capsys):
    assert main(["check", "paper"]) == 0
    assert capsys.readouterr().out == "paper: good; 1980 conversations, tasks choose, paraphrase, explain\n"


def test_check_reports_every_mistake_and_exits_with_2(capsys, monkeypatch):
    monkeypatch.chdir(BAD)
    assert main(["check", "wrong_numbers.yaml"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == (BAD / "wrong_numbers.txt").read_text(encoding="utf-8")


def test_sample_prints_the_conversations_of_the_plan(capsys):
    assert main(["sample", "chat", "--seed", "7", "-n", "3"]) == 0
    out = capsys.readouterr().out
    chat = scenarios.load("chat")
    for k in range(3):
        for turn in scenarios.plan(chat, 7, k).turns:
            assert turn.user in out


@pytest.mark.parametrize("typed", ["-3", "0", "x", "1e3", "", "²"])
def test_a_number_of_conversations_that_is_none_is_exit_2(capsys, typed):
    with pytest.raises(SystemExit) as ended:
        main(["sample", "chat", f"-n={typed}"])
    assert ended.value.code == 2
    assert "write 1 or more" in capsys.readouterr().err


def test_a_file_cannot_steer_the_terminal(tmp_path, capsys):
    path = tmp_path / "escape.yaml"
    path.write_text(
        "format: turnbench-scenario/1\nname: escape\ntasks: [{from: chat, texts: mine, turns: 1}]\n"
        'sets: {mine: [{say: "\\e[2Jgone"}]}\n',
        encoding="utf-8",
    )
    for command in ("sample", "show"):
        assert main([command, str(path)]) == 0
        assert "\x1b" not in capsys.readouterr().out


def test_an_unknown_command_exits_with_2():
    with pytest.raises(SystemExit, match="2"):
        main(["shwo"])


def test_check_says_what_is_not_played_as_the_file_says(tmp_path, capsys):
    path = tmp_path / "mine.jsonl"
    parts = [
        {"type": "image"},
        {"type": "image_url", "image_url": {"url": "http://a/b"}},
        {"type": "text", "text": "x"},
    ]
    rows = [
        {"messages": [{"role": "user", "content": parts}], "response_format": {"type": "json_object"}},
        {},
    ]
    path.write_text("\n".join(map(json.dumps, [*rows, {"messages": 3}])))
    assert main(["check", str(path)]) == 2
    assert "mine.jsonl:3: 'messages' is a number" in capsys.readouterr().err
    assert main(["check", "--skip-bad-rows", str(path)]) == 0
    good, skipped, lost = capsys.readouterr().out.splitlines()
    assert "good; 1 conversations, tasks messages" in good
    assert skipped.startswith("note: 1 row of mine.jsonl cannot be played and was skipped: ")
    assert lost.startswith("note: 1 picture of 1 row is not sent")
    assert main(["sample", "--skip-bad-rows", str(path)]) == 0
    assert "[image_url]" in capsys.readouterr().out

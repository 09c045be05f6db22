"""report.html: one file, offline, safe to open, and honest about emulation."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

from analysis.__main__ import main
from analysis.tables.writing import for_script_tag
from tests.analysis.conftest import MadeRun, level, turn

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>'\"&{{7*7}}"


class Tags(HTMLParser):
    """Every tag with its attributes, and the text of every script."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.inside = tag == "script"
        if self.inside:
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self.inside = False

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.scripts[-1] += data


def page(made: MadeRun) -> tuple[str, Tags]:
    path = made.write()
    main([str(path)])
    text = (path / "report.html").read_text(encoding="utf-8")
    tags = Tags()
    tags.feed(text)
    return text, tags


def strings(*values: object) -> Iterator[str]:
    """Every text anywhere in a figure."""
    for value in values:
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            yield from strings(*value.values())
        elif isinstance(value, list):
            yield from strings(*value)


def hostile(made: MadeRun) -> MadeRun:
    made.turns = [turn(n, sent_s=6 + n, task=HOSTILE, model=HOSTILE) for n in range(30)]
    made.levels = [level(), level(1, start_s=200, window_s=(205, 206), end_s=207)]
    made.manifest |= {
        "labels": {HOSTILE: HOSTILE},
        "server": {"name": HOSTILE},
        "endpoint": {"url": HOSTILE, "model": HOSTILE},
        "findings": [{"level": "note", "check": HOSTILE, "what": HOSTILE, "remedy": HOSTILE}],
    }
    made.path.mkdir(parents=True)
    (made.path / "scenario.yaml").write_text(HOSTILE)
    return made


def test_nothing_from_a_server_or_scenario_becomes_markup(made: MadeRun) -> None:
    text, tags = page(hostile(made))
    assert [name for name, _ in tags.tags].count("script") == 3
    kinds = [attributes.get("type") for name, attributes in tags.tags if name == "script"]
    assert kinds == ["application/json", "application/octet-stream", None]
    assert not [name for name, _ in tags.tags if name == "img"]
    assert all(not key.startswith("on") for _, attributes in tags.tags for key in attributes)
    assert "&lt;script&gt;alert(1)" in text
    assert "{{7*7}}" in text


def test_plot_labels_are_text_even_to_plotly(made: MadeRun) -> None:
    _, tags = page(hostile(made))
    texts = [
        text for figure in json.loads(tags.scripts[0]) for text in strings(figure["data"], figure["layout"])
    ]
    assert any("alert(1)" in text for text in texts)
    assert all("<" not in text for text in texts)


def test_json_in_a_script_tag_can_neither_end_it_nor_open_a_comment() -> None:
    text = for_script_tag([HOSTILE, "<!--", "\u2028"])
    assert "<" not in text
    assert json.loads(text) == [HOSTILE, "<!--", "\u2028"]


def test_only_the_two_known_scripts_may_run_and_no_network_is_allowed(made: MadeRun) -> None:
    made.turns = [turn(n, sent_s=6 + n) for n in range(30)]
    _, tags = page(made)
    policies = [a["content"] for n, a in tags.tags if a.get("http-equiv") == "Content-Security-Policy"]
    policy = policies[0] or ""
    assert "default-src 'none'" in policy
    assert re.search(r"script-src[^;]*unsafe", policy) is None
    packed, own = tags.scripts[1:]
    for script in (gzip.decompress(base64.b64decode(packed)).decode(), own):
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy


def test_the_page_is_self_contained_and_under_six_megabytes(made: MadeRun) -> None:
    made.turns = [turn(n, sent_s=6 + n % 50) for n in range(500)]
    text, tags = page(made)
    assert len(text.encode()) < 6_000_000
    linked = [a.get("src") or a.get("href") for _, a in tags.tags if a.get("src") or a.get("href")]
    assert all(link is not None and link.startswith("#") for link in linked)


def test_an_emulated_run_says_so_on_the_page_every_table_and_every_plot(made: MadeRun) -> None:
    made.manifest["emulated"] = True
    made.turns = [turn(n, sent_s=6 + n) for n in range(40)]
    text, tags = page(made)
    body = text[: text.index('<script type="application/json"')]
    assert re.search(r"<title>EMULATED", body)
    assert body.count("<caption>") == body.count("<caption>EMULATED") > 3
    figures = json.loads(tags.scripts[0])
    assert {figure["group"] for figure in figures} >= {"wait", "attained", "load", "time", "raster", "client"}
    for figure in figures:
        assert figure["title"].startswith("EMULATED")
        assert "EMULATED" in [note["text"] for note in figure["layout"]["annotations"]]


def test_a_measured_run_says_neither_emulated_nor_insecure(made: MadeRun) -> None:
    made.turns = [turn(n, sent_s=6 + n) for n in range(40)]
    text, _ = page(made)
    body = text[: text.index('<script type="application/json"')]
    assert not re.search("EMULATED|INSECURE", body)


def test_the_first_thing_said_is_how_long_a_person_waits(made: MadeRun) -> None:
    made.turns = [turn(n, sent_s=6 + n, ttft_ms=100, gap_ms=100, events=20) for n in range(40)]
    text, _ = page(made)
    sentence = (
        "tiny: with 4 people, half of the answers began within 0.100 s and were complete within 2.00 s."
    )
    assert sentence in text
    assert text.index(sentence) < text.index("<table")


def test_findings_stand_with_their_remedies(made: MadeRun) -> None:
    made.turns = [turn(n, sent_s=6 + n, late_ms=50) for n in range(40)]
    text, _ = page(made)
    assert "turns were sent late by the client" in text
    assert "use fewer people a worker" in text
    first, _, rest = text.partition('id="waiting"')
    assert "1 model, 1 task, load 4: 40 turns measured" in first
    foot = rest.partition("<footer>")[2]
    assert "40 turns came due = 40 begun + 0 never sent; of those begun 40 recorded" in foot


def test_two_models_of_one_run_are_two_and_each_turn_is_counted_once(made: MadeRun) -> None:
    made.turns = [turn(n, sent_s=6 + n % 40, model=f"model-{n % 2}") for n in range(40)]
    text, _ = page(made)
    assert "2 models, 1 task, load 4: 40 turns measured" in text


def test_the_names_of_this_machines_folders_stay_out_of_the_page(made: MadeRun, tmp_path: Path) -> None:
    made.turns = [turn(n, sent_s=6 + n) for n in range(40)]
    text, _ = page(made)
    assert str(tmp_path) not in text


def test_a_run_that_checked_no_certificate_says_so_on_the_page(made: MadeRun) -> None:
    made.manifest["settings"] = {"insecure": True}
    made.turns = [turn(n, sent_s=6 + n) for n in range(40)]
    text, _ = page(made)
    assert "INSECURE: certificates were not checked" in text[: text.index("<table")]

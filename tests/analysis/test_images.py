"""The report's figures as files: every kind can be drawn, names are texts, a missing library is a line."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import msgspec
import pytest

from analysis.__main__ import main
from analysis.report import images
from analysis.report.images import write_images
from analysis.report.plots_style import figure, points
from tests.analysis.conftest import MadeRun, turn
from turnbench.formats.summary import Distribution

HOSTILE = "a$b$ <script>alert(1)</script> & c"
PNG = b"\x89PNG\r\n\x1a\n"


def texts(path: Path) -> set[str]:
    """What stands in an SVG, as it reads."""
    return {"".join(node.itertext()).strip() for node in ET.parse(path).iter() if node.tag.endswith("}text")}


@pytest.mark.slow
def test_every_figure_of_a_report_is_a_png_and_an_svg(made: MadeRun, tmp_path: Path) -> None:
    made.manifest["emulated"] = True
    made.turns = [
        turn(n, sent_s=6 + n / 2, task=HOSTILE, outcome="http_5xx" if n % 9 == 0 else "ok") for n in range(60)
    ]
    at = tmp_path / "plots"
    assert main([str(made.write()), "--plots", str(at)]) == 0
    vectors, pictures = sorted(at.glob("*.svg")), sorted(at.glob("*.png"))
    assert [path.stem for path in vectors] == [path.stem for path in pictures]
    assert {path.name.split("-")[1] for path in vectors} == {
        "wait",
        "attained",
        "load",
        "time",
        "raster",
        "client",
    }
    assert all(path.read_bytes().startswith(PNG) for path in pictures)
    for path in vectors:
        assert any(text.startswith("EMULATED · ") for text in texts(path)), path
        assert "<script" not in path.read_text()
    assert HOSTILE in texts(vectors[0])


def test_a_line_stands_where_its_numbers_are_and_the_same_figure_is_the_same_file(tmp_path: Path) -> None:
    found = [
        msgspec.convert(dict.fromkeys(Distribution.__struct_fields__) | known, Distribution)
        for known in (
            {"n": 50, "p50": value, "bound": {}, "ci95": {"p50": None}} for value in (100, 400, 200)
        )
    ]
    one = figure("load", "Waits", [points(found, 0) | {"name": HOSTILE, "x": [1, 2, 3]}], "people", "TTG, s")
    first, second = write_images([one], tmp_path / "a"), write_images([one], tmp_path / "b")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    (canvas,) = [images._drawn(one)]
    (line,) = [
        each for each in canvas.axes[0].lines if len(each.get_xdata()) == 3 and each.get_linewidth() == 2
    ]
    assert line.get_ydata() == pytest.approx([0.1, 0.4, 0.2])
    assert canvas.axes[0].get_ylim()[0] == 0

"""The notebook on turns.parquet runs from its first cell to its last, and says what the run says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from analysis.__main__ import main
from tests.analysis.conftest import MadeRun, level, turn

pytestmark = pytest.mark.tools
NOTEBOOK = Path(__file__).parents[2] / "examples" / "turns.ipynb"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import nbformat
    from nbclient import NotebookClient

    made = MadeRun(tmp_path / "made")
    made.levels = [level(0), level(1, start_s=80, window_s=(85, 145), end_s=150)]
    made.turns = [
        turn(n, sent_s=6 + n / 2, ttft_ms=100 + n, task="ask" if n % 2 else "chat") for n in range(60)
    ]
    made.turns += [turn(100 + n, sent_s=86 + n / 2, outcome="stalled" if n == 7 else "ok") for n in range(60)]
    made.manifest = {"emulated": True}
    assert main([str(made.write())]) == 0
    monkeypatch.setenv("TURNBENCH_RUN", str(tmp_path / "made"))
    book: Any = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(book, timeout=60, kernel_name="python3").execute()
    outputs = [each for cell in book.cells if cell.cell_type == "code" for each in cell.outputs]
    assert not [each for each in outputs if each.output_type == "error"]
    printed = "".join(each.text for each in outputs if each.output_type == "stream" and each.name == "stdout")
    assert "EMULATED · made: " in printed
    assert "120 records" in printed
    assert "20.0 ms without a token" in printed
    figures = [each for each in outputs if "application/vnd.plotly.v1+json" in each.get("data", {})]
    assert len(figures) == 4
    assert all("EMULATED" in str(each.data) for each in figures)

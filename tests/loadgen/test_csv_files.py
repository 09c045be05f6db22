"""Locust's own CSV files at a run's end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

WRITING = """
import sys
import gevent
from locust.env import Environment
from locust.stats import StatsCSVFileWriter
from loadgen.adapter._adapter import end_csv_writer

files = StatsCSVFileWriter(Environment(), [0.5], sys.argv[1])
writer = gevent.spawn(files.stats_writer)
gevent.sleep(0.01)
end_csv_writer()
files.close_files()
print(writer.dead)
gevent.sleep(1.5)
"""


def test_who_writes_them_has_ended_when_locust_closes_them(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITING, str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n", "")

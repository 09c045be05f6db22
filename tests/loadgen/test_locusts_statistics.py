"""Locust's own statistics: its CSV files at a run's end, and what a long run leaves in memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

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


@pytest.mark.slow
def test_who_writes_them_has_ended_when_locust_closes_them(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITING, str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n", "")


COUNTING = """
from unittest.mock import patch
from locust.stats import RequestStats
from loadgen.control._controller import forget_seconds_before

stats = RequestStats()
for second in range(1000, 1200):
    with patch("time.time", lambda: second):
        stats.log_request("TTG", "chat", 100, 5)
        stats.log_error("TTG", "chat", RuntimeError("no"))
forget_seconds_before(stats, 1140)
rows = stats.total, stats.get("chat", "TTG")
print([(min(c), len(c)) for row in rows for c in (row.num_reqs_per_sec, row.num_fail_per_sec)])
print(stats.total.num_requests, stats.total.num_failures)
"""


@pytest.mark.slow
def test_the_seconds_of_a_long_run_are_forgotten_and_its_totals_are_not() -> None:
    done = subprocess.run([sys.executable, "-c", COUNTING], capture_output=True, text=True, check=True)
    assert done.stdout == f"{[(1140, 60)] * 4}\n200 200\n"

"""What holds for every test: how properties are tried, in which order tests run, and what a run covered."""

from __future__ import annotations

import gc
import os
import signal
import threading
from collections import Counter, defaultdict
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# A stalled machine is no property of the code: examples may take as long as they need.
# `make test` looks for a counterexample in fewer tries, `make test-all` in Hypothesis's usual hundred.
settings.register_profile("suite", deadline=None, max_examples=8)
settings.register_profile("thorough", deadline=None)
settings.load_profile("suite")

if threading.current_thread() is threading.main_thread():
    # Started in the background or under nohup, a suite ignores these, and so would all that it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
    del os.environ[name]  # a person's own, which official clients would ask for this machine's servers, too

HERE = Path(__file__).parent
FIRST = ("test_find_capacity.py", "test_sweep_resume.py", "test_two_runs.py")
"""Files of tests/runs with the longest tests."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole runs, which mostly wait, are spread among tests that mostly compute, the longest at the start.

    The last quarter has none: no process is left alone with one at the end.
    """
    runs = [item for item in items if item.path.parent.name == "runs"]
    runs.sort(key=lambda item: item.path.name not in FIRST)
    others = [item for item in items if item.path.parent.name != "runs"]
    place = {item: number for number, item in enumerate(others)}
    place |= {item: 0.75 * number * len(others) / len(runs) for number, item in enumerate(runs)}
    items.sort(key=place.__getitem__)


def pytest_collection_finish() -> None:
    """Sets aside what all tests share, so that the collector of garbage does not look through it again."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(optionalhook=True)  # with pytest-xdist alone
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Hands out tests one by one in their order; files whose tests share something go to one process.

    Its own `--dist loadgroup` finds no group: it marks them in an attribute that pytest 9.2 never reads.
    """
    from xdist.scheduler import LoadScopeScheduling

    class OneByOne(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            path = nodeid.partition("::")[0]
            return path if shares_something(path) else nodeid

    config.option.loadscopereorder = False
    return OneByOne(config, log)


@cache
def shares_something(path: str) -> bool:
    text = (HERE.parent / path).read_text(encoding="utf-8")
    return 'fixture(scope="module"' in text or "\n@cache\n" in text


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """After a run of everything: how many tests of each room passed, and their time."""
    if config.args_source is not pytest.Config.ArgsSource.TESTPATHS:
        return
    tests: Counter[str] = Counter()
    seconds: dict[str, float] = defaultdict(float)
    for report in terminalreporter.getreports("passed"):
        room = "/".join(report.nodeid.partition("::")[0].split("/")[1:-1]) or "the house"
        tests[room] += 1
        seconds[room] += report.duration
    terminalreporter.write_line("")
    for room in sorted(tests):
        terminalreporter.write_line(f"  {room:16} {tests[room]:5} tests passed, {seconds[room]:5.0f} s")

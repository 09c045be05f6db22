"""docs/reliability.md says of every fault which tests hold it."""

from __future__ import annotations

from tests.docs import faults


def test_each_of_the_53_faults_names_tests_and_all_that_the_page_names_are_there() -> None:
    assert [number for number, _ in faults.ROWS] == list(range(1, 54))
    assert [number for number, tests in faults.ROWS if "`test_" not in tests] == []
    there = faults.defined()
    assert faults.TESTS - set().union(*there.values()) == set()
    assert faults.FILES - there.keys() == set()

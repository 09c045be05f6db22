"""Exit codes of every command, the first that applies; no command ends with another one."""

from __future__ import annotations

import signal

OK = 0
"""VALID or SUSPECT."""
MISSED = 1
"""A level misses its limits, or a comparison found a regression."""
BAD_CONFIGURATION = 2
"""Something typed is wrong; said before any turn is sent."""
INVALID = 3
"""The numbers can't be trusted, and why is said."""
NOT_JUDGED = 4
"""A comparison could not judge."""
OF_SIGNAL = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 143}
"""Interrupted: drained, with a partial report."""

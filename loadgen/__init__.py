"""What asks and listens: the Locust face, the asyncio engine and the run directory.

These names are what other rooms may use. Nothing here imports locust, gevent or the engine.
"""

from loadgen._records import OUTCOMES, Outcome, TurnRecord
from loadgen._runreader import RUN_FORMAT, Run, RunError, read_run

__all__ = ["OUTCOMES", "RUN_FORMAT", "Outcome", "Run", "RunError", "TurnRecord", "read_run"]

"""The formats of every file that crosses from one room to another, as msgspec Structs.

Their fields carry meaning and unit; docs/formats.md and the JSON Schema are generated from them.
"""

from turnbench.formats.comparison import ComparisonFile, ModelComparison, StudyTables
from turnbench.formats.run import (
    RUN_FORMAT,
    ArrivalsSummary,
    CapacityPoint,
    CapacitySummary,
    EndpointEntry,
    Finding,
    HealthLine,
    LevelEntry,
    RunManifest,
    RunStatus,
    Severity,
    WorkerEntry,
)
from turnbench.formats.server import (
    BACKENDS,
    PRECISIONS,
    WEIGHTS,
    Backend,
    Precision,
    RecordedServer,
    ServerFacts,
    ServerSample,
    Weights,
)
from turnbench.formats.sweep import SWEEP_FORMAT, SweepEntry, SweepManifest
from turnbench.formats.turn import TokenSource, TurnRecord

__all__ = [
    "BACKENDS",
    "PRECISIONS",
    "RUN_FORMAT",
    "SWEEP_FORMAT",
    "WEIGHTS",
    "ArrivalsSummary",
    "Backend",
    "CapacityPoint",
    "CapacitySummary",
    "ComparisonFile",
    "EndpointEntry",
    "Finding",
    "HealthLine",
    "LevelEntry",
    "ModelComparison",
    "Precision",
    "RecordedServer",
    "RunManifest",
    "RunStatus",
    "ServerFacts",
    "ServerSample",
    "Severity",
    "StudyTables",
    "SweepEntry",
    "SweepManifest",
    "TokenSource",
    "TurnRecord",
    "Weights",
    "WorkerEntry",
]

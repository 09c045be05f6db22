"""The catalogue: right facts, and every mistake told at once with its place."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from serve.catalogue import MODELS_FILE, CatalogueProblems, Model, load_catalogue, nearest

STUDY = ("llama-2-7b", "llama-3-8b", "mistral-7b", "yi-6b", "gemma-7b")
TODAY = ("llama-3.1-8b", "qwen3-8b", "qwen3-0.6b", "mistral-small-24b", "gemma-3-1b")
SMALL = ("smollm2-135m", "tiny")
GOOD = MODELS_FILE.read_text(encoding="utf-8")


def mistakes_of(tmp_path: Path, text: str) -> list[str]:
    file = tmp_path / "models.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(CatalogueProblems) as caught:
        load_catalogue(file)
    return [line.removeprefix(str(file)) for line in caught.value.problems]


def line_of(text: str, part: str) -> int:
    return text[: text.index(part)].count("\n") + 1


def parameters_of(model: Model) -> int:
    """Counted from the dimensions: embeddings, attention, three feed-forward matrices, all norms."""
    attention = 2 * model.hidden * model.head_dim * (model.heads + model.kv_heads)
    kind = model.config["model_type"]
    norms = (4 if kind == "gemma3_text" else 2) * model.hidden
    norms += 2 * model.head_dim if kind in ("gemma3_text", "qwen3") else 0
    layer = attention + 3 * model.hidden * model.intermediate + norms
    tables = 1 if model.tied_embeddings else 2
    return tables * model.vocab * model.hidden + model.layers * layer + model.hidden


def test_the_five_models_of_the_study_and_the_small_ones_are_there() -> None:
    assert tuple(load_catalogue().models) == (*STUDY, *TODAY, *SMALL)


@pytest.mark.parametrize("name", [*STUDY, *TODAY, *SMALL])
def test_the_number_of_parameters_follows_from_the_dimensions(name: str) -> None:
    model = load_catalogue().models[name]
    assert model.parameters == parameters_of(model)


@pytest.mark.parametrize(
    ("name", "fp16_gb", "kv_bytes"),
    [
        ("llama-2-7b", 13.48, 524288),
        ("llama-3-8b", 16.06, 131072),
        ("mistral-7b", 14.48, 131072),
        ("yi-6b", 12.12, 65536),
        ("gemma-7b", 17.08, 458752),
    ],
)
def test_weights_and_cache_of_the_study_have_their_known_sizes(
    name: str, fp16_gb: float, kv_bytes: int
) -> None:
    model = load_catalogue().models[name]
    assert round(model.fp16_bytes / 1e9, 2) == fp16_gb
    assert model.kv_bytes_per_token == kv_bytes


@pytest.mark.parametrize(("name", "tokens_per_s"), [("llama-3-8b", 104), ("yi-6b", 134), ("gemma-7b", 91)])
def test_an_untied_input_table_is_not_read_when_decoding(name: str, tokens_per_s: int) -> None:
    catalogue = load_catalogue()
    bandwidth = catalogue.gpus["a100-40gb"].bandwidth_gb_per_s * 1e9
    assert round(bandwidth / catalogue.models[name].decode_weight_bytes) == tokens_per_s


@pytest.mark.parametrize("name", [*STUDY, *TODAY])
def test_fewer_bits_make_smaller_weights_but_not_smaller_embeddings(name: str) -> None:
    model = load_catalogue().models[name]
    sizes = [model.weight_bytes(each) for each in ("fp16", "int8", "int4")]
    assert sizes[0] == model.weight_bytes("bf16") == model.fp16_bytes
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] > 2 * model.vocab * model.hidden


def test_one_model_refuses_float16() -> None:
    models = load_catalogue().models
    assert [name for name, model in models.items() if not model.float16] == ["gemma-3-1b"]
    assert models["gemma-3-1b"].config_json()["dtype"] == "bfloat16"


def test_a_configuration_has_the_dimensions_of_the_catalogue_and_fewer_layers_on_request() -> None:
    model = load_catalogue().models["gemma-7b"]
    config = model.config_json(layers=2)
    assert (config["num_hidden_layers"], model.config_json()["num_hidden_layers"]) == (2, 28)
    assert (config["hidden_size"], config["head_dim"], config["vocab_size"]) == (3072, 256, 256000)
    assert config["architectures"] == ["GemmaForCausalLM"]


def test_models_that_refuse_a_system_message_are_known() -> None:
    models = load_catalogue().models
    assert [name for name, model in models.items() if not model.system_role] == ["mistral-7b", "gemma-7b"]


def test_every_mistake_is_told_at_once_with_its_line(tmp_path: Path) -> None:
    text = GOOD.replace("    vocab: 64000", "    vocab: many").replace("    kv_heads: 16", "    kv_hedas: 16")
    text = text.replace("memory_gb: 42.4", "memory_gb: -1")
    found = mistakes_of(tmp_path, text)
    assert [int(each.split(":")[1]) for each in found] == sorted(
        [
            line_of(text, "vocab: many"),
            line_of(text, "  gemma-7b:"),
            line_of(text, "kv_hedas"),
            line_of(text, "memory_gb: -1"),
        ]
    )
    assert any("'vocab' is 'many'; write a whole number" in each for each in found)
    assert any("did you mean 'kv_heads'?" in each for each in found)
    assert any("no 'kv_heads' here" in each for each in found)
    assert any("'memory_gb' is '-1'" in each for each in found)


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ("    heads: 16", "    heads: 16\n    heads: 8", "'heads' is given twice"),
        ("    layers: 28", "    layers: 28.0", "'layers' is '28.0'; write a whole number"),
        ("gated: false", "gated: 'no'", "gated"),
        ("bandwidth_gb_per_s: 1555", "bandwidth_gb_per_s: .nan", "'bandwidth_gb_per_s' is '.nan'"),
        ("bandwidth_gb_per_s: 1555", "bandwidth_gb_per_s: .inf", "'bandwidth_gb_per_s' is '.inf'"),
        ("  yi-6b:", "  'yi 6b':", "'name' is 'yi 6b'; write one that matches"),
        ("power_w: 400", "power_w: [400]", "power_w"),
        ("    hidden: 256", "    hidden: 2001-99-99", "'hidden' is '2001-99-99'; write a whole number"),
        ("    hidden: 256", "    hidden: [256", "not valid YAML"),
        ("    license: gemma", "    license: *that", "aliases"),
    ],
)
def test_each_mistake_names_what_is_wrong(tmp_path: Path, before: str, after: str, says: str) -> None:
    assert before in GOOD
    assert any(says in each for each in mistakes_of(tmp_path, GOOD.replace(before, after, 1)))


@pytest.mark.parametrize(
    "text", ["", "- 1\n", "models: 3\n", "? [a]\n: 1\n", "\x00", "models: {x: 3}\n", "[" * 1000]
)
def test_a_file_of_another_shape_is_refused(tmp_path: Path, text: str) -> None:
    assert mistakes_of(tmp_path, text)


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(CatalogueProblems, match=r"nothing\.yaml: cannot be read"):
        load_catalogue(tmp_path / "nothing.yaml")


def test_a_wrong_encoding_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "models.yaml"
    file.write_bytes(b"models: \xff\xfe\n")
    with pytest.raises(CatalogueProblems, match="not UTF-8"):
        load_catalogue(file)


@given(st.text(max_size=200) | st.recursive(st.integers() | st.text(), st.lists).map(yaml.safe_dump))
def test_no_text_brings_anything_but_a_list_of_mistakes(text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "models.yaml"
        file.write_text(text, encoding="utf-8", errors="replace")
        with pytest.raises(CatalogueProblems) as caught:
            load_catalogue(file)
        assert all(each.startswith(str(file)) for each in caught.value.problems)


@pytest.mark.parametrize(
    ("typed", "meant"), [("yi6b", "yi-6b"), ("Llama3-8B", "llama-3-8b"), ("gema-7b", "gemma-7b")]
)
def test_a_slip_of_the_finger_finds_the_nearest_name(typed: str, meant: str) -> None:
    assert nearest(typed, STUDY)[0] == meant

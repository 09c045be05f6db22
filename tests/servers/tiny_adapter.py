"""Writes a LoRA adapter of random weights for the tiny model, which moves every answer of it."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np

RANK = 8


def write_adapter(folder: Path, model: Path, seed: int) -> Path:
    """The folder, with the adapter in it; `model` is that of the model's config.json."""
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    hidden, values = config["hidden_size"], config["num_attention_heads"] * config["head_dim"]
    keys = config["num_key_value_heads"] * config["head_dim"]
    sizes = {"q_proj": (hidden, values), "v_proj": (hidden, keys), "o_proj": (values, hidden)}
    draw, tensors = np.random.default_rng(seed), {}
    for layer in range(config["num_hidden_layers"]):
        for name, (takes, gives) in sizes.items():
            place = f"base_model.model.model.layers.{layer}.self_attn.{name}"
            tensors[f"{place}.lora_A.weight"] = draw.normal(size=(RANK, takes)).astype(np.float16)
            tensors[f"{place}.lora_B.weight"] = draw.normal(size=(gives, RANK)).astype(np.float16)
    folder.mkdir()
    about = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": "tiny", "bias": "none"}
    about |= {"r": RANK, "lora_alpha": 2 * RANK, "target_modules": list(sizes)}
    (folder / "adapter_config.json").write_text(json.dumps(about), encoding="utf-8")
    _write_safetensors(folder / "adapter_model.safetensors", tensors)
    return folder


def _write_safetensors(path: Path, tensors: dict[str, np.ndarray]) -> None:
    """The format is the length of a JSON head in 8 bytes, that head, and the values as they lie in memory."""
    head, end = {}, 0
    for name, values in tensors.items():
        begin, end = end, end + values.nbytes
        head[name] = {"dtype": "F16", "shape": list(values.shape), "data_offsets": [begin, end]}
    text = json.dumps(head).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(v.tobytes() for v in tensors.values()))

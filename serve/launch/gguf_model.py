"""Makes a plain FP16 folder of a model out of a GGUF file.

    VLLM_PYTHON serve/launch/gguf_model.py FOLDER FILE.gguf

Runs as a script under the interpreter that has vLLM, so it imports nothing of ours. Weights at 4 bits become
FP16 ones: they are no more exact than the file, but they are computed with as trained FP16 weights are.
"""

from __future__ import annotations

import sys
from pathlib import Path


def make_folder(folder: Path, file: Path) -> None:
    """Write configuration, weights, tokenizer and chat template."""
    import torch  # type: ignore[import-not-found]
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig  # type: ignore[import-not-found]

    # Without `dequantize` the blocks stay packed, and such a model cannot be saved.
    unpacked = GgufConfig(dequantize=True)
    model = AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, dtype=torch.float16, quantization_config=unpacked
    )
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(folder)


if __name__ == "__main__":
    make_folder(Path(sys.argv[1]), Path(sys.argv[2]))

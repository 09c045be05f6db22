"""Makes the folder of a model without weights: its configuration, and a tokenizer of the right size.

    VLLM_PYTHON serve/launch/tiny_model.py FOLDER CONFIG_JSON system|no-system [weights]

Runs as a script under the interpreter that has vLLM, since `tokenizers` and `transformers` live only there;
so it imports nothing of ours. vLLM fills in random weights (`--load-format dummy`): the words mean nothing,
the timing is real. Nothing is downloaded.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

WORDS = Path(__file__).with_name("tiny_words.txt")
ENDINGS = ("", "", "", "s", "ed", "ing", "er", "ly", "ness", "able", "ment")
SPECIAL = ("<pad>", "<s>", "</s>", "<|system|>", "<|user|>", "<|assistant|>")
NAMED = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
TRAINED = 4096
"""Tokens that the training text can give; a larger vocabulary is filled up with words that only answers use.
Such a one has no special tokens, so that every number stands for text: random weights pick any.
"""
NO_SYSTEM = (
    "{% for message in messages %}"
    "{% if message['role'] != ['user', 'assistant'][loop.index0 % 2] %}"
    "{{ raise_exception('roles must alternate user/assistant, and there is no system message') }}{% endif %}"
    "{% endfor %}"
)
CHAT_TEMPLATE = (
    "{{ '<s>' }}{% for message in messages %}"
    "{% if message['role'] not in ['system', 'user', 'assistant'] %}"
    "{{ raise_exception('roles are system, user and assistant') }}{% endif %}"
    "{{ '<|' + message['role'] + '|>\\n' + message['content'] + '</s>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"
)


def make_folder(folder: Path, config: dict[str, object], system_role: bool = True) -> None:
    """Write config.json and the tokenizer; raises ValueError if the vocabulary does not come out as asked."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    vocab, longest = int(str(config["vocab_size"])), int(str(config["max_position_embeddings"]))
    make_tokenizer(folder, vocab, longest, ("" if system_role else NO_SYSTEM) + CHAT_TEMPLATE)


def make_tokenizer(folder: Path, vocab: int, max_positions: int, chat_template: str) -> None:
    """Train a byte-level BPE (any text can be encoded) of exactly `vocab` tokens and save it."""
    from tokenizers import (  # type: ignore[import-not-found]
        Tokenizer,
        decoders,
        models,
        pre_tokenizers,
        trainers,
    )
    from transformers import PreTrainedTokenizerFast  # type: ignore[import-not-found]

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = list(SPECIAL) if vocab <= TRAINED else []
    trainer = trainers.BpeTrainer(
        vocab_size=min(vocab, TRAINED),
        min_frequency=1,
        special_tokens=special,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(training_text(), trainer)
    if vocab > TRAINED:
        tokenizer = _filled(tokenizer, vocab)
    if tokenizer.get_vocab_size() != vocab:
        raise ValueError(f"the training text gives {tokenizer.get_vocab_size()} tokens instead of {vocab}")
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        **(NAMED if special else {}),
        model_max_length=max_positions,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = chat_template
    fast.save_pretrained(folder)


def _filled(trained: Any, vocab: int) -> Any:
    """The same tokenizer with as many further words as the vocabulary lacks; no merge leads to them."""
    from tokenizers import Tokenizer

    data = json.loads(trained.to_str())
    known = data["model"]["vocab"]
    for word in two_words():
        if len(known) == vocab:
            break
        known.setdefault(word, len(known))
    return Tokenizer.from_str(json.dumps(data))


def two_words() -> Iterator[str]:
    """Two stems in one, each with the mark of a space in front as byte-level BPE writes it."""
    stems = WORDS.read_text(encoding="utf-8").split()
    for first in stems:
        for second in stems:
            yield f"\u0120{first}{second}"


def training_text() -> list[str]:
    """Lines of common words with regular endings; a word without an ending comes three times as often."""
    stems = WORDS.read_text(encoding="utf-8").split()
    lines = []
    for number, stem in enumerate(stems):
        follower = stems[(number * 7 + 3) % len(stems)]
        lines.append(" ".join([stem.capitalize(), *(stem + ending for ending in ENDINGS), follower]) + ".")
    return lines


def make_weights(folder: Path) -> None:
    """Random weights in the folder of a model, for an engine that can't make them up; config.json stays."""
    import torch  # type: ignore[import-not-found]
    from transformers import AutoConfig, AutoModelForCausalLM

    config = (folder / "config.json").read_bytes()
    torch.manual_seed(0)
    read = AutoConfig.from_pretrained(folder)
    AutoModelForCausalLM.from_config(read, dtype=read.dtype).save_pretrained(folder)
    (folder / "config.json").write_bytes(config)


if __name__ == "__main__":
    make_folder(Path(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3] == "system")
    if sys.argv[4:] == ["weights"]:
        make_weights(Path(sys.argv[1]))

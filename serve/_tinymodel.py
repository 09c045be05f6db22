"""Makes the folder of the `tiny` model: a real configuration and tokenizer, and no weights.

    VLLM_PYTHON serve/_tinymodel.py FOLDER CONFIG_JSON

Runs as a script under the interpreter that has vLLM, since `tokenizers` and `transformers` live only there;
so it imports nothing of ours. vLLM fills in random weights (`--load-format dummy`): the words mean nothing,
the timing is real. Nothing is downloaded.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

WORDS = Path(__file__).with_name("tiny_words.txt")
ENDINGS = ("", "", "", "s", "ed", "ing", "er", "ly", "ness", "able", "ment")
SPECIAL = ("<pad>", "<s>", "</s>", "<|system|>", "<|user|>", "<|assistant|>")
CHAT_TEMPLATE = (
    "{{ '<s>' }}{% for message in messages %}"
    "{% if message['role'] not in ['system', 'user', 'assistant'] %}"
    "{{ raise_exception('roles are system, user and assistant') }}{% endif %}"
    "{{ '<|' + message['role'] + '|>\\n' + message['content'] + '</s>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"
)


def make_folder(folder: Path, config: dict[str, object]) -> None:
    """Write config.json and the tokenizer; raises ValueError if the vocabulary does not come out as asked."""
    folder.mkdir(parents=True, exist_ok=True)
    special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    (folder / "config.json").write_text(json.dumps({**config, **special}, indent=2) + "\n", encoding="utf-8")
    make_tokenizer(folder, int(str(config["vocab_size"])), int(str(config["max_position_embeddings"])))


def make_tokenizer(folder: Path, vocab: int, max_positions: int) -> None:
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
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        min_frequency=1,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(training_text(), trainer)
    if tokenizer.get_vocab_size() != vocab:
        raise ValueError(f"the training text gives {tokenizer.get_vocab_size()} tokens instead of {vocab}")
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        model_max_length=max_positions,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(folder)


def training_text() -> list[str]:
    """Lines of common words with regular endings; a word without an ending comes three times as often."""
    stems = WORDS.read_text(encoding="utf-8").split()
    lines = []
    for number, stem in enumerate(stems):
        follower = stems[(number * 7 + 3) % len(stems)]
        lines.append(" ".join([stem.capitalize(), *(stem + ending for ending in ENDINGS), follower]) + ".")
    return lines


if __name__ == "__main__":
    make_folder(Path(sys.argv[1]), json.loads(sys.argv[2]))

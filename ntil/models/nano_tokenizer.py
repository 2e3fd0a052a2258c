"""The nano models' tokenizer: byte-level BPE with 512 entries, every digit and punctuation mark a token of its own.

`python -m ntil.models.nano_tokenizer` trains it again from the sentences below and writes nano_tokenizer.json; the
result is the same on every machine. Byte-level, so any text in any script can be written with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

FILE = Path(__file__).with_suffix(".json")
VOCABULARY = 512
SPECIAL = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
IMAGE = "<image>"

# Prompts in the wording of the tasks, so that a prompt takes few tokens.
SENTENCES = """
USER: What time is it? ASSISTANT:
USER: Where is the large red circle left of the small blue square? Give its box. ASSISTANT:
USER: Find the box of the second green triangle above the yellow star on the right. ASSISTANT:
USER: Find all the words in the picture and give their polygons in reading order. ASSISTANT:
USER: How many objects are there? What is the value of the largest bar in the chart? ASSISTANT:
USER: What is the sum, difference, product of these numbers? Answer with a number. ASSISTANT:
Hint: Please answer the question requiring an integer answer and provide the final value, e.g., at the end.
Question: Which of the following choices is the correct option letter? Choices: (A) (B) (C) (D)
Human: Assistant: system user assistant locate detect answer en
minus plus times divided by equals negative point half third quarter hour minute second
left right top bottom middle centre width height small large tiny big red green blue yellow orange purple black white
person dog cat bicycle car bus truck train boat bird horse sheep cow elephant bear zebra giraffe bottle cup bowl chair
"""


def train() -> Tokenizer:
    """Train the tokenizer on `SENTENCES`, with `VOCABULARY` entries; deterministic."""
    tokenizer = Tokenizer(models.BPE(unk_token=None))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\d|[^\s\w]|\n| ?\p{L}+"), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[*SPECIAL.values(), IMAGE],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES.strip().splitlines(), trainer)
    return tokenizer


def load(extra: Sequence[str] = (), **special: str) -> PreTrainedTokenizerFast:
    """The tokenizer with further tokens of a family; `special` renames pad_token, bos_token, eos_token or unk_token."""
    return PreTrainedTokenizerFast(
        tokenizer_file=str(FILE),
        extra_special_tokens=[IMAGE, *extra],
        clean_up_tokenization_spaces=False,
        **{**SPECIAL, **special},
    )


def special_ids(tokenizer: Any) -> dict[str, Any]:
    """A tokenizer's special ids as the fields of a model's config."""
    return {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("pad", "bos", "eos")}


if __name__ == "__main__":
    train().save(str(FILE), pretty=False)
    print(f"{FILE.name}: {train().get_vocab_size()} entries")

"""A model, a tokenizer and rows that need no download, for the examples beside this file; take your own instead."""

from __future__ import annotations

import random

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from ntil.models import nano_tokenizer


def tokenizer() -> PreTrainedTokenizerBase:
    return nano_tokenizer.load()


def model(tokenizer: PreTrainedTokenizerBase, seed: int = 0) -> PreTrainedModel:
    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=64,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )


def rows(count: int, seed: int = 0) -> list[dict[str, str]]:
    """Sums of two prices: `USER: What is the sum of 3.5 and 12? ASSISTANT:` and ` 15.5`."""
    pick = random.Random(seed)
    pairs = [(pick.randint(0, 200) / 2, pick.randint(0, 99)) for _ in range(count)]
    return [
        {"prompt": f"USER: What is the sum of {a:g} and {b}? ASSISTANT:", "completion": f" {a + b:g}"} for a, b in pairs
    ]

"""Tokenizers that merge digits into one token: their detection, and a variant that keeps digits apart.

LLaMA-3 writes `1024` as `102` + `4`; a loss over digits can't see these. `digit_by_digit` gives a tokenizer that
differs in one thing: every ASCII digit is a token of its own. The model's vocabulary stays as it is, and decoding needs
no change, since each digit has a token in every such vocabulary.
"""

from __future__ import annotations

import copy
from typing import Any

DIGITS = frozenset("0123456789")


def merged_digit_ids(tokenizer: Any) -> list[int]:
    """Ids of tokens that hold an ASCII digit together with more digits, signs or spaces (`103`, `▁7`, `.5`).

    Tokens with letters (`<loc0007>`, `<0x30>`) and special tokens are left out: they are names, not parts of numbers.
    """
    special = set(getattr(tokenizer, "all_special_ids", ()))
    longer = [(t, i) for t, i in tokenizer.get_vocab().items() if len(t) > 1 and not DIGITS.isdisjoint(t)]
    return sorted(i for t, i in longer if i not in special and not _is_name(t) and _is_numeric(_text(tokenizer, t)))


def keeps_digits_apart(tokenizer: Any) -> bool:
    """Whether numbers come out as one token a digit (a probe, since vocabularies may hold tokens they never use)."""
    probe = "0123456789 1024 7 3.25 -60 (100,999)"
    tokens = tokenizer.convert_ids_to_tokens(tokenizer(probe, add_special_tokens=False)["input_ids"])
    return all(len(t) == 1 for t in tokens if not DIGITS.isdisjoint(t))


def digit_by_digit(tokenizer: Any) -> Any:
    """Return `tokenizer` itself if it keeps digits apart, else a copy that does, for answers with numbers.

    The split is a further step of the pre-tokenizer, so text around the digits is cut as before.

    Raises:
        ValueError: a tokenizer without the `tokenizers` backend, whose rules can't be extended.
    """
    if keeps_digits_apart(tokenizer):
        return tokenizer
    if getattr(tokenizer, "backend_tokenizer", None) is None:
        raise ValueError(
            f"{type(tokenizer).__name__} merges digits and has no fast backend to split them; use its fast class"
        )
    from tokenizers import Regex
    from tokenizers.pre_tokenizers import Sequence, Split

    apart = copy.deepcopy(tokenizer)
    backend = apart.backend_tokenizer
    split = Split(Regex("[0-9]"), behavior="isolated")
    backend.pre_tokenizer = split if backend.pre_tokenizer is None else Sequence([backend.pre_tokenizer, split])
    if not keeps_digits_apart(apart):
        raise ValueError(f"{type(tokenizer).__name__} merges digits even when they are split before its merges")
    return apart


def _text(tokenizer: Any, token: str) -> str:
    to_text = getattr(tokenizer, "convert_tokens_to_string", None)
    return to_text([token]) if to_text else token


def _is_name(token: str) -> bool:
    return token.startswith("<") and token.endswith(">")


def _is_numeric(text: str) -> bool:
    return not DIGITS.isdisjoint(text) and not any(c.isalpha() for c in text)

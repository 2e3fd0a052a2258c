"""Numbers in token sequences: digit ids, number spans, digit-by-digit tokenizers."""

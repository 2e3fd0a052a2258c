"""A mini LLaVA with the real geometry, and how many questions RefCOCOg asks about a picture."""

from __future__ import annotations

import gzip
import json
import os
from collections import Counter
from pathlib import Path

WORDS = 32_064
MODEL = [
    "model=llava_nano",
    "model.image_size=336",
    "model.patch_size=14",
    "model.vision={hidden_size: 384, intermediate_size: 1536, num_hidden_layers: 6, num_attention_heads: 6}",
    "model.language={hidden_size: 512, intermediate_size: 1376, num_hidden_layers: 8, num_attention_heads: 8}",
]


def gref_counts() -> list[int]:
    """Questions of each picture of RefCOCOg's validation split."""
    folder = Path(os.environ.get("NTIL_SHARED", "../shared")) / "assets/data/gref"
    if not folder.is_dir():
        raise SystemExit(f"{folder} is not there: set NTIL_SHARED, or take --questions 1,2,4,8")
    expressions = json.loads((folder / "gref_val1000_refexps.json").read_text())
    image_of = {row["ann_id"]: row["image_id"] for row in expressions}
    with gzip.open(folder / "sample_results_comprehension.json.gz", "rt") as file:
        return list(Counter(image_of[row["annotation_id"]] for row in json.load(file)).values())

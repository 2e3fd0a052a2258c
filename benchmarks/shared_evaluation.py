"""Greedy answers to several questions a picture: the picture computed once, against once a question.

    python -m benchmarks.shared_evaluation                          # 1, 2, 4 and 8 questions a picture; minutes
    python -m benchmarks.shared_evaluation --questions 8 --rounds 5 --where
    python -m benchmarks.shared_evaluation --questions gref         # as many as RefCOCOg's pictures have

A mini LLaVA with the real geometry: 336 pixels, 576 tokens a picture, 32,064 words; hidden 512, 8 layers; a tower of
hidden 384 and 6 layers; random weights, so every answer has `--tokens` tokens. Everything of an evaluation is in the
time: pictures are read and prepared, rows grouped, answers scored. Both ways take turns on the same rows, `--rounds`
times, and the median counts. On a CPU it is the process's own time, which others on the machine hardly change; with
one thread (OMP_NUM_THREADS=1) that is what a clock would show on an idle machine. Ratios compare within one run only.

`gref` reads questions a picture from $NTIL_SHARED: the 9,536 expressions of RefCOCOg's validation split.
"""

from __future__ import annotations

import argparse
import io
import statistics
import time
from collections import defaultdict
from typing import Any

import numpy as np
import torch
from datasets import Dataset, Features, Value
from datasets import Image as Picture
from PIL import Image

from benchmarks.mini_llava import MODEL, WORDS, gref_counts
from data.common.rows import Row
from ntil.collator import Collator
from ntil.components import Components
from ntil.evaluation.generate import predict
from ntil.preflight import compose_checked
from tasks.answers.failure import ParseFailure
from tasks.base import Task

PROMPT_TOKENS = 46  # of a question: RefCOCO's are about as long with LLaVA's own words around them


class Asked(Task):
    """Rows say their own question."""

    metric = "exact"

    def __init__(self, max_new_tokens: int) -> None:
        self.max_new_tokens = max_new_tokens

    def prompt(self, row: Row) -> str:
        return str(row["prompt"])

    def answer(self, row: Row) -> str:
        return "0"

    def parse(self, text: str, row: Row) -> Any | ParseFailure:
        return text

    def score(self, prediction: Any | ParseFailure, row: Row) -> dict[str, float]:
        return {"exact": float(prediction == "0")}


def mini_llava(tokens: int) -> tuple[Any, Collator]:
    """The model and a collator of its rows."""
    words = [*MODEL, "task=clock", "loss=ce", "tracker=none"]
    components = Components.build(compose_checked(words))
    family = components.family
    family.config.text_config.vocab_size = WORDS
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model: Any = family.load()
    return model.eval().to(device), Collator(family, Asked(tokens), components.vocab, "decimal")


def rows_of(counts: list[int], collator: Collator) -> Dataset:
    """Pictures with so many questions each, of about `PROMPT_TOKENS` tokens with the words around them."""
    rng = np.random.default_rng(0)
    rows = []
    for picture, count in enumerate(counts):
        file = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (336, 336, 3), dtype=np.uint8)).save(file, "PNG")
        for i in range(count):
            text = f"{picture} {i} {' '.join(str(n) for n in rng.integers(0, 10, 99))}"
            while len(collator.family.encode_text(text, None, True).prompt_ids) > PROMPT_TOKENS:
                text = text[:-1].rstrip()
            rows.append({"id": f"{picture}-{i}", "image": {"bytes": file.getvalue(), "path": None}, "prompt": text})
    return Dataset.from_list(rows, Features({"id": Value("string"), "image": Picture(), "prompt": Value("string")}))


def seconds_now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def measure(model: Any, collator: Collator, rows: Dataset, batch: int, rounds: int) -> tuple[dict[bool, float], bool]:
    """Median seconds with and without sharing, and whether all answers are the same."""
    seconds: dict[bool, list[float]] = defaultdict(list)
    texts: dict[bool, list[str]] = {}
    for turn in range(2 * rounds):
        shared = bool(turn % 2) if turn // 2 % 2 else not turn % 2  # neither is always the second
        start = seconds_now()
        texts[shared] = [r["text"] for r in predict(model, collator, rows, batch, share_prompts=shared or False)]
        seconds[shared].append(seconds_now() - start)
    return {shared: statistics.median(times) for shared, times in seconds.items()}, texts[True] == texts[False]


def where(model: Any, collator: Collator, rows: Dataset, batch: int) -> None:
    """Print the operations that take the most of each way."""
    for shared in (True, False):
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            list(predict(model, collator, rows, batch, share_prompts=shared))
        print(f"share_prompts={shared}")
        print(profile.key_averages().table(sort_by="self_cpu_time_total", row_limit=10, max_name_column_width=40))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", default="1,2,4,8", help="a picture; or gref")
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=24, help="of an answer: a box of four fractions")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--where", action="store_true", help="the operations that take the most")
    options = parser.parse_args()
    model, collator = mini_llava(options.tokens)
    if options.questions == "gref":
        cases = {"gref": gref_counts()[: options.rows // 2]}
    else:
        numbers = [int(number) for number in options.questions.split(",")]
        cases = {str(number): [number] * max(1, options.rows // number) for number in numbers}
    print(f"{torch.get_num_threads()} threads, {model.device}, {options.tokens} tokens an answer, {options.batch} rows")
    print(f"{'questions':>10} {'rows':>5} {'shared s':>9} {'unshared s':>11} {'ratio':>6}  answers")
    for name, counts in cases.items():
        rows = rows_of(counts, collator)
        took, same = measure(model, collator, rows, options.batch, options.rounds)
        ratio, answers = took[False] / took[True], "equal" if same else "DIFFERENT"
        print(f"{name:>10} {len(rows):>5} {took[True]:>9.2f} {took[False]:>11.2f} {ratio:>6.2f}  {answers}", flush=True)
        if options.where:
            where(model, collator, rows, options.batch)


if __name__ == "__main__":
    main()

"""How the rule-based extraction agrees with MathVista's stored one.

    python docs/figures/mathvista_extraction.py <folder>

The folder holds testmini.json and official_outputs.jsonl.gz (model, pid, response, extraction of every stored output).
"""

from __future__ import annotations

import gzip
import json
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from tasks.answers.mathvista_extraction import extract, last_sentence
from tasks.metrics.mathvista import normalize, verdict


def main(folder: Path) -> None:
    problems = json.loads((folder / "testmini.json").read_text())
    runs: dict[str, Counter[str]] = defaultdict(Counter)
    with gzip.open(folder / "official_outputs.jsonl.gz", "rt") as file:
        for line in map(json.loads, file):
            runs[line["model"]].update(agreement(line, problems[line["pid"]]))
    print("| run | found | same answer | same verdict | ... of all | ... by the nearest | right | officially right |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for model, c in runs.items():
        shares = [f"{c[key] / max(c['found'], 1):.1%}" for key in ("same answer", "same verdict found")]
        shares += [f"{c[key] / c['all']:.1%}" for key in ("same verdict", "same nearest")]
        print(f"| {model} | {c['found']} | {' | '.join(shares)} | {c['right']} | {c['official']} |")


def agreement(line: dict[str, Any], problem: dict[str, Any]) -> Counter[str]:
    """What agrees of one stored output, each as 0 or 1."""
    found, official = extract(line["response"], problem), verdict(line["extraction"], problem)
    right = found is not None and verdict(found, problem)
    nearest = right
    if found is None and problem["question_type"] == "multi_choice":
        nearest = verdict(last_sentence(line["response"]), problem)
    form = [problem[name] for name in ("choices", "question_type", "answer_type", "precision")]
    return Counter(
        {
            "all": 1,
            "found": found is not None,
            "right": right,
            "official": official,
            "same verdict": right == official,
            "same verdict found": found is not None and right == official,
            "same nearest": nearest == official,
            "same answer": found is not None and normalize(found, *form) == normalize(line["extraction"], *form),
        }
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))

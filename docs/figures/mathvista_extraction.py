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

from tasks.answers.mathvista_extraction import extract
from tasks.metrics.mathvista import normalize, verdict


def main(folder: Path) -> None:
    problems = json.loads((folder / "testmini.json").read_text())
    runs: dict[str, Counter[str]] = defaultdict(Counter)
    with gzip.open(folder / "official_outputs.jsonl.gz", "rt") as file:
        for line in map(json.loads, file):
            problem, count = problems[line["pid"]], runs[line["model"]]
            found, official = extract(line["response"], problem), verdict(line["extraction"], problem)
            right = found is not None and verdict(found, problem)
            count["all"] += 1
            count["found"] += found is not None
            count["same verdict"] += right == official
            count["right"] += right
            count["official"] += official
            count["luck"] += found is None and official
            if found is not None:
                form = [problem[name] for name in ("choices", "question_type", "answer_type", "precision")]
                count["same answer"] += normalize(found, *form) == normalize(line["extraction"], *form)
                count["same verdict found"] += right == official
    print("| run | found | same answer | same verdict | ... of all | right | officially right | unfound but right |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for model, c in runs.items():
        shares = [f"{c[key] / max(c['found'], 1):.1%}" for key in ("same answer", "same verdict found")]
        shares.append(f"{c['same verdict'] / c['all']:.1%}")
        print(f"| {model} | {c['found']} | {' | '.join(shares)} | {c['right']} | {c['official']} | {c['luck']} |")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

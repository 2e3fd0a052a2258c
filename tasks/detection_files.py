"""Score a detector's result files against ground truth as it is downloaded, without pictures or a model:

    python -m tasks.detection_files gt.zip results.zip --format icdar2015
    python -m tasks.detection_files total-text-gt.zip total-text_baseline.zip --format totaltext --deteval totaltext

Prints the figures as JSON. A picture without a result file has no detections, as in the official scripts; a result file
without ground truth is an error.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from data.broken import BrokenInput
from data.text_truth import FORMATS, Annotated, Format, read_found, read_truth
from tasks.detection_scores import DetEval, Truth, deteval, figures, match, means


def score(
    truth: dict[str, Annotated],
    found: dict[str, Annotated],
    version: DetEval | None = None,
    thresholds: tuple[float, float] | None = None,
) -> dict[str, float]:
    """Micro-averaged figures of all pictures, and how many annotations and detections they are of.

    `version` and `thresholds` are those of DetEval, see `tasks.detection_scores`.

    Raises:
        BrokenInput: results for a picture that the ground truth doesn't have.
    """
    unknown = sorted(found.keys() - truth.keys())
    if unknown:
        place = found[unknown[0]].where
        raise BrokenInput(place, None, f"the ground truth has no picture {unknown[0]}", "compare the files' names")
    sums: dict[str, float] = {}
    for key, annotated in truth.items():
        true = [Truth(i.points, i.ignore) for i in annotated.instances]
        detected = [i.points for i in found[key].instances] if key in found else []
        for name, value in match(true, detected).items():
            sums[name] = sums.get(name, 0.0) + value
        for name, value in deteval(true, detected, version, thresholds).items() if version else ():
            sums[f"deteval_{name}"] = sums.get(f"deteval_{name}", 0.0) + value
    values = {"pictures": float(len(truth)), "true": sums["true"], "found": sums["found"], **figures(sums)}
    if version:
        given = (sums[f"deteval_{k}"] for k in ("recall", "true", "precision", "found"))
        values |= {f"deteval_{k}": v for k, v in means(*given).items()}
    return values


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tasks.detection_files", description=__doc__.splitlines()[0])
    parser.add_argument("truth", type=Path, help="ground truth: a folder, zip or file")
    parser.add_argument("found", type=Path, help="results: a folder or zip of .txt files")
    parser.add_argument("--format", choices=FORMATS, required=True, help="of the ground truth, see data/text_truth.py")
    parser.add_argument("--deteval", choices=("icdar2013", "totaltext"), help="DetEval beside the IoU protocol")
    parser.add_argument("--y-first", action="store_true", help="results are y, x (Total-Text's own)")
    given = parser.parse_args(words)
    form: Format = given.format
    try:
        values = score(read_truth(given.truth, form), read_found(given.found, form, given.y_first), given.deteval)
    except BrokenInput as error:
        print(error, file=sys.stderr)
        return 2
    print(json.dumps(values, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())

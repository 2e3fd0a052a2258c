"""Score a detector's result files against ground truth as it is downloaded, without pictures or a model.

    python -m tasks.metrics.detection_cli gt.zip results.zip --format icdar2015
    python -m tasks.metrics.detection_cli gt.zip total-text_baseline.zip --format totaltext --deteval totaltext

Prints the figures as JSON. A picture without a result file has no detections, as in the official scripts; a result file
without ground truth is an error.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from data.common.errors import InvalidData
from data.text_detection.ground_truth import FORMATS, Annotated, Format, read_found, read_truth
from tasks.metrics.detection import DetEval, TrueText, deteval, figures, match, means


def score(
    truth: dict[str, Annotated],
    detections: dict[str, Annotated],
    version: DetEval | None = None,
    thresholds: tuple[float, float] | None = None,
) -> dict[str, float]:
    """Micro-averaged figures of all pictures, and how many annotations and detections they are of.

    `version` and `thresholds` are those of DetEval, see `tasks.metrics.detection`.

    Raises:
        InvalidData: results for a picture that the ground truth doesn't have.
    """
    unknown = sorted(detections.keys() - truth.keys())
    if unknown:
        where = detections[unknown[0]].where
        raise InvalidData(where, None, f"the ground truth has no picture {unknown[0]}", "compare the files' names")
    sums: dict[str, float] = {}
    for key, annotated in truth.items():
        true = [TrueText(i.points, i.ignore) for i in annotated.instances]
        detected = [i.points for i in detections[key].instances] if key in detections else []
        for name, value in match(true, detected).items():
            sums[name] = sums.get(name, 0.0) + value
        for name, value in deteval(true, detected, version, thresholds).items() if version else ():
            sums[f"deteval_{name}"] = sums.get(f"deteval_{name}", 0.0) + value
    values = {"pictures": float(len(truth)), "true": sums["true"], "found": sums["found"], **figures(sums)}
    if version:
        deteval_sums = (sums[f"deteval_{k}"] for k in ("recall", "true", "precision", "found"))
        values |= {f"deteval_{k}": v for k, v in means(*deteval_sums).items()}
    return values


def main(words: list[str] | None = None) -> int:
    """Run the command on `words` (default: `sys.argv`); the exit code, 2 for data that can't be used."""
    parser = argparse.ArgumentParser(prog="python -m tasks.metrics.detection_cli", description=__doc__.splitlines()[0])
    parser.add_argument("truth", type=Path, help="ground truth: a folder, zip or file")
    parser.add_argument("found", type=Path, help="results: a folder or zip of .txt files")
    parser.add_argument(
        "--format", choices=FORMATS, required=True, help="of the ground truth, see data/text_detection/ground_truth.py"
    )
    parser.add_argument("--deteval", choices=("icdar2013", "totaltext"), help="DetEval beside the IoU protocol")
    parser.add_argument("--y-first", action="store_true", help="results are y, x (Total-Text's own)")
    arguments = parser.parse_args(words)
    form: Format = arguments.format
    try:
        values = score(
            read_truth(arguments.truth, form), read_found(arguments.found, form, arguments.y_first), arguments.deteval
        )
    except InvalidData as error:
        print(error, file=sys.stderr)
        return 2
    print(json.dumps(values, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())

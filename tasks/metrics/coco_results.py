"""Write the boxes of a detection run as COCO's result file, for COCO's own tools and evaluation servers.

    python -m tasks.metrics.coco_results <run>/predictions.jsonl instances_val2017.json results.json

The k-th box of an answer has the confidence 1 / k, as in the metric `map`. Boxes of a name that is no category of the
file can't be written; they are counted. Prints pycocotools' figures of the pictures that were asked, as JSON: with its
own limit of 100 boxes a picture, and with every category of these pictures' annotations, asked for or not.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from data.common import fields
from data.common.errors import InvalidData, RowErrors, short
from data.common.fields import Key
from data.common.files import replacing
from data.common.table_files import Located, read_table
from data.grounding.categories import image_names
from data.grounding.coco import Coco, read_coco, refuse_repeated_pictures
from data.objects.schema import plain_label

FIGURES = ("map", "map_0.5", "map_0.75", "map_small", "map_medium", "map_large")


def coco_results(records: Iterable[Located], coco: Coco) -> tuple[list[dict[str, Any]], list[Key], int]:
    """Entries of a result file, the images that were asked, and how many boxes are of no category.

    Args:
        records: every line of a `predictions.jsonl`.

    Raises:
        InvalidData: a line that is no detection record, or of a picture that the file hasn't.
    """
    ids = {name: key for key, name in image_names(coco).items()}
    categories = {plain_label(str(entry.get("name"))): key for key, entry in coco.categories.entries.items()}
    results, asked, unknown = [], [], 0
    for _, where, record in records:
        row_id = fields.text(record.get("id"), where, "id")
        # Behind the split's name, which may have hyphens itself.
        name = next((row_id[i + 1 :] for i, c in enumerate(row_id) if c == "-" and row_id[i + 1 :] in ids), None)
        if name is None:
            problem = f"{short(row_id)} is of no picture of {coco.path}"
            raise InvalidData(where, "id", problem, "give the annotation file that the run was tested on")
        if "predicted" not in record:
            raise InvalidData(where, "predicted", "is missing", "give the predictions.jsonl of a detection run")
        asked.append(ids[name])
        for rank, (x1, y1, x2, y2, label) in enumerate(record["predicted"], start=1):
            category = categories.get(plain_label(label))
            if category is None:
                unknown += 1
                continue
            box = [x1, y1, x2 - x1, y2 - y1]
            results.append({"image_id": ids[name], "category_id": category, "bbox": box, "score": 1 / rank})
    return results, asked, unknown


def figures(truth: Path, results: list[dict[str, Any]], images: list[Key]) -> dict[str, float]:
    """COCO's figures of `images`, -1 where there is nothing of a size."""
    if not results:
        return dict.fromkeys(FIGURES, 0.0)
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = _filled(json.loads(truth.read_text(encoding="utf-8")))
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(results), "bbox")
        evaluation.params.imgIds = images
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return {name: float(value) for name, value in zip(FIGURES, evaluation.stats, strict=False)}


def _filled(document: dict[str, Any]) -> dict[str, Any]:
    """The annotation file with the fields that COCO's tools need and many exports leave out: `iscrowd` and `area`."""
    for annotation in document["annotations"]:
        annotation["iscrowd"] = annotation.get("iscrowd") or 0
        if annotation.get("area") is None:
            annotation["area"] = float(annotation["bbox"][2]) * float(annotation["bbox"][3])
    return document


def main(words: list[str] | None = None) -> int:
    """Run the command on `words` (default: `sys.argv`); the exit code, 2 for data that can't be used."""
    assert __doc__
    parser = argparse.ArgumentParser(prog="python -m tasks.metrics.coco_results", description=__doc__.splitlines()[0])
    parser.add_argument("predictions", type=Path, help="predictions.jsonl of a run with task=detection")
    parser.add_argument("annotations", type=Path, help="COCO's annotation file that the run was tested on")
    parser.add_argument("results", type=Path, help="the file to write")
    arguments = parser.parse_args(words)
    try:
        coco = read_coco(arguments.annotations, RowErrors("skip"))
        refuse_repeated_pictures(coco)
        results, asked, unknown = coco_results(read_table(arguments.predictions, RowErrors()), coco)
    except InvalidData as error:
        print(error, file=sys.stderr)
        return 2
    with replacing(arguments.results) as partial:
        partial.write_text(json.dumps(results))
    counts = {"pictures": len(asked), "boxes": len(results), "boxes_of_no_category": unknown}
    print(json.dumps({**counts, **figures(arguments.annotations, results, asked)}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())

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
from data.grounding.coco import Coco, Entry, read_coco, refuse_repeated_pictures
from data.objects.schema import plain_label

FIGURES = ("map", "map_0.5", "map_0.75", "map_small", "map_medium", "map_large")
SIDES = "write [x, y, width, height]"


def coco_results(records: Iterable[Located], coco: Coco) -> tuple[list[dict[str, Any]], list[Key], int]:
    """Entries of a result file, the images that were asked, and how many boxes are of no category.

    The ids in the entries are written as in the annotation file: servers take 7 and "7" for two images.

    Args:
        records: every line of a `predictions.jsonl`.

    Raises:
        InvalidData: a line that is no detection record, or of a picture that the file hasn't; a name of two categories.
    """
    ids = {name: key for key, name in image_names(coco).items()}
    categories = _categories(coco)
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
        image_id = coco.images.entries[ids[name]]["id"]
        for rank, (x1, y1, x2, y2, label) in enumerate(record["predicted"], start=1):
            category = categories.get(plain_label(label))
            if category is None:
                unknown += 1
                continue
            box = [x1, y1, x2 - x1, y2 - y1]
            results.append({"image_id": image_id, "category_id": category, "bbox": box, "score": 1 / rank})
    return results, asked, unknown


def _categories(coco: Coco) -> dict[str, Any]:
    """Name of every category -> its id, as written in the file.

    Raises:
        InvalidData: one name of two categories.
    """
    names: dict[str, Any] = {}
    for key, entry in coco.categories.entries.items():
        if not isinstance(entry.get("name"), str):
            continue
        name = plain_label(entry["name"])
        if name in names:
            problem = f"{short(entry['name'])} is the name of category {short(names[name])} too"
            where = f"{coco.path}, category {key}"
            raise InvalidData(where, "name", problem, "give every category a name that no other has")
        names[name] = entry["id"]
    return names


def figures(coco: Coco, results: list[dict[str, Any]], images: list[Key]) -> dict[str, float]:
    """COCO's figures of `images`, -1 where there is nothing of a size.

    Raises:
        InvalidData: an annotation of one of them that can't be used.
    """
    if not results:
        return dict.fromkeys(FIGURES, 0.0)
    image_numbers = {key: number for number, key in enumerate(dict.fromkeys(images), start=1)}
    category_numbers = {key: number for number, key in enumerate(coco.categories.entries, start=1)}
    answers = [
        {
            "image_id": image_numbers[fields.key(entry["image_id"], str(coco.path), "image_id")],
            "category_id": category_numbers[fields.key(entry["category_id"], str(coco.path), "category_id")],
            "bbox": entry["bbox"],
            "score": entry["score"],
        }
        for entry in results
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = _plain(coco, image_numbers, category_numbers)
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(answers), "bbox")
        evaluation.params.imgIds = list(image_numbers.values())
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return {name: float(value) for name, value in zip(FIGURES, evaluation.stats, strict=False)}


def _plain(coco: Coco, images: dict[Key, int], categories: dict[Key, int]) -> dict[str, Any]:
    """The annotations of `images` as pycocotools needs them, with what many exports leave out.

    All ids are numbers from 1: pycocotools takes an annotation with the id 0 for unmatched, of two with one id it has
    one, and it sorts ids.
    """
    annotations: list[dict[str, Any]] = []
    for key, number in images.items():
        for where, entry in coco.of_image[key]:
            ids = {
                "id": len(annotations) + 1,
                "image_id": number,
                "category_id": categories[_category(coco, entry, where)],
            }
            box = [fields.number(side, where, "bbox") for side in fields.items(entry.get("bbox"), where, "bbox", SIDES)]
            if len(box) != 4:
                raise InvalidData(where, "bbox", f"has {len(box)} numbers", SIDES)
            crowd = int(fields.flag(entry.get("iscrowd"), where, "iscrowd"))
            area = fields.filled(entry.get("area"))
            area = box[2] * box[3] if area is None else fields.number(area, where, "area")
            annotations.append({**ids, "bbox": box, "area": area, "iscrowd": crowd})
    listed = [{"id": number} for number in images.values()], [{"id": number} for number in categories.values()]
    return {"images": listed[0], "categories": listed[1], "annotations": annotations}


def _category(coco: Coco, annotation: Entry, where: str) -> Key:
    key = fields.key(annotation.get("category_id"), where, "category_id")
    if coco.categories.get(key) is None:
        problem = f"the file has no category {short(key)}"
        raise InvalidData(where, "category_id", problem, "add it to categories, or correct the annotation")
    return key


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
        values = figures(coco, results, asked)
    except InvalidData as error:
        print(error, file=sys.stderr)
        return 2
    with replacing(arguments.results) as partial:
        partial.write_text(json.dumps(results))
    counts = {"pictures": len(asked), "boxes": len(results), "boxes_of_no_category": unknown}
    print(json.dumps({**counts, **values}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())

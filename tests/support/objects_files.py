"""Tiny files of several objects a picture, in the layouts of their releases."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image


def write_grefs(folder: Path) -> Path:
    release = folder / "refer/grefcoco"
    release.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (60, 40), "grey").save(release / "a.png")
    boxes = {11: [5, 4, 20, 30], 12: [30, 10, 25, 20]}
    annotations = [{"id": i, "image_id": 1, "category_id": 1, "bbox": box} for i, box in boxes.items()]
    images = [{"id": 1, "file_name": "a.png", "width": 60, "height": 40}]
    (release / "instances.json").write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": []})
    )
    meant = {"two dogs": [11, 12], "the left dog": [11], "a cat": [-1]}
    refs = [
        {
            "ref_id": i,
            "image_id": 1,
            "ann_id": ids,
            "split": split,
            "no_target": ids == [-1],
            "sentences": [{"sent": sent, "sent_id": i}],
        }
        for number, split in enumerate(("train", "val", "testA", "testB"))
        for i, (sent, ids) in enumerate(meant.items(), start=10 * number)
    ]
    (release / "grefs(unc).json").write_text(json.dumps(refs))
    return release


def write_points(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (200, 100), "grey").save(folder / "s.png")
    screen = [
        {"img_filename": "s.png", "bbox": [20, 10, 40, 30], "instruction": "the save button", "data_type": "icon"}
    ]
    pixmo = [
        {"image": "s.png", "label": "birds", "points": [{"x": 10.0, "y": 50}, {"x": 99.5, "y": 0}], "count": 2},
        {"image": "s.png", "label": "cats", "points": [], "count": 0},
    ]
    (folder / "screen.json").write_text(json.dumps([{"id": f"s-{i}", **row} for i, row in enumerate(screen * 2)]))
    pixmo = [{"id": f"p-{i}", **row} for i, row in enumerate(pixmo)]
    (folder / "pixmo.jsonl").write_text("\n".join(map(json.dumps, pixmo)))

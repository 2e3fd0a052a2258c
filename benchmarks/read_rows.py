"""Processor seconds that a run's five readings of RefCOCO take: a split at a time, and from the cache of rows.

`python -m benchmarks.read_rows [share]` from the project's root, with `NTIL_SHARED` set to the shared assets: a REFER
release of RefCOCO's size (19,994 pictures, 50,000 references, 142,209 sentences, 196,771 annotations; `share` of it,
default 1), of real G-Ref sentences and real COCO photographs, both repeated, with boxes drawn at random. A run reads
its training, validation and test rows, and the last twice more: for the test and for the tracker's pictures.
"""

from __future__ import annotations

import json
import os
import pickle
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from PIL import Image

PICTURES, REFERENCES, SENTENCES, ANNOTATIONS = 19_994, 50_000, 142_209, 196_771
# Of RefCOCO's references (unc): 42,404, 3,811, 1,975 and 1,810.
SPLITS = {"train": 42_404, "val": 3_811, "testA": 1_975, "testB": 1_810}
READ_BY_A_RUN = ("train", "validation", "test", "test", "test")


def write_release(root: Path, shared: Path, share: float) -> Path:
    """<root>/refcoco and its pictures, hard links to copies of the photographs."""
    rng, folder, pictures = random.Random(0), root / "refcoco", root / "pictures"
    folder.mkdir()
    pictures.mkdir()
    images = []
    photos = sorted((shared / "assets/data/coco128/images/train2017").glob("*.jpg"))
    for number in range(int(PICTURES * share)):
        photo, name = photos[number % len(photos)], f"COCO_train2014_{number:012d}.jpg"
        if number < len(photos):
            shutil.copy(photo, pictures / name)
        else:
            os.link(pictures / f"COCO_train2014_{number % len(photos):012d}.jpg", pictures / name)
        width, height = Image.open(pictures / name).size
        images.append({"id": number, "file_name": name, "width": width, "height": height})
    annotations = [_annotation(number, images[number % len(images)], rng) for number in range(int(ANNOTATIONS * share))]
    categories = [{"id": 1, "name": "thing", "supercategory": "thing"}]
    document = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "instances.json").write_text(json.dumps(document))
    (folder / "refs(unc).p").write_bytes(pickle.dumps(_references(shared, annotations, share), 2))
    for file in (folder / "instances.json", folder / "refs(unc).p", *pictures.iterdir()):
        os.utime(file, (0, 0))  # a release isn't of this second
    return folder


def _annotation(number: int, image: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    x, y = (round(rng.uniform(0, image[side] / 2), 2) for side in ("width", "height"))
    w, h = (round(rng.uniform(20, image[side] / 2), 2) for side in ("width", "height"))
    outline = [round(rng.uniform(0, 400), 2) for _ in range(40)]  # as long as COCO's are on average
    about = {"id": number, "image_id": image["id"], "category_id": 1, "iscrowd": 0, "area": w * h}
    return {**about, "bbox": [x, y, w, h], "segmentation": [outline]}


def _references(shared: Path, annotations: list[dict[str, Any]], share: float) -> list[dict[str, Any]]:
    texts = [item["refexp"] for item in json.loads((shared / "assets/data/gref/gref_val1000_refexps.json").read_text())]
    splits = [split for split, count in SPLITS.items() for _ in range(int(count * share))]
    refs, sentence = [], 0
    for number, split in enumerate(splits):
        count = (number + 1) * SENTENCES // REFERENCES - number * SENTENCES // REFERENCES
        sentences = [{"sent": texts[(sentence + i) % len(texts)], "sent_id": sentence + i} for i in range(count)]
        annotation = annotations[number]
        about = {"ref_id": number, "ann_id": annotation["id"], "image_id": annotation["image_id"], "split": split}
        refs.append({**about, "sentences": sentences})
        sentence += count
    return refs


def main(share: float) -> None:
    from data.common.errors import RowErrors
    from data.grounding.refcoco import RefCOCO, load

    shared = Path(os.environ["NTIL_SHARED"]).resolve()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        os.environ["NTIL_CACHE"] = str(root / "cache")
        folder = write_release(root, shared, share)
        official = {"train": "train", "validation": "val", "test": "testA+testB"}

        started = time.process_time()
        for split in READ_BY_A_RUN:
            load(folder, "unc", official[split].split("+"), root / "pictures", RowErrors())
        print(f"a split at a time, not kept: {time.process_time() - started:.1f} s")
        for title in ("first run of a machine", "every other rank and run"):
            started = time.process_time()
            source = RefCOCO(str(folder), images=str(root / "pictures"), splits=official)
            counts = [len(source.rows(split)) for split in READ_BY_A_RUN]
            print(f"{title}: {time.process_time() - started:.2f} s ({sum(counts[:3]):,} rows)")
        kept = sum(file.stat().st_size for file in (root / "cache/datasets").rglob("*") if file.is_file())
        print(f"on disk: {kept / 1e6:.0f} MB")


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 1.0)

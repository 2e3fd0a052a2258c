"""A tiny REFER release in the official layout, pickled as the official one was: by Python 2, protocol 2."""

from __future__ import annotations

import io
import json
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from PIL import Image

SIZE = (60, 40)
# ann id -> COCO box; images 1 and 2
BOXES = {
    11: [5.0, 4.0, 20.0, 30.5],
    12: [30.25, 10.0, 25.0, 20.0],
    21: [0.0, 0.0, 59.5, 39.0],
    22: [40.0, 20.0, 10.0, 10.0],
}


class Python2Pickler(pickle._Pickler):
    """Writes text as Python 2 wrote `str`: SHORT_BINSTRING (protocol 2) or STRING (protocol 0)."""

    dispatch: ClassVar[dict[Any, Any]] = dict(pickle._Pickler.dispatch)
    # What typeshed leaves out of `pickle._Pickler`.
    proto: int
    write: Callable[[bytes], object]
    memoize: Callable[[object], None]

    def save_python2_str(self, text: str) -> None:
        data = text.encode("latin1")
        if self.proto == 0:
            self.write(b"S" + repr(data)[1:].encode("ascii") + b"\n")
        elif len(data) < 256:
            self.write(b"U" + struct.pack("<B", len(data)) + data)
        else:
            self.write(b"T" + struct.pack("<i", len(data)) + data)
        self.memoize(text)

    dispatch[str] = save_python2_str


def python2_pickle(value: Any, protocol: int = 2) -> bytes:
    out = io.BytesIO()
    Python2Pickler(out, protocol).dump(value)
    return out.getvalue()


def ref(number: int, ann: int, split: str, *sentences: str) -> dict[str, Any]:
    image = ann // 10
    return {
        "ref_id": number,
        "ann_id": ann,
        "image_id": image,
        "category_id": 1,
        "file_name": f"COCO_train2014_{image:012d}_{number}.jpg",  # not the picture's name, as in the official file
        "split": split,
        "sent_ids": [number * 10 + i for i in range(len(sentences))],
        "sentences": [
            {"sent": s.lower(), "raw": s, "tokens": s.lower().split(), "sent_id": number * 10 + i}
            for i, s in enumerate(sentences)
        ],
    }


REFS = {
    "unc": [
        ref(0, 11, "train", "left dog", "the big one"),
        ref(1, 12, "val", "right one"),
        ref(2, 21, "testA", "Man in caf\xe9", "man"),
        ref(3, 22, "testB", "cup"),
    ],
    "google": [ref(4, 11, "train", "a dog on the left"), ref(5, 22, "val", "a cup on a table")],
    "umd": [ref(6, 11, "train", "a dog"), ref(7, 12, "val", "a cat"), ref(8, 22, "test", "a cup", "a small cup")],
}


def write_release(root: Path, name: str = "refcoco", protocol: int = 2) -> Path:
    """<root>/<name>/{refs(...).p, instances.json} and <root>/images/mscoco/images/train2014."""
    folder, images = root / name, root / "images/mscoco/images/train2014"
    folder.mkdir(parents=True)
    images.mkdir(parents=True, exist_ok=True)
    for split_by, refs in REFS.items():
        (folder / f"refs({split_by}).p").write_bytes(python2_pickle(refs, protocol))
    names = {image: f"COCO_train2014_{image:012d}.jpg" for image in (1, 2)}
    for file in names.values():
        Image.new("RGB", SIZE, "grey").save(images / file)
    instances = {
        "images": [{"id": i, "file_name": n, "width": SIZE[0], "height": SIZE[1]} for i, n in names.items()],
        "annotations": [
            {"id": k, "image_id": k // 10, "category_id": 1, "bbox": b, "area": b[2] * b[3], "iscrowd": 0}
            for k, b in BOXES.items()
        ],
        "categories": [{"id": 1, "name": "thing", "supercategory": "thing"}],
    }
    (folder / "instances.json").write_text(json.dumps(instances))
    return folder

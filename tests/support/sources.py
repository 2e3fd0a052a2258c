"""Where the data of each config in conf/task comes from in tests. A new task needs an entry only if it reads files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from tests.support.hub_folders import box_rows, box_samples, write_parquet, write_tar
from tests.support.objects_files import write_grefs, write_points
from tests.support.refer_release import write_release

Spec = dict[str, Any]  # a task's options, with those of its source under `source`


def _refer(name: str) -> Callable[[Path, Path], list[Spec]]:
    def specs(folder: Path, shared: Path) -> list[Spec]:
        return [{"source": {"folder": str(write_release(folder, name))}}]

    return specs


def _clocks(folder: Path, shared: Path) -> list[Spec]:
    return [{"source": {"labels": str(shared / "assets/data/clocks/labels.csv")}}]


def _photos(folder: Path, shared: Path) -> list[Spec]:
    return [{"source": {"folder": str(shared / "assets/data/coco128/object_detection")}}]


def _table(folder: Path, shared: Path) -> list[Spec]:
    names = ("refcoco/items_with_image.json", "gref/gref_items_with_image.json")
    return [{"source": {"files": {"test": str(shared / "assets/data" / name)}}} for name in names]


def _jsonl(folder: Path, shared: Path) -> list[Spec]:
    Image.new("RGB", (100, 50), "grey").save(folder / "a.png")
    answers: dict[str, list[Any]] = {
        "exact": ["Paris", "a [1, 2] \u00e9", 7],
        "numeric": [0, -12.5, 1234567],
        "box": [[0, 0, 100, 50], [10.5, 3, 11.5, 4]],
        "polygon": [[[0, 0], [99, 3], [50, 50]], [[10, 10], [90, 10], [10, 40], [90, 40], [50, 5]]],
        "time": ["00:00", "11:59"],
    }
    specs = []
    for metric, given in answers.items():
        file = folder / f"{metric}.jsonl"
        rows = ({"image": "a.png", "prompt": "What?", "answer": a, "group": str(i)} for i, a in enumerate(given))
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        specs.append({"metric": metric, "source": {"metric": metric, "test": str(file)}})
    return specs


def _gsm8k(folder: Path, shared: Path) -> list[Spec]:
    row = {"question": "Two and two?", "answer": "2 + 2 = <<2+2=4>>4\n#### 4"}
    for split in ("train", "test"):
        lines = [row | {"question": f"{split} {i}: two and two?"} for i in range(4)]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    files = {split: str(folder / f"{split}.jsonl") for split in ("train", "test")}
    return [{"source": {"files": files, "holdout": 2}, "reasoning": reasoning} for reasoning in (False, True)]


def _mathvista(folder: Path, shared: Path) -> list[Spec]:
    return [{"source": {"test": str(shared / "assets/data/mathvista/testmini.json"), "on_error": "skip"}}]


def _icdar2015(folder: Path, shared: Path) -> list[Spec]:
    base = shared / "assets/data/scene_text/icdar2015_train10"
    given = {"truth": {"test": str(base / "textdet_test.json")}, "images": {"test": str(base)}, "format": "mmocr"}
    return [{"source": given, "shape": shape} for shape in ("polygon", "box")]


def _objects(folder: Path, shared: Path) -> list[Spec]:
    return [{"source": {"folder": str(shared / "assets/data/coco128/object_detection")}}]


def _grefs(folder: Path, shared: Path) -> list[Spec]:
    release = write_grefs(folder)
    return [{"source": {"folder": str(release), "images": str(release)}}]


def _points(name: str) -> Callable[[Path, Path], list[Spec]]:
    def specs(folder: Path, shared: Path) -> list[Spec]:
        write_points(folder)
        return [{"source": {"files": {"test": str(folder / name)}}}]

    return specs


def _hub(folder: Path, shared: Path) -> list[Spec]:
    path = write_parquet(folder / "hub", box_rows(4), "test")
    columns = {"prompt": "question", "answer": "bbox"}
    source = {"metric": "box", "path": str(path), "splits": {"test": "test"}, "columns": columns}
    return [{"metric": "box", "source": source}]


def _tar(folder: Path, shared: Path) -> list[Spec]:
    path = write_tar(folder / "tars" / "test.tar", box_samples(4))
    return [{"metric": "box", "source": {"metric": "box", "path": str(path), "files": {"test": "test.tar"}}}]


# Config's name -> what to change in it, once or several times, given a folder to write to and the shared assets.
SOURCES: dict[str, Callable[[Path, Path], list[Spec]]] = {
    "refcoco": _refer("refcoco"),
    "refcoco_plus": _refer("refcoco+"),
    "refcocog": _refer("refcocog"),
    "clock_photos": _clocks,
    "grounding_photos": _photos,
    "grounding_table": _table,
    "jsonl": _jsonl,
    "hub": _hub,
    "tar": _tar,
    "gsm8k": _gsm8k,
    "mathvista_testmini": _mathvista,
    "icdar2015": _icdar2015,
    "detection": _objects,
    "grefcoco": _grefs,
    "screenspot": _points("screen.json"),
    "pixmo_points": _points("pixmo.jsonl"),
}

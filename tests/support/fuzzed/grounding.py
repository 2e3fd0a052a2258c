"""Valid file sets of the sources of referring expressions and of users' tables."""

from __future__ import annotations

import io
import json
import pickle
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
from PIL import Image

from data.grounding.categories import CategoryBoxes
from data.grounding.refcoco import RefCOCO
from data.grounding.table import ExpressionTable
from data.jsonl import Jsonl
from data.table_answers import TRUTH, Metric
from tests.support.fuzzed.harness import Codec, FuzzedSource, Steps, lines_of
from tests.support.refer_release import REFS, write_release

SIZE = (64, 48)
BOX_TRUTH = ("box", "expression", "width", "height")


def picture(suffix: str = ".png", colour: str = "grey") -> bytes:
    out = io.BytesIO()
    Image.new("RGB", SIZE, colour).save(out, {".png": "PNG", ".jpg": "JPEG"}[suffix])
    return out.getvalue()


def write_pictures(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(picture(Path(name).suffix))


def _table(folder: Path, name: str, rows: list[dict[str, Any]]) -> None:
    write_pictures(folder, "a.png", "b.jpg")
    file = folder / name
    if file.suffix == ".jsonl":
        file.write_text("\n".join(map(json.dumps, rows)))
    elif file.suffix == ".json":
        file.write_text(json.dumps(rows))
    elif file.suffix == ".parquet":
        pyarrow.parquet.write_table(pa.Table.from_pylist(rows), file)
    else:
        import csv

        with file.open("w", newline="") as out:
            writer = csv.writer(out, delimiter="\t" if file.suffix == ".tsv" else ",")
            writer.writerow(rows[0])
            writer.writerows([v if isinstance(v, str) else json.dumps(v) for v in row.values()] for row in rows)


ANSWERS: dict[Metric, list[Any]] = {
    "box": [[1, 2, 30, 40], [5, 6, 60.5, 20], [10, 10, 20, 40]],
    "polygon": [[[1, 1], [60, 2], [30, 40]], [[0, 0], [64, 0], [64, 48]], [[5, 5], [20, 5], [20, 20]]],
    "numeric": [12, -3.5, 1000],
    "exact": ["Paris", "a b", "7"],
    "time": ["10:08", "1:05", "23:59"],
    "boxes": [[[1, 2, 30, 40], [5, 6, 60.5, 20]], [[10, 10, 20, 40]], []],
    "points": [[[1, 2], [30, 40.5]], [[10, 10]], []],
    "count": [3, 0, 12],
}


def _own_table(metric: Metric, suffix: str) -> FuzzedSource:
    def write(folder: Path) -> None:
        rows = [
            {"id": f"r-{i}", "image": ("a.png", "b.jpg")[i % 2], "prompt": f"{i}?", "answer": answer, "level": i}
            for i, answer in enumerate(ANSWERS[metric])
        ]
        _table(folder, f"t{suffix}", rows)

    columns = tuple(TRUTH[metric]) or ("answer",)
    header = 1 if suffix in (".csv", ".tsv") else 0

    def unit(file: str, tree: Any, steps: Steps) -> str | None:
        return _row_of(file, steps, header)

    return FuzzedSource(
        f"table-{metric}{suffix}",
        write,
        lambda folder: Jsonl(metric, test=str(folder / f"t{suffix}"), on_error="skip"),
        ("prompt", "width", "height", *columns),
        unit_of_place=unit,
        selecting=("id",),
    )


def _row_of(file: str, steps: Steps, header: int = 0) -> str | None:
    """A table's row; another picture, the header, and what parquet takes the columns from, are everyone's."""
    if not steps or (file.endswith(".parquet") and steps[0] == 0):
        return None
    return str(steps[0] - header) if Path(file).stem == "t" and steps[0] >= header else None


def _expressions(suffix: str, embedded: bool) -> FuzzedSource:
    def write(folder: Path) -> None:
        image: Any = {"bytes": picture(), "path": None} if embedded else "a.png"
        rows = [
            {"id": f"r-{i}", "image": image, "sent": f"dog {i}", "bbox": [1.0 + i, 2.0, 20.5, 30.0], "split": "test"}
            | {"width": 64, "height": 48}
            for i in range(3)
        ]
        _table(folder, f"t{suffix}", rows)

    return FuzzedSource(
        f"expressions{suffix}",
        write,
        lambda folder: ExpressionTable({"test": str(folder / f"t{suffix}")}, on_error="skip"),
        BOX_TRUTH,
        unit_of_place=lambda file, _tree, steps: _row_of(file, steps),
        selecting=("split", "sent", "id"),
    )


def coco_document(images: int = 3) -> dict[str, Any]:
    boxes: list[tuple[int, list[float]]] = [(1, [5, 5, 10, 20]), (1, [30, 5, 30.5, 30]), (2, [2, 30, 40, 10])]
    return {
        "info": {"year": 2020},
        "images": [{"id": i, "file_name": f"{i}.png", "width": 64, "height": 48} for i in range(1, images + 1)],
        "annotations": [
            {"id": i * 10 + j, "image_id": i, "category_id": c, "bbox": b, "area": b[2] * b[3], "iscrowd": 0}
            for i in range(1, images + 1)
            for j, (c, b) in enumerate(boxes)
        ],
        "categories": [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}],
    }


def write_coco(folder: Path) -> None:
    write_pictures(folder, "1.png", "2.png", "3.png")
    (folder / "coco.json").write_text(json.dumps(coco_document()))


def coco_unit(file: str, tree: Any, steps: Steps) -> str | None:
    if not steps:
        return Path(file).stem
    if len(steps) < 2 or steps[0] not in ("images", "annotations"):
        return None
    entry = tree[steps[0]][steps[1]]
    return str(entry["id"] if steps[0] == "images" else entry["image_id"])


def picture_of_row(row: dict[str, Any]) -> str:
    return str(row["id"]).split("-")[1]


def _write_yolo(folder: Path) -> None:
    write_pictures(folder, "images/train/1.png", "images/train/2.png", "images/train/3.png")
    (folder / "labels/train").mkdir(parents=True)
    for stem in "123":
        lines = "0 0.2 0.4 0.2 0.3\n0 0.7 0.5 0.4 0.8\n1 0.3 0.8 0.5 0.2\n"
        (folder / f"labels/train/{stem}.txt").write_text(lines)
    (folder / "data.yaml").write_text("path: .\ntrain: images/train\nnames:\n- dog\n- cat\n")


def _refer_unit(_file: str, tree: Any, steps: Steps) -> str | None:
    return str(tree[steps[0]]["ref_id"]) if steps and _file.endswith(".p") else None


def _write_refer(folder: Path) -> None:
    release = write_release(folder)
    refs = [dict(one, split="train") for one in REFS["unc"]]
    (release / "refs(unc).p").write_bytes(pickle.dumps(refs))
    for split_by in ("google", "umd"):
        (release / f"refs({split_by}).p").unlink()


SOURCES = [
    *(_own_table(metric, suffix) for metric in ANSWERS for suffix in (".jsonl", ".csv")),
    _own_table("box", ".json"),
    _own_table("numeric", ".parquet"),
    _own_table("exact", ".tsv"),
    _expressions(".jsonl", embedded=False),
    _expressions(".parquet", embedded=True),
    FuzzedSource(
        "coco",
        write_coco,
        lambda folder: CategoryBoxes(str(folder), {"test": str(folder / "coco.json")}, on_error="skip"),
        BOX_TRUTH,
        unit_of_place=coco_unit,
        unit_of_row=picture_of_row,
        selecting=("category_id", "iscrowd", "name", "bbox", "image_id", "file_name"),
    ),
    FuzzedSource(
        "yolo",
        _write_yolo,
        lambda folder: CategoryBoxes(str(folder), on_error="skip"),
        BOX_TRUTH,
        split="train",
        unit_of_place=lambda file, _tree, _steps: Path(file).stem if file.endswith((".txt", ".png")) else None,
        unit_of_row=picture_of_row,
        codecs={".txt": lines_of(" ")},
        selecting=tuple(f"field {i}" for i in range(5)),
    ),
    FuzzedSource(
        "refer",
        _write_refer,
        lambda folder: RefCOCO(str(folder / "refcoco"), on_error="skip"),
        BOX_TRUTH,
        split="train",
        unit_of_place=_refer_unit,
        unit_of_row=lambda row: str(row["id"]).split("-")[0],
        codecs={".p": Codec(pickle.loads, lambda tree: pickle.dumps(tree, 2))},
        selecting=("split", "ref_id", "sent_id", "sentences"),
    ),
]

"""Valid file sets of the sources of several objects a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from data.objects.grefcoco import GRefCOCO
from data.objects.photos import PhotoObjects
from data.objects.points import PointTable
from tests.support.fuzzed.grounding import coco_unit, picture_of_row, write_coco
from tests.support.fuzzed.harness import FuzzedSource, Steps
from tests.support.objects_files import write_grefs, write_points

TRUTH = ("boxes", "labels", "points", "width", "height")


def _entry(file: str, _tree: Any, steps: Steps) -> str | None:
    return str(steps[0]) if steps and file.endswith((".json", ".jsonl")) else None


def _number(row: dict[str, Any]) -> str:
    return str(row["id"]).rpartition("-")[2]


def _write_screens(folder: Path) -> None:
    write_points(folder)
    (folder / "pixmo.jsonl").unlink()


def _write_pixmo(folder: Path) -> None:
    write_points(folder)
    (folder / "screen.json").unlink()


def _write_grefs(folder: Path) -> None:
    write_grefs(folder)


def _ref_unit(file: str, tree: Any, steps: Steps) -> str | None:
    # Objects are shared by references.
    return str(tree[steps[0]]["ref_id"]) if steps and "grefs" in file else None


SOURCES = [
    FuzzedSource(
        "coco-objects",
        write_coco,
        lambda folder: PhotoObjects(str(folder), {"test": str(folder / "coco.json")}, absent=0, on_error="skip"),
        TRUTH,
        unit_of_place=coco_unit,
        unit_of_row=picture_of_row,
        selecting=("category_id", "iscrowd", "name", "bbox", "image_id", "file_name"),
    ),
    FuzzedSource(
        "grefcoco",
        _write_grefs,
        lambda folder: GRefCOCO(str(folder / "refer/grefcoco"), images=str(folder / "refer/grefcoco"), on_error="skip"),
        TRUTH,
        split="train",
        unit_of_place=_ref_unit,
        unit_of_row=lambda row: str(row["id"]).split("-")[0],
        selecting=("split", "ref_id", "sent_id", "sentences"),
    ),
    FuzzedSource(
        "screenspot",
        _write_screens,
        lambda folder: PointTable({"test": str(folder / "screen.json")}, on_error="skip"),
        TRUTH,
        unit_of_place=_entry,
        unit_of_row=_number,
        selecting=("id",),
    ),
    FuzzedSource(
        "pixmo",
        _write_pixmo,
        lambda folder: PointTable({"test": str(folder / "pixmo.jsonl")}, "pixmo", on_error="skip"),
        TRUTH,
        unit_of_place=_entry,
        unit_of_row=_number,
        selecting=("id",),
    ),
]

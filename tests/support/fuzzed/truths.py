"""Valid file sets of the sources of text detection, visual mathematics, clocks and word problems."""

from __future__ import annotations

import csv
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import scipy.io

from data.clock.photos import ClockPhotos
from data.gsm8k import GSM8KFiles
from data.mathvista.testmini import MathVistaRelease
from data.text_detection.ground_truth import Format
from data.text_detection.release import TextRelease
from tests.support.fuzzed.grounding import picture, write_pictures
from tests.support.fuzzed.harness import FuzzedSource, Steps, lines_of

TEXT_TRUTH = ("polygons", "ignore", "texts", "width", "height")
QUAD = "5,5,40,5,40,20,5,20"
FOURTEEN = ",".join(f"{8 * i + 2},5" for i in range(7)) + "," + ",".join(f"{50 - 8 * i},20" for i in range(7))
OFFSETS = ",".join(f"{8 * i},0" for i in range(7)) + "," + ",".join(f"{48 - 8 * i},15" for i in range(7))
TOTALTEXT = (
    "x: [[ 5 40 40\n  5]], y: [[ 5  5 20 20]], ornt: [u'h'], transcriptions: [u'It, 1996']\n"
    "x: [[5]], y: [[5]], ornt: [u'#'], transcriptions: [u'#']\n"
)
XML = "<a><image><box><label>Sign</label><segs>{}</segs></box><box><label>###</label><segs>{}</segs></box></image></a>"
LINES: dict[str, tuple[Format, str, str]] = {
    "icdar2013": ("icdar2013", ".txt", '5,5,40,20,"To, you"\n5,25,40,40,"###"\n'),
    "icdar2015": ("icdar2015", ".txt", f"{QUAD},1,000\n{QUAD},###\n"),
    "totaltext": ("totaltext", ".txt", f"{QUAD},word\n5,25,40,25,40,40,20,45,5,40,####1996\n{QUAD},#######\n"),
    "totaltext-bare": ("totaltext", ".txt", f"{QUAD}\n5,25,40,25,40,40,20,45,5,40\n"),
    "totaltext-own": ("totaltext", ".txt", TOTALTEXT),
    "ctw1500": ("ctw1500", ".txt", f"{FOURTEEN},####word\n{FOURTEEN},###\n{FOURTEEN}\n"),
    "ctw1500-offsets": ("ctw1500", ".txt", f"2,5,50,20,{OFFSETS}\n"),
    "ctw1500-xml": ("ctw1500", ".xml", XML.format(FOURTEEN, FOURTEEN)),
}


def _text_release(form: Format, folder: Path, truth: str = "gt") -> TextRelease:
    return TextRelease(form, {"test": str(folder / truth)}, {"test": str(folder / "img")}, on_error="skip")


def _lines(name: str) -> FuzzedSource:
    form, suffix, content = LINES[name]

    def write(folder: Path) -> None:
        write_pictures(folder, *(f"img/img_{number}.png" for number in (1, 2, 3)))
        (folder / "gt").mkdir(parents=True)
        for number in (1, 2, 3):
            (folder / f"gt/gt_img_{number}{suffix}").write_text(content)

    return FuzzedSource(
        f"text-{name}",
        write,
        lambda folder: _text_release(form, folder),
        TEXT_TRUTH,
        unit_of_place=lambda file, _tree, _steps: Path(file).stem[-1],
        unit_of_row=lambda row: str(row["id"]),
        codecs={".txt": lines_of(",")},
    )


def _write_zip(folder: Path) -> None:
    write_pictures(folder, "img/img_1.png", "img/img_2.png")
    with zipfile.ZipFile(folder / "gt.zip", "w", zipfile.ZIP_DEFLATED) as pack:
        for number in (1, 2):
            pack.writestr(f"gt/gt_img_{number}.txt", LINES["icdar2015"][2])


def _write_mat(folder: Path) -> None:
    write_pictures(folder, "img/img1.png")
    (folder / "gt").mkdir(parents=True)
    rows = np.empty((2, 6), dtype=object)
    xs, ys = np.array([5, 40, 40, 5]), np.array([5, 5, 20, 20])
    rows[0], rows[1] = ["x:", xs, "y:", ys, "word", "h"], ["x:", xs, "y:", ys, "#", "#"]
    scipy.io.savemat(folder / "gt/poly_gt_img1.mat", {"polygt": rows}, do_compression=True)


def _write_mmocr(folder: Path) -> None:
    write_pictures(folder, "img/a.png", "img/b.png", "img/c.png")
    polygon = [int(value) for value in QUAD.split(",")]
    instances = [
        {"polygon": polygon, "bbox_label": 0, "ignore": False, "text": "A"},
        {"polygon": polygon, "ignore": True},
    ]
    entries = [{"img_path": f"{n}.png", "height": 48, "width": 64, "instances": instances} for n in "abc"]
    (folder / "gt.json").write_text(json.dumps({"metainfo": {"dataset_type": "TextDetDataset"}, "data_list": entries}))


def _mmocr_unit(file: str, tree: Any, steps: Steps) -> str | None:
    if not steps:
        return Path(file).name
    return str(tree["data_list"][steps[1]]["img_path"]) if len(steps) > 1 and steps[0] == "data_list" else None


TEXT = [
    *map(_lines, LINES),
    FuzzedSource("text-zip", _write_zip, lambda folder: _text_release("icdar2015", folder, "gt.zip"), TEXT_TRUTH),
    FuzzedSource("text-mat", _write_mat, lambda folder: _text_release("totaltext", folder), TEXT_TRUTH),
    FuzzedSource(
        "text-mmocr",
        _write_mmocr,
        lambda folder: _text_release("mmocr", folder, "gt.json"),
        TEXT_TRUTH,
        unit_of_place=_mmocr_unit,
        unit_of_row=lambda row: str(row["id"]),
        selecting=("img_path",),
    ),
]

METADATA = {"task": "t", "context": "c", "grade": "g", "language": "english", "source": "s", "category": "x"}
PROBLEMS: list[dict[str, Any]] = [
    {
        "choices": None,
        "unit": "cm",
        "precision": 1,
        "answer": "2.5",
        "question_type": "free_form",
        "answer_type": "float",
    },
    {"choices": ["Yes", "No"], "unit": None, "precision": None, "answer": "No", "question_type": "multi_choice"}
    | {"answer_type": "text"},
    {"choices": None, "unit": None, "precision": None, "answer": "12", "question_type": "free_form"}
    | {"answer_type": "integer"},
]
MATH_TRUTH = (
    "question",
    "choices",
    "answer",
    "target",
    "question_type",
    "answer_type",
    "precision",
    "skills",
    "source",
)


def _problems(**more: Any) -> dict[str, dict[str, Any]]:
    shared = {"metadata": {**METADATA, "skills": ["a", "b"]}, **more}
    return {
        str(pid): {"pid": str(pid), "question": f"How long is {pid}?", **problem, **shared}
        for pid, problem in enumerate(PROBLEMS, start=7)
    }


def _write_testmini(folder: Path) -> None:
    write_pictures(folder, "images/7.jpg")
    (folder / "testmini.json").write_text(json.dumps(_problems(image="images/7.jpg")))


def _write_testmini_parquet(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rows = list(_problems(image="images/7.jpg", decoded_image={"bytes": picture(), "path": "7.jpg"}).values())
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), folder / "testmini.parquet")


def _pid(_file: str, tree: Any, steps: Steps) -> str | None:
    return str(tree[steps[0]]["pid"]) if steps else None


def _testmini(suffix: str) -> FuzzedSource:
    return FuzzedSource(
        f"testmini{suffix}",
        _write_testmini if suffix == ".json" else _write_testmini_parquet,
        lambda folder: MathVistaRelease(str(folder / f"testmini{suffix}"), on_error="skip"),
        MATH_TRUTH,
        unit_of_place=_pid,
        unit_of_row=lambda row: str(row["id"]),
        selecting=("pid",),
    )


def _talk(question: str, answer: str) -> dict[str, Any]:
    return {"conversations": [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]}


GEO = "<image>\nFirst perform reasoning.\nQuestion: How large is the angle?\nChoices:\nA:40°\nB:60°\nC:120°"
LAYOUTS: dict[str, list[dict[str, Any]]] = {
    "mathv360k": [
        _talk("<image>\nHint: letter\nQuestion: Which?\nChoices:\n(A) red\n(B) blue", "The answer is B"),
        _talk("<image>\nQuestion: How much?", "First 3 + 4. The answer is 7.50."),
    ],
    "geo170k": [_talk(GEO, f"It is so. The answer is {x}.\nAnswer:{x}") for x in "AC"],
    "chartqa": [{"query": "How many?", "label": ["14"]}, {"query": "Which?", "label": ["Yes"]}],
    "columns": [
        {"question": "Which?", "answer": "blue", "choices": ["red", "blue"]},
        {"question": "How much?", "answer": "2", "choices": ["1", "2"]},
    ],
}


def _layout(name: str, suffix: str, embedded: bool = False) -> FuzzedSource:
    def write(folder: Path) -> None:
        write_pictures(folder, "a.png")
        image: Any = {"bytes": picture(), "path": None} if embedded else "a.png"
        rows = [{"id": f"r{number}", "image": image, **row} for number, row in enumerate(LAYOUTS[name])]
        file = folder / f"train{suffix}"
        if suffix == ".parquet":
            pyarrow.parquet.write_table(pa.Table.from_pylist(rows), file)
        else:
            file.write_text("\n".join(map(json.dumps, rows)) if suffix == ".jsonl" else json.dumps(rows))

    return FuzzedSource(
        f"math-{name}{suffix}",
        write,
        lambda folder: MathVistaRelease("unread.json", str(folder / f"train{suffix}"), validation=0, on_error="skip"),
        MATH_TRUTH,
        split="train",
        # A column that the first row lacks is no column of a parquet file, so that no row has its id.
        unit_of_place=lambda _file, tree, steps: str(tree[steps[0]]["id"]) if steps and steps[-1] != "id" else None,
        unit_of_row=lambda row: str(row["id"]),
        selecting=("id",),
    )


CLOCKS: dict[str, list[dict[str, Any]]] = {
    "own": [
        {"img_id": 1, "image": "a.png", "hour": 3, "minute": 7, "bbox_xywh": [5, 5, 20, 20], "note": ""},
        {"img_id": 2, "image": "b.png", "hour": 10, "minute": 8, "bbox_xywh": [[5, 5, 20, 20], [30, 5, 20, 20]]}
        | {"note": "the one at bbox_det=[29, 6, 20, 20]"},
        {"img_id": 3, "image": "c.png", "hour": 12, "minute": 0, "bbox_xywh": "", "note": ""},
    ],
    "official": [
        {"img_id": number, "file_name": f"{stem}.png", "bbox_gt": [[5, 5, 20, 20]], "hour": number, "minute": 5}
        | {"bbox_det": [5.5, 4.5, 20, 21]}
        for number, stem in enumerate("abc", start=1)
    ],
}


def _clock(layout: str, suffix: str) -> FuzzedSource:
    rows = CLOCKS[layout]

    def write(folder: Path) -> None:
        write_pictures(folder, "a.png", "b.png", "c.png")
        if suffix == ".jsonl":
            (folder / "labels.jsonl").write_text("\n".join(map(json.dumps, rows)))
            return
        with (folder / "labels.csv").open("w", newline="") as out:
            writer = csv.writer(out)
            writer.writerow(rows[0])
            writer.writerows([v if isinstance(v, str) else json.dumps(v) for v in row.values()] for row in rows)

    def unit(file: str, _tree: Any, steps: Steps) -> str | None:
        """A row's id; a header is everyone's, and a row may lose its id."""
        if not steps:
            return str("abc".index(Path(file).stem) + 1)
        if suffix == ".jsonl":
            return None if steps[-1] == "img_id" else str(steps[0] + 1)
        return str(steps[0]) if steps[0] and len(steps) > 1 and steps[1] else None

    return FuzzedSource(
        f"clock-{layout}{suffix}",
        write,
        lambda folder: ClockPhotos(str(folder / f"labels{suffix}"), on_error="skip"),
        ("hour", "minute"),
        unit_of_place=unit,
        unit_of_row=lambda row: str(row["id"]),
        selecting=("img_id",),
    )


def _word_problems(suffix: str) -> FuzzedSource:
    def write(folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        rows = [
            {"question": f"How many after {n}?", "answer": f"{n} and 1 are <<{n}+1={n + 1}>>{n + 1}.\n#### {n + 1}"}
            for n in (1, 2, 999)
        ]
        if suffix == ".parquet":
            pyarrow.parquet.write_table(pa.Table.from_pylist(rows), folder / "test.parquet")
        else:
            (folder / "test.jsonl").write_text("\n".join(map(json.dumps, rows)))

    return FuzzedSource(
        f"gsm8k{suffix}",
        write,
        lambda folder: GSM8KFiles({"test": str(folder / f"test{suffix}")}, on_error="skip"),
        ("question", "solution", "answer"),
        # Without a row the others have other numbers, which are their ids.
        unit_of_place=lambda _file, _tree, steps: str(steps[0] + 1) if len(steps) > 1 else None,
    )


SOURCES = [
    *TEXT,
    _testmini(".json"),
    _testmini(".parquet"),
    _layout("mathv360k", ".json"),
    _layout("geo170k", ".json"),
    _layout("chartqa", ".jsonl"),
    _layout("chartqa", ".parquet", embedded=True),
    _layout("columns", ".jsonl"),
    _clock("own", ".csv"),
    _clock("own", ".jsonl"),
    _clock("official", ".csv"),
    _word_problems(".jsonl"),
    _word_problems(".parquet"),
]

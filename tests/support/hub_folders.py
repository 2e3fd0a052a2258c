"""Folders in the layouts that `datasets` reads, made here."""

import io
import json
import tarfile
from pathlib import Path

import pyarrow
import pyarrow.parquet
from PIL import Image


def png(colour="red", size=(40, 30)):
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


def write_parquet(folder: Path, rows, split="train"):
    folder.mkdir(exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / f"{split}-00000-of-00001.parquet")
    return folder


def box_rows(count):
    return [
        {"question": f"Where is {i}?", "bbox": [1.0, 2.0, 10.0 + i % 20, 20.5], "image": {"bytes": png(), "path": None}}
        for i in range(count)
    ]


def write_tar(file: Path, samples):
    """`samples`: for each key a dict of extension -> bytes."""
    file.parent.mkdir(exist_ok=True)
    with tarfile.open(file, "w") as archive:
        for number, sample in enumerate(samples):
            for extension, content in sample.items():
                entry = tarfile.TarInfo(f"{number:04}.{extension}")
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
    return file.parent


def box_samples(count):
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), "blue").save(buffer, "JPEG")
    answers = ({"prompt": f"Where is {i}?", "answer": [1, 2, 30, 10 + i]} for i in range(count))
    return [{"jpg": buffer.getvalue(), "json": json.dumps(answer).encode()} for answer in answers]


def write_picture_folder(folder: Path, count, split="train"):
    pictures = folder / split
    pictures.mkdir(parents=True)
    lines = []
    for number in range(count):
        (pictures / f"{number}.png").write_bytes(png())
        lines.append(json.dumps({"file_name": f"{number}.png", "prompt": "How many?", "answer": number}) + "\n")
    (pictures / "metadata.jsonl").write_text("".join(lines))
    return folder

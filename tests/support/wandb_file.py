"""Reads what W&B keeps of an offline run: records in the log format of LevelDB, after a header of seven bytes."""

import struct
from collections.abc import Iterator
from pathlib import Path

BLOCK, HEADER = 32768, 7
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def records(file: Path) -> Iterator[bytes]:
    data, at, parts = file.read_bytes(), HEADER, b""
    while at + HEADER <= len(data):
        left = BLOCK - at % BLOCK
        if left < HEADER:
            at += left
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + HEADER])
        if kind == 0:
            at += left
            continue
        parts += data[at + HEADER : at + HEADER + length]
        at += HEADER + length
        if kind in (FULL, LAST):
            yield parts
            parts = b""


def contents(file: Path) -> dict:
    """run: its id, group, job type, name, tags; history: every logged key; summary: the last value of every key."""
    from wandb.proto import wandb_internal_pb2

    found: dict = {"history": set(), "summary": {}, "files": 0}
    for raw in records(file):
        record = wandb_internal_pb2.Record()  # type: ignore[attr-defined]  # protobuf makes it at run time
        record.ParseFromString(raw)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run = record.run
            found["run"] = {"id": run.run_id, "group": run.run_group, "job_type": run.job_type}
            found["run"] |= {"name": run.display_name, "tags": list(run.tags), "project": run.project}
            found["config"] = {u.key: u.value_json for u in run.config.update}
        elif kind == "history":
            found["history"] |= {item.key or "/".join(item.nested_key) for item in record.history.item}
        elif kind == "summary":
            found["summary"] |= {u.key or "/".join(u.nested_key): u.value_json for u in record.summary.update}
        elif kind == "files":
            found["files"] += len(record.files.files)
    return found

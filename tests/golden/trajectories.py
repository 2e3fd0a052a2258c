"""Short runs of every kind, as data: 20 logged steps and 26 predictions each.

    python tests/golden/trajectories.py record made.json [name ...]       make the runs with the `ntil` of this folder
    python tests/golden/trajectories.py compare one.json other.json       largest differences of two such files

`trajectories.json` was recorded at commit e5305af, before the redesign. On one machine a change that is none comes out
bit for bit; other processors round otherwise, so the test beside this file compares at 1e-4 of a series' largest value.
Of losses with noise, `gradient_share/*` was recorded after it: they are now of the noise that the step itself draws.
"""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

LOSSES = (
    *("ce", "ce_smooth", "del", "dist2", "emd", "emo", "ntil", "ntil_no_exp", "ntil_no_mag", "ntil_no_rel"),
    *("ntil_paper", "ntl_mse", "ntl_was", "smmd", "soft_label", "soft_label_triangular"),
    *("value_emd", "value_emd_log", "value_emd_relative", "value_emd_rescaled"),
)
FAMILIES = {
    "llava_nano": "clock",
    "paligemma_nano": "grounding_nano",
    "qwen2_vl_nano": "text_detection_nano",
    "yi_vl_nano": "mathvista_nano",
}
LENGTHS = {"text_detection_nano": ["task.max_new_tokens=64"]}  # the default when they were recorded
LOCAL = ["engine=local", "engine.workers=0"]
RUNS = {
    **{
        f"{model}-{loss}": [f"model={model}", f"task={task}", f"loss={loss}", *LENGTHS.get(task, []), *LOCAL]
        for model, task in FAMILIES.items()
        for loss in LOSSES
    },
    "text": ["model=qwen25_nano", "task=arithmetic", "loss=ntil", *LOCAL],
    "lora": ["model=llava_nano", "task=clock", "loss=ntil", "tuning=lora", *LOCAL],
    "zero2": ["model=llava_nano", "task=clock", "loss=ntil", "engine=zero2", "engine.processes=2", "engine.workers=1"],
}
SMALL = [
    "task.source.rows={train:64,validation:8,test:26}",
    "curriculum=none",
    "optim.steps=20",
    "optim.batch_size=8",
    "optim.warmup=2",
    "evaluation.every_steps=10",
    "evaluation.batch_size=8",
    "evaluation.validation_rows=8",
    "tracker=none",
    "log_every=1",
    "save_every=0",
    "engine.threads=1",
    "engine.device=cpu",
]
# Of the clock and the machine, not of the run; and scores of 8 validation rows after 10 steps, which are all zero.
LEFT_OUT = re.compile(
    r"step|epoch|task_protocol|time|began|samples_per_s|tokens_per_s|memory_gib|train_(?!loss).*|total_flos|"
    r"eval_(?!ce|loss|digit|expected).*|lenient_.*|.*official_accuracy_nearest"
)


def record(names: Iterable[str]) -> dict[str, Any]:
    """Run name -> what `read` finds in its folder; two runs at once."""
    with tempfile.TemporaryDirectory() as place, ThreadPoolExecutor(2) as pool:
        return dict(pool.map(lambda name: (name, _run(name, Path(place))), names))


def _run(name: str, place: Path) -> dict[str, Any]:
    runs = place / name
    command = [sys.executable, "-m", "ntil.cli", "train", *SMALL, *RUNS[name], f"runs={runs}"]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "NTIL_CACHE": str(place / "cache")}
    )
    if done.returncode:
        raise RuntimeError(f"{name}: {' '.join(command)} ended with {done.returncode}\n{done.stderr}")
    print(name, file=sys.stderr, flush=True)
    return read(next(runs.glob("**/metrics.json")).parent)


def read(run: Path) -> dict[str, Any]:
    """Logged key -> its values, one a step; the texts written for the test rows; the test metrics."""
    history: dict[str, list[float]] = {}
    for line in (run / "history.jsonl").read_text().splitlines():
        for key, value in json.loads(line).items():
            if not LEFT_OUT.fullmatch(key):
                history.setdefault(key, []).append(value)
    texts = [json.loads(line)["text"] for line in (run / "predictions.jsonl").read_text().splitlines()]
    metrics = json.loads((run / "metrics.json").read_text())
    return {
        "history": history,
        "texts": texts,
        "metrics": {k: v for k, v in metrics.items() if not LEFT_OUT.fullmatch(k)},
    }


def differences(one: dict[str, Any], other: dict[str, Any]) -> dict[str, float]:
    """Key -> largest difference relative to the series, of what isn't equal; infinite for other keys or counts."""
    largest = {}
    for part in ("history", "metrics"):
        for key in one[part].keys() | other[part].keys():
            first, second = one[part].get(key), other[part].get(key)
            if first != second:
                # A mean of signed errors is near zero; its size is that of the errors.
                scale = one[part].get(key.replace("expected_bias", "expected_error"), first)
                largest[f"{part}/{key}"] = _relative_difference(_list(first), _list(second), _list(scale))
    changed = sum(a != b for a, b in zip(one["texts"], other["texts"], strict=True))
    return largest | ({"texts": float(changed)} if changed else {})


def _list(value: Any) -> list[float]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _relative_difference(first: list[float], second: list[float], scale: list[float]) -> float:
    """Largest difference, relative to the largest value."""
    if len(first) != len(second):
        return math.inf
    largest = max(map(abs, [*first, *second, *scale, 1e-12]))
    return max((abs(a - b) / largest for a, b in zip(first, second, strict=True)), default=0)


def main(words: list[str]) -> int:
    if words[0] == "record":
        made = record(words[2:] or RUNS)
        Path(words[1]).write_text(json.dumps(made, indent=0, sort_keys=True).replace(",\n", ",").replace("[\n", "["))
        return 0
    one, other = (json.loads(Path(file).read_text()) for file in words[1:3])
    worst: dict[str, dict[str, float]] = {
        name: found for name in one.keys() & other.keys() if (found := differences(one[name], other[name]))
    }
    for name, found in sorted(worst.items()):
        print(name, ", ".join(f"{key} {value:.2g}" for key, value in sorted(found.items())))
    both = one.keys() & other.keys()
    print(f"{len(both)} runs in both, {len(worst)} differ; in one of them only: {sorted(one.keys() ^ other.keys())}")
    return bool(worst)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

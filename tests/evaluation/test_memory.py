"""Evaluating 100,000 rows needs no more memory than evaluating a few thousand."""

import json
import subprocess
import sys

import pytest

from data.jsonl import Jsonl
from tasks.jsonl import table_task

ROWS = 100_000

# Generation is replaced (no model is that quick here); rows, batches, records, file and summary are the real ones.
CODE = """
import json, re, sys
from pathlib import Path
from types import SimpleNamespace
from datasets import load_from_disk
from data.jsonl import Jsonl
from ntil.evaluation import generate as evaluation
from tasks.jsonl import table_task

metric, folder = sys.argv[1], Path(sys.argv[2])
task = table_task(Jsonl(metric, test=str(folder / "my.jsonl")), metric)
rows = load_from_disk(str(folder / "rows"))
model = SimpleNamespace(training=False, eval=lambda: None, train=lambda mode: None, parameters=lambda: iter(()))
def answers(model, collator, batch, *_):
    return [task.answer(row) if row["level"] else "no idea" for row in batch]

evaluation.generate = answers

def run(rows, name):
    records = evaluation.predict(model, SimpleNamespace(task=task, reader=None), rows, 240)
    return evaluation.evaluate_to(folder / name, records, task.summarize)

def peak_kb():
    # Of this program's own memory: getrusage would begin with that of the process that started it.
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

run(rows.select(range(5000)), "few.jsonl")
Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
before = peak_kb()
metrics = run(rows, "all.jsonl")
print(json.dumps({"grown_mb": (peak_kb() - before) / 1024, **metrics}))
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the peak of memory from Linux's /proc")
@pytest.mark.parametrize("metric", ["numeric", "box"])
def test_a_hundred_thousand_rows_in_constant_memory(tmp_path, monkeypatch, metric):
    answers = {"numeric": lambda i: i, "box": lambda i: [i % 50, 0, 60, 40]}
    with (tmp_path / "my.jsonl").open("w") as file:
        for i in range(ROWS):
            row = {"prompt": f"Question {i}?", "answer": answers[metric](i), "width": 100, "height": 50, "level": i % 2}
            file.write(json.dumps(row | {"group": "ab"[i % 2]}) + "\n")
    # Read here, so that the peak of reading doesn't hide a peak of evaluating.
    monkeypatch.setenv("NTIL_CACHE", str(tmp_path / "cache"))
    table_task(Jsonl(metric, test=str(tmp_path / "my.jsonl")), metric).rows("test").save_to_disk(tmp_path / "rows")
    command = [sys.executable, "-c", CODE, metric, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["examples"] == ROWS
    assert found["parse_failure_rate"] == 0.5
    assert found["b/parse_failure_rate"] == 0
    lines = (tmp_path / "all.jsonl").read_text().splitlines()
    assert len(lines) == ROWS
    assert json.loads(lines[-1])["id"] == f"my-{ROWS - 1}"
    assert json.loads(lines[-1])["scores"]
    # All records at once would be some 100 MB; the mapped rows themselves and 16 bytes a number are about 10.
    print(f"{metric}: grew by {found['grown_mb']:.1f} MB for {ROWS} rows")
    assert found["grown_mb"] < 40

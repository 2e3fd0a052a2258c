"""The command line as a user has it: a sweep with a broken job, skipping, reports, interrupt and resume."""

import json
import signal
import time
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

from tests.support.command_line import ntil, start
from tests.support.runs import TINY_RUN

WORDS = [*TINY_RUN, "task.source.rows={train:128,validation:16,test:24}", "log_every=2"]


@pytest.mark.slow
def test_a_sweep_survives_a_broken_job_skips_what_is_done_and_is_evaluated_again(tmp_path):
    place = tmp_path
    words = ["train", "-m", *WORDS, "engine=local", "optim.steps=6", "loss=ce,ntil", "runs=sweep"]
    first = ntil(place, *words, "optim.lr=0.001,1e38")  # weights that are not finite after a step
    assert first.returncode == 1, first.stderr
    assert "2 of 4 runs failed" in first.stderr
    assert first.stderr.count("not finite") >= 2
    done = sorted(place.glob("sweep/**/metrics.json"))
    assert len(done) == 2
    for file in done:
        assert json.loads(file.read_text())["examples"] == 24
        history = [json.loads(line) for line in (file.parent / "history.jsonl").read_text().splitlines()]
        assert all(record["loss"] > 0 for record in history if "loss" in record)
        assert len((file.parent / "predictions.jsonl").read_text().splitlines()) == 24
    again = ntil(place, *words)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("done before, skipped") == 2
    report = ntil(place, "report", "runs=sweep")
    assert report.returncode == 0, report.stderr
    assert list(place.glob("sweep/**/curves.png"))
    assert list(place.glob("sweep/**/predictions.png"))
    run = done[0].parent
    shown = ntil(place, "eval", f"run={run}", "evaluation.split=validation")
    assert shown.returncode == 0, shown.stderr
    assert "parse_failure_rate" in shown.stdout
    assert len(list(run.glob("evaluations/*/predictions.jsonl"))) == 1
    assert ntil(place, "eval", f"run={place / 'cache'}").returncode == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("engine", "processes", "number", "every_process"),
    [
        ("zero2", 1, signal.SIGINT, False),
        ("local", 2, signal.SIGINT, False),
        ("zero2", 2, signal.SIGTERM, False),
        # As Slurm and container runtimes do it: data workers get the signal too.
        ("local", 2, signal.SIGTERM, True),
    ],
)
def test_ctrl_c_then_the_same_command_gives_the_uninterrupted_weights(
    tmp_path, engine, processes, number, every_process
):
    place, steps = tmp_path, 60 // processes
    words = ["train", *WORDS, "loss=ntil", f"optim.steps={steps}", "save_every=20", f"engine={engine}"]
    words += [f"engine.processes={processes}", "engine.device=cpu", "engine.threads=1"]
    whole = ntil(place, *words, "runs=whole")
    assert whole.returncode == 0, whole.stderr
    child = start(place, *words, "runs=cut", output=None)
    deadline = time.monotonic() + 300
    while not _reached(place / "cut", 10):
        assert time.monotonic() < deadline
        assert child.poll() is None
        time.sleep(0.02)
    below = psutil.Process(child.pid).children(recursive=True) if every_process else []
    assert len([p for p in below if p.parent().pid != child.pid]) >= 2 * every_process  # data workers of two ranks
    for process in sorted(below, key=lambda p: -p.pid):
        process.send_signal(number)
    child.send_signal(number)
    assert child.wait(timeout=120) == 130
    assert not any(p.is_running() for p in below)
    assert not list(place.glob("cut/**/metrics.json"))
    before = max(json.loads(mark.read_text())["seconds"] for mark in place.glob("cut/**/COMPLETE"))
    again = ntil(place, *words, "runs=cut")
    assert again.returncode == 0, again.stderr
    assert "resumed from checkpoint-" in again.stdout
    assert json.loads(next(place.glob("cut/**/metrics.json")).read_text())["train_seconds"] > before > 0
    one, two = (load_file(next(place.glob(f"{runs}/**/model/model.safetensors"))) for runs in ("whole", "cut"))
    assert one.keys() == two.keys()
    for name in one:
        assert torch.equal(one[name], two[name]), name
    steps = [json.loads(r)["step"] for r in next(place.glob("cut/**/history.jsonl")).read_text().splitlines()]
    assert steps == sorted(steps)


def _reached(runs: Path, step: int) -> bool:
    for file in runs.glob("**/history.jsonl"):
        lines = file.read_text().splitlines()
        return bool(lines) and json.loads(lines[-1])["step"] >= step
    return False

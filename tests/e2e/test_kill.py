"""kill -9 at any moment, resume, and end with the very weights of a run that nobody disturbed."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ntil.runs.checkpoints import COMPLETE, complete_checkpoints
from ntil.runs.folder import RunFolder
from tests.support.forked import finish, freeze, start

KILLS = 20
STEPS = 60
WORDS = ["loss=ntil", f"optim.steps={STEPS}", "save_every=4", "keep_checkpoints=2", "optim.batch_size=4"]


def step(run: RunFolder) -> int:
    """Of the last whole record of the history."""
    lines = run.history.read_text().splitlines() if run.history.exists() else []
    for line in reversed(lines):
        try:
            return json.loads(line)["step"]
        except ValueError:
            continue
    return 0


def half_written(run: RunFolder) -> list[Path]:
    return [p for p in run.checkpoints.glob("checkpoint-*") if not (p / COMPLETE).exists()]


def kill_once(run: RunFolder, in_save: bool, chance: random.Random) -> str | None:
    """Start, wait for a random step or for a save to be under way, kill; None when the run got to its end before."""
    newest = complete_checkpoints(run.checkpoints)[:1]
    before = int(newest[0].name.rpartition("-")[2]) if newest else 0
    wanted = before + chance.randint(1, 6)
    (process,) = start(run)
    while process.is_alive():
        if half_written(run) and step(run) > before if in_save else step(run) >= wanted:
            break
        time.sleep(0.0005)
    else:
        assert process.exitcode == 0, run.error.read_text()
        return None
    time.sleep(chance.random() * (0.02 if in_save else 0.1))
    process.kill()
    process.join()
    broken = ", ".join(p.name for p in half_written(run)) or "nothing"
    whole = [p.name for p in complete_checkpoints(run.checkpoints)]
    return f"from {before}, killed after step {step(run)}, half-written: {broken}, whole: {whole[:1]}"


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["zero2"])
def test_kills_change_nothing(tmp_path, engine):
    undisturbed = freeze([*WORDS, f"engine={engine}", f"runs={tmp_path}/undisturbed"])
    assert finish(undisturbed) == [0]
    run = freeze([*WORDS, f"engine={engine}", f"runs={tmp_path}/killed"])
    chance, log = random.Random(0), []
    for number in range(KILLS):
        said = kill_once(run, in_save=number % 2 == 1, chance=chance)
        if said is None:
            break
        log.append(said)
        print(f"kill {number + 1}: {said}", flush=True)
    assert len(log) == KILLS, f"the run ended after {len(log)} kills; make it longer"
    assert sum("half-written: checkpoint" in said for said in log) >= KILLS // 4
    assert finish(run) == [0]
    one, two = (load_file(r.model / "model.safetensors") for r in (undisturbed, run))
    assert one.keys() == two.keys()
    for name in one:
        assert torch.equal(one[name], two[name]), name
    assert run.predictions.read_text() == undisturbed.predictions.read_text()
    curves = [[(r["step"], r["loss"]) for r in it.read_history() if "loss" in r] for it in (run, undisturbed)]
    assert curves[0] == curves[1]
    assert [s for s, _ in curves[0]] == list(range(1, STEPS + 1))

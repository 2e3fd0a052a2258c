"""Adapters go on, are exported, evaluated and replayed on the base that they began from, and on no other unasked."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from ntil.commands import evaluate, export, replay
from ntil.components import Components
from ntil.config.errors import ConfigError
from ntil.preflight import compose_checked
from tests.support.in_process import WORDS as RUN
from tests.support.in_process import StopAt, frozen, perform

WORDS = ["tuning=lora", "optim.steps=3", "save_every=1"]


@pytest.fixture
def start(tmp_path):
    """A folder with weights to start from."""
    family = Components.build(compose_checked(RUN)).family
    family.save(family.load(), tmp_path / "start")
    return tmp_path / "start"


def change(start):
    file = start / "model.safetensors"
    save_file({name: value + 1 for name, value in load_file(file).items()}, file, {"format": "pt"})


def test_adapters_are_loaded_onto_no_other_base_unasked(tmp_path, start, capsys):
    run = frozen(tmp_path / "runs", *WORDS, f"model.checkpoint={start}")
    with pytest.raises(KeyboardInterrupt):
        perform(run, StopAt(2))
    shutil.copytree(start, tmp_path / "before")
    change(start)
    changed = r"model.safetensors changed since the run began from model.checkpoint=.*accept_changes=true"
    with pytest.raises(ConfigError, match=changed):
        perform(run)
    shutil.rmtree(start)
    (tmp_path / "before").rename(start)
    perform(run)  # the contents count, not the times
    assert run.done

    batch = {"step": 3, "rank": 0, "weights": "model", "components": {"ce": float("nan")}}
    shutil.copytree(run.model, run.replay / "model")
    rows = Components.build(run.config()).task.rows("train")
    (run.replay / "batch.json").write_text(json.dumps({**batch, "ids": [str(rows["id"][0])]}))
    change(start)
    to = tmp_path / "exported"
    for refused in (
        lambda: export.main([f"run={run.path}", f"to={to}"]),
        lambda: export.main([f"run={run.path}", f"to={to}", "merge=false"]),
        lambda: evaluate.main([f"run={run.path}", "processes=1"]),
        lambda: replay.main([f"run={run.path}"]),
    ):
        with pytest.raises(ConfigError, match=changed):
            refused()
    assert not to.exists()
    assert export.main([f"run={run.path}", f"to={to}", "accept_changes=true"]) == 0
    assert evaluate.main([f"run={run.path}", "processes=1", "accept_changes=true"]) == 0
    assert replay.main([f"run={run.path}", "accept_changes=true"]) == 0


@pytest.mark.slow
def test_accepted_changes_are_what_the_run_began_from(tmp_path, start):
    words = [*WORDS, f"model.checkpoint={start}"]
    run = frozen(tmp_path / "runs", *words)
    with pytest.raises(KeyboardInterrupt):
        perform(run, StopAt(2))
    change(start)
    run.freeze(frozen(tmp_path / "other", *words, "accept_changes=true").config())
    perform(run)
    assert export.main([f"run={run.path}", f"to={tmp_path / 'exported'}"]) == 0
    assert torch.is_tensor(load_file(tmp_path / "exported" / "model.safetensors")["model.embed_tokens.weight"])

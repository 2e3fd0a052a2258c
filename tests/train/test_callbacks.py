"""What a checkpoint remembers of its run beside the weights."""

import shutil
from pathlib import Path

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from ntil.config.errors import ConfigError
from ntil.distributed.ranks import Ranks
from ntil.runs.checkpoints import read_mark
from ntil.train import callbacks
from ntil.train.callbacks import Checkpoints, SaveWhenDue
from tests.support.in_process import trainer_of


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(callbacks.time, "perf_counter", lambda: now[0])
    return now


def leg(folder: Path, clock: list[float], begin: int, save: int, seconds: float) -> Checkpoints:
    """One process of a run: from step `begin` to a checkpoint at step `save`."""
    clock[0] += 500  # between two processes
    found = Checkpoints(9, Ranks(), "exact", True, {"ranks": 1})
    arguments, control = TrainingArguments(output_dir=str(folder), use_cpu=True), TrainerControl()
    found.on_train_begin(arguments, TrainerState(global_step=begin), control)
    clock[0] += seconds
    (folder / f"checkpoint-{save}").mkdir()
    found.on_save(arguments, TrainerState(global_step=save), control)
    return found


def test_seconds_of_a_resumed_run_count_what_led_to_its_checkpoint(tmp_path, clock):
    assert leg(tmp_path, clock, 0, 10, 30.0).seconds == 30
    assert leg(tmp_path, clock, 10, 20, 12.0).seconds == 42
    assert [read_mark(tmp_path / f"checkpoint-{n}")["seconds"] for n in (10, 20)] == [30, 42]
    assert leg(tmp_path, clock, 10, 15, 1.0).seconds == 31  # back to the older one


def test_a_checkpoint_of_before_says_no_seconds(tmp_path, clock):
    (tmp_path / "checkpoint-4").mkdir()
    (tmp_path / "checkpoint-4" / "COMPLETE").write_text("{}")
    assert leg(tmp_path, clock, 4, 8, 5.0).seconds == 5


def test_other_intervals_of_a_resumed_run_are_followed(tmp_path):
    words = ["optim.steps=9", "optim.warmup=0", "keep_checkpoints=9"]
    trainer = trainer_of(tmp_path, *words, "save_every=3", "log_every=3")
    trainer.train()
    resumed = trainer_of(tmp_path, *words, "save_every=2", "log_every=1")
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    logged = [record["step"] for record in resumed.state.log_history if "loss" in record]
    assert logged == [3, 4, 5, 6, 7, 8, 9]
    rarely = trainer_of(tmp_path, *words, "save_every=5", "log_every=4")
    for step in (4, 5, 6, 8, 9):
        shutil.rmtree(tmp_path / f"checkpoint-{step}", ignore_errors=True)
    rarely.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert [record["step"] for record in rarely.state.log_history if "loss" in record] == [3, 4, 8]
    assert (tmp_path / "checkpoint-5").exists()
    assert not (tmp_path / "checkpoint-6").exists()


@pytest.mark.parametrize(("minutes", "saved"), [(0, []), (1, [4, 8]), (0.1, [2, 4, 6, 8])])
def test_a_checkpoint_is_due_by_the_clock_and_never_at_the_last_step(monkeypatch, minutes, saved):
    now = [0.0]
    monkeypatch.setattr(callbacks.time, "monotonic", lambda: now[0])
    due, state, made = SaveWhenDue(minutes, 2, Ranks()), TrainerState(max_steps=10), []
    due.on_train_begin(None, state, TrainerControl())
    for step in range(1, 11):
        now[0] += 15.0
        state.global_step = step
        control = due.on_step_end(None, state, TrainerControl(should_save=step == 10))
        if control.should_save:
            made.append(step)
            due.on_save(None, state, control)
    assert made == saved


@pytest.mark.parametrize(("text", "message"), [("[]", "holds list where an object belongs"), ("{", "no JSON")])
def test_a_damaged_mark_is_one_sentence(tmp_path, text, message):
    (tmp_path / "COMPLETE").write_text(text)
    with pytest.raises(ConfigError, match=rf"COMPLETE: {message}"):
        read_mark(tmp_path)
    (tmp_path / "COMPLETE").write_text("")
    assert read_mark(tmp_path) == {}

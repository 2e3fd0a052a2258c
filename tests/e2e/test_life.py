"""From training to metrics: what a run keeps, which process tests it, and what an interruption in between costs."""

import gc
import json

import pytest

from ntil.distributed.interrupt import Interrupt
from ntil.distributed.ranks import Ranks
from ntil.runs.checkpoints import complete_checkpoints
from ntil.train import run as run_module
from tests.support.forked import finish, freeze

WORDS = ["loss=ntil", "optim.steps=4", "save_every=1", "keep_checkpoints=9", "engine=local"]


@pytest.fixture
def done(tmp_path):
    run = freeze([*WORDS, f"runs={tmp_path}/done"])
    assert finish(run) == [0]
    return run


def test_training_checkpoints_go_when_a_run_is_done(done):
    assert done.done
    assert not done.checkpoints.exists()
    assert not done.unfinished_model.exists()
    assert json.loads(done.trained.read_text())["step"] == 4


def test_a_key_keeps_them_and_the_last_step_is_the_model_alone(tmp_path):
    run = freeze([*WORDS, "keep_checkpoints_when_done=true", f"runs={tmp_path}/kept"])
    assert finish(run) == [0]
    assert [p.name for p in complete_checkpoints(run.checkpoints)] == [f"checkpoint-{n}" for n in (3, 2, 1)]


def test_a_run_whose_model_is_saved_is_only_tested(done):
    history, predictions, metrics = (f.read_text() for f in (done.history, done.predictions, done.metrics))
    done.metrics.unlink()
    done.predictions.unlink()
    assert finish(done) == [0]
    assert done.history.read_text() == history
    assert done.predictions.read_text() == predictions
    assert done.metrics.read_text() == metrics


def test_a_model_that_a_kill_left_half_saved_does_not_count(tmp_path):
    run = freeze([*WORDS, f"runs={tmp_path}/half"])
    run.unfinished_model.mkdir(parents=True)
    (run.unfinished_model / "config.json").write_text("{}")
    (run.unfinished_model / "leftover").write_text("of another save")
    assert finish(run) == [0]
    assert not (run.model / "leftover").exists()


@pytest.mark.slow
def test_nothing_of_the_training_is_alive_when_one_rank_is_tested_in_its_own_process(tmp_path, monkeypatch):
    run = freeze([*WORDS, f"runs={tmp_path}/alone"])
    load = run_module.load_tested

    def of_training():
        gc.collect()
        names = {"NumberTrainer", "AdamW", "AcceleratedOptimizer", "SupervisedHead"}
        return {id(o): type(o).__name__ for o in gc.get_objects() if type(o).__name__ in names}

    before = of_training()  # of other tests in this process
    alive: list[str] = []

    def looking(*args):
        alive.extend(name for key, name in of_training().items() if key not in before)
        return load(*args)

    monkeypatch.setattr(run_module, "load_tested", looking)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert run_module.run(run, Interrupt(), Ranks()) is False
    assert run.done
    assert not alive


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["local", "zero2", "zero3"])
def test_several_ranks_are_tested_by_fresh_processes_with_the_scores_of_one(tmp_path, engine):
    words = ["loss=ntil", "optim.steps=4", "evaluation.every_steps=2", "evaluation.validation_rows=8"]
    one = freeze([*words, "engine=local", f"runs={tmp_path}/one"])
    two = freeze([*words, f"engine={engine}", "engine.processes=2", f"runs={tmp_path}/two"])
    for run in (one, two):
        assert not any(finish(run)), run.error.read_text()
    assert one.predictions.read_text() == two.predictions.read_text()
    of_two, of_one = two.read_metrics(), one.read_metrics()
    assert of_two.keys() == of_one.keys()
    assert of_two["ce"] == pytest.approx(of_one["ce"], abs=1e-4)


@pytest.mark.slow
def test_rows_are_shared_out_in_an_evaluation_and_come_back_in_order(done):
    from ntil.commands.evaluate import evaluate_run

    alone, _ = evaluate_run(done, done.config())
    predictions = (alone / "predictions.jsonl").read_text()
    shared, metrics = evaluate_run(done, done.config(), processes=2)
    assert shared == alone
    assert (shared / "predictions.jsonl").read_text() == predictions == done.predictions.read_text()
    assert metrics["examples"] == 26

"""A mixture from its command line to its report, on one rank and on two."""

import json
import shutil

import pytest

from experiments import compare
from experiments.analysis import analyse
from experiments.report import report
from ntil.commands.evaluate import evaluate_run, overridden
from ntil.commands.status import state_of
from ntil.preflight import compose_checked
from ntil.runs.folder import folder_of
from ntil.runs.run import Run, read_runs
from tests.support.forked import finish
from tests.support.runs import TINY_RUN

pytestmark = pytest.mark.slow
ROWS = ("{train:40,validation:6,test:8}", "{train:20,validation:6,test:8}")
WORDS = [
    *TINY_RUN,
    "task=[clock,arithmetic]",
    *(f"task.tasks.{n}.source.rows={r}" for n, r in zip(("clock", "arithmetic"), ROWS, strict=True)),
    "task.weights={clock:3,arithmetic:1}",
    "engine=local",
    "engine.device=cpu",
    "engine.workers=0",
    "optim.steps=6",
    "evaluation.every_steps=3",
    "evaluation.validation_rows=4",
    "evaluation.validation_splits=[validation,test]",
    "save_every=0",
]


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NTIL_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        yield


def trained(folder, *words):
    config = compose_checked([*WORDS, f"runs={folder}", *words])
    run = folder_of(config)
    run.freeze(config)
    codes = finish(run)
    assert not any(codes), run.error.read_text()
    return run


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return folder, [trained(folder, f"loss={loss}") for loss in ("ce", "ntil")]


def test_metrics_predictions_and_the_best_of_each_task(runs):
    for run in runs[1]:
        metrics = run.read_metrics()
        assert (metrics["clock/train_rows"], metrics["arithmetic/train_rows"]) == (36, 12)
        assert metrics["examples"] == 16
        assert metrics["mean_over_tasks"] == (metrics["clock/exact"] + metrics["arithmetic/exact"]) / 2
        assert {"clock/ce", "arithmetic/digit_nll"} <= metrics.keys()
        for name, task in Run.read(run).built_task.members.items():
            member = run.of_member(name)
            records = list(member.read_predictions())
            assert len(records) == 8
            of_task = member.read_metrics()
            assert task.summarize(records).items() <= of_task.items()
            assert member.task_protocol() == task.protocol
            assert json.loads(member.digits.read_text())["totals"][0]
            history = member.read_history()
            assert sum("eval_exact" in record for record in history) == 2
            assert sum("loss/ce" in record and "rows" in record for record in history) == 6
        best = json.loads(run.best_validations.read_text())
        assert set(best) == {
            f"{split}{metric}"
            for split in ("", "test/")
            for metric in ("mean_over_tasks", "clock/exact", "arithmetic/exact")
        }
        assert all(one["step"] in (3, 6) for one in best.values())


def test_a_report_and_a_comparison_have_a_cell_for_each_task(runs, tmp_path, capsys):
    folder, (first, second) = runs
    reports = analyse(read_runs(str(folder)), {}, draws=50)
    assert [r.cell.task for r in reports] == ["clock+arithmetic.clock", "clock+arithmetic.arithmetic"]
    for one in reports:
        assert one.refused is None
        assert [line.loss for line in one.lines] == ["ce", "ntil"]
        assert one.lines[1].against[one.headline].examples == 8
    report(folder, read_runs(str(folder)), "mixture", 2, to=tmp_path / "report")
    assert (tmp_path / "report/tasks-clock+arithmetic-llava_nano.png").exists()
    assert "clock+arithmetic.arithmetic" in (tmp_path / "report/table.md").read_text()
    assert compare.main([str(first.path), str(second.path)]) == 0
    printed = capsys.readouterr().out
    assert printed.count("not distinguishable in exact") >= 2
    assert state_of(first).state == "done"


def test_it_is_evaluated_again_as_a_mixture_and_as_one_task(runs, tmp_path):
    run = runs[1][0]
    _, mixture = evaluate_run(run, overridden(run.config(), ["evaluation.split=validation"]))
    assert mixture["clock/examples"] == mixture["arithmetic/examples"] == 6
    _, same = evaluate_run(run, overridden(run.config(), []))
    assert same["clock/exact"] == run.read_metrics()["clock/exact"]
    _, single = evaluate_run(run, overridden(run.config(), ["task=clock", f"task.source.rows={ROWS[0]}"]))
    assert single["deviation"] == run.read_metrics()["clock/deviation"]
    shutil.rmtree(run.evaluations)


FEW_PICTURES = ["loss=ce", "task.weights={clock:1,arithmetic:7}", "evaluation.every_steps=0"]


@pytest.fixture(scope="module")
def one_rank(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("one"), *FEW_PICTURES)


@pytest.mark.parametrize("engine", ["local", "zero2"])
def test_two_ranks_draw_and_log_what_one_does(one_rank, tmp_path, engine):
    """Some micro-batches of two rows have no picture."""
    two = trained(tmp_path, *FEW_PICTURES, f"engine={engine}", "engine.processes=2", "engine.accumulation=2")
    logged = [[r for r in run.read_history() if "loss" in r] for run in (one_rank, two)]
    for alone, cut in zip(*logged, strict=True):
        for key in ("clock/rows", "arithmetic/rows", "loss/ce", "clock/loss/ce", "arithmetic/loss/ce"):
            assert cut[key] == pytest.approx(alone[key], rel=2e-3), key
    assert two.read_metrics()["clock/examples"] == 8

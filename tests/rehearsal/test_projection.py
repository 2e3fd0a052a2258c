"""Hours and disk of a run, from measured phases; and the sentence where the disk is too small."""

import shutil
from types import SimpleNamespace

import pytest

from ntil.config.build import build
from ntil.config.compose import compose
from ntil.config.schema import Component
from ntil.rehearsal.meter import Measure
from ntil.rehearsal.peaks import Peak
from ntil.rehearsal.perform import Outcome
from ntil.rehearsal.prepare import SplitRows
from ntil.rehearsal.projection import Counts, project, seconds, step_seconds
from ntil.rehearsal.report import Rehearsed, phase_table, sweep_table, verdict, waits_line
from ntil.rehearsal.sweep import disk_problems
from ntil.runs.folder import RunFolder
from ntil.runs.run import Run

ROWS = Counts(train=1000, validation=40, test=300)


def measure(phase, seconds, step=None, gigabytes=1.0, **parts):
    return Measure(phase, seconds, Peak(int(gigabytes * 1e9)), step, parts, "communication" in parts)


def outcome():
    """Two ranks; steps 1 and 3 are the first of their processes."""
    ranks = {}
    for rank, factor in ((0, 1.0), (1, 2.0)):
        ranks[rank] = [
            measure("data", 1.0),
            measure("load", 10.0 * factor),
            measure("engine", 5.0),
            measure("step", 90.0, 1),
            measure("step", 2.0 * factor, 2, 4.0, data=0.5, forward=1.0, backward=0.4, optimizer=0.1),
            measure("save", 20.0),
            measure("resume", 8.0),
            measure("step", 50.0, 3, 3.0, data=1.0, forward=20.0, backward=28.0, optimizer=1.0, communication=7.0),
            measure("validation", 6.0, gigabytes=5.0),
            measure("save model", 4.0),
            measure("load trained", 20.0),
            measure("evaluation", 30.0),
        ]
    rows = {
        "train": SplitRows(1000, [0, 1], longest=400, mean=100.0, taken=400.0, answer=20),
        "validation": SplitRows(40, [0, 1, 2, 3], 400, 100.0, 400.0, 20),
        "test": SplitRows(300, [0, 1, 2], 400, 100.0, 400.0, 20),
    }
    return Outcome(rows, ranks, checkpoint=100, model=30)


def config(*words):
    return compose(["model=llava_nano", "optim.steps=1000", "evaluation.every_steps=100", "save_every=200", *words])


def test_at_most_is_never_less_than_about():
    """Rows of packed steps are ordered anew, so those that are rehearsed may have fewer tokens than the mean."""
    smaller = outcome()
    smaller.rows["train"] = SplitRows(1000, [0, 1], longest=400, mean=100.0, taken=80.0, answer=20, packed=True)
    projected = project(config(), smaller, ROWS)
    assert projected.at_most == projected.about > project(config(), outcome(), ROWS).about


def test_the_slowest_rank_counts_and_no_first_step():
    assert seconds(outcome(), "load") == 20.0
    assert step_seconds(outcome()) == 4.0


def test_hours_follow_from_phases():
    projection = project(config(), outcome(), ROWS)
    # data, load, engine, save model; evaluation: the weights once, 30 s for three rows; saves; validations of 40 rows
    once = 1 + 20 + 5 + 4 + 20 + 30 * 300 / 3 + 4 * 20 + 10 * 6 * 40 / 4
    assert projection.at_most == pytest.approx(once + 1000 * 4.0)
    assert projection.about == pytest.approx(once + 1000 * 4.0 / 4)
    assert projection.steps == 1000


def test_disk_is_checkpoints_that_stay_and_one_that_is_written():
    projection = project(config("keep_checkpoints=2"), outcome(), ROWS)
    assert projection.disk == 30  # a run that is done has no use for its checkpoints
    assert projection.disk_peak == 30 + 4 * 100  # the best one stays too
    kept = project(config("keep_checkpoints=2", "keep_checkpoints_when_done=true"), outcome(), ROWS)
    assert kept.disk == 30 + 3 * 100
    without = project(config("save_every=0"), outcome(), ROWS)
    assert (without.disk, without.disk_peak) == (30, 30)


def test_saves_may_come_by_the_clock():
    by_steps, by_clock = (project(config(*words), outcome(), ROWS) for words in ((), ("save_minutes=10",)))
    # 1000 steps of 4 s are 66 minutes: six saves instead of four
    assert by_clock.at_most - by_steps.at_most == pytest.approx(2 * 20)


def test_epochs_become_steps_of_the_runs_own_rows():
    words = ("optim.epochs=2", "optim.steps=null", "optim.batch_size=10")
    assert project(config(*words), outcome(), ROWS).steps == 200


def rehearsed(one=None):
    made = one or outcome()
    projections = [project(config(), made, ROWS)] * 3
    settings = config("engine.processes=2", "engine.device=cpu")
    return Rehearsed("a run", Run(RunFolder("runs"), settings), settings, made, projections)


def test_phases_are_shown_with_the_peak_of_the_largest_rank():
    rows = {row[0]: row for row in phase_table(rehearsed()).rows}
    assert rows["step"][:3] == ["step", "4", "4.0"]
    assert rows["first step"][1] == "90"
    assert rows["validation"][2] == "5.0"
    assert rows["step"][-4:] == ["0.5", "1", "0.4", "0.1"]
    assert str(waits_line(outcome())).startswith("a step is forward")


def test_the_sweep_is_summed_over_runs_and_ranks():
    table = sweep_table([rehearsed()])
    kind, total = table.rows
    projection = rehearsed().projections[0]
    assert kind[1] == total[1] == "3"
    assert float(kind[6]) == pytest.approx(2 * 3 * projection.about / 3600, rel=0.01)
    assert kind[10] == "5.0"
    assert verdict([rehearsed()], []).startswith("3 runs of 1 kind rehearsed")
    assert "would not go through" in verdict([rehearsed()], ["no"])


def test_a_failed_rehearsal_projects_nothing():
    failed = Rehearsed("a run", rehearsed().run, config(), Outcome(failure="step: out of memory"), [])
    assert sweep_table([failed]).rows[0][:5] == ["a run", *["-"] * 4]


def test_a_disk_that_is_too_small_is_a_problem(monkeypatch):
    (projection, *_) = rehearsed().projections
    needed = 2 * projection.disk + projection.disk_peak
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=needed - 1))
    (line,) = disk_problems([rehearsed()])
    assert "free space, set runs= to another disk, or save less" in line
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=needed))
    assert disk_problems([rehearsed()]) == []


def test_rows_of_joined_splits_are_known_before_they_are_here():
    source = build("source", Component("refcoco", "data.grounding.refcoco:RefCOCO", {"folder": "refer/refcoco"}))
    assert source.expected_rows("train") == 120_624
    joined = {"folder": "refer/refcoco", "splits": {"test": "testA+testB", "validation": "val"}}
    source = build("source", Component("refcoco", "data.grounding.refcoco:RefCOCO", joined))
    assert source.expected_rows("test") == 5_657 + 5_095
    assert source.expected_rows("validation") == 10_834
    unknown = build("source", Component("refcoco", "data.grounding.refcoco:RefCOCO", {**joined, "folder": "refcoco+"}))
    assert unknown.expected_rows("test") is None

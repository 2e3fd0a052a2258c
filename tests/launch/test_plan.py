"""What a sweep would run is known before anything starts."""

import json

import pytest

from ntil.cli import main
from ntil.config.compose import CONF
from ntil.launch.plan import check_multirun, dry_run, plan, seconds_per_step
from ntil.runs.run import Run

SMALL = sorted(p.stem for p in (CONF / "experiment").glob("*.yaml") if "  small: " in p.read_text())
GRIDS = sorted(p.stem for p in (CONF / "experiment").glob("*.yaml") if p.stem != "search")


@pytest.mark.slow
def test_an_experiment_sweeps_its_grid():
    jobs = plan(["-m", "experiment=clock", "seed=0,1"])
    assert len(jobs) == 3 * 5 * 2
    assert [job.run.key for job in jobs[:2]] == [("clock", "llava_nano", "ce", 0), ("clock", "llava_nano", "ce", 1)]
    assert {job.run.key[1] for job in jobs} == {"llava_nano", "yi_vl_nano", "qwen2_vl_nano"}
    assert {job.run.key[1] for job in plan(["experiment=clock", "scale=full", "loss=ce", "seed=0"])} == {
        "llava15_7b",
        "yi_vl_6b",
        "qwen2_vl_2b",
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scale", "name"),
    [*((scale, name) for scale in ("nano", "full") for name in GRIDS), *(("small", n) for n in SMALL)],
)
def test_every_experiment_composes_at_its_scales(name, scale, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "starts/aligned/dino_smol").mkdir(parents=True)  # which demo_small starts from
    if scale == "full":  # its data sets are not here, and MathVista's has no train split of its own
        monkeypatch.setattr("tasks.base.Task.check_files", lambda task: None)
        monkeypatch.setattr("tasks.base.Task.check_split", lambda task, split: None)
    words = ["loss=ce", "seed=0"] if name != "demo" else ["loss=ce"]
    jobs = plan(["-m", f"experiment={name}", f"scale={scale}", *words])
    assert jobs
    assert all(job.run.config.name == name for job in jobs)
    if scale == "small":
        assert {job.run.key[1] for job in jobs} <= {"dino_smol", "smollm2_small"}
        assert all(job.run.config.optim.steps == 600 for job in jobs)  # the models' recipe


def test_dry_run_knows_states_and_times(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "160")
    words = ["-m", "loss=ce,ntil", "seed=0,1", f"runs={tmp_path}", "optim.steps=100"]
    first, second, *_ = (job.run for job in plan(words))
    first.folder.freeze(first.config)
    first.folder.metrics.write_text("{}")
    history = [{"step": s, "time": 1000.0 + 3 * s} for s in (10, 20, 30)]
    first.folder.history.write_text("".join(json.dumps(r) + "\n" for r in history))
    second.folder.freeze(second.config)
    second.folder.error.write_text("ValueError: no")
    assert seconds_per_step([Run.read(first.folder)]) == {("clock", "llava_nano"): 3.0}
    rows = dry_run(words).table.rows
    assert [row[7] for row in rows[:4]] == ["done", "failed", "to do", "to do"]
    assert {row[5] for row in rows[:4]} == {"0.1"}
    assert rows[-1][0] == "4 runs"
    assert rows[-1][-2] == "15 min left"
    assert main(["train", *words, "--dry-run"]) == 0
    assert "15 min left" in capsys.readouterr().out
    assert not list(tmp_path.glob("**/checkpoints"))
    (second.folder.checkpoints / "checkpoint-80").mkdir(parents=True)
    (second.folder.checkpoints / "checkpoint-80/COMPLETE").write_text("")
    second.folder.error.unlink()
    rows = dry_run(words).table.rows
    assert (rows[1][8], rows[-1][-2]) == ("1 min", "11 min left")  # 20 steps of it, and 200 of the two others


@pytest.mark.parametrize(
    ("words", "gigabytes"),
    [
        # 141 GB for 7.06e9 parameters of 2 + 18 bytes, and the activations of 64 rows; 16 GB for 2 + 18/8 and 4 bytes
        # for the largest layer (131 million), and those of 8 rows.
        ([], "165"),
        (["engine=zero3", "engine.processes=8"], "19"),
        (["model.checkpoint=somebody/mine", "model.name=mine"], "not known"),
    ],
)
def test_dry_run_estimates_memory(tmp_path, words, gigabytes):
    words = ["model=llava15_7b", "engine=local", "loss=ce", f"runs={tmp_path}", "engine.processes=1", *words]
    row = dry_run(words).table.rows[0]
    assert row[5] == gigabytes


def test_dry_run_says_what_a_packed_estimate_counts(tmp_path, monkeypatch):
    monkeypatch.setattr("tasks.base.Task.check_files", lambda task: None)

    def planned(*words):
        common = ["model=llava15_7b", "loss=ce", f"runs={tmp_path}", "optim.steps=1000", "optim.epochs=null"]
        shown = dry_run([*common, *words])
        return float(shown.table.rows[0][-1]), [line for line in shown.remarks if "rows" in line]

    refcoco = ["task=refcoco", "task.source.folder=somewhere/refcoco"]
    unpacked, remarks = planned(*refcoco)
    assert not remarks
    packed, remarks = planned(*refcoco, "packing=pictures")
    assert remarks == ["refcoco: the estimated time counts 7.11 rows a picture, which packing=pictures shares"]
    assert packed < 0.5 * unpacked
    upper, remarks = planned("task=refcoco", "task.source.folder=somewhere/mine", "packing=tokens")
    assert "isn't known before the data is read" in remarks[0]
    assert upper > packed


def test_weights_that_are_not_here_are_said_before_anything_starts(tmp_path, capsys):
    words = ["model=llava15_7b", "model.checkpoint=starts/clock/not_made", "loss=ce", f"runs={tmp_path}"]
    assert main(["train", *words, "--dry-run"]) == 2
    assert "model.checkpoint=starts/clock/not_made: no such folder" in capsys.readouterr().err


def test_a_search_is_no_grid(capsys):
    assert main(["train", "-m", "experiment=search", "task=clock", "loss=ntil", "--dry-run"]) == 2
    assert "only grids can be listed" in capsys.readouterr().err


def test_given_values_replace_those_of_the_experiment(capsys):
    assert main(["train", "-m", "experiment=clock", "loss=nothing", "--dry-run"]) == 2
    assert "loss=nothing: no such config" in capsys.readouterr().err


def test_several_values_need_the_flag_that_training_needs(tmp_path, capsys):
    words = ["task=arithmetic", "model=qwen25_nano", "tracker=none", f"runs={tmp_path}"]
    assert main(["train", "--dry-run", *words, "seed=0,1"]) == 2
    assert "seed=0,1: several values; add -m for a run of each" in capsys.readouterr().err
    assert main(["train", "--dry-run", "-m", *words, "seed=0,1"]) == 0
    assert main(["train", "--dry-run", *words, "seed=0"]) == 0
    check_multirun(["experiment=clock", "seed=0,1"])  # whose mode is that of several runs

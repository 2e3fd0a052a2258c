"""The checks for a GPU, run on the CPU at nano size: their comparisons, what they watch, and the report they make."""

from __future__ import annotations

import warnings

import pytest
import torch

from benchmarks import train_step
from benchmarks.gpu_check import __main__ as command
from benchmarks.gpu_check import engines, losses, peers, step_profile, syncs, throughput
from benchmarks.gpu_check.check import Context, Result
from benchmarks.gpu_check.report import markdown
from ntil.config.compose import choices
from ntil.rehearsal.meter import Measure
from ntil.rehearsal.peaks import Peak
from ntil.rehearsal.perform import Outcome
from ntil.runs.folder import folder_of

WORDS = (
    "model=llava_nano",
    "task=clock",
    "task.source.rows={train:64,validation:8,test:8}",
    "loss=ntil",
    "curriculum=none",
    "tracker=none",
    "optim.batch_size=8",
    "evaluation.batch_size=4",
    "evaluation.validation_rows=4",
    "engine.threads=1",
    "engine.workers=0",
    "vision_cache_gb=0",
)


@pytest.fixture
def context(tmp_path, monkeypatch):
    monkeypatch.setenv("NTIL_CACHE", str(tmp_path / "cache"))
    return Context("cpu", WORDS, tmp_path, steps=2)


@pytest.mark.slow
def test_all_losses_are_compared(context):
    result = losses.run(context)
    assert result.passed
    assert [row[0] for row in result.tables[0].rows] == choices("loss")


@pytest.mark.slow
def test_a_loss_that_differs_is_found(context, monkeypatch):
    real = losses.value_and_gradient

    def off(spec, device):
        total, gradient = real(spec, "cpu")
        return total, gradient * (1 + 1e-3 * (spec.name == "ntil" and device == "there"))

    monkeypatch.setattr(losses, "value_and_gradient", off)
    result = losses.run(Context("there", WORDS, context.folder))
    assert result.passed is False
    assert [row[0] for row in result.tables[0].rows if row[-1] == "DIFFERS"] == ["ntil"]


def test_gradients_are_compared_by_their_largest():
    assert losses.difference(torch.tensor([10.0, 0.0]), torch.tensor([10.0, 1e-3])) == pytest.approx(1e-4)


def test_synchronisations_within_steps_are_named(context):
    """Where torch would warn, the mode given here warns once as it is set."""
    modes = []

    def mode(name):
        modes.append(name)
        if name == "warn":
            warnings.warn("called a synchronizing CUDA operation", UserWarning, stacklevel=1)

    result = syncs.run(context, mode)
    assert modes == ["warn", "default"] * context.steps
    assert result.passed is False
    ((place, times),) = result.tables[0].rows
    assert place.startswith(__file__)
    assert times == "1"
    quiet = syncs.run(context, lambda name: None)
    assert quiet.passed
    assert quiet.tables == []


def test_a_profile_names_the_operators(context):
    result = step_profile.run(context)
    names = [row[0] for row in result.tables[0].rows]
    assert len(names) == step_profile.TOP
    assert any(step_profile.is_product(name) for name in names)
    assert "% of the busy time are matrix products" in result.lines[0]


def test_answers_are_written_to_their_limit(context):
    result = throughput.run(context, (1, 4))
    one, four = result.tables[0].rows
    assert (one[0], four[0]) == ("1", "4")
    assert float(one[2]) == pytest.approx(8 * float(one[1]), rel=0.02)  # a clock's limit


def rehearsal(differs):
    """A rehearsal in an instant: losses in the history, a step of 2 s and 1 GB."""

    def rehearse(config, rows, place):
        assert set(rows) == {"train", "validation", "test"}
        folder = folder_of(config)
        folder.path.mkdir(parents=True)
        value = 3.3 if config.engine.zero_stage == differs else 3.0
        folder.history.write_text("".join(f'{{"step": {s}, "loss": {value - 0.1 * s}}}\n' for s in (1, 2, 3)))
        return Outcome(rows, {0: [Measure("step", 2.0, Peak(10**9), step) for step in (1, 2, 3)]})

    return rehearse


@pytest.mark.parametrize(("differs", "passed"), [(9, True), (3, False)])
def test_engines_are_compared_with_torch_alone(context, differs, passed):
    absent = engines.Case("absent", (), needs="no_such_package")
    cases = (engines.CASES[0], engines.CASES[6], engines.CASES[7], engines.CASES[-1], absent)
    result = engines.run(context, cases, rehearsal(differs))
    assert result.passed is passed
    names = [row[0] for row in result.tables[0].rows]
    assert names == ["torch alone", "ZeRO-2", "ZeRO-3"]
    assert result.tables[0].rows[0][3:5] == ["2", "1.0"]
    assert "ZeRO-3, all GPUs: skipped, there is one GPU" in result.lines
    assert "absent: skipped, no_such_package isn't installed" in result.lines


def test_an_engine_that_dies_is_a_failed_row(context):
    def dying(config, rows, place):
        return Outcome(rows, failure="step: out of memory")

    result = engines.run(context, engines.CASES[:1], dying)
    assert result.passed is False
    assert result.tables[0].rows[0][2] == "step: out of memory"


def test_an_engine_that_is_refused_is_a_failed_row(context):
    refused = engines.Case("too many", ("engine.accumulation=3",))
    result = engines.run(context, (refused,), rehearsal(9))
    assert result.passed is False
    assert "doesn't divide over 1 rank(s) x engine.accumulation=3" in result.tables[0].rows[0][2]


@pytest.mark.slow
def test_engines_really(context):
    result = engines.run(context, (engines.CASES[0], engines.CASES[6]))
    assert result.passed, result
    assert all(float(row[3]) > 0 for row in result.tables[0].rows)


def test_peers_are_run_in_turns(context):
    calls = []

    def spawned(model, name, checkpoint, options):
        calls.append(name)
        assert (model, checkpoint, options.steps) == ("llava_nano", None, 4)
        return {"steps": [2.0 if name == "ce" else 3.0], "gib": 1.5}

    result = peers.run(context, "llava_nano", spawned)
    assert calls == [*peers.LOSSES, *train_step.PEERS] * peers.ROUNDS
    assert [row[2] for row in result.tables[0].rows] == ["1.00", "1.50", "1.50", "1.50"]


@pytest.mark.slow
def test_a_check_that_raises_is_a_failed_one_and_the_others_go_on(context, capsys):
    def broken(_):
        raise ArithmeticError("no such kernel")

    results = list(command.results_of({"broken": broken, "losses": losses.run}, context))
    assert [result.passed for result in results] == [False, True]
    text = markdown(results, "cpu", "python -m benchmarks.gpu_check gpu.md")
    assert "| broken | FAILED |" in text
    assert "| Losses on cpu equal the CPU's | passed |" in text
    assert "ArithmeticError: no such kernel" in text
    assert "| ntil | " in text
    capsys.readouterr()


def test_what_has_nothing_to_pass_is_measured():
    assert "| speed | measured |" in markdown([Result("speed", None)], "cpu", "it")


def test_without_a_gpu_nothing_is_done(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert command.main([str(tmp_path / "gpu.md")]) == 0
    assert capsys.readouterr().out == "gpu-check: there is no GPU here, so nothing was checked\n"
    assert not (tmp_path / "gpu.md").exists()

"""A protocol is checked before any run, and may not be changed after the first."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from experiments.benchmark.command import main, plan
from experiments.benchmark.protocol import file_of, freeze, read
from experiments.benchmark.report import cell_names
from experiments.benchmark.stages import Stages
from ntil.config.compose import choices
from ntil.config.errors import ConfigError

ROOT = Path(__file__).parents[3]
SMALL = """
title: a small one
overrides: [engine=local, tracker=none]
cells:
  sums: [model=qwen25_nano, task=arithmetic]
losses: [ce, emd, ntil]
search:
  optim.lr: {low: 1.0e-4, high: 1.0e-2, log: true}
  loss.lam: {low: 0.1, high: 1.0}
trials: 3
seeds: [0, 1]
hypotheses:
  - {claim: NTIL is better, better: ntil, than: [ce]}
"""


def written(place, text=SMALL, **changes):
    for before, after in changes.values():
        assert before in text
        text = text.replace(before, after)
    file = place / "small.yaml"
    file.write_text(text)
    return file


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("[ce, emd, ntil]", "[ce, emd, ntill]", "there is no loss 'ntill'; did you mean 'ntil'"),
        ("than: [ce]", "than: [value_emd]", "'value_emd' is compared, but is not among losses"),
        ("seeds: [0, 1]", "seeds: [0, 0]", "seeds must be two or more different ones"),
        ("seeds: [0, 1]", "seeds: [0, 1000]", "no seed in common"),
        ("seeds: [0, 1]", "seeds: [0, 1]\nuntuned_seeds: [0, 1000]", "no seed in common"),
        ("[ce, emd, ntil]", "[ce, emd+value_em, ntil]", "there is no loss 'value_em'; did you mean 'value_emd'"),
        ("low: 0.1, high: 1.0", "low: 2, high: 1", r"search.loss.lam: low must be below high"),
        ("than: [ce]}", "than: [ce], in_at_least: 2}", "in_at_least=2 of 1 cells"),
        ("trials: 3", "trails: 3", "trails"),
        ("trials: 3", "trials: many", "trials"),
        ("[ce, emd, ntil]", "[ce, emd", "not YAML: .*small.yaml"),
        ("  sums: [model=qwen25_nano, task=arithmetic]", "  {}", "cells and losses must name one or more"),
        ("trials: 3", "smallest_effect: 0", "smallest_effect above 0"),
        ("trials: 3", "pilot: {losses: [ce]}", "pilot.losses must be two or more"),
    ],
)
def test_a_protocol_that_cant_be_run_is_refused(tmp_path, before, after, message):
    with pytest.raises(ConfigError, match=message):
        read(written(tmp_path, change=(before, after)))


def test_an_unknown_name_is_refused():
    with pytest.raises(ConfigError, match="no such file; did you mean 'numbers'"):
        read(file_of("number"))


@pytest.mark.parametrize(
    ("name", "folder"),
    [("numbers", "benchmark"), ("numbers_more", "benchmark_more"), ("numbers_more_2", "benchmark_more_2")],
)
def test_what_was_published_is_the_protocol_of_the_config(name, folder):
    frozen = json.loads((ROOT / "docs" / "results" / folder / "protocol.json").read_text())
    assert asdict(read(file_of(name))) == frozen


def test_a_protocol_may_extend_another(tmp_path):
    base = read(written(tmp_path))
    more = tmp_path / "more.yaml"
    more.write_text("extends: small.yaml\nlosses: [ce, ntil]\nsearch: {optim.lr: {low: 0.1, high: 1}}\n")
    extended = read(more)
    assert (extended.losses, list(extended.search)) == (["ce", "ntil"], ["optim.lr"])
    assert (extended.cells, extended.hypotheses, extended.trials) == (base.cells, base.hypotheses, 3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("extends: more.yaml\n", "extends itself, through .*more.yaml"),
        ("extends: number\n", "number.yaml: there is no such file; did you mean 'numbers'"),
        ("extends: nowhere.yaml\n", "nowhere.yaml: there is no such file"),
        ("- numbers\n", "a protocol has keys and values"),
    ],
)
def test_what_cant_be_extended_is_named(tmp_path, text, message):
    (tmp_path / "more.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        read(tmp_path / "more.yaml")


def test_it_may_not_change_once_it_is_frozen(tmp_path):
    folder = tmp_path / "runs"
    freeze(read(written(tmp_path)), folder)
    freeze(read(written(tmp_path)), folder)
    changed = read(written(tmp_path, change=("claim: NTIL is better", "claim: NTIL is worse")))
    with pytest.raises(ConfigError, match="hypotheses changed since the search began"):
        freeze(changed, folder)


def test_a_damaged_frozen_protocol_is_named(tmp_path):
    folder = tmp_path / "runs"
    freeze(read(written(tmp_path)), folder)
    (folder / "protocol.json").write_text("{")
    with pytest.raises(ConfigError, match=r"protocol\.json"):
        freeze(read(written(tmp_path)), folder)


def test_a_key_that_no_loss_has_is_no_search(tmp_path):
    file = written(tmp_path, change=("loss.lam: {", "loss.lamm: {"))
    with pytest.raises(ConfigError, match=r"search\.loss\.lamm: no loss of the protocol has this key.*loss\.lam"):
        main([f"of={file}", f"runs={tmp_path}/runs"])


def test_a_key_that_every_loss_leaves_null_is_no_search(tmp_path):
    file = written(tmp_path, change=("loss.lam: {", "loss.mass_weight: {"))
    with pytest.raises(ConfigError, match=r"search\.loss\.mass_weight: every loss .* leaves this key null"):
        main([f"of={file}", f"runs={tmp_path}/runs"])


def test_nothing_is_frozen_before_its_runs_can_start(tmp_path):
    file = written(
        tmp_path, change=("model=qwen25_nano", "model=qwen25_nano, optim.lr=1e-5, model.checkpoint=a/b/none")
    )
    words = [f"of={file}", f"runs={tmp_path}/runs"]
    for message, stage in (("a/b/none: no such folder", "all"), ("have still to be run", "report")):
        with pytest.raises(ConfigError, match=message):
            main([*words, f"stage={stage}"])
    assert not (tmp_path / "runs/small/protocol.json").exists()


def test_each_loss_is_searched_over_the_keys_that_it_has(tmp_path):
    stages = Stages(read(written(tmp_path)), tmp_path / "runs")
    keys = {loss: {key for job in stages.search("sums", loss) for key in job.settings} for loss in ("ce", "ntil")}
    assert keys == {"ce": {"optim.lr"}, "ntil": {"optim.lr", "loss.lam"}}
    jobs = stages.searches()
    assert [job.loss for job in jobs[:3]] == ["ce", "emd", "ntil"]
    assert {job.config.evaluation.split for job in jobs} == {"validation"}
    assert {job.config.seed for job in jobs} == {1000}
    with pytest.raises(ConfigError, match="3 trials have still to be run"):
        stages.best("sums", "ce")


def test_keys_that_a_loss_leaves_unset_are_not_drawn(tmp_path):
    """emd has mass_weight: null, and a weight without `mass` would be refused."""
    change = ("loss.lam: {low: 0.1, high: 1.0}", "loss.mass_weight: {low: 0.1, high: 1.0}")
    losses = ("losses: [ce, emd, ntil]", "losses: [ce, ntil, emd, emd_mass]")
    stages = Stages(read(written(tmp_path, change=change, losses=losses)), tmp_path / "runs")
    keys = {loss: {key for job in stages.search("sums", loss) for key in job.settings} for loss in ("emd", "emd_mass")}
    assert keys == {"emd": {"optim.lr"}, "emd_mass": {"optim.lr", "loss.mass_weight"}}


def test_a_sum_is_searched_over_one_lam_of_all_parts(tmp_path):
    losses = ("losses: [ce, emd, ntil]", "losses: [ce, ntil, emd+value_emd_rescaled]")
    stages = Stages(read(written(tmp_path, change=losses)), tmp_path / "runs")
    first, *others = stages.search("sums", "emd+value_emd_rescaled")
    assert first.config.loss.name == "emd+value_emd_rescaled"
    assert first.config.loss.options["lam"] == 0.3
    assert {key for job in others for key in job.settings} == {"optim.lr", "loss.lam"}
    assert others[0].config.loss.options["lam"] == others[0].settings["loss.lam"]


def test_screened_losses_have_the_first_seed_alone(tmp_path):
    pilot = ("hypotheses:", "pilot: {losses: [ce, ntil], seeds: [7, 8], screened: [emd, ntil]}\nhypotheses:")
    jobs = Stages(read(written(tmp_path, change=pilot)), tmp_path / "runs").pilot()
    assert [(job.loss, job.config.seed) for job in jobs] == [
        ("ce", 7),
        ("ntil", 7),
        ("emd", 7),
        ("ce", 8),
        ("ntil", 8),
    ]


def test_untuned_seeds_may_be_fewer(tmp_path):
    stages = Stages(
        read(written(tmp_path, change=("seeds: [0, 1]", "seeds: [0, 1, 2]\nuntuned_seeds: [0, 1]"))), tmp_path
    )
    assert len(stages.seeds(False)) == 6


def test_a_plan_counts_the_runs_of_each_stage(tmp_path):
    rows = {row[0]: row[1:] for row in plan(Stages(read(written(tmp_path)), tmp_path / "runs")).rows}
    assert rows["pilot"] == ["8", "0"]
    assert rows["search"] == ["9", "0"]
    assert rows["untuned"] == ["6", "0"]
    assert rows["tuned"] == ["6", "-"]
    assert "ce: searched over optim.lr" in rows


def test_cells_of_one_task_and_model_are_refused(tmp_path):
    text = SMALL.replace("losses:", "  more sums: [model=qwen25_nano, task=arithmetic, optim.steps=10]\nlosses:", 1)
    with pytest.raises(ConfigError, match="sums and more sums are both of arithmetic with qwen25_nano"):
        cell_names(Stages(read(written(tmp_path, text)), tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("name", choices("benchmark"))
def test_the_protocols_here_can_be_planned(name, tmp_path):
    stages = Stages(read(file_of(name)), tmp_path)
    cell_names(stages)
    protocol = stages.protocol
    rows = {row[0]: row[1] for row in plan(stages).rows}
    assert int(rows["search"]) == len(protocol.cells) * len(protocol.losses) * protocol.trials
    assert int(rows["tuned"]) == len(protocol.cells) * len(protocol.losses) * len(protocol.seeds)

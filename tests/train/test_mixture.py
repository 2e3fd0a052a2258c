"""A training on a mixture: the rows that it measures, what it logs of each task, and resuming to the bit."""

import math

import pytest
import torch
from transformers.trainer_utils import set_seed

from ntil.components import Components
from ntil.config.compose import compose
from ntil.config.errors import ConfigError
from ntil.models.head import SupervisedHead
from ntil.packing.masks import attention_mask
from ntil.train.packing import packing_of
from ntil.train.run import coverage_by_task
from ntil.train.trainer import build_trainer
from tests.support.families import VISION_NANO
from tests.support.runs import TINY_RUN

FAMILIES = [pytest.param(name, marks=() if name == "llava_nano" else pytest.mark.slow) for name in VISION_NANO]

MIXTURE = [
    *TINY_RUN,
    "task=[clock,arithmetic]",
    "task.tasks.clock.source.rows={train:12}",
    "task.tasks.arithmetic.source.rows={train:24}",
    "engine=local",
    "engine.workers=0",
    "optim.steps=6",
    "evaluation.every_steps=0",
]


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("NTIL_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def trainer_of(place, *words):
    config = compose([*MIXTURE, *words])
    components = Components.build(config)
    set_seed(0)
    return build_trainer(config, components, components.family.load(), components.task.rows("train"), place)


def test_rows_and_components_of_each_task_are_logged(tmp_path):
    trainer = trainer_of(tmp_path, "loss=value_emd", "task.weights={clock:3,arithmetic:1}")
    trainer.train()
    records = [record for record in trainer.state.log_history if "loss" in record]
    assert [(r["clock/rows"], r["arithmetic/rows"]) for r in records] == [(6 * n, 2 * n) for n in range(1, 7)]
    assert trainer.task_log.totals() == {"clock": 36, "arithmetic": 12}
    for record in records:
        of_run = {key for key in record if key.startswith("loss/")} - {"loss/factor"}
        for name in ("clock", "arithmetic"):
            assert {key.removeprefix(f"{name}/") for key in record if key.startswith(f"{name}/loss/")} == of_run
        # A mean over tokens lies between those of the parts.
        parts = sorted(record[f"{name}/loss/ce"] for name in ("clock", "arithmetic"))
        assert parts[0] - 1e-4 <= record["loss/ce"] <= parts[1] + 1e-4


def test_components_of_a_task_are_the_loss_of_its_rows(tmp_path):
    """With its own counts, whatever else is in the step and however that is cut."""
    words = ["loss=ntil_paper", "loss.noise=0", "optim.steps=1", "optim.lr=1e-9"]
    logged = [trainer_of(tmp_path / str(pieces), *words, f"engine.accumulation={pieces}") for pieces in (1, 4)]
    for trainer in logged:
        trainer.train()
    first, cut = (trainer.state.log_history[0] for trainer in logged)
    names = [key for key in first if key.startswith(("clock/", "arithmetic/"))]
    assert len(names) > 8
    assert {key: cut[key] for key in names} == pytest.approx({key: first[key] for key in names}, rel=1e-4)
    trainer = logged[0]
    rows = [trainer.train_dataset[index] for index in trainer._sampler]
    components = Components.build(compose([*MIXTURE, *words]))
    for name in ("clock", "arithmetic"):
        batch = components.collator([row for row in rows if components.task.member_of(row) == name])
        inputs = {k: v for k, v in batch.items() if isinstance(v, torch.Tensor)}
        positions, targets = inputs.pop("positions"), inputs.pop("targets")
        set_seed(0)
        trainer.inner_model.eval()
        with torch.no_grad():
            logits = trainer.head.logits(trainer.inner_model, inputs, positions)
            parts = components.loss.parts(logits, targets, batch["spans"])
        assert first[f"{name}/loss/ce"] == pytest.approx(parts.ce.item(), rel=1e-3)
        for term, (mean, _) in parts.terms.items():
            assert first[f"{name}/loss/{term}"] == pytest.approx(mean.item(), rel=1e-3)


def test_a_resumed_training_is_the_undisturbed_one_bit_for_bit(tmp_path):
    words = ["loss=ntil", "task.temperature=2", "save_every=3", "engine.accumulation=2"]
    through = trainer_of(tmp_path, *words)
    through.train()
    resumed = trainer_of(tmp_path, *words)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    weights = through.model.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in resumed.model.state_dict().items())
    assert resumed.task_log.totals() == through.task_log.totals()
    assert sum(through.task_log.totals().values()) == 48
    last = [
        {k: v for k, v in trainer.state.log_history[-2].items() if "/" in k and math.isfinite(v)}
        for trainer in (through, resumed)
    ]
    assert {k: v for k, v in last[1].items() if "loss" in k} == {k: v for k, v in last[0].items() if "loss" in k}


def test_the_same_rows_for_each_loss(tmp_path):
    orders = [list(trainer_of(tmp_path / loss, f"loss={loss}")._sampler) for loss in ("ce", "ntil")]
    assert orders[0] == orders[1]


def test_a_loss_on_boxes_needs_one_task_of_boxes(capsys):
    components = Components.build(compose([*MIXTURE, "loss=box_iou"]))
    with pytest.raises(ConfigError, match="the loss is on boxes"):
        coverage_by_task(components, components.task.rows("train"))
    boxes = "task=[clock,grounding_nano]"
    words = [word for word in MIXTURE if not word.startswith("task")]
    rows = ["task.tasks.clock.source.rows={train:4}", "task.tasks.grounding_nano.source.rows={train:4}"]
    components = Components.build(compose([*words, boxes, *rows, "loss=box_iou"]))
    shares = coverage_by_task(components, components.task.rows("train"))
    assert set(shares) == {"grounding_nano"}
    assert "clock: the loss is on boxes" in capsys.readouterr().out


def test_tasks_whose_numbers_are_other_tokens_are_no_mixture():
    rows = ["task.tasks.clock.source.rows={train:4}", "task.tasks.grounding_nano.source.rows={train:4}"]
    config = compose(["task=[clock,grounding_nano]", "model=paligemma_nano", *rows])
    with pytest.raises(ConfigError, match="writes coordinates with tokens of their own"):
        Components.build(config)


@pytest.mark.parametrize("model", FAMILIES)
def test_rows_with_and_without_pictures_stand_in_one_batch(model):
    """As alone; a micro-batch without any picture gets a blank one, so that each weight has a gradient on all ranks."""
    components = Components.build(compose([*MIXTURE, f"model={model}", "loss=ce"]))
    rows = list(components.task.rows("train").select([0, 1, 12, 13]))
    torch.manual_seed(0)
    network = components.family.load().eval()
    head = SupervisedHead(network)

    def cost(batch):
        inputs = {k: v for k, v in batch.items() if isinstance(v, torch.Tensor)}
        positions, targets = inputs.pop("positions"), inputs.pop("targets")
        logits = head.logits(network, inputs, positions)
        return torch.nn.functional.cross_entropy(logits.float(), targets, reduction="sum")

    clocks, sums = cost(components.collator(rows[:2])), cost(components.collator(rows[2:]))
    texts = list(components.members["arithmetic"].task.rows("train").select([0, 1]))
    assert sums.item() == pytest.approx(cost(components.members["arithmetic"].collator(texts)).item(), rel=1e-4)
    mixed = cost(components.collator([rows[2], rows[0], rows[3], rows[1]]))
    assert mixed.item() == pytest.approx((clocks + sums).item(), rel=1e-4)
    clocks.backward()
    seen = {name for name, weight in network.named_parameters() if weight.grad is not None}
    network.zero_grad()
    sums.backward()
    assert seen == {name for name, weight in network.named_parameters() if weight.grad is not None}


def test_packed_rows_of_a_mixture_have_the_loss_of_separate_ones():
    components = Components.build(compose([*MIXTURE, "loss=ntil", "packing=pictures"]))
    rows = components.task.rows("train").select([0, 12, 0, 13, 0])
    packing = packing_of(compose([*MIXTURE, "packing=pictures"]), components, rows)
    assert packing is not None
    assert len(set(packing.pictures[[0, 2, 4]])) == 1
    packed = packing.collator(packing.rows.__getitems__(range(5)))
    separate = components.collator(list(rows))
    assert "segments" in packed
    assert packed["task_counts"] == separate["task_counts"]
    torch.manual_seed(0)
    network = components.family.load().eval()
    costs = []
    for batch in (packed, separate):
        inputs = {k: v for k, v in batch.items() if isinstance(v, torch.Tensor) and k != "segments"}
        positions, targets = inputs.pop("positions"), inputs.pop("targets")
        if "segments" in batch:
            inputs["attention_mask"] = attention_mask(batch["segments"], "sdpa", torch.float32)
        logits = SupervisedHead(network).logits(network, inputs, positions)
        costs.append(torch.nn.functional.cross_entropy(logits, targets, reduction="none"))
    torch.testing.assert_close(costs[0], costs[1], atol=1e-4, rtol=1e-4)

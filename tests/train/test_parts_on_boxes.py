"""A sum with a part on boxes may train tasks without: that part adds nothing, and the run says so."""

import pytest
import torch

from data.common.rows import sample_rows
from ntil.components import Components
from ntil.config.errors import ConfigError
from ntil.preflight import compose_checked
from tests.support.in_process import WORDS, trainer_of


def test_in_a_sum_a_part_on_boxes_adds_nothing_where_there_are_none(tmp_path):
    """Sums of arithmetic have none: the weights are those of the other part alone, bit for bit."""
    words = ["optim.steps=3", "evaluation.every_steps=0", "save_every=0"]
    both = trainer_of(tmp_path / "both", *words, "loss=sum", "loss.parts=[ntloss_was,box_iou_mass]")
    alone = trainer_of(tmp_path / "alone", *words, "loss=ntloss_was")
    for trainer in (both, alone):
        trainer.train()
    weights = alone.inner_model.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in both.inner_model.state_dict().items())


def test_what_adds_nothing_is_said_and_what_is_on_boxes_alone_refused():
    words = [*WORDS, "loss=sum"]
    some = Components.build(compose_checked([*words, "loss.parts=[ntloss_was,box_iou_mass]"]))
    rows = sample_rows(some.task.rows("train"))
    assert some.coverage(rows) > 0
    assert "have no boxes" in " ".join(some.remarks(rows))
    only = Components.build(compose_checked([*words, "loss.parts=[coordexp,box_iou_mass]"]))
    with pytest.raises(ConfigError, match="the loss is on boxes"):
        only.coverage(rows)
    none = Components.build(compose_checked([*words, "loss.parts=[ntloss_was,emd]"]))
    assert none.remarks(rows) == []

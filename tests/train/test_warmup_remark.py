"""A warm-up that never ends is announced where the steps follow from the rows, too."""

import pytest

from ntil.launch.plan import dry_run
from tests.support.in_process import WORDS, frozen, perform

REMARK = "optim.warmup=100 is not over after 8 steps: the learning rate only rises, to 8% of optim.lr"


@pytest.mark.parametrize("words", [["optim.epochs=1"], ["optim.max_epochs=1"]])
def test_the_run_says_it_once_its_rows_are_known(tmp_path, capsys, words):
    run = frozen(tmp_path, *words, "optim.warmup=100", "loss=ce")
    perform(run)
    assert f"warning: {REMARK}" in capsys.readouterr().out


def test_a_dry_run_says_it_where_rows_are_known_before(tmp_path):
    words = [*WORDS, f"runs={tmp_path}", "optim.epochs=1"]
    assert any(REMARK in remark for remark in dry_run([*words, "optim.warmup=100"]).remarks)
    assert not any("warm" in remark for remark in dry_run([*words, "optim.warmup=4"]).remarks)

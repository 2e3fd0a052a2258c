"""Every family under every loss, adapters, a text model and ZeRO-2 compute what they computed at e5305af."""

import json
from pathlib import Path

import pytest

from tests.golden.trajectories import RUNS, SMALL, differences, read
from tests.support.chosen import slow_but
from tests.support.forked import finish, freeze

KEPT = json.loads(Path(__file__).with_name("trajectories.json").read_text())
QUICK = ("llava_nano-ntil", "text")
# Sums of a thousand costs differ with the processor by more than their parts do.
TOLERANCE = 1e-4
TEXTS = 2  # of 26 may differ where two tokens are as likely as each other to the last bit


def test_every_run_is_kept():
    assert KEPT.keys() == RUNS.keys()


@pytest.mark.parametrize("name", slow_but(QUICK, RUNS))
def test_a_trajectory_is_the_one_that_is_kept(name, tmp_path):
    run = freeze([*SMALL, *RUNS[name], f"runs={tmp_path}"])
    codes = finish(run)
    assert not any(codes), run.error.read_text() if run.error.exists() else codes
    largest = differences(KEPT[name], read(run.path))
    assert largest.pop("texts", 0) <= TEXTS
    assert {key: value for key, value in largest.items() if value > TOLERANCE} == {}

"""The order of rows: a function of seed and curriculum, nothing else."""

import pytest

from ntil.config.errors import ConfigError
from ntil.config.schema import CurriculumConfig, Stage
from ntil.train.sampler import CurriculumSampler

LEVELS = [i % 4 for i in range(40)]
STAGES = CurriculumConfig("level", [Stage(0.25, 0), Stage(0.5, 1)])


def order(seed=0, curriculum=STAGES, steps=40, batch=8, levels=LEVELS):
    return list(CurriculumSampler(40, steps, batch, seed, curriculum, levels))


def test_each_stage_draws_only_what_it_allows():
    rows = [LEVELS[i] for i in order()]
    assert len(rows) == 40 * 8
    assert set(rows[:80]) == {0}
    assert set(rows[80:160]) == {0, 1}
    assert set(rows[160:]) == {0, 1, 2, 3}


def test_every_allowed_row_comes_before_any_comes_again():
    rows = order(curriculum=CurriculumConfig())
    for start in range(0, 320, 40):
        assert sorted(rows[start : start + 40]) == list(range(40))


def test_same_seed_same_order_other_seed_other_order():
    assert order(seed=3) == order(seed=3)
    assert order(seed=3) != order(seed=4)


def test_the_batch_may_be_spread_over_ranks_and_accumulation():
    assert order(steps=10, batch=32, curriculum=CurriculumConfig()) == order(curriculum=CurriculumConfig())


def test_impossible_curricula_are_refused():
    with pytest.raises(ConfigError, match="no column"):
        order(levels=None)
    with pytest.raises(ConfigError, match="no row has level <= -1"):
        order(curriculum=CurriculumConfig("level", [Stage(0.5, -1)]))
    with pytest.raises(ConfigError, match="empty"):
        CurriculumSampler(0, 1, 1, 0, CurriculumConfig())

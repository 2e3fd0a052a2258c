"""The order of rows: a function of seed and curriculum, nothing else."""

import numpy as np
import pytest

from ntil.config.errors import ConfigError
from ntil.config.schema import CurriculumConfig, Stage
from ntil.train.sampler import CurriculumSampler, PictureSampler

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


PICTURES = np.array([i // 5 for i in range(40)])


def by_picture(seed=0, curriculum=CurriculumConfig(), steps=40, batch=8):  # noqa: B008
    return list(PictureSampler(40, steps, batch, seed, curriculum, LEVELS, pictures=PICTURES))


def test_the_rows_of_a_picture_follow_each_other():
    rows = by_picture()
    assert len(rows) == 40 * 8
    for start in range(0, 320, 40):
        drawn = rows[start : start + 40]
        assert sorted(drawn) == list(range(40))
        pictures = PICTURES[drawn].reshape(8, 5)
        assert (pictures == pictures[:, :1]).all()
    assert rows[:40] != rows[40:80]
    assert [row % 5 for row in rows[:5]] != list(range(5)) or [row % 5 for row in rows[5:10]] != list(range(5))


def test_pictures_are_drawn_alike_by_seed_and_however_a_step_is_cut():
    assert by_picture(seed=3) == by_picture(seed=3) != by_picture(seed=4)
    assert by_picture(steps=10, batch=32) == by_picture()


def test_a_stage_draws_the_rows_of_a_picture_that_it_allows():
    rows = by_picture(curriculum=STAGES)
    assert {LEVELS[row] for row in rows[:80]} == {0}
    assert sorted(rows[:10]) == [i for i in range(40) if LEVELS[i] == 0]
    pictures = PICTURES[rows[:10]].tolist()
    assert all(pictures[i] == pictures[i - 1] or pictures[i] not in pictures[:i] for i in range(1, 10))

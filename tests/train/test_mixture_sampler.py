"""The order of a mixture's rows: the shares hold after each step, and a seed gives one order."""

from itertools import islice

import numpy as np
import pytest

from ntil.config.errors import ConfigError
from ntil.config.schema import CurriculumConfig, Stage
from ntil.train.mixture_sampler import MixtureSampler, TaskRows, next_counts

NONE = CurriculumConfig()
A, B = np.arange(40), np.arange(40, 50)


def tasks(share=0.75, levels=None):
    return {"a": TaskRows(A, share, levels), "b": TaskRows(B, 1 - share)}


def order(seed=0, steps=40, batch=8, curriculum=NONE, pictures=None, **of_tasks):
    return list(MixtureSampler(tasks(**of_tasks), steps, batch, seed, curriculum, pictures))


@pytest.mark.parametrize("batch", [1, 3, 8, 64])
def test_after_each_step_the_shares_are_met_to_a_row(batch):
    generator = np.random.default_rng(0)
    for count in (2, 3, 7):
        shares = generator.dirichlet(np.full(count, 0.5))
        drawn = np.zeros(count, dtype=int)
        for _ in range(100):
            counts = next_counts(drawn, shares, batch)
            assert counts.sum() == batch
            assert (counts >= 0).all()
            drawn += counts
            assert np.abs(drawn - drawn.sum() * shares).max() < 1.5


def test_the_rows_drawn_are_the_shares():
    rows = np.array(order())
    assert len(rows) == 320
    assert ((rows < 40).reshape(40, 8).sum(1) == 6).all()


def test_no_row_of_a_task_is_drawn_twice_as_often_as_another():
    drawn = np.zeros(50, dtype=int)
    for step in np.array(order()).reshape(40, 8):
        np.add.at(drawn, step, 1)
        assert np.ptp(drawn[A]) <= 1
        assert np.ptp(drawn[B]) <= 1
    assert (drawn == [6] * 40 + [8] * 10).all()


def test_the_rows_of_a_task_come_in_one_order_whatever_the_others_are():
    pictures = np.arange(80)  # no two rows share one, and within a step tasks aren't shuffled together
    first = [row for row in order(pictures=pictures) if row in A]
    others = {"a": TaskRows(A, 0.5), "b": TaskRows(np.arange(40, 80), 0.5)}
    second = [row for row in MixtureSampler(others, 60, 8, 0, NONE, pictures) if row in A]
    assert first == second
    assert len(first) == 240


def test_same_seed_same_order_and_a_resumed_run_skips_to_its_place():
    assert order(seed=3) == order(seed=3) != order(seed=4)
    assert list(islice(iter(MixtureSampler(tasks(), 40, 8, 3, NONE)), 100, None)) == order(seed=3)[100:]


def test_a_curriculum_holds_for_the_tasks_that_have_its_column():
    levels = A % 4
    rows = order(curriculum=CurriculumConfig("level", [Stage(0.5, 0)]), levels=levels)
    early = [row for row in rows[:160] if row in A]
    assert {int(levels[row]) for row in early} == {0}
    assert {row for row in rows[:160] if row in B} == {*B.tolist()}
    assert {int(levels[row]) for row in rows[160:] if row in A} == {0, 1, 2, 3}
    with pytest.raises(ConfigError, match="no column of any task"):
        order(curriculum=CurriculumConfig("level", [Stage(0.5, 0)]))
    with pytest.raises(ConfigError, match="no row of a has level <= -1"):
        order(curriculum=CurriculumConfig("level", [Stage(0.5, -1)]), levels=levels)


def test_the_rows_of_a_picture_follow_each_other():
    pictures = np.concatenate([A // 4, B])
    rows = [row for row in order(pictures=pictures) if row in A][:40]
    assert sorted(rows) == A.tolist()
    shown = pictures[rows].reshape(10, 4)
    assert (shown == shown[:, :1]).all()

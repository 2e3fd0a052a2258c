"""Micro-batches of about equally many tokens, whose rows are those of the step in their order."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from benchmarks.packing_checks import SCENES
from ntil.components import Components
from ntil.config.compose import compose
from ntil.packing.balance import BalancedBatches, RowSizes, cuts
from ntil.packing.rows import picture_numbers


def tokens(sizes, pictures, first, end):
    shown = {pictures[row]: sizes[row][0] for row in range(first, end)}
    return sum(shown.values()) + sum(others for _, others in sizes[first:end])


@pytest.mark.parametrize("pieces", [1, 2, 3, 5])
def test_the_largest_part_is_as_small_as_any_cut_makes_it(pieces):
    rng = np.random.default_rng(pieces)
    for _ in range(50):
        count = int(rng.integers(pieces, 12))
        pictures = np.sort(rng.integers(0, 5, count)).tolist()
        sizes = [(30 + pictures[i], int(rng.integers(1, 40))) for i in range(count)]
        parts = cuts(sizes, pictures, pieces)
        assert len(parts) == pieces
        assert parts[0][0] == 0
        assert parts[-1][1] == count
        assert all(end == first for (_, end), (first, _) in pairwise(parts))
        assert all(first < end for first, end in parts)
        assert max(tokens(sizes, pictures, *part) for part in parts) == best(sizes, pictures, pieces)


def best(sizes, pictures, pieces, first=0):
    if pieces == 1:
        return tokens(sizes, pictures, first, len(sizes))
    ends = range(first + 1, len(sizes) - pieces + 2)
    return min(max(tokens(sizes, pictures, first, end), best(sizes, pictures, pieces - 1, end)) for end in ends)


def test_micro_batches_hold_the_rows_of_the_sampler_in_their_order():
    rows: Any = [7, 3, 3, 1, 0, 2, 5, 4]
    batches = BalancedBatches(rows, 4, 2, lambda row: (10, row), [0] * 8)
    assert [row for batch in batches for row in batch] == rows
    assert len(list(batches)) == len(batches) == 4


@pytest.mark.parametrize("model", ["llava_nano", "qwen2_vl_nano", "smolvlm_nano"])
def test_sizes_are_those_of_the_encoded_rows(model, tmp_path, monkeypatch):
    monkeypatch.setenv("NTIL_CACHE", str(tmp_path))
    components = Components.build(compose([f"model={model}", *SCENES]))
    rows, task = components.task.rows("train"), components.task
    sizes = RowSizes(rows, task, components.family)
    for index in (0, 5, 17):
        encoded = components.collator.encode(rows[index], task.answer(rows[index]))
        assert sum(sizes(index)) == len(encoded.prompt_ids) + len(encoded.answer_ids)
    assert picture_numbers(rows, task).tolist() == [i // 4 for i in range(48)]

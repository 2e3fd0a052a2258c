"""A packed run is rehearsed on the steps with the most packed tokens, counted as its collator lays them out."""

import pytest

from ntil.components import Components
from ntil.config.compose import compose
from ntil.config.schema import CurriculumConfig
from ntil.packing.balance import RowSizes
from ntil.packing.collator import PackedCollator
from ntil.packing.groups import filled_tokens
from ntil.packing.rows import SharedPictures, picture_numbers
from ntil.packing.sequences import ALIGNED
from ntil.rehearsal.packed_rows import PackedSteps, packed_rows
from ntil.rehearsal.prepare import longest_rows, packing_remarks
from ntil.rehearsal.sweep import Settings, kinds_of
from ntil.train.sampler import PictureSampler

ROWS = "task.source.rows={train:60,validation:8,test:8}"
WORDS = [
    "model=llava_nano",
    "task=grounding_nano",
    "optim.batch_size=8",
    "engine.device=cpu",
    "evaluation.batch_size=4",
]
PREFIX = 12  # tokens of the template before the picture and of the question's beginning, which are shared as well


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.setenv("NTIL_CACHE", str(tmp_path_factory.mktemp("cache")))
    yield
    patch.undo()


def parts(*words):
    config = compose([*WORDS, ROWS, *words])
    components = Components.build(config)
    rows = components.task.rows("train")
    return config, components, rows, picture_numbers(rows, components.task)


def test_a_picture_counts_once_a_sequence_and_filling_counts():
    sizes = [(100, 10), (100, 20), (100, 30), (100, 5)]
    assert filled_tokens(sizes, [0, 0, 0, 1], 4096, several=False) == 2 * 160
    assert filled_tokens(sizes, [0, 0, 0, 1], 4096, several=True) == 160 + 105
    # 135 tokens hold two of the three questions.
    assert filled_tokens(sizes, [0, 0, 0, 1], 135, several=False) == 3 * 130


@pytest.mark.parametrize("mode", ["pictures", "tokens"])
def test_tokens_are_those_of_the_collator(mode):
    config, components, rows, pictures = parts("task.source.questions=3", f"packing={mode}", "engine.processes=1")
    steps = PackedSteps(config, RowSizes(rows, components.task, components.family), pictures)
    collator, shared = PackedCollator(components.collator, config.packing), SharedPictures(rows, components.task)
    for step in ([0, 1, 2, 3, 4, 5, 6, 7], [0, 1, 2, 5, 9, 12, 13, 15]):
        input_ids = collator(shared.__getitems__(step))["input_ids"]
        most = steps.tokens(step) + ALIGNED * len(input_ids)
        assert most - PREFIX * len(step) - ALIGNED * len(input_ids) <= input_ids.numel() <= most


@pytest.mark.parametrize("words", [["packing=pictures", "engine.accumulation=2"], ["packing=tokens"]])
def test_the_largest_steps_are_taken_and_counted_as_they_will_be_drawn(words):
    config, components, rows, pictures = parts("task.source.questions=3", "engine.processes=1", *words)
    steps = PackedSteps(config, RowSizes(rows, components.task, components.family), pictures)
    chosen = packed_rows(config, components, rows, [], 3)
    assert chosen is not None
    order = list(PictureSampler(60, 7, 8, config.seed, CurriculumConfig(), pictures=pictures))
    in_pass = [order[start : start + 8] for start in range(0, 56, 8)]
    tokens = sorted((steps.tokens(step) for step in in_pass), reverse=True)
    taken = [chosen.indices[start : start + 8] for start in range(0, 24, 8)]
    assert [steps.tokens(step) for step in taken] == tokens[:3]
    assert chosen.mean == pytest.approx(sum(tokens) / 56)
    again = PictureSampler(24, 3, 8, config.seed, CurriculumConfig(), pictures=pictures[chosen.indices])
    drawn = [chosen.indices[place] for place in again]
    expected = sum(steps.tokens(drawn[start : start + 8]) for start in range(0, 24, 8)) / 24
    assert chosen.taken == pytest.approx(expected)


def test_rows_that_are_refused_are_left_out_and_a_short_split_is_repeated():
    config, components, rows, _ = parts("task.source.questions=3", "engine.processes=1", "packing=pictures")
    chosen = packed_rows(config, components, rows.select(range(10)), [4], 3)
    assert chosen is not None
    assert len(chosen.indices) == 24
    assert set(chosen.indices) <= set(range(10)) - {4}


def test_what_a_packed_rehearsal_counts_is_said():
    config, components, _, _ = parts("task.source.questions=3", "engine.processes=1", "packing=pictures")
    train = longest_rows(config, components, 3)["train"]
    assert train.packed
    assert train.mean < train.longest
    assert "have the most tokens are rehearsed" in packing_remarks(config, train)[0]
    config, components, _, _ = parts("engine.processes=1", "packing=pictures")
    alone = longest_rows(config, components, 3)["train"]
    assert not alone.packed
    assert "no two training rows are known to show one picture" in packing_remarks(config, alone)[0]
    assert packing_remarks(compose([*WORDS, ROWS]), alone) == []


def test_packed_and_unpacked_runs_are_two_kinds(tmp_path):
    words = ["-m", *WORDS, ROWS, f"runs={tmp_path}", "loss=ce,ntil", "packing=none,pictures", "engine.processes=1"]
    kinds = kinds_of(words, Settings(steps=3))
    assert [len(kind.runs) for kind in kinds] == [2, 2]
    assert [kind.title.endswith(", packing=pictures") for kind in kinds] == [False, True]

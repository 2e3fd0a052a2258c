"""Which rows share what, and how groups fill sequences."""

import torch

from ntil.models.base import Encoded
from ntil.packing.groups import SHORTEST, Group, fill_sequences, groups_of

IMAGE = 9
PIXELS, OTHERS = torch.zeros(1, 3), torch.ones(1, 3)


def asked(*question, picture=PIXELS, before=(1,)):
    return Encoded([*before, IMAGE, IMAGE, *question], [7, 8], {"pixel_values": picture})


def test_questions_on_one_picture_share_all_that_is_before_them():
    rows = [asked(2, 3, 4), asked(2, 5, 4), asked(2, 3, 4, picture=OTHERS), asked(2, 2, picture=PIXELS.clone())]
    assert groups_of(rows, IMAGE, 100) == [Group((0, 1, 3), 4), Group((2,), 0)]


def test_equal_prompts_share_all_but_their_last_token():
    assert groups_of([asked(2, 3), asked(2, 3)], IMAGE, 100) == [Group((0, 1), 4)]


def test_a_picture_behind_the_question_is_not_shared():
    rows = [asked(4, before=(1, 2)), asked(4, before=(1, 3))]
    assert groups_of(rows, IMAGE, 100) == [Group((0,), 0), Group((1,), 0)]


def test_a_picture_at_the_end_of_the_prompt_is_not_cut():
    assert groups_of([asked(), asked()], IMAGE, 100) == [Group((0,), 0), Group((1,), 0)]


def test_texts_share_a_long_beginning_only():
    long = list(range(100, 100 + SHORTEST))
    rows = [Encoded([*long, 1], [7]), Encoded([*long, 2], [7]), Encoded([3, 1], [7]), Encoded([3, 2], [7])]
    assert groups_of(rows, None, 100) == [Group((0, 1), SHORTEST), Group((2,), 0), Group((3,), 0)]


def test_a_group_beyond_the_limit_becomes_several():
    rows = [asked(2, 3, i) for i in range(10, 15)]  # 5 tokens are shared, 3 are each row's
    assert groups_of(rows, IMAGE, 11) == [Group((0, 1), 5), Group((2, 3), 5), Group((4,), 5)]


def test_sequences_are_few_and_equally_long():
    groups = [Group((i,), 0) for i in range(6)]
    lengths = [50, 10, 40, 20, 30, 50]
    sequences = fill_sequences(groups, lengths, 100)
    assert sorted(sum(lengths[g.rows[0]] for g in sequence) for sequence in sequences) == [100, 100]
    assert sorted(g.rows[0] for sequence in sequences for g in sequence) == list(range(6))


def test_a_group_beyond_the_limit_has_a_sequence():
    sequences = fill_sequences([Group((0,), 0), Group((1,), 0), Group((2,), 0)], [300, 20, 30], 100)
    assert len(sequences) in (1, 2)
    assert max(sum([300, 20, 30][g.rows[0]] for g in s) for s in sequences) == 300

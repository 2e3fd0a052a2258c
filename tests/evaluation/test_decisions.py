"""Answers of least expected distance against brute force on small alphabets."""

import itertools
from functools import cache

import numpy as np
import pytest
import torch

from ntil.evaluation.decisions import (
    best_box,
    expected_overlaps,
    grouped_values,
    mean_way,
    median_way,
    nearest_to_all,
    weighted_median,
)
from ntil.evaluation.decoding import MOST, _joint
from ntil.evaluation.number_trees import (
    LEAST_COVERED,
    LEFT,
    LIMIT,
    SURE,
    Next,
    NumberDistribution,
    NumberTree,
    Written,
    tokens_of_number,
    value_of,
    written_numbers,
)
from ntil.numbers.spans import NumberSpans
from ntil.numbers.vocab import NumberVocab
from tasks.clock import DIAL, Clock, Time
from tasks.metrics.boxes import box_iou

VOCAB = NumberVocab(digit_ids=range(10), point_ids=10, minus_ids=11, joined_minus_ids=13)
COMMA = 12  # ends a number
SIZE = 14


def random_distribution(random, size: int) -> NumberDistribution:
    chances = random.dirichlet(np.full(size, 0.7))
    return NumberDistribution([(i,) for i in range(size)], np.arange(size, dtype=float), chances, 1.0)


def corners_of(random, size: int) -> list[NumberDistribution]:
    return [random_distribution(random, size) for _ in range(4)]


def brute_overlap(box, corners) -> float:
    total = 0.0
    for true in itertools.product(*(range(len(d.values)) for d in corners)):
        chance = np.prod([d.chances[i] for d, i in zip(corners, true, strict=True)])
        values = [float(d.values[i]) for d, i in zip(corners, true, strict=True)]
        if values[0] < values[2] and values[1] < values[3] and box[0] < box[2] and box[1] < box[3]:
            total += chance * box_iou(box, values)
    return total


def test_the_box_is_the_best_of_all_boxes():
    random = np.random.default_rng(0)
    for _ in range(6):
        corners = corners_of(random, 3)
        boxes = list(itertools.product(range(3), repeat=4))
        overlaps = [brute_overlap(box, corners) for box in boxes]
        grouped = [grouped_values(d.values, d.chances) for d in corners]
        np.testing.assert_allclose(expected_overlaps(np.array(boxes, dtype=float), grouped), overlaps, atol=1e-12)
        assert brute_overlap(best_box(corners, (0.0, 0.0, 2.0, 2.0)), corners) == pytest.approx(max(overlaps))


def test_where_all_boxes_are_too_many_the_best_corner_is_taken_in_turn():
    random = np.random.default_rng(1)
    for _ in range(4):
        corners = corners_of(random, 7)  # 2,401 boxes
        grouped = [grouped_values(d.values, d.chances) for d in corners]
        boxes = np.array(list(itertools.product(range(7), repeat=4)), dtype=float)
        best = expected_overlaps(boxes, grouped).max()
        reached = expected_overlaps(np.array([best_box(corners, (0.0, 0.0, 6.0, 6.0))]), grouped)[0]
        starts = np.array([[0, 0, 6, 6], [d.values @ d.chances for d in corners]])
        assert reached >= expected_overlaps(starts, grouped).max()
        assert reached >= 0.98 * best


def test_many_values_are_grouped_by_probability():
    values, chances = np.arange(1000.0), np.full(1000, 1e-3)
    points, of_points = grouped_values(values, chances)
    assert len(points) == 16
    assert of_points.sum() == pytest.approx(1)
    assert points @ of_points == pytest.approx(values.mean())
    assert of_points.max() < 0.07


@pytest.mark.parametrize("seed", range(5))
def test_the_median_has_the_least_expected_absolute_error(seed):
    random = np.random.default_rng(seed)
    values, chances = random.permutation(9).astype(float), random.dirichlet(np.ones(9))
    errors = {v: float(np.abs(values - v) @ chances) for v in values}
    assert errors[weighted_median(values, chances)] == pytest.approx(min(errors.values()))


def test_the_time_of_least_expected_minutes_is_one_of_those_considered():
    task, random = Clock.__new__(Clock), np.random.default_rng(2)
    for _ in range(5):
        minutes = random.choice(DIAL, 6, replace=False)
        times = [Time(int(m) // 60 or 12, int(m) % 60) for m in minutes]
        chances = random.dirichlet(np.ones(6))
        chosen = times[nearest_to_all(times, chances.tolist(), lambda a, b: task.distance(a, b, {}))]
        dial = [Time(m // 60 or 12, m % 60) for m in range(DIAL)]
        expected = [sum(c * task.distance(t, o, {}) for o, c in zip(times, chances, strict=True)) for t in dial]
        assert sum(c * task.distance(chosen, o, {}) for o, c in zip(times, chances, strict=True)) == pytest.approx(
            min(expected)
        )


def test_the_nearest_of_several_is_the_first_of_equals():
    assert nearest_to_all(["b", "a", "b"], [1 / 3] * 3, lambda a, b: float(a != b)) == 0
    assert nearest_to_all([1, 2, 9], [1 / 3] * 3, lambda a, b: abs(a - b)) == 1


FEW = NumberVocab(digit_ids=range(4), point_ids=10, minus_ids=11, joined_minus_ids=13)


def random_model(seed: int, sharpness: float):
    """Next-token probabilities of a made-up model: a fixed random function of the tokens before."""

    @cache
    def after(prefix: tuple[int, ...]) -> Next:
        generator = torch.Generator().manual_seed(hash((seed, prefix)) % 2**31)
        scores = torch.randn(SIZE, generator=generator) * sharpness
        scores[COMMA] += 2.0  # numbers end
        return Next.of(scores[None], FEW)[0]

    return after


def brute_numbers(after, prefix: tuple[int, ...], digits: int) -> dict[str, float]:
    """Probability of every number of up to so many digits, without any pruning, by its text."""
    chances: dict[str, float] = {}

    def go_on(text: str, tokens: tuple[int, ...], chance: float) -> None:
        following = after(prefix + tokens)
        if text and text[-1].isdigit():
            # A second point ends it.
            chances[text] = chances.get(text, 0.0) + chance * (following.end + following.point * ("." in text))
            if "." not in text:
                go_on(text + ".", (*tokens, 10), chance * following.point)
        if text.endswith("."):  # and so does one before anything but a digit
            chances[text[:-1]] += chance * (following.end + following.point)
        if not text:
            go_on("-", (11,), chance * following.minus)
        if sum(c.isdigit() for c in text) < digits:
            for d in range(4):
                go_on(text + str(d), (*tokens, d), chance * following.digits[d])

    go_on("", (), 1.0)
    return chances


def followed(tree: NumberTree, after) -> NumberTree:
    while prefixes := tree.wanted_prefixes():
        tree.follow([after(prefix) for prefix in prefixes])
    return tree


@pytest.mark.parametrize("seed", range(3))
def test_a_tree_is_the_distribution_of_all_numbers_up_to_what_it_states(seed):
    after, ids = random_model(seed, 1.5), (COMMA, 3, 2, COMMA)
    tree = followed(NumberTree(ids, written_numbers(ids, FEW), FEW), after)
    exact = brute_numbers(after, (COMMA,), 4)
    chances = {
        "".join("-" if t == 11 else "." if t == 10 else str(t) for t in leaf.numbers[0]): leaf.probability
        for leaf in tree.leaves
        if not leaf.assumed
    }
    short = {text: chance for text, chance in chances.items() if sum(c.isdigit() for c in text) <= 4}
    assert len(short) > 4
    for text, chance in short.items():
        # Of "12" the writing with a point after it may not have been followed.
        assert chance <= exact[text] * (1 + 1e-9)
        assert "." not in text or chance == pytest.approx(exact[text], rel=1e-9)
    left = sum(beginning.probability for beginning in tree.frontier)
    assumed = sum(leaf.probability for leaf in tree.leaves if leaf.assumed)
    assert max((leaf.probability for leaf in tree.leaves if leaf.assumed), default=0) < SURE
    assert sum(exact.values()) - sum(short.values()) <= left + assumed + 1e-9
    ended = sum(chances.values()) + assumed
    assert (tree.covered, tree.assumed) == pytest.approx((ended / (ended + left), assumed / ended))
    assert tree.covered >= 1 - LEFT or tree.followed == LIMIT


def test_two_numbers_together_have_the_joint_distribution():
    after, ids = random_model(7, 3.0), (1, COMMA, 2, COMMA)
    tree = followed(NumberTree(ids, written_numbers(ids, FEW), FEW), after)
    assert sum(leaf.probability for leaf in tree.leaves) <= 1
    followed_to_the_end = [leaf for leaf in tree.leaves if not leaf.assumed]
    assert len(followed_to_the_end) > 3
    for leaf in followed_to_the_end:
        first, second = leaf.numbers
        least = most = 1.0
        tokens: tuple[int, ...] = ()
        for number, between in ((first, (COMMA,)), (second, ())):
            for token in number:
                one = after(tokens)
                chance = one.minus if token == 11 else one.point if token == 10 else one.digits[token]
                least, most = least * chance, most * chance
                tokens = (*tokens, token)
            end, with_point = after(tokens), after((*tokens, 10))
            least *= end.end + (end.point if 10 in number else 0)
            most *= end.end + end.point * (1 if 10 in number else with_point.end + with_point.point)
            tokens = tokens + between
        assert least * (1 - 1e-9) <= leaf.probability <= most * (1 + 1e-9)


def sure_of(digits, sureness):
    """A model that writes these digits, each with that probability, whatever was written before, and then ends."""

    def after(prefix: tuple[int, ...]) -> Next:
        place = len(prefix) - 1
        p = np.full(10, (1 - sureness) / 9 if place < len(digits) else 0.0)
        if place < len(digits):
            p[digits[place]] = sureness
        return Next(p, 0.0, 0.0, 0.0 if place < len(digits) else 1.0)

    return after


@pytest.mark.parametrize(("digits", "sureness"), [((4, 4, 4, 4), 0.95), ((4, 4, 4, 4, 4), 0.95), ((2, 3, 2, 3), 0.9)])
def test_the_most_probable_number_is_followed_to_its_end(digits, sureness):
    ids = (COMMA, *digits, COMMA)
    tree = followed(NumberTree(ids, written_numbers(ids, VOCAB), VOCAB), sure_of(digits, sureness))
    likeliest = max(tree.leaves, key=lambda leaf: leaf.probability)
    assert likeliest.numbers == (digits,)
    assert likeliest.probability == pytest.approx(sureness ** len(digits))
    assert tree.covered > 0.9
    distribution = NumberDistribution.of_tree(tree)
    assert distribution is not None
    assert median_way(distribution) == digits


def unsure_of(digits, chances, end):
    """A model that writes each digit with its chance, the other nine alike, and ends early with probability `end`."""

    def after(prefix: tuple[int, ...]) -> Next:
        place = len(prefix) - 1
        if place >= len(digits):
            return Next(np.zeros(10), 0.0, 0.0, 1.0)
        p = np.full(10, (1 - chances[place]) / 9)
        p[digits[place]] = chances[place]
        return Next(p * (1 - end), 0.0, 0.0, end if place else 0.0)

    return after


UNSURE = [
    ((1, 2, 3, 4, 5), (0.9, 0.3, 0.1, 0.1, 0.3)),
    ((1, 2, 3, 4, 5, 6, 7, 8), (1, 1, 0.1, 0.1, 0.1, 0.1, 1, 1)),
    ((1, 2, 3, 4), (0.1, 0.1, 0.1, 0.1)),
]


@pytest.mark.parametrize(("digits", "chances"), UNSURE)
def test_a_number_of_which_little_could_be_followed_stays_as_generated(digits, chances):
    ids = (COMMA, *digits, COMMA)
    tree = followed(NumberTree(ids, written_numbers(ids, VOCAB), VOCAB), unsure_of(digits, chances, 1e-4))
    assert tree.covered < LEAST_COVERED
    assert digits in {leaf.numbers[0] for leaf in tree.leaves}  # the generated number is followed before all others
    distribution = NumberDistribution.of_tree(tree)
    assert distribution is not None
    assert (median_way(distribution), mean_way(distribution, 0, VOCAB)) == (digits, digits)
    assert distribution.covered == tree.covered


def nearly_sure_of(tokens, rest=1e-6):
    """A model that writes these tokens and then ends; every other token has the probability `rest`."""

    def after(prefix: tuple[int, ...]) -> Next:
        p, following = np.full(10, rest), prefix[1:]
        if following != tokens[: len(following)]:
            return Next(p, rest, 0.0, 1 - 11 * rest)
        if len(following) == len(tokens):
            return Next(p, rest, 0.0, 1 - 11 * rest)
        if tokens[len(following)] == 10:
            return Next(p, 1 - 11 * rest, 0.0, rest)
        p[tokens[len(following)]] = 1 - 11 * rest
        return Next(p, rest, 0.0, rest)

    return after


@pytest.mark.parametrize("text", ["123456789012", "1234567890123", "3.141592653589", "0.123456789012", "9" * 20])
def test_numbers_of_many_digits_are_followed_to_their_end(text):
    tokens = tuple(10 if c == "." else int(c) for c in text)
    ids = (COMMA, *tokens, COMMA)
    tree = followed(NumberTree(ids, written_numbers(ids, VOCAB), VOCAB), nearly_sure_of(tokens))
    assert max(tree.leaves, key=lambda leaf: leaf.probability).numbers == (tokens,)
    assert tree.covered > 0.999
    distribution = NumberDistribution.of_tree(tree)
    assert distribution is not None
    assert median_way(distribution) == tokens


def test_what_goes_on_beyond_the_most_digits_counts_as_not_covered():
    """A generated number of two digits of a model that more often goes on and on."""

    def after(prefix: tuple[int, ...]) -> Next:
        p = np.zeros(10)
        p[7] = 0.6 if len(prefix) == 3 else 0.0 if len(prefix) < 3 else 1.0
        if len(prefix) < 3:
            p[1] = 1.0
        return Next(p, 0.0, 0.0, 1 - p.sum())

    ids = (COMMA, 1, 1, COMMA)
    tree = followed(NumberTree(ids, written_numbers(ids, VOCAB), VOCAB), after)
    assert tree.dropped == pytest.approx(0.6)
    assert tree.covered == pytest.approx(0.4)


GROUPED = NumberVocab(digit_ids=range(10), point_ids=10, minus_ids=11, comma_ids=12)
END = 13


def one_of(texts):
    """A model that writes one of these texts, with their probabilities, in tokens of one character."""
    numbers = {(*map("0123456789.-, ".index, text), END): chance for text, chance in texts.items()}

    def after(prefix: tuple[int, ...]) -> Next:
        n, p = len(prefix), np.zeros(SIZE)
        for ids, chance in numbers.items():
            if ids[:n] == prefix and len(ids) > n:
                p[ids[n]] += chance
        p = p / p.sum() if p.sum() else np.eye(SIZE)[END]
        return Next(p[:10], p[10], p[11], 1 - p[:11].sum(), p[12])

    return after


def test_numbers_with_thousands_commas_are_left_out():
    ids = ["0123456789.-, ".index(c) for c in "1,000 2 13,45 1.5,000 1234,567 -12,345.5"]
    assert [n.start for n in written_numbers(ids, GROUPED, thousands=True)] == [6, 8, 11, 14, 18, 22, 27]
    assert len(written_numbers(ids, GROUPED)) == 11


def test_numbers_with_thousands_commas_count_as_not_followed():
    ids: tuple[int, ...] = (9, 9, 9, END)
    after = one_of({"999": 0.33, "998": 0.33, "1,000": 0.34})
    tree = followed(NumberTree(ids, written_numbers(ids, GROUPED), GROUPED, thousands=True), after)
    assert {leaf.numbers[0] for leaf in tree.leaves if leaf.probability > 1e-9} == {(9, 9, 9), (9, 9, 8)}
    assert tree.covered == pytest.approx(0.66)
    ids, after = (1, 8, 12, 13, 2, END), one_of({"18, 2": 0.7, "19, 2": 0.2, "18,000": 0.1})
    tree = followed(NumberTree(ids, written_numbers(ids, GROUPED)[:1], GROUPED, thousands=True), after)
    chances = {leaf.numbers[0]: leaf.probability for leaf in tree.leaves if leaf.probability > 1e-9}
    assert chances == pytest.approx({(1, 8): 0.7, (1, 9): 0.2})
    assert tree.covered == pytest.approx(0.9)


def test_a_long_number_that_stays_keeps_all_its_digits():
    digits = tuple(int(c) for c in "12345678901234567")
    as_generated = NumberDistribution([digits], np.array([float(value_of(digits, VOCAB))]), np.ones(1), 0.1)
    assert mean_way(as_generated, 0, VOCAB) == digits


def test_a_number_before_the_point_of_a_sentence_is_a_number():
    def after(prefix: tuple[int, ...]) -> Next:
        if len(prefix) < 3:
            p = np.zeros(10)
            p[[2, 4][len(prefix) - 1]], p[9] = 0.95, 0.05
            return Next(p, 0.0, 0.0, 0.0)
        return Next(np.zeros(10), *((0.98, 0.0, 0.02) if prefix[-1] != 10 else (0.3, 0.0, 0.7)))

    ids = (COMMA, 2, 4, 10, COMMA)
    tree = followed(NumberTree(ids, written_numbers(ids, VOCAB), VOCAB), after)
    chances = {leaf.numbers[0]: leaf.probability for leaf in tree.leaves}
    assert chances[2, 4] == pytest.approx(0.95**2)
    assert sum(chances.values()) == pytest.approx(1)


def test_numbers_are_found_as_the_losses_find_them():
    random = np.random.default_rng(0)
    for _ in range(200):
        ids = random.choice([0, 1, 2, 10, 11, 12, 13], 12).tolist()
        spans = NumberSpans.find(torch.tensor(ids), VOCAB)
        values = spans.value[spans.is_number].tolist()
        numbers = written_numbers(ids, VOCAB)
        read = [float(value_of(ids[n.start : n.end], VOCAB)) * (-1 if n.negative else 1) for n in numbers]
        assert read == values
        assert [n.digit for n in numbers] == (spans.is_digit & (spans.place == 0)).nonzero()[:, 0].tolist()


def test_unmeasured_digits_are_no_numbers():
    assert [n.start for n in written_numbers([1, COMMA, 2, COMMA, 3], VOCAB, [2])] == [0, 4]


def test_a_mean_is_written_as_its_numbers_are():
    times = NumberDistribution([(0, 9), (1, 1)], np.array([9.0, 11.0]), np.array([0.8, 0.2]), 1.0)
    assert mean_way(times, 0, VOCAB) == (0, 9)
    plain = NumberDistribution([(9,), (1, 1)], np.array([9.0, 11.0]), np.array([0.8, 0.2]), 1.0)
    assert mean_way(plain, 0, VOCAB) == (9,)
    assert mean_way(plain, 2, VOCAB) == (9, 10, 4, 0)
    negative = NumberDistribution([(11, 5), (2,)], np.array([-5.0, 2.0]), np.array([0.5, 0.5]), 1.0)
    assert mean_way(negative, 1, VOCAB) == (11, 1, 10, 5)
    assert median_way(negative) == (11, 5)
    assert tokens_of_number("-1", NumberVocab(digit_ids=range(10))) is None


def test_one_token_has_the_softmax_over_its_alphabet_exactly():
    vocab = NumberVocab(digit_ids=range(2, 7), one_place=True)
    logits = torch.randn(1, 9, generator=torch.Generator().manual_seed(0))
    distribution = NumberDistribution.of_alphabet(Next.of(logits, vocab)[0], vocab)
    np.testing.assert_allclose(distribution.chances, torch.softmax(logits[0, 2:7].double(), -1), atol=1e-6)
    assert mean_way(distribution, 0, vocab) == (2 + round(float(distribution.chances @ np.arange(5))),)
    assert written_numbers([1, 3, 4, 0], vocab) == [Written(1, 2, 1), Written(2, 3, 2)]


@pytest.mark.parametrize("place", [0, 1])
def test_what_tokens_of_several_digits_have_is_not_covered(place):
    """As an untrained model writes LLaMA-3's `103`: such numbers aren't followed, so the generated one stays."""

    def after(prefix: tuple[int, ...]) -> Next:
        at = len(prefix) - 1
        digits = np.zeros(10)
        digits[[1, 2]] = (0.04, 0.02) if at == place else (1.0, 0.0)
        merged = 0.94 if at == place else 0.0
        return Next(digits, 0.0, 0.0, 0.0, merged=merged) if at <= place else Next(np.zeros(10), 0.0, 0.0, 1.0)

    ids = (COMMA, *([1] * (place + 1)), COMMA)
    tree = followed(NumberTree(ids, written_numbers(ids, VOCAB), VOCAB), after)
    assert tree.covered == pytest.approx(0.06)
    distribution = NumberDistribution.of_tree(tree)
    assert distribution is not None
    assert distribution.ways == [ids[1:-1]]


def test_merged_digits_are_no_end_of_a_number():
    vocab = NumberVocab(digit_ids=range(10), merged_ids=[10, 11])
    logits = torch.randn(2, 14, generator=torch.Generator().manual_seed(0))
    for following, p in zip(Next.of(logits, vocab), torch.softmax(logits.double(), -1), strict=True):
        assert following.merged == pytest.approx(float(p[10:12].sum()), abs=1e-6)
        assert following.digits.sum() + following.merged + following.end == pytest.approx(1)


def test_the_joint_ways_of_numbers_of_one_token_are_the_most_probable_ones():
    rng = np.random.default_rng(0)
    ones = [NumberDistribution([(i,) for i in range(8)], np.arange(8.0), rng.dirichlet(np.ones(8)), 1.0) for _ in "abc"]
    exact = sorted(
        (float(np.prod([d.chances[i] for d, i in zip(ones, way, strict=True)])), way)
        for way in itertools.product(range(8), repeat=3)
    )[::-1][:MOST]
    leaves = _joint(ones)
    assert [leaf.probability for leaf in leaves] == pytest.approx([chance for chance, _ in exact])
    assert leaves[0].numbers == tuple((i,) for i in exact[0][1])

"""Distributions of the numbers of an answer, place by place, from a model's probabilities of the next token.

A number is followed from its first token: a digit goes on, a point (once, then a digit) goes on, anything else ends it;
so does a point without a digit after it, which ends a sentence. The generated number is followed to its end first, then
the most probable beginnings, until what is left of the probability is at most `LEFT` of it, or `LIMIT` beginnings were.
One as long as the generated number with less than `SURE` of the probability is taken to end there, since asking for it
would cost as many forwards as there are numbers; `assumed` states how much that is. What is before the number, and
between two numbers that are followed together, is the answer's.

Where numbers may have thousands commas (`Task.groups_thousands`), a comma after up to three digits goes on too: without
a digit after it it ends the number, with one the number isn't followed, and counts as not covered. A generated number
with such commas is none of the numbers, so it stays as it is.

Where less than `LEAST_COVERED` of the probability came to an end, most of what did is numbers that end early, which are
short and improbable. Such a number stays as it is generated.

A number of one token (`NumberVocab.one_place`) has the softmax over its alphabet, exactly.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal

import numpy as np
import torch
from torch import Tensor

from ntil.numbers.spans import NumberSpans
from ntil.numbers.vocab import COMMA, JOINED_MINUS, MINUS, POINT, NumberVocab

LEFT = 0.005  # ours: of the probability, in beginnings that aren't followed
LIMIT = 128  # ours: beginnings of one tree
AT_ONCE = 8  # ours: beginnings followed before the most probable are chosen anew, and with them all that are
AS_PROBABLE = 0.25  # at least this part as probable as the most probable one
SURE = 0.01  # ours: probability from which a number of the generated length is asked whether it ends
LEAST_COVERED = 0.5  # ours: share of the probability that must have come to an end for a number to be replaced
PLACES = 12  # digits of a number, at most, or one more than the generated number has
GROUP = 3  # digits between thousands commas, and before the first one at most

Tokens = tuple[int, ...]


@dataclass(frozen=True)
class Next:
    """Probabilities of the next token under the softmax over the vocabulary.

    end: of all that ends a number. comma: of thousands commas, a part of `end`. merged: of tokens of several digits.
    """

    digits: np.ndarray
    point: float
    minus: float
    end: float
    comma: float = 0.0
    merged: float = 0.0

    @classmethod
    def of(cls, logits: Tensor, vocab: NumberVocab) -> list[Next]:
        """Those that follow from each of the logits [N, V]."""
        p = torch.softmax(logits.float(), -1).double()

        def total(ids: Sequence[int]) -> Tensor:
            return p[:, list(ids)].sum(-1)

        digits = p[:, list(vocab.digit_ids)]
        point, minus, merged = total(vocab.point_ids), total(vocab.minus_ids), total(vocab.merged_ids)  # type: ignore[arg-type]
        end, comma = (1 - digits.sum(-1) - point - merged).clamp(min=0), total(vocab.comma_ids)  # type: ignore[arg-type]
        others = (chances.tolist() for chances in (point, minus, end, comma, merged))
        table = zip(digits.cpu().numpy(), *others, strict=True)
        return [cls(*one) for one in table]


@dataclass(frozen=True)
class Written:
    """Where an answer's ids have a number.

    Attributes:
        start, end: its tokens, a bare minus before it included; the first, and the one after the last.
        digit: index of its first digit.
        negative: a minus stands before `start` that is no token of its own.
    """

    start: int
    end: int
    digit: int
    negative: bool = False


def written_numbers(
    ids: Sequence[int], vocab: NumberVocab, unmeasured: Iterable[int] = (), thousands: bool = False
) -> list[Written]:
    """The numbers of an answer, read as `NumberSpans.find` reads them; none at `unmeasured` indices.

    With `thousands` those that have thousands commas are left out.
    """
    meaning = vocab.meaning(torch.tensor(list(ids), dtype=torch.long)).tolist()
    for index in unmeasured:
        meaning[index] = -1
    is_digit = [0 <= m < vocab.base for m in meaning]
    if vocab.one_place:
        return [Written(i, i + 1, i) for i, digit in enumerate(is_digit) if digit]
    point, minus, joined = (vocab.base + kind for kind in (POINT, MINUS, JOINED_MINUS))
    numbers: list[Written] = []
    i = 0
    while i < len(ids):
        if not is_digit[i]:
            i += 1
            continue
        end = _after_digits(is_digit, i)
        if end + 1 < len(ids) and meaning[end] == point and is_digit[end + 1]:
            end = _after_digits(is_digit, end + 1)
        before = meaning[i - 1] if i else -1
        bare = before == minus and not (i > 1 and is_digit[i - 2])
        numbers.append(Written(i - bare, end, i, before == joined))
        i = end
    return _without_commas(numbers, meaning, vocab) if thousands else numbers


def _without_commas(numbers: list[Written], meaning: Sequence[int], vocab: NumberVocab) -> list[Written]:
    """The numbers that have as many digits where thousands commas join groups of digits as where they don't.

    Args:
        meaning: of every id of the answer, see `NumberVocab.meaning`.
    """
    plain = NumberVocab(range(vocab.base), point_ids=vocab.base + POINT, comma_ids=vocab.base + COMMA)
    spans = NumberSpans.find(torch.tensor(list(meaning), dtype=torch.long), plain, "thousands")
    lengths = spans.length.tolist()
    return [n for n in numbers if lengths[n.digit] == sum(0 <= m < vocab.base for m in meaning[n.start : n.end])]


def _after_digits(is_digit: Sequence[bool], start: int) -> int:
    return next((i for i in range(start, len(is_digit)) if not is_digit[i]), len(is_digit))


@dataclass(frozen=True)
class Leaf:
    """A way to write the numbers of a tree: the tokens of each, and its probability. assumed: that one of them ends."""

    numbers: tuple[Tokens, ...]
    probability: float
    assumed: bool = False


@dataclass(frozen=True)
class _Beginning:
    """Part of a leaf: finished numbers, the tokens of the next one so far, and all tokens since the tree's start."""

    finished: tuple[Tokens, ...]
    current: Tokens
    tokens: Tokens
    probability: float
    assumed: bool = False


@dataclass
class NumberTree:
    """Numbers `written` of an answer (`ids`), followed together from the first one's start.

    Attributes:
        thousands: numbers may have thousands commas.
        frontier: beginnings that aren't followed yet.
        dropped: probability of numbers that are never followed: of too many digits, with tokens of several digits, or
            with thousands commas.
    """

    ids: Tokens
    written: Sequence[Written]
    vocab: NumberVocab
    thousands: bool = False
    frontier: list[_Beginning] = field(default_factory=lambda: [_Beginning((), (), (), 1.0)])
    followed: int = 0
    dropped: float = 0.0
    _chosen: list[_Beginning] = field(default_factory=list)
    _ended: dict[tuple[tuple[Tokens, ...], bool], float] = field(default_factory=dict)  # numbers, assumed: probability

    @property
    def leaves(self) -> list[Leaf]:
        """As followed so far."""
        return [Leaf(numbers, probability, assumed) for (numbers, assumed), probability in self._ended.items()]

    @property
    def covered(self) -> float:
        """Share of the distribution that the leaves have, at least."""
        ended, left = sum(leaf.probability for leaf in self.leaves), sum(b.probability for b in self.frontier)
        return ended / (ended + left + self.dropped) if ended else 0.0

    @property
    def assumed(self) -> float:
        """Share of the leaves' probability that is of numbers taken to end."""
        ended = sum(leaf.probability for leaf in self.leaves)
        return sum(leaf.probability for leaf in self.leaves if leaf.assumed) / ended if ended else 0.0

    def wanted_prefixes(self) -> list[Tokens]:
        """Beginnings of the answer whose next token matters now; none when the tree is done."""
        # The generated number first: the limit must not be used up before it has come to its end.
        self.frontier.sort(key=lambda b: (not self._is_generated(b), -b.probability))
        left = sum(b.probability for b in self.frontier)
        enough = LEFT * (left + sum(self._ended.values()))
        self._chosen = []
        # Not all at once: many improbable beginnings would use up the limit before a probable one has come to its end.
        for beginning in self.frontier:
            taken = len(self._chosen) < AT_ONCE or beginning.probability >= AS_PROBABLE * self.frontier[0].probability
            if not taken or left <= enough or self.followed + len(self._chosen) >= LIMIT:
                break
            left -= beginning.probability
            self._chosen.append(beginning)
            if self._is_generated(beginning):
                break
        return [self._prefix(b) for b in self._chosen]

    def follow(self, after: Sequence[Next]) -> None:
        """Follow the beginnings that `wanted_prefixes` gave, in their order."""
        self.frontier = self.frontier[len(after) :]
        self.followed += len(after)
        for beginning, following in zip(self._chosen, after, strict=True):
            self._grow(beginning, following)

    def _prefix(self, beginning: _Beginning) -> Tokens:
        return self.ids[: self.written[0].start] + beginning.tokens

    def _is_generated(self, beginning: _Beginning) -> bool:
        start = self.written[0].start
        return self.ids[start : start + len(beginning.tokens)] == beginning.tokens

    def _grow(self, b: _Beginning, following: Next) -> None:
        vocab = self.vocab
        self.dropped += b.probability * following.merged
        if b.current and b.current[-1] in vocab.comma_ids:  # type: ignore[operator]
            self.dropped += b.probability * float(following.digits.sum())
            self._end(_shorter(b), following.end + following.point)
            return
        digits = [token in vocab.digit_ids for token in b.current]
        point = any(token in vocab.point_ids for token in b.current)  # type: ignore[operator]
        if sum(digits) < max(PLACES, self._generated_digits(b) + 1):
            for digit, chance in zip(vocab.digit_ids, following.digits.tolist(), strict=True):
                self._go_on(b, digit, chance)
        else:
            self.dropped += b.probability * float(following.digits.sum())
        if not b.current and vocab.minus_ids and not self.written[len(b.finished)].negative:
            self._go_on(b, vocab.minus_ids[0], following.minus)  # type: ignore[index]
        if len(digits) > 1 and digits[-2] and b.current[-1] in vocab.point_ids:  # type: ignore[operator]
            self._end(_shorter(b), following.end + following.point)
        if not (digits and digits[-1]):
            return
        if not point and vocab.point_ids:
            self._go_on(b, vocab.point_ids[0], following.point)  # type: ignore[index]
        end = following.end + (following.point if point else 0.0)
        if self.thousands and vocab.comma_ids and not point and sum(digits) <= GROUP:
            self._go_on(b, vocab.comma_ids[0], following.comma)  # type: ignore[index]
            end -= following.comma
        self._end(b, end)

    def _go_on(self, b: _Beginning, token: int, chance: float) -> None:
        if not chance > 0:
            return
        current, tokens = (*b.current, token), (*b.tokens, token)
        longer = _Beginning(b.finished, current, tokens, b.probability * chance, b.assumed)
        if longer.probability < SURE and self._is_long(longer):
            self._end(replace(longer, assumed=True), 1.0)
        else:
            self.frontier.append(longer)

    def _is_long(self, b: _Beginning) -> bool:
        """Whether the number that is written has as many digits as the generated one, and could end."""
        digits = self.vocab.digit_ids
        return b.current[-1] in digits and _count(b.current, digits) >= self._generated_digits(b)

    def _generated_digits(self, b: _Beginning) -> int:
        number = self.written[len(b.finished)]
        return _count(self.ids[number.start : number.end], self.vocab.digit_ids)

    def _end(self, b: _Beginning, chance: float) -> None:
        finished, probability = (*b.finished, b.current), b.probability * chance
        if len(finished) == len(self.written):
            self._ended[finished, b.assumed] = self._ended.get((finished, b.assumed), 0.0) + probability
            return
        last, following = self.written[len(finished) - 1], self.written[len(finished)]
        between = self.ids[last.end : following.start]
        self.frontier.append(_Beginning(finished, (), b.tokens + between, probability, b.assumed))


def _shorter(beginning: _Beginning) -> _Beginning:
    """The beginning without its last token, a point or comma that turned out to be none of the number."""
    return replace(beginning, current=beginning.current[:-1], tokens=beginning.tokens[:-1])


def _count(tokens: Tokens, digits: Sequence[int]) -> int:
    return sum(token in digits for token in tokens)


@dataclass(frozen=True)
class NumberDistribution:
    """Distribution of one number: ways to write it, their values, and their probabilities, which sum to one.

    Attributes:
        covered: share of the probability that these have, at least. assumed: share of it in numbers taken to end.
    """

    ways: list[Tokens]
    values: np.ndarray
    chances: np.ndarray
    covered: float
    assumed: float = 0.0

    @classmethod
    def of_alphabet(cls, following: Next, vocab: NumberVocab) -> NumberDistribution:
        """The exact one of a number of one token."""
        chances = following.digits / following.digits.sum()
        return cls([(token,) for token in vocab.digit_ids], np.arange(vocab.base, dtype=float), chances, 1.0)

    @classmethod
    def of_tree(cls, tree: NumberTree) -> NumberDistribution | None:
        """That of a tree of one number; None where nothing was a number.

        A tree that covers less than `LEAST_COVERED` has the generated number alone.
        """
        total = sum(leaf.probability for leaf in tree.leaves)
        if not total > 0:
            return None
        number = tree.written[0]
        if tree.covered < LEAST_COVERED:
            ways, chances = [tree.ids[number.start : number.end]], np.ones(1)
        else:
            ways = [leaf.numbers[0] for leaf in tree.leaves]
            chances = np.array([leaf.probability / total for leaf in tree.leaves])
        sign = -1 if number.negative else 1
        values = np.array([sign * float(value_of(way, tree.vocab)) for way in ways])
        return cls(ways, values, chances, tree.covered, tree.assumed)


def text_of(way: Sequence[int], vocab: NumberVocab) -> str:
    """A number's tokens as plain text."""
    digit = {token: str(value) for value, token in enumerate(vocab.digit_ids)}
    return "".join(digit.get(t, "." if t in vocab.point_ids else "-") for t in way)  # type: ignore[operator]


def value_of(way: Sequence[int], vocab: NumberVocab) -> Decimal:
    """The value that a number's tokens write."""
    return Decimal(vocab.digit_ids.index(way[0])) if vocab.one_place else Decimal(text_of(way, vocab))


def tokens_of_number(text: str, vocab: NumberVocab) -> Tokens | None:
    """Tokens that write a plain number; None where the vocabulary lacks one."""
    signs = {".": vocab.point_ids, "-": vocab.minus_ids}
    tokens: list[int] = []
    for character in text:
        ids = signs[character] if character in signs else (vocab.digit_ids[int(character)],)
        if not ids:
            return None
        tokens.append(ids[0])  # type: ignore[index]
    return tuple(tokens)

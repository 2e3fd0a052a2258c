"""Decodings beside the answer as it is generated: what else the same model says of the same row.

* `expected`, `median`: every number of the answer is replaced by the mean or the median of its distribution.
* `bayes`: the answer of least expected distance under it: of every box the one of least expected 1 - IoU, of other
  answers with up to `TOGETHER` numbers that of least expected `Task.distance` (a time: minutes on the circle).
* `consensus`: of the row's samples the one of least mean `Task.distance` to all (minimum Bayes risk).

The first three come from one forward along the answer, and from what the trees of its numbers ask for beyond it. All
numbers are given the generated answer before them. A row whose answer can't be read, has no number, or is written by
other tokens than the answer's text stays as it is generated; `decoded.as_generated` says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from data.common.rows import Row
from ntil.collator import Collator
from ntil.config.answering import OF_DISTRIBUTIONS, GenerationConfig
from ntil.config.schema import EvaluationConfig
from ntil.evaluation.continuations import Continuations
from ntil.evaluation.decisions import best_box, mean_way, median_way, nearest_to_all, way_of_value
from ntil.evaluation.number_trees import (
    LEAST_COVERED,
    Leaf,
    Next,
    NumberDistribution,
    NumberTree,
    Tokens,
    Written,
    text_of,
    value_of,
    written_numbers,
)
from ntil.models.base import Encoded
from ntil.numbers.vocab import NumberVocab
from tasks.base import ParseFailure, Task

TOGETHER = 3  # numbers whose joint distribution is followed
MOST = 128  # of its most probable answers are compared with each other
SAME_IN_ALL = ("id", "answer", "groups", "truth", "true")  # fields of a record that no decoding changes


@dataclass
class Answered:
    """A row's generated answer, its numbers and their trees.

    Attributes:
        encoded: prompt and answer. trees: one a number, then perhaps one of all; none where the numbers are single
            tokens. following: what follows the prompt and each token of the answer.
        boxes: indices of the numbers x1, y1, x2, y2 of every box.
    """

    encoded: Encoded
    numbers: list[Written]
    following: list[Next]
    boxes: list[tuple[int, ...]]
    trees: list[NumberTree]
    together: NumberTree | None = None


class Decoder:
    """Samples and decodings of rows, as fields of their records.

    Args:
        evaluation: says which.
        batch_size: sequences of one forward, at most.
    """

    def __init__(self, evaluation: EvaluationConfig, batch_size: int) -> None:
        self.generation: GenerationConfig = evaluation.generation
        self.names: list[str] = evaluation.decoding or []
        self._batch_size = batch_size
        self._continuations: Continuations | None = None

    @classmethod
    def of(cls, evaluation: EvaluationConfig, batch_size: int) -> Decoder | None:
        """The decoder; None where nothing is asked for beside the generated answers."""
        asked = evaluation.decoding or evaluation.generation.samples
        return cls(evaluation, batch_size) if asked else None

    def fields(
        self,
        model: Any,
        collator: Collator,
        rows: Sequence[Row],
        texts: Sequence[str],
        draw: Callable[[int], list[str]],
    ) -> list[Row]:
        """What the rows' records hold beside their generated answers `texts`; `draw(k)` gives the k-th samples."""
        task = collator.task
        samples = [draw(k) for k in range(self.generation.samples or 0)]
        of_numbers = [name for name in self.names if name in OF_DISTRIBUTIONS]
        decoded: list[dict[str, str]] = [{} for _ in rows]
        fields: list[Row] = [{} for _ in rows]
        if of_numbers:
            decoded, shares = self._from_distributions(model, collator, rows, texts, of_numbers)
            fields = [{"decoded": share} for share in shares]
        for i, row in enumerate(rows):
            drawn = [texts_of_k[i].strip() for texts_of_k in samples]
            if "consensus" in self.names:
                decoded[i]["consensus"] = consensus(task, drawn, row)
            if drawn:
                fields[i]["sampled"] = [reading(task, text, row) for text in drawn]
            if self.names:
                fields[i]["decodings"] = {name: reading(task, decoded[i][name], row) for name in self.names}
        return fields

    def _from_distributions(
        self, model: Any, collator: Collator, rows: Sequence[Row], texts: Sequence[str], names: Sequence[str]
    ) -> tuple[list[dict[str, str]], list[Row]]:
        """Texts of the rows by decoding, and what they rest on."""
        if self._continuations is None:
            self._continuations = Continuations(model, collator, self._batch_size)
        encoded = [encoded_answer(collator, row, text) for row, text in zip(rows, texts, strict=True)]
        answered = iter(answers_with_trees(collator, self._continuations, rows, texts, encoded, "bayes" in names))
        of_rows = [None if e is None else next(answered) for e in encoded]
        decoded: list[dict[str, str]] = []
        shares: list[Row] = []
        for row, text, one in zip(rows, texts, of_rows, strict=True):
            distributions = [] if one is None else distributions_of(one, collator)
            if one is None or not one.numbers or None in distributions:
                decoded.append(dict.fromkeys(names, text.strip()))
                shares.append({"as_generated": True, "covered": 0.0, "assumed": 0.0})
                continue
            of_numbers = [d for d in distributions if d is not None]
            decoded.append({name: decode(name, one, of_numbers, collator, row) for name in names})
            rested_on: list[NumberDistribution | NumberTree] = [*of_numbers, *([one.together] if one.together else [])]
            covered, assumed = min(d.covered for d in rested_on), max(d.assumed for d in rested_on)
            shares.append({"as_generated": False, "covered": covered, "assumed": assumed})
        return decoded, shares


def records_of(
    model: Any,
    collator: Collator,
    rows: Sequence[Row],
    texts: Sequence[str],
    draw: Callable[[int], list[str]],
    decoder: Decoder | None,
) -> list[Row]:
    """The records of rows with the generated answers `texts`, with samples and decodings where these are asked for."""
    records = [collator.task.record(text.strip(), row) for row, text in zip(rows, texts, strict=True)]
    if decoder is None:
        return records
    fields = decoder.fields(model, collator, rows, texts, draw)
    return [{**record, **more} for record, more in zip(records, fields, strict=True)]


def reading(task: Task, text: str, row: Row) -> Row:
    """The record of another answer to the row, without what it shares with the row's own record."""
    return {k: v for k, v in task.record(text, row).items() if k not in SAME_IN_ALL}


def consensus(task: Task, texts: Sequence[str], row: Row) -> str:
    """The sample nearest to all that can be read; the first where none can."""
    read = [(text, prediction) for text in texts if not isinstance(prediction := task.parse(text, row), ParseFailure)]
    if not read:
        return texts[0]
    predictions = [prediction for _, prediction in read]
    chances = [1 / len(read)] * len(read)
    return read[nearest_to_all(predictions, chances, lambda a, b: task.distance(a, b, row))][0]


def encoded_answer(collator: Collator, row: Row, text: str) -> Encoded | None:
    """The row with its generated answer in place of the true one; None where the text doesn't tell its tokens."""
    text = text.strip()
    if isinstance(collator.task.parse(text, row), ParseFailure):
        return None
    try:
        return collator.encode_row(row, text)
    except ValueError:
        return None


def answers_with_trees(
    collator: Collator,
    continuations: Continuations,
    rows: Sequence[Row],
    texts: Sequence[str],
    encoded: Sequence[Encoded | None],
    together: bool,
) -> list[Answered]:
    """The encoded answers with their trees, followed to the end; `together`: also the tree of all numbers of a row."""
    vocab = collator.vocab
    assert vocab is not None
    usable = [(row, text.strip(), e) for row, text, e in zip(rows, texts, encoded, strict=True) if e is not None]
    if not usable:
        return []
    along = continuations.along([e for *_, e in usable])
    answered = [
        _answered(collator, vocab, row, text, e, following, together)
        for (row, text, e), following in zip(usable, along, strict=True)
    ]
    follow_all(answered, continuations)
    return answered


def _answered(
    collator: Collator, vocab: NumberVocab, row: Row, text: str, e: Encoded, following: list[Next], together: bool
) -> Answered:
    hidden = collator.unmeasured(text, row, e.answer_ids)
    thousands = collator.task.groups_thousands(row)
    numbers = written_numbers(e.answer_ids, vocab, hidden, thousands)
    at_digit = {number.digit: i for i, number in enumerate(numbers)}
    boxes = [tuple(at_digit.get(first, -1) for first in box.first) for box in collator.boxes([row], [text], [e])]
    boxes = [box for box in boxes if min(box) >= 0]
    ids = tuple(e.answer_ids)
    trees = [] if vocab.one_place else [NumberTree(ids, [number], vocab, thousands) for number in numbers]
    of_all = None
    if together and not boxes and not vocab.one_place and 1 < len(numbers) <= TOGETHER:
        of_all = NumberTree(ids, numbers, vocab, thousands)
    return Answered(e, numbers, following, boxes, trees, of_all)


def follow_all(answered: Sequence[Answered], continuations: Continuations) -> None:
    """Follow the trees of all answers at once, so that each forward has as many beginnings as there are."""
    known: list[dict[Tokens, Next]] = [
        {tuple(one.encoded.answer_ids[:i]): after for i, after in enumerate(one.following)} for one in answered
    ]
    trees = [[*one.trees, *([one.together] if one.together else [])] for one in answered]
    while True:
        asked = [
            [(tree, prefixes) for tree in of_row if (prefixes := _unknown(tree, row_known))]
            for of_row, row_known in zip(trees, known, strict=True)
        ]
        if not any(asked):
            return
        unknown = [
            list(dict.fromkeys(p for p in chain.from_iterable(ps for _, ps in of_row) if p not in row_known))
            for of_row, row_known in zip(asked, known, strict=True)
        ]
        prompts = [Encoded(one.encoded.prompt_ids, [], one.encoded.features) for one in answered]
        for row_known, prefixes, after in zip(known, unknown, continuations.after(prompts, unknown), strict=True):
            row_known.update(zip(prefixes, after, strict=True))
        for of_row, row_known in zip(asked, known, strict=True):
            for tree, prefixes in of_row:
                tree.follow([row_known[prefix] for prefix in prefixes])


def _unknown(tree: NumberTree, known: Mapping[Tokens, Next]) -> list[Tokens]:
    """Beginnings that the tree wants, some of them unknown; it has gone as far as the known ones reach."""
    while (prefixes := tree.wanted_prefixes()) and all(prefix in known for prefix in prefixes):
        tree.follow([known[prefix] for prefix in prefixes])
    return prefixes


def distributions_of(one: Answered, collator: Collator) -> list[NumberDistribution | None]:
    """Distribution of every number of an answer; None of one that the model doesn't hold for a number."""
    vocab = collator.vocab
    assert vocab is not None
    if vocab.one_place:
        return [NumberDistribution.of_alphabet(one.following[number.start], vocab) for number in one.numbers]
    return [NumberDistribution.of_tree(tree) for tree in one.trees]


def decode(name: str, one: Answered, distributions: Sequence[NumberDistribution], collator: Collator, row: Row) -> str:
    """The answer's text by a decoding."""
    vocab = collator.vocab
    assert vocab is not None
    if name == "bayes":
        return _bayes(one, distributions, collator, vocab, row)
    if name == "median":
        ways: list[Tokens | None] = [median_way(d) for d in distributions]
    else:
        decimals = [_decimals(one, number, vocab) for number in one.numbers]
        ways = [mean_way(d, n, vocab) for d, n in zip(distributions, decimals, strict=True)]
    return replaced(one, ways, collator)


def _decimals(one: Answered, number: Written, vocab: NumberVocab) -> int:
    if vocab.one_place:
        return 0
    return len(text_of(one.encoded.answer_ids[number.start : number.end], vocab).partition(".")[2])


def replaced(one: Answered, ways: Sequence[Tokens | None], collator: Collator) -> str:
    """The answer's text with other numbers; those that are None stay."""
    ids = list(one.encoded.answer_ids)
    for number, way in reversed(list(zip(one.numbers, ways, strict=True))):
        if way is not None:
            ids[number.start : number.end] = way
    return collator.family.decode(ids).strip()


def _bayes(
    one: Answered, distributions: Sequence[NumberDistribution], collator: Collator, vocab: NumberVocab, row: Row
) -> str:
    ways: list[Tokens | None] = [None] * len(one.numbers)
    if one.boxes:
        for box in one.boxes:
            corners = [distributions[i] for i in box]
            generated = [_value(one, one.numbers[i], vocab) for i in box]
            for i, value in zip(box, best_box(corners, generated), strict=True):
                ways[i] = way_of_value(distributions[i], value, _decimals(one, one.numbers[i], vocab), vocab)
        return replaced(one, ways, collator)
    if vocab.one_place:
        leaves = _joint(distributions) if len(distributions) <= TOGETHER else []
    else:
        tree = one.together or (one.trees[0] if len(one.trees) == 1 else None)
        leaves = _most_probable(tree.leaves) if tree is not None and tree.covered >= LEAST_COVERED else []
    texts = [replaced(one, leaf.numbers, collator) for leaf in leaves]
    read = [(t, p, leaf) for t, leaf in zip(texts, leaves, strict=True) if _readable(p := collator.task.parse(t, row))]
    if not read:
        return replaced(one, ways, collator)
    predictions, chances = [p for _, p, _ in read], [leaf.probability for *_, leaf in read]
    return read[nearest_to_all(predictions, chances, lambda a, b: collator.task.distance(a, b, row))][0]


def _joint(distributions: Sequence[NumberDistribution]) -> list[Leaf]:
    """The most probable joint ways of numbers of one token, as if each were drawn by itself.

    Each is given the generated numbers before it, as its distribution is.
    """
    leaves = [Leaf((), 1.0)]
    for one in distributions:
        best = np.argsort(-one.chances)[:MOST].tolist()
        longer = [Leaf((*f.numbers, one.ways[i]), f.probability * float(one.chances[i])) for f in leaves for i in best]
        leaves = _most_probable(longer)
    return leaves


def _most_probable(leaves: Sequence[Leaf]) -> list[Leaf]:
    return sorted(leaves, key=lambda leaf: -leaf.probability)[:MOST]


def _value(one: Answered, number: Written, vocab: NumberVocab) -> float:
    value = float(value_of(one.encoded.answer_ids[number.start : number.end], vocab))
    return -value if number.negative else value


def _readable(prediction: Any) -> bool:
    return not isinstance(prediction, ParseFailure)

"""Find all objects of the names asked for, or all that an expression means: the answer is a list of boxes.

Protocol: an answer has no confidences, so the headline is F1 at IoU 0.5, matched as COCO matches
(`tasks.metrics.objects`), mean over pictures. A picture without objects scores 1 for the empty answer and 0 for any
other: gRefCOCO's rule (He et al., GREC, 2023), whose measures are `f1_is_1_0.5` (its Precision@(F1=1, IoU 0.5)) and
`n_acc`.

Metrics (means over pictures; an answer that can't be read has F1 0 and as many wrong boxes as true ones, at least one):

* `f1_0.5`, the headline; `f1`: the mean over IoU 0.5, 0.55, .. 0.95.
* `micro_f1_0.5`, `micro_f1`, `precision_0.5`, `recall_0.5`: of all boxes of all pictures together.
* `f1_is_1_0.5`: the share of pictures with every object and nothing else. `n_acc`: of the pictures without objects,
  the share with an empty answer; `t_acc`: of the others, the share with any box.
* `map`, `map_0.5`, `map_0.75`: pycocotools, the answer's order in place of confidences; of the strict reading.
* `duplicates`: boxes of an answer that repeat an earlier one (same label, IoU 0.9). `count_error`: how many boxes an
  answer has too many or too few.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from PIL import Image, ImageDraw

from data.common.errors import InvalidOption
from data.common.source import Source
from tasks.answers.coordinates import FORMATS, Coords, Item, WrittenBox
from tasks.answers.shape_forms import NONE
from tasks.base import OwnQuestion, ParseFailure, Row, Scores, Style, Task
from tasks.drawing import PREDICTION, TRUTH, captioned, enlarged, picture_of
from tasks.metrics.objects import THRESHOLDS, Labelled, f1, matched, mean_average_precision, repeats

Prediction = list[Item]
NAMED = "Find all of these in the picture and give the box and the name of each: {names}."
MEANT = "Give the boxes of {names}; if there is none, answer none."


class Detection(Task):
    """Task of finding several objects.

    Args:
        source: rows of `data.objects.schema`.
        named: the answer has the name of every box; else one expression is asked for, and the answer has boxes alone.
        coords: the model's coordinate format.
        question: the prompt, with `{names}`: what is asked for. Null: one for `named`.
        question_style: `family` asks in the words that the model's family was taught with, in place of `question`; null
            or `common` asks every model alike.
        own_question: those words, given by the model; None where its family states none.
        max_instances: how many objects a taught answer lists at most, of each name the topmost first.
        max_new_tokens: what generation may write at most.
    """

    metric = "f1_0.5"
    # 2: strictly no words before a shape; bracketed points are apart, names in single quotes are read
    # 3: leniently a name is read without what joins it to the box before (`, dog`, `and dog`), and without bold type
    # 4: leniently Arabic digits are read
    protocol = 4
    subject = "detection"
    secondary_metrics = MappingProxyType({"f1": True, "count_error": False})
    coordinates = True
    survives = frozenset({"crop", "flip", "scale", "color_jitter"})
    columns: tuple[str, ...] = ("boxes", "labels", "crowd", "question", "asked", "width", "height")

    def __init__(
        self,
        source: Source,
        named: bool = True,
        coords: Coords = FORMATS["int1000"],
        question: str | None = None,
        question_style: Style = None,
        own_question: OwnQuestion | None = None,
        max_instances: int = 32,
        max_new_tokens: int = 512,
    ) -> None:
        common = question or (NAMED if named else MEANT)
        chosen = OwnQuestion.in_style(question_style, own_question, self.subject, common)
        question = chosen.text
        if "{names}" not in question:
            raise InvalidOption(f"task.question must hold {{names}}, got {question!r}")
        if max_instances < 1:
            raise InvalidOption(f"task.max_instances must be at least 1, got {max_instances}")
        self.source, self.named, self.coords, self.question = source, named, coords, question
        self.max_instances, self.max_new_tokens = max_instances, max_new_tokens
        self._separator = chosen.separator if chosen is own_question else None

    def asked_for(self, row: Row) -> str:
        """What is asked for, in words."""
        return self._separator.join(row["asked"]) if self._separator and row["asked"] else str(row["question"])

    def names_in_answer(self, row: Row) -> bool:
        """Whether the row's answer has the name of every box."""
        return self.named

    def takes_names(self, row: Row) -> bool:
        """Whether an answer may name its boxes; where none is asked for, words before a box are no name of it."""
        return self.names_in_answer(row)

    def prompt(self, row: Row) -> str:
        return self.question.replace("{names}", self.asked_for(row))

    def taught(self, row: Row) -> list[Labelled]:
        """The objects that an answer lists: by name in the order asked for, then from the top down; no crowds."""
        order = {name: place for place, name in enumerate(row["asked"])}
        return sorted((o for o in self.truth(row) if not o.crowd), key=lambda o: (order.get(o.label, 0), *_middle(o)))

    def answer(self, row: Row) -> str:
        objects = self.taught(row)
        items = [Item(((o.box[0], o.box[1]), (o.box[2], o.box[3])), o.label) for o in objects[: self.max_instances]]
        return self.coords.items(items, (row["width"], row["height"]), "box")

    def number_ranges(self, answer: str, row: Row) -> list[tuple[int, int]] | None:
        return self.coords.form.number_ranges(answer)

    def shapes(self, answer: str, row: Row) -> list[WrittenBox]:
        return self.coords.written_boxes(answer, (row["width"], row["height"]))

    def truth(self, row: Row) -> list[Labelled]:
        """All objects of a row, crowds among them."""
        labels = row["labels"] if self.names_in_answer(row) else [""] * len(row["boxes"])
        return [Labelled(*one) for one in zip(row["boxes"], labels, row["crowd"], strict=True)]

    def parse(self, text: str, row: Row) -> Prediction | ParseFailure:
        """Exactly a list of boxes in the format, each with its name where names are asked for, or the empty answer."""
        size, parse = (row["width"], row["height"]), self.coords.parse_items
        items = (parse if self.takes_names(row) else self.coords.parse_unlabelled)(text, size, "box")
        if items is None:
            return ParseFailure("no list of boxes in the format")
        if self.names_in_answer(row) and not all(item.label for item in items):
            return ParseFailure("a box without its name")
        return items

    def search(self, text: str, row: Row) -> Prediction | ParseFailure:
        """Every box anywhere in the text; where one name is asked for, a box without a name has that."""
        if text.strip().lower().rstrip(".") in (NONE, self.coords.form.none):
            return []
        items = self.coords.find_items(text, (row["width"], row["height"]), "box")
        if self.named and len(row["asked"]) == 1:
            items = [item if item.label else Item(item.points, row["asked"][0]) for item in items]
        return items or ParseFailure("no box in the text")

    def score(self, prediction: Prediction | ParseFailure, row: Row) -> Scores:
        true = self.truth(row)
        count = sum(not item.crowd for item in true)
        if isinstance(prediction, ParseFailure):
            failed = dict.fromkeys(("f1_0.5", "f1", "f1_is_1_0.5", "duplicates"), 0.0)
            return {
                **failed,
                "count_error": float(max(count, 1)),
                **_sums(0, [0] * len(THRESHOLDS), count, max(count, 1), None),
            }
        predicted = self.predicted(prediction, row)
        pairs = [matched(predicted, true, threshold) for threshold in THRESHOLDS]
        values = [f1(right, counted, count) for right, counted in pairs]
        return {
            "f1_0.5": values[0],
            "f1": sum(values) / len(values),
            "f1_is_1_0.5": float(values[0] == 1),
            "duplicates": float(repeats(predicted)),
            "count_error": float(abs(pairs[0][1] - count)),
            **_sums(pairs[0][1], [right for right, _ in pairs], count, 0, bool(predicted)),
        }

    def distance(self, first: Prediction, second: Prediction, row: Row) -> float:
        """1 - F1 at IoU 0.5, the mean of each as the truth of the other: matching depends on which comes first."""
        if first == second:  # also boxes without an area, which match nothing
            return 0.0
        a, b = self.predicted(first, row), self.predicted(second, row)
        counts = [(*matched(one, other, THRESHOLDS[0]), len(other)) for one, other in ((a, b), (b, a))]
        return 1.0 - sum(f1(*count) for count in counts) / 2

    def predicted(self, prediction: Prediction, row: Row) -> list[Labelled]:
        """The boxes of an answer; their labels count where names are asked for."""
        named = self.names_in_answer(row)
        return [Labelled(item.box, item.label if named else "") for item in prediction]

    def record(self, text: str, row: Row) -> Row:
        prediction = self.parse(text, row)
        predicted = [] if isinstance(prediction, ParseFailure) else self.predicted(prediction, row)
        return {
            **super().record(text, row),
            "predicted": [[*item.box, item.label] for item in predicted],
            "true": [[*item.box, item.label, item.crowd] for item in self.truth(row)],
        }

    def groups(self, row: Row) -> list[str]:
        return [row["split"]] if row.get("split") else super().groups(row)

    def summarize(self, records: Iterable[Row]) -> dict[str, float]:
        pictures: list[tuple[list[Labelled], list[Labelled]]] = []

        def noted() -> Iterator[Row]:
            for record in records:
                predicted = [Labelled(entry[:4], entry[4]) for entry in record["predicted"]]
                pictures.append((predicted, [Labelled(entry[:4], *entry[4:]) for entry in record["true"]]))
                yield record

        metrics = super().summarize(noted())
        if not any(item.label for _, true in pictures for item in true):
            pictures = [([replace(item, label="") for item in predicted], true) for predicted, true in pictures]
        return {**metrics, **mean_average_precision(pictures)}

    def metrics_from_sums(self, sums: dict[str, float]) -> dict[str, float]:
        totals = {key: value for key, value in sums.items() if _is_sum(key)}
        metrics = super().metrics_from_sums({key: value for key, value in sums.items() if key not in totals})
        for prefix in [key.removesuffix("sum_true") for key in totals if key.endswith("sum_true")]:
            metrics |= {prefix + name: value for name, value in _of_all(totals, prefix).items()}
        return metrics

    def draw(self, row: Row, prediction: Prediction | ParseFailure) -> Image.Image:
        """Truth in green under the prediction in red, with the number of objects and F1."""
        picture, scale = enlarged(picture_of(row))
        pen = ImageDraw.Draw(picture)
        for item in self.truth(row):
            pen.rectangle([v * scale for v in item.box], outline=TRUTH, width=4)
        for read in [] if isinstance(prediction, ParseFailure) else prediction:
            x1, y1, *_ = box = [v * scale for v in read.box]
            pen.rectangle(box, outline=PREDICTION, width=1)
            pen.text((x1 + 3, y1 + 2), read.label, fill=PREDICTION)
        value = self.score(prediction, row)["f1_0.5"]
        caption = f"{len(row['boxes'])} objects, F1 {value:.2f}"
        caption = prediction.reason if isinstance(prediction, ParseFailure) else caption
        return captioned(picture, self.asked_for(row), caption, value == 1.0)


def _is_sum(key: str) -> bool:
    """Whether it is one of `_sums`; before the last slash stands a group, whose name may be like theirs."""
    return key.rpartition("/")[2].removeprefix("lenient_").startswith("sum_")


def _sums(predicted: int, right: list[int], true: int, failed: int, any_box: bool | None) -> Scores:
    """Counts to be summed over pictures; a failed answer's boxes all count as wrong."""
    values = {f"sum_right_{t}": float(n) for t, n in zip(THRESHOLDS, right, strict=True)}
    values |= {"sum_true": float(true), "sum_predicted": float(predicted + failed), "sum_empty": float(true == 0)}
    values["sum_empty_right"] = float(true == 0 and any_box is False)
    values["sum_filled_right"] = float(true > 0 and any_box is True)
    return values | {"sum_pictures": 1.0}


def _of_all(totals: dict[str, float], prefix: str) -> dict[str, Any]:
    def total(name: str) -> float:
        return totals[f"{prefix}sum_{name}"]

    values = [f1(total(f"right_{t}"), total("predicted"), total("true")) for t in THRESHOLDS]
    metrics = {"micro_f1_0.5": values[0], "micro_f1": sum(values) / len(values)}
    empty, filled = total("empty"), total("pictures") - total("empty")
    for name, right, of in (
        ("precision_0.5", total("right_0.5"), total("predicted")),
        ("recall_0.5", total("right_0.5"), total("true")),
        ("n_acc", total("empty_right"), empty),
        ("t_acc", total("filled_right"), filled),
    ):
        if of:
            metrics[name] = right / of
    return metrics


def _middle(item: Labelled) -> tuple[float, float]:
    return (item.box[1] + item.box[3]) / 2, (item.box[0] + item.box[2]) / 2

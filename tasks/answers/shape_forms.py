"""Texts around coordinates: brackets, special tokens, tags, JSON; with labels and without.

A form knows no scale: its numbers are the texts that `tasks.answers.coordinates` writes and reads. One shape, with a
label and without:

| form | a box |
|---|---|
| `Brackets` | `cat [12, 34, 56, 78]`, `[12, 34, 56, 78]` |
| `QwenTokens` | `<|object_ref_start|>cat<|object_ref_end|><|box_start|>(12,34),(56,78)<|box_end|>` |
| `Locations` | `<loc0034><loc0012><loc0078><loc0056> cat`, `<loc0034>...` |
| `Tags` | `<ref>cat</ref><box>[[12, 34, 56, 78]]</box>`, `<box>[[12, 34, 56, 78]]</box>` |
| `Json` | `{"bbox_2d": [12, 34, 56, 78], "label": "cat"}`, `{"bbox_2d": [12, 34, 56, 78]}`; several in a list |

A point has two numbers, a polygon six or more (`point_2d`, `polygon_2d`; `<|quad_start|>`, `<quad>`). Sources of the
published forms: PaliGemma `detect` answers (big_vision), Qwen2-VL's special tokens, InternVL's `evaluate_grounding.py`
(several boxes of one `<ref>` stand in one `<box>`), Qwen3-VL's README and cookbooks. Points of all but JSON, polygons
of Tags and JSON, and labels of Brackets are this project's choice: none is published.

Strict reading takes what a form writes and what its models write by themselves: a label or none, in JSON a list or one
object alone, with any blanks, in a ```` ```json ```` fence or without.
"""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

Kind = Literal["box", "polygon", "point"]
Range = tuple[int, int]  # characters of a text: the first, and the one after the last

INTEGER = r"(?:0|[1-9][0-9]{0,8})"
FRACTION = r"[0-9]\.[0-9]{2,3}"  # three decimals as the project writes them, two as LLaVA does
LOCATION = r"[0-9]{4}"
NONE = "none"
LONGEST_LABEL = 100  # characters, so that no reading of a long text takes long


@dataclass(frozen=True)
class Shape:
    """Numbers of a shape as they are written, and its label (empty: none)."""

    numbers: tuple[str, ...]
    label: str = ""


class Form(ABC):
    """Form of shapes in a text.

    Attributes:
        none: what stands for no shape at all.
        digits: without labels, every digit of a text is one of a coordinate.
        adds_labels: models of the form label a shape even where nobody asks for it.
    """

    none: ClassVar[str] = NONE
    digits: ClassVar[bool] = True
    adds_labels: ClassVar[bool] = True

    @abstractmethod
    def write(self, shapes: Sequence[Shape], kind: Kind, many: bool = True) -> str:
        """Shapes as text; `many`: as a list, even of one.

        Raises:
            ValueError: a label that the form can't hold.
        """

    @abstractmethod
    def read(self, text: str, kind: Kind) -> list[Shape] | None:
        """Strictly shapes of the kind, at least one; None for anything else."""

    @abstractmethod
    def number_ranges(self, text: str) -> list[Range]:
        """Characters of the coordinates in a text that the form has written, number by number."""

    @abstractmethod
    def search(self, text: str, kind: Kind) -> list[Shape]:
        """Shapes anywhere in a text, with their labels."""


def fits(count: int, kind: Kind) -> bool:
    """Whether a shape of the kind may have that many numbers."""
    return count == {"box": 4, "point": 2}.get(kind, count) and (kind != "polygon" or (count >= 6 and count % 2 == 0))


@dataclass(frozen=True)
class TextForm(Form):
    """Form that a regular expression describes.

    Args:
        number: pattern of a number, as it is written.
    """

    number: str = INTEGER
    separators: ClassVar[tuple[str, str]] = ("; ", "; ")  # between shapes without labels, and with
    forbidden: ClassVar[str] = "[];<>"  # characters that no label may hold

    def write(self, shapes: Sequence[Shape], kind: Kind, many: bool = True) -> str:
        for shape in shapes:
            if len(shape.label) > LONGEST_LABEL:
                raise ValueError(f"the label {shape.label[:20]!r}... has more than {LONGEST_LABEL} characters")
            if clash := sorted(set(shape.label) & {*self.forbidden, "\n"}):
                raise ValueError(f"the label {shape.label!r} holds {clash[0]!r}, which ends a label in this format")
        separator = self.separators[any(shape.label for shape in shapes)]
        return separator.join(self._one(shape, kind) for shape in shapes) or self.none

    def read(self, text: str, kind: Kind) -> list[Shape] | None:
        shapes: list[Shape] = []
        pattern, end = self._pattern(kind), 0
        while match := pattern.match(text, end):
            read = list(self._shapes(match, kind))
            if not all(fits(len(shape.numbers), kind) for shape in read):
                return None
            shapes += read
            end = match.end()
            if end == len(text):
                return shapes
            # A shape without a label may follow one with a label.
            gap = next((s for s in sorted(self.separators, key=len, reverse=True) if text.startswith(s, end)), None)
            if gap is None:
                return None
            end += len(gap)
        return None

    def number_ranges(self, text: str) -> list[Range]:
        ranges = []
        for kind in self._kinds():
            for match in self._pattern(kind).finditer(text):
                start = match.start("numbers")
                ranges += [
                    (start + n.start(), start + n.end()) for n in re.finditer(r"[0-9]+(?:\.[0-9]+)?", match["numbers"])
                ]
        return sorted(set(ranges))

    def search(self, text: str, kind: Kind) -> list[Shape]:
        read = (s for match in self._pattern(kind).finditer(text) for s in self._shapes(match, kind))
        return [shape for shape in read if fits(len(shape.numbers), kind)]

    def _kinds(self) -> tuple[Kind, ...]:
        return ("box",)

    def _shapes(self, match: re.Match[str], kind: Kind) -> Iterator[Shape]:
        yield Shape(tuple(re.findall(self.number, match["numbers"])), (match["label"] or "").strip())

    @abstractmethod
    def _one(self, shape: Shape, kind: Kind) -> str:
        """One shape as text."""

    @abstractmethod
    def _pattern(self, kind: Kind) -> re.Pattern[str]:
        """Pattern of one shape, with the groups `numbers` and `label`."""


class Brackets(TextForm):
    """`[12, 34, 56, 78]`."""

    adds_labels: ClassVar[bool] = False

    def _one(self, shape: Shape, kind: Kind) -> str:
        return f"{shape.label} [{', '.join(shape.numbers)}]".lstrip()

    def _pattern(self, kind: Kind) -> re.Pattern[str]:
        n = self.number
        return re.compile(
            rf"(?:(?P<label>[^\[\];<>\n]{{0,{LONGEST_LABEL - 1}}}[^\[\];<>\s]) )?\[(?P<numbers>{n}(?:, {n})*)\]"
        )


class QwenTokens(TextForm):
    """Qwen2-VL's special tokens."""

    separators: ClassVar[tuple[str, str]] = ("", "")
    forbidden: ClassVar[str] = "<>|"

    def _one(self, shape: Shape, kind: Kind) -> str:
        pairs = ",".join(f"({x},{y})" for x, y in zip(shape.numbers[::2], shape.numbers[1::2], strict=True))
        label = f"<|object_ref_start|>{shape.label}<|object_ref_end|>" if shape.label else ""
        name = _qwen_name(kind)
        return f"{label}<|{name}_start|>{pairs}<|{name}_end|>"

    def _pattern(self, kind: Kind) -> re.Pattern[str]:
        pair, name = rf"\({self.number},{self.number}\)", _qwen_name(kind)
        label = r"(?:<\|object_ref_start\|>(?P<label>[^<]*)<\|object_ref_end\|>)?"
        return re.compile(rf"{label}<\|{name}_start\|>(?P<numbers>{pair}(?:,{pair})*)<\|{name}_end\|>")

    def _kinds(self) -> tuple[Kind, ...]:
        return "box", "polygon"


class Locations(TextForm):
    """PaliGemma's location tokens, the label behind them."""

    separators: ClassVar[tuple[str, str]] = ("; ", " ; ")
    forbidden: ClassVar[str] = "<>;"

    def _one(self, shape: Shape, kind: Kind) -> str:
        return f"{''.join(f'<loc{n}>' for n in shape.numbers)} {shape.label}".rstrip()

    def _pattern(self, kind: Kind) -> re.Pattern[str]:
        return re.compile(rf"(?P<numbers>(?:<loc{self.number}>)+)(?: (?P<label>[^<>;\s](?:[^<>;\n]*[^<>;\s])?))?")


class Tags(TextForm):
    """InternVL's tags."""

    separators: ClassVar[tuple[str, str]] = ("", "")
    forbidden: ClassVar[str] = "<>"

    def _one(self, shape: Shape, kind: Kind) -> str:
        label = f"<ref>{shape.label}</ref>" if shape.label else ""
        name = "quad" if kind == "polygon" else "box"
        return f"{label}<{name}>[[{', '.join(shape.numbers)}]]</{name}>"

    def _pattern(self, kind: Kind) -> re.Pattern[str]:
        name = "quad" if kind == "polygon" else "box"
        one = rf"\[{self.number}(?:, {self.number})*\]"
        label = r"(?:<ref>(?P<label>[^<]*)</ref>)?"
        return re.compile(rf"{label}<{name}>\[(?P<numbers>{one}(?:, {one})*)\]</{name}>")

    def _shapes(self, match: re.Match[str], kind: Kind) -> Iterator[Shape]:
        for numbers in re.findall(r"\[([^\]]*)\]", match["numbers"]):
            yield Shape(tuple(re.findall(self.number, numbers)), (match["label"] or "").strip())

    def _kinds(self) -> tuple[Kind, ...]:
        return "box", "polygon"


class Json(Form):
    """Qwen2.5-VL's and Qwen3-VL's objects."""

    none: ClassVar[str] = "[]"
    digits: ClassVar[bool] = False
    keys: ClassVar[dict[Kind, str]] = {"box": "bbox_2d", "point": "point_2d", "polygon": "polygon_2d"}

    def write(self, shapes: Sequence[Shape], kind: Kind, many: bool = True) -> str:
        objects = [
            {self.keys[kind]: [int(n) for n in shape.numbers], **({"label": shape.label} if shape.label else {})}
            for shape in shapes
        ]
        return json.dumps(objects if many else objects[0], ensure_ascii=False)

    def read(self, text: str, kind: Kind) -> list[Shape] | None:
        try:
            value = json.loads(_without_fence(text.strip()))
        except (ValueError, RecursionError):
            return None
        shapes = [self._shape(entry, kind) for entry in (value if isinstance(value, list) else [value])]
        return None if None in shapes else shapes  # type: ignore[return-value]

    def _shape(self, entry: Any, kind: Kind) -> Shape | None:
        key = self.keys[kind]
        if not isinstance(entry, dict) or key not in entry or not entry.keys() <= {key, "label"}:
            return None
        numbers, label = entry[key], entry.get("label", "")
        # The class itself: true is an int too.
        if not isinstance(label, str) or not isinstance(numbers, list) or any(type(n) is not int for n in numbers):
            return None
        if not fits(len(numbers), kind) or any(not 0 <= n < 10**9 for n in numbers):
            return None
        return Shape(tuple(map(str, numbers)), label)

    def number_ranges(self, text: str) -> list[Range]:
        ranges = []
        for match in _JSON_NUMBERS.finditer(text):
            start = match.start("numbers")
            ranges += [(start + n.start(), start + n.end()) for n in re.finditer(r"[0-9]+", match["numbers"])]
        return ranges

    def search(self, text: str, kind: Kind) -> list[Shape]:
        return search_objects(text, kind)


def search_objects(text: str, kind: Kind) -> list[Shape]:
    """Shapes of the kind in JSON-like objects anywhere in a text, complete or not in themselves well-formed."""
    shapes = []
    for part in _OBJECT.findall(text):
        match = _OBJECT_NUMBERS[kind].search(part)
        numbers = tuple(re.findall(r"[-+]?[0-9]{1,9}(?:\.[0-9]{1,40})?", match["numbers"])) if match else ()
        if fits(len(numbers), kind):
            label = _OBJECT_LABEL.search(part)
            shapes.append(Shape(numbers, _unescaped(label["label"]).strip() if label else ""))
    return shapes


def _without_fence(text: str) -> str:
    fence = "```"
    if len(text) < 2 * len(fence) or not (text.startswith(fence) and text.endswith(fence)):
        return text
    return text[len(fence) : -len(fence)].removeprefix("json")


def _unescaped(text: str) -> str:
    try:
        return str(json.loads(f'"{text}"'))
    except ValueError:
        return text.replace("\\'", "'")


def _qwen_name(kind: Kind) -> str:
    return "quad" if kind == "polygon" else "box"


# Within a JSON string a quote is escaped, so that a label can't look like a key.
_JSON_NUMBERS = re.compile(r'(?<!\\)"(?:bbox|point|polygon)_2d": \[(?P<numbers>[^\]]*)\]')
_OBJECT = re.compile(r"\{[^{}]*\}")
_LIST = r"[\"']?\s*:\s*[\[(]+(?P<numbers>[-+0-9.,\s]*)[\])]"
_OBJECT_NUMBERS = {
    "box": re.compile(rf"[\"']?(?:bbox_2d|bbox|box|bounding_box){_LIST}"),
    "point": re.compile(rf"[\"']?(?:point_2d|point|coordinates?|position|click){_LIST}"),
    "polygon": re.compile(rf"[\"']?(?:polygon_2d|polygon|quad){_LIST}"),
}
_OBJECT_LABEL = re.compile(
    r"[\"'](?:label|name|category|class|text)[\"']\s*:\s*(?P<quote>[\"'])(?P<label>(?:(?!(?P=quote))[^\\]|\\.)*)(?P=quote)"
)

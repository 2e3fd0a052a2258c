"""Reading order of the texts in a picture, and first points of their outlines, defined by geometry alone.

Annotators list texts in any order and start an outline where the text starts, which a detector can't know without
reading. So that the same picture always has the same answer:

* **Lines.** Of the texts not yet taken, the one whose box begins highest starts a line; all texts whose vertical centre
  lies within that box's height join it. Within a line, from the left edge rightwards; then the next line.
* **Outlines** go clockwise from the point nearest to the top left corner (least x + y, then least y).
"""

from __future__ import annotations

from collections.abc import Sequence

from tasks.answers.coordinates import Polygon, around

Points = Sequence[Sequence[float]]


def reading_order(polygons: Sequence[Points]) -> list[int]:
    """Indices of the polygons in reading order."""
    boxes = [around(points) for points in polygons]
    # Where two begin at the same place all their points decide, so that the annotator's order doesn't.
    ties = [(box, sorted(map(tuple, points))) for box, points in zip(boxes, polygons, strict=True)]
    waiting = sorted(range(len(boxes)), key=lambda i: (boxes[i][1], boxes[i][0], ties[i]))
    order: list[int] = []
    while waiting:
        _, top, _, bottom = boxes[waiting[0]]
        line = [i for i in waiting if i == waiting[0] or top <= (boxes[i][1] + boxes[i][3]) / 2 <= bottom]
        order += sorted(line, key=lambda i: (boxes[i][0], boxes[i][1], ties[i]))
        waiting = [i for i in waiting if i not in line]
    return order


def outline(points: Points) -> Polygon:
    """The same polygon, clockwise (as seen, y downwards) from its top left point."""
    turned = [(float(x), float(y)) for x, y in points]
    before = [turned[-1], *turned[:-1]]
    if sum(x1 * y2 - x2 * y1 for (x1, y1), (x2, y2) in zip(before, turned, strict=True)) < 0:
        turned.reverse()
    first = min(range(len(turned)), key=lambda i: (sum(turned[i]), turned[i][1]))
    return (*turned[first:], *turned[:first])

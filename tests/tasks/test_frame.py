"""Coordinates in a frame larger than the picture: what a model that pads sees, and back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.answers import coordinates as coords


def square(size):
    side = max(size)
    return side, side, (side - size[0]) // 2, (side - size[1]) // 2


sizes = st.tuples(st.integers(8, 2000), st.integers(8, 2000))
fractions = st.tuples(*[st.floats(0, 1)] * 4)


@pytest.mark.parametrize("name", coords.FORMATS)
@given(size=sizes, at=fractions)
def test_boxes_come_back_within_half_a_step_of_the_frame(name, size, at):
    framed = coords.coordinate_format(name).within(square, lambda size: (max(size), max(size)))
    x1, x2 = sorted(v * size[0] for v in at[:2])
    y1, y2 = sorted(v * size[1] for v in at[2:])
    text = framed.box((x1, y1, x2, y2), size)
    step = 1 if framed.steps is None else 0.5 * max(size) / framed.steps
    assert framed.parse_box(text, size) == pytest.approx((x1, y1, x2, y2), abs=step + 1e-6)
    assert framed.find_box(text, size) == framed.parse_box(text, size)


def test_a_wide_picture_has_no_box_in_its_padding():
    framed = coords.coordinate_format("unit").within(square)
    assert framed.box((0, 0, 200, 100), (200, 100)) == "[0.000, 0.250, 1.000, 0.750]"
    assert framed.box((-50, -50, 900, 900), (200, 100)) == "[0.000, 0.250, 1.000, 0.750]"
    assert framed.polygon([(0, 0), (200, 0), (100, 100)], (200, 100)) == "[0.000, 0.250, 1.000, 0.250, 0.500, 0.750]"


def test_a_prediction_in_the_padding_lies_outside_the_picture():
    framed = coords.coordinate_format("unit").within(square)
    assert framed.parse_box("[0.000, 0.000, 0.500, 0.250]", (200, 100)) == (0, -50, 100, 0)

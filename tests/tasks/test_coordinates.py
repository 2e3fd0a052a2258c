"""Coordinate formats: writing and reading are inverse up to half a step, and strict reading takes nothing else."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.answers.coordinates import FORMATS, LONGEST, NONE, around, coordinate_format, corners

SIZES = st.tuples(st.integers(1, 3000), st.integers(1, 3000))
FORMAT = st.sampled_from(sorted(FORMATS)).map(coordinate_format)


@st.composite
def boxes(draw):
    """(format, size, box in the picture)."""
    size = draw(SIZES)
    xs = sorted(draw(st.lists(st.floats(0, size[0]), min_size=2, max_size=2)))
    ys = sorted(draw(st.lists(st.floats(0, size[1]), min_size=2, max_size=2)))
    return draw(FORMAT), size, (xs[0], ys[0], xs[1], ys[1])


@st.composite
def polygons(draw):
    size = draw(SIZES)
    point = st.tuples(st.floats(0, size[0]), st.floats(0, size[1]))
    return draw(FORMAT), size, tuple(draw(st.lists(point, min_size=3, max_size=20)))


def close(read, true, size, coords):
    half = [side / coords.steps / 2 * (1 + 1e-9) for side in size]
    return all(abs(r - t) <= half[i % 2] for i, (r, t) in enumerate(zip(read, true, strict=True)))


@given(boxes())
def test_a_box_comes_back_within_half_a_step_and_again_the_same(case):
    coords, size, box = case
    text = coords.box(box, size)
    read = coords.parse_box(text, size)
    assert close(read, box, size, coords)
    assert coords.box(read, size) == text
    assert coords.find_box(f"It is at {text}.", size) == read
    assert coords.parse_box(f" {text}\n", size) == read


@given(polygons())
def test_a_polygon_comes_back_within_half_a_step(case):
    coords, size, points = case
    text = coords.polygon(points, size)
    read = coords.parse_polygon(text, size)
    flat = [v for p in points for v in p]
    assert close([v for p in read for v in p], flat, size, coords)
    assert coords.polygon(read, size) == text


@given(st.data(), FORMAT, SIZES)
def test_lists_come_back_in_order(data, coords, size):
    xs, ys = st.floats(0, size[0]), st.floats(0, size[1])
    many = data.draw(st.lists(st.lists(st.tuples(xs, ys), min_size=3, max_size=6), max_size=5))
    text = coords.polygons(many, size)
    read = coords.parse_polygons(text, size)
    assert len(read) == len(many)
    assert coords.polygons(read, size) == text
    framed = [around(points) for points in many]
    text = coords.boxes(framed, size)
    assert coords.boxes(coords.parse_boxes(text, size), size) == text
    assert (text == NONE) == (not many)


@given(st.text() | st.from_regex(r"[\[\]()<>|0-9., ;\-lockbxstarend_]{0,60}"), FORMAT, SIZES)
def test_no_text_crashes_and_what_is_read_strictly_is_what_was_written(text, coords, size):
    for parse, write in (
        (coords.parse_box, coords.box),
        (coords.parse_polygon, coords.polygon),
        (coords.parse_boxes, coords.boxes),
        (coords.parse_polygons, coords.polygons),
    ):
        read = parse(text, size)
        if read is not None:
            assert write(read, size) == text.strip()
    found = coords.find_box(text, size)
    if found is not None:
        assert 0 <= found[0] <= found[2] <= size[0] * (1 + 1e-12)
        assert 0 <= found[1] <= found[3] <= size[1] * (1 + 1e-12)
    coords.find_shapes(text, size)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("int1000", "[0, 500, 999, 999]"),
        ("qwen", "<|box_start|>(0,500),(1000,1000)<|box_end|>"),
        ("unit", "[0.000, 0.500, 1.000, 1.000]"),
        ("loc", "<loc0512><loc0000><loc1023><loc1023>"),
    ],
)
def test_each_format_is_written_as_its_models_know_it(name, text):
    coords = coordinate_format(name)
    assert coords.box((0, 150.1, 400, 300), (400, 300)) == text
    box = coords.parse_box(text, (400, 300))
    assert box is not None
    x1, y1, x2, y2 = box
    assert (x1, x2, y2) == (0, 400, 300)
    assert math.isclose(y1, 150.1, abs_tol=0.2)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("int1000", "[1,2,3,4]"),
        ("int1000", "[1, 2, 3]"),
        ("int1000", "[1, 2, 3, 1000]"),
        ("int1000", "[01, 2, 3, 4]"),
        ("int1000", "[5, 2, 3, 4]"),
        ("int1000", "[1, 2, 3, 4] yes"),
        ("int1000", "[1, 2, 3, -4]"),
        ("int1000", "[1, 2, 3, 4.0]"),
        ("int1000", "[١, ٢, ٣, ٤]"),
        ("int1000", ""),
        ("qwen", "(1,2),(3,4)"),
        ("qwen", "<|box_start|>(1,2),(3,1001)<|box_end|>"),
        ("unit", "[0.1, 0.2, 0.3, 0.4]"),
        ("unit", "[0.100, 0.200, 0.300, 1.001]"),
        ("loc", "<loc0001><loc0002><loc0003><loc1024>"),
        ("loc", "<loc1><loc2><loc3><loc4>"),
        ("loc", "<loc0001><loc0002><loc0003><loc0004><loc0005>"),
    ],
)
def test_strict_reading_refuses(name, text):
    assert coordinate_format(name).parse_box(text, (100, 100)) is None


def test_lenient_reading_stays_in_the_formats_own_scale():
    size = (999, 999)
    int1000 = coordinate_format("int1000")
    assert int1000.find_box("x 30,40, 10 and 20!", size) == (10, 20, 30, 40)
    assert int1000.find_box("[0.1, 0.2, 0.3, 0.4]", size) is None
    assert int1000.find_box("[10, 20, 30, 1000]", size) is None
    assert int1000.find_box("[10, -20, 30, 40]", size) is None
    assert int1000.find_box("<loc0010><loc0020><loc0030><loc0040>", size) is None
    assert coordinate_format("unit").find_box("10 20 30 40", size) is None
    assert int1000.find_shapes("[0, 0, 10, 10]; [0, 0, 5, 0, 5, 5]", size) == [
        corners((0, 0, 10, 10)),
        ((0, 0), (5, 0), (5, 5)),
    ]


def test_long_texts_are_not_read():
    coords = coordinate_format("int1000")
    text = coords.boxes([(1, 2, 3, 4)] * (LONGEST // 10), (999, 999))
    assert coords.parse_boxes(text, (999, 999)) is None


def test_unknown_formats_name_the_known():
    with pytest.raises(ValueError, match="int1000, qwen, unit, loc"):
        coordinate_format("pixels")

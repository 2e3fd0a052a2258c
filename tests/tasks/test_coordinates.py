"""Coordinate formats: writing and reading are inverse up to half a step, and strict reading takes nothing else."""

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.answers.characters import ascii_variants
from tasks.answers.coordinates import FORMATS, LONGEST, Item, around, coordinate_format, corners

SIZES = st.tuples(st.integers(1, 3000), st.integers(1, 3000))


def cells(size):
    """Sides in whole cells of 28 pixels, as a family of pictures of any shape scales them."""
    return max(28, round(size[0] / 28) * 28), max(28, round(size[1] / 28) * 28)


FORMAT = st.sampled_from(sorted(FORMATS)).map(
    lambda name: coordinate_format(name).within(coordinate_format(name).frame, cells)
)


@pytest.mark.parametrize("name", sorted(FORMATS))
@given(text=st.text("0123４５６789.−–-,;: []<>loc\nleftTopRIGHTbottom", max_size=120))
def test_whatever_a_model_writes_is_read_or_refused(name, text):
    coords = FORMATS[name]
    for found in (coords.find_box(text, (640, 480)), *coords.find_shapes(text, (640, 480))):
        assert found is None or all(
            math.isfinite(v) for v in (found if isinstance(found[0], float) else sum(found, ()))
        )


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("int1000", "１０ ２０ ３０ ４０"),
        ("unit", "０.１ ０.２ ０.３ ０.４"),
        ("int1000", "١٠ ٢٠ ٣٠ ٤٠"),
        ("unit", "٠٫١ ٠٫٢ ٠٫٣ ۰٫۴"),
    ],
)
def test_sides_in_digits_of_other_scripts_are_a_box(name, written):
    numbers = written.split()
    sides = zip(("left", "top", "right", "bottom"), numbers, strict=True)
    text = "".join(f"The {side} side is at {n}. " for side, n in sides)
    assert FORMATS[name].find_box(text, (100, 100)) == FORMATS[name].find_box(ascii_variants(text), (100, 100))
    assert FORMATS[name].find_box(text, (100, 100)) is not None
    assert not re.search(r"[^\x00-\x7f]", ascii_variants(written))


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
    # In pixels the right edge of W is W - 1.
    most = 1 if coords.steps is None else 0.5
    half = [side / limit * most * (1 + 1e-9) for side, limit in zip(size, coords.limits(size), strict=True)]
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
    assert (text == coords.form.none) == (not many)


@given(st.text() | st.from_regex(r"[\[\]()<>|0-9., ;\-lockbxstarend_]{0,60}"), FORMAT, SIZES)
def test_no_text_crashes_and_what_is_read_strictly_is_what_was_written(text, coords, size):
    for parse, write in (
        (coords.parse_box, coords.box),
        (coords.parse_polygon, coords.polygon),
        (coords.parse_boxes, coords.boxes),
        (coords.parse_polygons, coords.polygons),
    ):
        read = parse(text, size)
        if read is not None:  # a label that is written beside a shape, and blanks in JSON, aren't written again
            assert parse(write(read, size), size) == read
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
        ("json1000", '{"bbox_2d": [0, 500, 1000, 1000]}'),
        ("tags", "<box>[[0, 500, 1000, 1000]]</box>"),
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
        ("unit", "[0.10, 0.20, 0.30, 1.01]"),
        ("unit", "[0.1000, 0.2000, 0.3000, 0.4000]"),
        ("qwen", "<|object_ref_start|>dog<|object_ref_end|>"),
        ("qwen", "a dog <|box_start|>(1,2),(3,4)<|box_end|>"),
        ("tags", "<box>[1, 2, 3, 4]</box>"),
        ("tags", "<box>[[1, 2, 3, 1001]]</box>"),
        ("tags", "<box>[[1, 2, 3, 4], [1, 2, 3, 4]]</box>"),
        ("json1000", '{"bbox_2d": [1, 2, 3]}'),
        ("json1000", '{"bbox_2d": [1, 2, 3, 4.0]}'),
        ("json1000", '{"bbox_2d": [1, 2, 3, true]}'),
        ("json1000", '{"bbox_2d": [1, 2, 3, 1001]}'),
        ("json1000", '{"bbox_2d": [1, 2, 3, -4]}'),
        ("json1000", '{"bbox": [1, 2, 3, 4]}'),
        ("json1000", '{"bbox_2d": [1, 2, 3, 4], "score": 1}'),
        ("json1000", '{"bbox_2d": [1, 2, 3, 4]} yes'),
        ("json1000", "[1, 2, 3, 4]"),
        ("json1000", "[]"),
        ("json1000", "[" * 9000),
        ("json_pixels", '{"bbox_2d": [1, 2, 3, 101]}'),
        ("loc", "<loc0001><loc0002><loc0003><loc1024>"),
        ("loc", "<loc1><loc2><loc3><loc4>"),
        ("loc", "<loc0001><loc0002><loc0003><loc0004><loc0005>"),
    ],
)
def test_strict_reading_refuses(name, text):
    assert coordinate_format(name).parse_box(text, (100, 100)) is None


BOX = (156, 250, 469, 750)
BOXES = {
    "int1000": [
        '{"bbox_2d": [156, 250, 469, 750]}',
        '```json\n[\n {"bbox_2d": [\n  156,\n  250,\n  469, 750], "label": "player 23"}\n]\n```',
        "player 23 at [156, 250, 469, 750]",
        "<ref>player 23</ref><box>(156,250),(469,750)</box>",
        "<box>156 250 469 750</box>",
        "players 22 and 23, at 12:30, F-16, 640x480: [156 250 469 750]",
        "1. dog: [156, 250, 469, 750]",
        "1) 156, 250, 469, 750",
        "x1=156, y1=250, x2=469, y2=750",
        "x 156,250, 469 and 750!",
        '{"ymin": 250, "xmin": 156, "ymax": 750, "xmax": 469}',
        "left: 156, top: 250, right: 469, bottom: 750",
        "x=156, y=250, w=313, h=500",
        "[cx: 312.5, cy: 500, width: 313, height: 500]",
        "[[156, 250], [469, 750]]",
        "[[156, 250, 469, 750]]",
        "top-left (156, 250), bottom-right (469, 750)",
        "(156,250)\n(469,750)",
        '["156", "250", "469", "750"]',
        "[156.0, 250.0, 469.0, 750.0]",
        "[469, 750, 156, 250]",
        "[156, 250, 469, 750, 0.98]",
        "[[156, 250], [469, 250], [469, 750], [156, 750]]",
        "in pixels [312, 250, 1238, 750], so [156, 250, 469, 750]",
        "\uff3b156\uff0c250\uff0c469\uff0c750\uff3d",
        "\u5750\u6807\u4e3a156\u3001250\u3001469\u3001750",
        "The left edge is at 156, the top at 250, the right edge at 469 and the bottom at 750.",
        "1. Top-left corner: (156, 250)\n2. Bottom-right corner: (469, 750)",
        "top_left_x=156, top_left_y=250, bottom_right_x=469, bottom_right_y=750",
        "Its left edge is x=156 and its right edge is x=469; the top y=250, the bottom y=750.",
        "x from 156 to 469, y from 250 to 750",
        "X: [156, 469]; Y: [250, 750]",
        '{"center_x": 312.5, "center_y": 500, "width": 313, "height": 500}',
        "[[156, 250, 469, 750; 1, 2, 3, 4]]",
        "<box><156><250><469><750></box>",
    ],
    "qwen": ["<|object_ref_start|>player 23<|object_ref_end|><|box_start|>(156,250),(469,750)<|box_end|>"],
    "unit": [
        "0.156, 0.25, 0.469, 0.75.",
        "[.156, .25, .469, .75]",
        "player 1: 0.156 0.25 0.469 0.75",
        "[1.56e-1, 0.25, 0.469, 0.75]",
        "[15.6%, 25%]; [0.156, 0.25, 0.469, 0.75]",
    ],
    "loc": ["23 <loc0250><loc0156> <loc0750> <loc0469> dog ; <loc0001><loc0001><loc0002><loc0002> cat"],
}


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in BOXES.items() for text in texts])
def test_four_numbers_that_stand_together_are_the_box(name, text):
    coords = coordinate_format(name)
    size = coords.limits((1, 1))
    assert coords.find_box(text, size) == pytest.approx(BOX)
    assert around(coords.find_shapes(text, size)[0]) == pytest.approx(BOX)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("int1000", "[0.1, 0.2, 0.3, 0.4]"),
        ("int1000", "[10, 20, 30, 1001]"),
        ("int1000", "[156, 250, 469"),
        ("int1000", "player 23: [156, 250, 469"),
        ("int1000", "x1y2x3y4, 1/2/3/4, 10:20, 30:40, 1.2.3.4"),
        ("int1000", "[156px, 250px, 469px, 750px]"),
        ("int1000", "[156 px, 250 px, 469 px, 750 px]"),
        ("int1000", "23, 156, 250, 469, 750"),
        ("int1000", "[23, 156, 250, 469, 750]"),
        ("int1000", "There are 2 dogs, 3 cats, 4 cows and 5 pigs."),
        ("unit", "dog 0.98 0.156 0.25 0.469 0.75"),
        ("int1000", "<loc0010><loc0020><loc0030><loc0040>"),
        ("unit", "10 20 30 40"),
        ("unit", "[10%, 20%, 30%, 40%]"),
        ("unit", "[0.1, 0.2, 0.3, 1.6]"),
        ("loc", "[10, 20, 30, 40]"),
    ],
)
def test_lenient_reading_stays_in_the_formats_own_scale(name, text):
    assert coordinate_format(name).find_box(text, (999, 999)) is None
    assert coordinate_format(name).find_shapes(text, (999, 999)) == []


def test_what_lies_a_little_beyond_the_picture_is_moved_to_its_edge():
    assert coordinate_format("int1000").find_box("[10, -20, 30, 1000]", (999, 999)) == (10, 0, 30, 999)
    assert coordinate_format("unit").find_box("[-0.01, 0.2, 0.5, 1.02]", (100, 100)) == (0, 20, 50, 100)


TRIANGLE = ((0, 0), (50, 0), (50, 60))


@pytest.mark.parametrize(
    "text",
    [
        "[0, 0, 50, 0, 50, 60]",
        "[[0, 0], [50, 0], [50, 60]]",
        "[\n [0, 0],\n [50, 0],\n [50, 60]\n]",
        "[(0,0),(50,0),(50,60)]",
        "[0, 0; 50, 0; 50, 60]",
        '[{"x": 0, "y": 0}, {"x": 50, "y": 0}, {"x": 50, "y": 60}]',
    ],
)
@pytest.mark.parametrize(
    "list_of", ["1. {0}\n2. {0}", "{0}; {0}", "[{0},{0}]", '[{{"polygon_2d": {0}, "label": "a 3"}}, {0}]']
)
def test_shapes_are_read_one_by_one_in_any_nesting(text, list_of):
    coords = coordinate_format("int1000")
    assert coords.find_shapes(text, (999, 999)) == [TRIANGLE]
    assert coords.find_shapes(list_of.format(text), (999, 999)) == [TRIANGLE] * 2


@pytest.mark.parametrize(
    "text",
    [
        "[0, 0, 10, 10]; [0, 0, 5, 5]",
        "[[0, 0, 10, 10], [0, 0, 5, 5]]",
        "0 0 10 10\n0 0 5 5",
        "(0,0),(10,10)\n(0,0),(5,5)",
        "<box>(0,0),(10,10)</box><box>(0,0),(5,5)</box>",
        '[{"bbox_2d": [0, 0, 10, 10]}, {"bbox_2d": [0, 0, 5, 5]}]',
    ],
)
def test_lists_of_boxes_are_read_one_by_one(text):
    expected = [corners((0, 0, 10, 10)), corners((0, 0, 5, 5))]
    assert coordinate_format("int1000").find_shapes(text, (999, 999)) == expected


COMMON = re.compile(r"\[\s*" + r"\s*,\s*".join([r"(-?\d+(?:\.\d+)?)"] * 4) + r"\s*\]", re.ASCII)
AROUND = [
    "player 23 ",
    "bbox_2d: ",
    "1. dog ",
    "x1 ",
    "```json\n",
    '{"label": "7-eleven"} ',
    "[3] ",
    "(4, 5) ",
    "1/2 of ",
]


@given(
    st.lists(st.sampled_from(AROUND), max_size=4).map("".join),
    st.lists(st.integers(-50, 1000), min_size=4, max_size=4),
    st.sampled_from([",", ", ", " ,\n "]),
    st.lists(st.sampled_from(AROUND), max_size=4).map("".join),
)
def test_four_numbers_in_square_brackets_are_read_as_in_lmms_eval_and_vlmevalkit(before, values, separator, after):
    """Their common reading: the first `[a, b, c, d]`; cut at the picture's edge and put in order as VLMEvalKit does."""
    text = f"{before}[{separator.join(map(str, values))}] {after}"
    match = COMMON.search(text)
    assert match is not None
    x1, y1, x2, y2 = (min(max(float(v), 0), 1000) for v in match.groups())
    expected = min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)
    assert coordinate_format("qwen").find_box(text, (1000, 1000)) == pytest.approx(expected)


@given(st.data(), FORMAT, SIZES, st.booleans())
def test_what_is_read_strictly_is_read_leniently_with_the_same_values(data, coords, size, boxes_only):
    xs, ys = st.floats(0, size[0]), st.floats(0, size[1])
    many = data.draw(st.lists(st.lists(st.tuples(xs, ys), min_size=3, max_size=6), min_size=1, max_size=5))
    if boxes_only:
        text = coords.boxes([around(points) for points in many], size)
        assert coords.find_shapes(text, size) == [corners(box) for box in coords.parse_boxes(text, size)]
    else:
        text = coords.polygons(many, size)
        assert coords.find_shapes(text, size) == coords.parse_polygons(text, size)


def test_long_texts_are_not_read():
    coords = coordinate_format("int1000")
    text = coords.boxes([(1, 2, 3, 4)] * (LONGEST // 10), (999, 999))
    assert coords.parse_boxes(text, (999, 999)) is None


def test_unknown_formats_name_the_known():
    with pytest.raises(ValueError, match="int1000, qwen, unit, loc, json1000, json_pixels, tags"):
        coordinate_format("pixel")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("unit", "[0.16, 0.25, 0.47, 0.75]"),
        ("loc", "<loc0250><loc0160><loc0750><loc0470> player 23"),
        ("qwen", "<|object_ref_start|>player 23<|object_ref_end|><|box_start|>(160,250),(470,750)<|box_end|>"),
        ("tags", "<ref>player 23</ref><box>[[160, 250, 470, 750]]</box>"),
        ("json1000", '[{"bbox_2d": [160, 250, 470, 750], "label": "player 23"}]'),
        ("json1000", '```json\n[\n\t{"bbox_2d": [160, 250, 470, 750], "label": "a \\"3\\""}\n]\n```'),
        ("json1000", '{"bbox_2d":[160,250,470,750]}'),
        ("json_pixels", '```json\n{"bbox_2d": [160, 250, 470, 750]}\n```'),
    ],
)
def test_what_the_formats_models_write_by_themselves_is_read_strictly(name, text):
    coords = coordinate_format(name)
    size = (coords.steps or 1000,) * 2
    assert coords.parse_box(f" {text}\n", size) == pytest.approx((160, 250, 470, 750))
    assert coords.find_box(text, size) == coords.parse_box(text, size)
    assert coords.parse_boxes(text, size) == [coords.parse_box(text, size)]


# No signs and words that join two shapes, come before a name, or make it bold: leniently they are part of no name.
LABEL = st.text(
    st.characters(codec="utf-8", exclude_characters="[]{}();<>|,&*", exclude_categories=["C", "Z"]), max_size=9
).filter(lambda label: not re.match(r"and\b|[:=]", ascii_variants(label)))


@given(st.data(), FORMAT, SIZES, st.sampled_from(["box", "point", "polygon"]))
def test_labelled_shapes_come_back_in_order(data, coords, size, kind):
    count = {"box": (2, 2), "point": (1, 1), "polygon": (3, 6)}[kind]
    point = st.tuples(st.floats(0, size[0]), st.floats(0, size[1]))
    shapes = data.draw(st.lists(st.lists(point, min_size=count[0], max_size=count[1]), max_size=5))
    if kind == "box":
        shapes = [[around(points)[:2], around(points)[2:]] for points in shapes]
    items = [Item(tuple(points), data.draw(LABEL)) for points in shapes]
    text = coords.items(items, size, kind)
    read = coords.parse_items(text, size, kind)
    assert [item.label for item in read] == [item.label for item in items]
    for item, again in zip(items, read, strict=True):
        assert close([v for p in again.points for v in p], [v for p in item.points for v in p], size, coords)
    assert coords.items(read, size, kind) == text
    assert coords.find_items(text, size, kind) == [
        Item(item.points, ascii_variants(item.label).rstrip(":=")) for item in read
    ]
    # Every coordinate is a number to be measured, and nothing else is.
    numbers = [text[a:b] for a, b in coords.form.number_ranges(text)]
    bare = coords.items([Item(item.points) for item in items], size, kind)
    assert numbers == re.findall(r"(?<![\w.])[0-9.]+(?![\w.])|(?<=<loc)[0-9]{4}", bare)
    assert len(numbers) == 2 * sum(map(len, shapes))


@pytest.mark.parametrize("name", sorted(set(FORMATS) - {"json1000", "json_pixels"}))
def test_a_label_that_would_end_itself_is_refused(name):
    for label in ("a <b>", "two\nlines"):
        with pytest.raises(ValueError, match="which ends a label in this format"):
            coordinate_format(name).items([Item(((1, 2), (3, 4)), label)], (9, 9), "box")


def test_pixels_are_those_of_the_resized_picture():
    coords = coordinate_format("json_pixels").within(coordinate_format("json_pixels").frame, lambda _: (616, 476))
    assert coords.box((100, 60, 640, 480), (640, 480)) == '{"bbox_2d": [96, 60, 615, 475]}'
    assert coords.parse_box('{"bbox_2d": [77, 119, 308, 476]}', (640, 480)) == pytest.approx((80, 120, 320, 480))
    assert coords.find_box("at (77, 119), (308, 476)", (640, 480)) == pytest.approx((80, 120, 320, 480))
    assert coords.find_box("at (77, 119), (640, 480)", (640, 480)) is None  # no pixels of what the model saw

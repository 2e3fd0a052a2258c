"""Text detection: what is taught and read, micro-averages over shards, and parsers against any text."""

import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from data.text_detection.rendered import RenderedWords
from data.text_detection.schema import FEATURES
from ntil.components import Components
from ntil.config.build import build
from ntil.config.schema import Component
from ntil.preflight import compose_checked
from tasks.answers.coordinates import FORMATS, around, corners
from tasks.answers.reading_order import outline, reading_order
from tasks.base import ParseFailure
from tasks.metrics.boxes import box_iou
from tasks.text_detection import TextDetection

SOURCE = RenderedWords(rows={})
SIZE = 999  # so that int1000 writes pixels as they are


def row(boxes, ignore=None, name="r"):
    polygons = [[list(p) for p in corners(b)] for b in boxes]
    ignore = ignore or [False] * len(boxes)
    return {"id": name, "width": SIZE, "height": SIZE, "polygons": polygons, "ignore": ignore}


BOXES = st.lists(
    st.tuples(*[st.integers(0, 900)] * 2, *[st.integers(5, 99)] * 2).map(
        lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])
    ),
    max_size=6,
)
TASKS = [TextDetection(SOURCE, shape=shape, coords=form) for shape in ("box", "polygon") for form in FORMATS.values()]


def test_reading_order_is_lines_from_top_to_bottom_then_left_to_right():
    boxes = [(300, 105, 400, 140), (10, 300, 50, 330), (20, 100, 90, 130), (200, 90, 280, 150), (500, 310, 600, 350)]
    assert reading_order([corners(b) for b in boxes]) == [2, 3, 0, 1, 4]
    assert reading_order([]) == []


@given(BOXES, st.randoms())
def test_reading_order_does_not_depend_on_the_annotators_order(boxes, random):
    boxes = sorted(set(boxes))
    ordered = [boxes[i] for i in reading_order([corners(b) for b in boxes])]
    random.shuffle(boxes)
    assert [boxes[i] for i in reading_order([corners(b) for b in boxes])] == ordered


@given(
    st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99)), min_size=3, max_size=8, unique=True), st.integers(0, 7)
)
def test_outlines_begin_top_left_and_go_clockwise(points, start):
    turned = [*points[start % len(points) :], *points[: start % len(points)]]
    assert set(outline(points)) == set(points)
    area = sum(x1 * y2 - x2 * y1 for (x1, y1), (x2, y2) in zip(points, [*points[1:], points[0]], strict=True))
    if area:  # an outline without area has no way round
        assert outline(turned) == outline(points) == outline(points[::-1])
    assert sum(outline(points)[0]) == min(map(sum, points))


def test_the_answer_leaves_don_t_care_regions_out_and_is_cut_at_the_limit():
    boxes = [(0, 0, 50, 20), (100, 0, 150, 20), (0, 100, 50, 120), (200, 200, 220, 220)]
    shown = row(boxes, [False, True, False, False])
    assert TextDetection(SOURCE, shape="box").answer(shown) == "[0, 0, 50, 20]; [0, 100, 50, 120]; [200, 200, 220, 220]"
    task = TextDetection(SOURCE, shape="polygon", max_instances=2)
    assert task.answer(shown) == "[0, 0, 50, 0, 50, 20, 0, 20]; [0, 100, 50, 100, 50, 120, 0, 120]"
    record = task.record(task.answer(shown), shown)
    # The truth isn't cut: what the limit leaves out is missed, and said.
    assert (record["scores"]["sum_true"], record["scores"]["sum_matched"], record["scores"]["sum_untaught"]) == (
        3,
        2,
        1,
    )
    assert task.summarize([record])["untaught"] == 1
    assert task.summarize([record])["recall"] == pytest.approx(2 / 3)
    assert TextDetection(SOURCE).answer(row([])) == "none"


def test_cut_answers_are_announced_and_counted():
    rows = Dataset.from_list(
        [
            {**row([(0, 0, 9, 9)] * n), "image": None, "texts": [""] * n, "split": "train", "level": 0}
            for n in (1, 3, 5)
        ],
        features=FEATURES,
    )
    with pytest.warns(UserWarning, match="cuts the answers of 2 of 3 pictures; 4 of 9 texts are not taught"):
        TextDetection(SOURCE, max_instances=2)._warn_of_cuts(rows, "train")


@given(BOXES)
@settings(max_examples=50, deadline=None)
def test_the_taught_answer_finds_everything(boxes):
    boxes = [b for i, b in enumerate(boxes) if all(box_iou(b, other) == 0 for other in boxes[:i])]
    for task in TASKS:
        record = task.record(task.answer(row(boxes)), row(boxes))
        assert record["failure"] is None
        for scores in (record["scores"], record["lenient"]):
            assert scores["acc_0.5"] == scores["hmean"] == 1
            assert scores["sum_matched"] == scores["sum_found"] == scores["sum_true"] == len(boxes)


NUMBERS = st.lists(st.integers(-5, 1300), max_size=30).map(lambda v: ", ".join(map(str, v)))
PIECES = st.sampled_from(
    [
        "[",
        "]",
        "; ",
        ", ",
        "none",
        "<|box_start|>",
        "<|quad_end|>",
        "(",
        ")",
        "<loc0512>",
        "<loc9999>",
        "0.5",
        "1e9",
        "\n",
    ]
)
TEXTS = st.text(max_size=60) | st.lists(PIECES | NUMBERS | st.integers(0, 1200).map(str), max_size=25).map("".join)


@given(TEXTS, BOXES, st.data())
@settings(max_examples=300, deadline=None)
def test_no_text_crashes_a_parser_or_scores_above_what_it_says(text, boxes, data):
    ignore = data.draw(st.lists(st.booleans(), min_size=len(boxes), max_size=len(boxes)))
    shown = row(boxes, ignore)
    for task in TASKS:
        record = task.record(text, shown)
        for scores, read in (
            (record["scores"], task.parse(text, shown)),
            (record["lenient"], task.parse_lenient(text, shown)),
        ):
            assert all(0 <= scores[name] <= 1 for name in ("acc_0.5", "precision", "recall", "hmean"))
            if isinstance(read, ParseFailure):
                assert scores["hmean"] == scores["acc_0.5"] == scores["sum_found"] == scores["sum_matched"] == 0
                continue
            # At most as many texts are found as shapes lie near one.
            near = sum(any(_touch(around(shape), box) for box in boxes) for shape in read)
            assert scores["sum_matched"] <= min(near, scores["sum_true"])
            assert scores["sum_found"] <= len(read)


def _touch(first, second):
    return box_iou(first, second) > 0 or any(a == b for a, b in zip(first, second, strict=True))


def test_strict_and_lenient_readings():
    task, shown = TextDetection(SOURCE, shape="box"), row([(10, 20, 110, 60), (10, 100, 110, 140)])
    right = "[10, 20, 110, 60]; [10, 100, 110, 140]"
    assert task.record(f" {right}\n", shown)["scores"]["acc_0.5"] == 1
    for text in (
        "[10, 20, 110, 60]; ",
        "[110, 60, 10, 20]",
        "[10,20,110,60]",
        f"Text: {right}",
        "",
        "None",
        "[1, 2, 3]",
    ):
        assert isinstance(task.parse(text, shown), ParseFailure), text
    for text in (f"Text: {right}", "(10,20,110,60); (10,100,110,140)", "[10, 20, 110, 60]\n[10, 100, 110, 140]"):
        record = task.record(text, shown)
        assert record["failure"]
        assert (record["scores"]["acc_0.5"], record["lenient"]["acc_0.5"]) == (0, 1), text
    assert task.parse("none", shown) == task.parse_lenient("None.", shown) == []
    assert isinstance(task.parse_lenient("no text here", shown), ParseFailure)
    quad = TextDetection(SOURCE, shape="polygon").record("[10, 20, 110, 20, 110, 60, 10, 60]", shown)
    assert (quad["scores"]["recall"], quad["scores"]["precision"]) == (0.5, 1)


def test_pictures_without_text_count_as_in_the_official_scripts():
    task = TextDetection(SOURCE, shape="box")
    empty = row([(0, 0, 50, 20)], [True])
    for text, precision, accuracy in (("none", 1, 1), ("[1, 1, 49, 19]", 1, 1), ("[500, 500, 600, 600]", 0, 0)):
        scores = task.record(text, empty)["scores"]
        assert (scores["recall"], scores["precision"], scores["acc_0.5"]) == (1, precision, accuracy), text
    failed = task.record("nothing", empty)["scores"]
    assert (failed["recall"], failed["precision"], failed["acc_0.5"]) == (0, 0, 0)


@given(st.lists(st.tuples(BOXES, BOXES), min_size=1, max_size=6), st.integers(0, 6))
@settings(max_examples=60, deadline=None)
def test_figures_are_micro_averages_however_the_rows_are_sharded(pairs, cut):
    task = TextDetection(SOURCE, shape="box", deteval="icdar2013", tightness=True)
    texts = [FORMATS["int1000"].boxes(found, (SIZE, SIZE)) for _, found in pairs]
    records = [task.record(text, row(true)) for text, (true, _) in zip(texts, pairs, strict=True)]
    whole, parts = task.sum_scores(records), [task.sum_scores(records[:cut]), task.sum_scores(records[cut:])]
    keys = {key for part in parts for key in part}
    assert {k: sum(part.get(k, 0) for part in parts) for k in keys} == pytest.approx(whole)
    metrics = task.metrics_from_sums(whole)
    true, found = (sum(len(pair[i]) for pair in pairs) for i in (0, 1))
    matched = sum(r["scores"]["sum_matched"] for r in records)
    assert metrics["recall"] == pytest.approx(matched / true if true else 0)
    assert metrics["precision"] == pytest.approx(matched / found if found else 0)
    assert metrics["acc_0.5"] == pytest.approx(matched / (true + found - matched) if true + found else 0)
    assert (metrics["examples"], metrics["true"], metrics["found"]) == (len(pairs), true, found)
    assert metrics["parse_failure_rate"] == 0
    assert {f"lenient_{k}" for k in ("acc_0.5", "hmean", "deteval_hmean", "tiou_hmean")} <= metrics.keys()


def test_a_failure_is_no_detections_and_counted():
    task = TextDetection(SOURCE, shape="box")
    shown = row([(0, 0, 50, 20)])
    metrics = task.summarize([task.record("[0, 0, 50, 20]", shown), task.record("nonsense", shown)])
    assert metrics["parse_failure_rate"] == 0.5
    assert (metrics["recall"], metrics["precision"], metrics["true"], metrics["found"]) == (0.5, 1, 2, 1)


RENDERED = {"target": "data.text_detection.rendered:RenderedWords", "rows": {}}
RELEASE = {"target": "data.text_detection.release:TextRelease", "format": "icdar2015"}
PATHS = {"truth": {"test": "gt"}, "images": {"test": "img"}}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"source": {"target": "data.text_detection.release:Web"}}, r"task\.source\.target=.*'Web'"),
        ({"source": RELEASE}, r"set task\.source\.truth="),
        ({"source": {**RELEASE, "truth": {}, "images": {}}}, r"task\.source\.truth"),
        ({"source": {**RELEASE, **PATHS, "format": "coco"}}, r"task\.source\.format"),
        ({"source": RENDERED, "shape": "circle"}, r"task\.shape"),
        ({"source": RENDERED, "deteval": "coco"}, r"task\.deteval"),
        ({"source": RENDERED, "max_instances": 0}, r"task\.max_instances"),
        ({"source": {**RELEASE, **PATHS, "holdout": 0.9}}, r"task\.source\.holdout"),
    ],
)
def test_wrong_options_name_the_key(options, message):
    with pytest.raises(ValueError, match=message):
        build("task", Component("text", "tasks.text_detection:TextDetection", options))


def test_a_split_without_a_count_names_the_key():
    with pytest.raises(ValueError, match=r"task\.source\.rows\.train"):
        TextDetection(SOURCE).rows("train")


@pytest.mark.parametrize("model", ["qwen2_vl_nano", "yi_vl_nano"])
def test_the_defaults_can_write_what_rich_words_teach(model):
    words = ["task=text_detection_nano", "task.source.difficulty=rich", "task.source.rows.train=24", f"model={model}"]
    components = Components.build(compose_checked(words, on_this_machine=False))
    rows = list(components.task.rows("train"))
    assert max(len(row["polygons"]) for row in rows) >= 4
    lengths = [len(components._answer_ids(row)) for row in rows]
    assert max(lengths) <= components.task.max_new_tokens

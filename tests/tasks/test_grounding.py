"""Grounding is scored as the field scores it: against pycocotools' IoU and real detections."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask

from data.grounding.rendered import RenderedScenes
from data.grounding.schema import xyxy_from_xywh
from ntil.config.build import build
from ntil.config.schema import Component
from tasks.answers.coordinates import FORMATS
from tasks.base import ParseFailure
from tasks.grounding import THRESHOLDS, Grounding
from tasks.metrics.boxes import box_iou

SOURCE = RenderedScenes(rows={"test": 1})
SIDE = st.floats(0.5, 300)
XYWH = st.tuples(st.floats(0, 300), st.floats(0, 300), SIDE, SIDE)


def detections(shared):
    return json.loads((shared / "assets/data/refcoco/testA_refcoco_unc_dets.json").read_text())


def row(box, size=(640, 480), **more):
    return {"id": "r", "width": size[0], "height": size[1], "expression": "it", "box": box, "split": "val", **more}


@given(XYWH, XYWH)
def test_iou_is_that_of_pycocotools(a, b):
    expected = float(mask.iou(np.array([a]), np.array([b]), [0])[0, 0])
    assert box_iou(xyxy_from_xywh(a), xyxy_from_xywh(b)) == pytest.approx(expected, abs=1e-9)


def refer_iou(a, b):
    """By whole pixels, as the REFER evaluation counts them: the last pixel of a box is x + w - 1."""
    across = min(a[0] + a[2] - 1, b[0] + b[2] - 1) - max(a[0], b[0])
    down = min(a[1] + a[3] - 1, b[1] + b[3] - 1) - max(a[1], b[1])
    shared = (across + 1) * (down + 1) if across > 0 and down > 0 else 0
    return shared / (a[2] * a[3] + b[2] * b[3] - shared)


def test_real_boxes_and_proposals_score_as_in_pycocotools_and_refer(shared):
    """Every Faster R-CNN proposal against its expression's box, 50 expressions of RefCOCO testA."""
    items = detections(shared)
    pairs = [(p, item["gt_box"]) for item in items for p in item["pred_boxes"]]
    ours = np.array([box_iou(xyxy_from_xywh(p), xyxy_from_xywh(g)) for p, g in pairs])
    coco = np.array([mask.iou(np.array([p]), np.array([g]), [0])[0, 0] for p, g in pairs])
    refer = np.array([refer_iou(p, g) for p, g in pairs])
    assert len(items) == 50
    assert np.abs(ours - coco).max() < 1e-9
    for threshold in THRESHOLDS:
        assert ((ours >= threshold) == (coco >= threshold)).all()
        assert ((ours >= threshold) == (refer >= threshold)).all()


def test_metrics_of_real_proposals(shared):
    """The first, and the best, proposal of every expression as predictions; expected figures from pycocotools alone."""
    items = detections(shared)
    coco = [mask.iou(np.array(i["pred_boxes"]), np.array([i["gt_box"]]), [0])[:, 0] for i in items]
    task = Grounding(SOURCE)
    for choose in (lambda overlaps: 0, np.argmax):
        best = np.array([overlaps[choose(overlaps)] for overlaps in coco])
        records = []
        for item, overlaps in zip(items, coco, strict=True):
            x1, y1, x2, y2 = xyxy_from_xywh(item["pred_boxes"][choose(overlaps)])
            scores = task.score((x1, y1, x2, y2), row(xyxy_from_xywh(item["gt_box"])))
            records.append({"scores": scores, "lenient": scores, "failure": None, "groups": ["testA"]})
        metrics = task.summarize(records)
        for threshold in THRESHOLDS:
            assert metrics[f"acc_{threshold}"] == pytest.approx((best >= threshold).mean())
            assert metrics[f"testA/acc_{threshold}"] == metrics[f"split_average/acc_{threshold}"]
        assert metrics["iou"] == pytest.approx(best.mean())


def test_half_is_enough():
    task = Grounding(SOURCE)
    assert task.score((0.0, 0.0, 10.0, 5.0), row([0.0, 0.0, 10.0, 10.0]))["acc_0.5"] == 1
    assert task.score((0.0, 0.0, 10.0, 4.999), row([0.0, 0.0, 10.0, 10.0]))["acc_0.5"] == 0
    assert box_iou((0, 0, 1, 1), (1, 0, 2, 1)) == 0
    assert box_iou((3, 3, 3, 3), (3, 3, 3, 3)) == 0


def test_splits_count_alike_in_their_average_and_by_size_in_the_whole():
    task = Grounding(SOURCE)
    good, bad = task.answer(row([10, 10, 200, 200])), "[0, 0, 1, 1]"
    texts = [("testA", good), ("testA", bad), ("testA", bad), ("testB", good)]
    records = [task.record(text, row([10, 10, 200, 200], split=split)) for split, text in texts]
    metrics = task.summarize(records)
    assert metrics["acc_0.5"] == 0.5
    assert metrics["testA/acc_0.5"] == pytest.approx(1 / 3)
    assert metrics["testB/acc_0.5"] == 1
    assert metrics["split_average/acc_0.5"] == pytest.approx(2 / 3)
    assert (metrics["testA/examples"], metrics["testB/examples"], metrics["examples"]) == (3, 1, 4)


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_failures_cost_everything_and_lenient_reading_is_reported_beside(name):
    task = Grounding(SOURCE, coords=FORMATS[name])
    record = task.record("nothing there", row([10, 10, 200, 200]))
    assert record["failure"]
    assert set(record["scores"].values()) == set(record["lenient"].values()) == {0.0}
    record = task.record(f"There: {task.answer(row([10, 10, 200, 200]))}!", row([10, 10, 200, 200]))
    assert record["failure"]
    assert record["scores"]["iou"] == 0
    assert record["lenient"]["iou"] > 0.97


def test_sums_of_shards_are_the_sums_of_all():
    task = Grounding(SOURCE)
    rng = np.random.default_rng(0)
    records = []
    for number in range(60):
        box = np.sort(rng.uniform(0, 400, (2, 2)), axis=0).flatten().tolist()
        text = str(rng.choice([task.answer(row(box)), "[1, 2, 3, 4]", "no"]))
        records.append(task.record(text, row(box, split=f"test{'AB'[number % 2]}")))
    sums: dict[str, float] = {}
    for shard in range(3):
        for key, value in task.sum_scores(records[shard::3]).items():
            sums[key] = sums.get(key, 0.0) + value
    assert task.metrics_from_sums(sums) == pytest.approx(task.summarize(records))


RENDERED = {"target": "data.grounding.rendered:RenderedScenes", "rows": {"test": 1}}
TABLE = {"target": "data.grounding.table:ExpressionTable"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"source": {"target": "data.grounding.refcoco:Refers"}}, r"task\.source\.target=.* no Source 'Refers'"),
        ({"source": {"target": "data.grounding.refcoco:RefCOCO"}}, r"set task\.source\.folder="),
        ({"source": {"target": "data.grounding.categories:CategoryBoxes"}}, r"set task\.source\.folder="),
        ({"source": TABLE}, r"task\.source\.files="),
        ({"source": TABLE | {"files": {"train": None}}}, r"task\.source\.files\.<split>="),
        ({"source": TABLE | {"files": {"train": "x"}, "box_format": "cxcywh"}}, r"task\.source\.box_format"),
        ({"source": RENDERED, "question": "Where?"}, r"task\.question"),
        ({"source": TABLE | {"files": {"train": "x"}, "on_error": "ignore"}}, r"task\.source\.on_error"),
    ],
)
def test_wrong_options(options, message):
    assert build("task", Component("grounding", "tasks.grounding:Grounding", {"source": RENDERED})).splits == ("test",)
    with pytest.raises(ValueError, match=message):
        build("task", Component("grounding", "tasks.grounding:Grounding", options))


def test_drawing_shows_truth_and_prediction():
    task = Grounding(SOURCE)

    def has(picture, red):
        colours = [c for _, c in picture.crop((0, 0, 192, 192)).getcolors(1 << 16)]
        return any((r > 200 and g < 120 and b < 120) if red else (g > 200 and r < 60) for r, g, b in colours)

    shown = row([10.0, 10.0, 50.0, 50.0], size=(100, 100), image=Image.new("RGB", (100, 100), "white"))
    wrong, failed = task.draw(shown, (70.0, 70.0, 90.0, 90.0)), task.draw(shown, ParseFailure("no box"))
    assert (has(wrong, red=False), has(wrong, red=True)) == (True, True)
    assert (has(failed, red=False), has(failed, red=True)) == (True, False)

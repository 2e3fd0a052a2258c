"""Detection protocols against the official scripts' figures, brute force, and cases worked out by hand."""

import json
from pathlib import Path

import numpy as np
import pytest
import shapely
from hypothesis import example, given, settings
from hypothesis import strategies as st

from data.text_detection.ground_truth import read_found, read_truth
from tasks.answers.coordinates import corners
from tasks.metrics.detection import TrueText, buffered, deteval, figures, match, shapes, shared_areas
from tasks.metrics.detection_cli import main, score

POINTS = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=3, max_size=9)

BOXES = st.lists(st.tuples(*[st.integers(0, 30)] * 4), max_size=6)


@pytest.fixture(scope="module")
def scene_text(shared) -> Path:
    return shared / "assets" / "data" / "scene_text"


@pytest.fixture(scope="module")
def expected(scene_text) -> dict:
    return json.loads((scene_text / "expected_scores.json").read_text())


def box(x1, y1, x2, y2, ignore=False):
    return TrueText(corners((x1, y1, x2, y2)), ignore)


def test_icdar2015_gives_the_official_scripts_figures(scene_text, expected, capsys):
    zips = scene_text / "tiou_zips"
    given = [zips / "icdar2015_test_gt.zip", zips / "icdar2015_pixellink4s_det.zip"]
    assert main([*map(str, given), "--format", "icdar2015"]) == 0
    values, wanted = json.loads(capsys.readouterr().out), expected["icdar2015_test/pixellink4s"]
    assert values["pictures"] == 500
    assert values["true"] == wanted["num_gt_care"]
    for name in ("recall", "precision", "hmean"):
        assert values[name] == pytest.approx(wanted[name], abs=1e-12)
    for prefix, kind in (("siou_", "SIoU"), ("tiou_", "TIoU")):
        for name, letter in (("recall", "r"), ("precision", "p"), ("hmean", "h")):
            assert round(values[prefix + name], 3) == wanted[kind][letter]


def test_total_text_gives_the_official_scripts_figures(scene_text, expected):
    zips = scene_text / "tiou_zips"
    truth = read_truth(zips / "total-text-gt.zip", "totaltext")
    found = read_found(zips / "total-text_baseline.zip", "totaltext")
    wanted = expected["totaltext_test/poly_frcnn3"]
    assert sum(len(a.instances) for a in found.values()) == wanted["num_det"]
    values = score(truth, found, "totaltext")
    assert values["true"] == wanted["num_gt"]
    for name, letter in (("recall", "r"), ("precision", "p"), ("hmean", "h")):
        assert round(values[name], 4) == wanted[name]
        assert round(values[f"tiou_{name}"], 3) == wanted["TIoU"][letter]
    for thresholds, key in (((0.7, 0.6), "tr=0.7 tp=0.6"), ((0.8, 0.4), "tr=0.8 tp=0.4")):
        values = score(truth, found, "totaltext", thresholds)
        wanted = expected[f"totaltext_test/poly_frcnn3/DetEval {key}"]
        for name in ("recall", "precision"):
            assert values[f"deteval_{name}"] == pytest.approx(wanted[name], abs=1e-12)


def test_overlaps_are_those_that_total_text_publishes(scene_text):
    # One line per annotation and detection that meet: file, shared part of the detection, and of the annotation.
    folder = scene_text / "totaltext_eval" / "Examples"
    truth, found = read_truth(folder / "Groundtruth", "totaltext"), read_found(folder / "Prediction", "totaltext")
    overlaps = []
    for key, annotated in truth.items():
        true = shapes([i.points for i in annotated.instances], buffered)
        detected = shapes([i.points for i in found[key].instances], buffered)
        shared = shared_areas(true.region, detected.region)
        for i, j in np.argwhere(shared > 0):
            overlaps.append((f"poly_gt_img{key}.mat", shared[i, j] / detected.area[j], shared[i, j] / true.area[i]))
    published = [line.split() for line in (folder / "Result.txt").read_text().splitlines() if line.strip()]
    assert len(published) == len(overlaps) == 30
    for (name, tau, sigma), own in zip(sorted(published), sorted(overlaps), strict=True):
        assert name == own[0]
        assert own[1:] == pytest.approx((float(tau), float(sigma)), abs=1e-12)


@given(POINTS, POINTS)
@settings(max_examples=150, deadline=None)
@example([(0, 0), (0, 11), (3, 0)], [(0, 0), (2, 0), (0, 0), (0, 13), (2, 0), (0, 13)])
def test_shared_area_follows_the_even_odd_rule(first, second):
    # Twenty-five sample points per unit square, each decided by counting the edges to its right.
    ys, xs = (np.mgrid[0:100, 0:100] + 0.5) / 5 + 1e-3
    inside = _even_odd(first, xs, ys) & _even_odd(second, xs, ys)
    a, b = shapes([first]), shapes([second])
    assert shared_areas(a.region, b.region)[0, 0] == pytest.approx(inside.sum() / 25, abs=4)
    assert a.area[0] == pytest.approx(abs(_shoelace(first)), abs=1e-9)


def _even_odd(points, xs, ys):
    inside = np.zeros_like(xs, dtype=bool)
    for (x1, y1), (x2, y2) in zip(points, [*points[1:], points[0]], strict=True):
        if y1 != y2:
            inside ^= ((y1 > ys) != (y2 > ys)) & (xs < x1 + (ys - y1) * (x2 - x1) / (y2 - y1))
    return inside


def _shoelace(points):
    return sum(x1 * y2 - x2 * y1 for (x1, y1), (x2, y2) in zip(points, [*points[1:], points[0]], strict=True)) / 2


def test_a_bow_tie_matches_by_the_official_areas():
    # It covers half of the square, its shoelace area is 0: the scripts' union is 100 + 0 - 50, their IoU 50 / 50.
    bow_tie = [(0, 0), (10, 10), (10, 0), (0, 10)]
    sums = match([box(0, 0, 10, 10)], [bow_tie])
    assert (sums["matched"], sums["siou"]) == (1, 1)
    assert (sums["tiou_recall"], sums["tiou_precision"]) == (0.5, 0)
    sums = match([box(0, 0, 40, 10)], [bow_tie])
    assert (sums["found"], sums["matched"]) == (1, 0)
    sums = match([box(0, 2, 10, 8)], [bow_tie])  # shares more than the union comes to, and counts once all the same
    assert (sums["matched"], sums["siou"]) == (1, 1)


def test_don_t_care_regions_neither_help_nor_hurt():
    truth = [box(0, 0, 10, 10), box(20, 0, 30, 10, ignore=True)]
    right, on_ignored, half_on_ignored = corners((0, 0, 10, 10)), corners((21, 1, 29, 9)), corners((25, 0, 35, 10))
    assert match(truth, [right, on_ignored]) == match(truth, [right])
    sums = match(truth, [half_on_ignored])
    assert (sums["true"], sums["found"], sums["matched"]) == (1, 1, 0)  # exactly half isn't more than half
    assert figures(match(truth, [right]))["acc_0.5"] == 1


def test_figures_of_a_case_by_hand():
    truth = [box(0, 0, 10, 10), box(20, 0, 30, 10), box(40, 0, 50, 10)]
    found = [corners((0, 0, 10, 8)), corners((0, 0, 10, 10)), corners((20, 0, 30, 5)), corners((44, 0, 54, 10))]
    values = figures(match(truth, found))
    # The first detection takes the first text though the second fits better; IoU of exactly 0.5 is none.
    assert values["recall"] == pytest.approx(1 / 3)
    assert values["precision"] == pytest.approx(1 / 4)
    assert values["acc_0.5"] == pytest.approx(1 / 6)
    assert values["siou_recall"] == pytest.approx(0.8 / 3)
    assert values["tiou_recall"] == pytest.approx(0.8 * 0.8 / 3)  # a fifth of the text is cut off
    assert values["tiou_precision"] == pytest.approx(0.8 / 4)
    covering = match([box(0, 0, 10, 10), box(10, 0, 14, 10)], [corners((0, 0, 14, 10))])
    assert covering["tiou_precision"] == pytest.approx(10 / 14 * (1 - 4 / 14))  # other text is covered too


def test_deteval_of_icdar2013_by_hand():
    wide = [box(0, 0, 99, 9)]
    assert _points(wide, [(0, 0, 99, 9)]) == (1, 1)
    assert _points(wide, [(0, 0, 78, 9)]) == (0, 0)  # 79 of 100 columns
    assert _points(wide, [(0, 0, 49, 9), (50, 0, 99, 9)]) == pytest.approx((0.8, 1.6))  # split
    assert _points([box(0, 0, 49, 9), box(50, 0, 99, 9)], [(0, 0, 99, 9)]) == (2, 1)  # merged
    assert _points([*wide, box(0, 50, 99, 59, ignore=True)], [(0, 0, 99, 9), (0, 50, 99, 59)]) == (1, 1)
    sums = deteval([*wide, box(0, 50, 99, 59, ignore=True)], [corners((0, 50, 99, 59))], "icdar2013")
    assert (sums["true"], sums["found"]) == (1, 0)


def test_deteval_of_total_text_by_hand():
    wide = [box(0, 0, 100, 10)]
    assert _points(wide, [(0, 0, 100, 10)], "totaltext") == (1, 1)
    assert _points(wide, [(0, 0, 70, 10)], "totaltext") == (0, 0)  # 0.70 isn't above 0.7
    assert _points(wide, [(0, 0, 50, 10), (50, 0, 100, 10)], "totaltext") == pytest.approx((0.8, 1.6))
    merged = _points([box(0, 0, 50, 10), box(50, 0, 100, 10)], [(0, 0, 100, 10)], "totaltext")
    assert merged == pytest.approx((1.6, 0.8))


def _points(truth, boxes, version="icdar2013"):
    sums = deteval(truth, [corners(b) for b in boxes], version)
    return sums["recall"], sums["precision"]


@given(st.lists(st.builds(TrueText, POINTS, st.booleans()), max_size=5), st.lists(POINTS, max_size=5))
@settings(max_examples=150, deadline=None)
def test_no_shapes_give_more_than_there_is(truth, found):
    sums = match(truth, found)
    assert 0 <= sums["matched"] <= min(sums["true"], sums["found"])
    assert sums["true"] == sum(not t.ignore for t in truth)
    assert sums["found"] <= len(found)
    assert 0 <= sums["tiou_recall"] <= sums["siou"] + 1e-12 <= sums["matched"] + 2e-12
    assert 0 <= sums["tiou_precision"] <= sums["siou"] + 1e-12
    assert all(0 <= value <= 1 for value in figures(sums).values())
    for version in ("icdar2013", "totaltext"):
        given_points = deteval(truth, found, version)
        assert 0 <= given_points["recall"] <= given_points["true"] + 1e-9
        assert 0 <= given_points["precision"] <= given_points["found"] + 1e-9


@given(BOXES, BOXES)
@settings(max_examples=100, deadline=None)
def test_matching_of_boxes_against_plain_arithmetic(true, found):
    true, found = ([(min(a, c), min(b, d), max(a, c) + 1, max(b, d) + 1) for a, b, c, d in s] for s in (true, found))
    free, matched = set(range(len(found))), 0
    for a in true:
        for j in sorted(free):
            b = found[j]
            shared = max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
            if 2 * shared > (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared:
                free.remove(j)
                matched += 1
                break
    assert match([box(*b) for b in true], [corners(b) for b in found])["matched"] == matched


def test_result_files_may_be_missing_but_not_unknown(tmp_path, capsys):
    truth, found = tmp_path / "gt", tmp_path / "res"
    truth.mkdir()
    found.mkdir()
    (truth / "gt_img_1.txt").write_bytes(b"\xef\xbb\xbf0,0,10,0,10,10,0,10,A, B\r\n")
    (truth / "gt_img_2.txt").write_text("0,0,10,0,10,10,0,10,C\n")
    (truth / "gt_img_3.txt").write_text("")
    (found / "res_img_1.txt").write_text("0,0,10,0,10,10,0,10\n\n")
    assert main([str(truth), str(found), "--format", "icdar2015"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert (values["recall"], values["precision"], values["true"]) == (0.5, 1, 2)
    (found / "res_img_7.txt").write_text("")
    assert main([str(truth), str(found), "--format", "icdar2015"]) == 2
    assert "no picture 7" in capsys.readouterr().err


def test_regions_without_area_are_counted_and_match_nothing():
    line = [(0, 0), (5, 5), (10, 10)]
    sums = match([box(0, 0, 10, 10)], [line, [(1, 1)], [(3, 3), (3, 3), (3, 3)]])
    assert (sums["found"], sums["matched"]) == (3, 0)
    assert shapely.Polygon(line).area == 0

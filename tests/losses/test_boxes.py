"""Losses on boxes: against sums over all boxes, a transcription of CoordExp, and the promises of every loss."""

import math
from dataclasses import replace

import pytest
import torch

from ntil import NumberSpans, NumberVocab
from ntil.config.build import build
from ntil.config.compose import compose
from ntil.losses import CoordExp, ExpectedIoU, NumberLoss
from ntil.losses.boxes import complete_iou
from ntil.losses.overlap import expected_overlap, overlap_table
from ntil.losses.step import StepInfo
from ntil.numbers.shapes import TokenBox, with_shapes
from tests.support.chosen import slow_but
from tests.support.losses import loss_configs

BINS = NumberVocab(range(5, 29), one_place=True)  # 24 bins of a picture 23 wide
QUATERNARY = NumberVocab([6, 2, 9, 4], point_ids=[11])
DIGITS = NumberVocab([7, 3, 5, 11, 2, 13, 17, 19, 23, 29], point_ids=[4])
SIZE = 31


def bins(boxes, samples=1):
    """Labels [samples, T] of boxes on bins, one token a coordinate, as many boxes a sample, and their spans."""
    labels = torch.tensor(boxes).reshape(samples, -1) + 5
    positions = torch.arange(labels.numel()).reshape(-1, 4).tolist()
    spans = NumberSpans.find(labels, BINS)
    return labels, with_shapes(spans, [TokenBox(tuple(p), tuple(p), (23.0, 23.0)) for p in positions])


def written(text, vocab, extent):
    """Labels [1, T] and spans of one box written as digits with a comma after each number."""
    symbols = {".": vocab.point_ids[0] if vocab.point_ids else 0}
    labels = torch.tensor([[symbols.get(c, vocab.digit_ids[int(c)] if c.isdigit() else 0) for c in text]])
    first, last, start = [], [], 0
    for number in text.split(","):
        first.append(start)
        last.append(start + len(number) - 1)
        start += len(number) + 1
    box = TokenBox(tuple(first), tuple(last), extent)
    return labels, with_shapes(NumberSpans.find(labels, vocab), [box])


def noise(labels, seed=0, scale=2.0, size=SIZE):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(*labels.shape, size, generator=generator, dtype=torch.float64)


def summed_overlap(values, chances, box):
    """E[IoU] as the sum over all boxes of four lists of values and probabilities."""
    total = 0.0
    axes = []
    for low, high in ((0, 2), (1, 3)):
        a, b = values[low][:, None], values[high][None]
        shared = (b.clamp(max=box[high]) - a.clamp(min=box[low])).clamp(min=0)
        axes.append((chances[low][:, None] * chances[high][None], (b - a).clamp(min=0), shared))
    (px, wide, across), (py, high, down) = ([t.reshape(-1) for t in axis] for axis in axes)
    area = (box[2] - box[0]) * (box[3] - box[1])
    shared = across[:, None] * down[None]
    total = shared / (wide[:, None] * high[None] + area - shared)
    return px @ total @ py


BOXES = {"middle": [4, 6, 15, 12], "small": [10, 11, 12, 14], "all": [0, 0, 23, 23], "corner": [20, 0, 23, 3]}


@pytest.mark.parametrize("box", BOXES.values(), ids=BOXES)
@pytest.mark.parametrize("kind", ["flat", "rough", "near"])
def test_expected_iou_on_bins_is_the_sum_over_all_boxes(box, kind):
    labels, spans = bins([box])
    logits = noise(labels, scale={"flat": 0.0, "rough": 3.0, "near": 0.5}[kind])
    values = torch.arange(24, dtype=torch.float64)
    if kind == "near":
        logits[0, :, 5:29] -= (values - torch.tensor(box)[:, None] - 1).square() / 4
    z = logits.requires_grad_()
    p = z[0][:, 5:29].softmax(-1)
    expected = 1 - summed_overlap([values] * 4, p, box)
    found = ExpectedIoU(BINS).parts(z, labels, spans).terms["iou"][0]
    assert found.item() == pytest.approx(expected.item(), abs=1e-3)
    (one,), (two,) = torch.autograd.grad(expected, z), torch.autograd.grad(found, z)
    torch.testing.assert_close(two, one, atol=1e-3, rtol=0)
    fine = ExpectedIoU(BINS, nodes=32).parts(z, labels, spans).terms["iou"][0]
    assert fine.item() == pytest.approx(expected.item(), abs=5e-4)


WIDE = NumberVocab(range(1024), one_place=True)


TRUE = [(300, 300, 620, 560), (500, 500, 520, 516), (100, 100, 900, 900), (500, 500, 505, 504)]


@pytest.mark.parametrize("true", slow_but(TRUE[:1], TRUE))
@pytest.mark.parametrize(("nodes", "worst", "average", "above"), [(12, 0.02, 6e-4, 0.1), (32, 0.008, 1e-4, 0.01)])
def test_expected_iou_of_sharp_boxes_is_off_by_the_interpolation(true, nodes, worst, average, above):
    """Bounds as documented; a box is sharp where each coordinate has one value."""
    target = torch.tensor(true)
    noise = torch.randn(1000, 4, generator=torch.Generator().manual_seed(0)) * (target[2] - target[0]) * 0.6
    boxes = (target + noise.round().long()).clamp(0, 1023)
    boxes = boxes[(boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])]
    spans = NumberSpans.find(target.repeat(len(boxes))[None], WIDE)
    firsts = [tuple(range(4 * i, 4 * i + 4)) for i in range(len(boxes))]
    spans = with_shapes(spans, [TokenBox(first, first, (1023.0, 1023.0)) for first in firsts])
    logits = torch.full((boxes.numel(), 1024), -60.0).scatter(1, boxes.reshape(-1, 1), 60.0)
    low, high = torch.maximum(boxes[:, :2], target[:2]), torch.minimum(boxes[:, 2:], target[2:])
    shared = (high - low).clamp(min=0).prod(-1).double()
    area, true_area = (boxes[:, 2:] - boxes[:, :2]).prod(-1), (target[2:] - target[:2]).prod()
    off = (expected_overlap(logits, spans, overlap_table(nodes)) - shared / (area + true_area - shared)).abs()
    assert off.max() < worst
    assert off.mean() < average
    assert (off > 1e-3).double().mean() < above


@pytest.mark.parametrize("text", ["012,103,230,311", "0,1,2,3", "3,12,20,131"])
def test_expected_iou_on_digits_is_the_sum_over_all_boxes_of_numbers_of_that_length(text):
    labels, spans = written(text, QUATERNARY, (64.0, 64.0))
    logits = noise(labels, seed=3)
    values, chances, start = [], [], 0
    for number in text.split(","):
        p = [row[list(QUATERNARY.digit_ids)].softmax(-1) for row in logits[0, start : start + len(number)]]
        values.append(torch.arange(4.0 ** len(number), dtype=torch.float64))
        joint = p[0]
        for q in p[1:]:
            joint = (joint[:, None] * q).reshape(-1)
        chances.append(joint)
        start += len(number) + 1
    box = [float(int(number, 4)) for number in text.split(",")]
    expected = 1 - summed_overlap(values, chances, box)
    found = ExpectedIoU(QUATERNARY).parts(logits, labels, spans).terms["iou"][0]
    assert found.item() == pytest.approx(expected.item(), abs=1e-3)


def test_the_fourth_digit_is_at_its_mean():
    labels, spans = written("1024,0768,1536,1000", DIGITS, (2000.0, 2000.0))
    logits = noise(labels, scale=0.0)
    for t, token in enumerate(labels[0].tolist()):
        logits[0, t, token] = 60.0
    right = ExpectedIoU(DIGITS).parts(logits, labels, spans).terms["iou"][0]
    assert right.item() == pytest.approx(0, abs=1e-6)
    logits[0, 3] = 0.0
    # The last digit of 1024 is any: 4.5 in the mean, half a unit off a side of 512.
    missed = ExpectedIoU(DIGITS).parts(logits, labels, spans).terms["iou"][0]
    assert missed.item() == pytest.approx(0.5 / 512, rel=1e-2)


def test_a_spread_costs_though_the_mean_is_right():
    labels, spans = bins([[8, 8, 12, 12]])
    logits = torch.full((1, 4, SIZE), -60.0, dtype=torch.float64)
    for t, choices_of in enumerate([(4, 12), (8, 8), (8, 16), (12, 12)]):
        for k in choices_of:
            logits[0, t, 5 + k] = 0.0
    expected = ExpectedIoU(BINS).parts(logits, labels, spans).terms["iou"][0].item()
    # Of the four boxes 4..8 and 12..16 share nothing, 12..8 is none, and 4..16 has a third.
    assert expected == pytest.approx(1 - 1 / 3 / 4, abs=1e-3)
    ciou = CoordExp(BINS).parts(logits, labels, spans).terms
    assert ciou["ciou"][0].item() == pytest.approx(0, abs=1e-6)
    assert ciou["smooth_l1"][0].item() == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("box", [[5, 5, 5, 9], [7, 7, 7, 7]])
def test_a_true_box_without_area_is_one_unit_wide(box):
    labels, spans = bins([box])
    right = torch.full((1, 4, SIZE), -60.0, dtype=torch.float64).scatter(2, labels[..., None], 60.0)
    loss = ExpectedIoU(BINS)
    assert loss.parts(right, labels, spans).terms["iou"][0].item() == pytest.approx(0, abs=1e-6)
    moved = right.clone()
    moved[0, 2] = right[0, 2].roll(1)
    assert loss.parts(moved, labels, spans).terms["iou"][0].item() == pytest.approx(0.5, abs=1e-3)


def slow_ciou(p, t):
    """1 - CIoU as CoordExp's code has it, on numbers."""
    px = [min(max(v, 0), 1) for v in (min(p[0], p[2]), min(p[1], p[3]), max(p[0], p[2]), max(p[1], p[3]))]
    shared = max(min(px[2], t[2]) - max(px[0], t[0]), 0) * max(min(px[3], t[3]) - max(px[1], t[1]), 0)
    w, h, tw, th = px[2] - px[0], px[3] - px[1], t[2] - t[0], t[3] - t[1]
    iou = shared / max(w * h + tw * th - shared, 1e-7)
    rho = ((px[0] + px[2] - t[0] - t[2]) ** 2 + (px[1] + px[3] - t[1] - t[3]) ** 2) / 4
    c = (max(px[2], t[2]) - min(px[0], t[0])) ** 2 + (max(px[3], t[3]) - min(px[1], t[1])) ** 2
    v = 4 / math.pi**2 * (math.atan(tw / th) - math.atan(max(w, 1e-7) / max(h, 1e-7))) ** 2
    return 1 - (iou - rho / max(c, 1e-7) - v / (1 - iou + v + 1e-7) * v)


@pytest.mark.parametrize("seed", range(4))
def test_coordexp_is_smooth_l1_and_ciou_of_the_mean_coordinates(seed):
    boxes = [[4, 6, 15, 12], [0, 3, 23, 5], [10, 2, 11, 20]]
    labels, spans = bins(boxes)
    logits = noise(labels, seed, scale=3.0)
    l1 = ciou = 0.0
    for i, box in enumerate(boxes):
        p = logits[0, 4 * i : 4 * i + 4, 5:29].softmax(-1)
        mean = [sum(k * q for k, q in enumerate(row)) / 23 for row in p.tolist()]
        true = [v / 23 for v in box]
        l1 += sum((a - b) ** 2 / 2 for a, b in zip(mean, true, strict=True)) / 4 / 3
        ciou += slow_ciou(mean, true) / 3
    out = CoordExp(BINS, l1_weight=2.0, ciou_weight=0.5)(logits, labels, spans)
    assert out.components["smooth_l1"].item() == pytest.approx(l1, rel=1e-6)
    assert out.components["ciou"].item() == pytest.approx(ciou, rel=1e-6)
    assert (out.total - out.components["ce"]).item() == pytest.approx(2 * l1 + 0.5 * ciou, rel=1e-5)


# Outputs of `bbox_smoothl1_ciou_loss` of Pein2017/CoordExp at cd05f3b: predicted box, true box, SmoothL1, 1 - CIoU.
THEIRS = [
    ((0.1, 0.2, 0.6, 0.9), (0.15, 0.25, 0.55, 0.8), 0.0021874993, 0.3722730875),
    ((0.7, 0.2, 0.1, 0.9), (0.1, 0.2, 0.7, 0.9), 0.0899999887, 0.0),
    ((0.0, 0.0, 0.05, 0.05), (0.9, 0.9, 1.0, 1.0), 0.4281249642, 1.8556250334),
    ((0.3, 0.3, 0.7, 1.2), (0.2, 0.4, 0.9, 0.5), 0.0687500089, 1.0076010227),
]


@pytest.mark.parametrize(("predicted", "true", "smooth_l1", "ciou"), THEIRS)
def test_the_geometry_of_coordexp_is_its_repositorys(predicted, true, smooth_l1, ciou):
    p, t = torch.tensor([predicted]), torch.tensor([true])
    assert (1 - complete_iou(p, t)).item() == pytest.approx(ciou, abs=1e-6)
    assert torch.nn.functional.smooth_l1_loss(p, t).item() == pytest.approx(smooth_l1, abs=1e-7)
    assert slow_ciou(predicted, true) == pytest.approx(ciou, abs=1e-6)


def test_coordexp_on_digits_has_the_mean_given_the_true_digits_before():
    text = "0.12,0.3,0.75,0.9"
    labels, spans = written(text, DIGITS, (1.0, 1.0))
    logits = noise(labels, seed=5)
    p = [row[list(DIGITS.digit_ids)].softmax(-1) for row in logits[0]]
    mean = [sum(k * q for k, q in enumerate(row.tolist())) for row in p]
    x1, y1 = mean[0] + mean[2] / 10 + mean[3] / 100, mean[5] + mean[7] / 10
    x2, y2 = mean[9] + mean[11] / 10 + mean[12] / 100, mean[14] + mean[16] / 10
    out = CoordExp(DIGITS)(logits, labels, spans)
    assert out.components["ciou"].item() == pytest.approx(slow_ciou([x1, y1, x2, y2], [0.12, 0.3, 0.75, 0.9]), rel=1e-6)


LOSSES = {
    name: loss
    for name, config in loss_configs().items()
    if (loss := build("loss", config, vocab=BINS, embeddings=torch.eye(SIZE))).needs_shapes
}


def test_all_of_them_are_here():
    assert {"coordexp", "coordexp_gate", "box_iou", "box_iou_mass"} <= set(LOSSES)


FOUR = [[4, 6, 15, 12], [0, 0, 22, 5], [10, 3, 11, 20], [1, 2, 13, 14]]


@pytest.mark.parametrize("name", LOSSES)
def test_gradcheck(name):
    labels, spans = bins(FOUR[:2])
    z = noise(labels, scale=1.0).requires_grad_()
    loss = LOSSES[name]
    assert torch.autograd.gradcheck(lambda t: loss(t, labels, spans).total, (z,), atol=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_samples_micro_batches_and_selected_positions_add_up(name):
    loss = LOSSES[name]
    labels, spans = bins(FOUR, samples=2)
    z = noise(labels).requires_grad_()
    out = loss(z, labels, spans)
    (gradient,) = torch.autograd.grad(out.total, z)
    info = StepInfo(tokens=16, samples=2, digits=16, numbers=16, shapes=4)
    cuts = [(slice(0, 1), FOUR[:2]), (slice(1, 2), FOUR[2:])]
    parts = [loss(z[rows], labels[rows], bins(boxes)[1], info) for rows, boxes in cuts]
    torch.testing.assert_close(sum(p.total for p in parts), out.total)
    torch.testing.assert_close(torch.autograd.grad(sum(p.total for p in parts), z)[0], gradient)
    padded = torch.nn.functional.pad(labels, (0, 3), value=-100)
    found = NumberSpans.find(padded, BINS)
    keep = padded.flatten() != -100
    kept = replace(found.select(keep), shape=found.number[keep].reshape(-1, 4), extent=spans.extent)
    selected = loss(z.flatten(0, 1), labels.flatten(), kept)
    torch.testing.assert_close(selected.total, out.total)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_and_autocast_give_the_float32_value_and_gradient(name, dtype):
    loss = LOSSES[name]
    labels, spans = bins(FOUR)
    half = noise(labels).to(dtype).requires_grad_()
    single = half.detach().float().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        out = loss(half, labels, spans)
    expected = loss(single, labels, spans)
    assert out.total.dtype == torch.float32
    assert out.components == expected.components
    a, b = torch.autograd.grad(out.total, half)[0], torch.autograd.grad(expected.total, single)[0]
    assert torch.equal(a, b.to(dtype))


@pytest.mark.parametrize("name", LOSSES)
def test_without_boxes_it_is_cross_entropy(name):
    labels = torch.tensor([[0, 1, 2, -100]])
    logits = noise(labels).float()
    out = LOSSES[name](logits, labels, NumberSpans.find(labels, BINS))
    assert out.total == torch.nn.functional.cross_entropy(logits[0], labels[0])


@pytest.mark.parametrize("name", LOSSES)
def test_a_box_nearer_to_the_truth_costs_less(name):
    labels, spans = bins([[6, 6, 16, 16]])
    costs = []
    for shift in range(8):
        logits = torch.zeros(1, 4, SIZE, dtype=torch.float64)
        for t, k in enumerate((6 + shift, 6, 16 + shift, 16)):
            logits[0, t, 5 + min(k, 23)] = 40.0
        costs.append(LOSSES[name].parts(logits, labels, spans).aux.item())
    assert costs == sorted(costs)
    assert costs[0] == pytest.approx(0, abs=1e-6)
    assert len(set(costs)) == 8


@pytest.mark.parametrize("name", LOSSES)
def test_nothing_depends_on_values_on_the_host(name):
    """On `meta` no operator can read a value: item() and nonzero() of a meta tensor raise."""
    labels, spans = bins(FOUR)
    loss = build("loss", compose([f"loss={name}"]).loss, vocab=NumberVocab(range(5, 29), one_place=True))
    logits = torch.empty(1, 16, SIZE, device="meta", requires_grad=True)
    loss(logits, labels.to("meta"), spans.to("meta")).total.backward()
    assert logits.grad is not None


@pytest.mark.slow
@pytest.mark.parametrize("name", LOSSES)
def test_one_graph_takes_value_and_gradient(name):
    labels, spans = bins(FOUR)
    z = noise(labels).float().requires_grad_()
    torch._dynamo.reset()
    compiled = torch.compile(LOSSES[name], fullgraph=True, backend="aot_eager")
    a, b = compiled(z, labels, spans).total, LOSSES[name](z, labels, spans).total
    torch.testing.assert_close(a, b)
    torch.testing.assert_close(torch.autograd.grad(a, z)[0], torch.autograd.grad(b, z)[0])


def test_mass_off_the_numbers_loses_the_box():
    labels, spans = bins([[4, 6, 15, 12]])
    logits = torch.zeros(1, 4, SIZE, dtype=torch.float64).scatter(2, labels[..., None], 40.0)
    logits[0, 2, 30] = 40.0  # even odds of the third coordinate and another token
    assert ExpectedIoU(BINS).parts(logits, labels, spans).aux.item() == pytest.approx(0, abs=1e-6)
    loss = ExpectedIoU(BINS, mass="largest")
    assert loss.parts(logits, labels, spans).aux.item() == pytest.approx(0.5, abs=1e-6)


def test_labels_alone_are_refused():
    labels, _ = bins([[4, 6, 15, 12]])
    loss: NumberLoss = ExpectedIoU(BINS)
    with pytest.raises(ValueError, match="spans with shapes"):
        loss(noise(labels), labels)

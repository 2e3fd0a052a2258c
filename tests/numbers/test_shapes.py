"""Which numbers form a box, on real tokenizers and in every format of boxes; and through a run's collator."""

from functools import cache

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from ntil import NumberSpans, NumberVocab, digit_by_digit
from ntil.components import Components
from ntil.config.compose import compose
from ntil.config.errors import ConfigError
from ntil.losses import ExpectedIoU
from ntil.numbers.measured import unmeasured
from ntil.numbers.shapes import token_boxes, with_shapes
from tasks.answers.coordinates import FORMATS, Item
from tests.support.chosen import slow_but

SIZE = (1000, 500)
BOXES = [(156, 125, 469, 375), (7, 0, 23, 499)]


@cache
def load(folder, name):
    return digit_by_digit(PreTrainedTokenizerFast(tokenizer_file=str(folder / name / "tokenizer.json")))


@pytest.mark.parametrize("name", slow_but(["llama2", "qwen2_5"], ["llama2", "qwen2_5", "paligemma"]))
@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("label", ["", "player 23"])
def test_each_box_has_its_four_numbers_in_order_and_the_extent_of_its_picture(shared, name, form, label):
    if form == "loc" and name != "paligemma":
        pytest.skip("location tokens are PaliGemma's")
    tokenizer, coords = load(shared / "assets" / "tokenizers", name), FORMATS[form]
    vocab = NumberVocab.from_loc(tokenizer) if form == "loc" else NumberVocab.from_tokenizer(tokenizer)
    text = coords.items([Item((box[:2], box[2:]), label) for box in BOXES], SIZE, "box")
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    tokens, labels = tokenizer.convert_ids_to_tokens(ids), torch.tensor([[0, *ids]])
    hidden = unmeasured(tokens, text, coords.form.number_ranges(text))
    labels[0, [1 + i for i in hidden]] = -100
    spans = with_shapes(
        NumberSpans.find(labels, vocab), list(token_boxes(tokens, text, coords.written_boxes(text, SIZE), offset=1))
    )
    parts = spans.value[spans.shape] / spans.extent.repeat(1, 2)
    expected = torch.tensor(BOXES) / torch.tensor([*SIZE, *SIZE])
    assert parts.shape == (2, 4)
    torch.testing.assert_close(parts, expected.double(), atol=0.6 / 500, rtol=0)


def test_no_shape_is_no_box():
    for coords in FORMATS.values():
        assert coords.written_boxes(coords.items([], SIZE, "box"), SIZE) == []


def test_a_coordinate_of_two_numbers_makes_no_box(shared):
    """As the style `released` reads 0.156: 0 and 156."""
    tokenizer, coords = load(shared / "assets" / "tokenizers", "qwen2_5"), FORMATS["unit"]
    text = coords.box(BOXES[0], SIZE)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    boxes = list(token_boxes(tokenizer.convert_ids_to_tokens(ids), text, coords.written_boxes(text, SIZE)))
    vocab = NumberVocab.from_tokenizer(tokenizer)
    sizes = {
        style: len(with_shapes(NumberSpans.find(torch.tensor(ids), vocab, style), boxes).shape)
        for style in ("decimal", "released")
    }
    assert sizes == {"decimal": 1, "released": 0}


ROWS = "task.source.rows={train:6,validation:2,test:2}"


@pytest.mark.parametrize("model", ["paligemma_nano", "llava_nano", "qwen2_vl_nano"])
def test_a_batch_of_a_run_has_the_boxes_of_its_rows(tmp_path, monkeypatch, model):
    monkeypatch.setenv("NTIL_CACHE", str(tmp_path))
    components = Components.build(compose([f"model={model}", "task=grounding_nano", "loss=box_iou", ROWS]))
    data = components.task.rows("train")
    rows = [data[i] for i in range(6)]
    batch = components.collator(rows)
    spans = batch["spans"]
    assert batch["boxes"] == len(spans.shape) == 6
    assert spans.shape_sample.tolist() == list(range(6))
    for row, numbers, extent in zip(rows, spans.value[spans.shape].tolist(), spans.extent.tolist(), strict=True):
        truth = [v / (row["width"], row["height"])[i % 2] for i, v in enumerate(row["box"])]
        assert [n / extent[i % 2] for i, n in enumerate(numbers)] == pytest.approx(truth, abs=2e-3)
    certain = torch.zeros(len(batch["targets"]), len(components.family.tokenizer))
    certain = certain.scatter(1, batch["targets"][:, None], 40.0)
    assert components.loss(certain, batch["targets"], spans).components["iou"].item() == pytest.approx(0, abs=1e-5)
    assert components.coverage(rows) > 0
    # Other losses have spans as before.
    plain = Components.build(compose([f"model={model}", "task=grounding_nano", "loss=value_emd", ROWS])).collator(rows)
    assert plain["boxes"] == 0
    assert torch.equal(plain["spans"].value, spans.value)


def test_a_task_without_boxes_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("NTIL_CACHE", str(tmp_path))
    components = Components.build(compose(["model=llava_nano", "task=clock", "loss=coordexp", ROWS]))
    assert components.loss.needs_shapes
    with pytest.raises(ConfigError, match=r"the answers of 1 row have none.*choose a task of boxes"):
        components.coverage([components.task.rows("train")[0]])


def test_spans_with_boxes_travel_between_processes_and_devices():
    import pickle

    vocab = NumberVocab(range(20), one_place=True)
    spans = NumberSpans.find(torch.tensor([[3, 4, 8, 9]]), vocab)
    box = next(token_boxes(list("3489"), "3489", [box_of_single_digits()]))
    spans = with_shapes(spans, [box])
    again = pickle.loads(pickle.dumps(spans)).to("cpu")
    assert again.shape.tolist() == [[0, 1, 2, 3]]
    assert again.extent.tolist() == [[9.0, 9.0]]
    assert ExpectedIoU(vocab)(torch.zeros(4, 20), torch.tensor([3, 4, 8, 9]), again).total > 0


def box_of_single_digits():
    from tasks.answers.coordinates import WrittenBox

    return WrittenBox(((0, 1), (1, 2), (2, 3), (3, 4)), (9.0, 9.0))

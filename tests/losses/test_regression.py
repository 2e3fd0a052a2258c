"""`loss=regression_head`: numbers read from one hidden state, trained, answered and scored as all others are."""

from dataclasses import replace

import pytest
import torch

from ntil import NumberSpans, NumberVocab
from ntil.commands.export import check_exportable
from ntil.components import Components
from ntil.config.compose import compose
from ntil.config.errors import ConfigError
from ntil.evaluation.generate import generate, predict
from ntil.losses import EMD, RegressionHead, Sum
from ntil.models.head import SupervisedHead
from ntil.preflight import compose_checked
from ntil.train.trainer import build_trainer
from tasks.answers.coordinates import FORMATS
from tests.losses.test_contract import IDS, SIZE, VOCAB, encode
from tests.support.runs import TINY_RUN

ROWS = "task.source.rows={train:16,validation:4,test:4}"


def test_it_is_the_distance_of_the_first_state_of_a_sample():
    texts = ["12:05", "a", "-7.5 3", "x9"]
    numbers: list[list[float]] = [[12, 5], [], [-7.5, 3], [9]]
    longest = max(map(len, texts))
    labels = torch.tensor([encode(t) + [-100] * (longest - len(t)) for t in texts])
    logits = torch.randn(*labels.shape, SIZE, generator=torch.Generator().manual_seed(0)).requires_grad_()
    loss = RegressionHead(VOCAB, scale=20.0)
    out = loss(logits, labels)
    apart = [
        abs(20 * logits[row, 0, IDS[k]].item() - value) / 20
        for row, values in enumerate(numbers)
        for k, value in enumerate(values)
    ]
    assert out.total.item() == pytest.approx(sum(apart) / 5, rel=1e-5)
    (gradient,) = torch.autograd.grad(out.total, logits)
    used = gradient.abs().sum(-1) > 0
    assert used[:, 0].tolist() == [True, False, True, True]
    assert not used[:, 1:].any()
    keep = labels.flatten() != -100
    spans = NumberSpans.find(labels, VOCAB).select(keep)
    picked = loss(logits.flatten(0, 1)[keep], labels.flatten()[keep], spans)
    torch.testing.assert_close(picked.total, out.total)
    info = loss.step_info([labels[:1], labels[1:]])
    pieces = [loss(logits[c], labels[c], info=info).total for c in (slice(1), slice(1, None))]
    torch.testing.assert_close(sum(pieces), out.total)
    assert loss.read(logits[:, 0])[2, 1].item() == pytest.approx(20 * logits[2, 0, IDS[1]].item())


def test_the_state_is_the_last_of_the_prompt_where_labels_have_one():
    loss, answer = RegressionHead(VOCAB), encode("12:05")
    logits = torch.randn(2, 9, SIZE, generator=torch.Generator().manual_seed(3))
    labels = torch.tensor([[-100] * 3 + answer + [-100], [-100] * 4 + answer])
    keep = labels.flatten() != -100
    spans = NumberSpans.find(labels, VOCAB).select(keep)
    selected = loss(logits.flatten(0, 1)[keep], labels.flatten()[keep], spans)
    torch.testing.assert_close(loss(logits, labels).total, selected.total)
    apart = [abs(100 * logits[i, 3 + i, IDS[k]].item() - v) / 100 for i in (0, 1) for k, v in ((0, 12), (1, 5))]
    assert selected.total.item() == pytest.approx(sum(apart) / 4, rel=1e-5)


@pytest.mark.parametrize("shape", [(0, 3), (2, 0)])
def test_no_position_has_no_loss(shape):
    labels = torch.full(shape, -100)
    assert RegressionHead(VOCAB)(torch.randn(*shape, SIZE), labels).total.item() == 0


def components_of(*words):
    return Components.build(compose([*TINY_RUN, ROWS, "loss=regression_head", "engine=local", *words]))


@pytest.mark.parametrize(
    "words", [["task=clock"], ["model=qwen25_nano", "task=arithmetic"], ["model=paligemma_nano", "task=grounding_nano"]]
)
def test_training_reads_what_answers_are_read_from(tmp_path, monkeypatch, words):
    """The numbers in an answer are those that the loss compares, and any model's answer can be parsed."""
    monkeypatch.setenv("NTIL_CACHE", str(tmp_path))
    components = components_of(*words)
    model, collator, task = components.family.load().eval(), components.collator, components.task
    rows = [task.rows("train")[k] for k in range(3)]
    batch = collator(rows)
    inputs = {k: v for k, v in batch.items() if isinstance(v, torch.Tensor) and k not in ("positions", "targets")}
    with torch.no_grad(), SupervisedHead(model) as head:
        logits = head.logits(model, inputs, batch["positions"])
    starts = [batch["spans"].sample.tolist().index(k) for k in range(3)]
    expected = [
        task.written(numbers[: task.number_count], row)
        for numbers, row in zip(components.loss.read(logits[starts]).tolist(), rows, strict=True)
    ]
    assert generate(model, collator, rows) == expected
    records = list(predict(model, collator, task.rows("test"), 2, share_prompts=None))
    assert len(records) == 4
    assert not any(record["failure"] for record in records)
    assert model(**inputs).logits.shape[1] > 1  # no hook is left


@pytest.mark.slow
def test_it_learns(tmp_path, monkeypatch):
    """Sixteen clocks by heart: the deviation falls well below that of the untrained model."""
    monkeypatch.setenv("NTIL_CACHE", str(tmp_path))
    words = ["optim.steps=40", "optim.batch_size=16", "optim.warmup=0", "optim.lr=3e-3", "loss.scale=10"]
    config = compose([*TINY_RUN, ROWS, "loss=regression_head", "engine=local", *words])
    components = Components.build(config)
    torch.manual_seed(0)
    model, rows = components.family.load(), components.task.rows("train")
    trainer = build_trainer(config, components, model, rows, tmp_path / "run")
    trainer.train()
    losses = [record["loss"] for record in trainer.state.log_history if "loss" in record]
    assert losses[-1] < 0.5 * losses[0]


def test_numbers_are_written_as_the_task_writes_them(tmp_path, monkeypatch):
    monkeypatch.setenv("NTIL_CACHE", str(tmp_path))
    clock = components_of("task=clock").task
    assert [clock.written(pair, {}) for pair in ([9.2, 4.6], [-3, 70], [13, -1])] == ["09:05", "01:59", "12:00"]
    arithmetic = components_of("model=qwen25_nano", "task=arithmetic").task
    assert arithmetic.written([12.46], {"answer": "3"}) == "12"
    assert arithmetic.written([12.46], {"answer": "-3.5"}) == "12.5"


@pytest.mark.parametrize("name", FORMATS)
def test_a_box_is_written_from_its_numbers(name):
    """Numbers that the format writes come back; others are rounded, put in order and moved inside."""
    coords, size = FORMATS[name], (640, 480)
    text = coords.box((64, 48, 320, 240), size)
    ranges = sorted(coords.written_boxes(text, size)[0].ranges)  # in the order of the text
    numbers = [float(text[first:end]) for first, end in ranges]
    assert coords.box(coords.box_of(numbers, size), size) == text
    swapped = [numbers[2], numbers[3], numbers[0], numbers[1]]
    assert coords.box(coords.box_of(swapped, size), size) == text
    outside = coords.box(coords.box_of([-5, -5, 1e9, 1e9], size), size)
    assert coords.parse_box(outside, size) is not None


REFUSED = [
    (["task=mathvista_nano"], "fixed count of numbers"),
    (["task=text_detection_nano"], "answers of TextDetection have none"),
]


@pytest.mark.parametrize(("words", "sentence"), REFUSED)
def test_tasks_without_a_fixed_count_are_refused(words, sentence, tmp_path, monkeypatch):
    monkeypatch.setenv("NTIL_CACHE", str(tmp_path))
    with pytest.raises(ConfigError, match=sentence):
        components_of(*words)


def test_what_else_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("NTIL_CACHE", str(tmp_path))
    with pytest.raises(ConfigError, match="answers of TextDetection have none"):
        compose_checked([*TINY_RUN, "task=text_detection_nano", "loss=regression_head", "engine=local"])
    with pytest.raises(ValueError, match="can't be a part"):
        Sum(VOCAB, parts={"emd": EMD(VOCAB), "head": RegressionHead(VOCAB)})
    with pytest.raises(ValueError, match="scale must be > 0"):
        RegressionHead(NumberVocab(range(10)), scale=0)
    config = compose(["loss=regression_head"])
    with pytest.raises(ConfigError, match="read by a regression head"):
        check_exportable(config)
    check_exportable(replace(config, loss=compose(["loss=ce"]).loss))


@pytest.mark.parametrize("words", [["evaluation.decoding=median"], ["evaluation.generation.samples=4"]])
def test_generation_has_no_part_in_answers_that_are_read(words, tmp_path, monkeypatch):
    monkeypatch.setenv("NTIL_CACHE", str(tmp_path))
    with pytest.raises(ConfigError, match="loss=regression_head: its answers are read, not generated"):
        Components.build(compose(["loss=regression_head", "engine=local", *words]))

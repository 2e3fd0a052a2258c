"""Trainers of others with our losses: the same losses and weights as `ntil train` on the same rows."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import re
import socket
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import Trainer, TrainingArguments

from ntil import NTIL, NTL, NumberVocab
from ntil.integrations import hf_trainer
from ntil.losses import ExpectedIoU
from ntil.losses.base import NumberLoss
from tests.support.peers import LOSSES, STEPS, ours, peer, train_as_rank

# The whole step is one batch in `slow` cases.
CASES = [
    pytest.param(loss, accumulation, marks=[pytest.mark.slow] if accumulation == 1 and loss != "ntil" else [])
    for loss in LOSSES
    for accumulation in (1, 2)
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("ours")


@pytest.fixture
def widths(monkeypatch):
    """How many rows of logits the losses got, call by call."""
    seen = []
    parts = NumberLoss.parts

    def noting(self, logits, *args, **kwargs):
        seen.append(tuple(logits.shape[:-1]))
        return parts(self, logits, *args, **kwargs)

    monkeypatch.setattr(NumberLoss, "parts", noting)
    return seen


def assert_same(logged: Any, weights: Any, loss: str, accumulation: int, folder: Any) -> None:
    """Losses within 1e-5 relative, weights after three steps within 1e-4."""
    expected, expected_weights = ours(loss, accumulation, folder)
    assert len(logged) == len(expected) == STEPS
    for step, (line, ours_line) in enumerate(zip(logged, expected, strict=True)):
        assert line["loss"] == pytest.approx(ours_line["loss"], rel=1e-5), step
        for name in (n for n in ours_line if n.startswith("loss/")):
            assert line[name] == pytest.approx(ours_line[name], rel=1e-4, abs=1e-6), (step, name)
    for name, value in expected_weights.items():
        torch.testing.assert_close(weights[name], value, atol=1e-4, rtol=1e-3, msg=name)


def sequential(arguments):
    arguments.train_sampling_strategy = "sequential"
    return arguments


def weights_of(trainer: Any) -> dict[str, torch.Tensor]:
    return trainer.model.state_dict()


def lines(trainer):
    return [line for line in trainer.state.log_history if "loss" in line]


@pytest.mark.parametrize(("loss", "accumulation"), CASES)
def test_hf_trainer(tmp_path, folder, widths, loss, accumulation):
    p = peer(loss, accumulation)
    trainer = Trainer(
        model=p.model(), args=sequential(p.arguments(tmp_path)), train_dataset=p.ordered(), data_collator=p.collate
    )
    hf_trainer.use_loss(trainer, p.loss)
    trainer.train()
    assert_same(lines(trainer), weights_of(trainer), loss, accumulation, folder)
    assert all(len(shape) == 1 for shape in widths), "logits only at supervised positions"


def test_a_last_step_of_fewer_micro_batches_is_a_step(tmp_path):
    """Of 5 micro-batches in steps of two, 3 steps: what is logged is a mean over these, as the trainer's loss."""
    p = peer("value_emd", 2)
    arguments = sequential(p.arguments(tmp_path))
    arguments.max_steps, arguments.num_train_epochs, arguments.learning_rate, arguments.logging_steps = -1, 1, 0.0, 3
    rows = p.ordered().select(range(5 * p.micro))
    trainer = Trainer(model=p.model(), args=arguments, train_dataset=rows, data_collator=p.collate)
    hf_trainer.use_loss(trainer, p.loss)
    trainer.train()
    (line,) = lines(trainer)
    assert (trainer.state.global_step, line["loss/factor"]) == (3, pytest.approx(p.loss.lam))
    assert line["loss"] == pytest.approx(line["loss/ce"] + p.loss.lam * line["loss/aux"], rel=1e-5)


@pytest.mark.parametrize(("loss", "accumulation"), [("ntil", 2), ("ntl_was", 1)])
def test_trl(tmp_path, folder, widths, loss, accumulation):
    trl = pytest.importorskip("trl", reason="the test extra installs trl")
    from ntil.integrations.trl import use_loss

    p = peer(loss, accumulation)
    given = {f.name: getattr(p.arguments(tmp_path), f.name) for f in dataclasses.fields(TrainingArguments) if f.init}
    arguments = trl.SFTConfig(
        **{**given, "train_sampling_strategy": "sequential"},
        dataset_kwargs={"skip_prepare_dataset": True},
        max_length=None,
    )
    trainer = trl.SFTTrainer(
        model=p.model(),
        args=arguments,
        train_dataset=p.ordered(),
        data_collator=p.collate,
        processing_class=p.components.family.tokenizer,
    )
    use_loss(trainer, p.loss)
    trainer.train()
    assert_same(lines(trainer), weights_of(trainer), loss, accumulation, folder)
    assert all(len(shape) == 1 for shape in widths)
    with pytest.raises(ValueError, match="is no SFTTrainer"):
        use_loss(Trainer(model=p.model(), args=p.arguments(tmp_path)), p.loss)


@pytest.mark.parametrize(("loss", "accumulation"), [("ntil", 2), ("value_emd", 1), ("emo", 2)])
def test_accelerate_loop(folder, widths, loss, accumulation):
    from accelerate import Accelerator

    from ntil.integrations.accelerate_loop import NumberSteps

    p = peer(loss, accumulation)
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=accumulation)
    model = p.model()
    model, optimizer = accelerator.prepare(model, torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0))
    steps, logged = NumberSteps(accelerator, model, p.loss), []
    loader = [batch for micro_batches in p.steps() for batch in micro_batches]
    for micro_batches in steps.batches(loader, accumulation):
        losses = steps(micro_batches)
        optimizer.step()
        optimizer.zero_grad()
        logged.append(as_logged(losses))
    assert_same(logged, model.state_dict(), loss, accumulation, folder)
    assert all(len(shape) == 1 for shape in widths)


def as_logged(losses):
    return {"loss" if name == "total" else f"loss/{name}": value.item() for name, value in losses.items()}


@pytest.mark.filterwarnings("ignore")  # Lightning's advice on data workers
@pytest.mark.parametrize(("loss", "accumulation"), [("ntil", 2), ("ntl_was", 1)])
def test_lightning(tmp_path, folder, widths, loss, accumulation):
    lightning = pytest.importorskip("pytorch_lightning", reason="Lightning isn't installed: pip install lightning")
    from ntil.integrations.lightning import NumberModule

    p, logged = peer(loss, accumulation), []

    class Logged(NumberModule):
        def log_dict(self, losses, **_):
            logged.append({k.replace("loss/total", "loss"): v.item() for k, v in losses.items()})

    def adamw(parameters):
        return torch.optim.AdamW(parameters, lr=0.01, weight_decay=0)

    module = Logged(p.model(), p.loss, optimizer=adamw, accumulation=accumulation)
    trainer = lightning.Trainer(
        max_steps=STEPS,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    batches = [batch for micro_batches in p.steps() for batch in micro_batches]
    parts: list[Any] = [batches, batches[:1]]
    loaders: list[Any] = [torch.utils.data.DataLoader(part, batch_size=None) for part in parts]
    trainer.fit(module, *loaders)
    assert 0 < trainer.callback_metrics["val_loss"] < 10
    assert_same(logged, module.model.state_dict(), loss, accumulation, folder)
    assert all(len(shape) == 1 for shape in widths)


def test_a_plain_compute_loss_func(tmp_path, folder):
    """All logits; exact where the step is one batch or the loss a mean over tokens, refused elsewhere."""
    p = peer("ntil", 1)
    parts = {"train_dataset": p.ordered(), "data_collator": p.collate}
    quiet = NTIL(p.loss.vocab, noise=0)
    func = hf_trainer.number_loss_func(quiet)
    whole = Trainer(model=p.model(), args=sequential(p.arguments(tmp_path)), compute_loss_func=func, **parts)
    whole.train()
    attached = Trainer(model=p.model(), args=sequential(p.arguments(tmp_path)), **parts)
    hf_trainer.use_loss(attached, quiet)
    attached.train()
    assert [x["loss"] for x in lines(whole)] == pytest.approx([x["loss"] for x in lines(attached)], rel=1e-5)
    cut = Trainer(
        model=p.model(), args=sequential(peer("ntil", 2).arguments(tmp_path)), compute_loss_func=func, **parts
    )
    with pytest.raises(ValueError, match=r"NTIL is no mean over tokens.*use_loss\(trainer, loss\)"):
        cut.train()


def test_evaluation_with_and_without_logits(tmp_path):
    p = peer("ntl_was", 1)
    sizes = []

    def metrics(prediction):
        sizes.append(prediction.predictions.shape)
        return {"rows": float(len(prediction.predictions))}

    arguments = p.arguments(tmp_path)
    arguments.label_names = ["labels"]
    rows = p.ordered().select(range(8))
    trainer = Trainer(
        model=p.model(), args=arguments, eval_dataset=rows, data_collator=p.collate, compute_metrics=metrics
    )
    hf_trainer.use_loss(trainer, p.loss)
    with_logits = trainer.evaluate()
    assert len(sizes[0]) == 3
    trainer.compute_metrics = None
    arguments.prediction_loss_only = True
    assert trainer.evaluate()["eval_loss"] == pytest.approx(with_logits["eval_loss"], rel=1e-6)


def test_packed_rows_count_as_their_samples():
    from ntil.integrations.labels import Supervised

    vocab = NumberVocab(range(10))
    loss = NTIL(vocab, noise=0)
    apart = torch.tensor([[-100, 3, 4, 11], [-100, 7, 11, -100]])
    together = torch.tensor([[-100, 3, 4, 11, -100, 7, 11, -100, -100]])
    places = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 0, 0]])
    logits = torch.randn(5, 12, generator=torch.Generator().manual_seed(0))
    two = Supervised.of({"labels": apart}, loss)
    packed = Supervised.of({"labels": together, "position_ids": places}, loss)
    assert packed.samples == 2
    assert packed.targets.tolist() == two.targets.tolist()
    totals = [loss(logits, part.targets, part.spans).total.item() for part in (two, packed)]
    assert totals[1] == pytest.approx(totals[0], rel=1e-6)
    assert Supervised.of({"labels": together}, loss).samples == 1


def test_refusals(tmp_path):
    p = peer("ntl_was", 1)
    tokenizer = p.components.family.tokenizer

    def trainer(**changes):
        made = Trainer(model=p.model(), args=p.arguments(tmp_path), processing_class=tokenizer)
        for name, value in changes.items():
            setattr(made.args if hasattr(made.args, name) else made, name, value)
        return made

    cases: list[tuple[Any, Any, Any, str]] = [
        ({"compute_loss_func": print}, NTL, {}, "has a compute_loss_func already"),
        ({"label_smoothing_factor": 0.1}, NTL, {}, "label_smoothing_factor would do nothing"),
        ({"get_tp_size": lambda: 2}, NTL, {}, "tp parallelism"),
        ({}, "NTILL", {}, "no loss 'NTILL'; did you mean 'NTIL'?"),
        ({}, p.loss, {"lam": 1}, "NTL is made already: give lam to its constructor"),
        ({}, ExpectedIoU, {}, "is on boxes, which labels alone don't show"),
        ({"processing_class": None}, NTL, {}, "no tokenizer to find the digits in"),
    ]
    for changes, loss, options, message in cases:
        with pytest.raises(ValueError, match=re.escape(message)):
            hf_trainer.use_loss(trainer(**changes), loss, **options)
    installed = hf_trainer.use_loss(trainer(), "NTL", lam=0.5)
    assert isinstance(installed.loss, NTL)
    assert installed.loss.lam == 0.5


def test_a_cut_sequence_is_refused():
    from ntil.models.head import SupervisedHead

    model = torch.nn.Sequential(torch.nn.Linear(4, 6))
    named = SimpleNamespace(get_output_embeddings=lambda: model[0])
    head = SupervisedHead(named)  # type: ignore[arg-type]
    with (
        head.selecting(torch.tensor([0]), (2, 3)),
        pytest.raises(ValueError, match=r"of \(2, 5\) positions for labels"),
    ):
        model(torch.zeros(2, 5, 4))
    assert model(torch.zeros(2, 5, 4)).shape == (2, 5, 6)


@pytest.mark.slow
def test_two_ranks(tmp_path, folder):
    """Two ranks with accumulation 2: the loss of every step is that of one rank's whole batch."""
    context = multiprocessing.get_context("spawn")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = [context.Process(target=train_as_rank, args=(i, 2, port, "ntil", 2, tmp_path)) for i in range(2)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(500)
        process.kill()
    assert [process.exitcode for process in ranks] == [0, 0]
    expected = [line["loss"] for line in ours("ntil", 1, folder)[0]]
    logged = [json.loads((tmp_path / f"ntil-rank{i}.json").read_text()) for i in range(2)]
    assert [line["loss"] for line in logged[0]["trainer"]] == pytest.approx(expected, rel=1e-4)
    for rank in logged:
        assert [line["total"] for line in rank["loop"]] == pytest.approx(expected, rel=1e-4)

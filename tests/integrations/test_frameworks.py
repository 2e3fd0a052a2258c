"""LLaMA-Factory, ms-swift and Axolotl: their own code where it is installed, else their public interface.

The interfaces are those of LLaMA-Factory 0.9.5 (`train/sft/workflow.py`, `train/sft/trainer.py`), ms-swift 4.6.0
(`loss/base.py`, `loss/mapping.py`, `trainers/mixin.py`, `trainers/seq2seq_trainer.py`) and Axolotl 0.19.0
(`integrations/base.py`, `core/builders/causal.py`): names, arguments and the order of calls, on transformers' Trainer.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType, SimpleNamespace

import pytest
from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments, Trainer

from tests.integrations.test_trainers import assert_same, folder, lines, sequential, weights_of, widths  # noqa: F401
from tests.support.peers import peer

pytestmark = pytest.mark.filterwarnings("ignore")  # of what those frameworks import


@pytest.fixture
def interface(monkeypatch):
    """A module of a framework: its own, or a stand-in with these names."""

    def provide(name, **members):
        try:
            return importlib.import_module(name)
        except ImportError:
            pass
        parts = name.split(".")
        for depth in range(1, len(parts) + 1):
            module = ModuleType(".".join(parts[:depth]))
            module.__path__ = []
            monkeypatch.setitem(sys.modules, module.__name__, module)
            if depth > 1:
                setattr(sys.modules[".".join(parts[: depth - 1])], parts[depth - 1], module)
        vars(module).update(members)
        return module

    return provide


class FactoryTrainer(Seq2SeqTrainer):
    """What LLaMA-Factory's trainer does with its arguments, as far as a loss is concerned."""

    def __init__(self, finetuning_args, processor, gen_kwargs=None, ref_model=None, **kwargs):
        kwargs["processing_class"] = kwargs.pop("tokenizer")
        super().__init__(**kwargs)
        self.finetuning_args = finetuning_args

    def compute_loss(self, model, inputs, *args, **kwargs):
        return super().compute_loss(model, inputs, *args, **kwargs)


@pytest.mark.parametrize("accumulation", [1, 2])
def test_llamafactory(tmp_path, folder, widths, interface, accumulation):  # noqa: F811
    workflow = interface("llamafactory.train.sft.workflow", CustomSeq2SeqTrainer=FactoryTrainer)
    usual = workflow.CustomSeq2SeqTrainer
    from ntil.integrations.llamafactory import number_loss_in_sft

    p = peer("ntil", accumulation)
    arguments = Seq2SeqTrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    vars(arguments).update({**vars(p.arguments(tmp_path)), "do_train": True, "fp8": False})
    with number_loss_in_sft(p.loss):
        trainer = workflow.CustomSeq2SeqTrainer(
            model=p.model(),
            args=sequential(arguments),
            finetuning_args=SimpleNamespace(
                use_badam=False,
                use_dft_loss=False,
                use_eaft_loss=False,
                use_asft_loss=False,
                disable_shuffling=True,
            ),
            processor=None,
            tokenizer=p.components.family.tokenizer,
            data_collator=p.collate,
            train_dataset=p.ordered(),
        )
    assert workflow.CustomSeq2SeqTrainer is usual
    # Theirs asks for arguments of further optimizers.
    trainer.create_optimizer = lambda *a, **k: Trainer.create_optimizer(trainer, *a, **k)
    trainer.create_scheduler = lambda *a, **k: Trainer.create_scheduler(trainer, *a, **k)
    trainer.train()
    assert_same(lines(trainer), weights_of(trainer), "ntil", accumulation, folder)
    assert all(len(shape) == 1 for shape in widths)


class BaseLoss:
    """The constructor of ms-swift's."""

    def __init__(self, args, trainer):
        self.args, self.trainer = args, trainer
        self.is_megatron = "BaseMegatronTrainer" in [c.__name__ for c in trainer.__class__.__mro__]


class SwiftTrainer(Trainer):
    """The order in which ms-swift's trainer makes and calls its loss."""

    def __init__(self, loss_type, loss_map, tokenizer, **kwargs):
        self.template = SimpleNamespace(tokenizer=tokenizer, sequence_parallel_size=1)
        loss = loss_map[loss_type](kwargs["args"], self)
        super().__init__(compute_loss_func=loss, **kwargs)
        self.model_accepts_loss_kwargs = True
        self.accuracies = []

    def _prepare_inputs(self, inputs):
        inputs = super()._prepare_inputs(inputs)
        # `prepare_logits_to_keep` of several rows: labels and logits from the first supervised one on.
        labels = inputs["labels"]
        keep = labels.shape[-1] - (labels != -100).int().argmax(-1).min().item() + 1
        inputs |= {"labels": labels[:, -keep:], "logits_to_keep": keep, "compute_loss_func": self.compute_loss_func}
        return inputs

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        compute_loss_func, labels = inputs.pop("compute_loss_func"), inputs.pop("labels")
        outputs = model(**inputs)
        loss = compute_loss_func(outputs, labels, num_items_in_batch=num_items_in_batch, loss_scale=None, trainer=self)
        if self.args.average_tokens_across_devices and num_items_in_batch is not None:
            loss = loss * self.accelerator.num_processes
        assert outputs.logits.shape[:-1] == labels.shape, "it reads its accuracy from them"
        return (loss, outputs) if return_outputs else loss


@pytest.mark.parametrize(("loss", "accumulation"), [("ntil", 1), ("ntil", 2), ("emo", 2)])
def test_ms_swift(tmp_path, folder, interface, loss, accumulation):  # noqa: F811
    loss_map = interface("swift.loss.mapping", loss_map={}).loss_map
    base = interface("swift.loss.base", BaseLoss=BaseLoss).BaseLoss
    vars(sys.modules["swift.loss"])["BaseLoss"] = base
    from ntil.integrations.ms_swift import check_template, register

    p = peer(loss, accumulation)
    register("number", p.loss)
    trainer = SwiftTrainer(
        "number",
        loss_map,
        p.components.family.tokenizer,
        model=p.model(),
        args=sequential(p.arguments(tmp_path)),
        train_dataset=p.ordered(),
        data_collator=p.collate,
    )
    trainer.train()
    assert_same(lines(trainer), weights_of(trainer), loss, accumulation, folder)
    with pytest.raises(ValueError, match="sequence parallelism; set --sequence_parallel_size 1"):
        check_template(False, SimpleNamespace(sequence_parallel_size=2))
    with pytest.raises(ValueError, match="Megatron"):
        check_template(True, trainer.template)


class BasePlugin:
    """A plug-in of Axolotl that does nothing."""


class Settings(dict):
    """Axolotl's `DictDefault`: a key that isn't there is None."""

    def __getattr__(self, name):
        return self.get(name)


@pytest.mark.parametrize("accumulation", [1, 2])
def test_axolotl(tmp_path, folder, widths, interface, accumulation):  # noqa: F811
    interface("axolotl.integrations.base", BasePlugin=BasePlugin)
    sys.modules.pop("ntil.integrations.axolotl", None)
    module = importlib.import_module("ntil.integrations.axolotl")
    plugin = module.NumberLossPlugin()
    keys = module.NumberLossArgs(number_loss="NTIL", number_loss_options={"lam": 0.3})
    assert plugin.get_input_args() == "ntil.integrations.axolotl.NumberLossArgs"
    p = peer("ntil", accumulation)
    trainer = Trainer(
        model=p.model(),
        args=sequential(p.arguments(tmp_path)),
        train_dataset=p.ordered(),
        data_collator=p.collate,
        processing_class=p.components.family.tokenizer,
    )
    plugin.post_trainer_create(Settings(keys.model_dump()), trainer)
    trainer.train()
    assert_same(lines(trainer), weights_of(trainer), "ntil", accumulation, folder)
    assert all(len(shape) == 1 for shape in widths)
    with pytest.raises(ValueError, match="leave `rl` and `orpo_alpha` out"):
        plugin.post_trainer_create(Settings(keys.model_dump(), rl="grpo"), trainer)


@pytest.mark.parametrize(
    ("module", "needs"),
    [("lightning", "pip install lightning"), ("axolotl", "pip install axolotl")],
)
def test_a_missing_peer_is_one_sentence(monkeypatch, module, needs):
    for name in ("lightning.pytorch", "pytorch_lightning", "axolotl.integrations.base"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, f"ntil.integrations.{module}", raising=False)
    with pytest.raises(ImportError, match=needs):
        importlib.import_module(f"ntil.integrations.{module}")

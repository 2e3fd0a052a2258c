"""A number loss in LLaMA-Factory's supervised fine-tuning.

    from ntil import NTIL
    from ntil.integrations.llamafactory import run_exp

    run_exp(NTIL, lam=0.3)  # in train.py; `python train.py my.yaml` instead of `llamafactory-cli train my.yaml`

Several GPUs: `torchrun --nproc-per-node 8 train.py my.yaml`. Logits at supervised positions only, counts as in
`ntil.integrations.hf_trainer`; a row of `neat_packing` counts as one sample where it has no `position_ids`. The digits
are those of the run's tokenizer; one that merges digits (Llama 3) is refused at the first batch that holds a number.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ntil.integrations.hf_trainer import use_loss


def run_exp(loss: Any, args: dict[str, Any] | None = None, callbacks: list[Any] | None = None, **options: Any) -> None:
    """`llamafactory.train.tuner.run_exp` with a number loss.

    Args:
        loss: a `NumberLoss`, or its class (or the class's name), made with `options` and the run's tokenizer.
        args, callbacks: LLaMA-Factory's; by default its arguments are those of the command line.

    Raises:
        ValueError: see `ntil.integrations.hf_trainer.use_loss`.
    """
    try:
        from llamafactory.train.tuner import run_exp as run
    except ImportError as error:
        raise ImportError("ntil.integrations.llamafactory needs LLaMA-Factory: pip install llamafactory") from error
    with number_loss_in_sft(loss, **options):
        run(args, callbacks)


@contextmanager
def number_loss_in_sft(loss: Any, **options: Any) -> Iterator[None]:
    """Within the block, LLaMA-Factory's trainer of supervised fine-tuning has the number loss."""
    from llamafactory.train.sft import workflow

    usual = workflow.CustomSeq2SeqTrainer

    class NumberSeq2SeqTrainer(usual):  # type: ignore[misc, valid-type]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            if self.args.do_train:
                use_loss(self, loss, **options)

    workflow.CustomSeq2SeqTrainer = NumberSeq2SeqTrainer
    try:
        yield
    finally:
        workflow.CustomSeq2SeqTrainer = usual

"""A number loss in ms-swift.

    from ntil import NTIL
    from ntil.integrations.ms_swift import register

    register("ntil", NTIL, lam=0.3)  # in plugin.py

and `swift sft ... --external_plugins plugin.py --loss_type ntil`. Counts are those of the whole step, as in
`ntil.integrations.hf_trainer`. ms-swift reads the logits itself (its accuracy), so which ones are kept is its own
`--use_logits_to_keep true`: with one row a micro-batch the supervised ones, else all after the first supervised one.
Sequence parallelism and Megatron are refused, `loss_scale` too. How many samples a `padding_free` or packed row counts
as depends on its `position_ids` (docs/integrations.md), which isn't tried with ms-swift.
"""

from __future__ import annotations

from typing import Any

from ntil.integrations.hf_trainer import TrainerLoss
from ntil.integrations.labels import make_loss


def register(name: str, loss: Any, **options: Any) -> None:
    """Register a number loss as a `--loss_type` of ms-swift.

    Args:
        loss: a `NumberLoss`, or its class (or the class's name), made with `options` and the run's tokenizer.
    """
    try:
        from swift.loss import BaseLoss
        from swift.loss.mapping import loss_map
    except ImportError as error:
        raise ImportError("ntil.integrations.ms_swift needs ms-swift: pip install ms-swift") from error

    class RegisteredLoss(BaseLoss):
        """Made by ms-swift's trainer with its arguments and itself."""

        def __init__(self, args: Any, trainer: Any) -> None:
            super().__init__(args, trainer)
            check_template(self.is_megatron, trainer.template)
            self._loss = SwiftLoss(trainer, make_loss(loss, trainer.template.tokenizer, **options), False)
            self._loss.wrap()

        def __call__(
            self, outputs: Any, labels: Any, *, num_items_in_batch: Any = None, loss_scale: Any = None, **_: Any
        ) -> Any:
            if loss_scale is not None:
                raise ValueError("loss_scale would do nothing beside a number loss; set --loss_scale default")
            return self._loss(outputs, labels, num_items_in_batch)

    loss_map[name] = RegisteredLoss


class SwiftLoss(TrainerLoss):
    """A number loss in ms-swift's trainer, which reads the logits itself."""

    def multiplies(self, num_items_in_batch: Any) -> bool:
        return super().multiplies(num_items_in_batch) and self.trainer.model_accepts_loss_kwargs


def check_template(is_megatron: bool, template: Any) -> None:
    """Check that the loss will see the logits of all supervised positions.

    Raises:
        ValueError: it won't.
    """
    if is_megatron:
        raise ValueError(
            "a number loss can't be used with Megatron, which computes the loss in parts of the vocabulary"
        )
    if template.sequence_parallel_size > 1:
        raise ValueError("a number loss can't be used with sequence parallelism; set --sequence_parallel_size 1")

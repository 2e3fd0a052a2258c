"""A number loss in TRL's SFTTrainer. Rewards for GRPO: `ntil.integrations.rewards`.

    from ntil import NTIL
    from ntil.integrations.trl import use_loss

    use_loss(trainer, NTIL, lam=0.3)  # after the SFTTrainer is made, before trainer.train()

SFTTrainer's own losses come from a fused head that gives log-probabilities of the labels and no logits, and its
`compute_loss_func` costs a second forward. So its `compute_loss` is replaced (TRL advises to override it): logits at
supervised positions only, counts as in `ntil.integrations.hf_trainer`. What SFTTrainer computes from its fused head
beside the loss (`entropy`, `mean_token_accuracy`, `num_tokens`) isn't logged.
"""

from __future__ import annotations

from typing import Any

from ntil.integrations.hf_trainer import KEY, MicroBatch, TrainerLoss, check_trainer
from ntil.integrations.labels import Supervised, make_loss
from ntil.losses.step import WHOLE_STEP


def use_loss(trainer: Any, loss: Any, **options: Any) -> TrainerLoss:
    """Let an SFTTrainer train with a number loss; arguments as of `ntil.integrations.hf_trainer.use_loss`.

    Raises:
        ValueError: another trainer, a loss that can't be used, or settings that the loss would replace.
    """
    try:
        from trl import SFTTrainer
    except ImportError as error:
        raise ImportError("ntil.integrations.trl needs TRL: pip install trl") from error
    if not isinstance(trainer, SFTTrainer):
        raise ValueError(f"{type(trainer).__name__} is no SFTTrainer: use ntil.integrations.hf_trainer, or rewards")
    arguments: Any = trainer.args
    if arguments.loss_type == "dft":
        raise ValueError("loss_type='dft' would do nothing beside a number loss; leave it out")
    if getattr(trainer, "aux_loss_enabled", False):
        raise ValueError("router_aux_loss_coef would do nothing beside a number loss; set it to 0")
    check_trainer(trainer)
    installed = SFTLoss(trainer, make_loss(loss, trainer.processing_class, **options))
    # Says that the loss is divided by the counts of the whole step already.
    trainer.model_accepts_loss_kwargs = True
    installed.wrap()
    return installed


class SFTLoss(TrainerLoss):
    """A number loss in the place of an SFTTrainer's `compute_loss`."""

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        micro_batch = inputs.pop(KEY, None) or MicroBatch(Supervised.of(inputs, self.loss), WHOLE_STEP)
        part = micro_batch.part
        model_inputs = {k: v for k, v in inputs.items() if k not in ("labels", "shift_labels", "use_cache")}
        if return_outputs:
            outputs = model(**model_inputs, use_cache=False)
            positions = part.positions.to(outputs.logits.device)
            return self.total(outputs.logits.flatten(0, 1).index_select(0, positions), micro_batch), outputs
        with self._selecting(part):
            logits = model(**model_inputs, use_cache=False).logits
        return self.total(logits, micro_batch) * self.ranks_to_sum

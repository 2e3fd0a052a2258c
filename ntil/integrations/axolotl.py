"""A number loss in Axolotl, as a plug-in of its YAML.

    plugins: [ntil.integrations.axolotl.NumberLossPlugin]
    number_loss: NTIL               # a class of ntil.losses
    number_loss_options: {lam: 0.3}

Logits at supervised positions only, counts as in `ntil.integrations.hf_trainer`; a packed row (`sample_packing`) counts
as as many samples as its `position_ids` start anew. The digits are those of the run's tokenizer.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from ntil.integrations.hf_trainer import use_loss

try:
    from axolotl.integrations.base import BasePlugin
except ImportError as error:
    raise ImportError("ntil.integrations.axolotl needs Axolotl: pip install axolotl") from error


class NumberLossArgs(BaseModel):
    """Keys of Axolotl's YAML: the loss's class, and the options of its constructor."""

    number_loss: str
    number_loss_options: dict[str, Any] | None = None


class NumberLossPlugin(BasePlugin):
    """Plug-in that gives Axolotl's trainer a number loss."""

    def get_input_args(self) -> str:
        """Path of the class with the plug-in's keys."""
        return f"{NumberLossArgs.__module__}.{NumberLossArgs.__name__}"

    def post_trainer_create(self, cfg: Any, trainer: Any) -> None:
        """Install the loss in the trainer.

        Raises:
            ValueError: see `ntil.integrations.hf_trainer.use_loss`; or a setting that the loss would replace.
        """
        if cfg.orpo_alpha or cfg.rl:
            raise ValueError("number_loss is for supervised fine-tuning: leave `rl` and `orpo_alpha` out")
        use_loss(trainer, cfg.number_loss, **(cfg.number_loss_options or {}))

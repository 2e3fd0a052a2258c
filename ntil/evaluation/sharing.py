"""Whether a model's prompts may share what they begin with: known of the family, looked up in the model, and tried."""

from __future__ import annotations

import inspect
from typing import Any
from weakref import WeakKeyDictionary

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from ntil.collator import Collator, pad_id
from ntil.config.errors import ConfigError
from ntil.evaluation.shared_prompts import Layout, Prompt, attention_of, read_questions
from ntil.models.base import Family, unwrapped

ARGUMENTS = ("attention_mask", "position_ids", "past_key_values", "logits_to_keep")
TRIED = "0 1 2 3 4 5 6 7 8 9"
_EXACT: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()


def shares_prompts(choice: bool | None, model: Any, collator: Collator) -> bool:
    """Whether prompts share: as `evaluation.share_prompts` says; null: where the answers stay the same.

    Raises:
        ConfigError: they are to, and can't.
    """
    if choice is False:
        return False
    reason = refusal(model, collator.family)
    if reason is not None and choice:
        raise ConfigError(f"evaluation.share_prompts=true: {reason}; leave it null")
    return reason is None


def refusal(model: Any, family: Family) -> str | None:
    """Why prompts of this model can't share a beginning; None: they can."""
    name = type(family).__name__
    if not family.causal:
        return f"{name} reads a prompt in both directions, so its picture sees the question"
    attention = attention_of(model)
    if attention not in ("sdpa", "eager"):
        return f"model.attn_implementation={attention} can't keep questions apart; only sdpa and eager can"
    base = unwrapped(model)
    taken = inspect.signature(base.forward).parameters
    if missing := [argument for argument in ARGUMENTS if argument not in taken]:
        return f"{type(base).__name__} takes no {' and no '.join(missing)}"
    layers = DynamicCache(config=model.config.get_text_config()).layers
    if any(type(layer) is not DynamicLayer for layer in layers):
        return f"{type(base).__name__} has layers that don't see every token before (a window, or a state)"
    if base not in _EXACT:
        _EXACT[base] = is_exact(model, family)
    return None if _EXACT[base] else f"{type(base).__name__} gives other logits where two questions share a beginning"


@torch.no_grad()
def is_exact(model: Any, family: Family) -> bool:
    """Try it with two short questions: the logits must be those of each alone, up to the rounding of the dtype."""
    ids = list(family.tokenizer(TRIED).input_ids)
    prompt = Prompt(ids[:4], [ids[4:6], ids[6:9]], {}, 4)
    layout = Layout.of([prompt], 0, pad_id(family), model.device)
    _, shared = read_questions(model, family, [prompt], layout)
    rows = [torch.tensor([[*prompt.beginning, *question]], device=model.device) for question in prompt.questions]
    alone = torch.stack([unwrapped(model)(input_ids=row, use_cache=False).logits[0, -1] for row in rows])
    exact = alone.dtype == torch.float32 and not torch.is_autocast_enabled(model.device.type)
    off = (shared[0].float() - alone.float()).abs().max()
    return bool(off <= (1e-4 if exact else 5e-2) * alone.float().abs().max())

"""MiniCPM3-4B (OpenBMB, 2024): transformers' own class, multi-head latent attention, hence other layers to adapt."""

from __future__ import annotations

from typing import ClassVar

from ntil.models.causal_lm import CausalLM


class MiniCPM3(CausalLM):
    """Family of MiniCPM3; arguments as `CausalLM`."""

    lora_targets: ClassVar[dict[str, tuple[str, ...]]] = {
        "language": (
            "q_a_proj",
            "q_b_proj",
            "kv_a_proj_with_mqa",
            "kv_b_proj",
            "o_proj",
            "gate_proj",
            "up_proj",
            "down_proj",
        )
    }

"""From the typed config to `TrainingArguments`, with DeepSpeed's part made here and nowhere else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from ntil.config import EngineConfig, RunConfig


def training_arguments(run: RunConfig, folder: Path) -> TrainingArguments:
    optim, engine = run.optim, run.engine
    return TrainingArguments(
        output_dir=str(folder),
        seed=run.seed,
        data_seed=run.seed,
        max_steps=optim.steps,
        per_device_train_batch_size=optim.batch_size,
        gradient_accumulation_steps=optim.accumulation,
        learning_rate=optim.lr,
        lr_scheduler_type="cosine_with_min_lr",
        lr_scheduler_kwargs={"min_lr_rate": optim.min_lr_ratio},
        warmup_steps=optim.warmup,
        weight_decay=optim.weight_decay,
        adam_beta1=optim.betas[0],
        adam_beta2=optim.betas[1],
        max_grad_norm=optim.clip,
        optim="adamw_torch",
        bf16=engine.dtype == "bfloat16",
        fp16=engine.dtype == "float16",
        gradient_checkpointing=engine.gradient_checkpointing,
        deepspeed=deepspeed_config(engine, optim.clip) if engine.zero is not None else None,
        ddp_backend="gloo" if engine.device == "cpu" else None,
        use_cpu=engine.device == "cpu",
        dataloader_num_workers=engine.workers,
        dataloader_pin_memory=torch.cuda.is_available(),
        remove_unused_columns=False,
        label_names=[],
        logging_steps=run.log_every,
        logging_nan_inf_filter=False,
        eval_strategy="steps" if run.evaluation.every else "no",
        eval_steps=run.evaluation.every or None,
        save_strategy="steps" if run.save_every else "no",
        save_steps=run.save_every or 500,
        report_to=[],
        disable_tqdm=True,
    )


def deepspeed_config(engine: EngineConfig, clip: float) -> dict[str, Any]:
    """ZeRO with torch's AdamW (the same optimizer for every engine); batch and accumulation are filled in by HF."""
    return {
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": clip,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "zero_optimization": {"stage": engine.zero, "overlap_comm": False},
        "bf16": {"enabled": engine.dtype == "bfloat16"},
        "fp16": {"enabled": engine.dtype == "float16"},
        "steps_per_print": 1 << 30,
        "wall_clock_breakdown": False,
    }

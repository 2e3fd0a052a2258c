"""`TrainingArguments` and DeepSpeed's configuration of a run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments
from transformers.integrations.deepspeed import set_hf_deepspeed_config, unset_hf_deepspeed_config

from data.common.cores import usable_cores
from ntil.compat import skip_deepspeed_shm_build
from ntil.config.errors import ConfigError
from ntil.config.schema import EngineConfig, RunConfig
from ntil.distributed.ranks import Ranks
from ntil.models.optimizers import optimizer_arguments, schedule_arguments


def training_arguments(run: RunConfig, folder: Path, weights: torch.dtype = torch.float32) -> TrainingArguments:
    """Arguments of Hugging Face's Trainer; `weights` is the dtype that the model is loaded in.

    Raises:
        ConfigError: the batch doesn't divide over the ranks of this process group.
    """
    optim, engine = run.optim, resolve_compute_dtype(run.engine, weights)
    ranks = Ranks.here().count
    pieces = ranks * engine.accumulation
    # HF accepts bfloat16 without a GPU only with use_cpu.
    on_cpu = engine.device == "cpu" or not torch.cuda.is_available()
    if optim.batch_size % pieces:
        raise ConfigError(f"optim.batch_size={optim.batch_size} doesn't divide by {pieces} (ranks x accumulation)")
    if engine.zero_stage is not None:
        skip_deepspeed_shm_build()
    return TrainingArguments(
        output_dir=str(folder),
        seed=run.seed,
        data_seed=run.seed,
        max_steps=optim.steps_for(None) or 1,  # epochs become steps where the rows are known, see `build_trainer`
        per_device_train_batch_size=optim.batch_size // pieces,
        gradient_accumulation_steps=engine.accumulation,
        **optimizer_arguments(optim),
        lr_scheduler_kwargs=schedule_arguments(optim, optim.steps_for(None) or 1),  # again where the rows are known
        bf16=engine.dtype == "bfloat16",
        fp16=engine.dtype == "float16",
        gradient_checkpointing=engine.gradient_checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False} if engine.gradient_checkpointing else None,
        deepspeed=deepspeed_config(engine, optim.max_grad_norm) if engine.zero_stage is not None else None,
        # Towers have layers whose output is unused; HF would not look for these under gradient checkpointing.
        ddp_find_unused_parameters=True,
        ddp_backend="gloo" if on_cpu and ranks > 1 else None,
        use_cpu=on_cpu,
        # More than there are cores would wait for each other (torch warns of it); the rows' order doesn't depend on it.
        dataloader_num_workers=min(engine.workers, usable_cores()),
        dataloader_pin_memory=torch.cuda.is_available(),
        # Micro-batches of unequal numbers of rows can't be filled up with others.
        accelerator_config={"even_batches": run.packing.mode != "tokens"},
        remove_unused_columns=False,
        label_names=[],
        logging_steps=run.log_every,
        logging_nan_inf_filter=False,
        eval_strategy="steps" if run.evaluation.every_steps else "no",
        eval_steps=run.evaluation.every_steps or None,
        save_strategy="steps" if run.save_every else "no",
        save_steps=run.save_every or 500,
        report_to=[],
        disable_tqdm=True,
    )


def resolve_compute_dtype(engine: EngineConfig, weights: torch.dtype) -> EngineConfig:
    """Engine with the `dtype` of 16-bit weights in place of float32.

    Their products are in this dtype anyway; with it set, DeepSpeed and autocast keep trained parameters in float32.
    """
    if engine.dtype != "float32" or weights == torch.float32:
        return engine
    return replace(engine, dtype=str(weights).removeprefix("torch."))


@contextmanager
def float32_masters(model: torch.nn.Module, engine: EngineConfig) -> Iterator[None]:
    """Make trained 16-bit weights float32 within the block, as in DeepSpeed; frozen ones are not changed.

    A typical update is below the resolution of a bfloat16 weight, so most would be rounded away.
    """
    trained = [] if engine.zero_stage is not None else [p for p in model.parameters() if p.requires_grad]
    cast = [(p, p.dtype) for p in trained if p.dtype != torch.float32]
    for parameter, _ in cast:
        parameter.data = parameter.data.float()
    try:
        yield
    finally:
        for parameter, dtype in cast:
            parameter.data = parameter.data.to(dtype)


def deepspeed_config(engine: EngineConfig, clip: float) -> dict[str, Any]:
    """DeepSpeed's config: ZeRO with torch's AdamW, as for all engines; HF fills in batch size and accumulation."""
    # Overlapped sums arrive in another order: on the CPU, where equal bits are tested, there is nothing to gain.
    overlap = engine.zero_stage == 3 and engine.device != "cpu" and torch.cuda.is_available()  # DeepSpeed's default
    zero: dict[str, Any] = {"stage": engine.zero_stage, "overlap_comm": overlap}
    if engine.zero_stage == 3:
        # Thresholds from the model's width: with DeepSpeed's defaults no small model would be partitioned.
        auto = ("reduce_bucket_size", "stage3_prefetch_bucket_size", "stage3_param_persistence_threshold")
        zero |= dict.fromkeys(auto, "auto") | {"stage3_gather_16bit_weights_on_model_save": True}
    if engine.offload:
        offload = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
        zero |= {"offload_optimizer": offload, "offload_param": offload}
    return {
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": clip,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "zero_optimization": zero,
        "bf16": {"enabled": engine.dtype == "bfloat16"},
        "fp16": {"enabled": engine.dtype == "float16"},
        "steps_per_print": 1 << 30,
        "wall_clock_breakdown": False,
    }


def compile_blocks(model: torch.nn.Module) -> None:
    """Compile every repeated block in place with `torch.compile`, but not the rest (hooks, the head).

    A block compiles once for all its copies, much faster than the whole model, and lengths may vary.
    """
    for module in model.modules():
        if isinstance(module, torch.nn.ModuleList):
            for block in module:
                block.compile(dynamic=True)


@contextmanager
def zero3_init_disabled(arguments: TrainingArguments) -> Iterator[None]:
    """Build models unpartitioned within the block: ZeRO-3's partitions can't be initialised from scratch.

    Weights from a checkpoint should be read outside of it, partition by partition.
    """
    unset_hf_deepspeed_config()
    try:
        yield
    finally:
        if arguments.deepspeed is not None:
            set_hf_deepspeed_config(arguments.hf_deepspeed_config)


def release_deepspeed(trainer: Any) -> None:
    """Free DeepSpeed's engine, so that models loaded afterwards are not partitioned."""
    unset_hf_deepspeed_config()
    trainer.accelerator.free_memory(trainer.model_wrapped, trainer.optimizer)
    trainer.model = trainer.model_wrapped = trainer.deepspeed = trainer.optimizer = trainer.lr_scheduler = None

"""One run in one process (or one rank of it): `python -m ntil.worker <run folder>`, from the folder's frozen config.

Exit codes: 0 done, 130 interrupted with a checkpoint to resume from, 1 failed with the traceback in error.txt.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

from ntil.interrupt import Interrupt
from ntil.runs import RunFolder, environment, write


def main(folder: Path) -> int:
    run = RunFolder(folder)
    interrupt = Interrupt().install()
    run.error.unlink(missing_ok=True)
    try:
        _quiet()
        _train(run, interrupt)
    except KeyboardInterrupt:
        return Interrupt.EXIT_CODE
    except Exception:
        text = traceback.format_exc()
        write(run.error, text)
        sys.stderr.write(text)
        return 1
    return 0


def _quiet() -> None:
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=UserWarning, module="torch")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DS_ACCELERATOR", "cpu" if not _has_cuda() else "cuda")
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    os.environ.setdefault("DEEPSPEED_LOG_LEVEL", "error")


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def _train(run: RunFolder, interrupt: Interrupt) -> None:
    import torch
    from transformers import set_seed
    from transformers.utils import logging as hf_logging

    from ntil.config import typed
    from ntil.session import Session
    from ntil.tracking import Tracking

    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
    config = run.config()
    settings = typed(config)
    if settings.engine.threads:
        torch.set_num_threads(settings.engine.threads)
    write(run.path / "environment.json", json.dumps(environment(), indent=1))
    session = Session.build(config)
    set_seed(settings.seed)
    tracker = Tracking(config, run.path)
    metrics = None
    try:
        seconds = _fit(run, config, session, interrupt, tracker)
        metrics = _test(run, config, session, interrupt, seconds)
        write(run.metrics, json.dumps(metrics, indent=1))
    finally:
        tracker.finish(metrics)


def _fit(run: RunFolder, config: dict[str, Any], session: Any, interrupt: Interrupt, tracker: Any) -> float:
    """Train from the newest complete checkpoint to the end and save the model; returns the seconds of this call."""
    from transformers import PrinterCallback

    from ntil.config import typed
    from ntil.evaluate import records, teacher_forced
    from ntil.train.callbacks import Checkpoints, Guard, History, Progress, complete_checkpoints
    from ntil.train.engine import training_arguments
    from ntil.train.sampler import CurriculumSampler
    from ntil.train.trainer import NumberTrainer
    from ntil.tuning import save

    settings = typed(config)
    optim, evaluation = settings.optim, settings.evaluation
    arguments = training_arguments(settings, run.checkpoints)
    rows = session.task.rows("train")
    column = settings.curriculum.column
    sampler = CurriculumSampler(
        len(rows),
        optim.steps,
        optim.batch_size * optim.accumulation * arguments.world_size,
        settings.seed,
        settings.curriculum,
        rows[column] if column in rows.column_names else None,
    )
    share = session.coverage([rows[i] for i in range(min(16, len(rows)))])
    held_out = session.task.rows("validation") if evaluation.every else None
    held_out = held_out.select(range(min(len(held_out), evaluation.validation_rows))) if held_out else None
    guard = Guard(interrupt)

    def validate() -> dict[str, float]:
        assert held_out is not None
        size = evaluation.batch_size
        found = records(model, session.collator, held_out, size, check=lambda: None)
        scores = session.task.summarize(found)
        forced = teacher_forced(trainer.head, model, session.collator, session.loss, held_out, size)
        return {**scores, **forced}

    title = f"{config['loss']['name']} seed {settings.seed}"
    callbacks = [
        History(run.history),
        guard,
        Progress(title, session.task.metric),
        Checkpoints(settings.keep_checkpoints),
    ]
    model, kept = _model(run, config, session, arguments.process_index == 0)
    trainer = NumberTrainer(
        model=model,
        eval_dataset=held_out,
        args=arguments,
        train_dataset=rows,
        data_collator=session.collator,
        callbacks=[*callbacks, tracker],
        number_loss=session.loss,
        sampler=sampler,
        validate=validate,
    )
    print(f"{title}: {len(rows):,} rows, {share:.0%} of the answer tokens are digits")
    started = time.perf_counter()
    trainer.remove_callback(PrinterCallback)
    found = complete_checkpoints(run.checkpoints)
    if found:
        print(f"{title}: resumed from {found[0].name}")
    trainer.train(resume_from_checkpoint=str(found[0]) if found else None)
    if kept:
        print(f"{title}: vision features: {kept.hits:,} read, {kept.misses:,} computed")
    if guard.interrupted:
        raise KeyboardInterrupt
    if trainer.is_world_process_zero():
        save(trainer.accelerator.unwrap_model(trainer.model), session.family, run.model)
    return time.perf_counter() - started


def _model(run: RunFolder, config: dict[str, Any], session: Any, shows: bool) -> tuple[Any, Any]:
    """The model to train, with what moves printed per part, and the cache of its vision features, if any."""
    from rich.console import Console

    from ntil.config import typed
    from ntil.tuning import save_base, table, tune

    settings = typed(config)
    tuning = settings.tuning
    model = session.family.load()
    if tuning.mode == "lora" and not config["model"].get("checkpoint"):
        save_base(model, session.family, run.model)
    model = tune(model, session.family, tuning)
    if shows:
        Console().print(table(model, session.family))
    return model, _vision_cache(settings, session, model)


def _vision_cache(settings: Any, session: Any, model: Any) -> Any:
    from ntil.tuning import keeps
    from ntil.vision_cache import attach

    if not keeps(settings.tuning, session.family, "vision"):
        return None
    return attach(session.family, model, settings.vision_cache_gb)


def _test(
    run: RunFolder, config: dict[str, Any], session: Any, interrupt: Interrupt, seconds: float
) -> dict[str, float]:
    from ntil.config import typed
    from ntil.evaluate import evaluate_to, records
    from ntil.session import device, saved_model

    settings = config["evaluation"]
    model = saved_model(session, run.model).to(device())
    _vision_cache(typed(config), session, model)
    rows = session.task.rows(settings["split"])
    title = f"{config['loss']['name']} on {settings['split']}"
    found = records(model, session.collator, rows, settings["batch_size"], title, interrupt.check)
    return {**evaluate_to(run.predictions, found, session.task.summarize), "train_seconds": seconds}


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))

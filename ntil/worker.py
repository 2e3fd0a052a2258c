"""One run in one process, or one rank of it: `python -m ntil.worker <run folder>`, from the folder's frozen config.

`ntil train` starts it; torchrun and DeepSpeed's launcher can. Only rank 0 prints; what the others would print lies in
<run folder>/logs.

Exit codes: 0 done, 130 interrupted (Ctrl-C, SIGTERM, a file `stop` in the folder) with a checkpoint to resume from,
1 failed with the traceback (of a mistake in the config, one sentence) in error.txt.
"""

from __future__ import annotations

import ctypes
import gc
import json
import logging
import os
import signal
import sys
import traceback
import warnings
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from ntil.advice import advice
from ntil.checkpoints import complete_checkpoints, remove_incomplete
from ntil.config import ConfigError
from ntil.interrupt import Interrupt
from ntil.launch import LAUNCHER
from ntil.ranks import Ranks
from ntil.runs import RunFolder, environment, read_jsonl, write


def main(folder: Path) -> int:
    run, ranks = RunFolder(folder), Ranks.here()
    interrupt = Interrupt(run.stop).install()
    _end_with_launcher()
    if not ranks.first:
        _print_to(run.path / "logs" / f"rank{ranks.index}.log")
    elif ranks.count == 1:
        run.error.unlink(missing_ok=True)
    try:
        _quiet()
        _train(run, interrupt, ranks)
    except KeyboardInterrupt:
        return Interrupt.EXIT_CODE
    except Exception as error:
        text = _told(error)
        # After the model is saved, what fails is its evaluation.
        what = advice(error, run.config(), evaluating=(run.model / "config.json").exists())
        text += f"{what}\n" if what else ""
        if ranks.count == 1:
            remove_incomplete(run.checkpoints)  # what may fill the disk is of no use, and error.txt needs room
        run.fail(f"rank {ranks.index} of {ranks.count}\n{text}" if ranks.count > 1 else text)
        if LAUNCHER not in os.environ or not ranks.first:
            sys.stderr.write(text)
        return 1
    return 0


def _told(error: Exception) -> str:
    """The traceback; of a mistake in the config, which needs none, its own sentence."""
    return f"{type(error).__name__}: {error}\n" if isinstance(error, ConfigError) else traceback.format_exc()


def _end_with_launcher() -> None:
    """Have the kernel ask this process to save and end when its launcher dies (Linux)."""
    launcher = os.environ.get(LAUNCHER)
    if launcher is None or not sys.platform.startswith("linux"):
        return
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)
    if os.getppid() != int(launcher):
        os.kill(os.getpid(), signal.SIGTERM)


def _print_to(file: Path) -> None:
    file.parent.mkdir(exist_ok=True)
    with file.open("a") as log:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(log.fileno(), stream.fileno())


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


def _train(run: RunFolder, interrupt: Interrupt, ranks: Ranks) -> None:
    import torch
    from transformers import set_seed
    from transformers.utils import logging as hf_logging

    from ntil.config import typed
    from ntil.session import Session
    from ntil.tracking import SHOWN, Tracking

    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
    config = run.config()
    settings = typed(config)
    if settings.engine.threads:
        torch.set_num_threads(settings.engine.threads)
    if ranks.first:
        write(run.path / "environment.json", json.dumps(environment(), indent=1))
    session = Session.build(config)
    set_seed(settings.seed)
    tracker = Tracking(config, run.path)
    metrics = None
    try:
        fitted = _fit(run, config, session, interrupt, tracker, ranks)
        metrics = _test(run, config, session, interrupt, fitted, ranks)
        if metrics is not None:
            rows = session.task.rows(settings.evaluation.split)
            tracker.predictions(session.task, rows, list(islice(read_jsonl(run.predictions), SHOWN)))
            write(run.metrics, json.dumps(metrics, indent=1))
    finally:
        tracker.finish(metrics)
    ranks.barrier()


@dataclass(frozen=True)
class Fitted:
    """What training leaves to the evaluation beside the saved model."""

    seconds: float
    device: Any


def _fit(
    run: RunFolder, config: dict[str, Any], session: Any, interrupt: Interrupt, tracker: Any, ranks: Ranks
) -> Fitted:
    """Train from the newest complete checkpoint to the end and save the model."""
    from transformers import PrinterCallback

    from ntil.config import typed
    from ntil.evaluate import dealt_records, teacher_forced
    from ntil.fingerprint import check_data
    from ntil.train.callbacks import Checkpoints, Guard, History, Progress
    from ntil.train.engine import float32_masters, training_arguments, without_deepspeed
    from ntil.train.guards import FiniteCheck, Spikes
    from ntil.train.sampler import CurriculumSampler
    from ntil.train.trainer import NumberTrainer
    from ntil.tuning import gathered, save

    settings = typed(config)
    optim, evaluation = settings.optim, settings.evaluation
    arguments = training_arguments(settings, run.checkpoints, session.family.dtype)
    with arguments.main_process_first(desc="rows"):  # that renders or reads what the others then find in the cache
        rows = session.task.rows("train")
        held_out = session.task.rows("validation") if evaluation.every else None
        # A split that is not there is said now, not after training.
        splits = {"train": rows, evaluation.split: session.task.rows(evaluation.split)}
    column = settings.curriculum.column
    sampler = CurriculumSampler(
        len(rows),
        optim.steps,
        optim.batch_size,
        settings.seed,
        settings.curriculum,
        rows[column][:] if column in rows.column_names else None,
    )
    if ranks.first and session.task.skipped:
        write(run.skipped, "".join(f"{line}\n" for line in session.task.skipped))
        print(f"{len(session.task.skipped)} broken rows left out, see {run.skipped}")
    if ranks.first:
        resuming = bool(complete_checkpoints(run.checkpoints))
        check_data(run.path / "data.json", splits, resuming, settings.accept_changes)
    share = _checked(session, config, splits)
    held_out = held_out.select(range(min(len(held_out), evaluation.validation_rows))) if held_out else None
    guard = Guard(interrupt, ranks)

    def validate() -> dict[str, float]:
        assert held_out is not None
        size = evaluation.batch_size
        own = list(dealt_records(model, session.collator, held_out, size, ranks))
        everyone = sorted((found for part in ranks.gather(own) for found in part), key=lambda found: found[0])
        scores = session.task.summarize(record for _, record in everyone)
        forced = teacher_forced(trainer.head, model, session.collator, held_out, size, ranks)[0]
        return {**scores, **forced}

    title = f"{config['loss']['name']} seed {settings.seed}"
    checkpoints = Checkpoints(
        settings.keep_checkpoints,
        ranks,
        session.task.metric,
        session.task.greater_is_better,
        {"ranks": ranks.count, "zero": settings.engine.zero},
    )
    callbacks = [Spikes(), History(run.history), guard, Progress(title, session.task.metric), checkpoints]
    model, kept = _model(run, config, session, arguments, ranks.first)
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
        finite=FiniteCheck(run.path / "replay", _replayable(session, ranks)),
    )
    tracker.note({"coverage": share})
    if ranks.first:
        print(f"{title}: {len(rows):,} rows, {share:.0%} of the answer tokens are digits")
    trainer.remove_callback(PrinterCallback)
    if ranks.first:
        remove_incomplete(run.checkpoints)
    ranks.barrier()
    found = complete_checkpoints(run.checkpoints)
    if found and ranks.first:
        print(f"{title}: resumed from {found[0].name}")
    with float32_masters(model, settings.engine):
        trainer.train(resume_from_checkpoint=str(found[0]) if found else None)
    if kept:
        print(f"{title}: vision features: {kept.hits:,} read, {kept.misses:,} computed")
    if guard.interrupted:
        raise KeyboardInterrupt
    model = trainer.accelerator.unwrap_model(trainer.model)
    with gathered(model) as writes:
        if writes:
            save(model, session.family, run.model)
    fitted = Fitted(checkpoints.seconds, arguments.device)
    ranks.barrier()
    without_deepspeed(trainer)
    return fitted


def _checked(session: Any, config: dict[str, Any], splits: dict[str, Any]) -> float:
    """Share of the answer tokens that the loss sees as digits.

    Raises:
        ConfigError, ValueError: none of them, or rows too long, which training would say only where it meets them.
    """
    from ntil.spread import spread

    # Tasks without the key know their longest answer, or should.
    remedy = f"{'set task' if 'max_new_tokens' in config['task'] else config['task']['target']}.max_new_tokens"
    some = {split: spread(rows) for split, rows in splits.items()}
    for split, rows in some.items():
        session.check_lengths(split, rows, remedy)
    session.check_longest(splits[config["evaluation"]["split"]])
    return session.coverage(some["train"])


def _replayable(session: Any, ranks: Ranks) -> Any:
    """How a rank that is alone saves the weights of a loss that is not finite; None for one that holds only a share."""
    from ntil.tuning import save

    return (lambda model, folder: save(model, session.family, folder)) if ranks.count == 1 else None


def _model(run: RunFolder, config: dict[str, Any], session: Any, arguments: Any, first: bool) -> tuple[Any, Any]:
    """The model to train, and the cache of its vision features, if any. The first rank prints what moves, per part."""
    from rich.console import Console

    from ntil.config import typed
    from ntil.train.engine import compile_blocks, whole_models
    from ntil.tuning import save_base, table, tune

    settings = typed(config)
    tuning = settings.tuning
    scratch = not config["model"].get("checkpoint")
    with whole_models(arguments) if scratch else nullcontext():
        model = session.family.load()
    if tuning.mode == "lora" and scratch:
        save_base(model, session.family, run.model)
    model = tune(model, session.family, tuning)
    if settings.engine.compile:
        compile_blocks(model)
    if first:
        Console().print(table(model, session.family))
    return model, _vision_cache(settings, session, model)


def _vision_cache(settings: Any, session: Any, model: Any) -> Any:
    from ntil.tuning import keeps
    from ntil.vision_cache import attach

    if not keeps(settings.tuning, session.family, "vision"):
        return None
    return attach(session.family, model, settings.vision_cache_gb)


def _test(
    run: RunFolder, config: dict[str, Any], session: Any, interrupt: Interrupt, fitted: Fitted, ranks: Ranks
) -> dict[str, float] | None:
    """Score the saved model, every rank on its share with the whole model; rank 0 has the metrics."""
    from ntil.config import typed
    from ntil.evaluate import dealt_records, evaluate_dealt, teacher_forced
    from ntil.session import saved_model
    from ntil.train.trainer import SupervisedHead

    gc.collect()  # the trainer's copy of the model
    settings = config["evaluation"]
    model = saved_model(session, run.model).to(fitted.device)
    _vision_cache(typed(config), session, model)
    rows = session.task.rows(settings["split"])
    title = f"{config['loss']['name']} on {settings['split']}" if ranks.first else None
    size = settings["batch_size"]
    found = dealt_records(model, session.collator, rows, size, ranks, title, lambda: interrupt.check(ranks))
    metrics = evaluate_dealt(run.predictions, found, session.task.summarize, ranks)
    forced, digits = teacher_forced(SupervisedHead(model), model, session.collator, rows, size, ranks)
    if metrics is None:
        return None
    write(run.digits, json.dumps(digits))
    return {**metrics, **forced, "train_seconds": fitted.seconds}


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))

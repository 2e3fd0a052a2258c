"""One run from its frozen configuration to its metrics, on one rank. Read `run` from top to bottom."""

from __future__ import annotations

import gc
import json
import shutil
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from rich.console import Console
from transformers import TrainerCallback, TrainingArguments, set_seed

from data.common.counts import counted
from data.common.files import write_text
from data.common.rows import sample_rows
from ntil.components import Components
from ntil.config.errors import ConfigError
from ntil.config.schema import RunConfig
from ntil.console import epochs
from ntil.distributed.interrupt import Interrupt
from ntil.distributed.ranks import Ranks
from ntil.evaluation.generate import evaluate_sharded
from ntil.evaluation.pictures import with_pictures
from ntil.evaluation.sets import batch_sizes, evaluation_sets, first_rows, predict_sets, teacher_forced_sets
from ntil.evaluation.usable_rows import usable_rows
from ntil.models.head import SupervisedHead
from ntil.models.optimizers import warmup_remark
from ntil.models.saving import save, save_base, whole_model
from ntil.models.tuning import is_frozen, parameter_table, tune
from ntil.models.vision_cache import VisionCache, attach
from ntil.runs.checkpoints import complete_checkpoints, flush_to_disk, remove_incomplete, remove_leftovers
from ntil.runs.code import check_code
from ntil.runs.data_fingerprint import check_data
from ntil.runs.environment import environment
from ntil.runs.folder import RunFolder, read_json, read_jsonl
from ntil.runs.inputs import check_start, inputs
from ntil.runs.variables import removed_variables
from ntil.train.arguments import (
    compile_blocks,
    float32_masters,
    release_deepspeed,
    training_arguments,
    zero3_init_disabled,
)
from ntil.train.best import BestWeights
from ntil.train.callbacks import Checkpoints, History, Progress, SaveWhenDue, StopOnInterrupt
from ntil.train.evaluation import load_tested
from ntil.train.guards import FiniteCheck, LossSpikes
from ntil.train.libraries import set_up_libraries
from ntil.train.order import mixture_lines
from ntil.train.phases import chosen_rows, listening_callbacks, phase
from ntil.train.trackers import Trackers
from ntil.train.trainer import NumberTrainer, build_trainer
from ntil.train.validation import Validation


def run(folder: RunFolder, interrupt: Interrupt, ranks: Ranks) -> bool:
    """Train and save the run that is frozen in `folder`, then test it.

    Returns:
        Whether a fresh process has to go on with the same call: the model is saved, and its test would share the
        memory with what is left of the training.

    Raises:
        KeyboardInterrupt: an interrupt was requested; the same call resumes from what is saved.
        UserError: an error that shows only in the data or the checkpoint.
    """
    config = folder.config()
    set_up_libraries(config.engine.threads)
    if ranks.first:
        _record_environment(folder)
    components = Components.build(config)
    if ranks.first:
        begun = folder.trained.exists() or bool(complete_checkpoints(folder.checkpoints))
        check_code(folder.code, config, begun, config.accept_changes)
        # A model that is saved whole needs no base any more; adapters and a training that goes on do.
        if begun and (not folder.trained.exists() or config.tuning.mode == "lora"):
            check_start(folder, config, config.accept_changes)
    set_seed(config.seed)
    trackers = Trackers(config, folder.path, ranks)
    metrics, goes_on = None, False
    try:
        if not components.loss.trains:
            leave_untrained(folder, config, components, ranks)
        elif not folder.trained.exists():
            train(folder, config, components, trackers, interrupt, ranks)
            goes_on = _test_needs_fresh_process(ranks)
        if goes_on:
            trackers.pause()
        else:
            metrics = test(folder, config, components, trackers, interrupt, ranks)
    finally:
        trackers.finish(metrics, interrupt.requested)
    ranks.barrier()
    if metrics is not None:
        remove_leftovers(folder, config)
    return goes_on


def _test_needs_fresh_process(ranks: Ranks) -> bool:
    """Whether a trainer that is deleted would still hold memory that matters.

    DeepSpeed's engine, its hooks and the parameters hold each other: 22 bytes a parameter stay alive (version 0.19.8).
    One rank on the CPU is a model of nano size, for which the start of a process would take longer than its test.
    """
    return ranks.count > 1 or torch.cuda.is_available()


def train(
    folder: RunFolder,
    config: RunConfig,
    components: Components,
    trackers: Trackers,
    interrupt: Interrupt,
    ranks: Ranks,
) -> None:
    """Train the model and save it, with the mark that says so."""
    arguments = training_arguments(config, folder.checkpoints, components.family.dtype)
    data = read_data(config, components, arguments).usable(config, components, ranks, interrupt)
    coverage = check_before_training(folder, config, components, data, ranks)
    trackers.note(coverage)
    model, vision_cache = load_model(folder, config, components, arguments, ranks)
    watch = Watch.over(folder, config, components, model, interrupt, ranks)
    trainer = build_trainer(
        config,
        components,
        model,
        data.train,
        folder.checkpoints,
        arguments=arguments,
        validation=next(iter(data.validation.values()), None),
        validate=Validation.of(folder, config, components, data.validation, ranks),
        callbacks=[*watch.callbacks, trackers, *listening_callbacks()],
        finite=watch.finite,
    )
    fit(folder, config, trainer, watch, ranks)
    save_model(folder, components, trainer, watch, ranks)
    if watch.interrupts.interrupted:
        raise KeyboardInterrupt
    if vision_cache is not None:
        print(f"vision features: {vision_cache.hits:,} read, {vision_cache.misses:,} computed")
    release_deepspeed(trainer)


def leave_untrained(folder: RunFolder, config: RunConfig, components: Components, ranks: Ranks) -> None:
    """Record the data of a test without training, as a training records its own; no weights are saved."""
    if ranks.first:
        rows = {config.evaluation.split: components.task.rows(config.evaluation.split)}
        check_data(folder.data, rows, False, False, components.task.origins(rows))
        write_text(folder.inputs, json.dumps(inputs(config)))
        write_text(folder.trained, json.dumps({"step": 0, "seconds": 0.0}))
    ranks.barrier()


def _record_environment(folder: RunFolder) -> None:
    write_text(folder.environment, json.dumps(environment(), indent=1))
    if removed := removed_variables():
        names = ", ".join(f"{name}={value}" for name, value in removed.items())
        print(f"left out of the environment, since the configuration decides: {names}")


@dataclass(frozen=True)
class Data:
    """Splits of a run. validation: split -> the rows that are scored during training; empty without validation."""

    train: Dataset
    validation: dict[str, Dataset]
    test: Dataset

    def usable(self, config: RunConfig, components: Components, ranks: Ranks, interrupt: Interrupt) -> Data:
        """The rows that the model can use, the same on all ranks.

        Raises:
            UserError: see `usable_rows`.
        """

        def of(split: str, rows: Dataset) -> Dataset:
            return usable_rows(config, components, split, rows, ranks, interrupt)

        held_out = {split: of(split, rows) for split, rows in self.validation.items()}
        return Data(of("train", self.train), held_out, of(config.evaluation.split, self.test))


@phase("data")
def read_data(config: RunConfig, components: Components, arguments: TrainingArguments) -> Data:
    """Read every split that the run needs, so that a missing one is reported before training."""
    evaluation, task = config.evaluation, components.task
    with arguments.main_process_first(desc="rows"):  # it renders or reads what the others then find in the cache
        train = chosen_rows(task, "train")
        held_out = {split: chosen_rows(task, split) for split in evaluation.validated}
        tested = chosen_rows(task, evaluation.split)
    first = {split: first_rows(task, rows, evaluation.validation_rows) for split, rows in held_out.items()}
    return Data(train, first, tested)


def check_before_training(
    folder: RunFolder, config: RunConfig, components: Components, data: Data, ranks: Ranks
) -> dict[str, float]:
    """Check the data against config and components, before training would fail on it.

    Returns:
        `coverage`, the share of the answer tokens that the loss sees as digits; of a mixture that of every task too.

    Raises:
        ConfigError: data that changed since the checkpoint, or no digits.
    """
    task = components.task
    if ranks.first and task.skipped:
        write_text(folder.skipped, "".join(f"{line}\n" for line in task.skipped))
        print(f"{counted(len(task.skipped), 'row')} left out, see {folder.skipped}")
    splits = {"train": data.train, config.evaluation.split: data.test}
    if ranks.first:
        resuming = bool(complete_checkpoints(folder.checkpoints))
        check_data(folder.data, splits, resuming, config.accept_changes, task.origins(splits))
        before = read_json(folder.inputs) if resuming else {}
        # What the run started from stays what it was, also where it isn't here any more; accepted changes replace it.
        started = {key: files for key, files in before.items() if key.startswith("model.")}
        now = inputs(config)
        write_text(folder.inputs, json.dumps({**started, **now} if config.accept_changes else {**now, **started}))
    coverage = coverage_by_task(components, data.train)
    if ranks.first:
        length = _write_length(folder, config, len(data.train))
        digits = ", ".join(f"{share:.0%}{f' ({name})' if name else ''}" for name, share in coverage.items())
        print(f"{length}, {digits} of the answer tokens are digits")
        steps = config.optim.steps_for(len(data.train)) or 0
        if steps != config.optim.steps and (remark := warmup_remark(config.optim, steps)):
            print(f"warning: {remark}")
        drawn = steps * config.optim.batch_size
        for line in mixture_lines(components.task, data.train, drawn):
            print(line)
    return {f"coverage/{name}" if name else "coverage": share for name, share in coverage.items()}


def coverage_by_task(components: Components, rows: Dataset) -> dict[str, float]:
    """Share of the answer tokens of each task that the loss sees as digits; of a single task under an empty name.

    Raises:
        ConfigError: the loss needs numbers or boxes, and no task has any.
    """
    shares: dict[str, float] = {}
    refused: dict[str, ConfigError] = {}
    for name, part in components.task.by_member(rows).items():
        member, sample = components.members[name], sample_rows(part)
        for remark in member.remarks(sample):
            print(f"warning: {f'{name}: ' if name else ''}{remark}")
        try:
            shares[name] = member.coverage(sample)
        except ConfigError as error:
            refused[name] = error
    for name, refusal in refused.items():
        if not shares:
            raise refusal
        print(f"warning: {name}: {refusal}; this task is trained by cross-entropy alone")
    return shares


def _write_length(folder: RunFolder, config: RunConfig, rows: int) -> str:
    """Record the rows, steps and epochs of the training; the same as text."""
    steps = config.optim.steps_for(rows)
    assert steps is not None
    passes = round(steps * config.optim.batch_size / rows, 3)
    write_text(folder.length, json.dumps({"rows": rows, "steps": steps, "epochs": passes}))
    return f"{counted(rows, 'row', form=',')}, {counted(steps, 'step', form=',')} ({epochs(passes)})"


@phase("load")
def load_model(
    folder: RunFolder, config: RunConfig, components: Components, arguments: TrainingArguments, ranks: Ranks
) -> tuple[Any, VisionCache | None]:
    """Load the model to train, and the cache of its vision features, if any; rank 0 prints the trainable parameters."""
    family = components.family
    scratch = not config.model.options.get("checkpoint")
    with zero3_init_disabled(arguments) if scratch else nullcontext():
        model: Any = family.load()
    if not scratch:
        # How many random numbers reading a checkpoint uses up depends on the engine; adapters are drawn alike by all.
        set_seed(config.seed)
    if ranks.first:
        shutil.rmtree(folder.unfinished_model, ignore_errors=True)
    if config.tuning.mode == "lora" and scratch:
        save_base(model, family, folder.unfinished_model)
    model = tune(model, family, config.tuning)
    if config.engine.compile:
        compile_blocks(model)
    if ranks.first:
        Console().print(parameter_table(model, family))
    return model, _vision_cache(config, components, model)


def _vision_cache(config: RunConfig, components: Components, model: Any) -> VisionCache | None:
    if not is_frozen(config.tuning, components.family, "vision"):
        return None
    return attach(components.family, model, config.vision_cache_gb)


@dataclass(frozen=True)
class Watch:
    """Callbacks and checks of a training: checkpoints, history, progress, interrupts, non-finite losses.

    best: None of a run whose end and result don't depend on validations.
    """

    checkpoints: Checkpoints
    best: BestWeights | None
    interrupts: StopOnInterrupt
    finite: FiniteCheck
    callbacks: tuple[TrainerCallback, ...]

    @classmethod
    def over(
        cls,
        folder: RunFolder,
        config: RunConfig,
        components: Components,
        model: Any,
        interrupt: Interrupt,
        ranks: Ranks,
    ) -> Watch:
        task = components.task

        def keep(trained: Any, place: Path) -> None:
            save(trained, components.family, place)

        best = BestWeights.of(folder, ranks, keep, config, task.metric, task.greater_is_better)
        if best is not None:
            best.remember_dtypes(model)
        layout = {"ranks": ranks.count, "zero": config.engine.zero_stage}
        checkpoints = Checkpoints(config.keep_checkpoints, ranks, task.metric, task.greater_is_better, layout)
        interrupts = StopOnInterrupt(interrupt, ranks, validates=best is not None)
        progress = Progress(title_of(config), task.metric)
        due = SaveWhenDue(config.save_minutes, config.log_every, ranks)
        of_best = () if best is None else (best,)
        callbacks = (LossSpikes(), History(folder.history), due, interrupts, progress, *of_best, checkpoints)
        # With several ranks each may hold only a share of the weights, so they can't be saved for a replay.
        finite = FiniteCheck(folder.replay, keep if ranks.count == 1 else None)
        return cls(checkpoints, best, interrupts, finite, callbacks)


def fit(folder: RunFolder, config: RunConfig, trainer: NumberTrainer, watch: Watch, ranks: Ranks) -> None:
    """Train from the newest complete checkpoint to the end.

    Raises:
        KeyboardInterrupt: an interrupt was requested, and a checkpoint is saved.
    """
    if ranks.first:
        remove_incomplete(folder.checkpoints)
    ranks.barrier()
    checkpoints = complete_checkpoints(folder.checkpoints)
    if checkpoints and ranks.first:
        print(f"{title_of(config)}: resumed from {checkpoints[0].name}")
    with float32_masters(trainer.inner_model, config.engine):
        trainer.train(resume_from_checkpoint=str(checkpoints[0]) if checkpoints else None)
        if trainer.average is not None:
            trainer.average.apply()
    watch.interrupts.interrupt.defer()  # also of a run whose steps were all done before
    # A training that ends early in this very step has saved no checkpoint: its model is saved first.
    if watch.interrupts.interrupted and not (watch.best and watch.best.stopped_early):
        raise KeyboardInterrupt


@phase("save model")
def save_model(folder: RunFolder, components: Components, trainer: NumberTrainer, watch: Watch, ranks: Ranks) -> None:
    """Save the trained model from rank 0, or its best weights, whole or not at all; all ranks must call."""
    best = watch.best
    with whole_model(trainer.inner_model) as writes:
        if writes:
            if best is not None and best.weights is not None:
                shutil.copytree(best.weights, folder.unfinished_model, dirs_exist_ok=True)
            else:
                save(trainer.inner_model, components.family, folder.unfinished_model)
            flush_to_disk(folder.unfinished_model)  # before the mark that says it is there
            shutil.rmtree(folder.model, ignore_errors=True)
            folder.unfinished_model.rename(folder.model)
            record: dict[str, Any] = {"step": trainer.state.global_step, "seconds": watch.checkpoints.seconds}
            record |= {"rows": trainer.task_log.totals()} if trainer.task_log else {}
            write_text(folder.trained, json.dumps({**record, **(best.record() if best else {})}))
            shutil.rmtree(folder.best, ignore_errors=True)
    ranks.barrier()


@phase("evaluation")
def test(
    folder: RunFolder,
    config: RunConfig,
    components: Components,
    trackers: Trackers,
    interrupt: Interrupt,
    ranks: Ranks,
) -> dict[str, float] | None:
    """Score the saved model, every rank on its share of the rows, and write the metrics.

    Returns:
        The metrics on rank 0, None on others.
    """
    interrupt.raise_at_once()
    gc.collect()  # what is left of the training
    alone = replace(config, engine=replace(config.engine, zero_stage=None, offload=False))
    arguments = training_arguments(alone, folder.checkpoints, components.family.dtype)
    device = arguments.device  # joins the ranks of a fresh process
    rows = _test_rows(folder, config, components, arguments, interrupt, ranks)
    model = load_tested(folder, components, device)
    _vision_cache(config, components, model)
    title = f"{config.loss.name} on {config.evaluation.split}" if ranks.first else None
    sets = evaluation_sets(components, rows)
    sizes = batch_sizes(config, model, sets, ranks)
    if config.evaluation.batch_size is None and ranks.first:
        print(f"evaluation: {counted(min(sizes), 'row')} at once on a rank, from the free memory")
    records = predict_sets(model, sets, sizes, ranks, title, partial(interrupt.check, ranks), config.evaluation)
    scores = evaluate_sharded(folder.predictions, with_pictures(records, sets), components.task.summarize, ranks)
    forced, digits = teacher_forced_sets(SupervisedHead(model), model, sets, sizes, ranks)
    if scores is None:
        return None
    folder.write_digits(digits)
    trackers.predictions(components.task, rows, read_jsonl(folder.predictions))
    trained = read_json(folder.trained)
    drawn = {f"{name}/train_rows": float(count) for name, count in trained.get("rows", {}).items()}
    metrics = {**scores, **forced, **drawn, **trained_figures(trained)}
    folder.write_metrics(metrics, components.task.protocol, **components.task.protocols)
    return metrics


def _test_rows(
    folder: RunFolder,
    config: RunConfig,
    components: Components,
    arguments: TrainingArguments,
    interrupt: Interrupt,
    ranks: Ranks,
) -> Dataset:
    """The rows to test on.

    Raises:
        UserError: they can't be read, or have changed since the training began.
    """
    split = config.evaluation.split
    with arguments.main_process_first(desc="rows"):
        rows = chosen_rows(components.task, split)
    rows = usable_rows(config, components, split, rows, ranks, interrupt)  # whose fingerprint the training has noted
    if ranks.first:
        origins = components.task.origins([split])
        check_data(folder.data, {split: rows}, resuming=True, accept=config.accept_changes, origins=origins)
    return rows


def trained_figures(record: dict[str, Any]) -> dict[str, float]:
    """What metrics.json says of the training, from trained.json: its seconds.

    Of a run that may end early or tests its best weights also its steps, and the step and value of the best validation.
    """
    figures = {"train_seconds": float(record["seconds"])}
    if "best" in record:
        figures["train_steps"] = float(record["step"])
        if record["best"]["value"] is not None:
            figures |= {"train_best_step": float(record["best"]["step"]), "train_best": record["best"]["value"]}
    return figures


def title_of(config: RunConfig) -> str:
    """Title of a run in messages and progress bars."""
    return f"{config.loss.name} seed {config.seed}"

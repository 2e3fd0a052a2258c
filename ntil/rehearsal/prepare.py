"""What a rehearsal runs: the config of a run with few steps in another folder, and the longest rows of its splits."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from datasets import Dataset

from ntil.components import Components
from ntil.config.errors import ConfigError
from ntil.config.schema import CurriculumConfig, RunConfig, TrackerConfig
from ntil.evaluation.batch_size import LIMIT
from ntil.evaluation.row_check import SplitCheck
from ntil.evaluation.sets import first_rows
from ntil.evaluation.usable_rows import cached_check, usable_rows, workers_for
from ntil.preflight import rank_count
from ntil.rehearsal.packed_rows import packed_rows

FEWEST_STEPS = 3  # one to warm up, one that is timed, and one after the resume


@dataclass(frozen=True)
class SplitRows:
    """The rows of a split that a rehearsal takes.

    rows: how many the split has. indices: of those taken. longest, mean: tokens of the split's rows. taken: mean tokens
    of those taken. answer: tokens of the longest taught answer. packed: mean and taken are of packed steps.
    """

    rows: int
    indices: list[int]
    longest: int
    mean: float
    taken: float
    answer: int
    packed: bool = False

    @classmethod
    def of(cls, check: SplitCheck, count: int) -> SplitRows:
        """The `count` longest rows; where fewer than that are known, from the longest on again."""
        order = check.longest_rows
        lengths = [length for length, many in sorted(check.tokens.items(), reverse=True) for _ in range(many)]
        taken = [lengths[i % len(order)] for i in range(count)]
        mean = sum(lengths) / len(lengths)
        indices = [order[i % len(order)] for i in range(count)]
        return cls(check.rows, indices, lengths[0], mean, sum(taken) / len(taken), max(check.answer_tokens))


def rehearsal_config(config: RunConfig, runs: Path, steps: int, cache_features: bool) -> RunConfig:
    """The run's config with `steps` steps below `runs`: all rows at any time, no trackers, validation at the end.

    Args:
        cache_features: keep the features of a frozen tower, as the run does.
    """
    return replace(
        config,
        runs=str(runs),
        optim=replace(
            config.optim, steps=steps, epochs=None, max_epochs=None, patience=None, min_delta=None, target=None
        ),
        evaluation=replace(
            config.evaluation, every_steps=steps if config.evaluation.every_steps else 0, validation_splits=None
        ),
        curriculum=CurriculumConfig(),
        tracker=TrackerConfig(),
        save_every=0,
        log_every=1,
        vision_cache_gb=config.vision_cache_gb if cache_features else 0.0,
        retry=False,
    )


def rows_needed(config: RunConfig, steps: int) -> dict[str, int]:
    """Rows of a rehearsal: those of its steps, and one batch a rank of each evaluation.

    Where the size of such a batch is left open, as many as a run would take at most.
    """
    batch = (config.evaluation.batch_size or LIMIT) * rank_count(config.engine)
    validated = {"validation": min(batch, config.evaluation.validation_rows)} if config.evaluation.every_steps else {}
    return {"train": config.optim.batch_size * steps, **validated, "test": batch}


def longest_rows(config: RunConfig, components: Components, steps: int) -> dict[str, SplitRows]:
    """The rows to take of every split, after the check of all rows that a training starts with.

    Of a packed run's training split those of its largest steps, where rows share pictures.

    Raises:
        UserError: a split that isn't there, or rows that the run can't use.
    """
    chosen = {}
    for field, count in rows_needed(config, steps).items():
        split = config.evaluation.split if field == "test" else field
        rows = components.task.rows(split)
        if field == "validation":
            rows = first_rows(components.task, rows, config.evaluation.validation_rows)
        usable_rows(config, components, split, rows)
        check = _check(config, components, rows)
        if not check.longest_rows:
            raise ConfigError(f"the split {split} has no row to rehearse with")
        most = count if field == "train" else min(count, len(rows))
        chosen[field] = SplitRows.of(check, most)
        if field == "train" and config.packing.shares_tokens:
            refused = [finding.index for finding in check.refused]
            packed = packed_rows(config, components, rows, refused, steps)
            chosen[field] = replace(chosen[field], packed=True, **vars(packed)) if packed else chosen[field]
    return chosen


def packing_remarks(config: RunConfig, rows: SplitRows) -> list[str]:
    """What a packed run is rehearsed on."""
    packing = f"packing={config.packing.mode}"
    if not config.packing.shares_tokens:
        return []
    if rows.packed:
        return [
            f"{packing}: the steps of a pass that have the most tokens are rehearsed, {rows.taken:.0f} a row, of "
            f"{rows.mean:.0f} on average over all steps; pictures count once a sequence, and filling counts too"
        ]
    return [
        f"{packing}: no two training rows are known to show one picture, so the longest rows are rehearsed, and how "
        "much others share isn't counted"
    ]


def _check(config: RunConfig, components: Components, rows: Dataset) -> SplitCheck:
    return cached_check(config, components, rows, False, workers_for(rows, config.engine.workers))

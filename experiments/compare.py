"""Compare two losses, paired by seed, or anybody's outputs on a task.

    ntil compare <run> <run>
    ntil compare --samples a.jsonl b.jsonl task=... [split=test] [partial=true]

Any two runs or folders of one loss's runs, paired by seed, on the same test examples. The first is the base. Runs of a
mixture are compared task by task.

--samples: files of answers, which are read and scored anew by the task, whoever wrote them: our predictions.jsonl, the
`--log_samples` of lm-evaluation-harness or lmms-eval (rows with an `id`, as `ntil data export` writes them), or lines
{"id": ..., "prediction": ...}. Several seeds of a side are separated by commas, in the same order on both sides. Every
row of the split must be there once; partial=true compares the rows that all files have in common instead.
All else (task=, model= for its coordinate format) is as for `ntil train`.
"""

from __future__ import annotations

from experiments.analysis import analyse
from experiments.cells import require_comparable, split_by_settings
from experiments.render.html import sentences
from experiments.render.tables import cell_tables
from experiments.samples import compare_samples
from ntil.config.errors import ConfigError
from ntil.runs.run import Run, read_runs


def main(arguments: list[str]) -> int:
    """Run `ntil compare`; the exit code.

    Raises:
        ConfigError: not two, nothing finished there, several losses on a side, or runs that are no comparison.
    """
    if "--samples" in arguments:
        return compare_samples([word for word in arguments if word != "--samples"])
    if len(arguments) != 2:
        raise ConfigError("ntil compare needs two runs or folders of runs: ntil compare runs/a runs/b")
    sides = [_side(folder) for folder in arguments]
    require_comparable([run for side in sides for run in side])
    names = [side[0].loss for side in sides]
    if names[0] == names[1]:
        # The same loss with other settings of its own: told apart by their folders.
        names = [f"{name} ({folder})" for name, folder in zip(names, arguments, strict=True)]
    runs = [run.with_loss(name) for side, name in zip(sides, names, strict=True) for run in side]
    seeds = [sorted({run.seed for run in side}) for side in sides]
    if not set(seeds[0]) & set(seeds[1]):
        raise ConfigError(f"no seed in common: {seeds[0]} and {seeds[1]}; comparisons are paired by seed")
    for report in analyse(runs, {}, base=names[0]):
        if report.refused:
            raise ConfigError(f"no comparison: {report.refused}")
        for table in cell_tables(report, report.metrics):
            table.print()
        for line in sentences(report):
            print(line)
    return 0


def _side(folder: str) -> list[Run]:
    runs = [run for run in read_runs(folder) if run.done]
    if not runs:
        raise ConfigError(f"{folder}: no finished run there")
    losses = sorted({run.loss for run in split_by_settings(runs)})
    if len(losses) > 1:
        raise ConfigError(f"{folder} holds runs of several losses ({', '.join(losses)}); name one of their folders")
    return runs

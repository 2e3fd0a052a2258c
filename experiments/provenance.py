"""Provenance of a report's runs: what a reader needs to reproduce them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from data.common.counts import counted
from ntil.console import duration
from ntil.runs.folder import read_json
from ntil.runs.run import Run


def describe_runs(runs: Sequence[Run]) -> list[str]:
    """Sentences on the finished runs: how many steps, from where, how long, on what code and machine."""
    done = [run for run in runs if run.done]
    if not done:
        return []
    seconds = [float(run.metrics.get("train_seconds", 0.0)) for run in done]
    environments = [_environment(run) for run in done]
    versions = [
        f"{name} {_distinct(_package(environment, name) for environment in environments)}"
        for name in ("torch", "transformers")
    ]
    return [
        f"{len(done)} of {counted(len(runs), 'run')} {'is' if len(runs) == 1 else 'are'} finished. "
        f"Training took {duration(sum(seconds))} in all, "
        f"{duration(min(seconds))} to {duration(max(seconds))} a run; start and evaluation come on top.",
        *(f"{cell[0]}, {cell[1]}: {_recipe([r for r in done if (r.task, r.model) == cell])}." for cell in _cells(done)),
        f"Commit {_distinct(e.get('commit') or 'not known' for e in environments)}; {'; '.join(versions)}; "
        f"{_counted((environment.get('cpus', 'not known') for environment in environments), 'CPU')}.",
    ]


def _recipe(runs: Sequence[Run]) -> str:
    optim = [run.config.optim for run in runs]
    seeds = "seed" if len({run.seed for run in runs}) == 1 else "seeds"
    parts = [
        f"{_counted((run.steps for run in runs), 'step')} of {_counted((o.batch_size for o in optim), 'row')}",
        f"learning rate {_distinct(o.lr for o in optim)}",
        f"{seeds} {_distinct(sorted(run.seed for run in runs))}",
        f"from {_distinct(run.config.model.options.get('checkpoint') or 'random weights' for run in runs)}",
    ]
    parts += _ends(runs)
    if any(run.config.curriculum.stages for run in runs):
        parts.append("with a curriculum")
    return ", ".join(parts)


def _ends(runs: Sequence[Run]) -> list[str]:
    """What was tested, where it isn't the weights of the last step of all: the best ones, or those of an early end."""
    records = [read_json(run.folder.trained) for run in runs]
    parts = []
    if early := [str(record["step"]) for record in records if record.get("stopped_early")]:
        parts.append(f"{len(early)} ended early, at step {', '.join(early)}")
    if best := [record for record in records if record.get("tested") == "best"]:
        where = ", ".join(f"{one['best']['step']} ({one['metric']} {one['best']['value']:.4g})" for one in best)
        parts.append(f"tested: the best weights by validation, of step {where}")
    if averaged := {run.config.optim.ema for run in runs if run.config.optim.ema is not None}:
        parts.append(f"weights averaged with decay {_distinct(sorted(averaged))}")
    return parts


def _cells(runs: Sequence[Run]) -> list[tuple[str, str]]:
    return list(dict.fromkeys((run.task, run.model) for run in runs))


def _environment(run: Run) -> dict[str, Any]:
    return read_json(run.folder.environment)


def _package(environment: dict[str, Any], name: str) -> str:
    return str(environment.get("packages", {}).get(name, "not known"))


def _counted(values: Iterable[Any], noun: str) -> str:
    different = list(dict.fromkeys(values))
    if len(different) == 1 and isinstance(different[0], int):
        return counted(different[0], noun)
    return f"{_distinct(different)} {noun}s"


def _distinct(values: Iterable[Any]) -> str:
    return ", ".join(dict.fromkeys(map(str, values)))

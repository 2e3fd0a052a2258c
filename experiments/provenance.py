"""How the runs of a report were made: what a reader needs to make them again."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from experiments.collect import Run
from ntil.lock import age


def made(runs: Sequence[Run]) -> list[str]:
    """Sentences on the finished runs: how many steps, from where, how long, on what code and machine."""
    done = [run for run in runs if run.done]
    if not done:
        return []
    seconds = [float(run.metrics.get("train_seconds", 0.0)) for run in done]
    places = [_environment(run) for run in done]
    versions = [f"{name} {_distinct(_package(place, name) for place in places)}" for name in ("torch", "transformers")]
    return [
        f"{len(done)} of {len(runs)} runs are finished. Training took {age(sum(seconds))} in all, "
        f"{age(min(seconds))} to {age(max(seconds))} a run; start and evaluation come on top.",
        *(f"{cell[0]}, {cell[1]}: {_recipe([r for r in done if (r.task, r.model) == cell])}." for cell in _cells(done)),
        f"Commit {_distinct(place.get('commit') or 'not known' for place in places)}; {'; '.join(versions)}; "
        f"{_distinct(place.get('cpus', 'not known') for place in places)} CPUs.",
    ]


def _recipe(runs: Sequence[Run]) -> str:
    optim = [run.config["optim"] for run in runs]
    parts = [
        f"{_distinct(o['steps'] for o in optim)} steps of {_distinct(o['batch_size'] for o in optim)} rows",
        f"learning rate {_distinct(o['lr'] for o in optim)}",
        f"seeds {_distinct(sorted(run.seed for run in runs))}",
        f"from {_distinct(run.config['model'].get('checkpoint') or 'random weights' for run in runs)}",
    ]
    if any(run.config["curriculum"]["stages"] for run in runs):
        parts.append("with a curriculum")
    return ", ".join(parts)


def _cells(runs: Sequence[Run]) -> list[tuple[str, str]]:
    return list(dict.fromkeys((run.task, run.model) for run in runs))


def _environment(run: Run) -> dict[str, Any]:
    file = run.folder.path / "environment.json"
    return json.loads(file.read_text()) if file.exists() else {}


def _package(place: dict[str, Any], name: str) -> str:
    return str(place.get("packages", {}).get(name, "not known"))


def _distinct(values: Iterable[Any]) -> str:
    return ", ".join(dict.fromkeys(map(str, values)))
